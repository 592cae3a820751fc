//! URLs of calls: paths and encoded query strings.

use std::fmt::Write;

use kontiki_api::Resource;

/// The path of an object, or with an empty name of its collection, and of a subresource.
pub fn path(resource: &Resource, namespace: &str, name: &str, subresource: &str) -> String {
    let namespace = (!namespace.is_empty()).then_some(namespace);
    let mut p = resource.path(namespace, (!name.is_empty()).then_some(name));
    if !subresource.is_empty() {
        p.push('/');
        p.push_str(subresource);
    }
    p
}

/// Appends query parameters; those with an empty value are left out.
pub fn with_query<'a>(
    mut path: String,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut separator = if path.contains('?') { '&' } else { '?' };
    for (key, value) in parameters.into_iter().filter(|(_, v)| !v.is_empty()) {
        path.push(separator);
        path.push_str(key);
        path.push('=');
        encode(value, &mut path);
        separator = '&';
    }
    path
}

fn encode(value: &str, out: &mut String) {
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").expect("writing to a String does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use kontiki_api::catalogue::known;

    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(
            path(known::pods(), "a", "b", "log"),
            "/api/v1/namespaces/a/pods/b/log"
        );
        assert_eq!(path(known::pods(), "", "", ""), "/api/v1/pods");
        let q = with_query(
            "/x".into(),
            [("labelSelector", "a in (b,c)"), ("empty", ""), ("n", "1")],
        );
        assert_eq!(q, "/x?labelSelector=a%20in%20%28b%2Cc%29&n=1");
    }
}
