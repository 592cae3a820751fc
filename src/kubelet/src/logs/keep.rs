//! Keeps the log files in bounds: rotates those that have grown large and removes those that belong to nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kontiki_base::{Tasks, chain};

use crate::config::Config;
use crate::cri::{Runtime, RuntimeError, v1 as cri};
use crate::sandbox::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};
use crate::server::Pods;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// What is younger is left alone: its pod may be about to start.
const ORPHAN_AGE_MIN: Duration = Duration::from_secs(60);

/// The files of one container in a pod's directory.
type ContainerFiles = BTreeMap<String, u64>;

/// A directory of logs as it is on disk.
#[derive(Debug, Default)]
struct PodDir {
    /// `<namespace>_<name>_<uid>`.
    name: String,
    age: Duration,
    /// By container, the sizes of its files by their names.
    containers: BTreeMap<String, ContainerFiles>,
}

/// A container that the runtime has.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    attempt: u32,
    running: bool,
}

/// Containers by the name of their pod's directory and their own.
type KnownContainers = HashMap<(String, String), Vec<Known>>;

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Renames the file and has the runtime open a new one.
    Rotate {
        path: PathBuf,
        container_id: String,
    },
    Remove {
        file: PathBuf,
    },
    RemoveDir {
        dir: PathBuf,
    },
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes_max: u64,
    files_max: usize,
}

/// The attempt that a file belongs to, and whether it was rotated: `2.log`, `2.log.20261120-100000`.
fn attempt(file: &str) -> Option<(u32, bool)> {
    let (attempt, rest) = file.split_once(".log")?;
    Some((attempt.parse().ok()?, rest.starts_with('.')))
}

/// What is to be done. `pods` are the uids of the pods that the API has for this node; unknown, no pod is taken for gone.
fn plan(
    dirs: &[PodDir],
    known: &KnownContainers,
    sandboxes: &HashSet<String>,
    pods: Option<&HashSet<String>>,
    l: Limits,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for dir in dirs {
        let path = Path::new(&dir.name);
        // A name without a uid is not ours.
        let Some((_, uid)) = dir.name.rsplit_once('_') else {
            continue;
        };
        let wanted = pods.is_none_or(|p| p.contains(uid)) || sandboxes.contains(uid);
        if !wanted && dir.age >= ORPHAN_AGE_MIN {
            steps.push(Step::RemoveDir {
                dir: path.to_owned(),
            });
            continue;
        }
        for (container, files) in &dir.containers {
            let containers = known
                .get(&(dir.name.clone(), container.clone()))
                .map_or(&[][..], Vec::as_slice);
            container_steps(&path.join(container), files, containers, l, &mut steps);
        }
    }
    steps
}

fn container_steps(
    dir: &Path,
    files: &ContainerFiles,
    known: &[Known],
    l: Limits,
    steps: &mut Vec<Step>,
) {
    let newest = known.iter().map(|k| k.attempt).max();
    let mut rotated: BTreeMap<u32, Vec<&String>> = BTreeMap::new();
    let mut rotating = HashSet::new();
    for (file, bytes) in files {
        let Some((attempt, is_rotated)) = attempt(file) else {
            continue;
        };
        let container = known.iter().find(|k| k.attempt == attempt);
        if container.is_none() && newest.is_some_and(|n| n > attempt) {
            // The container was removed, and a later one took its place.
            steps.push(Step::Remove {
                file: dir.join(file),
            });
        } else if is_rotated {
            rotated.entry(attempt).or_default().push(file);
        } else if let Some(c) = container.filter(|c| c.running && *bytes >= l.bytes_max) {
            rotating.insert(attempt);
            steps.push(Step::Rotate {
                path: dir.join(file),
                container_id: c.id.clone(),
            });
        }
    }
    for (attempt, files) in rotated {
        // One place is the current file's, one that of the file which is being rotated.
        let kept = l
            .files_max
            .saturating_sub(1 + usize::from(rotating.contains(&attempt)));
        let excess = files.len().saturating_sub(kept);
        steps.extend(
            files[..excess]
                .iter()
                .map(|f| Step::Remove { file: dir.join(f) }),
        );
    }
}

/// Reads the directory of logs. What disappears meanwhile is left out.
fn scan(root: &Path, now: SystemTime) -> io::Result<Vec<PodDir>> {
    let mut dirs = Vec::new();
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(dirs),
        other => other?,
    };
    for entry in entries.flatten() {
        let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else {
            continue;
        };
        if !meta.is_dir() {
            continue;
        }
        let age = meta
            .modified()
            .ok()
            .and_then(|m| now.duration_since(m).ok())
            .unwrap_or_default();
        let mut dir = PodDir {
            name,
            age,
            ..PodDir::default()
        };
        for container in std::fs::read_dir(entry.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(name) = container.file_name().into_string() else {
                continue;
            };
            let files = std::fs::read_dir(container.path())
                .into_iter()
                .flatten()
                .flatten();
            let sizes = files.filter_map(|f| {
                Some((f.file_name().into_string().ok()?, f.metadata().ok()?.len()))
            });
            dir.containers.insert(name, sizes.collect());
        }
        dirs.push(dir);
    }
    Ok(dirs)
}

