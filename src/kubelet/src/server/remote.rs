//! Exec and attach: a client's WebSocket on one side, the runtime's SPDY streams on the other.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::codec::Framed;

use super::channels::{self, Input, Protocol};
use super::spdy::{Codec, Frame};

/// How long a client may take to answer our closing of the WebSocket.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// The most bytes of the status that ends a stream.
const STATUS_BYTES_MAX: usize = 64 << 10;
/// Pings of the runtime that wait for their answer; one more is not answered.
const PINGS_MAX: usize = 4;

/// The client's side.
pub(super) type Client = WebSocketStream<TokioIo<Upgraded>>;
/// The runtime's side.
pub(super) type Runtime = Framed<TokioIo<Upgraded>, Codec>;

/// The streams that a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    /// The channel and the name of each stream, in the order in which they are opened.
    fn streams(self) -> Vec<(u8, &'static str)> {
        let all = [
            (true, channels::ERROR, "error"),
            (self.stdin, channels::STDIN, "stdin"),
            (self.stdout, channels::STDOUT, "stdout"),
            (self.stderr, channels::STDERR, "stderr"),
            (self.tty, channels::RESIZE, "resize"),
        ];
        all.into_iter()
            .filter_map(|(wanted, channel, name)| wanted.then_some((channel, name)))
            .collect()
    }

    /// The channel of a stream of the runtime's.
    fn channel(self, stream: u32) -> Option<u8> {
        let at = usize::try_from(stream.checked_sub(1)? / 2).ok()?;
        self.streams().get(at).map(|(channel, _)| *channel)
    }

    /// The stream that a client may write to by this channel.
    fn input(self, channel: u8) -> Option<u32> {
        if !matches!(channel, channels::STDIN | channels::RESIZE) {
            return None;
        }
        let at = self.streams().iter().position(|(c, _)| *c == channel)?;
        Some(stream_id(at))
    }
}

fn stream_id(at: usize) -> u32 {
    u32::try_from(2 * at + 1).expect("there are few streams")
}

/// Ends a WebSocket in order: our closing, then the client's.
pub(super) async fn close(mut to: impl SinkExt<Message> + Unpin, mut from: impl Stream + Unpin) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    if to.send(Message::Close(Some(frame))).await.is_ok() {
        drop(
            tokio::time::timeout(CLOSE_TIME_MAX, async {
                while from.next().await.is_some() {}
            })
            .await,
        );
    }
}

/// Passes the streams on until the runtime or the client ends them.
pub(super) async fn run(client: Client, protocol: Protocol, runtime: Runtime, wanted: Wanted) {
    let (mut to_runtime, mut from_runtime) = runtime.split();
    let (mut to_client, mut from_client) = client.split();
    for (at, (_, name)) in wanted.streams().into_iter().enumerate() {
        let open = Frame::Open {
            stream: stream_id(at),
            headers: vec![("streamtype", name.to_owned())],
        };
        if to_runtime.send(open).await.is_err() {
            return;
        }
    }
    // An empty message tells the client that the streams stand.
    let lowest = match wanted {
        Wanted { stdout: true, .. } => channels::STDOUT,
        Wanted { stderr: true, .. } => channels::STDERR,
        _ => channels::ERROR,
    };
    if to_client.send(protocol.message(lowest, b"")).await.is_err() {
        return;
    }
    let (pings, pinged) = mpsc::channel(PINGS_MAX);
    let ended = tokio::select! {
        () = input(&mut from_client, protocol, &mut to_runtime, wanted, pinged) => false,
        ended = output(&mut from_runtime, protocol, &mut to_client, wanted, &pings) => ended,
    };
    if ended {
        close(to_client, from_client).await;
    }
}

/// What the client sends, to the runtime. Ends when either is gone.
async fn input(
    from: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    protocol: Protocol,
    to: &mut (impl SinkExt<Frame> + Unpin),
    wanted: Wanted,
    mut pinged: mpsc::Receiver<u32>,
) {
    let mut stdin_closed = false;
    loop {
        let message = tokio::select! {
            Some(id) = pinged.recv() => {
                if to.send(Frame::Ping { id }).await.is_err() {
                    return;
                }
                continue;
            }
            message = from.next() => message,
        };
        let Some(Ok(message)) = message else { return };
        let (channel, data, last) = match protocol.read(message) {
            Some(Input::Data(channel, data)) => (channel, data, false),
            Some(Input::Close(channel)) => (channel, Bytes::new(), true),
            Some(Input::Nothing) => continue,
            Some(Input::Leave) | None => return,
        };
        let Some(stream) = wanted.input(channel) else {
            continue;
        };
        if channel == channels::STDIN {
            if stdin_closed {
                continue;
            }
            stdin_closed = last;
        } else if last {
            continue;
        }
        if to.send(Frame::Data { stream, last, data }).await.is_err() {
            return;
        }
    }
}

