//! The master's parts, put together: store, API server, scheduler, controllers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use kontiki_apiserver::{ApiServer, KubeletAccess, Running};
use kontiki_base::{Metrics, Tasks};
use kontiki_controllers::Controllers;
use kontiki_raft::{RaftStore, Store, StoreConfig};
use kontiki_reconcile::Api;
use kontiki_scheduler::Scheduler;

use crate::config::Config;
use crate::identities::{self, Identities};
use crate::system_objects;

/// The name that the store's directory is marked with.
const CLUSTER: &str = "kontiki";

/// A running master.
pub(crate) struct Master {
    /// Its keys and certificates.
    pub(crate) identities: Identities,
    /// Its store, to be shut down last.
    pub(crate) store: Arc<dyn Store>,
    /// The API, in process.
    pub(crate) api: Arc<dyn Api>,
    _running: Running,
}

/// Starts the parts of a master. When this returns the API server listens and is ready.
///
/// # Errors
/// A part cannot be started; the message says which one and why.
pub(crate) async fn start(config: &Config, metrics: &Metrics, tasks: &Tasks) -> Result<Master> {
    let directory = config.data_dir.join("store");
    // The store first: a directory that is refused must leave nothing else behind.
    let store = RaftStore::open(StoreConfig::new(&directory, CLUSTER))
        .await
        .context("the store does not open")?;
    let store: Arc<dyn Store> = Arc::new(store);
    let identities = identities::load(config)?;
    let apiserver = kontiki_apiserver::Config {
        listen: vec![SocketAddr::new(config.bind_address, config.secure_port)],
        advertise: config.advertise_address,
        serving: identities.apiserver.clone(),
        client_ca_pem: identities.pki.ca().cert_pem().to_owned(),
        service_account_key_pem: identities.pki.service_account_key_pem().to_owned(),
        service_account_issuer: format!("https://kubernetes.default.svc.{}", config.cluster_domain),
        kubelet: Some(KubeletAccess {
            identity: identities.kubelet_client.clone(),
            ca_pem: identities.pki.ca().cert_pem().to_owned(),
        }),
        service_cidr: config.service_cidr,
        node_ports: config.node_port_range,
    };
    let running = ApiServer::start(apiserver, store.clone(), metrics, tasks)
        .await
        .context("the API server does not start")?;
    let api = running.in_process.clone();
    running.wait_ready().await;
    // With `--controllers=''` nothing but the API is served.
    if config.controllers.iter().any(|c| !c.is_empty()) {
        system_objects::publish(config, &api, tasks);
        Scheduler::start(kontiki_scheduler::Config::default(), &api, metrics, tasks);
        let controllers = kontiki_controllers::Config {
            cluster_cidr: config.cluster_cidr.to_string(),
            root_ca_pem: identities.pki.ca().cert_pem().to_owned(),
            which: config.controllers.clone(),
            ..kontiki_controllers::Config::default()
        };
        Controllers::start(&controllers, &api, metrics, tasks)
            .context("the controllers do not start")?;
    }
    Ok(Master {
        identities,
        store,
        api,
        _running: running,
    })
}
