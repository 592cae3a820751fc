//! HTTP requests for API calls.

use kontiki_api::Resource;
use kontiki_reconcile::{ListParams, Request, Verb, WatchParams};

/// Method, path with query, and media type of the body, for a call.
pub(crate) fn of_call(q: &Request) -> (http::Method, String, &'static str) {
    let collection = q.verb == Verb::Create && q.subresource.is_empty();
    let name = (!collection).then_some(q.name.as_str());
    let mut path = q.resource.path(some(&q.namespace), name);
    if !q.subresource.is_empty() {
        path.push('/');
        path.push_str(q.subresource);
    }
    let query: Vec<(&str, &str)> = q.query.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let json = "application/json";
    let (method, content_type) = match q.verb {
        Verb::Get => (http::Method::GET, json),
        Verb::Create => (http::Method::POST, json),
        Verb::Update => (http::Method::PUT, json),
        Verb::Patch(kind) => (http::Method::PATCH, kind.content_type()),
        Verb::Delete => (http::Method::DELETE, json),
    };
    (method, with_query(path, &query), content_type)
}

/// Path with query of a list.
pub(crate) fn of_list(r: &Resource, p: &ListParams) -> String {
    let limit = if p.limit == 0 {
        String::new()
    } else {
        p.limit.to_string()
    };
    let query = [
        ("labelSelector", p.label_selector.as_str()),
        ("fieldSelector", &p.field_selector),
        ("limit", &limit),
        ("continue", &p.continue_token),
    ];
    with_query(r.path(some(&p.namespace), None), &query)
}

/// Path with query of a watch that the server ends after so many seconds.
pub(crate) fn of_watch(r: &Resource, p: &WatchParams, timeout_seconds: u64) -> String {
    let timeout = timeout_seconds.to_string();
    let query = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", &p.resource_version),
        ("labelSelector", &p.label_selector),
        ("fieldSelector", &p.field_selector),
        ("timeoutSeconds", &timeout),
    ];
    with_query(r.path(some(&p.namespace), None), &query)
}

fn some(namespace: &str) -> Option<&str> {
    (!namespace.is_empty()).then_some(namespace)
}

fn with_query(mut path: String, query: &[(&str, &str)]) -> String {
    for (i, (k, v)) in query.iter().filter(|(_, v)| !v.is_empty()).enumerate() {
        path.push(if i == 0 { '?' } else { '&' });
        path.push_str(k);
        path.push('=');
        escape(&mut path, v);
    }
    path
}

/// Writes a text with everything escaped that is not unreserved (RFC 3986).
fn escape(out: &mut String, text: &str) {
    use std::fmt::Write;
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").expect("writing to a String does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kontiki_api::catalogue::known;
    use kontiki_reconcile::PatchKind;

    use super::*;

    fn call(
        verb: Verb,
        name: &str,
        subresource: &'static str,
    ) -> (http::Method, String, &'static str) {
        let query = vec![("fieldManager", "a b".to_owned())];
        let (namespace, name) = ("ns".to_owned(), name.to_owned());
        of_call(&Request {
            verb,
            resource: known::pods(),
            namespace,
            name,
            subresource,
            query,
            body: Bytes::new(),
        })
    }

    #[test]
    fn calls_become_methods_paths_and_media_types() {
        let (method, path, kind) = call(Verb::Create, "", "");
        assert_eq!(
            (method.as_str(), path.as_str(), kind),
            (
                "POST",
                "/api/v1/namespaces/ns/pods?fieldManager=a%20b",
                "application/json"
            )
        );
        let (method, path, _) = call(Verb::Create, "p", "binding");
        assert_eq!(
            (method.as_str(), path.as_str()),
            (
                "POST",
                "/api/v1/namespaces/ns/pods/p/binding?fieldManager=a%20b"
            )
        );
        let (method, path, kind) = call(Verb::Patch(PatchKind::Merge), "p", "status");
        assert!(method == "PATCH" && path.starts_with("/api/v1/namespaces/ns/pods/p/status?"));
        assert_eq!(kind, "application/merge-patch+json");
    }

    #[test]
    fn selectors_are_escaped_and_empty_ones_left_out() {
        let p = ListParams {
            label_selector: "a in (b,c)".into(),
            limit: 5,
            ..ListParams::default()
        };
        assert_eq!(
            of_list(known::nodes(), &p),
            "/api/v1/nodes?labelSelector=a%20in%20%28b%2Cc%29&limit=5"
        );
        let p = WatchParams {
            namespace: "ns".into(),
            resource_version: "7".into(),
            ..WatchParams::default()
        };
        let want = "/api/v1/namespaces/ns/pods?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=9";
        assert_eq!(of_watch(known::pods(), &p, 9), want);
    }
}
