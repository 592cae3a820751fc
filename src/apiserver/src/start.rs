//! Starting the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kontiki_base::{Backoff, Clock, Metrics, SystemClock, Tasks};
use kontiki_raft::{Observation, Range, Store, StoreError};
use kontiki_reconcile::Api;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::bootstrap;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::in_process::InProcess;
use crate::keys;
use crate::metrics::ServerMetrics;
use crate::openapi::OpenApi;
use crate::router::State;
use crate::server::Server;
use crate::streams::Kubelets;
use crate::tls;
use crate::token::Tokens;

const BOOTSTRAP_DELAY_INITIAL: Duration = Duration::from_millis(20);
const BOOTSTRAP_DELAY_MAX: Duration = Duration::from_secs(2);

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key is not usable.
    #[error("the server's certificates cannot be used")]
    Pki(#[from] kontiki_pki::Error),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// The API server.
#[derive(Debug)]
pub struct ApiServer;

/// A server that was started; its tasks belong to the group that it was started with.
pub struct Running {
    /// Where it listens.
    pub local_addresses: Vec<SocketAddr>,
    /// The API without HTTP, for loops in the same process.
    pub in_process: Arc<dyn Api>,
    state: Arc<State>,
    _observation: Arc<Observation>,
}

impl Running {
    /// Whether the caches are filled and the objects that every cluster has are there.
    pub fn ready(&self) -> bool {
        self.state.ready.load(Ordering::Acquire)
    }

    /// Returns when the server is [ready](Self::ready), or when it is told to stop before it ever was.
    pub async fn wait_ready(&self) {
        const POLL: Duration = Duration::from_millis(2);
        while !self.ready() && !self.state.tasks.token().is_cancelled() {
            tokio::time::sleep(POLL).await;
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("local_addresses", &self.local_addresses)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Fills the caches, listens, and makes the objects that every cluster has. It serves when this returns, and is
    /// ready a little later.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(
        config: Config,
        store: Arc<dyn Store>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Running, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = Arc::new(Engine::new(store.clone(), clock.clone(), config.node_ports));
        let (tls_config, check) = tls::server(&config.serving, &config.client_ca_pem)?;
        let tokens = Tokens::new(
            &config.service_account_key_pem,
            &config.service_account_issuer,
            clock.clone(),
        )?;
        let kubelets = config.kubelet.as_ref().map(Kubelets::new).transpose()?;
        let mut listeners = Vec::new();
        for address in &config.listen {
            let refuse = |source| StartError::Listen {
                address: *address,
                source,
            };
            listeners.push(TcpListener::bind(address).await.map_err(refuse)?);
        }
        let local_addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|l| l.local_addr().ok())
            .collect();
        let port = local_addresses.first().map_or(0, SocketAddr::port);
        let observation = Arc::new(store.observe(Range::prefix(keys::ROOT), engine.feed())?);
        let (reads, writes) = State::permits();
        let resources = engine.registry().all().iter().map(|k| k.resource).collect();
        let state = Arc::new(State {
            discovery: Discovery::new(engine.registry()),
            openapi: OpenApi::new(resources, clock.now()),
            engine: engine.clone(),
            tokens,
            metrics: ServerMetrics::new(metrics),
            kubelets,
            tasks: tasks.clone(),
            clock,
            address: SocketAddr::new(config.advertise, port).to_string(),
            ready: AtomicBool::new(false),
            reads,
            writes,
        });
        let server = Server {
            state: state.clone(),
            acceptor: TlsAcceptor::from(Arc::new(tls_config)),
            check,
            connections: Server::limit(),
        };
        for listener in listeners {
            tasks.spawn("apiserver", server.clone().accept(listener, tasks.clone()));
        }
        let (booting, token) = (state.clone(), tasks.token().clone());
        tasks.spawn_transient("apiserver bootstrap", async move {
            let mut backoff = Backoff::new(BOOTSTRAP_DELAY_INITIAL, BOOTSTRAP_DELAY_MAX);
            while let Err(e) =
                bootstrap::run(&booting.engine, &booting.discovery, &config, port).await
            {
                tracing::warn!(error = %e, "the objects that every cluster has cannot be made yet");
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                }
            }
            booting.ready.store(true, Ordering::Release);
            tracing::info!("the API is ready");
        });
        let in_process = Arc::new(InProcess::new(state.clone(), observation.clone()));
        Ok(Running {
            local_addresses,
            in_process,
            state,
            _observation: observation,
        })
    }
}
