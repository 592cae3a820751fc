//! Probes of running containers: one task for each container that has any, which ends with the container.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_base::{CancellationToken, Tasks};
use kontiki_reconcile::Queue;
use kontiki_reconcile::events::Recorder;
use parking_lot::Mutex;
use rand::Rng;

use crate::cri::Runtime;
use crate::events;
use crate::observed::{Observed, State};
use crate::plan::Health;
use crate::pod::{Container, Pod, Probe};
use crate::probe::{Action, Target, act};

const PERIOD_DEFAULT_SECONDS: u32 = 10;
const FAILURES_DEFAULT: u32 = 3;

/// Counts tries of one probe up to its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    good: bool,
    run: u32,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Counter {
    /// A counter for this probe, starting from a verdict.
    pub fn new(probe: &Probe, good: bool) -> Counter {
        let success_threshold = probe.success_threshold.unwrap_or(1).max(1);
        let failure_threshold = probe.failure_threshold.unwrap_or(FAILURES_DEFAULT).max(1);
        Counter {
            good,
            run: 0,
            success_threshold,
            failure_threshold,
        }
    }

    /// Takes one try into account; the new verdict, once a threshold is reached.
    pub fn count(&mut self, good: bool) -> Option<bool> {
        if self.run > 0 && self.good != good {
            self.run = 0;
        }
        self.good = good;
        self.run += 1;
        let threshold = if good {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.run >= threshold).then_some(good)
    }
}

/// The probes of the node.
pub struct Prober {
    runtime: Runtime,
    queue: Queue<String>,
    recorder: Recorder,
    tasks: Tasks,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By container id.
    health: HashMap<String, Health>,
    /// The pod's uid and what ends the task, by container id.
    running: HashMap<String, (String, CancellationToken)>,
}

impl Prober {
    /// A prober that puts a pod's uid into the queue when a verdict changes.
    pub fn new(runtime: Runtime, queue: Queue<String>, recorder: Recorder, tasks: Tasks) -> Prober {
        Prober {
            runtime,
            queue,
            recorder,
            tasks,
            inner: Mutex::default(),
        }
    }

    /// Starts probes of containers that have begun to run and ends those of containers that no longer do. A pod that is
    /// being ended is asked only whether it is ready.
    pub fn sync(self: &Arc<Self>, pod: &Arc<Pod>, observed: &Observed) {
        let uid = &pod.metadata.uid;
        let alive: HashSet<&str> = observed
            .containers
            .iter()
            .filter(|c| c.state == State::Running)
            .map(|c| c.id.as_str())
            .collect();
        let mut new = Vec::new();
        {
            let mut inner = self.inner.lock();
            let ended: Vec<String> = inner
                .running
                .iter()
                .filter(|(id, (of, _))| of == uid && !alive.contains(id.as_str()))
                .map(|(id, _)| id.clone())
                .collect();
            for id in ended {
                if let Some((_, token)) = inner.running.remove(&id) {
                    token.cancel();
                }
                inner.health.remove(&id);
            }
            for seen in observed
                .containers
                .iter()
                .filter(|c| c.state == State::Running)
            {
                if inner.running.contains_key(&seen.id) {
                    continue;
                }
                let Some((container, _)) = pod.container(&seen.name) else {
                    continue;
                };
                let token = self.tasks.token().child_token();
                inner
                    .running
                    .insert(seen.id.clone(), (uid.clone(), token.clone()));
                inner
                    .health
                    .insert(seen.id.clone(), first_health(pod, container, &seen.id));
                let since = seen.started_at.unwrap_or(seen.created_at);
                let has_probes = container.liveness_probe.is_some()
                    || container.readiness_probe.is_some()
                    || container.startup_probe.is_some();
                if has_probes {
                    let ip = observed.ips().first().cloned().unwrap_or_default();
                    new.push(Run {
                        prober: self.clone(),
                        pod: pod.clone(),
                        container: container.clone(),
                        id: seen.id.clone(),
                        ip,
                        since,
                        token,
                    });
                }
            }
        }
        for run in new {
            let name = format!("probe-{}-{}", pod.key(), run.container.name);
            self.tasks.spawn_transient(name, run.all());
        }
    }

    /// What the probes say, by container id.
    pub fn health(&self, observed: &Observed) -> HashMap<String, Health> {
        let inner = self.inner.lock();
        observed
            .containers
            .iter()
            .filter_map(|c| Some((c.id.clone(), inner.health.get(&c.id)?.clone())))
            .collect()
    }

    /// Ends all probes of a pod.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.lock();
        let ids: Vec<String> = inner
            .running
            .iter()
            .filter(|(_, (of, _))| of == uid)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            if let Some((_, token)) = inner.running.remove(&id) {
                token.cancel();
            }
            inner.health.remove(&id);
        }
    }

    fn change(&self, uid: &str, id: &str, change: impl FnOnce(&mut Health)) {
        let mut inner = self.inner.lock();
        let Some(h) = inner.health.get_mut(id) else {
            return;
        };
        let before = h.clone();
        change(h);
        if *h != before {
            drop(inner);
            self.queue.add(uid.to_owned());
        }
    }
}

