//! The API server under load: CPU per operation, rates, latencies, start-up and idle memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;

use super::http::Access;
use super::watchers;
use crate::host::Host;
use crate::node::{Node, Role};
use crate::process;

const CLIENTS: usize = 16;
const OBJECTS: usize = 2000;
const GETS: usize = 16_000;
const LISTS: usize = 60;

/// Upstream's figures: kube-apiserver 1.36 with etcd 3.6 on two cores.
const UPSTREAM: [(&str, &str); 5] = [
    ("create", "0.80 ms, 2,027/s, p99 19 ms"),
    ("get", "0.35 ms, 4,302/s, p99 14 ms"),
    ("update", "1.0 ms, 1,659/s, p99 23 ms"),
    ("delete", "0.76 ms, 1,992/s, p99 18 ms"),
    ("list of 2,000", "31 ms, 32/s"),
];

/// Runs the measurements and says them line by line.
///
/// # Errors
/// The server does not start, or refuses a request.
pub fn run(kontiki: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    let host = Host::enter()?;
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(Node::start(kontiki, Role::Server)?.ready_after);
    }
    starts.sort();
    say(&format!(
        "start to /readyz, empty disk: {} ms median of 5 (upstream 2,500 ms; goal 300 ms)",
        starts[2].as_millis()
    ));

    let node = Node::start(kontiki, Role::Server)?;
    let access = Access::from_kubeconfig(&node.kubeconfig())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    say(&format!(
        "API server, {CLIENTS} clients on {CLIENTS} connections, ConfigMaps of 1 KB:"
    ));
    let path = |i: usize| format!("/api/v1/namespaces/default/configmaps/bench-{i}");
    let body = |i: usize, round: usize| {
        let data = json!({"round": round.to_string(), "payload": "x".repeat(1000)});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": format!("bench-{i}"), "labels": {"app": "bench"}}});
        Bytes::from(object.to_string())
    };
    let collection = "/api/v1/namespaces/default/configmaps";
    runtime.block_on(async {
        let load = Load {
            access: &access,
            pid: node.pid(),
        };
        let r = load
            .run(OBJECTS, |i| ("POST", collection.to_owned(), body(i, 0)))
            .await?;
        say(&r.line("create"));
        say(&load
            .run(GETS, |i| ("GET", path(i % OBJECTS), Bytes::new()))
            .await?
            .line("get"));
        say(&load
            .run(OBJECTS * 2, |i| {
                ("PUT", path(i % OBJECTS), body(i % OBJECTS, 1 + i / OBJECTS))
            })
            .await?
            .line("update"));
        say(&load
            .run(LISTS, |_| ("GET", collection.to_owned(), Bytes::new()))
            .await?
            .line("list of 2,000"));
        say(&load
            .run(OBJECTS, |i| ("DELETE", path(i), Bytes::new()))
            .await?
            .line("delete"));
        say(&watchers::run(&access, node.pid()).await?);
        anyhow::Ok(())
    })?;
    drop(node);
    drop(host);
    Ok(())
}

struct Load<'a> {
    access: &'a Access,
    pid: u32,
}

struct Report {
    cpu_per_op: Duration,
    rate: f64,
    p50: Duration,
    p99: Duration,
}

impl Report {
    fn line(&self, what: &str) -> String {
        let upstream = UPSTREAM
            .iter()
            .find(|(w, _)| *w == what)
            .map_or("", |(_, u)| *u);
        format!(
            "  {what:<14} {:>8.3} ms CPU, {:>6.0}/s, p50 {:.1} ms, p99 {:.1} ms   (upstream {upstream})",
            self.cpu_per_op.as_secs_f64() * 1e3,
            self.rate,
            self.p50.as_secs_f64() * 1e3,
            self.p99.as_secs_f64() * 1e3,
        )
    }
}

impl Load<'_> {
    async fn run(
        &self,
        count: usize,
        make: impl Fn(usize) -> (&'static str, String, Bytes),
    ) -> Result<Report> {
        let make = &make;
        let cpu = process::cpu_time_exact(self.pid)?;
        let start = Instant::now();
        let clients = (0..CLIENTS).map(|c| async move {
            let mut connection = self.access.connect().await?;
            let mut took = Vec::with_capacity(count / CLIENTS + 1);
            for i in (c..count).step_by(CLIENTS) {
                let (method, path, body) = make(i);
                let at = Instant::now();
                connection.call(method, &path, body).await?;
                took.push(at.elapsed());
            }
            anyhow::Ok(took)
        });
        let mut took: Vec<Duration> = futures::future::try_join_all(clients)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let elapsed = start.elapsed();
        let used = process::cpu_time_exact(self.pid)?.saturating_sub(cpu);
        took.sort();
        Ok(Report {
            cpu_per_op: used / u32::try_from(count)?,
            rate: f64::from(u32::try_from(count)?) / elapsed.as_secs_f64(),
            p50: took[took.len() / 2],
            p99: took[took.len() * 99 / 100],
        })
    }
}
