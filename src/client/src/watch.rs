//! Watch answers: one JSON event a line.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, Stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kontiki_api::{ApiError, Reason, Status};
use kontiki_reconcile::{WatchEvent, WatchStream};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The most bytes of one event: an object of the largest size, with room for its envelope.
const EVENT_BYTES_MAX: usize = 8 << 20;

#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The events of a watch's body. It ends when the body does.
pub(crate) fn events(body: Incoming) -> WatchStream {
    let chunks = stream::unfold(body, |mut body| async move {
        loop {
            match body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((data, body));
                    }
                }
                // A broken connection ends the stream; the reader goes on from its last revision.
                Err(_) => return None,
            }
        }
    });
    lines(chunks).map(|line| parse(&line)).boxed()
}

fn lines(chunks: impl Stream<Item = Bytes> + Send + 'static) -> impl Stream<Item = Bytes> + Send {
    let start = (Box::pin(chunks), BytesMut::new(), 0);
    stream::unfold(start, |(mut chunks, mut buffer, mut searched)| async move {
        loop {
            if let Some(at) = buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(searched + at + 1).freeze();
                return Some((line, (chunks, buffer, 0)));
            }
            searched = buffer.len();
            if searched > EVENT_BYTES_MAX {
                tracing::warn!(
                    bytes = searched,
                    "an event of a watch is too large, the watch is started again"
                );
                return None;
            }
            buffer.extend_from_slice(&chunks.next().await?);
        }
    })
}

fn parse(line: &Bytes) -> WatchEvent {
    let malformed = |why: &dyn std::fmt::Display| {
        WatchEvent::Error(ApiError::new(
            Reason::InternalError,
            format!("an event of a watch cannot be read: {why}"),
        ))
    };
    let frame: Frame<'_> = match serde_json::from_slice(line) {
        Ok(f) => f,
        Err(e) => return malformed(&e),
    };
    let object = || line.slice_ref(frame.object.get().as_bytes());
    match frame.r#type {
        "ADDED" => WatchEvent::Added(object()),
        "MODIFIED" => WatchEvent::Modified(object()),
        "DELETED" => WatchEvent::Deleted(object()),
        "BOOKMARK" => {
            let v: serde_json::Value = serde_json::from_str(frame.object.get()).unwrap_or_default();
            WatchEvent::Bookmark(
                kontiki_api::object::text(&v, &["metadata", "resourceVersion"]).to_owned(),
            )
        }
        "ERROR" => match serde_json::from_str(frame.object.get())
            .ok()
            .and_then(|v| Status::from_value(&v))
        {
            Some(s) => WatchEvent::Error(ApiError(Box::new(s))),
            None => malformed(&frame.object.get()),
        },
        other => malformed(&format!("type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_put_together_from_any_chunks() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"a":1}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
            "\n",
            "{\"type\":\"ADDED\"",
        );
        for size in [1, 7, 1000] {
            let chunks: Vec<Bytes> = text
                .as_bytes()
                .chunks(size)
                .map(Bytes::copy_from_slice)
                .collect();
            let events: Vec<WatchEvent> = lines(stream::iter(chunks))
                .map(|l| parse(&l))
                .collect()
                .await;
            assert_eq!(events.len(), 3, "what has no end is no event");
            assert!(matches!(&events[0], WatchEvent::Added(b) if b.as_ref() == br#"{"a":1}"#));
            assert!(matches!(&events[1], WatchEvent::Bookmark(r) if r == "7"));
            assert!(matches!(&events[2], WatchEvent::Error(e) if e.reason() == Reason::Expired));
        }
    }

    #[test]
    fn garbage_is_an_error_event() {
        assert!(matches!(
            parse(&Bytes::from_static(b"nonsense\n")),
            WatchEvent::Error(_)
        ));
    }
}