fn dir_name(labels: &HashMap<String, String>) -> Option<String> {
    let get = |k: &str| labels.get(k);
    Some(format!(
        "{}_{}_{}",
        get(POD_NAMESPACE_LABEL)?,
        get(POD_NAME_LABEL)?,
        get(POD_UID_LABEL)?
    ))
}

async fn known(runtime: &Runtime) -> Result<(KnownContainers, HashSet<String>), RuntimeError> {
    let containers = runtime
        .list_containers(cri::ListContainersRequest::default())
        .await?
        .containers;
    let sandboxes = runtime
        .list_pod_sandbox(cri::ListPodSandboxRequest::default())
        .await?
        .items;
    let mut known = KnownContainers::new();
    for c in containers {
        let (Some(dir), Some(name)) = (dir_name(&c.labels), c.labels.get(CONTAINER_NAME_LABEL))
        else {
            continue;
        };
        let running = c.state() == cri::ContainerState::ContainerRunning;
        let attempt = c.metadata.as_ref().map_or(0, |m| m.attempt);
        known.entry((dir, name.clone())).or_default().push(Known {
            id: c.id,
            attempt,
            running,
        });
    }
    Ok((
        known,
        sandboxes
            .into_iter()
            .filter_map(|s| s.metadata.map(|m| m.uid))
            .collect(),
    ))
}

/// The uids of pods.
fn uids(pods: &dyn Pods) -> Option<HashSet<String>> {
    Some(
        pods.list()?
            .iter()
            .map(|p| p.metadata.uid.clone())
            .collect(),
    )
}

/// The name of a file that is rotated now; the same form sorts by time.
fn rotated_name(path: &Path, now: Timestamp) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(
        now.to_zoned(TimeZone::UTC)
            .strftime(".%Y%m%d-%H%M%S")
            .to_string(),
    );
    PathBuf::from(name)
}

async fn rotate(runtime: &Runtime, path: &Path, container_id: String) -> io::Result<()> {
    let rotated = rotated_name(path, Timestamp::now());
    tokio::fs::rename(path, &rotated).await?;
    let reopened = runtime
        .reopen_container_log(cri::ReopenContainerLogRequest { container_id })
        .await;
    if let Err(e) = reopened {
        // It goes on writing to the old file, which has to be found under the name that readers know.
        tokio::fs::rename(&rotated, path).await?;
        return Err(io::Error::other(e));
    }
    Ok(())
}

async fn carry_out(runtime: &Runtime, root: &Path, step: Step) {
    let (path, done) = match step {
        Step::Rotate { path, container_id } => {
            let path = root.join(path);
            let done = rotate(runtime, &path, container_id).await;
            (path, done)
        }
        Step::Remove { file } => {
            let path = root.join(file);
            let done = tokio::fs::remove_file(&path).await;
            (path, done)
        }
        Step::RemoveDir { dir } => {
            let path = root.join(dir);
            let done = tokio::fs::remove_dir_all(&path).await;
            (path, done)
        }
    };
    match done {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = chain(&e), "a log cannot be rotated or removed");
        }
        _ => {}
    }
}

async fn pass(
    root: &Path,
    limits: Limits,
    runtime: &Runtime,
    pods: &dyn Pods,
) -> Result<(), RuntimeError> {
    let scanned = root.to_owned();
    let dirs = match tokio::task::spawn_blocking(move || scan(&scanned, SystemTime::now())).await {
        Ok(Ok(dirs)) if dirs.is_empty() => return Ok(()),
        Ok(Ok(dirs)) => dirs,
        Ok(Err(e)) => {
            tracing::warn!(dir = %root.display(), error = %e, "the logs cannot be listed");
            return Ok(());
        }
        Err(_) => return Ok(()),
    };
    // Read after the directories: what was made in between is not taken for orphaned.
    let uids = uids(pods);
    let (known, sandboxes) = known(runtime).await?;
    for step in plan(&dirs, &known, &sandboxes, uids.as_ref(), limits) {
        carry_out(runtime, root, step).await;
    }
    Ok(())
}

