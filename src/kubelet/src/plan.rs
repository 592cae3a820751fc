//! What to do next for a pod: a pure function from what it shall be and what it is to a list of commands.
//!
//! It is called again after each change, so it names only what can be done now. Commands run beside each other; `busy`
//! holds the keys of those that still run, and a key is never used twice at a time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::container::hash;
use crate::observed::{Container as Seen, Observed, Sandbox, State};
use crate::pod::{Container, Pod, RestartPolicy};

const CRASH_DELAY_INITIAL: Duration = Duration::from_secs(10);
const CRASH_DELAY_MAX: Duration = Duration::from_secs(300);
/// A container that ran for longer than this is forgiven its crashes.
const CRASH_FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Sidecars get at least this much grace, however long the others took.
const SIDECAR_GRACE_SECONDS_MIN: i64 = 2;
/// The key of commands that concern the pod as a whole.
pub const POD_KEY: &str = "";

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make the control group, directories and volumes.
    SetUp,
    /// Make the sandbox of this attempt.
    CreateSandbox {
        /// The how-manieth it is.
        attempt: u32,
    },
    /// Stop a sandbox: its network goes.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove a sandbox and the containers in it.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
    /// Get the image of a container, make and start it.
    Start {
        /// Its name.
        name: String,
        /// The how-manieth it is.
        attempt: u32,
        /// The sandbox to make it in.
        sandbox_id: String,
    },
    /// End a container: its preStop hook, then its signal, then the kill.
    Stop {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// Seconds for all of that.
        grace_seconds: i64,
        /// Why, for the event.
        why: String,
    },
    /// Remove a container that has ended.
    Remove {
        /// Its id.
        id: String,
    },
    /// Remove volumes and the control group; the logs too, if the pod is to be forgotten.
    TearDown,
    /// Remove the pod object: nothing is left of the pod.
    DeleteObject,
}

/// What the probes say of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether its startup probe has succeeded, or it has none.
    pub started: bool,
    /// Whether its readiness probe succeeds, or it has none.
    pub ready: bool,
    /// A liveness or startup probe has failed for good: its kind, and the grace that it sets.
    pub failed: Option<(&'static str, Option<i64>)>,
}

/// How a container's crashes slow down its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How long to wait after the container's end.
    pub delay: Duration,
    /// When it was last started again.
    pub updated: Timestamp,
}

fn after(t: Timestamp, d: Duration) -> Timestamp {
    t.checked_add(SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX)
}

impl Crash {
    fn forgiven(&self, finished: Timestamp) -> bool {
        after(self.updated, CRASH_FORGIVEN_AFTER) < finished
    }

    /// The state after one more restart at `now` of a container that ended at `finished`.
    pub fn next(before: Option<&Crash>, finished: Timestamp, now: Timestamp) -> Crash {
        let delay = match before {
            Some(c) if !c.forgiven(finished) => (c.delay * 2).min(CRASH_DELAY_MAX),
            _ => CRASH_DELAY_INITIAL,
        };
        Crash {
            delay,
            updated: now,
        }
    }

    /// Until when a container that ended at `finished` has to wait; in the past if it need not.
    pub fn until(before: Option<&Crash>, finished: Timestamp) -> Timestamp {
        match before {
            Some(c) if !c.forgiven(finished) => after(finished, c.delay),
            _ => finished,
        }
    }
}

/// All that the decision rests on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The pod as it shall be.
    pub pod: &'a Pod,
    /// Whether the pod object no longer exists.
    pub gone: bool,
    /// Whether the pod was ended by the kubelet: it was rejected, or its deadline has passed.
    pub ended: bool,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// The keys of the commands that run.
    pub busy: &'a BTreeSet<String>,
    /// Whether control group, directories and volumes are there.
    pub set_up: bool,
    /// Whether they are removed.
    pub torn_down: bool,
    /// What the probes say, by container id.
    pub health: &'a HashMap<String, Health>,
    /// Not before this time is a failed start tried again, by container name; [`POD_KEY`] for volumes and sandbox.
    pub retry_at: &'a HashMap<String, Timestamp>,
    /// Crashes by container name.
    pub crashes: &'a HashMap<String, Crash>,
    /// Since when the pod is being ended.
    pub ending_since: Option<Timestamp>,
    /// Whether the API knows how the containers ended.
    pub final_status_written: bool,
    /// Now.
    pub now: Timestamp,
}

