//! The node API: what the API server asks of this node over https (logs, exec, attach, port-forward, statistics).
//!
//! Entry point: [`serve`]. What it serves it finds in the runtime, by the labels of sandboxes and containers, so it is
//! whole in the moment in which it starts; what the API says of the pods comes in through [`Pods`].
//!
//! Paths: `/healthz` for everybody; for the holders of the API server's certificate and administrators `/pods`,
//! `/runningpods/`, `/metrics`, `/metrics/resource`, `/stats/summary`, `/containerLogs/{namespace}/{pod}/{container}`,
//! `/exec/…`, `/attach/…` (WebSocket or SPDY/3.1) and `/portForward/{namespace}/{pod}`.
//!
//! Invariants: a connection, a handshake, headers and a stream are each bounded in number or time. A client that leaves
//! takes its stream with it, a stopped server all of them. The streams' bytes are passed on and never kept.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kontiki_base::{CancellationToken, Metrics, Tasks};
use kontiki_reconcile::Cache;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::cri::Runtime;
use crate::pod::Pod;

mod access;
mod channels;
mod containers;
mod dial;
mod forward;
mod log;
mod query;
mod remote;
mod respond;
mod router;
mod spdy;
mod stats;
mod streams;

use access::Peer;
use router::State;

/// Connections at a time; at the limit new ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Streams (exec, attach, port-forward) at a time; one more is refused.
const STREAMS_MAX: usize = 512;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the headers of a request may take, and how long a connection may be idle between requests.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client without a certificate may stay: all that it can have is `/healthz`.
const UNKNOWN_PEER_TIME_MAX: Duration = Duration::from_secs(10);
/// HTTP/2 connections are probed this often, so that those of dead clients end.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// Requests at a time on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 250;
/// How long to wait before accepting again after an error such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The pods of this node as the API knows them.
pub trait Pods: Send + Sync + 'static {
    /// All of them; `None` while the API has not been heard yet.
    fn list(&self) -> Option<Vec<Arc<Pod>>>;
}

impl Pods for Cache<Pod> {
    fn list(&self) -> Option<Vec<Arc<Pod>>> {
        self.is_synced().then(|| Cache::list(self))
    }
}

/// Serves the node API until the group of tasks ends. Returns the address, which says the port where 0 was asked for.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    config: &Config,
    runtime: &Runtime,
    pods: Arc<dyn Pods>,
    tasks: &Tasks,
    metrics: &Metrics,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let mut tls = config.tls.clone();
    if tls.alpn_protocols.is_empty() {
        Arc::make_mut(&mut tls).alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    let state = Arc::new(State {
        node_name: config.node_name.clone(),
        root_dir: config.root_dir.clone(),
        runtime: runtime.clone(),
        pods,
        tasks: tasks.clone(),
        requests: router::requests_metric(metrics),
        metrics: metrics.clone(),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    });
    let server = Server {
        state,
        acceptor: TlsAcceptor::from(tls),
    };
    tasks.spawn("node API", server.accept(listener, tasks.clone()));
    Ok(address)
}

#[derive(Clone)]
struct Server {
    state: Arc<State>,
    acceptor: TlsAcceptor,
}

impl Server {
    async fn accept(self, listener: TcpListener, tasks: Tasks) {
        let token = tasks.token().clone();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = tokio::select! {
                () = token.cancelled() => return,
                p = connections.clone().acquire_owned() => p.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                a = listener.accept() => a,
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            let (server, token) = (self.clone(), token.clone());
            tasks.spawn_transient("node API connection", async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = server.connection(tcp, &token) => {}
                }
                drop(permit);
            });
        }
    }

    async fn connection(&self, tcp: TcpStream, token: &CancellationToken) {
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!(error = %e, "a connection ended before it began");
            return;
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, self.acceptor.accept(tcp)).await
        {
            Ok(Ok(s)) => s,
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "a TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let (_, session) = stream.get_ref();
        let peer = Peer::of(session.peer_certificates());
        let h2 = session.alpn_protocol() == Some(b"h2");
        let is_known = peer.is_known();
        let state = self.state.clone();
        let service = service_fn(move |req: Request<Incoming>| {
            let (state, peer) = (state.clone(), peer.clone());
            async move { Ok::<_, Infallible>(router::answer(&state, &peer, req).await) }
        });
        let io = TokioIo::new(stream);
        let served = async {
            if !h2 {
                let http1 = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIME_MAX)
                    .serve_connection(io, service)
                    .with_upgrades();
                return http1.await;
            }
            let streams = StreamTasks::default();
            let ended = hyper::server::conn::http2::Builder::new(streams.clone())
                .timer(TokioTimer::new())
                .max_concurrent_streams(HTTP2_STREAMS_MAX)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIME_MAX)
                .serve_connection(io, service)
                .await;
            streams.0.lock().abort_all();
            ended
        };
        let ended = if is_known {
            served.await
        } else {
            tokio::time::timeout(UNKNOWN_PEER_TIME_MAX, served)
                .await
                .unwrap_or(Ok(()))
        };
        if let Err(e) = ended
            && !token.is_cancelled()
        {
            tracing::debug!(error = %e, "a connection ended");
        }
    }
}

/// Runs the streams of one HTTP/2 connection; they end with it.
#[derive(Clone, Default)]
struct StreamTasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamTasks {
    fn execute(&self, future: F) {
        let mut set = self.0.lock();
        while let Some(done) = set.try_join_next() {
            if let Err(e) = done
                && e.is_panic()
            {
                tracing::error!(error = %e, "serving a request panicked");
            }
        }
        set.spawn(future);
    }
}
