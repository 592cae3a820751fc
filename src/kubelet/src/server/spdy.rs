//! The part of SPDY/3.1 that a client of the runtime's streaming server needs.
//!
//! The runtime can be spoken to over WebSocket too, but there only with protocol v4, in which the end of a command's input
//! cannot be told. The names and values of headers that the runtime sends say nothing that is needed here, so they are
//! skipped and never decompressed; our own are sent as zlib's stored blocks, which need neither compressor nor dictionary.
//! Neither side keeps to SPDY's windows (the library of Kubernetes has none): TCP's stand in for them.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The name of the protocol in `Upgrade`.
pub(super) const NAME: &str = "SPDY/3.1";

/// The most bytes of one frame from the runtime; it writes blocks of some 32 KiB.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a data frame to the runtime.
const DATA_BYTES_MAX: usize = 32 << 10;
const HEADER_BYTES: usize = 8;
const CONTROL: u16 = 0x8003;
const FLAG_FIN: u8 = 1;
const STREAM_MASK: u32 = 0x7fff_ffff;
/// Deflate, smallest window, no dictionary.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream; the ids of a client's streams are odd and grow.
    Open {
        stream: u32,
        headers: Vec<(&'static str, String)>,
    },
    /// Bytes, and whether they are the last.
    Data {
        stream: u32,
        last: bool,
        data: Bytes,
    },
    /// The stream is over in both directions, or was refused.
    Reset { stream: u32 },
    /// The peer wants this frame back.
    Ping { id: u32 },
    /// The peer is about to leave.
    GoAway,
    /// What need not be known.
    Other,
}

/// Frames to and from bytes.
#[derive(Debug, Default)]
pub(super) struct Codec {
    begun: bool,
}

fn put_control(out: &mut BytesMut, kind: u16, payload: &[u8]) {
    out.put_u16(CONTROL);
    out.put_u16(kind);
    put_flags_and_length(out, 0, payload.len());
    out.put_slice(payload);
}

fn put_flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).expect("frames are small"));
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("headers are short"));
    out.put_slice(text.as_bytes());
}

