//! Carries out the plan's commands.

use std::sync::Arc;
use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::chain;
use kontiki_host::cgroups::Limits;
use kontiki_reconcile::client::{DeleteOptions, Preconditions};

use crate::cri::v1 as cri;
use crate::events;
use crate::manager::Manager;
use crate::materials::{FRESH_FOR, References};
use crate::plan::{Command, POD_KEY};
use crate::pod::{Pod, Qos, resources};
use crate::probe::{Action, Target, act};
use crate::{dns, sandbox};

mod start;

const SETUP_RETRY_INITIAL: Duration = Duration::from_millis(500);
const SETUP_RETRY_MAX: Duration = Duration::from_secs(122);
const SANDBOX_RETRY_INITIAL: Duration = Duration::from_millis(500);
const SANDBOX_RETRY_MAX: Duration = Duration::from_secs(60);
/// How long to wait before a step of a pod's end is tried again.
const END_RETRY_INITIAL: Duration = Duration::from_millis(100);
const END_RETRY_MAX: Duration = Duration::from_secs(30);
/// How fresh the objects are that a new pod is made from.
const SETUP_AGE_MAX: Duration = Duration::from_secs(1);

impl Manager {
    pub(crate) async fn execute(&self, uid: &str, pod: &Arc<Pod>, command: Command) {
        match command {
            Command::SetUp => self.set_up(uid, pod).await,
            Command::CreateSandbox { attempt } => self.create_sandbox(uid, pod, attempt).await,
            Command::StopSandbox { id } => self.stop_sandbox(uid, id).await,
            Command::RemoveSandbox { id } => self.remove_sandbox(uid, id).await,
            Command::Start {
                name,
                attempt,
                sandbox_id,
            } => self.start(uid, pod, &name, attempt, &sandbox_id).await,
            Command::Stop {
                id,
                name,
                grace_seconds,
                why,
            } => self.stop(uid, pod, &id, &name, grace_seconds, &why).await,
            Command::Remove { id } => self.remove_container(id).await,
            Command::TearDown => self.tear_down(uid, pod),
            Command::DeleteObject => self.delete_object(uid, pod).await,
        }
    }

    async fn set_up(&self, uid: &str, pod: &Arc<Pod>) {
        let i = &self.0;
        match self.try_set_up(pod).await {
            Ok(paths) => {
                self.succeeded(uid, POD_KEY);
                let record = self.record(uid);
                let mut r = record.lock();
                r.paths = paths;
                r.set_up = true;
                r.torn_down = false;
            }
            Err(text) => {
                self.failed(uid, POD_KEY, SETUP_RETRY_INITIAL, SETUP_RETRY_MAX);
                i.recorder.warning(events::pod(pod), "FailedMount", text);
            }
        }
    }

    async fn try_set_up(&self, pod: &Pod) -> Result<crate::volumes::Paths, String> {
        let i = &self.0;
        let m = &pod.metadata;
        let groups =
            |path: &str, limits: &Limits| i.cgroups.apply(path, limits).map_err(|e| chain(&e));
        let group = resources::pod_cgroup(&i.config.cgroup_root, pod);
        if Qos::of(pod) == Qos::BestEffort {
            let class = group.rsplit_once('/').map_or("", |(class, _)| class);
            groups(
                class,
                &Limits {
                    cpu_shares: Some(2),
                    ..Limits::default()
                },
            )?;
        }
        groups(&group, &resources::pod_limits(pod))?;
        let logs = sandbox::log_dir(&i.config, &m.namespace, &m.name, &m.uid);
        for dir in [i.volumes.pod_dir(&m.uid), logs] {
            std::fs::create_dir_all(&dir)
                .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        }
        let refs = References::of_volumes(pod);
        let materials = i
            .materials
            .get(&m.namespace, &refs, SETUP_AGE_MAX)
            .await
            .map_err(|e| chain(&e))?;
        let observed = self.record(&m.uid).lock().observed.clone();
        let facts = self.facts(pod, &observed);
        i.volumes
            .set_up(pod, &materials, &facts)
            .await
            .map_err(|e| format!("MountVolume.SetUp failed: {}", chain(&e)))
    }

