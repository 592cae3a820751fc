//! Gives pods their nodes.
//!
//! Entry point: [`Scheduler::start`]. A pod without a node waits in the [`queue`]; [`decide`] asks the [`plugins`] about
//! every node of the [`cluster`]; the pod is assumed to be there at once, and bound through the API.
//!
//! Invariants: deciding is pure, over plain data. A node is never given more than it has, whatever the order in which
//! bindings and watch events come. This crate knows no transport, and nothing of who makes or runs the pods.

pub mod cluster;
pub mod decide;
mod metrics;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod resources;
mod run;

use std::sync::Arc;

use kontiki_api::catalogue::known;
use kontiki_base::{Clock, Metrics, SystemClock, Tasks};
use kontiki_reconcile::{Api, Cache, Client, Recorder, Selection};

/// The name that pods ask for when they ask for no other.
pub const SCHEDULER_NAME_DEFAULT: &str = "default-scheduler";

/// How a scheduler is set up.
#[derive(Clone)]
pub struct Config {
    /// Pods that ask for this scheduler are scheduled.
    pub scheduler_name: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            scheduler_name: SCHEDULER_NAME_DEFAULT.into(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("scheduler_name", &self.scheduler_name)
            .finish_non_exhaustive()
    }
}

/// A running scheduler; it ends with its task group.
#[derive(Debug)]
pub struct Scheduler;

impl Scheduler {
    /// Starts scheduling, as soon as nodes and pods are known.
    pub fn start(
        config: Config,
        api: &Arc<dyn Api>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Scheduler {
        let client = Client::new(api.clone(), "kube-scheduler");
        let clock = config.clock.clone();
        let recorder = Recorder::start(
            tasks,
            client.clone(),
            SCHEDULER_NAME_DEFAULT,
            "",
            clock.clone(),
        );
        let metrics = metrics::SchedulerMetrics::register(metrics);
        let runner = run::Runner::new(config.scheduler_name, client, recorder, metrics, clock);
        let (pods, nodes, namespaces) = (Cache::default(), Cache::default(), Cache::default());
        runner.listen(&pods, &nodes, &namespaces);
        nodes.follow(tasks, api, known::nodes(), Selection::default());
        pods.follow(tasks, api, known::pods(), Selection::default());
        namespaces.follow(tasks, api, known::namespaces(), Selection::default());
        let (group, token) = (tasks.clone(), tasks.token().clone());
        tasks.spawn_restarting("scheduler", move || {
            let (runner, group, token) = (runner.clone(), group.clone(), token.clone());
            let (pods, nodes, namespaces) = (pods.clone(), nodes.clone(), namespaces.clone());
            async move {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = async { tokio::join!(pods.synced(), nodes.synced(), namespaces.synced()); } => {}
                }
                runner.run(group, token).await;
            }
        });
        Scheduler
    }
}
