//! The server: loops over UDP and TCP, and how a request becomes an answer.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData};
use ipnet::IpNet;
use kontiki_base::{Metrics, Tasks, chain};
use kontiki_reconcile::Api;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cluster::Cluster;
use crate::forward::{self, Forwarder};
use crate::message::{self, Asked, Parsed, TCP_BYTES_MAX};
use crate::records::{Answer, Verdict, Zone, fully_qualified};
use crate::resolv::{Source, Upstreams};

/// How many TCP connections are served at a time. Past it a new one is closed at once.
const CONNECTIONS_MAX: usize = 256;
/// How long a TCP connection may stand idle, and how long a client may take to send or take a message.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(10);
/// How many questions over UDP may wait for other resolvers. Past it the answer is SERVFAIL.
const WAITING_MAX: usize = 2000;
/// The largest request over UDP that is read whole.
const REQUEST_BYTES_MAX: usize = 4096;

/// How the server works on this node.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where it listens, over UDP and TCP. With port 0 both get the same free port.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain.
    pub domain: String,
    /// The file with the machine's own resolvers.
    pub resolv_conf: PathBuf,
    /// Resolvers to ask instead of those in the file; empty to use the file.
    pub upstreams: Vec<SocketAddr>,
    /// Address ranges of pods and services: reverse names in them are not asked of others.
    pub ranges: Vec<IpNet>,
    /// How long clients may remember records, in seconds.
    pub ttl_seconds: u32,
}

