//! What is told and heard: pods' statuses to the API, last words of containers.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use kontiki_api::catalogue::known;
use kontiki_reconcile::{CallError, Client, PatchKind};
use serde_json::{Value, json};

use crate::config::Config;
use crate::observed::{Observed, State};
use crate::pod::Pod;

/// The most bytes of last words that are told.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// The most bytes and lines of a log that stand in for last words.
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// Writes a pod's status, if the pod is still the one that it was worked out for; returns the object as stored.
///
/// # Errors
/// The server's refusal, or no answer.
pub async fn write_status(client: &Client, pod: &Pod, status: &Value) -> Result<Value, CallError> {
    let m = &pod.metadata;
    // The conditions in the status hold those of others as they were read, hence the resourceVersion.
    let patch = json!({
        "metadata": {"uid": m.uid, "resourceVersion": m.resource_version},
        "status": status,
    });
    client
        .patch(
            known::pods(),
            (&m.namespace, &m.name),
            "status",
            PatchKind::Merge,
            &patch,
        )
        .await
}

/// Reads the last words of containers that have ended since the last time.
pub fn read_messages(
    pod: &Pod,
    observed: &Observed,
    known: &mut HashMap<String, String>,
    config: &Config,
) {
    known.retain(|id, _| observed.containers.iter().any(|c| c.id == *id));
    for c in observed
        .containers
        .iter()
        .filter(|c| c.state == State::Exited)
    {
        if known.contains_key(&c.id) {
            continue;
        }
        let mut text = c
            .message_file
            .as_deref()
            .map(|f| tail(Path::new(f), MESSAGE_BYTES_MAX))
            .unwrap_or_default();
        if text.is_empty() && c.message_from_log && c.exit_code != 0 {
            let log = if c.log_path.is_empty() {
                let m = &pod.metadata;
                crate::sandbox::log_dir(config, &m.namespace, &m.name, &m.uid)
                    .join(crate::container::log_path(&c.name, c.attempt))
            } else {
                Path::new(&c.log_path).to_owned()
            };
            text = last_log_lines(&tail(&log, LOG_BYTES_MAX * 2));
        }
        known.insert(c.id.clone(), text);
    }
}

fn tail(path: &Path, bytes_max: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut f = std::fs::File::open(path)?;
        let len = f.metadata()?.len();
        f.seek(SeekFrom::Start(len.saturating_sub(bytes_max)))?;
        let mut out = Vec::new();
        f.take(bytes_max).read_to_end(&mut out)?;
        Ok(out)
    };
    read()
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default()
}

/// The messages of the last lines of a CRI log, within the limits.
fn last_log_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|l| l.splitn(4, ' ').nth(3))
        .collect();
    let mut out = String::new();
    for l in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        out.push_str(l);
        out.push('\n');
    }
    let limit = usize::try_from(LOG_BYTES_MAX).unwrap_or(usize::MAX);
    let mut from = out.len().saturating_sub(limit);
    while !out.is_char_boundary(from) {
        from += 1;
    }
    out.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_come_from_the_file_or_after_a_failure_from_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, log) = (dir.path().join("m"), dir.path().join("l"));
        std::fs::write(&file, "bye").expect("written");
        std::fs::write(
            &log,
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two words\n",
        )
        .expect("written");
        let path = |p: &Path| p.to_string_lossy().into_owned();
        let seen = |id: &str, file: Option<String>| crate::observed::Container {
            id: id.into(),
            state: State::Exited,
            exit_code: 1,
            message_file: file,
            message_from_log: true,
            log_path: path(&log),
            ..crate::observed::Container::default()
        };
        let observed = Observed {
            sandboxes: vec![],
            containers: vec![seen("a", Some(path(&file))), seen("b", None)],
        };
        let mut known = HashMap::new();
        read_messages(
            &Pod::default(),
            &observed,
            &mut known,
            &crate::testing::config(),
        );
        assert_eq!(
            (known["a"].as_str(), known["b"].as_str()),
            ("bye", "one\ntwo words\n")
        );
    }
}
