//! The pods of the node: for each a record, and one reconciliation at a time.
//!
//! A reconciliation looks (runtime, probes), decides ([`crate::plan`]), starts the commands as tasks and tells the API.
//! It never waits for a command: what takes long runs beside it, and its end brings the pod's key into the queue again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kontiki_api::ObjectMeta;
use kontiki_base::{CancellationToken, Clock, Tasks, chain};
use kontiki_host::cgroups::Cgroups;
use kontiki_reconcile::events::Recorder;
use kontiki_reconcile::{Cache, CallError, Client, Event, Outcome, Queue, Reconcile};
use parking_lot::Mutex;
use serde_json::Value;

use crate::config::Config;
use crate::cri::Runtime;
use crate::downward::Facts;
use crate::env::Service;
use crate::events;
use crate::machine::Machine;
use crate::materials::Store;
use crate::observed::{Observed, Seen, State, observe};
use crate::plan::{self, Crash, POD_KEY};
use crate::pod::Pod;
use crate::prober::Prober;
use crate::status::{Ended, Waiting};
use crate::volumes::{Paths, Volumes};
use crate::{admission, status, words};

/// How soon the runtime is asked again when it does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// How often volumes that show objects of the API are brought up to date.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How long a container is said to have failed to start before it is said to wait for the next try.
const FAILURE_SHOWN_FOR: Duration = Duration::from_secs(2);

/// A failed try, and when the next one is due.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) at: Timestamp,
    pub(crate) retry_at: Timestamp,
    pub(crate) tries: u32,
}

/// What is known of a pod beyond the object and the runtime.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) gone: bool,
    pub(crate) ended: Option<Ended>,
    pub(crate) admitted: bool,
    pub(crate) busy: BTreeSet<String>,
    pub(crate) set_up: bool,
    pub(crate) torn_down: bool,
    /// Nothing of the pod is left on the machine, its logs included.
    pub(crate) removed: bool,
    pub(crate) paths: Paths,
    pub(crate) failures: HashMap<String, Failure>,
    pub(crate) waiting: HashMap<String, Waiting>,
    pub(crate) crashes: HashMap<String, Crash>,
    pub(crate) observed: Observed,
    pub(crate) starting: CancellationToken,
    ending_since: Option<Timestamp>,
    final_status_written: bool,
    written: Option<Value>,
    writing: bool,
    messages: HashMap<String, String>,
    told_crash: BTreeSet<String>,
    refreshed: Option<Timestamp>,
    seen: Seen,
}

/// The manager of all pods. Clones are the same one.
#[derive(Clone)]
pub struct Manager(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) pods: Cache<Pod>,
    pub(crate) services: Cache<Service>,
    pub(crate) queue: Queue<String>,
    pub(crate) volumes: Volumes,
    pub(crate) materials: Store,
    pub(crate) cgroups: Arc<dyn Cgroups>,
    pub(crate) recorder: Recorder,
    pub(crate) prober: Arc<Prober>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: crate::metrics::KubeletMetrics,
    pub(crate) records: Mutex<HashMap<String, Arc<Mutex<Record>>>>,
}

pub(crate) fn after(t: Timestamp, d: Duration) -> Timestamp {
    t.checked_add(SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX)
}

impl Manager {
    /// The record of a pod, made if there is none.
    pub(crate) fn record(&self, uid: &str) -> Arc<Mutex<Record>> {
        self.0
            .records
            .lock()
            .entry(uid.to_owned())
            .or_default()
            .clone()
    }

    /// Takes a change of the API's pods in.
    pub(crate) fn on_pod(&self, e: &Event<Pod>) {
        let pod = e.object();
        if let Event::Updated { old, .. } = e
            && old.metadata.uid != pod.metadata.uid
        {
            self.mark_gone(old);
        }
        if let Event::Deleted(p) = e {
            return self.mark_gone(p);
        }
        let record = self.record(&pod.metadata.uid);
        {
            let mut r = record.lock();
            r.pod = Some(pod.clone());
            if pod.metadata.is_deleting() {
                r.starting.cancel();
            }
        }
        self.0.queue.add(pod.metadata.uid.clone());
    }

    fn mark_gone(&self, pod: &Arc<Pod>) {
        let record = self.record(&pod.metadata.uid);
        {
            let mut r = record.lock();
            r.gone = true;
            r.pod = Some(pod.clone());
            r.starting.cancel();
        }
        self.0.queue.add(pod.metadata.uid.clone());
    }

