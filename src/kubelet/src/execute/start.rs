//! Starts one container: image, variables, mounts, creation, start, postStart hook.

use std::collections::BTreeMap;
use std::time::Duration;

use kontiki_base::chain;

use super::run_hook;
use crate::cri::v1 as cri;
use crate::env::{self, Service};
use crate::images::{self, PullPolicy};
use crate::manager::Manager;
use crate::materials::References;
use crate::observed::State;
use crate::plan::Crash;
use crate::pod::{Container, Pod};
use crate::probe::Target;
use crate::status::Waiting;
use crate::{container, events, sandbox};

const PULL_RETRY_INITIAL: Duration = Duration::from_secs(10);
const PULL_RETRY_MAX: Duration = Duration::from_secs(300);
const CONFIG_RETRY_INITIAL: Duration = Duration::from_secs(1);
const CONFIG_RETRY_MAX: Duration = Duration::from_secs(30);
/// How old fetched objects may be for variables of a container.
const ENV_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a postStart hook may take.
const POST_START_WAIT_MAX: Duration = Duration::from_secs(600);

/// Why a container was not started: the reason of its waiting state, and whether the image was at fault.
struct NotStarted {
    reason: &'static str,
    message: String,
}

fn not_started(reason: &'static str, message: impl Into<String>) -> NotStarted {
    NotStarted {
        reason,
        message: message.into(),
    }
}

