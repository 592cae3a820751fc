//! Reading answers: refusals, lists, watch events.

use bytes::{Buf, Bytes, BytesMut};
use kontiki_api::{ApiError, Reason, Status, object};
use kontiki_reconcile::{CallError, ListPage, WatchEvent};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest event of a watch in bytes; the API takes objects of 1.5 MB.
pub(crate) const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The refusal that an answer with this status code is.
pub(crate) fn refusal(code: u16, body: &[u8]) -> ApiError {
    if let Some(status) = serde_json::from_slice::<Value>(body)
        .ok()
        .as_ref()
        .and_then(Status::from_value)
    {
        return ApiError(Box::new(status));
    }
    let reason = match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::Unknown,
    };
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let mut e = ApiError::new(reason, format!("the server answered {code}: {text}"));
    e.0.code = code;
    e
}

#[derive(Deserialize)]
struct ListText<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

/// A page of a list; its items share the bytes of the answer.
pub(crate) fn list(body: &Bytes) -> Result<ListPage, CallError> {
    let text: ListText<'_> =
        serde_json::from_slice(body).map_err(|e| CallError::Malformed(e.to_string()))?;
    let items = text
        .items
        .unwrap_or_default()
        .iter()
        .map(|i| body.slice_ref(i.get().as_bytes()))
        .collect();
    Ok(ListPage {
        items,
        resource_version: text.metadata.resource_version,
        continue_token: text.metadata.r#continue,
    })
}

/// Cuts the stream of a watch into its events.
#[derive(Default)]
pub(crate) struct Events {
    buffer: BytesMut,
    /// Up to here there is no end of a line.
    searched: usize,
}

#[derive(Deserialize)]
struct EventText<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Events {
    /// Takes in what came.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next event that is complete.
    pub(crate) fn next(&mut self) -> Option<Result<WatchEvent, CallError>> {
        loop {
            let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            else {
                self.searched = self.buffer.len();
                let too_long = self.searched > EVENT_BYTES_MAX;
                return too_long.then(|| {
                    Err(CallError::Malformed(format!(
                        "an event is over {EVENT_BYTES_MAX} bytes long"
                    )))
                });
            };
            let line = self.buffer.split_to(self.searched + at).freeze();
            self.buffer.advance(1);
            self.searched = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(event(&line));
            }
        }
    }
}

fn event(line: &Bytes) -> Result<WatchEvent, CallError> {
    let malformed = |e: serde_json::Error| CallError::Malformed(e.to_string());
    let text: EventText<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let bytes = line.slice_ref(text.object.get().as_bytes());
    Ok(match text.r#type {
        "ADDED" => WatchEvent::Added(bytes),
        "MODIFIED" => WatchEvent::Modified(bytes),
        "DELETED" => WatchEvent::Deleted(bytes),
        "BOOKMARK" => {
            let v: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
            WatchEvent::Bookmark(object::text(&v, &["metadata", "resourceVersion"]).to_owned())
        }
        "ERROR" => WatchEvent::Error(refusal(500, &bytes)),
        other => {
            return Err(CallError::Malformed(format!(
                "a watch event has type {other:?}"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_with_or_without_a_status() {
        let e = refusal(409, br#"{"kind":"Status","status":"Failure","reason":"AlreadyExists","code":409,"message":"m"}"#);
        assert_eq!(
            (e.reason(), e.to_string().as_str()),
            (Reason::AlreadyExists, "m")
        );
        let e = refusal(502, b"<html>");
        assert_eq!(
            (e.code(), e.to_string().as_str()),
            (502, "the server answered 502: <html>")
        );
    }

    #[test]
    fn lists_share_their_bytes() {
        let body = Bytes::from_static(
            br#"{"metadata":{"resourceVersion":"5","continue":"c"},"items":[{"a":1}, {"b":2}]}"#,
        );
        let page = list(&body).expect("a list");
        assert_eq!(
            (page.items.len(), &page.items[1][..]),
            (2, &br#"{"b":2}"#[..])
        );
        assert_eq!(
            (page.resource_version.as_str(), page.continue_token.as_str()),
            ("5", "c")
        );
        assert!(
            list(&Bytes::from_static(br#"{"items":null}"#))
                .expect("a list")
                .items
                .is_empty()
        );
    }

    #[test]
    fn events_are_cut_wherever_the_network_cuts_them() {
        let text = "{\"type\":\"ADDED\",\"object\":{\"n\":1}}\n\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n\
                    {\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n";
        for size in 1..text.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                events.push(chunk);
                while let Some(e) = events.next() {
                    seen.push(e.expect("an event"));
                }
            }
            assert!(matches!(&seen[0], WatchEvent::Added(b) if &b[..] == b"{\"n\":1}"));
            assert!(matches!(&seen[1], WatchEvent::Bookmark(r) if r == "9"));
            assert!(matches!(&seen[2], WatchEvent::Error(e) if e.reason() == Reason::Expired));
            assert_eq!(seen.len(), 3);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        events.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert!(matches!(events.next(), Some(Err(CallError::Malformed(_)))));
    }
}
