//! The channel protocols of exec and attach over WebSocket: each message begins with the number of its channel.
//!
//! The versions differ in little: v5 can say that a channel is closed, v4 tells the end as a `Status`, those before it as
//! text. Behaviour follows the `remotecommand` and `wsstream` packages of Kubernetes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

/// The channels, which are also the names of SPDY's streams.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// In v5, the channel whose messages name a channel that is closed.
const CLOSE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V1,
    V4,
    V5,
}

/// A protocol that was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Its name; empty if the client named none.
    pub(super) name: &'static str,
    version: Version,
    base64: bool,
}

const fn protocol(name: &'static str, version: Version, base64: bool) -> Protocol {
    Protocol {
        name,
        version,
        base64,
    }
}

const PROTOCOLS: [Protocol; 5] = [
    protocol("v5.channel.k8s.io", Version::V5, false),
    protocol("v4.channel.k8s.io", Version::V4, false),
    protocol("v4.base64.channel.k8s.io", Version::V4, true),
    protocol("channel.k8s.io", Version::V1, false),
    protocol("base64.channel.k8s.io", Version::V1, true),
];

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Bytes for a channel.
    Data(u8, Bytes),
    /// No more will come on a channel.
    Close(u8),
    /// The client is leaving.
    Leave,
    /// Nothing for a channel.
    Nothing,
}

/// The first of the offered protocols that is spoken here. A client that offers none speaks the oldest.
pub(super) fn choose<'a>(mut offered: impl Iterator<Item = &'a str>) -> Option<Protocol> {
    let Some(first) = offered.next() else {
        return Some(protocol("", Version::V1, false));
    };
    std::iter::once(first)
        .chain(offered)
        .find_map(|o| PROTOCOLS.into_iter().find(|p| p.name == o))
}

impl Protocol {
    /// A message on a channel.
    pub(super) fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            BASE64.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut frame = BytesMut::with_capacity(1 + data.len());
        frame.put_u8(channel);
        frame.put_slice(data);
        Message::Binary(frame.freeze())
    }

    /// Reads a client's message; `None` for one that breaks the protocol.
    pub(super) fn read(self, message: Message) -> Option<Input> {
        let (channel, data) = match message {
            Message::Close(_) => return Some(Input::Leave),
            Message::Binary(b) if !self.base64 => raw(b)?,
            Message::Text(t) if !self.base64 => raw(t.into())?,
            Message::Text(t) => encoded(t.as_bytes())?,
            Message::Binary(b) => encoded(&b)?,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Some(Input::Nothing),
        };
        Some(match (channel, &data[..]) {
            (CLOSE, [closed]) if self.version == Version::V5 => Input::Close(*closed),
            (_, []) => Input::Nothing,
            _ => Input::Data(channel, data),
        })
    }

    /// The last word, made of the `Status` that the runtime ends with; `None` if the protocol has none for it.
    pub(super) fn end(self, status: Bytes) -> Option<Bytes> {
        if self.version >= Version::V4 {
            return Some(status);
        }
        let Ok(parsed) = serde_json::from_slice::<Value>(&status) else {
            return Some(status);
        };
        let succeeded = kontiki_api::object::text(&parsed, &["status"]) == "Success";
        (!succeeded).then(|| {
            kontiki_api::object::text(&parsed, &["message"])
                .to_owned()
                .into()
        })
    }
}

fn raw(mut message: Bytes) -> Option<(u8, Bytes)> {
    let channel = *message.first()?;
    Some((channel, message.split_off(1)))
}

fn encoded(message: &[u8]) -> Option<(u8, Bytes)> {
    let (channel, data) = message.split_first()?;
    let channel = channel.checked_sub(b'0')?;
    Some((channel, BASE64.decode(data).ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Protocol {
        choose([name].into_iter()).expect("a known protocol")
    }

    fn binary(bytes: &'static [u8]) -> Message {
        Message::Binary(Bytes::from_static(bytes))
    }

    #[test]
    fn the_clients_first_choice_that_is_known_is_taken() {
        assert_eq!(
            choose(["v9.x", "v5.channel.k8s.io", "v4.channel.k8s.io"].into_iter()).map(|p| p.name),
            Some("v5.channel.k8s.io")
        );
        assert_eq!(choose(std::iter::empty()).map(|p| p.name), Some(""));
        assert_eq!(choose(["v9.x"].into_iter()), None);
    }

    #[test]
    fn messages_begin_with_their_channel() {
        let v5 = named("v5.channel.k8s.io");
        assert_eq!(v5.message(STDOUT, b"hi"), binary(b"\x01hi"));
        assert_eq!(
            v5.read(binary(b"\x00in")),
            Some(Input::Data(STDIN, Bytes::from_static(b"in")))
        );
        assert_eq!(
            v5.read(binary(b"\x04{}")),
            Some(Input::Data(RESIZE, Bytes::from_static(b"{}")))
        );
        assert_eq!(v5.read(binary(b"\x00")), Some(Input::Nothing));
        assert_eq!(v5.read(binary(b"")), None);
        assert_eq!(v5.read(Message::Close(None)), Some(Input::Leave));
    }

    #[test]
    fn only_v5_closes_channels() {
        assert_eq!(
            named("v5.channel.k8s.io").read(binary(b"\xff\x00")),
            Some(Input::Close(STDIN))
        );
        let unknown = Some(Input::Data(CLOSE, Bytes::from_static(b"\0")));
        assert_eq!(
            named("v4.channel.k8s.io").read(binary(b"\xff\x00")),
            unknown
        );
    }

    #[test]
    fn base64_goes_as_text() {
        let b = named("v4.base64.channel.k8s.io");
        assert_eq!(b.message(STDERR, b"hi"), Message::text("2aGk="));
        assert_eq!(
            b.read(Message::text("0aGk=")),
            Some(Input::Data(STDIN, Bytes::from_static(b"hi")))
        );
        assert_eq!(
            (b.read(Message::text("0!")), b.read(Message::text("\n"))),
            (None, None)
        );
    }

    #[test]
    fn old_protocols_get_the_end_as_text() {
        let failed = Bytes::from_static(br#"{"status":"Failure","message":"exit 3"}"#);
        let done = Bytes::from_static(br#"{"status":"Success"}"#);
        assert_eq!(
            named("v4.channel.k8s.io").end(failed.clone()),
            Some(failed.clone())
        );
        assert_eq!(
            named("channel.k8s.io").end(failed).as_deref(),
            Some(&b"exit 3"[..])
        );
        assert_eq!(named("channel.k8s.io").end(done), None);
    }
}
