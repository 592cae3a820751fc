//! From what the engine gives to an HTTP answer: encodings, headers, and `Status` for every refusal.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use http::{Response, StatusCode};
use kontiki_api::{ApiError, Reason};
use serde_json::{Value, json};

use crate::body::{Body, ListBody};

use crate::convert;
use crate::engine::{List, Told};
use crate::negotiate::{Accepted, Format, Transform};
use crate::registry::Kind;
use crate::schemas;
use crate::table;

/// Answers smaller than this are not compressed (as upstream).
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// The annotation of the bookmark behind the initial state of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// How an answer is to be written.
#[derive(Clone)]
pub(crate) struct Style {
    pub(crate) accepted: Accepted,
    pub(crate) gzip: bool,
    pub(crate) now: jiff::Timestamp,
}

/// An answer with a body of this type.
pub(crate) fn typed(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut r = Response::new(body.into());
    *r.status_mut() = status;
    r.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    r
}

/// A JSON answer.
pub(crate) fn json_value(status: StatusCode, v: &Value) -> Response<Body> {
    let mut text = v.to_string();
    text.push('\n');
    typed(status, "application/json", text)
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut r = typed(status, "text/plain; charset=utf-8", Body::from(text.into()));
    r.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    r
}

/// What a path that nobody serves gets.
pub(crate) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A refusal.
pub(crate) fn refusal(e: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(e.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut r = json_value(status, &e.0.to_value());
    if e.0.retry_after_seconds > 0 {
        r.headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(e.0.retry_after_seconds));
    }
    r
}

/// The refusal of what the resource cannot do.
pub(crate) fn method_not_allowed() -> ApiError {
    let mut e = ApiError::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    );
    e.0.with_details = true;
    e
}

/// The refusal of a resource that there is not.
pub(crate) fn resource_not_found() -> ApiError {
    let mut e = ApiError::new(
        Reason::NotFound,
        "the server could not find the requested resource",
    );
    e.0.with_details = true;
    e
}

/// Adds a `Warning` header for each warning.
pub(crate) fn warn(r: &mut Response<Body>, warnings: &[String]) {
    for w in warnings {
        let escaped = w.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(v) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            r.headers_mut().append(WARNING, v);
        }
    }
}

/// An object in its served form, in the version in which it is stored.
pub(crate) fn object(
    status: StatusCode,
    kind: &Kind,
    bytes: Bytes,
    style: &Style,
) -> Response<Body> {
    if style.accepted.is_plain() && kind.is_storage_version() {
        return finish(typed(status, "application/json", bytes), style);
    }
    let mut v: Value = serde_json::from_slice(&bytes).expect("the engine gives JSON");
    convert::convert(&mut v, kind.storage, kind.resource);
    let v = table::transformed(kind, v, &style.accepted, style.now);
    encoded(status, &v, style)
}

/// A value in the format that the client wants.
pub(crate) fn encoded(status: StatusCode, v: &Value, style: &Style) -> Response<Body> {
    let format = style.accepted.format;
    let body: Bytes = match format {
        Format::Json => v.to_string().into(),
        Format::Yaml => serde_yaml_ng::to_string(v)
            .expect("a JSON value can be written as YAML")
            .into(),
        Format::Protobuf => match schemas::protobuf(v) {
            Ok(b) => b.into(),
            Err(e) => return refusal(&e),
        },
    };
    finish(typed(status, format.content_type(), body), style)
}

/// Compresses what is large, for clients that can take it.
fn finish(mut r: Response<Body>, style: &Style) -> Response<Body> {
    if !style.gzip {
        return r;
    }
    let compressed = match r.body_mut() {
        Body::Full(Some(b)) if b.len() >= GZIP_BYTES_MIN => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut e, b).expect("memory takes all");
            *b = e.finish().expect("memory takes all").into();
            true
        }
        Body::List(l) if l.len() >= GZIP_BYTES_MIN as u64 => {
            l.compress();
            true
        }
        _ => false,
    };
    if compressed {
        r.headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        r.headers_mut()
            .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    r
}

