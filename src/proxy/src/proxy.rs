//! The loop: follows services and slices, plans what changed, gives the difference to the backend.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use kontiki_api::catalogue::known;
use kontiki_base::{Backoff, Metrics, Tasks, chain};
use kontiki_host::{Conntrack, LinkError, Network, UdpFlow};
use kontiki_reconcile::{Api, Cache, Event, Selection};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::backend::{Backend, BackendError};
use crate::metrics::ProxyMetrics;
use crate::nftables::{self, Nftables, NftablesConfig};
use crate::plan::{self, Changes, Plan, PortKey, Protocol};
use crate::stale;
use crate::views::{EndpointSlice, Service, TRIGGER_TIME_ANNOTATION};
use crate::vip::{self, LocalVip};

/// How often to look whether the rules are still there.
const INTACT_CHECK_INTERVAL: Duration = Duration::from_secs(30);
const RETRY_DELAY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// How many stale flows may wait to be forgotten. Past it they are left to time out, with a warning.
const STALE_FLOWS_MAX: usize = 4096;
/// The index of slices by service.
const BY_SERVICE: &str = "service";

/// How the proxy works on this node.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The node's name, which says what endpoints are local.
    pub node_name: String,
    /// The node's address: the source of its own connections to services.
    pub node_ip: Ipv4Addr,
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// The range of pod addresses, of all nodes; connections from elsewhere get the node's address as source.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Whether every connection to a service gets the node's address as source.
    pub masquerade_all: bool,
    /// The ranges in which the node's addresses have node ports; empty for all of its addresses but loopback.
    pub node_port_addresses: Vec<Ipv4Net>,
    /// Service addresses that the node itself answers on, as that of the cluster's DNS.
    pub local_vips: Vec<LocalVip>,
    /// The shortest time between two changes of the rules; what happens within it is put together.
    pub sync_interval_min: Duration,
}

impl ProxyConfig {
    /// The defaults for a node: kubeadm's address ranges.
    pub fn new(node_name: impl Into<String>, node_ip: Ipv4Addr) -> ProxyConfig {
        let net = |a, b, prefix| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix);
        ProxyConfig {
            node_name: node_name.into(),
            node_ip,
            service_cidr: net(10, 96, 12),
            cluster_cidr: Some(net(10, 244, 16)),
            masquerade_all: false,
            node_port_addresses: Vec::new(),
            local_vips: Vec::new(),
            sync_interval_min: Duration::from_millis(100),
        }
    }

    fn nftables(&self) -> NftablesConfig {
        NftablesConfig {
            service_cidr: self.service_cidr,
            cluster_cidr: self.cluster_cidr,
            masquerade_all: self.masquerade_all,
            node_port_addresses: self.node_port_addresses.clone(),
            local_vips: self.local_vips.clone(),
        }
    }
}