/// What the runtime sends, to the client, with the status last. False if the client is gone.
async fn output(
    from: &mut (impl Stream<Item = std::io::Result<Frame>> + Unpin),
    protocol: Protocol,
    to: &mut (impl SinkExt<Message> + Unpin),
    wanted: Wanted,
    pings: &mpsc::Sender<u32>,
) -> bool {
    let mut status = BytesMut::new();
    loop {
        match from.next().await {
            Some(Ok(Frame::Data { stream, data, .. })) if !data.is_empty() => {
                let channel = wanted.channel(stream);
                if channel == Some(channels::ERROR) {
                    let room = STATUS_BYTES_MAX - status.len();
                    status.extend_from_slice(&data[..data.len().min(room)]);
                } else if let Some(c @ (channels::STDOUT | channels::STDERR)) = channel
                    && to.send(protocol.message(c, &data)).await.is_err()
                {
                    return false;
                }
            }
            // The runtime's pings are even; an odd one would be the answer to ours.
            Some(Ok(Frame::Ping { id })) if id % 2 == 0 => {
                if pings.try_send(id).is_err() {
                    tracing::debug!("a ping of the runtime is not answered: others wait");
                }
            }
            // The last frame of a runtime that has ended the stream, with all that it had to say before.
            None | Some(Err(_) | Ok(Frame::GoAway)) => break,
            Some(Ok(_)) => {}
        }
    }
    let status = if status.is_empty() {
        lost()
    } else {
        status.freeze()
    };
    match protocol.end(status) {
        Some(end) => to
            .send(protocol.message(channels::ERROR, &end))
            .await
            .is_ok(),
        None => true,
    }
}

/// The status of a stream that the runtime ended without one. Without it clients would take the end for success.
fn lost() -> Bytes {
    let status = serde_json::json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": "the container runtime ended the stream without a result",
    });
    status.to_string().into()
}

#[cfg(test)]
mod tests {
    use futures::{sink, stream};

    use super::*;

    const TTY: Wanted = Wanted {
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };

    fn v(name: &str) -> Protocol {
        channels::choose(std::iter::once(name)).expect("known")
    }

    fn message(bytes: &'static [u8]) -> Result<Message, tungstenite::Error> {
        Ok(Message::Binary(Bytes::from_static(bytes)))
    }

    fn collector<T>(list: &mut Vec<T>) -> impl SinkExt<T> + Unpin {
        Box::pin(sink::unfold(list, |list, item| async move {
            list.push(item);
            Ok::<_, ()>(list)
        }))
    }

    fn data(stream: u32, last: bool, data: &'static [u8]) -> Frame {
        Frame::Data {
            stream,
            last,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn streams_and_channels_belong_together() {
        assert_eq!(
            TTY.streams().into_iter().map(|s| s.1).collect::<Vec<_>>(),
            ["error", "stdin", "stdout", "resize"]
        );
        assert_eq!(
            (
                TTY.channel(1),
                TTY.channel(5),
                TTY.channel(9),
                TTY.channel(0)
            ),
            (Some(3), Some(1), None, None)
        );
        assert_eq!(
            (TTY.input(channels::STDIN), TTY.input(channels::RESIZE)),
            (Some(3), Some(7))
        );
        assert_eq!(
            TTY.input(channels::STDOUT),
            None,
            "a client writes to no output"
        );
    }

    #[tokio::test]
    async fn input_goes_to_its_streams_until_it_is_closed() {
        let sent = [
            message(b"\x00in"),
            message(b"\x01no"),
            message(b"\x04{}"),
            message(b"\xff\x00"),
            message(b"\x00late"),
        ];
        let (mut frames, (_pings, pinged)) = (Vec::new(), mpsc::channel(1));
        input(
            &mut stream::iter(sent),
            v("v5.channel.k8s.io"),
            &mut collector(&mut frames),
            TTY,
            pinged,
        )
        .await;
        assert_eq!(
            frames,
            [
                data(3, false, b"in"),
                data(7, false, b"{}"),
                data(3, true, b"")
            ]
        );
    }

    async fn told(protocol: &str, frames: Vec<Frame>) -> Vec<Message> {
        let (mut messages, (pings, _pinged)) = (Vec::new(), mpsc::channel(1));
        let mut from = stream::iter(frames.into_iter().map(Ok));
        assert!(
            output(
                &mut from,
                v(protocol),
                &mut collector(&mut messages),
                TTY,
                &pings
            )
            .await
        );
        messages
    }

    #[tokio::test]
    async fn output_comes_first_and_the_status_last() {
        let frames = vec![
            data(1, false, b"{\"status\":"),
            data(5, false, b"out"),
            data(1, true, b"\"Success\"}"),
            Frame::GoAway,
        ];
        let want = [
            Message::binary(&b"\x01out"[..]),
            Message::binary(&b"\x03{\"status\":\"Success\"}"[..]),
        ];
        assert_eq!(told("v4.channel.k8s.io", frames.clone()).await, want);
        assert_eq!(told("channel.k8s.io", frames).await, want[..1]);
    }

    #[tokio::test]
    async fn a_lost_runtime_is_no_success() {
        let messages = told("v5.channel.k8s.io", vec![data(5, false, b"out")]).await;
        let Some(Message::Binary(last)) = messages.last() else {
            panic!("{messages:?}")
        };
        let status: serde_json::Value = serde_json::from_slice(&last[1..]).expect("JSON");
        assert_eq!(
            (last[0], &status["status"]),
            (channels::ERROR, &serde_json::json!("Failure"))
        );
    }
}
