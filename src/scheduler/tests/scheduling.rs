//! The whole scheduler against an API in memory.

use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_reconcile::CallError;
use kontiki_reconcile::fake::FakeApi;
use kontiki_scheduler::{Config, Scheduler};
use serde_json::{Value, json};

fn start(fake: &FakeApi) -> Tasks {
    let tasks = Tasks::default();
    Scheduler::start(Config::default(), &fake.api(), &Metrics::default(), &tasks);
    tasks
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let spec = json!({"schedulerName": "default-scheduler", "containers": [container]});
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec, "status": {"phase": "Pending"}})
}

fn bound(pods: &[Value]) -> Vec<&str> {
    pods.iter()
        .filter_map(|p| p["spec"]["nodeName"].as_str())
        .collect()
}

#[tokio::test]
async fn pods_are_bound_and_no_node_gets_too_many() {
    let fake = FakeApi::default();
    let tasks = start(&fake);
    fake.put(known::nodes(), node("a", "2"));
    fake.put(known::nodes(), node("b", "2"));
    for i in 0..5 {
        fake.put(known::pods(), pod(&format!("p{i}"), "1"));
    }
    let condition = |p: &Value| {
        p["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["reason"] == "Unschedulable"))
    };
    fake.wait_for(known::pods(), "bound four and gave up on one", |p| {
        bound(p).len() == 4 && p.iter().any(condition)
    })
    .await;
    let pods = fake.objects(known::pods());
    let on_a = bound(&pods).iter().filter(|n| **n == "a").count();
    assert_eq!(on_a, 2);
    let want = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
                2 No preemption victims found for incoming pod.";
    fake.wait_for(known::events(), "told", |e| {
        e.iter()
            .any(|e| e["reason"] == "FailedScheduling" && e["message"] == want)
            && e.iter().filter(|e| e["reason"] == "Scheduled").count() == 4
    })
    .await;
    // Room is made: the one that waited gets it.
    let leaving = pods
        .iter()
        .find(|p| p["spec"]["nodeName"] == "a")
        .and_then(|p| p["metadata"]["name"].as_str());
    fake.remove(known::pods(), "ns", leaving.expect("one is on a"));
    fake.wait_for(known::pods(), "bound the last", |p| {
        bound(p).len() == 4 && p.len() == 4
    })
    .await;
    tasks.stop().await;
}

#[tokio::test]
async fn gated_and_foreign_pods_are_left_alone_and_gates_can_be_lifted() {
    let fake = FakeApi::default();
    let tasks = start(&fake);
    fake.put(known::nodes(), node("a", "2"));
    let mut gated = pod("gated", "1");
    gated["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    fake.put(known::pods(), gated.clone());
    let mut foreign = pod("foreign", "1");
    foreign["spec"]["schedulerName"] = "mine".into();
    fake.put(known::pods(), foreign);
    fake.put(known::pods(), pod("plain", "1"));
    fake.wait_for(known::pods(), "bound one", |p| !bound(p).is_empty())
        .await;
    gated["spec"]["schedulingGates"] = json!([]);
    fake.put(known::pods(), gated);
    fake.wait_for(known::pods(), "bound two", |p| bound(p).len() == 2)
        .await;
    let foreign = fake
        .object(known::pods(), "ns", "foreign")
        .expect("it is there");
    assert!(foreign["spec"]["nodeName"].is_null());
    tasks.stop().await;
}

#[tokio::test]
async fn a_failed_binding_gives_the_room_back() {
    let fake = FakeApi::default();
    let failures = std::sync::atomic::AtomicU32::new(0);
    fake.fail_when(move |q| {
        let first = q.subresource == "binding"
            && failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        first.then(|| CallError::Unavailable {
            reason: "on purpose".into(),
            maybe_done: false,
        })
    });
    let tasks = start(&fake);
    fake.put(known::nodes(), node("a", "1"));
    fake.put(known::pods(), pod("p", "1"));
    let started = std::time::Instant::now();
    fake.wait_for(known::pods(), "bound", |p| bound(p) == ["a"])
        .await;
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "the backoff was kept"
    );
    tasks.stop().await;
}