/// The proxy could not be started, or not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The packet filter.
    #[error("the service proxy's rules cannot be programmed")]
    Backend(#[from] BackendError),
    /// The link of the service addresses.
    #[error("the link of the service addresses cannot be set up")]
    Link(#[from] LinkError),
}

/// Which services are to be looked at again, and since when their pods wait for it.
#[derive(Default)]
struct Dirty {
    services: Mutex<HashMap<(String, String), Option<jiff::Timestamp>>>,
    changed: Notify,
}

impl Dirty {
    fn add(&self, service: (String, String), since: Option<jiff::Timestamp>) {
        let mut services = self.services.lock();
        let entry = services.entry(service).or_default();
        // The pod that has waited longest counts.
        *entry = match (*entry, since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        drop(services);
        self.changed.notify_one();
    }

    fn take(&self) -> HashMap<(String, String), Option<jiff::Timestamp>> {
        std::mem::take(&mut self.services.lock())
    }
}

/// The running proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    synced: tokio::sync::watch::Receiver<bool>,
}

impl Proxy {
    /// Starts the proxy. When this returns, packets to unknown services are refused, services that an earlier process
    /// programmed are still served, and the node holds its local service addresses; the rest follows when the API answers.
    ///
    /// # Errors
    /// The packet filter or the links cannot be changed.
    pub async fn start(
        config: ProxyConfig,
        api: &Arc<dyn Api>,
        host: &Network,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Proxy, ProxyError> {
        let mut backend = Nftables::new(config.nftables(), host.nft.clone());
        backend.prepare().await?;
        vip::ensure(
            &*host.links,
            config.service_cidr,
            config.node_ip,
            &config.local_vips,
        )
        .await?;
        let metrics = ProxyMetrics::new(metrics);
        metrics.backend_is(backend.name());
        tracing::info!(backend = backend.name(), cidr = %config.service_cidr, "service proxy starts");

        let dirty = Arc::new(Dirty::default());
        let (services, slices) = (
            Cache::<Service>::default(),
            Cache::<EndpointSlice>::default(),
        );
        slices.add_index(BY_SERVICE, |s| {
            s.service_key()
                .map(|(ns, name)| format!("{ns}/{name}"))
                .into_iter()
                .collect()
        });
        let d = dirty.clone();
        services.on_event(move |e| {
            let m = &e.object().metadata;
            d.add((m.namespace.clone(), m.name.clone()), None);
        });
        let d = dirty.clone();
        slices.on_event(move |e| slice_changed(&d, e));
        services.follow(tasks, api, known::services(), Selection::default());
        slices.follow(tasks, api, known::endpointslices(), Selection::default());

        let (stale, forget) = mpsc::channel(STALE_FLOWS_MAX);
        spawn_forgetting(tasks, host.conntrack.clone(), forget);
        let (synced_sender, synced) = tokio::sync::watch::channel(false);
        let (token, host) = (tasks.token().clone(), host.clone());
        let synced_sender = Arc::new(synced_sender);
        tasks.spawn_restarting("proxy", move || {
            let syncer = Syncer {
                backend: Box::new(Nftables::new(config.nftables(), host.nft.clone())),
                config: config.clone(),
                host: host.clone(),
                services: services.clone(),
                slices: slices.clone(),
                dirty: dirty.clone(),
                plan: Plan::new(),
                stale: stale.clone(),
                metrics: metrics.clone(),
                synced: synced_sender.clone(),
            };
            let token = token.clone();
            async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = syncer.run() => {}
                }
            }
        });
        Ok(Proxy { synced })
    }

    /// Waits until the services of the cluster are programmed.
    pub async fn synced(&self) {
        // If the sender is gone the group has ended, and nobody needs the answer.
        let _ = self.synced.clone().wait_for(|s| *s).await;
    }

    /// Whether the services of the cluster are programmed, and the last change of them succeeded.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }
}

/// Removes everything that the proxy made on this machine. Until this is called, packets to services stay on the node.
///
/// # Errors
/// The packet filter or the links cannot be changed.
pub async fn cleanup(host: &Network) -> Result<(), ProxyError> {
    // The way out first: while the route is gone and the rules are not, packets are still refused.
    let links = vip::remove(&*host.links).await;
    nftables::cleanup(&*host.nft).await?;
    Ok(links?)
}

fn trigger(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    slice
        .metadata
        .annotations
        .get(TRIGGER_TIME_ANNOTATION)?
        .parse()
        .ok()
}

fn slice_changed(dirty: &Dirty, event: &Event<EndpointSlice>) {
    let (old, new) = match event {
        Event::Added(new) => (None, Some(new)),
        Event::Updated { old, new } => (Some(old), Some(new)),
        Event::Deleted(old) => (Some(old), None),
    };
    // The time that is there already was measured when it came.
    let before = old.and_then(|s| trigger(s));
    let since = new.and_then(|s| trigger(s)).filter(|t| before != Some(*t));
    for slice in old.into_iter().chain(new) {
        if let Some(service) = slice.service_key() {
            dirty.add(service, since);
        }
    }
}

fn spawn_forgetting(tasks: &Tasks, conntrack: Arc<dyn Conntrack>, flows: mpsc::Receiver<UdpFlow>) {
    let token = tasks.token().clone();
    tasks.spawn("proxy-conntrack", async move {
        let mut flows = flows;
        let mut told = false;
        loop {
            let flow = tokio::select! {
                () = token.cancelled() => return,
                flow = flows.recv() => flow,
            };
            let Some(flow) = flow else {
                return token.cancelled().await;
            };
            if let Err(e) = conntrack.forget_udp(&flow).await
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(
                    error = chain(&e),
                    "UDP clients of removed endpoints have to wait for their flows to time out"
                );
            }
        }
    });
}