    /// Takes in what the runtime has: pods that the API does not know are ended, all that changed are looked at.
    pub(crate) fn on_runtime(&self, changed: &[(String, ObjectMeta)]) {
        if !self.0.pods.is_synced() {
            return;
        }
        for (uid, meta) in changed {
            let record = self.record(uid);
            let mut r = record.lock();
            if r.pod.is_none() {
                tracing::info!(
                    pod = meta.key(),
                    uid,
                    "the API does not know this pod, it is ended"
                );
                r.pod = Some(Arc::new(Pod {
                    metadata: meta.clone(),
                    ..Pod::default()
                }));
                r.gone = true;
            }
            drop(r);
            self.0.queue.add(uid.clone());
        }
    }

    /// What is known beside a pod's object.
    pub(crate) fn facts(&self, pod: &Pod, observed: &Observed) -> Facts {
        let i = &self.0;
        let pod_ips = if pod.spec.host_network {
            vec![i.config.node_ip.to_string()]
        } else {
            observed.ips().to_vec()
        };
        Facts {
            pod_ips,
            host_ip: Some(i.config.node_ip),
            node_cpu_millis: i.machine.allocatable_cpu_millis(&i.config),
            node_memory_bytes: i.machine.allocatable_memory_bytes(&i.config),
        }
    }

    /// Runs something for a pod beside the reconciliation, under a key that keeps it from being done twice at a time.
    pub(crate) fn spawn<F>(&self, uid: &str, key: &str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let record = self.record(uid);
        record.lock().busy.insert(key.to_owned());
        let done = Done {
            record,
            key: key.to_owned(),
            uid: uid.to_owned(),
            queue: self.0.queue.clone(),
        };
        self.0
            .tasks
            .spawn_transient(format!("pod-{uid}-{key}"), async move {
                work.await;
                drop(done);
            });
    }

    async fn look(&self, uid: &str, record: &Mutex<Record>) -> Option<Observed> {
        let mut seen = std::mem::take(&mut record.lock().seen);
        let observed = observe(&self.0.runtime, uid, &mut seen).await;
        let mut r = record.lock();
        r.seen = seen;
        match observed {
            Ok(o) => {
                r.observed = o.clone();
                Some(o)
            }
            Err(e) => {
                tracing::debug!(uid, error = chain(&e), "the runtime does not answer");
                None
            }
        }
    }

    /// Rejects a new pod that does not fit, and ends one whose time is up.
    fn judge(&self, r: &mut Record, pod: &Pod, observed: &Observed, now: Timestamp) {
        let i = &self.0;
        if !r.admitted && !r.gone {
            // What runs already was admitted before.
            if observed.sandboxes.is_empty() && !pod.is_terminal() && !pod.metadata.is_deleting() {
                r.ended = admission::refusal(pod, &i.pods.list(), &i.config, &i.machine);
                if let Some(e) = &r.ended {
                    let reason = e.reason.clone();
                    i.recorder
                        .warning(events::pod(pod), &reason, e.message.clone());
                }
            }
            r.admitted = true;
        }
        let start = pod
            .status
            .start_time
            .as_deref()
            .and_then(|t| t.parse::<Timestamp>().ok());
        if let (Some(limit), Some(start), None) =
            (pod.spec.active_deadline_seconds, start, &r.ended)
            && now.duration_since(start).as_secs() >= limit
            && !pod.is_terminal()
        {
            let message =
                "Pod was active on the node longer than the specified deadline".to_owned();
            i.recorder
                .normal(events::pod(pod), "DeadlineExceeded", message.clone());
            r.ended = Some(Ended {
                reason: "DeadlineExceeded".into(),
                message,
            });
            r.starting.cancel();
        }
    }

    /// A failure that has been shown for a while becomes a wait for the next try.
    fn age_failures(&self, r: &mut Record, pod: &Pod, now: Timestamp) {
        let Record {
            failures, waiting, ..
        } = r;
        for (name, f) in failures
            .iter()
            .filter(|(n, f)| !n.is_empty() && after(f.at, FAILURE_SHOWN_FOR) <= now)
        {
            let Some(w) = waiting.get_mut(name) else {
                continue;
            };
            let Some((c, _)) = pod.container(name) else {
                continue;
            };
            if matches!(w.reason.as_str(), "ErrImagePull") && f.retry_at > now {
                let about = || events::container(pod, name);
                let message = format!("Back-off pulling image \"{}\"", c.image);
                self.0.recorder.normal(about(), "BackOff", message.clone());
                self.0
                    .recorder
                    .warning(about(), "Failed", "Error: ImagePullBackOff");
                let message = format!("{message}: ErrImagePull: {}", w.message);
                *w = Waiting {
                    reason: "ImagePullBackOff".into(),
                    message,
                };
            }
        }
    }

