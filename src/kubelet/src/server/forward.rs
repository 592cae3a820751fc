//! Port-forward over WebSocket: the tunnelled SPDY of kubectl, and the channels of other clients.

use std::collections::HashSet;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{self, Message};

use super::channels::{Input, Protocol};
use super::remote::{Client, Runtime, close};
use super::spdy::Frame;

/// What a tunnel carries at a time.
const BLOCK_BYTES: usize = 32 << 10;

/// SPDY's bytes, one way in the messages of the WebSocket, the other way bare.
pub(super) async fn tunnel(client: Client, runtime: TokioIo<Upgraded>) {
    let (mut to_client, mut from_client) = client.split();
    let (mut from_runtime, mut to_runtime) = tokio::io::split(runtime);
    let input = async {
        while let Some(Ok(message)) = from_client.next().await {
            let written = match message {
                Message::Binary(b) => to_runtime.write_all(&b).await,
                Message::Close(_) => return,
                _ => Ok(()),
            };
            if written.is_err() {
                return;
            }
        }
    };
    let output = async {
        let mut block = BytesMut::with_capacity(BLOCK_BYTES);
        while let Ok(1..) = from_runtime.read_buf(&mut block).await {
            if to_client
                .send(Message::Binary(block.split().freeze()))
                .await
                .is_err()
            {
                return;
            }
            block.reserve(BLOCK_BYTES);
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    close(to_client, from_client).await;
}

/// The streams of the port at this place: errors, data.
fn streams(at: usize) -> (u32, u32) {
    let first = u32::try_from(4 * at + 1).expect("there are few ports");
    (first, first + 2)
}

/// Channel 2i is the data of the port at place i, channel 2i+1 its errors; each begins with the port.
pub(super) async fn channels(client: Client, protocol: Protocol, runtime: Runtime, ports: &[u16]) {
    let (mut to_runtime, mut from_runtime) = runtime.split();
    let (mut to_client, mut from_client) = client.split();
    for (at, port) in ports.iter().enumerate() {
        let (errors, data) = streams(at);
        for (stream, name) in [(errors, "error"), (data, "data")] {
            let headers = vec![
                ("streamtype", name.to_owned()),
                ("port", port.to_string()),
                ("requestid", at.to_string()),
            ];
            if to_runtime
                .send(Frame::Open { stream, headers })
                .await
                .is_err()
            {
                return;
            }
        }
        for channel in [2 * at, 2 * at + 1] {
            let channel = u8::try_from(channel).expect("the number of ports is bounded");
            if to_client
                .send(protocol.message(channel, &port.to_le_bytes()))
                .await
                .is_err()
            {
                return;
            }
        }
    }
    let places = ports.len();
    tokio::select! {
        () = input(&mut from_client, protocol, &mut to_runtime, places) => {}
        () = output(&mut from_runtime, protocol, &mut to_client, places) => {}
    }
    close(to_client, from_client).await;
}

async fn input(
    from: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    protocol: Protocol,
    to: &mut (impl SinkExt<Frame> + Unpin),
    places: usize,
) {
    while let Some(Ok(message)) = from.next().await {
        let (channel, data, last) = match protocol.read(message) {
            Some(Input::Data(channel, data)) => (channel, data, false),
            Some(Input::Close(channel)) => (channel, Bytes::new(), true),
            Some(Input::Nothing) => continue,
            Some(Input::Leave) | None => return,
        };
        let at = usize::from(channel / 2);
        if channel % 2 != 0 || at >= places {
            continue;
        }
        if to
            .send(Frame::Data {
                stream: streams(at).1,
                last,
                data,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Ends when the streams of all ports have.
async fn output(
    from: &mut (impl Stream<Item = io::Result<Frame>> + Unpin),
    protocol: Protocol,
    to: &mut (impl SinkExt<Message> + Unpin),
    places: usize,
) {
    let mut open: HashSet<u32> = (0..places)
        .flat_map(|at| <[u32; 2]>::from(streams(at)))
        .collect();
    while !open.is_empty() {
        let (stream, last, data) = match from.next().await {
            Some(Ok(Frame::Data { stream, last, data })) => (stream, last, data),
            Some(Ok(Frame::Reset { stream })) => (stream, true, Bytes::new()),
            None | Some(Err(_) | Ok(Frame::GoAway)) => return,
            Some(Ok(_)) => continue,
        };
        if !open.contains(&stream) {
            continue;
        }
        // Streams 1, 3, 5, 7 are the errors and data of the first port, then of the second.
        let (at, is_errors) = ((stream - 1) / 4, (stream - 1) % 4 == 0);
        let channel =
            u8::try_from(2 * at + u32::from(is_errors)).expect("the number of ports is bounded");
        if !data.is_empty() && to.send(protocol.message(channel, &data)).await.is_err() {
            return;
        }
        if last {
            open.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{sink, stream};

    use super::*;
    use crate::server::channels::choose;

    #[tokio::test]
    async fn data_goes_both_ways_by_port() {
        let v4 = choose(std::iter::once("v4.channel.k8s.io")).expect("known");
        let mut frames = Vec::new();
        let mut to = Box::pin(sink::unfold(
            &mut frames,
            |list: &mut Vec<Frame>, f| async move {
                list.push(f);
                Ok::<_, ()>(list)
            },
        ));
        let sent = [
            &b"\x02to the second"[..],
            b"\x03to its errors",
            b"\x04to none",
        ];
        let mut from = stream::iter(sent.map(|m| Ok(Message::binary(m))));
        input(&mut from, v4, &mut to, 2).await;
        drop(to);
        assert_eq!(
            frames,
            [Frame::Data {
                stream: 7,
                last: false,
                data: Bytes::from_static(b"to the second")
            }]
        );

        let mut messages = Vec::new();
        let mut to = Box::pin(sink::unfold(
            &mut messages,
            |list: &mut Vec<Message>, m| async move {
                list.push(m);
                Ok::<_, ()>(list)
            },
        ));
        let data = |stream, last, data: &'static [u8]| {
            Ok(Frame::Data {
                stream,
                last,
                data: Bytes::from_static(data),
            })
        };
        let got = vec![
            data(7, false, b"a"),
            data(1, true, b"refused"),
            data(3, true, b""),
            data(7, true, b"b"),
            Ok(Frame::Reset { stream: 5 }),
            data(3, false, b"late"),
        ];
        output(&mut stream::iter(got), v4, &mut to, 2).await;
        drop(to);
        assert_eq!(
            messages,
            [
                Message::binary(&b"\x02a"[..]),
                Message::binary(&b"\x01refused"[..]),
                Message::binary(&b"\x02b"[..])
            ]
        );
    }
}
