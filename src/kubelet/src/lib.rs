//! The kubelet: runs the pods that are assigned to its node, over CRI, and tells the API how they fare.
//!
//! Entry point: [`Kubelet::start`]. The way of a pod: [`manager`] looks at what the runtime has ([`observed`]), [`plan`]
//! decides without I/O, [`execute`] carries out, [`status`] works out what the API is told.
//!
//! Invariants: a container that runs as it shall is never touched, whatever dies or restarts around it: what the API
//! cannot tell right now is taken to be as it was. Nothing long is waited for in a reconciliation. This crate never
//! talks to a particular API server or network: [`kontiki_reconcile::Api`] and the runtime are all it knows.

use std::net::SocketAddr;
use std::sync::Arc;

use kontiki_base::{Clock, Metrics, SystemClock, Tasks};
use kontiki_host::cgroups::{Cgroups, KernelCgroups};
use kontiki_host::mounts::{KernelMounts, Mounts};
use kontiki_reconcile::events::Recorder;
use kontiki_reconcile::{Api, Cache, Client, Queue, Selection};

pub mod admission;
pub mod config;
pub mod container;
pub mod cri;
pub mod dns;
pub mod downward;
pub mod env;
pub mod events;
pub mod execute;
pub mod images;
pub mod logs;
pub mod machine;
pub mod manager;
pub mod materials;
pub mod metrics;
pub mod node;
pub mod observed;
pub mod plan;
pub mod pleg;
pub mod pod;
pub mod probe;
pub mod prober;
pub mod sandbox;
pub mod security;
pub mod server;
pub mod status;
pub mod teardown;
#[cfg(test)]
mod testing;
mod tls;
pub mod volumes;
pub mod words;

pub use config::Config;
use manager::Manager;

/// How many pods are looked at at a time. Commands run beside them, so this is little.
const WORKERS: usize = 4;

/// The kubelet could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the node's API cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A directory cannot be made.
    #[error("cannot make {}", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A kubelet that runs until its tasks are stopped. The containers stay.
#[derive(Clone, Debug)]
pub struct Kubelet {
    address: SocketAddr,
}

impl Kubelet {
    /// Starts to run the node's pods. The runtime may come up later.
    ///
    /// # Errors
    /// A directory cannot be made, or the address cannot be listened on.
    pub async fn start(
        config: Config,
        api: Arc<dyn Api>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Kubelet, Error> {
        let pods_dir = config.root_dir.join("pods");
        for path in [&pods_dir, &config.pod_logs_dir] {
            std::fs::create_dir_all(path).map_err(|source| Error::Directory {
                path: path.clone(),
                source,
            })?;
        }
        let client = Client::new(api.clone(), "kubelet");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let runtime = cri::Runtime::new(&config.cri_socket);
        let recorder = Recorder::start(
            tasks,
            client.clone(),
            "kubelet",
            config.node_name.clone(),
            clock.clone(),
        );
        let queue = Queue::default();
        let mounts: Arc<dyn Mounts> = Arc::new(KernelMounts);
        let cgroups: Arc<dyn Cgroups> = Arc::new(KernelCgroups::default());
        let prober = prober::Prober::new(
            runtime.clone(),
            queue.clone(),
            recorder.clone(),
            tasks.clone(),
        );
        let tokens = volumes::token::Tokens::new(client.clone());
        let manager = Manager(Arc::new(manager::Inner {
            machine: machine::Machine::detect(&config.root_dir),
            runtime,
            pods: Cache::default(),
            services: Cache::default(),
            queue: queue.clone(),
            volumes: volumes::Volumes::new(pods_dir, mounts, tokens),
            materials: materials::Store::new(client.clone()),
            cgroups,
            recorder,
            prober: Arc::new(prober),
            clock,
            tasks: tasks.clone(),
            metrics: metrics::KubeletMetrics::new(metrics),
            records: parking_lot::Mutex::default(),
            client,
            config,
        }));
        let listen = manager.0.config.listen;
        let pods: Arc<dyn server::Pods> = Arc::new(manager.0.pods.clone());
        let address = server::serve(
            &manager.0.config,
            &manager.0.runtime,
            pods.clone(),
            tasks,
            metrics,
        )
        .await
        .map_err(|source| Error::Listen {
            address: listen,
            source,
        })?;
        logs::start(&manager.0.config, &manager.0.runtime, pods, tasks);
        let node = &manager.0.config.node_name;
        let ours = Selection {
            field_selector: format!("spec.nodeName={node}"),
            ..Selection::default()
        };
        let services = kontiki_api::catalogue::known::services();
        manager
            .0
            .services
            .follow(tasks, &api, services, Selection::default());
        let m = manager.clone();
        manager.0.pods.on_event(move |e| m.on_pod(e));
        manager
            .0
            .pods
            .follow(tasks, &api, kontiki_api::catalogue::known::pods(), ours);
        kontiki_reconcile::run(tasks, &queue, WORKERS, Arc::new(manager.clone()));
        pleg::start(&manager, tasks);
        node::start(&manager, address.port(), tasks);
        Ok(Kubelet { address })
    }

    /// Where the node's API is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
