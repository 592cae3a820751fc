//! Generates the runtime's client from its proto files, without protoc.

fn main() {
    let files = ["cri.proto", "containerd_events.proto", "health.proto"];
    for f in files {
        println!("cargo::rerun-if-changed=proto/{f}");
    }
    let descriptors = protox::compile(files, ["proto"]).expect("the proto files compile");
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)
        .expect("code can be generated");
}
