//! A change of an object, and the bytes of its watch event, made once for all watchers.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{Entry, EntryError};
use crate::stored::Served;
use crate::strategy::Strategy;

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    /// The `type` of the watch event.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }

    fn opening(self) -> &'static [u8] {
        match self {
            EventKind::Added => b"{\"type\":\"ADDED\",\"object\":",
            EventKind::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            EventKind::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }
}

const CLOSING: &[u8] = b"}\n";

/// A change of an object.
pub(crate) struct Event {
    /// The revision of the change.
    pub(crate) revision: u64,
    /// What happened to the object.
    pub(crate) kind: EventKind,
    /// The object after the change; `None` when it was deleted.
    pub(crate) new: Option<Arc<Entry>>,
    /// The object before the change.
    pub(crate) old: Option<Arc<Entry>>,
    frame: Bytes,
    /// For watchers whose selector the object has just come to match.
    as_added: OnceLock<Bytes>,
    /// For watchers whose selector the object no longer matches.
    as_deleted: OnceLock<(Bytes, Bytes)>,
}

impl Event {
    pub(super) fn of_write(
        kind: EventKind,
        place: &str,
        stored: &[u8],
        revision: u64,
        old: Option<Arc<Entry>>,
        strategy: &dyn Strategy,
    ) -> Result<Event, EntryError> {
        let (served, frame) = Served::wrapped(stored, revision, kind.opening(), CLOSING)?;
        let new = Some(Arc::new(Entry::with_served(
            place, stored, revision, served, strategy,
        )?));
        Ok(Event {
            revision,
            kind,
            new,
            old,
            frame,
            as_added: OnceLock::new(),
            as_deleted: OnceLock::new(),
        })
    }

    pub(super) fn of_deletion(old: Arc<Entry>, revision: u64) -> Event {
        let object = old.served.at_revision(revision);
        let frame = framed(EventKind::Deleted, &object);
        let as_deleted = OnceLock::from((object, frame.clone()));
        let kind = EventKind::Deleted;
        Event {
            revision,
            kind,
            new: None,
            old: Some(old),
            frame,
            as_added: OnceLock::new(),
            as_deleted,
        }
    }

    /// Roughly what keeping the event costs, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.frame.len() + 256
    }

    /// The object as an event of this kind shows it, and the whole frame.
    fn shown(&self, kind: EventKind) -> (Bytes, Bytes) {
        match (kind, &self.new, &self.old) {
            (EventKind::Deleted, _, Some(old)) => self
                .as_deleted
                .get_or_init(|| {
                    let object = old.served.at_revision(self.revision);
                    let frame = framed(EventKind::Deleted, &object);
                    (object, frame)
                })
                .clone(),
            (_, Some(new), _) if kind == self.kind => (new.bytes().clone(), self.frame.clone()),
            (_, Some(new), _) => (
                new.bytes().clone(),
                self.as_added
                    .get_or_init(|| framed(kind, new.bytes()))
                    .clone(),
            ),
            _ => unreachable!("a deletion has an old object, and a write a new one"),
        }
    }
}

/// The frame of an event.
pub(crate) fn framed(kind: EventKind, object: &[u8]) -> Bytes {
    let opening = kind.opening();
    let mut out = BytesMut::with_capacity(opening.len() + object.len() + CLOSING.len());
    out.put_slice(opening);
    out.put_slice(object);
    out.put_slice(CLOSING);
    out.freeze()
}

/// What one watcher is told of one change.
#[derive(Clone)]
pub(crate) struct Delivery {
    /// What happened, as this watcher sees it.
    pub(crate) kind: EventKind,
    what: What,
}

#[derive(Clone)]
enum What {
    Change(Arc<Event>),
    State(Arc<Entry>),
}

impl Delivery {
    pub(super) fn of_change(kind: EventKind, event: Arc<Event>) -> Delivery {
        Delivery {
            kind,
            what: What::Change(event),
        }
    }

    /// An object that was there when the watch began.
    pub(super) fn of_state(entry: Arc<Entry>) -> Delivery {
        Delivery {
            kind: EventKind::Added,
            what: What::State(entry),
        }
    }

    /// The revision of the change.
    pub(crate) fn revision(&self) -> u64 {
        match &self.what {
            What::Change(e) => e.revision,
            What::State(e) => e.revision,
        }
    }

    /// The object.
    pub(crate) fn object(&self) -> Bytes {
        match &self.what {
            What::Change(e) => e.shown(self.kind).0,
            What::State(e) => e.bytes().clone(),
        }
    }

    /// The event as a line of JSON.
    pub(crate) fn frame(&self) -> Bytes {
        match &self.what {
            What::Change(e) => e.shown(self.kind).1,
            What::State(e) => framed(self.kind, e.bytes()),
        }
    }
}
