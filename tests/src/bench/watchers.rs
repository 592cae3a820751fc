//! One write to many watchers: CPU per delivery, and the time until the last one has it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;

use super::http::Access;
use crate::process;

const WATCHERS: usize = 200;
const WRITES: usize = 200;
const EVENT_DEADLINE: Duration = Duration::from_secs(10);

/// Measures deliveries and gives the line to print.
///
/// # Errors
/// The server refuses a request, or an event does not come.
pub async fn run(access: &Access, pid: u32) -> Result<String> {
    let collection = "/api/v1/namespaces/default/configmaps";
    let mut writer = access.connect().await?;
    let list: serde_json::Value =
        serde_json::from_slice(&writer.call("GET", collection, Bytes::new()).await?)?;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .context("a list has a resourceVersion")?
        .to_owned();
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut connection = access.connect().await?;
        let path = format!("{collection}?watch=1&resourceVersion={revision}");
        let body = connection
            .open("GET", &path, Bytes::new())
            .await?
            .into_body();
        watchers.push((connection, body));
    }
    let mut last = Vec::with_capacity(WRITES);
    let cpu = process::cpu_time_exact(pid)?;
    for i in 0..WRITES {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("watched-{i}")},
            "data": {"payload": "x".repeat(1000)}});
        let start = Instant::now();
        writer
            .call("POST", collection, Bytes::from(object.to_string()))
            .await?;
        let arrivals = watchers.iter_mut().map(|(_, body)| async move {
            loop {
                let frame = body.frame().await.context("the watch ended")??;
                // An event ends with its line; frames may hold a part of one.
                if frame.data_ref().is_some_and(|d| d.ends_with(b"\n")) {
                    return anyhow::Ok(());
                }
            }
        });
        tokio::time::timeout(EVENT_DEADLINE, futures::future::try_join_all(arrivals))
            .await
            .context("an event did not come in time")??;
        last.push(start.elapsed());
    }
    let used = process::cpu_time_exact(pid)?.saturating_sub(cpu);
    last.sort();
    let deliveries = u32::try_from(WATCHERS * WRITES)?;
    Ok(format!(
        "  watch          {:>8.1} us CPU a delivery to {WATCHERS} watchers, last one p50 {:.1} ms, p99 {:.1} ms   (upstream 44 us, p50 6 ms, p99 15 ms)",
        (used / deliveries).as_secs_f64() * 1e6,
        last[WRITES / 2].as_secs_f64() * 1e3,
        last[WRITES * 99 / 100].as_secs_f64() * 1e3,
    ))
}
