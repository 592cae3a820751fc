//! [`Recorder`]: what happened to an object, told as Events in the words that users look for.
//!
//! Repeats raise the count of the Event that is there; an object about which a component has too much to say is
//! cut short, as client-go's event correlator does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontiki_api::catalogue::known;
use kontiki_api::{ObjectMeta, Resource, object};
use kontiki_base::{Clock, Tasks, chain};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::source::{CallError, PatchKind};

/// Events that wait to be written; at the limit further ones are dropped, with a line in the log.
const WAITING_EVENTS_MAX: usize = 1000;
/// Events that are remembered in order to count repeats; at the limit all are forgotten.
const REMEMBERED_EVENTS_MAX: usize = 2048;
/// How many Events in a row a component may write about one object.
const BURST_EVENTS_MAX: f64 = 25.0;
/// After so much time a component may write one more about it.
const REFILL_INTERVAL: Duration = Duration::from_secs(300);
/// Tries to write an Event to an API that cannot be reached.
const WRITE_TRIES_MAX: u32 = 3;
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The namespace of Events about cluster-scoped objects.
const NAMESPACE_DEFAULT: &str = "default";

/// Which object an Event is about (`involvedObject`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// `group/version` of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The part of it that is concerned, as in `spec.containers{web}`, or empty.
    pub field_path: String,
}

impl ObjectRef {
    /// A reference to an object of this resource.
    pub fn new(r: &Resource, m: &ObjectMeta) -> ObjectRef {
        ObjectRef {
            api_version: r.api_version(),
            kind: r.kind,
            namespace: m.namespace.clone(),
            name: m.name.clone(),
            uid: m.uid.clone(),
            field_path: String::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    about: ObjectRef,
    kind: &'static str,
    reason: String,
    message: String,
    action: String,
}

/// Where a component tells what happened. Clones are the same recorder; telling never waits.
#[derive(Clone, Debug)]
pub struct Recorder(mpsc::Sender<Entry>);

impl Recorder {
    /// Starts a recorder for a component (as in `kubelet`), on a host (or empty).
    pub fn start(
        tasks: &Tasks,
        client: Client,
        component: &'static str,
        host: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Recorder {
        let (sender, mut waiting) = mpsc::channel::<Entry>(WAITING_EVENTS_MAX);
        let token = tasks.token().clone();
        let mut writer = Writer {
            client,
            component,
            host: host.into(),
            clock,
            known: HashMap::new(),
            budgets: HashMap::new(),
            serial: 0,
        };
        tasks.spawn(format!("events-{component}"), async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    entry = waiting.recv() => match entry {
                        Some(entry) => writer.write(entry).await,
                        // Every recorder is gone; the task stays until its group ends, as it is an essential one.
                        None => return token.cancelled().await,
                    }
                }
            }
        });
        Recorder(sender)
    }

    /// Tells that something went as it should.
    pub fn normal(&self, about: ObjectRef, reason: &str, message: impl Into<String>) {
        self.tell(about, "Normal", reason, message.into(), "");
    }

    /// Tells that something went wrong.
    pub fn warning(&self, about: ObjectRef, reason: &str, message: impl Into<String>) {
        self.tell(about, "Warning", reason, message.into(), "");
    }

    /// Tells what was done (`action`) to the object, and how it went.
    pub fn action(
        &self,
        about: ObjectRef,
        good: bool,
        reason: &str,
        action: &str,
        message: impl Into<String>,
    ) {
        self.tell(
            about,
            if good { "Normal" } else { "Warning" },
            reason,
            message.into(),
            action,
        );
    }

    fn tell(
        &self,
        about: ObjectRef,
        kind: &'static str,
        reason: &str,
        message: String,
        action: &str,
    ) {
        let entry = Entry {
            about,
            kind,
            reason: reason.to_owned(),
            message,
            action: action.to_owned(),
        };
        if let Err(e) = self.0.try_send(entry) {
            tracing::warn!(error = chain(&e), "an event was dropped");
        }
    }
}

struct Writer {
    client: Client,
    component: &'static str,
    host: String,
    clock: Arc<dyn Clock>,
    /// Name and count of the Event that says this already.
    known: HashMap<Entry, (String, u32)>,
    /// For each object, how many Events may still be written, and since when.
    budgets: HashMap<String, (f64, Timestamp)>,
    /// What the last Event's name ends in: the time, or one more than the one before.
    serial: i128,
}

impl Writer {
    async fn write(&mut self, entry: Entry) {
        let now = self.clock.now();
        if !self.may_write(&entry.about, now) {
            tracing::debug!(
                object = entry.about.name,
                reason = entry.reason,
                "too many events about the object, dropped"
            );
            return;
        }
        for attempt in 1..=WRITE_TRIES_MAX {
            match self.try_write(&entry, now).await {
                Ok(()) => return,
                Err(CallError::Unavailable { .. }) if attempt < WRITE_TRIES_MAX => {
                    tokio::time::sleep(WRITE_RETRY_DELAY).await;
                }
                // An Event in a namespace that is going away, as an example, cannot be written, and nobody will miss it.
                Err(e) => {
                    return tracing::debug!(
                        error = chain(&e),
                        reason = entry.reason,
                        "an event was not written"
                    );
                }
            }
        }
    }

