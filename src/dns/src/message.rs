//! DNS messages: what a request asks, and answers of the right form and size.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use crate::records::Answer;

/// The largest answer over UDP, whatever the client says: larger ones would be fragmented on some way.
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
/// The largest answer over UDP to a client that says nothing (RFC 1035).
const UDP_BYTES_CLASSIC: u16 = 512;
/// The largest message over TCP.
pub(crate) const TCP_BYTES_MAX: usize = u16::MAX as usize;
const HEADER_BYTES: usize = 12;

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Message,
    pub(crate) query: Query,
}

/// What becomes of the bytes that came in.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A question to answer.
    Asked(Box<Asked>),
    /// A refusal, which is the answer already.
    Refused(Message),
    /// Nothing: no answer can be given, or it could start a quarrel between two servers.
    Ignored,
}

/// Reads a request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Parsed::Ignored;
    };
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Parsed::Ignored;
    }
    let Ok(request) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([header[0], header[1]]);
        return Parsed::Refused(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
    };
    let refused = |code| Parsed::Refused(reply(&request, code));
    if request.metadata.message_type != MessageType::Query {
        return Parsed::Ignored;
    }
    if request.metadata.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return refused(ResponseCode::BADVERS);
    }
    let [query] = &request.queries[..] else {
        return refused(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN {
        return refused(ResponseCode::Refused);
    }
    if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return refused(ResponseCode::Refused);
    }
    let query = query.clone();
    Parsed::Asked(Box::new(Asked { request, query }))
}

/// An answer without records.
pub(crate) fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut m = Message::response(request.metadata.id, request.metadata.op_code);
    m.metadata.recursion_desired = request.metadata.recursion_desired;
    m.metadata.checking_disabled = request.metadata.checking_disabled;
    m.metadata.recursion_available = true;
    m.metadata.response_code = code;
    m.queries.clone_from(&request.queries);
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        m.set_edns(edns);
    }
    m
}

/// An answer of our own.
pub(crate) fn own(asked: &Asked, answer: Answer) -> Message {
    let mut m = reply(&asked.request, answer.code);
    m.metadata.authoritative = true;
    m.answers = answer.answers;
    m.authorities = answer.authorities;
    m.additionals = answer.additionals;
    m
}

/// Somebody else's answer, for this client.
pub(crate) fn passed_on(asked: &Asked, theirs: &Message) -> Message {
    let mut m = reply(&asked.request, theirs.metadata.response_code);
    m.metadata.authentic_data = theirs.metadata.authentic_data;
    m.metadata.truncation = theirs.metadata.truncation;
    m.answers.clone_from(&theirs.answers);
    m.authorities.clone_from(&theirs.authorities);
    m.additionals.clone_from(&theirs.additionals);
    m
}

/// How large the answer over UDP may be.
pub(crate) fn udp_limit_bytes(request: &Message) -> usize {
    let limit = request
        .edns
        .as_ref()
        .map_or(UDP_BYTES_CLASSIC, Edns::max_payload);
    limit.clamp(UDP_BYTES_CLASSIC, UDP_BYTES_MAX).into()
}

/// The message as bytes. If it is too large, it loses additional records first, which nobody misses, then answers, and then says
/// so: some resolvers never come back over TCP, and live with the part that fits.
pub(crate) fn encode(mut m: Message, limit_bytes: usize) -> Option<Vec<u8>> {
    let mut bytes = m.to_vec().ok()?;
    if bytes.len() > limit_bytes {
        m.additionals.clear();
        bytes = m.to_vec().ok()?;
    }
    while bytes.len() > limit_bytes {
        m.metadata.truncation = true;
        if m.answers.is_empty() {
            m.authorities.clear();
            return m.to_vec().ok().filter(|b| b.len() <= limit_bytes);
        }
        let share = m.answers.len() * limit_bytes / bytes.len();
        m.answers.truncate(share.min(m.answers.len() - 1));
        bytes = m.to_vec().ok()?;
    }
    Some(bytes)
}
