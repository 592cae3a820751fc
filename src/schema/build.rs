//! Makes the table of the built-in schemas.
//!
//! Types, required fields, formats and descriptions come from `k8s-openapi`; what it does not know (list and patch
//! behaviour, defaults, enums, which fields are written although they are empty) from the tables under `facts/`.

#[path = "build/definitions.rs"]
mod definitions;
#[path = "build/facts.rs"]
mod facts;
#[path = "build/protobuf.rs"]
mod protobuf;
#[path = "build/roots.rs"]
mod roots;
#[path = "build/table.rs"]
mod table;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=facts");
    println!("cargo::rerun-if-changed=../api/resources.tsv");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let facts = facts::Facts::load();
    let definitions = definitions::collect(&facts);
    let table = table::write(&definitions, &facts);
    for (name, text) in [
        ("index.tsv", &table.index),
        ("schemas.tsv", &table.schemas),
        ("words.txt", &table.words),
        ("protobuf.tsv", &protobuf::table(&definitions)),
    ] {
        let path = Path::new(&out).join(name);
        std::fs::write(&path, text)
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}
