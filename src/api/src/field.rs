//! Field paths and field errors, with the wording of apimachinery's `util/validation/field`.

use std::fmt;

use serde_json::Value;

/// The path of a field, built from the root down: `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts at this name.
    pub fn new(name: &str) -> Path {
        Path(name.to_owned())
    }

    /// The path of the object itself (empty).
    pub fn root() -> Path {
        Path::default()
    }

    /// `self.name`.
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() {
            Path(name.to_owned())
        } else {
            Path(format!("{}.{name}", self.0))
        }
    }

    /// `self[index]`.
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// `self[key]`.
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }

    /// The path as text; the root is `<nil>` in upstream's messages and empty here.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field (`field.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are upstream's error types, word for word"
)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub fn cause_reason(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::Internal => "InternalError",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
            ErrorKind::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field. `Display` is `path: body`.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The field's path; empty for the object itself.
    pub field: String,
    /// The offending value, as upstream prints it; `None` where the kind shows none.
    pub value: Option<String>,
    /// More words, or empty.
    pub detail: String,
}

impl Error {
    /// An error of this kind with a value that is printed as JSON is.
    pub fn new(
        kind: ErrorKind,
        path: &Path,
        value: Option<&Value>,
        detail: impl Into<String>,
    ) -> Error {
        Error {
            kind,
            field: path.0.clone(),
            value: value.map(show),
            detail: detail.into(),
        }
    }

    /// The value is missing.
    pub fn required(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorKind::Required, path, None, detail)
    }

    /// The value is malformed.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, path, Some(&value.into()), detail)
    }

    /// The value has the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::new(ErrorKind::TypeInvalid, path, Some(&value.into()), detail)
    }

    /// The value occurs twice.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Error {
        Error::new(ErrorKind::Duplicate, path, Some(&value.into()), "")
    }

    /// The value is not in the list of what is supported; `supported` is sorted here.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Error {
        let mut s: Vec<&str> = supported.to_vec();
        s.sort_unstable();
        let list: Vec<String> = s.iter().map(|x| format!("{x:?}")).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        Error::new(ErrorKind::NotSupported, path, Some(&value.into()), detail)
    }

    /// The value may not be there, or may not change.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorKind::Forbidden, path, None, detail)
    }

    /// The value is longer than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Error {
        Error::new(
            ErrorKind::TooLong,
            path,
            None,
            format!("may not be more than {max} bytes"),
        )
    }

    /// The list or map has more than `max` entries.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Error {
        let items = if max == 1 { "item" } else { "items" };
        Error {
            kind: ErrorKind::TooMany,
            field: path.0.clone(),
            value: Some(actual.to_string()),
            detail: format!("must have at most {max} {items}"),
        }
    }

    /// What the value refers to is not there.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Error {
        Error::new(ErrorKind::NotFound, path, Some(&value.into()), "")
    }

    /// The message without the path.
    pub fn body(&self) -> String {
        let mut s = self.kind.words().to_owned();
        if let Some(v) = &self.value {
            s.push_str(": ");
            s.push_str(v);
        }
        if !self.detail.is_empty() {
            s.push_str(": ");
            s.push_str(&self.detail);
        }
        s
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() {
            "<nil>"
        } else {
            &self.field
        };
        write!(f, "{field}: {}", self.body())
    }
}

/// Upstream prints strings quoted, numbers bare and everything else as JSON.
fn show(v: &Value) -> String {
    match v {
        Value::Null => "null".into(),
        Value::String(s) => format!("{s:?}"),
        other => other.to_string(),
    }
}