    pub(crate) async fn refresh_volumes(&self, pod: &Pod) {
        let i = &self.0;
        let refs = References::of_volumes(pod);
        let result = async {
            let materials = i
                .materials
                .get(&pod.metadata.namespace, &refs, FRESH_FOR)
                .await
                .map_err(|e| chain(&e))?;
            let observed = self.record(&pod.metadata.uid).lock().observed.clone();
            i.volumes
                .refresh(pod, &materials, &self.facts(pod, &observed))
                .await
                .map_err(|e| chain(&e))
        };
        if let Err(error) = result.await {
            tracing::warn!(
                pod = pod.key(),
                error,
                "volumes could not be brought up to date"
            );
        }
    }

    async fn create_sandbox(&self, uid: &str, pod: &Pod, attempt: u32) {
        let i = &self.0;
        let begun = tokio::time::Instant::now();
        let resolv_conf = std::fs::read_to_string(&i.config.resolv_conf).unwrap_or_default();
        let config = sandbox::config(pod, attempt, &i.config, &resolv_conf);
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        match i.runtime.run_pod_sandbox(request).await {
            Ok(_) => {
                i.metrics.started_pods.inc();
                i.metrics
                    .sandbox_seconds
                    .observe(begun.elapsed().as_secs_f64());
                self.succeeded(uid, POD_KEY);
            }
            Err(e) => {
                i.metrics.started_pods_errors.inc();
                self.failed(uid, POD_KEY, SANDBOX_RETRY_INITIAL, SANDBOX_RETRY_MAX);
                let text = format!("Failed to create pod sandbox: {}", chain(&e));
                i.recorder
                    .warning(events::pod(pod), "FailedCreatePodSandBox", text);
            }
        }
    }

