//! Field selectors: `metadata.name=x,spec.nodeName!=y`.

use std::fmt;

/// One term: a field, and the value that it must or must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The field's path, as in `spec.nodeName`.
    pub field: String,
    /// The value that it is compared with.
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// All terms have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The terms, in the order given.
    pub terms: Vec<Term>,
}

impl Selector {
    /// Parses the text form; `\`, `,` and `=` may be escaped with `\`.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|p| !p.is_empty()) {
            let (field, op, value) = split_term(&part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term {
                field: field.into(),
                value: unescape(value)?,
                negated: op == "!=",
            });
        }
        Ok(Selector { terms })
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the object matches whose fields `get` reads; a field that it lacks is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms
            .iter()
            .all(|t| (get(&t.field).unwrap_or_default() == t.value) != t.negated)
    }

    /// The value that the field must have, if a term says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.field == field && !t.negated)
            .map(|t| t.value.as_str())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.terms.iter().enumerate() {
            let value = t
                .value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=");
            let comma = if i > 0 { "," } else { "" };
            write!(
                f,
                "{comma}{}{}{value}",
                t.field,
                if t.negated { "!=" } else { "=" }
            )?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let (mut out, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            out.push(std::mem::take(&mut current));
            continue;
        }
        escaped = c == '\\' && !escaped;
        current.push(c);
    }
    out.push(current);
    out
}

fn split_term(term: &str) -> Option<(&str, &'static str, &str)> {
    for (i, _) in term.char_indices() {
        for op in ["!=", "==", "="] {
            if let Some(value) = term[i..].strip_prefix(op) {
                return Some((&term[..i], op, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{c}"
                    ));
                }
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {value}"
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_match_and_missing_fields_are_empty() {
        let s = Selector::parse("metadata.name=a,spec.nodeName!=b").expect("valid");
        assert!(s.matches(|f| (f == "metadata.name").then_some("a")));
        assert!(!s.matches(|f| Some(if f == "metadata.name" { "a" } else { "b" })));
        assert_eq!(s.exact("metadata.name"), Some("a"));
        assert_eq!(s.exact("spec.nodeName"), None);
    }

    #[test]
    fn escapes_round_trip() {
        let s = Selector::parse(r"a=x\,y\=z\\").expect("valid");
        assert_eq!(s.terms[0].value, r"x,y=z\");
        assert_eq!(Selector::parse(&s.to_string()).expect("valid"), s);
        assert!(Selector::parse("bad").is_err());
        assert!(Selector::parse(r"a=\x").is_err());
    }
}