    fn crash_waits(
        &self,
        r: &mut Record,
        pod: &Pod,
        finished: bool,
        now: Timestamp,
    ) -> HashMap<String, Timestamp> {
        let mut out = HashMap::new();
        if finished {
            return out;
        }
        for c in pod.all_containers() {
            let Some(seen) = r
                .observed
                .latest(&c.name)
                .filter(|s| s.state == State::Exited)
            else {
                continue;
            };
            let until = Crash::until(
                r.crashes.get(&c.name),
                seen.finished_at.unwrap_or(seen.created_at),
            );
            if until <= now || r.busy.contains(&c.name) {
                continue;
            }
            if r.told_crash.insert(seen.id.clone()) {
                let m = &pod.metadata;
                let text = format!(
                    "Back-off restarting failed container {} in pod {}_{}({})",
                    c.name, m.name, m.namespace, m.uid
                );
                self.0
                    .recorder
                    .warning(events::container(pod, &c.name), "BackOff", text);
            }
            out.insert(c.name.clone(), until);
        }
        out
    }

    /// Writes the status, if it has changed, beside the reconciliation.
    fn tell(
        &self,
        uid: &str,
        record: &Arc<Mutex<Record>>,
        pod: &Arc<Pod>,
        new: Value,
        is_final: bool,
    ) {
        {
            let mut r = record.lock();
            if r.gone || r.writing {
                return;
            }
            if r.written.as_ref() == Some(&new) {
                if is_final && !r.final_status_written {
                    r.final_status_written = true;
                    drop(r);
                    self.0.queue.add(uid.to_owned());
                }
                return;
            }
            r.writing = true;
        }
        let (manager, record, pod, uid) =
            (self.clone(), record.clone(), pod.clone(), uid.to_owned());
        self.0
            .tasks
            .spawn_transient(format!("status-{}", pod.key()), async move {
                let result = words::write_status(&manager.0.client, &pod, &new).await;
                let mut failed = false;
                {
                    let mut r = record.lock();
                    r.writing = false;
                    match &result {
                        Ok(_) => {
                            r.written = Some(new);
                            r.final_status_written |= is_final;
                        }
                        Err(e) if e.is_not_found() => {}
                        Err(e) => {
                            failed = true;
                            if !e.is_conflict() {
                                tracing::warn!(
                                    pod = pod.key(),
                                    error = chain(e),
                                    "the pod's status could not be written"
                                );
                            }
                        }
                    }
                }
                if let Ok(answer) = result {
                    manager.0.pods.written(&answer);
                }
                if failed {
                    manager.0.queue.add_failed(uid);
                } else {
                    manager.0.queue.add(uid);
                }
            });
    }

    fn refresh(&self, uid: &str, record: &Mutex<Record>, pod: &Arc<Pod>, now: Timestamp) {
        let due = {
            let r = record.lock();
            r.set_up
                && !r.torn_down
                && !r.busy.contains("refresh")
                && r.refreshed
                    .is_none_or(|t| after(t, REFRESH_INTERVAL) <= now)
        };
        if !due || pod.spec.volumes.is_empty() {
            return;
        }
        record.lock().refreshed = Some(now);
        let (manager, pod) = (self.clone(), pod.clone());
        self.spawn(uid, "refresh", async move {
            manager.refresh_volumes(&pod).await;
        });
    }

