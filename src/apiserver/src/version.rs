//! `/version`.

use serde_json::{Value, json};

/// The Kubernetes version that is served.
pub(crate) const KUBERNETES: &str = "v1.36.2";

/// What `kubectl version` shows of the server.
pub(crate) fn info() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": git_version(),
        "gitCommit": option_env!("KONTIKI_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("KONTIKI_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The version with our own behind it, as in `v1.36.2+kontiki0.1.0`.
pub(crate) fn git_version() -> String {
    format!("{KUBERNETES}+kontiki{}", env!("CARGO_PKG_VERSION"))
}

/// The architecture as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
