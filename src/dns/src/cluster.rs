//! What DNS knows of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use kontiki_api::catalogue::known;
use kontiki_base::Tasks;
use kontiki_reconcile::{Api, Cache, Selection};

use crate::views::{EndpointSlice, Namespace, Port, Service};

const SERVICE_BY_IP: &str = "ip";
const SLICE_BY_SERVICE: &str = "service";
const SLICE_BY_ADDRESS: &str = "address";
/// The label that names a slice's service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Services, endpoints and namespaces, kept current.
#[derive(Clone)]
pub struct Cluster {
    /// The services.
    pub services: Cache<Service>,
    /// The endpoints of services.
    pub slices: Cache<EndpointSlice>,
    /// The namespaces.
    pub namespaces: Cache<Namespace>,
}

impl Default for Cluster {
    /// An empty cluster that follows nothing.
    fn default() -> Self {
        let (services, slices, namespaces) = (
            Cache::<Service>::default(),
            Cache::<EndpointSlice>::default(),
            Cache::default(),
        );
        services.add_index(SERVICE_BY_IP, |s| {
            s.ips().iter().map(ToString::to_string).collect()
        });
        slices.add_index(SLICE_BY_SERVICE, |s| service_key(s).into_iter().collect());
        slices.add_index(SLICE_BY_ADDRESS, |s| {
            s.endpoints
                .iter()
                .flat_map(|e| e.addresses.clone())
                .collect()
        });
        Cluster {
            services,
            slices,
            namespaces,
        }
    }
}

fn service_key(s: &EndpointSlice) -> Option<String> {
    let name = s.metadata.labels.get(SERVICE_NAME_LABEL)?;
    Some(format!("{}/{name}", s.metadata.namespace))
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// Its label below the service's name.
    pub(crate) label: String,
    pub(crate) ip: IpAddr,
}

impl Cluster {
    /// Follows the cluster until the group ends.
    pub(crate) fn follow(&self, tasks: &Tasks, api: &Arc<dyn Api>) {
        self.services
            .follow(tasks, api, known::services(), Selection::default());
        self.slices
            .follow(tasks, api, known::endpointslices(), Selection::default());
        self.namespaces
            .follow(tasks, api, known::namespaces(), Selection::default());
    }

    /// Whether everything is known.
    pub(crate) fn is_synced(&self) -> bool {
        self.services.is_synced() && self.slices.is_synced() && self.namespaces.is_synced()
    }

    /// Waits until everything is known.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.services.synced(),
            self.slices.synced(),
            self.namespaces.synced()
        );
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }

    fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices
            .by_index(SLICE_BY_SERVICE, &format!("{namespace}/{service}"))
    }

    /// The ready endpoints of a service, each once.
    pub(crate) fn hosts(&self, namespace: &str, service: &str) -> Vec<Host> {
        let slices = self.slices_of(namespace, service);
        let mut hosts: Vec<Host> = slices.iter().flat_map(|s| slice_hosts(s)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The ready endpoints of a service, each with the number of every port that matches.
    pub(crate) fn host_ports(
        &self,
        (namespace, service): (&str, &str),
        matches: impl Fn(&Port) -> bool,
    ) -> Vec<(Host, u16)> {
        let slices = self.slices_of(namespace, service);
        let each = |s: &Arc<EndpointSlice>| {
            let numbers: Vec<u16> = s
                .ports
                .iter()
                .filter(|p| p.port > 0 && matches(p))
                .map(|p| p.port)
                .collect();
            let pair = |h: Host| numbers.iter().map(|n| (h.clone(), *n)).collect::<Vec<_>>();
            slice_hosts(s)
                .into_iter()
                .flat_map(pair)
                .collect::<Vec<_>>()
        };
        let mut all: Vec<(Host, u16)> = slices.iter().flat_map(each).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The service that has this address.
    pub(crate) fn service_at(&self, ip: IpAddr) -> Option<Arc<Service>> {
        self.services
            .by_index(SERVICE_BY_IP, &ip.to_string())
            .into_iter()
            .next()
    }

    /// The namespaces, services and labels of the headless endpoints that have this address.
    pub(crate) fn hosts_at(&self, ip: IpAddr) -> Vec<(String, String, String)> {
        let slices = self.slices.by_index(SLICE_BY_ADDRESS, &ip.to_string());
        let mut found = Vec::new();
        for s in slices {
            let Some(service) = s.metadata.labels.get(SERVICE_NAME_LABEL) else {
                continue;
            };
            let ns = &s.metadata.namespace;
            if self
                .services
                .get(ns, service)
                .is_some_and(|s| s.is_headless())
            {
                let own = slice_hosts(&s).into_iter().filter(|h| h.ip == ip);
                found.extend(own.map(|h| (ns.clone(), service.clone(), h.label)));
            }
        }
        found
    }
}

fn slice_hosts(s: &EndpointSlice) -> Vec<Host> {
    let ready = s
        .endpoints
        .iter()
        .filter(|e| e.conditions.ready.unwrap_or(true));
    let host = |e: &crate::views::Endpoint| {
        let ip: IpAddr = e.addresses.first()?.parse().ok()?;
        let label = e
            .hostname
            .clone()
            .filter(|h| !h.is_empty())
            .unwrap_or_else(|| dashed(ip));
        Some(Host {
            label: label.to_ascii_lowercase(),
            ip,
        })
    };
    ready.filter_map(host).collect()
}

/// An address as a label: `10-244-0-5`.
pub(crate) fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The address that such a label stands for.
pub(crate) fn undashed(label: &str) -> Option<IpAddr> {
    if label.split('-').count() == 4
        && let Ok(ip) = label.replace('-', ".").parse()
    {
        return Some(ip);
    }
    label.replace('-', ":").parse().ok()
}