/// The verdict before the first try. After a restart of the kubelet a container goes on as it was last told.
fn first_health(pod: &Pod, c: &Container, id: &str) -> Health {
    let mut written = pod
        .status
        .container_statuses
        .iter()
        .chain(&pod.status.init_container_statuses);
    let known = written.find(|s| {
        s.container_id
            .as_deref()
            .is_some_and(|known| known.ends_with(id))
    });
    let started = c.startup_probe.is_none() || known.and_then(|k| k.started) == Some(true);
    let ready = c.readiness_probe.is_none() || known.is_some_and(|k| k.ready);
    Health {
        started,
        ready,
        failed: None,
    }
}

struct Run {
    prober: Arc<Prober>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    ip: String,
    since: Timestamp,
    token: CancellationToken,
}

impl Run {
    async fn all(self) {
        let token = self.token.clone();
        tokio::select! {
            () = token.cancelled() => {}
            () = self.probe() => {}
        }
    }

    async fn probe(&self) {
        let c = &self.container;
        let started = self
            .prober
            .inner
            .lock()
            .health
            .get(&self.id)
            .is_some_and(|h| h.started);
        if let Some(p) = c.startup_probe.as_ref().filter(|_| !started) {
            self.repeat(
                "Startup",
                p,
                false,
                |h, good| {
                    h.started |= good;
                    if !good {
                        h.failed = Some(("startup", p.termination_grace_period_seconds));
                    }
                },
                true,
            )
            .await;
        }
        let ready = self
            .prober
            .inner
            .lock()
            .health
            .get(&self.id)
            .is_some_and(|h| h.ready);
        let readiness = async {
            if let Some(p) = &c.readiness_probe {
                self.repeat("Readiness", p, ready, |h, good| h.ready = good, false)
                    .await;
            }
        };
        let liveness = async {
            if let Some(p) = &c.liveness_probe {
                self.repeat(
                    "Liveness",
                    p,
                    true,
                    |h, good| {
                        if !good {
                            h.failed = Some(("liveness", p.termination_grace_period_seconds));
                        }
                    },
                    false,
                )
                .await;
            }
        };
        tokio::join!(readiness, liveness);
    }

    /// Tries a probe again and again; with `until_good` until it has succeeded.
    async fn repeat(
        &self,
        kind: &'static str,
        p: &Probe,
        good: bool,
        told: impl Fn(&mut Health, bool),
        until_good: bool,
    ) {
        let period = Duration::from_secs(
            p.period_seconds
                .unwrap_or(PERIOD_DEFAULT_SECONDS)
                .max(1)
                .into(),
        );
        let limit = Duration::from_secs(p.timeout_seconds.unwrap_or(1).max(1).into());
        let initial = Duration::from_secs(p.initial_delay_seconds.unwrap_or(0).into());
        let age = Timestamp::now().duration_since(self.since).unsigned_abs();
        if age > period + initial && kind != "Startup" {
            // A kubelet that has just started does not probe all its containers at once.
            let spread = rand::rng().random_range(0.0..1.0);
            tokio::time::sleep(period.mul_f64(spread)).await;
        } else {
            tokio::time::sleep(initial.saturating_sub(age)).await;
        }
        let mut counter = Counter::new(p, good);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let action = match (&p.exec, &p.http_get, &p.tcp_socket, &p.grpc) {
            (Some(e), ..) => Action::Exec(e),
            (_, Some(h), ..) => Action::Http(h),
            (_, _, Some(t), _) => Action::Tcp(t),
            (_, _, _, Some(g)) => Action::Grpc(g),
            _ => return,
        };
        loop {
            ticks.tick().await;
            let target = Target {
                runtime: &self.prober.runtime,
                container: &self.container,
                id: &self.id,
                ip: &self.ip,
            };
            let result = act(&target, action, limit).await;
            if let Err(e) = &result {
                let about = events::container(&self.pod, &self.container.name);
                self.prober.recorder.warning(
                    about,
                    "Unhealthy",
                    format!("{kind} probe failed: {e}"),
                );
            }
            if let Some(verdict) = counter.count(result.is_ok()) {
                self.prober
                    .change(&self.pod.metadata.uid, &self.id, |h| told(h, verdict));
                if until_good && verdict {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_counted_in_a_row() {
        let p = Probe {
            failure_threshold: Some(3),
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut c = Counter::new(&p, true);
        let tries = [false, false, true, false, false, false, true, true];
        let verdicts: Vec<Option<bool>> = tries.into_iter().map(|t| c.count(t)).collect();
        let (none, good, bad) = (None, Some(true), Some(false));
        assert_eq!(verdicts, [none, none, none, none, none, bad, none, good]);
    }

    #[test]
    fn a_restart_of_the_kubelet_keeps_what_was_told() {
        let mut pod = Pod::default();
        pod.status.container_statuses = serde_json::from_value(serde_json::json!([
            {"name": "c", "containerID": "containerd://abc", "ready": true, "started": true},
        ]))
        .expect("read");
        let c = Container {
            readiness_probe: Some(Probe::default()),
            startup_probe: Some(Probe::default()),
            ..Container::default()
        };
        assert_eq!(
            first_health(&pod, &c, "abc"),
            Health {
                started: true,
                ready: true,
                failed: None
            }
        );
        assert_eq!(
            first_health(&pod, &c, "def"),
            Health {
                started: false,
                ready: false,
                failed: None
            }
        );
    }
}
