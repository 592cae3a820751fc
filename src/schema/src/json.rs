//! A JSON parser for request bodies: it finds duplicate members, bounds the depth and words its errors as clients of
//! upstream know them.

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Deepest nesting that is accepted. What is stored can then be read by any JSON parser, the ownership of fields included,
/// which nests a few levels deeper than the object.
pub const DEPTH_MAX: usize = 120;

/// Most duplicate members of a body that are reported; further ones are taken silently.
pub const DUPLICATES_MAX: usize = 100;

/// A parsed body.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The value; of members with the same name the last is taken.
    pub value: Value,
    /// Paths of the members that occur more than once, as in `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// The body is not JSON. `Display` is upstream's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The body ends within a value, or is empty.
    #[error("unexpected end of JSON input")]
    End,
    /// A byte that cannot stand where it stands.
    #[error("invalid character {} {where_}", quote(*.byte))]
    Byte {
        /// The byte.
        byte: u8,
        /// Where it stands, in words.
        where_: &'static str,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("exceeded max depth")]
    Depth,
    /// A number that no 64-bit number comes near.
    #[error("json: cannot unmarshal number {0} into Go value of type float64")]
    Number(String),
}

/// Parses a whole body.
///
/// # Errors
/// [`SyntaxError`] if it is not one JSON value with nothing but white space around it.
pub fn parse(body: &[u8]) -> Result<Parsed, SyntaxError> {
    let mut p = Parser {
        body,
        at: 0,
        depth: 0,
        duplicates: Vec::new(),
    };
    let value = p.value(None)?;
    p.space();
    match p.peek() {
        None => Ok(Parsed {
            value,
            duplicates: p.duplicates,
        }),
        Some(byte) => Err(SyntaxError::Byte {
            byte,
            where_: "after top-level value",
        }),
    }
}

/// The way from the root to a value, kept on the stack and only spelled out for a duplicate.
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    name: Result<&'a str, usize>,
}

impl Step<'_> {
    fn spell(&self, out: &mut String) {
        if let Some(p) = self.parent {
            p.spell(out);
        }
        match self.name {
            Ok(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Err(index) => out.push_str(&format!("[{index}]")),
        }
    }
}

