//! A small cache of what other resolvers answered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How many answers are kept; past it the one that would expire first goes.
const ENTRIES_MAX: usize = 10_000;
/// How long an answer is kept at most, whatever its records allow.
const TTL_SECONDS_MAX: u32 = 30;
/// Answers with more records than this are not kept.
const RECORDS_MAX: usize = 100;

/// A question: the name in lower case, the type, and whether signatures were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) signatures: bool,
}

struct Entry {
    message: Message,
    stored: Instant,
    expiry: (Instant, u64),
}

#[derive(Default)]
struct State {
    entries: HashMap<Question, Entry>,
    by_expiry: BTreeMap<(Instant, u64), Question>,
    serial: u64,
}

/// A cache of answers.
#[derive(Default)]
pub(crate) struct AnswerCache(Mutex<State>);

impl AnswerCache {
    /// The answer, its times to live counted down.
    pub(crate) fn get(&self, question: &Question) -> Option<Message> {
        let s = self.0.lock();
        let entry = s.entries.get(question)?;
        let now = Instant::now();
        if now >= entry.expiry.0 {
            return None;
        }
        let age = u32::try_from((now - entry.stored).as_secs()).unwrap_or(u32::MAX);
        let mut message = entry.message.clone();
        for r in message
            .answers
            .iter_mut()
            .chain(&mut message.authorities)
            .chain(&mut message.additionals)
        {
            r.ttl = r.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps an answer for as long as it allows.
    pub(crate) fn put(&self, question: Question, message: &Message) {
        let Some(ttl_seconds) = lifetime_seconds(message) else {
            return;
        };
        let mut s = self.0.lock();
        s.serial += 1;
        let stored = Instant::now();
        let expiry = (stored + Duration::from_secs(ttl_seconds.into()), s.serial);
        let entry = Entry {
            message: message.clone(),
            stored,
            expiry,
        };
        if let Some(old) = s.entries.insert(question.clone(), entry) {
            s.by_expiry.remove(&old.expiry);
        }
        s.by_expiry.insert(expiry, question);
        while s.entries.len() > ENTRIES_MAX {
            let Some((_, oldest)) = s.by_expiry.pop_first() else {
                return;
            };
            s.entries.remove(&oldest);
        }
    }
}

/// How long the answer may be kept; `None` if not at all.
fn lifetime_seconds(m: &Message) -> Option<u32> {
    let records = m.answers.len() + m.authorities.len() + m.additionals.len();
    if m.metadata.truncation || records > RECORDS_MAX {
        return None;
    }
    let ttl = match m.metadata.response_code {
        ResponseCode::NoError if !m.answers.is_empty() => m.answers.iter().map(|r| r.ttl).min(),
        // "There is none" is kept for as long as the zone says (RFC 2308), and if it does not say, not at all.
        ResponseCode::NoError | ResponseCode::NXDomain => {
            m.authorities.iter().find_map(|r| match &r.data {
                RData::SOA(soa) => Some(soa.minimum.min(r.ttl)),
                _ => None,
            })
        }
        _ => None,
    };
    ttl.filter(|t| *t > 0).map(|t| t.min(TTL_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;

    use super::*;

    fn question(name: &str) -> Question {
        Question {
            name: Name::from_ascii(name).expect("valid"),
            kind: RecordType::A,
            signatures: false,
        }
    }

    fn answer(name: &str, ttl: u32) -> Message {
        let mut m = Message::response(1, OpCode::Query);
        let ip: std::net::Ipv4Addr = "192.0.2.1".parse().expect("valid");
        m.add_answer(Record::from_rdata(
            Name::from_ascii(name).expect("valid"),
            ttl,
            RData::from(ip),
        ));
        m
    }

    #[tokio::test(start_paused = true)]
    async fn answers_age_and_expire() {
        let c = AnswerCache::default();
        c.put(question("a."), &answer("a.", 20));
        c.put(question("b."), &answer("b.", 3600));
        c.put(question("c."), &answer("c.", 0));
        assert!(c.get(&question("c.")).is_none(), "it asked not to be kept");
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(c.get(&question("a.")).expect("kept").answers[0].ttl, 5);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(c.get(&question("a.")).is_none());
        assert!(c.get(&question("b.")).is_some());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(
            c.get(&question("b.")).is_none(),
            "no answer is kept longer than the limit"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_grow_past_its_limit() {
        let c = AnswerCache::default();
        for i in 0..ENTRIES_MAX + 50 {
            let name = format!("n{i}.");
            c.put(question(&name), &answer(&name, 20));
        }
        let s = c.0.lock();
        assert_eq!(
            (s.entries.len(), s.by_expiry.len()),
            (ENTRIES_MAX, ENTRIES_MAX)
        );
    }
}