impl Codec {
    /// Header names and values as a piece of the connection's one zlib stream.
    fn header_block(&mut self, headers: &[(&'static str, String)]) -> BytesMut {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.len()).expect("there are few headers"));
        for (name, value) in headers {
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        let mut block = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            block.put_slice(&ZLIB_HEADER);
        }
        // The empty block at the end makes the peer's inflater hand out what is before it.
        for stored in plain.chunks(usize::from(u16::MAX)).chain([&[][..]]) {
            let length = u16::try_from(stored.len()).expect("a chunk's length fits");
            block.put_u8(0);
            block.put_u16_le(length);
            block.put_u16_le(!length);
            block.put_slice(stored);
        }
        block
    }
}

impl Encoder<Frame> for Codec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Open { stream, headers } => {
                let mut payload = BytesMut::new();
                payload.put_u32(stream);
                // Associated to no stream, highest priority, no credential.
                payload.put_slice(&[0; 6]);
                payload.extend_from_slice(&self.header_block(&headers));
                put_control(out, SYN_STREAM, &payload);
            }
            Frame::Data {
                stream,
                last,
                mut data,
            } => loop {
                let piece = data.split_to(data.len().min(DATA_BYTES_MAX));
                out.put_u32(stream & STREAM_MASK);
                put_flags_and_length(
                    out,
                    if last && data.is_empty() { FLAG_FIN } else { 0 },
                    piece.len(),
                );
                out.put_slice(&piece);
                if data.is_empty() {
                    break;
                }
            },
            Frame::Reset { stream } => {
                // 5 is CANCEL.
                put_control(
                    out,
                    RST_STREAM,
                    &[stream.to_be_bytes(), 5_u32.to_be_bytes()].concat(),
                );
            }
            Frame::Ping { id } => put_control(out, PING, &id.to_be_bytes()),
            Frame::GoAway => put_control(out, GOAWAY, &[0; 8]),
            Frame::Other => {}
        }
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Frame>> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let Some(mut head) = bytes.get(..HEADER_BYTES) else {
            return Ok(None);
        };
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0xff_ffff) as usize);
        if length > FRAME_BYTES_MAX {
            return Err(invalid("a SPDY frame is too large"));
        }
        if bytes.len() < HEADER_BYTES + length {
            bytes.reserve(HEADER_BYTES + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(HEADER_BYTES);
        let mut payload = bytes.split_to(length).freeze();
        if first & !STREAM_MASK == 0 {
            return Ok(Some(Frame::Data {
                stream: first,
                last: flags & FLAG_FIN != 0,
                data: payload,
            }));
        }
        if first >> 16 != u32::from(CONTROL) {
            return Err(invalid("the peer speaks another version of SPDY"));
        }
        let mut number = || {
            payload
                .try_get_u32()
                .map_err(|_| invalid("a SPDY frame is too short"))
        };
        Ok(Some(match (first & 0xffff) as u16 {
            RST_STREAM => Frame::Reset {
                stream: number()? & STREAM_MASK,
            },
            PING => Frame::Ping { id: number()? },
            GOAWAY => Frame::GoAway,
            SYN_REPLY if flags & FLAG_FIN != 0 => Frame::Data {
                stream: number()? & STREAM_MASK,
                last: true,
                data: Bytes::new(),
            },
            _ => Frame::Other,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(codec: &mut Codec, frame: Frame) -> Vec<u8> {
        let mut out = BytesMut::new();
        codec.encode(frame, &mut out).expect("encoded");
        out.to_vec()
    }

    #[test]
    fn a_stream_is_opened_with_stored_headers() {
        let mut c = Codec::default();
        let open = |stream| Frame::Open {
            stream,
            headers: vec![("k", "vv".into())],
        };
        let plain = b"\x00\x00\x00\x01\x00\x00\x00\x01k\x00\x00\x00\x02vv";
        let stored = [b"\x00\x0f\x00\xf0\xff", &plain[..], b"\x00\x00\x00\xff\xff"].concat();
        let first = [
            b"\x80\x03\x00\x01\x00\x00\x00\x25\x00\x00\x00\x01\0\0\0\0\0\0\x78\x01",
            &stored[..],
        ]
        .concat();
        assert_eq!(encoded(&mut c, open(1)), first);
        let second = [
            b"\x80\x03\x00\x01\x00\x00\x00\x23\x00\x00\x00\x03\0\0\0\0\0\0",
            &stored[..],
        ]
        .concat();
        assert_eq!(encoded(&mut c, open(3)), second, "the zlib stream goes on");
        let header = u16::from_be_bytes(ZLIB_HEADER);
        assert_eq!(
            (header % 31, header & 0x20),
            (0, 0),
            "RFC 1950's check, and no dictionary"
        );
    }

    #[test]
    fn data_comes_back_as_it_went_in_pieces() {
        let mut c = Codec::default();
        let data = Bytes::from(vec![7; DATA_BYTES_MAX + 1]);
        let mut bytes = BytesMut::from(
            &encoded(
                &mut c,
                Frame::Data {
                    stream: 5,
                    last: true,
                    data: data.clone(),
                },
            )[..],
        );
        let mut seen = Vec::new();
        let mut lasts = Vec::new();
        while let Some(Frame::Data {
            stream: 5,
            last,
            data,
        }) = c.decode(&mut bytes).expect("decoded")
        {
            seen.extend_from_slice(&data);
            lasts.push(last);
        }
        assert_eq!(
            (seen, lasts, bytes.len()),
            (data.to_vec(), vec![false, true], 0)
        );
    }

    #[test]
    fn frames_are_read_however_they_arrive() {
        let mut c = Codec::default();
        let frames = [
            Frame::Ping { id: 2 },
            Frame::Reset { stream: 3 },
            Frame::Data {
                stream: 1,
                last: true,
                data: Bytes::new(),
            },
            Frame::GoAway,
        ];
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|f| encoded(&mut c, f.clone()))
            .collect();
        let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
        for b in bytes {
            buffer.put_u8(b);
            seen.extend(c.decode(&mut buffer).expect("decoded"));
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        let decode = |bytes: &[u8]| Codec::default().decode(&mut BytesMut::from(bytes));
        assert!(
            decode(b"\x80\x02\x00\x06\x00\x00\x00\x04\0\0\0\0").is_err(),
            "version 2"
        );
        assert!(
            decode(b"\x00\x00\x00\x01\x00\xff\xff\xff").is_err(),
            "too large"
        );
        assert!(
            decode(b"\x80\x03\x00\x06\x00\x00\x00\x00").is_err(),
            "too short"
        );
        assert_eq!(
            decode(b"\x80\x03\x00\x04\x00\x00\x00\x00").expect("decoded"),
            Some(Frame::Other)
        );
    }
}
