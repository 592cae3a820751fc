//! Roles and ClusterRoles.

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::list;
use serde_json::Value;

use super::checks::{Errors, label_selector, member};
use crate::strategy::{Context, Strategy};

/// The strategy of roles and of clusterroles.
pub(super) struct Role {
    /// Whether its rules are for one namespace.
    pub(super) namespaced: bool,
}

impl Strategy for Role {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        for (i, r) in list(object, &["rules"]).iter().enumerate() {
            rule(
                &mut errors,
                &Path::new("rules").index(i),
                r,
                self.namespaced,
            );
        }
        if let Some(a) = member(object, "aggregationRule") {
            let at = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = list(a, &["clusterRoleSelectors"]);
            if selectors.is_empty() {
                let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(Error::required(&at, why));
            }
            for (i, s) in selectors.iter().enumerate() {
                label_selector(&mut errors, &at.index(i), s);
            }
        }
        errors
    }
}

fn rule(errors: &mut Errors, at: &Path, r: &Value, namespaced: bool) {
    if list(r, &["verbs"]).is_empty() {
        errors.push(Error::required(
            &at.child("verbs"),
            "verbs must contain at least one value",
        ));
    }
    let urls = list(r, &["nonResourceURLs"]);
    let (groups, resources) = (list(r, &["apiGroups"]), list(r, &["resources"]));
    if !urls.is_empty() {
        let path = at.child("nonResourceURLs");
        if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&path, urls.to_vec(), why));
        }
        if !groups.is_empty() || !resources.is_empty() || !list(r, &["resourceNames"]).is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&path, urls.to_vec(), why));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(Error::required(
            &at.child("apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if resources.is_empty() {
        errors.push(Error::required(
            &at.child("resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn rules_say_what_and_how() {
        let of = |namespaced, r: Value| {
            fields(&Role { namespaced }.validate(&cx(), &json!({"rules": [r]})))
        };
        assert!(
            of(
                true,
                json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
            )
            .is_empty()
        );
        assert_eq!(
            of(true, json!({"verbs": ["get"]})),
            ["rules[0].apiGroups", "rules[0].resources"]
        );
        assert_eq!(
            of(true, json!({"nonResourceURLs": ["/x"]})),
            ["rules[0].verbs", "rules[0].nonResourceURLs"]
        );
        assert!(of(false, json!({"nonResourceURLs": ["/x"], "verbs": ["get"]})).is_empty());
    }
}
