//! Label selectors: the text form of query strings and the `LabelSelector` of objects.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names;

/// How a requirement compares a label with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operators are upstream's")]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// The values, sorted.
    pub values: Vec<String>,
}

/// All requirements have to hold. The default selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// The labels of an object, seen by a selector.
pub trait Labels {
    /// The value of the label, if the object has it.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// The `metadata.labels` of an object, or any map of strings.
impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Requirement {
    fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.label(&self.key);
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|b| number(b));
        match self.operator {
            Operator::Equals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value
                .and_then(number)
                .zip(bound())
                .is_some_and(|(v, b)| v > b),
            Operator::LessThan => value
                .and_then(number)
                .zip(bound())
                .is_some_and(|(v, b)| v < b),
        }
    }
}

impl Selector {
    /// Matches everything.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// Matches nothing.
    pub fn nothing() -> Selector {
        Selector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// A selector of these requirements.
    pub fn new(requirements: Vec<Requirement>) -> Selector {
        Selector {
            requirements,
            nothing: false,
        }
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// A selector that wants each of these labels to have this value (a Service's or ReplicationController's selector).
    pub fn from_map(m: &BTreeMap<String, String>) -> Selector {
        Selector::new(
            m.iter()
                .map(|(k, v)| Requirement {
                    key: k.clone(),
                    operator: Operator::Equals,
                    values: vec![v.clone()],
                })
                .collect(),
        )
    }

    /// Whether these labels match.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let tokens = lex(text);
        let mut p = Parser {
            tokens: &tokens,
            at: 0,
        };
        let mut out = Vec::new();
        loop {
            match p.peek() {
                Token::End if out.is_empty() => break,
                Token::Word(_) | Token::Not => {
                    out.push(p.requirement()?);
                    match p.next() {
                        Token::End => break,
                        Token::Comma => {
                            if !matches!(p.peek(), Token::Word(_) | Token::Not) {
                                return Err(format!(
                                    "found '{}', expected: identifier after ','",
                                    p.peek()
                                ));
                            }
                        }
                        t => return Err(format!("found '{t}', expected: ',' or 'end of string'")),
                    }
                }
                t => {
                    return Err(format!(
                        "found '{t}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector::new(out))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let list = r.values.join(",");
            match r.operator {
                Operator::Equals => write!(f, "{}={list}", r.key)?,
                Operator::NotEquals => write!(f, "{}!={list}", r.key)?,
                Operator::In => write!(f, "{} in ({list})", r.key)?,
                Operator::NotIn => write!(f, "{} notin ({list})", r.key)?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{list}", r.key)?,
                Operator::LessThan => write!(f, "{}<{list}", r.key)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Open,
    Close,
    Comma,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::Word(w) => w,
            Token::Not => "!",
            Token::Equals => "=",
            Token::DoubleEquals => "==",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::End => "",
        })
    }
}

fn lex(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        chars.next();
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => out.push(Token::Open),
            ')' => out.push(Token::Close),
            ',' => out.push(Token::Comma),
            '>' => out.push(Token::Greater),
            '<' => out.push(Token::Less),
            '!' if chars.next_if_eq(&'=').is_some() => out.push(Token::NotEquals),
            '!' => out.push(Token::Not),
            '=' if chars.next_if_eq(&'=').is_some() => out.push(Token::DoubleEquals),
            '=' => out.push(Token::Equals),
            _ => {
                let mut w = c.to_string();
                while let Some(c) = chars.next_if(|c| !" \t\r\n(),><!=".contains(*c)) {
                    w.push(c);
                }
                out.push(Token::Word(w));
            }
        }
    }
    out.push(Token::End);
    out
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let t = self.peek();
        self.at += 1;
        t
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let Token::Word(key) = self.next() else {
            self.at -= 1;
            return Err(format!("found '{}', expected: identifier", self.peek()));
        };
        if let Some(e) = names::qualified_name(&key).first() {
            return Err(format!("key: Invalid value: {key:?}: {e}"));
        }
        let done = |operator, values| {
            Ok(Requirement {
                key: key.clone(),
                operator,
                values,
            })
        };
        if negated {
            return done(Operator::DoesNotExist, vec![]);
        }
        match self.peek() {
            Token::End | Token::Comma => return done(Operator::Exists, vec![]),
            _ => {}
        }
        let (operator, values) = match self.next() {
            Token::Equals | Token::DoubleEquals => (Operator::Equals, vec![self.value()?]),
            Token::NotEquals => (Operator::NotEquals, vec![self.value()?]),
            Token::Greater => (Operator::GreaterThan, vec![self.value()?]),
            Token::Less => (Operator::LessThan, vec![self.value()?]),
            Token::Word(w) if w == "in" => (Operator::In, self.list()?),
            Token::Word(w) if w == "notin" => (Operator::NotIn, self.list()?),
            t => {
                return Err(format!(
                    "found '{t}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        if matches!(operator, Operator::GreaterThan | Operator::LessThan)
            && values[0].parse::<i64>().is_err()
        {
            return Err(format!(
                "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                values[0]
            ));
        }
        for (i, v) in values.iter().enumerate() {
            if let Some(e) = names::label_value(v).first() {
                return Err(format!("values[{i}][{key}]: Invalid value: {v:?}: {e}"));
            }
        }
        done(operator, values)
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::Word(w) => {
                self.next();
                Ok(w)
            }
            Token::End | Token::Comma => Ok(String::new()),
            t => Err(format!("found '{t}', expected: identifier")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        if self.next() != Token::Open {
            self.at -= 1;
            return Err(format!("found '{}' expected: '('", self.peek()));
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(w) => {
                    values.push(w);
                    match self.next() {
                        Token::Comma => {}
                        Token::Close => break,
                        t => return Err(format!("found '{t}', expected: ',' or ')'")),
                    }
                }
                Token::Comma => values.push(String::new()),
                Token::Close => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    break;
                }
                t => return Err(format!("found '{t}', expected: ',', ')' or identifier")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

/// One expression of a [`LabelSelector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values, for `In` and `NotIn`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::meta::null_is_default"
    )]
    pub values: Vec<String>,
}

/// The selector that objects carry (`metav1.LabelSelector`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::meta::null_is_default"
    )]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::meta::null_is_default"
    )]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

impl LabelSelector {
    /// The selector to match with; an empty one matches everything.
    ///
    /// # Errors
    /// The operator that is not one.
    pub fn to_selector(&self) -> Result<Selector, String> {
        let mut s = Selector::from_map(&self.match_labels);
        for e in &self.match_expressions {
            let operator = match e.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let mut values = e.values.clone();
            values.sort();
            s.requirements.push(Requirement {
                key: e.key.clone(),
                operator,
                values,
            });
        }
        s.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(s)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_matches_as_upstream() {
        let labels = json!({"a": "b", "n": "5", "empty": ""});
        for (text, want) in [
            ("", true),
            ("a=b", true),
            ("a==b,n", true),
            ("a!=b", false),
            ("z!=b", true),
            ("a in (x,b)", true),
            ("a notin (b)", false),
            ("z notin (b)", true),
            ("!z", true),
            ("!a", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("empty=", true),
            ("z=", false),
            ("a in (,b)", true),
        ] {
            assert_eq!(
                Selector::parse(text).expect(text).matches(&labels),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "a=b=c",
            "a in b",
            "=",
            "a,",
            "a in (b",
            "x y",
            "a>b",
            "bad key!=1",
            "-a=b",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["a=b,c!=d", "e in (f,g),h notin (i)", "!k,j", "l>1,m<2"] {
            let s = Selector::parse(text).expect(text);
            assert_eq!(Selector::parse(&s.to_string()).expect("parses again"), s);
        }
    }
}