struct Syncer {
    backend: Box<dyn Backend>,
    config: ProxyConfig,
    host: Network,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    dirty: Arc<Dirty>,
    /// What the backend was last told.
    plan: Plan,
    stale: mpsc::Sender<UdpFlow>,
    metrics: ProxyMetrics,
    synced: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Syncer {
    async fn run(mut self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.replace().await;
        loop {
            let last = Instant::now();
            let changed =
                tokio::time::timeout(INTACT_CHECK_INTERVAL, self.dirty.changed.notified())
                    .await
                    .is_ok();
            if changed {
                tokio::time::sleep_until(last + self.config.sync_interval_min).await;
                self.sync().await;
            } else {
                self.check().await;
            }
        }
    }

    /// The part of the plan that is this service's, as it should be now.
    fn wanted(&self, namespace: &str, name: &str) -> Plan {
        let Some(service) = self.services.get(namespace, name) else {
            return Plan::new();
        };
        let slices = self
            .slices
            .by_index(BY_SERVICE, &format!("{namespace}/{name}"));
        plan::service(&service, &slices, &self.config.node_name)
    }

    /// The part of the plan that is this service's, as the backend was told.
    fn programmed(&self, namespace: &str, name: &str) -> Plan {
        let first = PortKey {
            namespace: namespace.to_owned(),
            service: name.to_owned(),
            protocol: Protocol::Tcp,
            port: 0,
        };
        let own = |k: &PortKey| k.namespace == namespace && k.service == name;
        self.plan
            .range(first..)
            .take_while(|(k, _)| own(k))
            .map(|(k, p)| (k.clone(), p.clone()))
            .collect()
    }

    async fn sync(&mut self) {
        let started = Instant::now();
        let dirty = self.dirty.take();
        let mut changes = Changes::default();
        for (namespace, name) in dirty.keys() {
            let part = plan::diff(
                &self.programmed(namespace, name),
                &self.wanted(namespace, name),
            );
            changes.set.extend(part.set);
            changes.removed.extend(part.removed);
        }
        if changes.is_empty() {
            return;
        }
        if let Err(e) = self.backend.change(&changes).await {
            self.failed(&e);
            return self.replace().await;
        }
        let flows = stale::flows(&self.plan, &changes);
        changes.apply(&mut self.plan);
        self.metrics
            .sync_seconds
            .observe(started.elapsed().as_secs_f64());
        let now = jiff::Timestamp::now();
        for since in dirty.into_values().flatten() {
            self.metrics
                .programming_seconds
                .observe(now.duration_since(since).as_secs_f64().max(0.0));
        }
        tracing::debug!(set = changes.set.len(), removed = changes.removed.len(), took = ?started.elapsed(), "services programmed");
        self.forget(flows);
    }

    /// Programs everything, until it works.
    async fn replace(&mut self) {
        let mut backoff = Backoff::new(RETRY_DELAY_INITIAL, RETRY_DELAY_MAX);
        loop {
            let started = Instant::now();
            self.dirty.take();
            let mut next = Plan::new();
            for s in self.services.list() {
                next.extend(self.wanted(&s.metadata.namespace, &s.metadata.name));
            }
            match self.backend.replace(&next).await {
                Ok(()) => {
                    self.plan = next;
                    self.metrics
                        .sync_seconds
                        .observe(started.elapsed().as_secs_f64());
                    self.synced.send_replace(true);
                    tracing::info!(ports = self.plan.len(), took = ?started.elapsed(), "all services programmed");
                    self.forget_leftovers().await;
                    return;
                }
                Err(e) => {
                    self.failed(&e);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    fn failed(&self, e: &BackendError) {
        self.synced.send_replace(false);
        self.metrics.failures.inc();
        tracing::error!(
            error = chain(e),
            "services could not be programmed, programming all of them again"
        );
    }

    /// Looks whether somebody removed our rules or links, and puts them back.
    async fn check(&mut self) {
        match self.backend.is_intact().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(
                    "somebody removed the service proxy's rules, programming them again"
                );
                self.replace().await;
            }
            Err(e) => tracing::warn!(
                error = chain(&e),
                "cannot look at the service proxy's rules"
            ),
        }
        let c = &self.config;
        if let Err(e) =
            vip::ensure(&*self.host.links, c.service_cidr, c.node_ip, &c.local_vips).await
        {
            tracing::warn!(
                error = chain(&e),
                "cannot set up the link of the service addresses"
            );
        }
    }

    /// What was programmed before is not known here, but the flows that it led to are.
    async fn forget_leftovers(&self) {
        match self.host.conntrack.udp_flows().await {
            Ok(found) => self.forget(stale::leftovers(
                found,
                &self.plan,
                self.config.service_cidr,
            )),
            Err(e) => tracing::warn!(
                error = chain(&e),
                "UDP flows to removed endpoints are left to time out"
            ),
        }
    }

    fn forget(&self, flows: Vec<UdpFlow>) {
        let count = flows.len();
        for (i, flow) in flows.into_iter().enumerate() {
            if self.stale.try_send(flow).is_err() {
                tracing::warn!(
                    left = count - i,
                    "too many stale UDP flows at once, leaving the rest to time out"
                );
                return;
            }
        }
    }
}
