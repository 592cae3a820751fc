//! RoleBindings and ClusterRoleBindings.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{list, name, text};
use serde_json::Value;

use super::checks::{Errors, default_text, invalid_shown, items_mut, map_of, same, unsupported};
use super::columns::{AGE, NAME, age, string, wide};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of rolebindings and of clusterrolebindings.
pub(super) struct RoleBinding {
    /// Whether it binds in one namespace.
    pub(super) namespaced: bool,
}

static COLUMNS: [Column; 6] = [
    NAME,
    string(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

static CLUSTER_COLUMNS: [Column; 6] = [
    NAME,
    string(
        "Role",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "Users in the clusterRoleBinding"),
    wide("Groups", "Groups in the clusterRoleBinding"),
    wide(
        "ServiceAccounts",
        "ServiceAccounts in the clusterRoleBinding",
    ),
];

/// The group of roles, users and groups.
const GROUP: &str = "rbac.authorization.k8s.io";

impl Strategy for RoleBinding {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(r) = map_of(object, "roleRef") {
            default_text(r, "apiGroup", GROUP);
        }
        for s in items_mut(object, "subjects") {
            if matches!(text(s, &["kind"]), "User" | "Group") {
                default_text(s, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("roleRef");
        let role = object.get("roleRef").unwrap_or(&Value::Null);
        let group = text(role, &["apiGroup"]);
        if group != GROUP {
            errors.push(unsupported(&at.child("apiGroup"), group, &[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced {
            &["Role", "ClusterRole"]
        } else {
            &["ClusterRole"]
        };
        let kind = text(role, &["kind"]);
        if !kinds.contains(&kind) {
            errors.push(unsupported(&at.child("kind"), kind, kinds));
        }
        match text(role, &["name"]) {
            "" => errors.push(Error::required(&at.child("name"), "")),
            n => errors.extend(
                names::path_segment(n)
                    .into_iter()
                    .map(|m| Error::invalid(&at.child("name"), n, m)),
            ),
        }
        for (i, s) in list(object, &["subjects"]).iter().enumerate() {
            subject(
                &mut errors,
                &Path::new("subjects").index(i),
                s,
                self.namespaced,
            );
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        if !same(new.get("roleRef"), old.get("roleRef")) {
            let part = |key: &str| Value::from(text(new, &["roleRef", key])).to_string();
            let shown = format!(
                "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
                part("apiGroup"),
                part("kind"),
                part("name")
            );
            errors.push(invalid_shown(
                &Path::new("roleRef"),
                shown,
                "cannot change roleRef",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        if self.namespaced {
            &COLUMNS
        } else {
            &CLUSTER_COLUMNS
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |kind: &str| -> Value {
            let all = list(object, &["subjects"])
                .iter()
                .filter(|s| text(s, &["kind"]) == kind);
            let shown = all.map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(s, &["namespace"]), text(s, &["name"])),
                _ => text(s, &["name"]).to_owned(),
            });
            shown.collect::<Vec<_>>().join(", ").into()
        };
        let role = format!(
            "{}/{}",
            text(object, &["roleRef", "kind"]),
            text(object, &["roleRef", "name"])
        );
        vec![
            name(object).into(),
            role.into(),
            age(object, now),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    }
}

fn subject(errors: &mut Errors, at: &Path, s: &Value, namespaced: bool) {
    let (subject_name, group) = (text(s, &["name"]), text(s, &["apiGroup"]));
    if subject_name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    }
    match text(s, &["kind"]) {
        "ServiceAccount" => {
            if !subject_name.is_empty() {
                let bad = names::dns1123_subdomain(subject_name);
                errors.extend(
                    bad.into_iter()
                        .map(|m| Error::invalid(&at.child("name"), subject_name, m)),
                );
            }
            if !group.is_empty() {
                errors.push(unsupported(&at.child("apiGroup"), group, &[""]));
            }
            // A binding in a namespace means its own where it names none.
            if !namespaced && text(s, &["namespace"]).is_empty() {
                errors.push(Error::required(&at.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(unsupported(&at.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => errors.push(unsupported(
            &at.child("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    const BINDING: RoleBinding = RoleBinding { namespaced: true };

    #[test]
    fn roles_and_subjects_are_checked() {
        let o = json!({"roleRef": {"kind": "x", "name": ""}, "subjects": [{"kind": "Robot", "name": "r"},
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        let o = idempotent(&BINDING, o);
        assert_eq!(
            fields(&BINDING.validate(&cx(), &o)),
            ["roleRef.kind", "roleRef.name", "subjects[0].kind"]
        );
        let cluster = RoleBinding { namespaced: false };
        assert!(fields(&cluster.validate(&cx(), &o)).contains(&"subjects[2].namespace".to_owned()));
    }

    #[test]
    fn the_role_stays() {
        let of = |n: &str| idempotent(&BINDING, json!({"roleRef": {"kind": "Role", "name": n}}));
        assert_eq!(
            fields(&BINDING.validate_update(&cx(), &of("b"), &of("a"))),
            ["roleRef"]
        );
        assert!(
            BINDING
                .validate_update(&cx(), &of("a"), &of("a"))
                .is_empty()
        );
    }
}
