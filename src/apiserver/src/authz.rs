//! Who may do what: administrators and the cluster's own components everything, others what upstream lets everybody do.

use http::Method;
use kontiki_api::{ApiError, Reason};

use crate::user::{AUTHENTICATED, MASTERS, User};

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
    /// The path of what is no resource.
    pub(crate) path: &'a str,
}

/// The groups of the cluster's own components.
const COMPONENTS: [&str; 2] = ["system:nodes", "system:kube-components"];
/// What anybody may see (`system:public-info-viewer`).
const PUBLIC_PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// What every user may see (`system:discovery`).
const DISCOVERY_PATHS: [&str; 4] = ["/api", "/apis", "/openapi", "/version"];
/// What every user may ask about himself (`system:basic-user`).
const SELF_REVIEWS: [&str; 3] = [
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
];

/// Whether the user may do it.
pub(crate) fn allowed(u: &User, a: &Attributes<'_>) -> bool {
    if u.is_in(MASTERS)
        || u.name.starts_with("system:kube-")
        || COMPONENTS.iter().any(|g| u.is_in(g))
    {
        return true;
    }
    if a.path.is_empty() {
        return a.verb == "create" && SELF_REVIEWS.contains(&a.resource) && u.is_in(AUTHENTICATED);
    }
    if a.verb != "get" {
        return false;
    }
    let below = |root: &str| {
        a.path
            .strip_prefix(root)
            .is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    PUBLIC_PATHS.contains(&a.path)
        || (u.is_in(AUTHENTICATED) && DISCOVERY_PATHS.iter().any(|r| below(r)))
        || (a.path == "/.well-known/openid-configuration" || a.path == "/openid/v1/jwks")
}

/// The verb of a path that is no resource.
pub(crate) fn path_verb(method: &Method) -> String {
    method.as_str().to_ascii_lowercase()
}

/// The refusal, in upstream's words.
pub(crate) fn forbidden(u: &User, a: &Attributes<'_>) -> ApiError {
    let user = &u.name;
    if a.resource.is_empty() {
        let mut e = ApiError::new(
            Reason::Forbidden,
            format!(
                "forbidden: User {user:?} cannot {} path {:?}",
                a.verb, a.path
            ),
        );
        e.0.with_details = true;
        return e;
    }
    let shown = if a.subresource.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}/{}", a.resource, a.subresource)
    };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    let group_resource = if a.group.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}.{}", a.resource, a.group)
    };
    let what = if a.name.is_empty() {
        group_resource
    } else {
        format!("{group_resource} {:?}", a.name)
    };
    let mut e = ApiError::new(
        Reason::Forbidden,
        format!(
            "{what} is forbidden: User {user:?} cannot {} resource {shown:?} in API group {:?} {place}",
            a.verb, a.group
        ),
    );
    e.0.name = a.name.into();
    e.0.group = a.group.into();
    e.0.kind = a.resource.into();
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_administrators_and_components_touch_resources() {
        let a = Attributes {
            verb: "list",
            resource: "secrets",
            ..Attributes::default()
        };
        let user = |group: &str| User {
            name: "u".into(),
            groups: vec![group.into(), AUTHENTICATED.into()],
            ..User::default()
        };
        assert!(allowed(&user(MASTERS), &a));
        assert!(allowed(&user("system:nodes"), &a));
        assert!(!allowed(&user("others"), &a));
        assert!(!allowed(&User::anonymous(), &a));
        let e = forbidden(&User::anonymous(), &a);
        assert_eq!(
            e.to_string(),
            "secrets is forbidden: User \"system:anonymous\" cannot list resource \"secrets\" in API group \"\" at the cluster scope"
        );
    }

    #[test]
    fn health_is_public_and_discovery_is_for_users() {
        let get = |path| Attributes {
            verb: "get",
            path,
            ..Attributes::default()
        };
        let user = User {
            name: "u".into(),
            groups: vec![AUTHENTICATED.into()],
            ..User::default()
        };
        assert!(allowed(&User::anonymous(), &get("/healthz")));
        assert!(!allowed(&User::anonymous(), &get("/api")));
        assert!(!allowed(&User::anonymous(), &get("/metrics")));
        assert!(allowed(&user, &get("/openapi/v3/apis/apps/v1")));
        assert!(!allowed(&user, &get("/apisx")));
        assert!(!allowed(&user, &get("/metrics")));
    }
}
