//! The bodies of answers: bytes, lists that are put together while they are sent, watches, and proxied streams.

use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::BoxBody;

use crate::cache::Entry;
use crate::engine::Watch;
use crate::metrics::Gauged;
use crate::respond::WatchEncoder;

/// How many bytes of a list or of waiting watch events are put into one frame.
const FRAME_BYTES: usize = 64 * 1024;

/// Why a body ended early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) enum Body {
    /// Bytes that are all there.
    Full(Option<Bytes>),
    /// A list of stored objects.
    List(Box<ListBody>),
    /// The events of a watch.
    Watch(Box<WatchBody>),
    /// What somebody else sends.
    Stream(BoxBody<Bytes, BodyError>),
}

impl Body {
    pub(crate) fn empty() -> Body {
        Body::Full(None)
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(b: B) -> Body {
        let b = b.into();
        Body::Full((!b.is_empty()).then_some(b))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = |b: Option<Bytes>| b.map(|b| Ok(Frame::data(b)));
        match self.get_mut() {
            Body::Full(b) => Poll::Ready(frame(b.take())),
            Body::List(l) => Poll::Ready(frame(l.next_chunk())),
            Body::Watch(w) => w.poll_chunk(cx).map(frame),
            Body::Stream(s) => Pin::new(s).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(b) => b.is_none(),
            Body::List(l) => l.stage == Stage::Done,
            Body::Watch(_) => false,
            Body::Stream(s) => s.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(b) => SizeHint::with_exact(b.as_ref().map_or(0, Bytes::len) as u64),
            Body::List(l) if l.gzip.is_none() => SizeHint::with_exact(l.left),
            Body::List(_) | Body::Watch(_) => SizeHint::default(),
            Body::Stream(s) => s.size_hint(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Items,
    Done,
}

/// A list of stored objects: its items are the served bytes without apiVersion and kind.
pub(crate) struct ListBody {
    stage: Stage,
    head: Bytes,
    entries: std::vec::IntoIter<Arc<Entry>>,
    first: bool,
    left: u64,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

const TAIL: &[u8] = b"]}\n";

impl ListBody {
    /// `head` is everything up to the opening bracket of the items.
    pub(crate) fn new(head: Bytes, entries: Vec<Arc<Entry>>) -> ListBody {
        let items: usize = entries.iter().map(|e| e.served.body().len() + 1).sum();
        let commas = entries.len().saturating_sub(1);
        let left = (head.len() + items + commas + TAIL.len()) as u64;
        ListBody {
            stage: Stage::Head,
            head,
            entries: entries.into_iter(),
            first: true,
            left,
            gzip: None,
        }
    }

    /// How many bytes the list has.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    /// Compresses the list on its way.
    pub(crate) fn compress(&mut self) {
        self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        while self.stage != Stage::Done {
            let plain = self.fill();
            let Some(gzip) = &mut self.gzip else {
                self.left -= plain.len() as u64;
                return Some(plain.freeze());
            };
            gzip.write_all(&plain).expect("memory takes all");
            let out = if self.stage == Stage::Done {
                self.gzip
                    .take()
                    .expect("it is there")
                    .finish()
                    .expect("memory takes all")
            } else {
                std::mem::take(gzip.get_mut())
            };
            if !out.is_empty() {
                return Some(out.into());
            }
        }
        None
    }

    fn fill(&mut self) -> BytesMut {
        let mut out = BytesMut::with_capacity(
            FRAME_BYTES.min(usize::try_from(self.left).unwrap_or(FRAME_BYTES)) + 64,
        );
        if self.stage == Stage::Head {
            out.extend_from_slice(&self.head);
            self.stage = Stage::Items;
        }
        while out.len() < FRAME_BYTES {
            let Some(e) = self.entries.next() else {
                out.extend_from_slice(TAIL);
                self.stage = Stage::Done;
                break;
            };
            out.extend_from_slice(if std::mem::take(&mut self.first) {
                b"{"
            } else {
                b",{"
            });
            out.extend_from_slice(&e.served.body());
        }
        out
    }
}

/// The events of a watch, as its client wants them.
pub(crate) struct WatchBody {
    watch: Watch,
    encoder: WatchEncoder,
    ended: bool,
    _counted: Gauged,
}

impl WatchBody {
    pub(crate) fn new(watch: Watch, encoder: WatchEncoder, counted: Gauged) -> WatchBody {
        WatchBody {
            watch,
            encoder,
            ended: false,
            _counted: counted,
        }
    }

    /// One event is passed on as it is; several that wait are sent together.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut first: Option<Bytes> = None;
        let mut many = BytesMut::new();
        while !self.ended && many.len() < FRAME_BYTES {
            match self.watch.poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(told)) => {
                    let b = self.encoder.encode(&told);
                    match &first {
                        None => first = Some(b),
                        Some(f) => {
                            if many.is_empty() {
                                many.extend_from_slice(f);
                            }
                            many.extend_from_slice(&b);
                        }
                    }
                }
            }
        }
        match first {
            Some(_) if !many.is_empty() => Poll::Ready(Some(many.freeze())),
            Some(b) => Poll::Ready(Some(b)),
            None if self.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
