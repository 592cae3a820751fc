//! Admission that looks at the namespace (upstream's `NamespaceLifecycle`).

use kontiki_api::{ApiError, Cause, catalogue, object};
use serde_json::Value;

use super::Engine;
use crate::registry::Kind;

/// Namespaces that may not be deleted.
pub(super) const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Engine {
    /// Nothing is created in a namespace that is missing or on its way out.
    pub(super) async fn admit_namespace(
        &self,
        kind: &Kind,
        namespace: &str,
        v: &Value,
    ) -> Result<(), ApiError> {
        if !kind.resource.namespaced || kind.resource.plural == "localsubjectaccessreviews" {
            return Ok(());
        }
        let namespaces = catalogue::known::namespaces();
        let all = self.registry.of(namespaces).expect("namespaces are served");
        let entry = match all.cache.get("", namespace) {
            Some(e) => e,
            None => {
                self.catch_up().await?;
                all.cache
                    .get("", namespace)
                    .ok_or_else(|| ApiError::not_found(namespaces, namespace))?
            }
        };
        if entry.field("status.phase") == Some("Active") {
            return Ok(());
        }
        let ns = entry.decode();
        if object::text(&ns, &["status", "phase"]) != "Terminating" {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut e = ApiError::forbidden(kind.resource, object::name(v), why);
        e.0.causes = vec![Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }];
        Err(e)
    }
}