/// Commands with their keys, and when to look again although nothing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do now.
    pub commands: Vec<(String, Command)>,
    /// When waiting ends.
    pub wake_at: Option<Timestamp>,
    /// The pod has come to its end, whatever its containers do until they are stopped.
    pub finished: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// The key of a stop: a shorter grace may overtake a longer one.
fn stop_key(name: &str, grace_seconds: i64) -> String {
    format!("stop/{name}/{grace_seconds}")
}

/// Decides what to do for a pod.
pub fn plan(i: &Input<'_>) -> Plan {
    let mut p = Plan::default();
    if i.pod.metadata.is_deleting() || i.gone || i.ended || i.pod.is_terminal() || is_finished(i) {
        p.finished = true;
        end(i, &mut p);
    } else {
        run(i, &mut p);
    }
    p
}

/// Whether an ended container is started again.
fn restarts(policy: RestartPolicy, c: &Seen) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => c.exit_code != 0 || c.state != State::Exited,
        RestartPolicy::Never => false,
    }
}

/// Whether an init container is through: it has run to success, or it must be, because later ones have been started.
fn is_through(i: &Input<'_>, index: usize) -> bool {
    let spec = &i.pod.spec;
    let exited_well = |c: &Seen| c.state == State::Exited && c.exit_code == 0;
    let newest = i.observed.sandboxes.first();
    let here = |name: &str| newest.and_then(|s| i.observed.latest_in(&s.id, name));
    here(&spec.init_containers[index].name).is_some_and(exited_well)
        || spec.init_containers[index + 1..]
            .iter()
            .chain(&spec.containers)
            .any(|c| here(&c.name).is_some())
}

/// Whether nothing of the pod will run again by its own rules.
fn is_finished(i: &Input<'_>) -> bool {
    let policy = i.pod.spec.restart_policy;
    let done = |c: &Container| {
        let seen = i.observed.latest(&c.name);
        seen.is_some_and(|s| s.state == State::Exited && !restarts(policy, s))
            && !i.busy.contains(&c.name)
    };
    let init_failed = policy == RestartPolicy::Never
        && i.pod
            .spec
            .init_containers
            .iter()
            .filter(|c| !c.is_sidecar())
            .any(|c| {
                i.observed
                    .latest(&c.name)
                    .is_some_and(|s| s.state == State::Exited && s.exit_code != 0)
            });
    init_failed || (!i.pod.spec.containers.is_empty() && i.pod.spec.containers.iter().all(done))
}

// --- a pod that shall run

fn run(i: &Input<'_>, p: &mut Plan) {
    if !i.set_up {
        return pod_command(i, p, Command::SetUp);
    }
    let Some(sandbox) = i.observed.ready_sandbox() else {
        return renew_sandbox(i, p);
    };
    remove_old(i, p, sandbox);
    for (index, c) in i.pod.spec.init_containers.iter().enumerate() {
        let through = is_through(i, index);
        if c.is_sidecar() {
            let started = keep_running(i, p, sandbox, c, RestartPolicy::Always);
            if !started && !through {
                return;
            }
        } else if !through {
            // A failed init container is started again unless the pod never restarts anything (see `is_finished`).
            keep_running(i, p, sandbox, c, RestartPolicy::OnFailure);
            return;
        }
    }
    for c in &i.pod.spec.containers {
        keep_running(i, p, sandbox, c, i.pod.spec.restart_policy);
    }
}

fn pod_command(i: &Input<'_>, p: &mut Plan, command: Command) {
    if i.busy.contains(POD_KEY) {
        return;
    }
    match i.retry_at.get(POD_KEY) {
        Some(at) if *at > i.now => p.wake(*at),
        _ => p.commands.push((POD_KEY.into(), command)),
    }
}

