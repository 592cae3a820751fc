//! The command line as a user meets it: what is printed, and what is refused with which words.

use std::process::{Command, Output};

fn kontiki(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kontiki"))
        .args(args)
        .output()
        .expect("the program starts")
}

fn refusal(args: &[&str]) -> String {
    // Should an option be taken by mistake, nothing is made outside of this directory.
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (data, config, run) = (path("data"), path("config"), path("run"));
    let mut args = args.to_vec();
    if ["up", "server"].contains(&args[0]) {
        args.extend([
            "--data-dir",
            &data,
            "--config-dir",
            &config,
            "--run-dir",
            &run,
        ]);
        args.extend(["--bind-address", "127.0.0.1", "--secure-port", "1"]);
    }
    let out = kontiki(&args);
    assert!(!out.status.success(), "{args:?} was taken");
    String::from_utf8(out.stderr).expect("text")
}

#[test]
fn the_version_names_kubernetes_and_kontiki() {
    let out = kontiki(&["version"]);
    let text = String::from_utf8(out.stdout).expect("text");
    assert!(
        text.starts_with("kontiki v1.36.") && text.contains("+kontiki"),
        "{text}"
    );
    let out = kontiki(&["version", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(
        json["version"]
            .as_str()
            .is_some_and(|v| v.starts_with("v1.36.")),
        "{json}"
    );
}

#[test]
fn wrong_options_are_refused_with_the_reason() {
    for (args, want) in [
        (
            &["up", "--kubelet-port", "70000"][..],
            "70000 is not in 0..=65535",
        ),
        (&["up", "--cluster-cidr", "10.0.0.0/99"], "--cluster-cidr"),
        (
            &[
                "up",
                "--node-ip",
                "192.0.2.1",
                "--cluster-cidr",
                "10.96.0.0/13",
            ],
            "overlap",
        ),
        (
            &["server", "--node-ip", "192.0.2.1", "--log-level", "loud"],
            "use error, warn, info",
        ),
        (
            &["server", "--node-ip", "192.0.2.1", "--log-format", "xml"],
            "use text or json",
        ),
        (
            &["server", "--config", "/nowhere/config.yaml"],
            "cannot read /nowhere/config.yaml",
        ),
        (
            &["get", "--raw", "nodes", "--kubeconfig", "/nowhere/k"],
            "/nowhere/k",
        ),
        (&["sever"], "a similar subcommand exists: 'server'"),
    ] {
        let text = refusal(args);
        assert!(text.contains(want), "{args:?}: {text}");
    }
}

#[test]
fn an_unknown_field_of_the_file_is_refused_with_a_suggestion() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "clusterCIDR: 10.244.0.0/16\n").expect("written");
    let text = refusal(&["up", "--config", file.to_str().expect("text")]);
    assert!(
        text.contains("clusterCIDR") && text.contains("did you mean `clusterCidr`?"),
        "{text}"
    );
}

#[test]
fn a_status_without_a_node_says_so() {
    let text = refusal(&["status", "--config-dir", "/nowhere"]);
    assert!(text.contains("does a node run here?"), "{text}");
}