    async fn stop_sandbox(&self, uid: &str, id: String) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id };
        self.ended(
            uid,
            "stop the sandbox",
            self.0.runtime.stop_pod_sandbox(request).await,
        );
    }

    async fn remove_sandbox(&self, uid: &str, id: String) {
        // Stopped first: one that is broken may still hold its address.
        let stop = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.clone(),
        };
        let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
        let result = match self.0.runtime.stop_pod_sandbox(stop).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => self.0.runtime.remove_pod_sandbox(remove).await.map(drop),
        };
        self.ended(uid, "remove the sandbox", result);
    }

    fn ended<T, E: std::error::Error + 'static>(
        &self,
        uid: &str,
        what: &str,
        result: Result<T, E>,
    ) {
        match result {
            Ok(_) => self.succeeded(uid, POD_KEY),
            Err(e) => {
                self.failed(uid, POD_KEY, END_RETRY_INITIAL, END_RETRY_MAX);
                tracing::warn!(
                    uid,
                    what,
                    error = chain(&e),
                    "a step of a pod's end failed, it is tried again"
                );
            }
        }
    }

    async fn remove_container(&self, container_id: String) {
        if let Err(e) = self
            .0
            .runtime
            .remove_container(cri::RemoveContainerRequest { container_id })
            .await
        {
            tracing::warn!(error = chain(&e), "an ended container could not be removed");
        }
    }

    async fn stop(
        &self,
        uid: &str,
        pod: &Pod,
        id: &str,
        name: &str,
        grace_seconds: i64,
        why: &str,
    ) {
        let i = &self.0;
        i.recorder
            .normal(events::container(pod, name), "Killing", why);
        let begun = tokio::time::Instant::now();
        let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        let hook = pod
            .container(name)
            .and_then(|(c, _)| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((container, handler)) = hook.filter(|_| !grace.is_zero()) {
            let ip = self
                .record(uid)
                .lock()
                .observed
                .ips()
                .first()
                .cloned()
                .unwrap_or_default();
            let target = Target {
                runtime: &i.runtime,
                container,
                id,
                ip: &ip,
            };
            if let Err(e) = run_hook(&target, handler, grace).await {
                i.recorder.warning(
                    events::container(pod, name),
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {e}"),
                );
            }
        }
        // Something is left for the signal, even if the hook took all the time.
        let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        let left = if grace_seconds == 0 {
            0
        } else {
            (grace_seconds - spent).max(2)
        };
        if let Err(e) = i.runtime.stop_container(id.to_owned(), left).await
            && !e.is_not_found()
        {
            tracing::warn!(
                pod = pod.key(),
                container = name,
                error = chain(&e),
                "a container could not be stopped, it is tried again"
            );
            tokio::time::sleep(END_RETRY_INITIAL * 5).await;
        }
    }

    fn tear_down(&self, uid: &str, pod: &Pod) {
        let i = &self.0;
        let record = self.record(uid);
        let forget = record.lock().gone || pod.metadata.is_deleting();
        let result = (|| -> Result<(), String> {
            i.volumes.tear_down(uid, forget).map_err(|e| chain(&e))?;
            for path in resources::pod_cgroup_candidates(&i.config.cgroup_root, uid) {
                i.cgroups.remove(&path).map_err(|e| chain(&e))?;
            }
            if forget && !pod.metadata.name.is_empty() {
                let m = &pod.metadata;
                let logs = sandbox::log_dir(&i.config, &m.namespace, &m.name, uid);
                match std::fs::remove_dir_all(&logs) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(format!("cannot remove {}: {e}", logs.display()));
                    }
                    _ => {}
                }
            }
            Ok(())
        })();
        match result {
            Ok(()) => {
                self.succeeded(uid, POD_KEY);
                let mut r = record.lock();
                r.torn_down = true;
                r.removed = forget;
            }
            Err(error) => {
                self.failed(uid, POD_KEY, END_RETRY_INITIAL, END_RETRY_MAX);
                tracing::debug!(uid, error, "what a pod left could not be removed yet");
            }
        }
    }

    async fn delete_object(&self, uid: &str, pod: &Pod) {
        let m = &pod.metadata;
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(m.uid.clone()),
                resource_version: None,
            }),
            propagation_policy: None,
        };
        match self
            .0
            .client
            .delete(known::pods(), &m.namespace, &m.name, &options)
            .await
        {
            Ok(()) => {}
            // Another pod of this name, or none: ours is gone. The cache brings the news.
            Err(e) if e.is_not_found() || e.is_conflict() => {}
            Err(e) => {
                self.failed(uid, POD_KEY, END_RETRY_INITIAL, END_RETRY_MAX);
                tracing::warn!(
                    pod = pod.key(),
                    error = chain(&e),
                    "a pod that has ended could not be deleted, it is tried again"
                );
                return;
            }
        }
        // Until the cache has brought the news, there is nothing more to do.
        self.failed(uid, POD_KEY, END_RETRY_MAX, END_RETRY_MAX);
    }

    /// The pod's own `/etc/hosts`, written anew for each container: the pod's address may have changed.
    fn hosts_file(&self, pod: &Pod, ips: &[String]) -> Result<std::path::PathBuf, String> {
        let i = &self.0;
        let machine = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = dns::hosts_file(pod, ips, &i.config.cluster_domain, &machine);
        let path = i.volumes.pod_dir(&pod.metadata.uid).join("etc-hosts");
        std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    }
}

/// Carries out a hook.
async fn run_hook(t: &Target<'_>, h: &crate::pod::Handler, limit: Duration) -> Result<(), String> {
    match (&h.exec, &h.http_get, &h.tcp_socket, &h.sleep) {
        (Some(e), ..) => act(t, Action::Exec(e), limit).await,
        (_, Some(g), ..) => act(t, Action::Http(g), limit).await,
        (_, _, Some(s), _) => act(t, Action::Tcp(s), limit).await,
        (_, _, _, Some(s)) => {
            tokio::time::sleep(Duration::from_secs(s.seconds).min(limit)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}
