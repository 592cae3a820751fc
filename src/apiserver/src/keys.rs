//! The keys of the store: `/registry/<group>/<plural>/[<namespace>/]<name>`; the core group is written `core`.

use bytes::Bytes;

/// What every key of ours begins with.
pub(crate) const ROOT: &str = "/registry/";

fn group_segment(group: &str) -> &str {
    if group.is_empty() { "core" } else { group }
}

/// The prefix of a resource's keys.
pub(crate) fn resource(group: &str, plural: &str) -> String {
    format!("{ROOT}{}/{plural}/", group_segment(group))
}

/// What comes after the resource's prefix: the object's place in the resource.
pub(crate) fn place(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// The key of an object.
pub(crate) fn object(prefix: &str, namespace: &str, name: &str) -> Bytes {
    let slash = if namespace.is_empty() { "" } else { "/" };
    Bytes::from(format!("{prefix}{namespace}{slash}{name}"))
}

/// Splits a key into the resource's prefix and the object's place in it.
pub(crate) fn split(key: &[u8]) -> Option<(&str, &str)> {
    let key = std::str::from_utf8(key).ok()?;
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.find('/')? + 1;
    let plural = group + rest[group..].find('/')? + 1;
    Some(key.split_at(ROOT.len() + plural))
}

/// Splits an object's place into namespace and name.
pub(crate) fn names(place: &str) -> (&str, &str) {
    place.split_once('/').unwrap_or(("", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_as_they_were_made() {
        let prefix = resource("", "pods");
        let key = object(&prefix, "ns", "a");
        assert_eq!(key, "/registry/core/pods/ns/a");
        assert_eq!(split(&key), Some(("/registry/core/pods/", "ns/a")));
        assert_eq!(names("ns/a"), ("ns", "a"));
        assert_eq!(
            names(split(b"/registry/apps/x/y").expect("a key").1),
            ("", "y")
        );
        assert_eq!(split(b"/other"), None);
    }
}
