//! Name formats (RFC 1123, RFC 1035, qualified names) with upstream's messages.
//!
//! Each function returns what is wrong, in words; an empty list is a valid name.

use std::sync::LazyLock;

use rand::Rng;
use regex::Regex;

/// The most bytes of a DNS-1123 label.
pub const DNS_LABEL_BYTES_MAX: usize = 63;
/// The most bytes of a DNS-1123 subdomain.
pub const DNS_SUBDOMAIN_BYTES_MAX: usize = 253;

macro_rules! pattern {
    ($name:ident, $re:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(concat!("^(?:", $re, ")$")).expect("a valid pattern"));
    };
}

pattern!(LABEL, "[a-z0-9]([-a-z0-9]*[a-z0-9])?");
pattern!(
    SUBDOMAIN,
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
);
pattern!(LABEL_1035, "[a-z]([-a-z0-9]*[a-z0-9])?");
pattern!(QUALIFIED, "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]");
pattern!(LABEL_VALUE, "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?");

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Text of a regex mismatch, with examples.
pub fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    let e: Vec<String> = examples.iter().map(|x| format!("'{x}'")).collect();
    if e.is_empty() {
        format!("{message} (regex used for validation is '{pattern}')")
    } else {
        format!(
            "{message} (e.g. {}, regex used for validation is '{pattern}')",
            e.join(",  or ")
        )
    }
}

fn is_plain(s: &str, dots: bool) -> bool {
    // The common case by hand: a regex costs a thousand times more per name.
    let b = s.as_bytes();
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let Some((&first, &last)) = b.first().zip(b.last()) else {
        return false;
    };
    alnum(first)
        && alnum(last)
        && b.iter().enumerate().all(|(i, &c)| {
            alnum(c)
                || (c == b'-' && b[i - 1] != b'.' && b[i + 1] != b'.')
                || (dots && c == b'.' && b[i - 1] != b'.' && b[i + 1] != b'.')
        })
}

/// A DNS-1123 label: names of namespaces, containers, ports.
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > DNS_LABEL_BYTES_MAX {
        errors.push(too_long(DNS_LABEL_BYTES_MAX));
    }
    if !is_plain(s, false) && !LABEL.is_match(s) {
        errors.push(if SUBDOMAIN.is_match(s) {
            "must not contain dots".into()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

/// A DNS-1123 subdomain: names of most objects.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > DNS_SUBDOMAIN_BYTES_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_BYTES_MAX));
    }
    if !is_plain(s, true) && !SUBDOMAIN.is_match(s) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// A DNS-1035 label: names of services.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > DNS_LABEL_BYTES_MAX {
        errors.push(too_long(DNS_LABEL_BYTES_MAX));
    }
    if !LABEL_1035.is_match(s) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A qualified name, `[prefix/]name`: keys of labels, annotations, finalizers.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let example = ["MyName", "my.name", "123-abc"];
    let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character";
    let pattern = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let parts: Vec<&str> = s.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                errors.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|e| format!("prefix part {e}")),
                );
            }
            name
        }
        _ => {
            let e = regex_error(&format!("a qualified name {message}"), pattern, &example);
            return vec![format!(
                "{e} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > DNS_LABEL_BYTES_MAX {
        errors.push(format!("name part {}", too_long(DNS_LABEL_BYTES_MAX)));
    }
    if !is_plain(name, true) && !QUALIFIED.is_match(name) {
        errors.push(regex_error(
            &format!("name part {message}"),
            pattern,
            &example,
        ));
    }
    errors
}

/// The value of a label.
pub fn label_value(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > DNS_LABEL_BYTES_MAX {
        errors.push(too_long(DNS_LABEL_BYTES_MAX));
    }
    if !is_plain(s, false) && !LABEL_VALUE.is_match(s) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A name that may be a segment of a URL path.
pub fn path_segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    let bad: Vec<String> = ["/", "%"]
        .iter()
        .filter(|c| s.contains(**c))
        .map(|c| format!("may not contain '{c}'"))
        .collect();
    bad
}

/// The letters of generated suffixes: no vowels, no look-alikes.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The most bytes of a `generateName` that are kept.
pub const GENERATE_NAME_BYTES_MAX: usize = 63 - 5;

/// Five random letters, as upstream's generated names end in.
pub fn random_suffix() -> String {
    let mut rng = rand::rng();
    (0..5)
        .map(|_| char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())]))
        .collect()
}

/// A generated name for this `generateName`.
pub fn generate(base: &str) -> String {
    let mut end = base.len().min(GENERATE_NAME_BYTES_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_path_agrees_with_the_pattern() {
        for s in [
            "a", "a-b", "-a", "a-", "a.b", "a..b", "a.-b", "a-.b", "", "A", "a_b", ".a", "a.", "1",
            "a--b",
        ] {
            assert_eq!(is_plain(s, true), SUBDOMAIN.is_match(s), "{s:?}");
            assert_eq!(is_plain(s, false), LABEL.is_match(s), "{s:?}");
        }
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(qualified_name("a/b/c")[0].ends_with("'/' (e.g. 'example.com/MyName')"));
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(label_value("b c")[0].starts_with("a valid label must be an empty string"));
        assert!(dns1123_subdomain(&"a".repeat(254))[0].contains("253"));
    }

    #[test]
    fn generated_names_keep_to_the_limit() {
        assert_eq!(generate("web-").len(), 9);
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
    }
}
