#[path = "build/roots.rs"]
mod roots;
fn main() {
    let mut g = schemars::SchemaGenerator::default();
    roots::register(&mut g);
    let d = g.take_definitions(false);
    std::fs::write("/tmp/k8sdefs.json", serde_json::to_string(&d).unwrap()).unwrap();
}