    async fn reconcile_pod(&self, uid: &str) -> Outcome {
        let record = self.record(uid);
        let Some(pod) = record.lock().pod.clone() else {
            return Outcome::Done;
        };
        let Some(observed) = self.look(uid, &record).await else {
            return Outcome::After(RUNTIME_RETRY);
        };
        self.0.prober.sync(&pod, &observed);
        let health = self.0.prober.health(&observed);
        let now = self.0.clock.now();
        let (plan, status, is_final) = {
            let mut r = record.lock();
            self.judge(&mut r, &pod, &observed, now);
            self.age_failures(&mut r, &pod, now);
            let retry_at: HashMap<String, Timestamp> = r
                .failures
                .iter()
                .map(|(k, f)| (k.clone(), f.retry_at))
                .collect();
            let mut working = r.busy.clone();
            working.remove("refresh");
            let plan = plan::plan(&plan::Input {
                pod: &pod,
                gone: r.gone,
                ended: r.ended.is_some(),
                observed: &observed,
                busy: &working,
                set_up: r.set_up,
                torn_down: if r.gone || pod.metadata.is_deleting() {
                    r.removed
                } else {
                    r.torn_down
                },
                health: &health,
                retry_at: &retry_at,
                crashes: &r.crashes,
                ending_since: r.ending_since,
                final_status_written: r.final_status_written,
                now,
            });
            if plan.finished {
                r.starting.cancel();
                r.ending_since.get_or_insert(now);
            }
            words::read_messages(&pod, &observed, &mut r.messages, &self.0.config);
            let crash_until = self.crash_waits(&mut r, &pod, plan.finished, now);
            let host_ip = self.0.config.node_ip.to_string();
            let status = (!r.final_status_written).then(|| {
                status::compute(&status::Input {
                    pod: &pod,
                    observed: &observed,
                    health: &health,
                    waiting: &r.waiting,
                    crash_until: &crash_until,
                    messages: &r.messages,
                    ended: r.ended.as_ref(),
                    host_ip: &host_ip,
                    now,
                })
            });
            let quiet = observed.running().next().is_none()
                && observed.ready_sandbox().is_none()
                && working.is_empty();
            (plan, status, pod.metadata.is_deleting() && quiet)
        };
        if let Some(status) = status {
            self.tell(uid, &record, &pod, status, is_final);
        }
        for (key, command) in plan.commands {
            let (manager, pod, uid2) = (self.clone(), pod.clone(), uid.to_owned());
            self.spawn(uid, &key, async move {
                manager.execute(&uid2, &pod, command).await;
            });
        }
        if !plan.finished {
            self.refresh(uid, &record, &pod, now);
        }
        self.forget_if_over(uid, &record);
        self.next_look(&record, &pod, &plan.wake_at, plan.finished, now)
    }

    fn forget_if_over(&self, uid: &str, record: &Mutex<Record>) {
        let over = {
            let r = record.lock();
            r.gone && r.removed && r.busy.is_empty() && r.observed == Observed::default()
        };
        if over {
            self.0.prober.forget(uid);
            self.0.records.lock().remove(uid);
        }
    }

    fn next_look(
        &self,
        record: &Mutex<Record>,
        pod: &Pod,
        wake_at: &Option<Timestamp>,
        finished: bool,
        now: Timestamp,
    ) -> Outcome {
        let r = record.lock();
        let mut next = *wake_at;
        let mut sooner = |t: Timestamp| next = Some(next.map_or(t, |n| n.min(t)));
        for f in r.failures.values() {
            let shown_until = after(f.at, FAILURE_SHOWN_FOR);
            if shown_until > now {
                sooner(shown_until);
            }
        }
        if !finished {
            if !pod.spec.volumes.is_empty() {
                sooner(after(r.refreshed.unwrap_or(now), REFRESH_INTERVAL));
            }
            let start = pod
                .status
                .start_time
                .as_deref()
                .and_then(|t| t.parse::<Timestamp>().ok())
                .unwrap_or(now);
            if let Some(limit) = pod
                .spec
                .active_deadline_seconds
                .and_then(|s| u64::try_from(s).ok())
            {
                sooner(after(start, Duration::from_secs(limit)));
            }
        }
        match next {
            Some(t) => Outcome::After(
                t.duration_since(now)
                    .unsigned_abs()
                    .max(Duration::from_millis(10)),
            ),
            None => Outcome::Done,
        }
    }

    /// Notes that something about a pod failed; returns how often in a row.
    pub(crate) fn failed(&self, uid: &str, name: &str, initial: Duration, max: Duration) -> u32 {
        let record = self.record(uid);
        let mut r = record.lock();
        let now = self.0.clock.now();
        let tries = r.failures.get(name).map_or(0, |f| f.tries) + 1;
        let delay = initial
            .saturating_mul(1u32.checked_shl(tries - 1).unwrap_or(u32::MAX))
            .min(max);
        r.failures.insert(
            name.to_owned(),
            Failure {
                at: now,
                retry_at: after(now, delay),
                tries,
            },
        );
        tries
    }

    /// Notes that something about a pod succeeded.
    pub(crate) fn succeeded(&self, uid: &str, name: &str) {
        let record = self.record(uid);
        let mut r = record.lock();
        r.failures.remove(name);
        if name != POD_KEY {
            r.waiting.remove(name);
        }
    }
}

/// Frees the key of a command when its task ends, even by a panic, and has the pod looked at.
struct Done {
    record: Arc<Mutex<Record>>,
    key: String,
    uid: String,
    queue: Queue<String>,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.record.lock().busy.remove(&self.key);
        self.queue.add(self.uid.clone());
    }
}

#[async_trait]
impl Reconcile<String> for Manager {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    async fn reconcile(&self, uid: &String) -> Result<Outcome, CallError> {
        Ok(self.reconcile_pod(uid).await)
    }
}