/// Keeps the logs in bounds until the group of tasks ends.
pub fn start(config: &Config, runtime: &Runtime, pods: Arc<dyn Pods>, tasks: &Tasks) {
    let (root, runtime, token) = (
        config.pod_logs_dir.clone(),
        runtime.clone(),
        tasks.token().clone(),
    );
    let limits = Limits {
        bytes_max: config.log_bytes_max,
        files_max: config.log_files_max,
    };
    tasks.spawn_restarting("container logs", move || {
        let (root, runtime, pods, token) =
            (root.clone(), runtime.clone(), pods.clone(), token.clone());
        async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(INTERVAL) => {}
                }
                if let Err(e) = pass(&root, limits, &runtime, &*pods).await {
                    tracing::debug!(
                        error = chain(&e),
                        "logs were not looked after: the runtime does not answer"
                    );
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 100,
        files_max: 3,
    };

    fn dir(name: &str, age_seconds: u64, files: &[(&str, u64)]) -> PodDir {
        let files = files.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect();
        PodDir {
            name: name.into(),
            age: Duration::from_secs(age_seconds),
            containers: BTreeMap::from([("c".to_owned(), files)]),
        }
    }

    fn known(dir: &str, containers: &[(u32, bool)]) -> KnownContainers {
        let list = containers.iter().map(|(attempt, running)| Known {
            id: format!("id{attempt}"),
            attempt: *attempt,
            running: *running,
        });
        HashMap::from([((dir.to_owned(), "c".to_owned()), list.collect())])
    }

    fn uids(list: &[&str]) -> HashSet<String> {
        list.iter().map(|u| (*u).to_owned()).collect()
    }

    fn remove(path: &str) -> Step {
        Step::Remove { file: path.into() }
    }

    #[test]
    fn a_large_log_of_a_running_container_is_rotated_and_the_oldest_go() {
        let files = [
            ("1.log", 100),
            ("1.log.20260101-000000", 9),
            ("1.log.20260102-000000", 9),
            ("1.log.20260103-000000", 9),
        ];
        let d = [dir("n_p_u", 1, &files)];
        let rotate = Step::Rotate {
            path: "n_p_u/c/1.log".into(),
            container_id: "id1".into(),
        };
        let steps = plan(
            &d,
            &known("n_p_u", &[(1, true)]),
            &uids(&["u"]),
            None,
            LIMITS,
        );
        assert_eq!(
            steps,
            [
                rotate,
                remove("n_p_u/c/1.log.20260101-000000"),
                remove("n_p_u/c/1.log.20260102-000000")
            ]
        );
        let steps = plan(
            &d,
            &known("n_p_u", &[(1, false)]),
            &uids(&["u"]),
            None,
            LIMITS,
        );
        assert_eq!(
            steps,
            [remove("n_p_u/c/1.log.20260101-000000")],
            "nothing is written to it any more"
        );
        let small = [dir("n_p_u", 1, &[("1.log", 99)])];
        assert_eq!(
            plan(
                &small,
                &known("n_p_u", &[(1, true)]),
                &uids(&["u"]),
                None,
                LIMITS
            ),
            []
        );
    }

    #[test]
    fn logs_of_removed_containers_go_except_the_last() {
        let d = [dir(
            "n_p_u",
            1,
            &[
                ("0.log", 1),
                ("0.log.20260101-000000", 1),
                ("1.log", 1),
                ("2.log", 1),
                ("notes", 1),
            ],
        )];
        let steps = plan(
            &d,
            &known("n_p_u", &[(1, false), (2, true)]),
            &uids(&["u"]),
            None,
            LIMITS,
        );
        assert_eq!(
            steps,
            [
                remove("n_p_u/c/0.log"),
                remove("n_p_u/c/0.log.20260101-000000")
            ]
        );
        assert_eq!(
            plan(&d, &KnownContainers::new(), &uids(&["u"]), None, LIMITS),
            []
        );
    }

    #[test]
    fn logs_of_removed_pods_go_after_a_while() {
        let d = [
            dir("n_p_gone", 60, &[]),
            dir("n_q_gone2", 59, &[]),
            dir("n_r_api", 99, &[]),
            dir("n_s_run", 99, &[]),
            dir("other", 99, &[]),
        ];
        let (runs, api) = (uids(&["run"]), uids(&["api"]));
        let steps = plan(&d, &KnownContainers::new(), &runs, Some(&api), LIMITS);
        assert_eq!(
            steps,
            [Step::RemoveDir {
                dir: "n_p_gone".into()
            }]
        );
        assert_eq!(
            plan(&d, &KnownContainers::new(), &runs, None, LIMITS),
            [],
            "the API has not said which pods there are"
        );
    }

    #[test]
    fn names_of_rotated_files_sort_by_time() {
        let name = rotated_name(
            Path::new("/l/0.log"),
            "2026-01-02T03:04:05Z".parse().expect("a time"),
        );
        assert_eq!(name, Path::new("/l/0.log.20260102-030405"));
        assert_eq!(
            (attempt("12.log"), attempt("0.log.20260102-030405")),
            (Some((12, false)), Some((0, true)))
        );
        assert_eq!((attempt("x.log"), attempt("1.txt")), (None, None));
    }

    #[test]
    fn the_directory_is_read_as_it_is() {
        let root = tempfile::tempdir().expect("a directory");
        assert!(
            scan(&root.path().join("none"), SystemTime::now())
                .expect("read")
                .is_empty()
        );
        std::fs::create_dir_all(root.path().join("n_p_u/c")).expect("made");
        std::fs::write(root.path().join("n_p_u/c/0.log"), "12345").expect("written");
        std::fs::write(root.path().join("stray"), "").expect("written");
        let dirs = scan(root.path(), SystemTime::now() + Duration::from_secs(90)).expect("read");
        assert_eq!(
            (
                dirs.len(),
                dirs[0].name.as_str(),
                dirs[0].containers["c"]["0.log"]
            ),
            (1, "n_p_u", 5)
        );
        assert!(dirs[0].age >= Duration::from_secs(80));
    }
}
