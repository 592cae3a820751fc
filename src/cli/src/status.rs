//! `kontiki status`: is the server ready, are the nodes, what runs.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use kontiki_api::{ObjectMeta, catalogue::known};
use kontiki_client::Remote;
use kontiki_reconcile::ListParams;
use serde::Deserialize;

/// How often [`wait`] looks.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct NodeView {
    metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: String,
    container_runtime_version: String,
}

#[derive(Deserialize)]
struct PodView {
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl NodeView {
    fn ready(&self) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.r#type == "Ready")
    }
}

/// Prints the state of the cluster. With `server_only` the nodes are left out.
///
/// # Errors
/// The server or a node is not ready; the message says which and why.
pub async fn run(client: &Remote, server_only: bool, out: &mut dyn Write) -> Result<()> {
    let ready = client
        .raw(http::Method::GET, "/readyz", "", Bytes::new())
        .await
        .context("the API server is not ready")?;
    writeln!(out, "API server   {}", String::from_utf8_lossy(&ready.body))?;
    if server_only {
        return Ok(());
    }
    let calls = kontiki_reconcile::Client::new(std::sync::Arc::new(client.clone()), "kontiki");
    let nodes: Vec<NodeView> = calls.list(known::nodes(), ListParams::default()).await?;
    let mut not_ready = Vec::new();
    for n in &nodes {
        let condition = n.ready();
        let is_ready = condition.is_some_and(|c| c.status == "True");
        let (word, why) = if is_ready {
            ("Ready", "")
        } else {
            (
                "NotReady",
                condition.map_or("no status yet", |c| &c.message),
            )
        };
        let info = &n.status.node_info;
        writeln!(
            out,
            "node         {} {word} {} {} {why}",
            n.metadata.name, info.kubelet_version, info.container_runtime_version
        )?;
        if !is_ready {
            not_ready.push(format!("{}: {why}", n.metadata.name));
        }
    }
    let pods: Vec<PodView> = calls.list(known::pods(), ListParams::default()).await?;
    let running = pods.iter().filter(|p| p.status.phase == "Running").count();
    writeln!(out, "pods         {running} running of {}", pods.len())?;
    if nodes.is_empty() {
        bail!("no node has registered yet");
    }
    if !not_ready.is_empty() {
        bail!("not ready: {}", not_ready.join("; "));
    }
    Ok(())
}

/// Looks until [`run`] succeeds.
///
/// # Errors
/// The deadline passed; the reason is that of the last look.
pub async fn wait(
    connect: impl Fn() -> Result<Remote>,
    server_only: bool,
    deadline: Duration,
    out: &mut dyn Write,
) -> Result<()> {
    let start = tokio::time::Instant::now();
    loop {
        let mut text = Vec::new();
        let result = match connect() {
            Ok(client) => run(&client, server_only, &mut text).await,
            Err(e) => Err(e),
        };
        if result.is_ok() || start.elapsed() >= deadline {
            out.write_all(&text)?;
            return result;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
