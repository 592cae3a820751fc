//! Bodies and answers.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kontiki_api::{ApiError, Reason};
use kontiki_base::chain;
use serde_json::Value;

use crate::cri::RuntimeError;

/// The body of an answer. One that fails cuts the answer short, which the client notices.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The whole of a body.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer with this type of content.
pub(super) fn content(kind: &'static str, body: Body) -> Response<Body> {
    let mut r = Response::new(body);
    r.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    r
}

/// An answer in JSON.
pub(super) fn json(value: &Value) -> Response<Body> {
    content("application/json", full(value.to_string()))
}

/// A refusal, as a `Status`.
pub(super) fn refusal(e: &ApiError) -> Response<Body> {
    let mut r = json(&e.0.to_value());
    *r.status_mut() = StatusCode::from_u16(e.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if e.reason() == Reason::TooManyRequests {
        r.headers_mut().insert(
            RETRY_AFTER,
            HeaderValue::from(e.0.retry_after_seconds.max(1)),
        );
    }
    r
}

/// What the runtime's failure is to a client.
pub(super) fn runtime_error(e: &RuntimeError) -> ApiError {
    ApiError::internal(chain(e))
}