impl DnsConfig {
    /// The defaults: kubeadm's domain and ranges, the machine's `resolv.conf`.
    pub fn new(listen: Vec<SocketAddr>) -> DnsConfig {
        let net = |a, b, prefix| IpNet::new_assert(IpAddr::from([a, b, 0, 0]), prefix);
        DnsConfig {
            listen,
            domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            upstreams: Vec::new(),
            ranges: vec![net(10, 96, 12), net(10, 244, 16)],
            ttl_seconds: 30,
        }
    }
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is not one.
    #[error("the cluster domain {0:?} is not a domain name")]
    Domain(String),
    /// An address cannot be listened on.
    #[error("cannot listen for DNS on {address} over {protocol}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The running server.
#[derive(Clone)]
pub struct Dns {
    addresses: Vec<SocketAddr>,
    cluster: Cluster,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Dns {
    /// Starts the server. When this returns it listens; it answers names of the cluster as soon as it knows the cluster.
    ///
    /// # Errors
    /// The domain is not one, or an address cannot be listened on.
    pub async fn start(
        config: DnsConfig,
        api: &Arc<dyn Api>,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Dns, DnsError> {
        let cluster = Cluster::default();
        let dns = Dns::serve(config, cluster.clone(), tasks, metrics).await?;
        cluster.follow(tasks, api);
        Ok(dns)
    }

    /// As [`Dns::start`], for a cluster that somebody else fills.
    async fn serve(
        config: DnsConfig,
        cluster: Cluster,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Dns, DnsError> {
        let bad = || DnsError::Domain(config.domain.clone());
        let domain = Name::from_ascii(config.domain.trim_end_matches('.')).map_err(|_| bad())?;
        // Names below it have to fit into the 255 bytes of a name.
        if domain.is_root() || domain.len() > 100 {
            return Err(bad());
        }
        let ourselves: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).collect();
        let source = if config.upstreams.is_empty() {
            Source::File(config.resolv_conf.clone())
        } else {
            Source::List(
                config
                    .upstreams
                    .iter()
                    .filter(|u| !config.listen.contains(u))
                    .copied()
                    .collect(),
            )
        };
        let zone = Zone {
            domain: fully_qualified(domain.to_lowercase()),
            ttl_seconds: config.ttl_seconds,
            servers: ourselves.clone(),
            ranges: config.ranges.clone(),
        };
        let server = Arc::new(Server {
            zone,
            cluster: cluster.clone(),
            forwarder: Forwarder::new(Upstreams::new(source, ourselves)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            turn: AtomicUsize::new(0),
            responses: metrics.register("dns_responses", "Answers by code.", Family::default()),
            tasks: tasks.clone(),
        });
        let mut addresses = Vec::new();
        for address in config.listen {
            let failed = |protocol| {
                move |source| DnsError::Listen {
                    address,
                    protocol,
                    source,
                }
            };
            let listener = TcpListener::bind(address).await.map_err(failed("TCP"))?;
            let bound = listener.local_addr().map_err(failed("TCP"))?;
            let socket = Arc::new(UdpSocket::bind(bound).await.map_err(failed("UDP"))?);
            addresses.push(bound);
            tasks.spawn(
                format!("dns-tcp-{bound}"),
                server.clone().tcp_loop(listener),
            );
            tasks.spawn(format!("dns-udp-{bound}"), server.clone().udp_loop(socket));
        }
        tracing::info!(?addresses, domain = %server.zone.domain, "cluster DNS listens");
        Ok(Dns { addresses, cluster })
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until names of the cluster are answered.
    pub async fn synced(&self) {
        self.cluster.synced().await;
    }

    /// Whether names of the cluster are answered.
    pub fn is_synced(&self) -> bool {
        self.cluster.is_synced()
    }
}

struct Server {
    zone: Zone,
    cluster: Cluster,
    forwarder: Arc<Forwarder>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// Counts answers, so that the first address of a name is not the same every time.
    turn: AtomicUsize,
    responses: Family<Vec<(String, String)>, Counter>,
    tasks: Tasks,
}

/// The answer to a request, or what has to be waited for.
enum Step {
    Answer(Message),
    Wait(Box<Asked>, Answer),
}

impl Server {
    async fn udp_loop(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let token = self.tasks.token().clone();
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let received = tokio::select! {
                () = token.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((n, peer)) => self.clone().udp_request(&buffer[..n], peer, &socket).await,
                // The kernel tells of earlier answers that could not be delivered; no request is lost by it.
                Err(e) => tracing::debug!(error = chain(&e), "receiving over UDP failed"),
            }
        }
    }

    async fn udp_request(self: Arc<Self>, bytes: &[u8], peer: SocketAddr, socket: &Arc<UdpSocket>) {
        let (asked, begun) = match message::parse(bytes) {
            Parsed::Ignored => return,
            Parsed::Refused(m) => {
                return self
                    .send(m, usize::from(message::UDP_BYTES_MAX), peer, socket)
                    .await;
            }
            Parsed::Asked(asked) => {
                let limit = message::udp_limit_bytes(&asked.request);
                match self.first_step(asked) {
                    Step::Answer(m) => return self.send(m, limit, peer, socket).await,
                    Step::Wait(asked, begun) => (asked, begun),
                }
            }
        };
        let limit = message::udp_limit_bytes(&asked.request);
        let Ok(permit) = self.waiting.clone().try_acquire_owned() else {
            return self
                .send(
                    message::reply(&asked.request, ResponseCode::ServFail),
                    limit,
                    peer,
                    socket,
                )
                .await;
        };
        let (server, socket, tasks) = (self.clone(), socket.clone(), self.tasks.clone());
        tasks.spawn_transient("dns-forward", async move {
            let _permit: OwnedSemaphorePermit = permit;
            let m = server.last_step(&asked, begun).await;
            server.send(m, limit, peer, &socket).await;
        });
    }

    async fn send(&self, m: Message, limit_bytes: usize, peer: SocketAddr, socket: &UdpSocket) {
        self.count(&m);
        let Some(bytes) = message::encode(m, limit_bytes) else {
            return;
        };
        if let Err(e) = socket.send_to(&bytes, peer).await {
            tracing::debug!(error = chain(&e), %peer, "an answer could not be sent");
        }
    }

    async fn tcp_loop(self: Arc<Self>, listener: TcpListener) {
        let token = self.tasks.token().clone();
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                        continue;
                    };
                    let (server, token) = (self.clone(), token.clone());
                    self.tasks
                        .spawn_transient("dns-tcp-connection", async move {
                            let _permit: OwnedSemaphorePermit = permit;
                            tokio::select! {
                                () = token.cancelled() => {}
                                result = server.connection(stream) => if let Err(e) = result {
                                    tracing::debug!(error = chain(&e), "a DNS connection ended");
                                }
                            }
                        });
                }
                Err(e) => {
                    tracing::warn!(error = chain(&e), "accepting a DNS connection failed");
                    // Out of file descriptors, most likely: give others time to close some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let bytes =
                tokio::time::timeout(CONNECTION_PATIENCE, read_message(&mut stream)).await??;
            let Some(bytes) = bytes else { return Ok(()) };
            let m = match message::parse(&bytes) {
                Parsed::Ignored => return Ok(()),
                Parsed::Refused(m) => m,
                Parsed::Asked(asked) => match self.first_step(asked) {
                    Step::Answer(m) => m,
                    Step::Wait(asked, begun) => self.last_step(&asked, begun).await,
                },
            };
            self.count(&m);
            let Some(bytes) = message::encode(m, TCP_BYTES_MAX) else {
                return Ok(());
            };
            let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
            let whole = [&length.to_be_bytes()[..], &bytes].concat();
            tokio::time::timeout(CONNECTION_PATIENCE, stream.write_all(&whole)).await??;
        }
    }

    fn count(&self, m: &Message) {
        let code = format!("{:?}", m.metadata.response_code);
        self.responses
            .get_or_create(&vec![("rcode".to_owned(), code)])
            .inc();
    }

    /// Answers what can be answered at once.
    fn first_step(&self, asked: Box<Asked>) -> Step {
        let (name, kind) = (asked.query.name(), asked.query.query_type());
        if self.zone.covers(name) && !self.cluster.is_synced() {
            return Step::Answer(message::reply(&asked.request, ResponseCode::ServFail));
        }
        match self.zone.answer(&self.cluster, name, kind) {
            Verdict::Ours(mut answer) if answer.chase.is_none() => {
                self.turn_addresses(&mut answer);
                Step::Answer(message::own(&asked, answer))
            }
            Verdict::Ours(answer) => Step::Wait(asked, answer),
            Verdict::NotOurs => match self.forwarder.known(&self.question(&asked, name)) {
                Some(Ok(theirs)) => Step::Answer(message::passed_on(&asked, &theirs)),
                Some(Err(_)) => {
                    Step::Answer(message::reply(&asked.request, ResponseCode::ServFail))
                }
                None => Step::Wait(asked, Answer::default()),
            },
        }
    }

    /// Asks others, for the name itself or for the one that an alias of ours leads to.
    async fn last_step(&self, asked: &Asked, mut begun: Answer) -> Message {
        let target = begun.chase.take();
        let name = target.as_ref().unwrap_or_else(|| asked.query.name());
        let theirs = self.forwarder.ask(self.question(asked, name)).await;
        match (theirs, &target) {
            (Ok(m), None) => message::passed_on(asked, &m),
            (Ok(m), Some(_)) => {
                begun.answers.extend(m.answers.iter().cloned());
                begun.code = m.metadata.response_code;
                message::own(asked, begun)
            }
            (Err(e), _) => {
                tracing::debug!(%name, error = %e, "a name could not be looked up");
                let mut m = message::reply(&asked.request, ResponseCode::ServFail);
                // The alias is known, and a client that can go on from it may do so.
                m.answers = begun.answers;
                m
            }
        }
    }

    fn question(&self, asked: &Asked, name: &Name) -> crate::cache::Question {
        let signatures = asked
            .request
            .edns
            .as_ref()
            .is_some_and(|e| e.flags().dnssec_ok);
        forward::question(name, asked.query.query_type(), signatures)
    }

    fn turn_addresses(&self, answer: &mut Answer) {
        let only_addresses = answer
            .answers
            .iter()
            .all(|r| matches!(r.data, RData::A(_) | RData::AAAA(_)));
        if answer.answers.len() > 1 && only_addresses {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answer.answers.len();
            answer.answers.rotate_left(turn);
        }
    }
}

/// The next message; `None` if the client closed the connection in between.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
