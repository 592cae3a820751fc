//! `Status`, the body of every refusal, and [`ApiError`], the error that carries one.
//!
//! Reasons, codes and messages follow apimachinery's `metav1.Status`; clients match on them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::catalogue::Resource;
use crate::field;

/// A machine-readable cause of a failure (`metav1.StatusReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "the variants are the reasons of metav1, word for word"
)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::Unknown | Reason::InternalError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }

    /// The reason as it is written in a `Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause of an `Invalid` status: which field, why, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: String,
    /// What is wrong, in words.
    pub message: String,
    /// The path of the field, as in `spec.containers[0].image`.
    pub field: String,
}

/// The body of a refusal: `metav1.Status` with status `Failure`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The reason that clients match on.
    pub reason: Reason,
    /// What happened, in words.
    pub message: String,
    /// Name of the object concerned, or empty.
    pub name: String,
    /// Group of the resource or kind concerned, or empty.
    pub group: String,
    /// Resource (or, for `Invalid`, kind) concerned, or empty.
    pub kind: String,
    /// Uid of the object concerned, or empty.
    pub uid: String,
    /// The causes, field by field.
    pub causes: Vec<Cause>,
    /// Seconds after which a client may try again; 0 says nothing.
    pub retry_after_seconds: u32,
    /// Whether `details` is written even if all of its fields are empty.
    pub with_details: bool,
    /// The token with which an expired list can go on, or empty.
    pub continue_token: String,
}

impl Status {
    /// The JSON object, with the members in the order-free canonical form.
    pub fn to_value(&self) -> Value {
        let mut details = Map::new();
        let mut put = |k: &str, v: &str| {
            if !v.is_empty() {
                details.insert(k.into(), v.into());
            }
        };
        put("name", &self.name);
        put("group", &self.group);
        put("kind", &self.kind);
        put("uid", &self.uid);
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut m = Map::new();
                for (k, v) in [
                    ("reason", &c.reason),
                    ("message", &c.message),
                    ("field", &c.field),
                ] {
                    if !v.is_empty() {
                        m.insert(k.into(), v.as_str().into());
                    }
                }
                Value::Object(m)
            });
            details.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        let mut v = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            v["reason"] = self.reason.as_str().into();
        }
        if !self.continue_token.is_empty() {
            v["metadata"] = json!({"continue": self.continue_token});
        }
        if !details.is_empty() || self.with_details {
            v["details"] = Value::Object(details);
        }
        v
    }

    /// Reads a `Status` body; `None` if the value is not one, or says success.
    pub fn from_value(v: &Value) -> Option<Status> {
        if v.get("kind")?.as_str()? != "Status"
            || v.get("status").and_then(Value::as_str) == Some("Success")
        {
            return None;
        }
        let text = |v: &Value, k: &str| {
            v.get(k)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let details = v.get("details").cloned().unwrap_or_default();
        Some(Status {
            code: v
                .get("code")
                .and_then(Value::as_u64)
                .and_then(|c| u16::try_from(c).ok())
                .unwrap_or(500),
            reason: v
                .get("reason")
                .and_then(|r| serde_json::from_value(r.clone()).ok())
                .unwrap_or(Reason::Unknown),
            message: text(v, "message"),
            name: text(&details, "name"),
            group: text(&details, "group"),
            kind: text(&details, "kind"),
            uid: text(&details, "uid"),
            causes: details
                .get("causes")
                .and_then(Value::as_array)
                .map(|a| {
                    a.iter()
                        .map(|c| Cause {
                            reason: text(c, "reason"),
                            message: text(c, "message"),
                            field: text(c, "field"),
                        })
                        .collect()
                })
                .unwrap_or_default(),
            retry_after_seconds: details
                .get("retryAfterSeconds")
                .and_then(Value::as_u64)
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(0),
            with_details: v.get("details").is_some(),
            continue_token: v
                .pointer("/metadata/continue")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

/// A refused request. `Display` is the message of its [`Status`].
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(pub Box<Status>);

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error of this reason with its usual code and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> ApiError {
        ApiError(Box::new(Status {
            code: reason.code(),
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
            with_details: false,
            continue_token: String::new(),
        }))
    }

    fn about(mut self, r: &Resource, name: &str) -> ApiError {
        self.0.name = name.into();
        self.0.group = r.group.into();
        self.0.kind = r.plural.into();
        self
    }

    /// 404: there is no such object.
    pub fn not_found(r: &Resource, name: &str) -> ApiError {
        ApiError::new(
            Reason::NotFound,
            format!("{} {name:?} not found", r.group_resource()),
        )
        .about(r, name)
    }

    /// 409: the name is taken.
    pub fn already_exists(r: &Resource, name: &str) -> ApiError {
        ApiError::new(
            Reason::AlreadyExists,
            format!("{} {name:?} already exists", r.group_resource()),
        )
        .about(r, name)
    }

    /// 409: a precondition does not hold; `why` says which.
    pub fn conflict(r: &Resource, name: &str, why: impl fmt::Display) -> ApiError {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            r.group_resource()
        );
        ApiError::new(Reason::Conflict, message).about(r, name)
    }

    /// 403 for an object.
    pub fn forbidden(r: &Resource, name: &str, why: impl fmt::Display) -> ApiError {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", r.group_resource())
        } else {
            format!("{} {name:?} is forbidden: {why}", r.group_resource())
        };
        ApiError::new(Reason::Forbidden, message).about(r, name)
    }

    /// 422 with a cause for each field error; details carry the kind, as upstream's do.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> ApiError {
        let text = match errors {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => {
                let mut seen = Vec::new();
                for e in many {
                    let s = e.to_string();
                    if !seen.contains(&s) {
                        seen.push(s);
                    }
                }
                if let [one] = &seen[..] {
                    format!(": {one}")
                } else {
                    format!(": [{}]", seen.join(", "))
                }
            }
        };
        let shown = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut e = ApiError::new(
            Reason::Invalid,
            format!("{shown} {name:?} is invalid{text}"),
        );
        e.0.name = name.into();
        e.0.group = group.into();
        e.0.kind = kind.into();
        e.0.causes = errors
            .iter()
            .map(|x| Cause {
                reason: x.kind.cause_reason().into(),
                message: x.body(),
                field: x.field.clone(),
            })
            .collect();
        e
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::BadRequest, message)
    }

    /// 500; the message is prefixed as upstream does.
    pub fn internal(why: impl fmt::Display) -> ApiError {
        let mut e = ApiError::new(
            Reason::InternalError,
            format!("Internal error occurred: {why}"),
        );
        e.0.causes = vec![Cause {
            reason: String::new(),
            message: why.to_string(),
            field: String::new(),
        }];
        e
    }

    /// 410: the revision asked for is no longer in the history.
    pub fn expired(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::Expired, message)
    }

    /// 429 with a number of seconds after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> ApiError {
        let mut e = ApiError::new(Reason::TooManyRequests, message);
        e.0.retry_after_seconds = retry_after_seconds;
        e
    }

    /// The reason that clients match on.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// Whether the error says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.reason == Reason::NotFound
    }

    /// Whether the error says that the object was changed by somebody else.
    pub fn is_conflict(&self) -> bool {
        self.0.reason == Reason::Conflict
    }
}
