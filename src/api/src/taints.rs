//! Taints of nodes and tolerations of pods.

use serde::{Deserialize, Serialize};

/// Effect of a taint: no new pods.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Effect of a taint: no new pods if others will have them.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Effect of a taint: no new pods, and those that are there leave.
pub const NO_EXECUTE: &str = "NoExecute";

/// The taint of a node that takes no new pods.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The taint of a node that says that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that says nothing any more.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A taint of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// When it was added (RFC 3339), where that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// A toleration of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// The key that it tolerates; empty (with `Exists`) for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// `Equal` (or empty), or `Exists`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// The value, for `Equal`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The effect that it tolerates; empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// For how long a `NoExecute` taint is tolerated; for ever if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Whether it tolerates this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let exists = self.operator == "Exists";
        (self.effect.is_empty() || self.effect == taint.effect)
            && if self.key.is_empty() {
                exists
            } else {
                self.key == taint.key
            }
            && (exists
                || (matches!(self.operator.as_str(), "" | "Equal") && self.value == taint.value))
    }
}

/// Whether one of the tolerations tolerates this taint.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| t.tolerates(taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: NO_EXECUTE.into(),
            time_added: None,
        };
        let t = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: key.into(),
            operator: operator.into(),
            value: value.into(),
            effect: effect.into(),
            toleration_seconds: None,
        };
        for (toleration, want) in [
            (t("k", "", "v", ""), true),
            (t("k", "Equal", "v", NO_EXECUTE), true),
            (t("k", "Equal", "w", ""), false),
            (t("k", "Exists", "", ""), true),
            (t("", "Exists", "", ""), true),
            (t("", "Exists", "", NO_SCHEDULE), false),
            (t("", "", "", ""), false),
            (t("x", "Exists", "", ""), false),
        ] {
            assert_eq!(toleration.tolerates(&taint), want, "{toleration:?}");
        }
    }
}
