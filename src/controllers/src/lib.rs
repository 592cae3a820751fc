//! The control loops: each brings one kind of thing from what it is to what it should be.
//!
//! Entry point: [`Controllers::start`]. One file a loop; each has a `plan` without I/O that a test can call with plain
//! data, and a thin executor. Loops share the caches of a [`context::Context`].
//!
//! Invariants: a loop writes patches of what it owns, with uid and resourceVersion as preconditions, so that a deposed
//! leader's writes fail. A loop reads its own writes. This crate knows no transport and no store.

pub mod conditions;
pub mod context;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage_collector;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_garbage_collector;
pub mod replicaset;
pub mod root_ca;
pub mod serviceaccount;
pub mod views;

use std::sync::Arc;

use ipnet::IpNet;
use kontiki_base::{Clock, Metrics, SystemClock, Tasks};
use kontiki_reconcile::Api;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use context::Context;

/// How the loops are set up.
#[derive(Clone)]
pub struct Config {
    /// Which loops run, as in kube-controller-manager's `--controllers`: `*` for all, a name for one, `-name` for all but
    /// this one. None if it is empty.
    pub which: Vec<String>,
    /// The range of pod addresses, which nodes get their own ranges out of, as in `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// The prefix length of a node's range.
    pub node_cidr_mask: u8,
    /// The cluster's CA as PEM, which is published to every namespace.
    pub root_ca_pem: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            which: vec!["*".into()],
            cluster_cidr: "10.244.0.0/16".into(),
            node_cidr_mask: 24,
            root_ca_pem: String::new(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("which", &self.which)
            .finish_non_exhaustive()
    }
}

/// A configuration that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The list of loops names one that does not exist.
    #[error("there is no controller {name:?}; there are {}", names().join(", "))]
    UnknownController {
        /// The name that is none.
        name: String,
    },
    /// The range of pod addresses is not one, or holds no node's range.
    #[error("the cluster CIDR {cidr:?} is not a range that holds a /{mask} for each node")]
    ClusterCidr {
        /// What was given.
        cidr: String,
        /// The prefix length of a node's range.
        mask: u8,
    },
}

/// How a loop is started: its context, the configuration, and the range of pod addresses out of it.
type Start = fn(&Context, &Config, IpNet);

const LOOPS: [(&str, Start); 11] = [
    ("deployment-controller", |c, _, _| deployment::start(c)),
    ("endpoints-controller", |c, _, _| endpoints::start(c)),
    ("endpointslice-controller", |c, _, _| {
        endpointslice::start(c);
    }),
    ("garbage-collector-controller", |c, _, _| {
        garbage_collector::start(c);
    }),
    ("namespace-controller", |c, _, _| namespace::start(c)),
    ("node-ipam-controller", |c, config, range| {
        node_ipam::start(c, range, config.node_cidr_mask);
    }),
    ("node-lifecycle-controller", |c, _, _| {
        node_lifecycle::start(c);
    }),
    ("pod-garbage-collector-controller", |c, _, _| {
        pod_garbage_collector::start(c);
    }),
    ("replicaset-controller", |c, _, _| replicaset::start(c)),
    (
        "root-ca-certificate-publisher-controller",
        |c, config, _| root_ca::start(c, &config.root_ca_pem),
    ),
    ("serviceaccount-controller", |c, _, _| {
        serviceaccount::start(c);
    }),
];

/// The names of all loops.
pub fn names() -> Vec<&'static str> {
    LOOPS.iter().map(|(name, _)| *name).collect()
}

/// The loops that a list asks for.
///
/// # Errors
/// The list names a loop that does not exist.
pub fn selected(which: &[String]) -> Result<Vec<&'static str>, ConfigError> {
    let which: Vec<&str> = which
        .iter()
        .map(|w| w.trim())
        .filter(|w| !w.is_empty())
        .collect();
    for name in &which {
        let bare = name.strip_prefix('-').unwrap_or(name);
        if *name != "*" && !names().contains(&bare) {
            return Err(ConfigError::UnknownController {
                name: bare.to_owned(),
            });
        }
    }
    let is_on = |name: &&str| {
        let off = which.iter().any(|w| w.strip_prefix('-') == Some(*name));
        !off && (which.contains(&"*") || which.contains(name))
    };
    Ok(names().into_iter().filter(is_on).collect())
}

/// Running loops; they end with their task group.
#[derive(Debug)]
pub struct Controllers;

impl Controllers {
    /// Starts the loops that the configuration asks for.
    ///
    /// # Errors
    /// The configuration cannot be carried out; nothing was started.
    pub fn start(
        config: &Config,
        api: &Arc<dyn Api>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Controllers, ConfigError> {
        let on = selected(&config.which)?;
        let range =
            node_ipam::range(&config.cluster_cidr, config.node_cidr_mask).ok_or_else(|| {
                let (cidr, mask) = (config.cluster_cidr.clone(), config.node_cidr_mask);
                ConfigError::ClusterCidr { cidr, mask }
            })?;
        let running: Family<[(&'static str, &'static str); 1], Gauge> = metrics.register(
            "running_managed_controllers",
            "Loops that run.",
            Family::default(),
        );
        let context = Context::new(api.clone(), tasks.clone(), config.clock.clone());
        for (name, start) in LOOPS.iter().filter(|(name, _)| on.contains(name)) {
            start(&context, config, range);
            running.get_or_create(&[("name", *name)]).set(1);
        }
        Ok(Controllers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_selected_as_upstream_does_it() {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(selected(&list("*")), Ok(names()));
        assert_eq!(selected(&list("")), Ok(vec![]));
        assert_eq!(
            selected(&list("replicaset-controller")),
            Ok(vec!["replicaset-controller"])
        );
        assert!(
            !selected(&list("*,-replicaset-controller"))
                .expect("valid")
                .contains(&"replicaset-controller")
        );
        assert!(
            selected(&list("*,-nothing"))
                .expect_err("unknown")
                .to_string()
                .contains("there is no controller \"nothing\"")
        );
    }
}
