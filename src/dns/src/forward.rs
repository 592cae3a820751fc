//! Names outside of the cluster: asked of the machine's own resolvers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::cache::{AnswerCache, Question};
use crate::message::{TCP_BYTES_MAX, UDP_BYTES_MAX};
use crate::resolv::Upstreams;

/// How many questions are asked of others at a time. Past it the answer is SERVFAIL, at once.
const IN_FLIGHT_MAX: usize = 1000;
/// How long one resolver has to answer one question.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(2);
/// How often the list of resolvers is gone through.
const ROUNDS: usize = 2;
/// How long a question may take in all; the clients' own patience is five seconds.
const QUESTION_DEADLINE: Duration = Duration::from_millis(4500);

/// Why there is no answer. The client hears SERVFAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("there is no resolver to ask")]
    NoUpstreams,
    #[error("too many questions at a time")]
    Busy,
    #[error("no resolver answered")]
    NoAnswer,
}

type Outcome = Result<Arc<Message>, ForwardError>;
type InFlight = Shared<BoxFuture<'static, Outcome>>;

/// Asks the machine's own resolvers.
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    cache: AnswerCache,
    /// Questions that are being asked. The same question is asked once, however many wait for it, and so a resolver that asks us
    /// in turn (a loop) gets no more from it than its own question back.
    in_flight: Mutex<HashMap<Question, InFlight>>,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams) -> Arc<Forwarder> {
        Arc::new(Forwarder {
            upstreams,
            cache: AnswerCache::default(),
            in_flight: Mutex::default(),
        })
    }

    /// The answer, if it need not be waited for.
    pub(crate) fn known(&self, question: &Question) -> Option<Outcome> {
        if let Some(m) = self.cache.get(question) {
            return Some(Ok(Arc::new(m)));
        }
        self.upstreams
            .get()
            .is_empty()
            .then_some(Err(ForwardError::NoUpstreams))
    }

    /// Asks the resolvers, one after the other, until one answers.
    pub(crate) async fn ask(self: &Arc<Self>, question: Question) -> Outcome {
        if let Some(known) = self.known(&question) {
            return known;
        }
        let running = {
            let mut in_flight = self.in_flight.lock();
            match in_flight.get(&question) {
                Some(running) => running.clone(),
                None if in_flight.len() >= IN_FLIGHT_MAX => return Err(ForwardError::Busy),
                None => {
                    let running = self.clone().carry_out(question.clone()).boxed().shared();
                    in_flight.insert(question.clone(), running.clone());
                    running
                }
            }
        };
        // Those who wait drive the question to its end, which is bounded in time, and takes it off the list.
        running.await
    }

    async fn carry_out(self: Arc<Self>, question: Question) -> Outcome {
        let all = self.clone().try_all(question.clone());
        let outcome = tokio::time::timeout(QUESTION_DEADLINE, all)
            .await
            .unwrap_or(Err(ForwardError::NoAnswer));
        if let Ok(m) = &outcome {
            self.cache.put(question.clone(), m);
        }
        self.in_flight.lock().remove(&question);
        outcome
    }

    async fn try_all(self: Arc<Self>, question: Question) -> Outcome {
        let upstreams = self.upstreams.get();
        for upstream in std::iter::repeat_n(&upstreams, ROUNDS).flatten() {
            match tokio::time::timeout(ATTEMPT_DEADLINE, ask_one(*upstream, &question)).await {
                Ok(Ok(m)) => return Ok(Arc::new(m)),
                Ok(Err(e)) => tracing::debug!(%upstream, error = %e, "a resolver failed"),
                Err(_) => tracing::debug!(%upstream, "a resolver did not answer in time"),
            }
        }
        Err(if upstreams.is_empty() {
            ForwardError::NoUpstreams
        } else {
            ForwardError::NoAnswer
        })
    }
}

/// The question to ask for a client's query.
pub(crate) fn question(name: &Name, kind: RecordType, signatures: bool) -> Question {
    Question {
        name: name.to_lowercase(),
        kind,
        signatures,
    }
}

fn request(question: &Question) -> Message {
    let mut m = Message::query();
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    edns.set_dnssec_ok(question.signatures);
    m.set_edns(edns);
    m
}

fn matches(request: &Message, answer: &Message) -> bool {
    let (Some(asked), Some(answered)) = (request.queries.first(), answer.queries.first()) else {
        return false;
    };
    answer.metadata.id == request.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == OpCode::Query
        && answered.query_type() == asked.query_type()
        && answered.name().to_lowercase() == *asked.name()
}

async fn ask_one(upstream: SocketAddr, question: &Question) -> std::io::Result<Message> {
    let request = request(question);
    let bytes = request.to_vec().map_err(std::io::Error::other)?;
    let any: SocketAddr = if upstream.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    // A socket of its own for each question: its random port is half of what keeps forged answers out.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; usize::from(UDP_BYTES_MAX).max(4096)];
    loop {
        let n = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..n]) {
            Ok(m) if matches(&request, &m) => {
                if m.metadata.truncation {
                    return ask_over_tcp(upstream, &request, &bytes).await;
                }
                return usable(m);
            }
            // A forged or belated answer; the right one may still come.
            _ => {}
        }
    }
}

async fn ask_over_tcp(
    upstream: SocketAddr,
    request: &Message,
    bytes: &[u8],
) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    let length: usize = stream.read_u16().await?.into();
    let mut buffer = vec![0; length.min(TCP_BYTES_MAX)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer) {
        Ok(m) if matches(request, &m) => usable(m),
        _ => Err(std::io::Error::other(
            "the answer over TCP is to another question",
        )),
    }
}

/// An answer that says something; a resolver that cannot or will not say is not the last word.
fn usable(m: Message) -> std::io::Result<Message> {
    use hickory_proto::op::ResponseCode::{NXDomain, NoError};
    match m.metadata.response_code {
        NoError | NXDomain => Ok(m),
        code => Err(std::io::Error::other(format!(
            "the resolver answered {code}"
        ))),
    }
}
