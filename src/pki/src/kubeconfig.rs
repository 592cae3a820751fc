//! Kubeconfig files with embedded credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Identity;

/// A kubeconfig for this server and identity, as kubectl reads it. JSON is YAML, and needs no YAML writer.
pub fn render(
    cluster: &str,
    server: &str,
    ca_pem: &str,
    user: &str,
    identity: &Identity,
) -> String {
    let context = format!("{user}@{cluster}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&identity.cert_pem),
            "client-key-data": STANDARD.encode(&identity.key_pem),
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    });
    format!("{config:#}\n")
}