struct Parser<'a> {
    body: &'a [u8],
    at: usize,
    depth: usize,
    duplicates: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The next byte that is no white space; it stays unread.
    fn token(&mut self) -> Result<u8, SyntaxError> {
        self.space();
        self.peek().ok_or(SyntaxError::End)
    }

    fn value(&mut self, path: Option<&Step<'_>>) -> Result<Value, SyntaxError> {
        match self.token()? {
            b'{' => self.nested(|p| p.object(path)),
            b'[' => self.nested(|p| p.array(path)),
            b'"' => Ok(Value::String(self.string()?)),
            b't' => self.literal("true", TRUE, Value::Bool(true)),
            b'f' => self.literal("false", FALSE, Value::Bool(false)),
            b'n' => self.literal("null", NULL, Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            byte => Err(SyntaxError::Byte {
                byte,
                where_: "looking for beginning of value",
            }),
        }
    }

    fn nested(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<Value, SyntaxError>,
    ) -> Result<Value, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SyntaxError::Depth);
        }
        self.at += 1;
        let v = f(self);
        self.depth -= 1;
        v
    }

    fn object(&mut self, path: Option<&Step<'_>>) -> Result<Value, SyntaxError> {
        let mut map = Map::new();
        if self.token()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            let byte = self.token()?;
            if byte != b'"' {
                return Err(SyntaxError::Byte {
                    byte,
                    where_: "looking for beginning of object key string",
                });
            }
            let key = self.string()?;
            let byte = self.token()?;
            if byte != b':' {
                return Err(SyntaxError::Byte {
                    byte,
                    where_: "after object key",
                });
            }
            self.at += 1;
            let value = self.value(Some(&Step {
                parent: path,
                name: Ok(&key),
            }))?;
            match map.entry(key) {
                Entry::Vacant(e) => {
                    e.insert(value);
                }
                Entry::Occupied(mut e) => {
                    self.duplicate(path, e.key());
                    e.insert(value);
                }
            }
            let byte = self.token()?;
            self.at += 1;
            match byte {
                b',' => {}
                b'}' => return Ok(Value::Object(map)),
                byte => {
                    return Err(SyntaxError::Byte {
                        byte,
                        where_: "after object key:value pair",
                    });
                }
            }
        }
    }

    fn duplicate(&mut self, path: Option<&Step<'_>>, key: &str) {
        if self.duplicates.len() < DUPLICATES_MAX {
            let mut spelled = String::new();
            let step = Step {
                parent: path,
                name: Ok(key),
            };
            step.spell(&mut spelled);
            if !self.duplicates.contains(&spelled) {
                self.duplicates.push(spelled);
            }
        }
    }

    fn array(&mut self, path: Option<&Step<'_>>) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        if self.token()? == b']' {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(Some(&Step {
                parent: path,
                name: Err(items.len()),
            }))?);
            let byte = self.token()?;
            self.at += 1;
            match byte {
                b',' => {}
                b']' => return Ok(Value::Array(items)),
                byte => {
                    return Err(SyntaxError::Byte {
                        byte,
                        where_: "after array element",
                    });
                }
            }
        }
    }

    fn literal(
        &mut self,
        word: &str,
        expecting: &'static [&'static str],
        value: Value,
    ) -> Result<Value, SyntaxError> {
        for (i, expected) in word.bytes().enumerate() {
            match self.peek() {
                None => return Err(SyntaxError::End),
                Some(byte) if byte != expected => {
                    return Err(SyntaxError::Byte {
                        byte,
                        where_: expecting[i],
                    });
                }
                Some(_) => self.at += 1,
            }
        }
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - from
    }

    /// At least one digit has to follow.
    fn some_digits(&mut self, where_: &'static str) -> Result<(), SyntaxError> {
        if self.digits() > 0 {
            return Ok(());
        }
        Err(self
            .peek()
            .map_or(SyntaxError::End, |byte| SyntaxError::Byte { byte, where_ }))
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let from = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.some_digits("in numeric literal")?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.body[from..self.at])
            .expect("digits, signs and dots are ASCII");
        if whole {
            if let Ok(n) = text.parse::<i64>() {
                return Ok(Value::Number(n.into()));
            }
            if let Ok(n) = text.parse::<u64>() {
                return Ok(Value::Number(n.into()));
            }
        }
        let float = text.parse::<f64>().ok().and_then(Number::from_f64);
        float
            .map(Value::Number)
            .ok_or_else(|| SyntaxError::Number(text.to_owned()))
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let from = self.at;
        self.at += plain(&self.body[from..]);
        match self.peek().ok_or(SyntaxError::End)? {
            b'"' => {
                let raw = &self.body[from..self.at];
                self.at += 1;
                Ok(text(raw))
            }
            b'\\' => self.escaped(from),
            byte => Err(SyntaxError::Byte {
                byte,
                where_: "in string literal",
            }),
        }
    }

    /// The rest of a string in which a backslash was found.
    fn escaped(&mut self, from: usize) -> Result<String, SyntaxError> {
        let mut out = text(&self.body[from..self.at]);
        loop {
            let byte = self.peek().ok_or(SyntaxError::End)?;
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                0..0x20 => {
                    return Err(SyntaxError::Byte {
                        byte,
                        where_: "in string literal",
                    });
                }
                _ => {
                    let start = self.at;
                    self.at += plain(&self.body[start..]);
                    out.push_str(&text(&self.body[start..self.at]));
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SyntaxError> {
        let byte = self.peek().ok_or(SyntaxError::End)?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            byte => {
                return Err(SyntaxError::Byte {
                    byte,
                    where_: "in string escape code",
                });
            }
        });
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let mut n = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or(SyntaxError::End)?;
            let digit = char::from(byte).to_digit(16);
            n = n * 16
                + digit.ok_or(SyntaxError::Byte {
                    byte,
                    where_: "in \\u hexadecimal character escape",
                })?;
            self.at += 1;
        }
        Ok(n)
    }

    /// The four digits after `\u`, and those of a second half if there is one; a lone half becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex()?;
        if (0xD800..0xDC00).contains(&first) && self.body[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex()?;
            if (0xDC00..0xE000).contains(&second) {
                let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// How many bytes there are before the next one that is special within a string.
fn plain(bytes: &[u8]) -> usize {
    let special = |b: &u8| SPECIAL[usize::from(*b)];
    bytes.iter().position(special).unwrap_or(bytes.len())
}

/// Control characters, the quote and the backslash.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = true;
        i += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Bytes that are not UTF-8 become U+FFFD.
fn text(raw: &[u8]) -> String {
    match std::str::from_utf8(raw) {
        Ok(s) => s.to_owned(),
        Err(_) => String::from_utf8_lossy(raw).into_owned(),
    }
}

const TRUE: &[&str] = &[
    "looking for beginning of value",
    "in literal true (expecting 'r')",
    "in literal true (expecting 'u')",
    "in literal true (expecting 'e')",
];
const FALSE: &[&str] = &[
    "looking for beginning of value",
    "in literal false (expecting 'a')",
    "in literal false (expecting 'l')",
    "in literal false (expecting 's')",
    "in literal false (expecting 'e')",
];
const NULL: &[&str] = &[
    "looking for beginning of value",
    "in literal null (expecting 'u')",
    "in literal null (expecting 'l')",
    "in literal null (expecting 'l')",
];

/// A byte as Go's scanner quotes it.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => "'\\\\'".into(),
        b'\n' => "'\\n'".into(),
        b'\r' => "'\\r'".into(),
        b'\t' => "'\\t'".into(),
        7 => "'\\a'".into(),
        8 => "'\\b'".into(),
        11 => "'\\v'".into(),
        12 => "'\\f'".into(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{:04x}'", u32::from(byte)),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests;