/// A list.
pub(crate) fn list(kind: &Kind, list: List, style: &Style) -> Response<Body> {
    let mut meta = json!({"resourceVersion": list.revision.to_string()});
    if !list.token.is_empty() {
        meta["continue"] = list.token.into();
    }
    if let Some(n) = list.remaining {
        meta["remainingItemCount"] = n.into();
    }
    if style.accepted.is_plain() && kind.is_storage_version() {
        let r = kind.resource;
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
            r.kind,
            r.api_version()
        );
        let body = Body::List(Box::new(ListBody::new(head.into(), list.entries)));
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return finish(response, style);
    }
    let objects = list
        .entries
        .iter()
        .map(|e| converted(kind, e.bytes()))
        .collect();
    let v = table::transformed_list(kind, objects, &meta, &style.accepted, style.now);
    encoded(StatusCode::OK, &v, style)
}

fn converted(kind: &Kind, bytes: &[u8]) -> Value {
    let mut v: Value = serde_json::from_slice(bytes).expect("the cache holds JSON");
    convert::convert(&mut v, kind.storage, kind.resource);
    v
}

/// Writes the events of a watch as its client wants them.
pub(crate) struct WatchEncoder {
    kind: Arc<Kind>,
    accepted: Accepted,
    clock: Arc<dyn kontiki_base::Clock>,
    /// Only the first event of a watch of tables has the columns.
    first: bool,
}

impl WatchEncoder {
    pub(crate) fn new(
        kind: Arc<Kind>,
        accepted: Accepted,
        clock: Arc<dyn kontiki_base::Clock>,
    ) -> WatchEncoder {
        WatchEncoder {
            kind,
            accepted,
            clock,
            first: true,
        }
    }

    pub(crate) fn encode(&mut self, told: &Told) -> Bytes {
        match told {
            Told::Change(d) if self.accepted.is_plain() && self.kind.is_storage_version() => {
                d.frame()
            }
            Told::Change(d) => {
                let v = converted(&self.kind, &d.object());
                self.event(d.kind.as_str(), v)
            }
            Told::Bookmark(revision, initial) => {
                let mut meta = json!({"resourceVersion": revision.to_string()});
                if *initial {
                    meta["annotations"] = json!({INITIAL_EVENTS_END: "true"});
                }
                let r = self.kind.resource;
                let v = json!({"kind": r.kind, "apiVersion": r.api_version(), "metadata": meta});
                self.event("BOOKMARK", v)
            }
        }
    }

    fn event(&mut self, kind: &str, v: Value) -> Bytes {
        let first = std::mem::take(&mut self.first);
        let v = match self.accepted.transform {
            Transform::Table => {
                let revision = v
                    .pointer("/metadata/resourceVersion")
                    .cloned()
                    .unwrap_or_default();
                let bookmark = kind == "BOOKMARK";
                let rows = if bookmark { vec![] } else { vec![v] };
                table::table(
                    &self.kind,
                    &rows,
                    &json!({"resourceVersion": revision}),
                    &self.accepted,
                    self.clock.now(),
                    first,
                )
            }
            _ => table::transformed(&self.kind, v, &self.accepted, self.clock.now()),
        };
        if self.accepted.format == Format::Protobuf {
            // What has no such form is told in the form that every client reads.
            return match schemas::protobuf(&v) {
                Ok(b) => kontiki_schema::protobuf::watch_frame(kind, &b).into(),
                Err(e) => error_event(&e),
            };
        }
        let mut out = BytesMut::new();
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":{v}}}\n").as_bytes());
        out.freeze()
    }
}

/// The last event of a watch that failed.
pub(crate) fn error_event(e: &ApiError) -> Bytes {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", e.0.to_value()).into()
}