    fn may_write(&mut self, about: &ObjectRef, now: Timestamp) -> bool {
        if self.budgets.len() >= REMEMBERED_EVENTS_MAX {
            self.budgets.clear();
        }
        let key = format!(
            "{}/{}/{}/{}",
            about.kind, about.namespace, about.name, about.uid
        );
        let (left, since) = self.budgets.entry(key).or_insert((BURST_EVENTS_MAX, now));
        let refilled =
            now.duration_since(*since).as_secs_f64().max(0.0) / REFILL_INTERVAL.as_secs_f64();
        *left = (*left + refilled).min(BURST_EVENTS_MAX);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }

    async fn try_write(&mut self, entry: &Entry, now: Timestamp) -> Result<(), CallError> {
        let namespace = Some(entry.about.namespace.as_str())
            .filter(|n| !n.is_empty())
            .unwrap_or(NAMESPACE_DEFAULT);
        if let Some((name, count)) = self.known.get_mut(entry) {
            let patch = json!({"count": *count + 1, "lastTimestamp": object::time_text(now)});
            match self
                .client
                .patch(
                    known::events(),
                    (namespace, name),
                    "",
                    PatchKind::Merge,
                    &patch,
                )
                .await
            {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                Err(e) if e.is_not_found() => {
                    self.known.remove(entry);
                }
                Err(e) => return Err(e),
            }
        }
        self.serial = (self.serial + 1).max(now.as_nanosecond());
        let name = format!("{}.{:x}", entry.about.name, self.serial);
        let mut event = event_object(entry, self.component, &self.host, now);
        event["metadata"] = json!({"namespace": namespace, "name": name});
        self.client
            .create(known::events(), namespace, &event)
            .await?;
        if self.known.len() >= REMEMBERED_EVENTS_MAX {
            self.known.clear();
        }
        self.known.insert(entry.clone(), (name, 1));
        Ok(())
    }
}

fn event_object(entry: &Entry, component: &str, host: &str, now: Timestamp) -> Value {
    let about = &entry.about;
    let mut involved = json!({"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid});
    for (k, v) in [
        ("namespace", &about.namespace),
        ("fieldPath", &about.field_path),
    ] {
        if !v.is_empty() {
            involved[k] = v.as_str().into();
        }
    }
    let mut source = json!({"component": component});
    if !host.is_empty() {
        source["host"] = host.into();
    }
    let mut event = json!({
        "apiVersion": "v1", "kind": "Event",
        "involvedObject": involved, "reason": entry.reason, "message": entry.message, "type": entry.kind,
        "source": source, "count": 1,
        "firstTimestamp": object::time_text(now), "lastTimestamp": object::time_text(now),
        "reportingComponent": component, "reportingInstance": host,
    });
    if !entry.action.is_empty() {
        event["action"] = entry.action.as_str().into();
    }
    event
}

#[cfg(test)]
mod tests {
    use kontiki_base::FakeClock;

    use super::*;
    use crate::fake::FakeApi;

    fn about(name: &str) -> ObjectRef {
        let m = ObjectMeta {
            namespace: "ns".into(),
            name: name.into(),
            uid: "u".into(),
            ..ObjectMeta::default()
        };
        ObjectRef::new(known::pods(), &m)
    }

    fn started() -> (FakeApi, Tasks, Recorder, FakeClock) {
        let clock = FakeClock::at(Timestamp::from_second(1_000_000).expect("in range"));
        let (fake, tasks) = (FakeApi::new(Arc::new(clock.clone())), Tasks::default());
        let client = Client::new(fake.api(), "test");
        let recorder = Recorder::start(&tasks, client, "tester", "host", Arc::new(clock.clone()));
        (fake, tasks, recorder, clock)
    }

    #[tokio::test]
    async fn repeats_are_counted_and_others_are_not() {
        let (fake, tasks, recorder, clock) = started();
        recorder.warning(about("a"), "Failed", "no");
        recorder.warning(about("a"), "Failed", "no");
        let r = known::events();
        fake.wait_for(r, "counted", |e| e.len() == 1 && e[0]["count"] == 2)
            .await;
        clock.advance(Duration::from_millis(1));
        recorder.normal(about("a"), "Pulled", "yes");
        fake.wait_for(r, "told", |e| e.len() == 2).await;
        let e = &fake.objects(r)[0];
        assert_eq!(
            (&e["involvedObject"]["name"], &e["source"]["component"]),
            (&json!("a"), &json!("tester"))
        );
        tasks.stop().await;
    }

    #[tokio::test]
    async fn a_flood_about_one_object_is_cut_short() {
        let (fake, tasks, recorder, clock) = started();
        for i in 0..40 {
            clock.advance(Duration::from_millis(1));
            recorder.normal(about("a"), "Said", format!("{i}"));
        }
        recorder.normal(about("b"), "Said", "last");
        fake.wait_for(known::events(), "told", |e| {
            e.iter().any(|e| e["message"] == "last")
        })
        .await;
        assert_eq!(fake.objects(known::events()).len(), 26);
        tasks.stop().await;
    }
}