fn renew_sandbox(i: &Input<'_>, p: &mut Plan) {
    // What still runs in a sandbox that is broken has lost its network: it is stopped first.
    let running: Vec<&Seen> = i.observed.running().collect();
    for c in &running {
        stop(
            i,
            p,
            c,
            i.pod.grace_seconds(),
            "Pod sandbox changed, it will be killed and re-created.",
        );
    }
    if !running.is_empty() || i.pod.all_containers().any(|c| i.busy.contains(&c.name)) {
        return;
    }
    match i.observed.sandboxes.first() {
        Some(old) if old.attempt == u32::MAX => {}
        Some(old) => pod_command(
            i,
            p,
            Command::CreateSandbox {
                attempt: old.attempt + 1,
            },
        ),
        None => pod_command(i, p, Command::CreateSandbox { attempt: 0 }),
    }
}

/// Removes sandboxes before this one, and of each container all but the current and the one before it.
fn remove_old(i: &Input<'_>, p: &mut Plan, current: &Sandbox) {
    let mut push = |key: String, command| {
        if !i.busy.contains(&key) {
            p.commands.push((key, command));
        }
    };
    for old in i.observed.sandboxes.iter().filter(|s| s.id != current.id) {
        push(
            format!("sandbox/{}", old.id),
            Command::RemoveSandbox { id: old.id.clone() },
        );
    }
    let mut kept: HashMap<&str, u32> = HashMap::new();
    for c in &i.observed.containers {
        let n = kept.entry(&c.name).or_default();
        *n += 1;
        let unstarted = c.state == State::Created && !i.busy.contains(&c.name);
        let superseded = *n > 2 && c.state == State::Exited;
        if (unstarted || superseded) && c.sandbox_id == current.id {
            push(
                format!("container/{}", c.id),
                Command::Remove { id: c.id.clone() },
            );
        }
    }
}

/// Makes sure that a container runs as its policy says. Returns whether it is up.
fn keep_running(
    i: &Input<'_>,
    p: &mut Plan,
    sandbox: &Sandbox,
    c: &Container,
    policy: RestartPolicy,
) -> bool {
    if i.busy.contains(&c.name) {
        return false;
    }
    let here = i
        .observed
        .latest_in(&sandbox.id, &c.name)
        .filter(|s| s.state != State::Created);
    let Some(seen) = here else {
        start(i, p, sandbox, c);
        return false;
    };
    match seen.state {
        State::Running => {
            let health = i.health.get(&seen.id).cloned().unwrap_or_default();
            if let Some((kind, grace)) = health.failed {
                let why = format!(
                    "Container {} failed {kind} probe, will be restarted",
                    c.name
                );
                stop(i, p, seen, grace.unwrap_or(i.pod.grace_seconds()), &why);
            } else if seen.hash != hash(c) {
                let why = format!("Container {} definition changed, will be restarted", c.name);
                stop(i, p, seen, i.pod.grace_seconds(), &why);
            }
            health.started
        }
        State::Unknown => {
            stop(
                i,
                p,
                seen,
                i.pod.grace_seconds(),
                "Container is in unknown state, try killing it before restart",
            );
            false
        }
        State::Created | State::Exited => {
            if restarts(policy, seen) {
                let until = Crash::until(
                    i.crashes.get(&c.name),
                    seen.finished_at.unwrap_or(seen.created_at),
                );
                if until > i.now {
                    p.wake(until);
                } else {
                    start(i, p, sandbox, c);
                }
            }
            false
        }
    }
}

/// The how-manieth container of this name the next one will be.
pub fn next_attempt(pod: &Pod, observed: &Observed, name: &str) -> u32 {
    if let Some(c) = observed.latest(name) {
        return if c.state == State::Created {
            c.attempt
        } else {
            c.attempt.saturating_add(1)
        };
    }
    // The runtime has forgotten: the status remembers.
    let mut known = pod
        .status
        .container_statuses
        .iter()
        .chain(&pod.status.init_container_statuses);
    known
        .find(|s| s.name == name && s.container_id.as_ref().is_some_and(|id| !id.is_empty()))
        .map_or(0, |s| s.restart_count + 1)
}

