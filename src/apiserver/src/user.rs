//! Who asks.

/// The group of everybody whose credential was accepted.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of those without a credential.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// A user with groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// The name, as in `system:node:n1`.
    pub(crate) name: String,
    /// The uid, if the credential has one.
    pub(crate) uid: String,
    /// The groups.
    pub(crate) groups: Vec<String>,
    /// Further attributes of the credential.
    pub(crate) extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// The user of requests without a credential.
    pub(crate) fn anonymous() -> User {
        User {
            name: "system:anonymous".into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..User::default()
        }
    }

    /// The server's own identity, for what it and its in-process loops do.
    pub(crate) fn server() -> User {
        User {
            name: "system:apiserver".into(),
            groups: vec![MASTERS.into(), AUTHENTICATED.into()],
            ..User::default()
        }
    }

    /// Whether the user is in the group.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The user as `authentication.k8s.io` writes it.
    pub(crate) fn to_value(&self) -> serde_json::Value {
        let mut v = serde_json::json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            v["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            v["extra"] = self
                .extra
                .iter()
                .map(|(k, v)| (k.clone(), serde_json::json!(v)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        v
    }
}
