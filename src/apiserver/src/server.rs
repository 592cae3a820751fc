//! Connections: accepted, limited, brought through TLS and served with HTTP/1.1 or HTTP/2.
//!
//! A client that never finishes its handshake or its headers costs a socket until a timer ends it, and nothing after.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kontiki_base::{CancellationToken, Tasks};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::router::{self, State};
use crate::tls::PeerCheck;

/// Connections at a time; at the limit new ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the headers of a request may take (upstream's `ReadHeaderTimeout`).
const HEADER_TIME_MAX: Duration = Duration::from_secs(32);
/// The bytes of an HTTP/2 preface; they have to come within [`HEADER_TIME_MAX`].
const PREFACE_BYTES: usize = 24;
/// Streams at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1000;
/// The most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// HTTP/2 connections are probed this often, so that those of dead clients end.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// How long connections may finish what they are at when the server stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);
/// How long to wait before accepting again after an error such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What a listener needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) state: Arc<State>,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) check: PeerCheck,
    pub(crate) connections: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn limit() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(CONNECTIONS_MAX))
    }

    /// Accepts connections until the group of tasks ends.
    pub(crate) async fn accept(self, listener: TcpListener, tasks: Tasks) {
        let token = tasks.token().clone();
        loop {
            let permit = tokio::select! {
                () = token.cancelled() => return,
                p = self.connections.clone().acquire_owned() => p.expect("the semaphore is never closed"),
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
            tasks.spawn_transient("connection", async move {
                let _counted = server.state.metrics.connected();
                server.connection(tcp, token).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, tcp: TcpStream, token: CancellationToken) {
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!(error = %e, "a connection ended before it began");
            return;
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, self.acceptor.accept(tcp)).await
        {
            Ok(Ok(s)) => s,
            Ok(Err(e)) => {
                self.state.metrics.handshakes_failed.inc();
                tracing::debug!(error = %e, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                self.state.metrics.handshakes_failed.inc();
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let peer = Arc::new(self.check.peer(session.peer_certificates()));
        let h2 = session.alpn_protocol() == Some(b"h2");
        let state = self.state.clone();
        let service = service_fn(move |req: Request<Incoming>| {
            let work = router::serve(state.clone(), peer.clone(), req);
            async move { Ok::<_, Infallible>(work.await) }
        });
        let io = TokioIo::new(Prompt::new(stream));
        if h2 {
            let streams = StreamTasks::default();
            let conn = hyper::server::conn::http2::Builder::new(streams.clone())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEADER_BYTES_MAX)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIME_MAX)
                .initial_stream_window_size(1 << 18)
                .initial_connection_window_size(1 << 20)
                .max_send_buf_size(1 << 20)
                .serve_connection(io, service);
            tokio::pin!(conn);
            tokio::select! {
                r = conn.as_mut() => ended(r),
                () = token.cancelled() => {
                    conn.as_mut().graceful_shutdown();
                    drop(tokio::time::timeout(DRAIN_TIME_MAX, conn).await);
                }
            }
            streams.0.lock().abort_all();
        } else {
            let conn = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME_MAX)
                .serve_connection(io, service)
                .with_upgrades();
            tokio::pin!(conn);
            tokio::select! {
                r = conn.as_mut() => ended(r),
                () = token.cancelled() => {
                    conn.as_mut().graceful_shutdown();
                    drop(tokio::time::timeout(DRAIN_TIME_MAX, conn).await);
                }
            }
        }
    }
}

fn ended(r: Result<(), hyper::Error>) {
    if let Err(e) = r {
        tracing::debug!(error = %e, "a connection ended");
    }
}

/// Runs the streams of one HTTP/2 connection; they end with it.
#[derive(Clone, Default)]
struct StreamTasks(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
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

/// A stream whose first bytes have to come soon: until they are there, nothing above it watches the clock.
struct Prompt<S> {
    inner: S,
    missing: usize,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl<S> Prompt<S> {
    fn new(inner: S) -> Prompt<S> {
        Prompt {
            inner,
            missing: PREFACE_BYTES,
            deadline: Box::pin(tokio::time::sleep(HEADER_TIME_MAX)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let r = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.missing = this.missing.saturating_sub(buf.filled().len() - before);
        if r.is_pending() && this.missing > 0 && this.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        r
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