fn start(i: &Input<'_>, p: &mut Plan, sandbox: &Sandbox, c: &Container) {
    match i.retry_at.get(&c.name) {
        Some(at) if *at > i.now => p.wake(*at),
        _ => {
            // One that was made and never started is removed first; its name is free again then.
            if i.observed
                .latest_in(&sandbox.id, &c.name)
                .is_some_and(|s| s.state == State::Created)
            {
                return;
            }
            let attempt = next_attempt(i.pod, i.observed, &c.name);
            let command = Command::Start {
                name: c.name.clone(),
                attempt,
                sandbox_id: sandbox.id.clone(),
            };
            p.commands.push((c.name.clone(), command));
        }
    }
}

fn stop(i: &Input<'_>, p: &mut Plan, c: &Seen, grace_seconds: i64, why: &str) {
    let prefix = format!("stop/{}/", c.name);
    let stopping = i
        .busy
        .iter()
        .filter_map(|k| k.strip_prefix(&prefix))
        .filter_map(|g| g.parse::<i64>().ok())
        .min();
    if stopping.is_some_and(|g| g <= grace_seconds) {
        return;
    }
    let (id, name, why) = (c.id.clone(), c.name.clone(), why.to_owned());
    p.commands.push((
        stop_key(&c.name, grace_seconds),
        Command::Stop {
            id,
            name,
            grace_seconds,
            why,
        },
    ));
}

// --- a pod that shall end

fn end(i: &Input<'_>, p: &mut Plan) {
    stop_all(i, p);
    // The status of a pod counts only when nothing of it runs; what is being started will be stopped.
    let quiet = i.observed.running().next().is_none() && i.busy.is_empty();
    if !quiet {
        return;
    }
    if let Some(s) = i.observed.ready_sandbox() {
        return pod_command(i, p, Command::StopSandbox { id: s.id.clone() });
    }
    let forget = i.gone || i.pod.metadata.is_deleting();
    if forget && !i.gone && !i.final_status_written {
        return;
    }
    if forget && !i.observed.sandboxes.is_empty() {
        for s in &i.observed.sandboxes {
            p.commands.push((
                format!("sandbox/{}", s.id),
                Command::RemoveSandbox { id: s.id.clone() },
            ));
        }
        return;
    }
    if !i.torn_down {
        return pod_command(i, p, Command::TearDown);
    }
    if forget && !i.gone {
        pod_command(i, p, Command::DeleteObject);
    }
}

fn stop_all(i: &Input<'_>, p: &mut Plan) {
    let sidecars: Vec<&str> = i
        .pod
        .spec
        .init_containers
        .iter()
        .filter(|c| c.is_sidecar())
        .map(|c| c.name.as_str())
        .collect();
    let grace = if i.gone && !i.pod.metadata.is_deleting() {
        i.observed.containers.first().map_or(0, |c| c.grace_seconds)
    } else {
        i.pod.grace_seconds()
    };
    let (side, main): (Vec<&Seen>, Vec<&Seen>) = i
        .observed
        .running()
        .partition(|c| sidecars.contains(&c.name.as_str()));
    for c in &main {
        stop(i, p, c, grace, &format!("Stopping container {}", c.name));
    }
    if !main.is_empty() {
        return;
    }
    // Sidecars end after what they serve, the last one first.
    let spent = i
        .ending_since
        .map_or(0, |t| i.now.duration_since(t).as_secs());
    let left = (grace - spent)
        .max(SIDECAR_GRACE_SECONDS_MIN)
        .min(grace.max(0));
    let place = |c: &Seen| sidecars.iter().position(|n| *n == c.name);
    if let Some(c) = side.iter().max_by_key(|c| place(c)) {
        let prefix = format!("stop/{}/", c.name);
        if !i.busy.iter().any(|k| k.starts_with(&prefix)) {
            stop(i, p, c, left, &format!("Stopping container {}", c.name));
        }
    }
}

#[cfg(test)]
mod tests;
