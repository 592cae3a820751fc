//! What a request asks for: its path, taken apart, and its query.

use std::borrow::Cow;

use http::Method;

/// A path that names a resource: `/api/v1/namespaces/{namespace}/{resource}/{name}/{subresource}/{rest}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What comes after the subresource, with its leading slash (for proxies).
    pub(crate) rest: String,
    /// Whether the path has a namespace, also where it is the object itself.
    pub(crate) in_namespace: bool,
}

/// Subresources of namespaces; anything else after `/namespaces/{name}` is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl ResourcePath {
    /// Takes the path of a resource apart; `None` if it is not one (`/healthz`, `/apis/apps`, …).
    pub(crate) fn parse(path: &str) -> Option<ResourcePath> {
        let mut parts = path.trim_matches('/').split('/');
        let mut out = ResourcePath::default();
        match parts.next()? {
            "api" => out.version = decode(parts.next()?),
            "apis" => {
                out.group = decode(parts.next()?);
                out.version = decode(parts.next()?);
            }
            _ => return None,
        }
        let rest: Vec<&str> = parts.collect();
        let mut rest = &rest[..];
        if let ["namespaces", ns, more @ ..] = rest {
            out.in_namespace = true;
            match more {
                [] => {}
                [sub, ..] if NAMESPACE_SUBRESOURCES.contains(sub) => {}
                _ => {
                    out.namespace = decode(ns);
                    rest = more;
                }
            }
        }
        let (resource, rest) = rest.split_first()?;
        out.resource = decode(resource);
        if out.resource.is_empty() {
            return None;
        }
        if let Some((name, rest)) = rest.split_first() {
            out.name = decode(name);
            if let Some((sub, rest)) = rest.split_first() {
                out.subresource = decode(sub);
                // A proxied path keeps its escapes and its trailing slash.
                let head = path.len() - path.trim_start_matches('/').len();
                if !rest.is_empty() || path.ends_with('/') {
                    let skip = path[head..]
                        .match_indices('/')
                        .nth(skipped(path) + 2)
                        .map(|(i, _)| i + head);
                    out.rest = skip.map(|i| path[i..].to_owned()).unwrap_or_default();
                }
            }
        }
        Some(out)
    }

    /// The verb of the authorizer for this method.
    pub(crate) fn verb(&self, method: &Method, query: &Query) -> &'static str {
        let named = !self.name.is_empty();
        match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ if query.flag("watch") => "watch",
            _ if named => "get",
            _ => "list",
        }
    }
}

/// How many slashes come before the name's own: those of group, version, namespace and resource.
fn skipped(path: &str) -> usize {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let base = if parts[0] == "api" { 2 } else { 3 };
    if parts.get(base) == Some(&"namespaces")
        && parts.len() > base + 3
        && !NAMESPACE_SUBRESOURCES.contains(&parts[base + 2])
    {
        base + 2
    } else {
        base
    }
}

/// Resolves percent escapes.
pub(crate) fn decode(s: &str) -> String {
    unescape(s, false).into_owned()
}

fn unescape(s: &str, plus: bool) -> Cow<'_, str> {
    let escaped = s.contains('%') || (plus && s.contains('+'));
    if !escaped {
        return s.into();
    }
    let bytes = s.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(b)) => {
                out.push(b);
                i += 2;
            }
            (b'+', _) if plus => out.push(b' '),
            (b, _) => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// The query, with its escapes resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Query {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty());
        Query(
            pairs
                .map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    (
                        unescape(k, true).into_owned(),
                        unescape(v, true).into_owned(),
                    )
                })
                .collect(),
        )
    }

    pub(crate) fn of_pairs(pairs: &[(&'static str, String)]) -> Query {
        Query(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect(),
        )
    }

    /// The first value of a parameter; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map_or("", |(_, v)| v)
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// Whether the parameter is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }

    /// Reads a boolean as upstream's conversion does: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .is_some_and(|(_, v)| !matches!(v.to_lowercase().as_str(), "false" | "0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(p: &str) -> ResourcePath {
        ResourcePath::parse(p).expect("a resource")
    }

    #[test]
    fn paths_are_taken_apart() {
        let p = path("/apis/apps/v1/namespaces/a/deployments/b/scale");
        assert_eq!((&*p.group, &*p.version, &*p.namespace), ("apps", "v1", "a"));
        assert_eq!(
            (&*p.resource, &*p.name, &*p.subresource),
            ("deployments", "b", "scale")
        );
        let p = path("/api/v1/namespaces/a/status");
        assert_eq!(
            (&*p.namespace, &*p.resource, &*p.name, &*p.subresource),
            ("", "namespaces", "a", "status")
        );
        let p = path("/api/v1/namespaces/a");
        assert_eq!((&*p.resource, &*p.name), ("namespaces", "a"));
        let p = path("/api/v1/namespaces/a/pods");
        assert_eq!((&*p.namespace, &*p.resource, &*p.name), ("a", "pods", ""));
        assert_eq!(
            path("/api/v1/namespaces/a/pods/p/proxy/x/y%20z/").rest,
            "/x/y%20z/"
        );
        assert_eq!(path("/api/v1/nodes/n/proxy/logs").rest, "/logs");
        assert_eq!(path("/api/v1/nodes/n/proxy/").rest, "/");
        assert_eq!(path("/api/v1/nodes/n/proxy").rest, "");
        assert_eq!(ResourcePath::parse("/healthz"), None);
        assert_eq!(ResourcePath::parse("/apis/apps"), None);
        assert_eq!(ResourcePath::parse("/apis/apps/v1"), None);
    }

    #[test]
    fn verbs_follow_method_name_and_watch() {
        let none = Query::default();
        assert_eq!(path("/api/v1/pods").verb(&Method::GET, &none), "list");
        assert_eq!(
            path("/api/v1/pods").verb(&Method::GET, &Query::parse(Some("watch=1"))),
            "watch"
        );
        assert_eq!(
            path("/api/v1/nodes/n").verb(&Method::DELETE, &none),
            "delete"
        );
    }

    #[test]
    fn queries_are_unescaped() {
        let q = Query::parse(Some("labelSelector=a%3Db+c&watch&x=%zz&watch=0"));
        assert_eq!(q.get("labelSelector"), "a=b c");
        assert!(q.flag("watch"));
        assert_eq!(q.get("x"), "%zz");
        assert!(!Query::parse(Some("watch=false")).flag("watch"));
    }
}