impl Manager {
    pub(super) async fn start(
        &self,
        uid: &str,
        pod: &Pod,
        name: &str,
        attempt: u32,
        sandbox_id: &str,
    ) {
        let i = &self.0;
        let Some((c, _)) = pod.container(name) else {
            return;
        };
        let cancelled = self.record(uid).lock().starting.clone();
        let image = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            image = self.ensure_image(pod, c) => image,
        };
        // From here on the runtime is asked for things that have to be cleaned up: nothing interrupts.
        let result = match image {
            Ok(image) => {
                self.create_and_start(uid, pod, c, attempt, sandbox_id, image)
                    .await
            }
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => {
                i.metrics.started_containers.inc();
                self.succeeded(uid, name);
                self.count_crash(uid, name);
            }
            Err(e) => {
                i.metrics.started_containers_errors.inc();
                let pulling = matches!(
                    e.reason,
                    "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName"
                );
                let (initial, max) = if pulling {
                    (PULL_RETRY_INITIAL, PULL_RETRY_MAX)
                } else {
                    (CONFIG_RETRY_INITIAL, CONFIG_RETRY_MAX)
                };
                self.failed(uid, name, initial, max);
                let event = if e.reason == "InvalidImageName" {
                    "InspectFailed"
                } else {
                    "Failed"
                };
                let text = if pulling {
                    format!("Error: {}", e.reason)
                } else {
                    format!("Error: {}", e.message)
                };
                i.recorder
                    .warning(events::container(pod, name), event, text);
                let waiting = Waiting {
                    reason: e.reason.into(),
                    message: e.message,
                };
                self.record(uid)
                    .lock()
                    .waiting
                    .insert(name.to_owned(), waiting);
            }
        }
    }

    /// A container that was started again after an end waits longer the next time.
    fn count_crash(&self, uid: &str, name: &str) {
        let record = self.record(uid);
        let mut r = record.lock();
        let ended = r.observed.latest(name).filter(|c| c.state == State::Exited);
        if let Some(finished) = ended.and_then(|c| c.finished_at) {
            let next = Crash::next(r.crashes.get(name), finished, self.0.clock.now());
            r.crashes.insert(name.to_owned(), next);
        }
    }

    async fn ensure_image(&self, pod: &Pod, c: &Container) -> Result<cri::Image, NotStarted> {
        let i = &self.0;
        if let Some(why) = images::invalid(&c.image) {
            let text = format!(
                "Failed to apply default image tag \"{}\": couldn't parse image name \"{}\": {why}",
                c.image, c.image
            );
            return Err(not_started("InvalidImageName", text));
        }
        let find = || async {
            i.runtime
                .image(&c.image)
                .await
                .map_err(|e| not_started("ErrImagePull", chain(&e)))
        };
        let policy = PullPolicy::of(c);
        let about = || events::container(pod, &c.name);
        if policy != PullPolicy::Always {
            if let Some(found) = find().await? {
                let text = format!("Container image \"{}\" already present on machine", c.image);
                i.recorder.normal(about(), "Pulled", text);
                return Ok(found);
            }
            if policy == PullPolicy::Never {
                let text = format!(
                    "Container image \"{}\" is not present with pull policy of Never",
                    c.image
                );
                i.recorder
                    .warning(about(), "ErrImageNeverPull", text.clone());
                return Err(not_started("ErrImageNeverPull", text));
            }
        }
        i.recorder
            .normal(about(), "Pulling", format!("Pulling image \"{}\"", c.image));
        let begun = tokio::time::Instant::now();
        let refs = References {
            secrets: pod
                .spec
                .image_pull_secrets
                .iter()
                .map(|s| s.name.clone())
                .collect(),
            ..References::default()
        };
        let auth = match i
            .materials
            .get(&pod.metadata.namespace, &refs, ENV_AGE_MAX)
            .await
        {
            Ok(m) => images::credentials(&c.image, refs.secrets.iter().filter_map(|s| m.secret(s))),
            Err(e) => {
                tracing::warn!(
                    pod = pod.key(),
                    error = chain(&e),
                    "pull secrets could not be read, pulling without"
                );
                None
            }
        };
        if let Err(e) = i.runtime.pull_image(&c.image, auth).await {
            let text = format!("failed to pull image \"{}\": {}", c.image, chain(&e));
            i.recorder.warning(
                about(),
                "Failed",
                format!("Failed to pull image \"{}\": {}", c.image, chain(&e)),
            );
            return Err(not_started("ErrImagePull", text));
        }
        let found = find()
            .await?
            .ok_or_else(|| not_started("ErrImagePull", "the pulled image cannot be found"))?;
        let text = format!(
            "Successfully pulled image \"{}\" in {:.3}s. Image size: {} bytes.",
            c.image,
            begun.elapsed().as_secs_f64(),
            found.size
        );
        i.recorder.normal(about(), "Pulled", text);
        Ok(found)
    }

    async fn create_and_start(
        &self,
        uid: &str,
        pod: &Pod,
        c: &Container,
        attempt: u32,
        sandbox_id: &str,
        image: cri::Image,
    ) -> Result<(), NotStarted> {
        let i = &self.0;
        let (sandbox_attempt, ips) = {
            let record = self.record(uid);
            let r = record.lock();
            (
                r.observed.sandboxes.first().map_or(0, |s| s.attempt),
                r.observed.ips().to_vec(),
            )
        };
        let prepared = self.prepare(pod, c, attempt, image).await?;
        let config = container::config(pod, c, attempt, prepared, &i.config)
            .map_err(|e| not_started("CreateContainerConfigError", e.to_string()))?;
        let resolv_conf = std::fs::read_to_string(&i.config.resolv_conf).unwrap_or_default();
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox::config(
                pod,
                sandbox_attempt,
                &i.config,
                &resolv_conf,
            )),
        };
        let made = i
            .runtime
            .create_container(request)
            .await
            .map_err(|e| not_started("CreateContainerError", chain(&e)))?;
        let id = made.container_id;
        i.recorder.normal(
            events::container(pod, &c.name),
            "Created",
            format!("Created container: {}", c.name),
        );
        if let Err(e) = i
            .runtime
            .start_container(cri::StartContainerRequest {
                container_id: id.clone(),
            })
            .await
        {
            return Err(not_started("RunContainerError", chain(&e)));
        }
        i.recorder.normal(
            events::container(pod, &c.name),
            "Started",
            format!("Started container {}", c.name),
        );
        if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let ip = ips.first().cloned().unwrap_or_default();
            let target = Target {
                runtime: &i.runtime,
                container: c,
                id: &id,
                ip: &ip,
            };
            if let Err(e) = run_hook(&target, hook, POST_START_WAIT_MAX).await {
                let text = format!("PostStartHook failed: {e}");
                i.recorder.warning(
                    events::container(pod, &c.name),
                    "FailedPostStartHook",
                    text.clone(),
                );
                self.stop(
                    uid,
                    pod,
                    &id,
                    &c.name,
                    pod.grace_seconds(),
                    "FailedPostStartHook",
                )
                .await;
                return Err(not_started("PostStartHookError", text));
            }
        }
        Ok(())
    }

    async fn prepare(
        &self,
        pod: &Pod,
        c: &Container,
        attempt: u32,
        image: cri::Image,
    ) -> Result<container::Prepared, NotStarted> {
        let i = &self.0;
        let config_error = |text: String| not_started("CreateContainerConfigError", text);
        let refs = References::of_env(pod);
        let materials = i
            .materials
            .get(&pod.metadata.namespace, &refs, ENV_AGE_MAX)
            .await;
        let materials = materials.map_err(|e| config_error(chain(&e)))?;
        let (observed, paths) = {
            let record = self.record(&pod.metadata.uid);
            let r = record.lock();
            (r.observed.clone(), r.paths.clone())
        };
        let facts = self.facts(pod, &observed);
        let env = env::of_container(pod, c, &materials, &facts, &self.service_env(pod))
            .map_err(|e| config_error(e.to_string()))?;
        let mut mounts = i
            .volumes
            .mounts(pod, c, &paths, &env)
            .map_err(|e| config_error(chain(&e)))?;
        let mounted =
            |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|m| m.container_path == path);
        if !mounted("/etc/hosts", &mounts) {
            let path = self.hosts_file(pod, &facts.pod_ips).map_err(config_error)?;
            mounts.push(container::file_mount("/etc/hosts", &path));
        }
        let dir = i
            .volumes
            .pod_dir(&pod.metadata.uid)
            .join("containers")
            .join(&c.name);
        let message = dir.join(format!("{attempt}.message"));
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&message, []))
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                // Whoever the container runs as may leave its last words.
                std::fs::set_permissions(&message, std::fs::Permissions::from_mode(0o666))
            })
            .map_err(|e| config_error(format!("cannot write {}: {e}", message.display())))?;
        mounts.push(container::file_mount(container::message_path(c), &message));
        Ok(container::Prepared {
            env,
            mounts,
            image,
            node_memory_bytes: i.machine.memory_bytes,
        })
    }

    /// The variables of the services that a pod sees: those of its namespace, and always the API's own.
    fn service_env(&self, pod: &Pod) -> BTreeMap<String, String> {
        let i = &self.0;
        let ns = &pod.metadata.namespace;
        let linked = if pod.spec.enable_service_links == Some(false) {
            Vec::new()
        } else {
            i.services.in_namespace(ns)
        };
        let api = i
            .services
            .get("default", "kubernetes")
            .filter(|_| ns != "default" || linked.is_empty());
        let all: Vec<&Service> = linked.iter().map(|s| &**s).chain(api.as_deref()).collect();
        env::of_services(all.into_iter())
    }
}
