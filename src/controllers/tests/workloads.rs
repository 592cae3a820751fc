//! Deployments and replica sets against an API in memory, with pods that a test makes ready.

use kontiki_api::catalogue::known;
use kontiki_api::object;
use kontiki_base::{Metrics, Tasks};
use kontiki_controllers::{Config, Controllers};
use kontiki_reconcile::fake::FakeApi;
use serde_json::{Value, json};

fn start(fake: &FakeApi) -> Tasks {
    let tasks = Tasks::default();
    let config = Config {
        which: vec![
            "deployment-controller".into(),
            "replicaset-controller".into(),
        ],
        ..Config::default()
    };
    Controllers::start(&config, &fake.api(), &Metrics::default(), &tasks).expect("known loops");
    tasks
}

fn deployment(replicas: i32, image: &str) -> Value {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    json!({"metadata": {"namespace": "ns", "name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template,
                 "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                 "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}})
}

/// Makes every pod ready, again and again, until the deployment is complete.
async fn run_pods_until_complete(fake: &FakeApi, replicas: i64) {
    for _ in 0..1000 {
        for mut p in fake.objects(known::pods()) {
            if p["status"]["phase"] != "Running" {
                p["spec"]["nodeName"] = "n".into();
                p["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
                fake.put(known::pods(), p);
            } else if !p["metadata"]["deletionTimestamp"].is_null() {
                fake.remove(known::pods(), "ns", object::name(&p));
            }
        }
        let d = fake
            .object(known::deployments(), "ns", "web")
            .expect("it is there");
        let is = |field: &str| object::int(&d, &["status", field]) == Some(replicas);
        let generation = object::int(&d, &["metadata", "generation"]);
        if is("updatedReplicas")
            && is("availableReplicas")
            && is("replicas")
            && object::int(&d, &["status", "observedGeneration"]) == generation
            && fake.objects(known::pods()).len() == usize::try_from(replicas).expect("not negative")
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!(
        "the deployment is never complete: {:?}",
        fake.object(known::deployments(), "ns", "web")
    );
}

#[tokio::test]
async fn a_deployment_comes_up_rolls_and_goes_without_a_pod_too_many() {
    let fake = FakeApi::default();
    let tasks = start(&fake);
    fake.put(known::deployments(), deployment(3, "one"));
    run_pods_until_complete(&fake, 3).await;
    let created = |fake: &FakeApi| {
        fake.requests()
            .iter()
            .filter(|q| q.resource.plural == "pods" && q.verb == kontiki_reconcile::Verb::Create)
            .count()
    };
    assert_eq!(created(&fake), 3, "no pod is made twice");

    let mut d = fake
        .object(known::deployments(), "ns", "web")
        .expect("it is there");
    d["spec"]["template"]["spec"]["containers"][0]["image"] = "two".into();
    d["metadata"]["generation"] = 2.into();
    fake.put(known::deployments(), d);
    run_pods_until_complete(&fake, 3).await;
    assert_eq!(created(&fake), 6);
    let pods = fake.objects(known::pods());
    assert!(
        pods.iter()
            .all(|p| p["spec"]["containers"][0]["image"] == "two")
    );
    let owner = &pods[0]["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"]),
        (&json!("ReplicaSet"), &json!(true))
    );
    let sets = fake.objects(known::replicasets());
    assert_eq!(sets.len(), 2);
    let d = fake
        .object(known::deployments(), "ns", "web")
        .expect("it is there");
    assert_eq!(
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    fake.wait_for(known::events(), "told of the scaling", |e| {
        e.iter().any(|e| {
            e["message"].as_str().is_some_and(|m| {
                m.starts_with("Scaled up replica set web-") && m.ends_with("from 0 to 3")
            })
        })
    })
    .await;
    tasks.stop().await;
}

#[tokio::test]
async fn a_set_replaces_pods_adopts_orphans_and_shrinks() {
    let fake = FakeApi::default();
    let orphan = json!({"metadata": {"namespace": "ns", "name": "orphan", "labels": {"app": "x"}}, "spec": {}, "status": {"phase": "Running"}});
    fake.put(known::pods(), orphan);
    let tasks = start(&fake);
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}});
    let mut set = json!({"metadata": {"namespace": "ns", "name": "rs"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "template": template}});
    fake.put(known::replicasets(), set.clone());
    let owned = |p: &[Value]| {
        p.iter()
            .filter(|p| p["metadata"]["ownerReferences"][0]["name"] == "rs")
            .count()
    };
    fake.wait_for(known::pods(), "three, the orphan among them", |p| {
        p.len() == 3 && owned(p) == 3
    })
    .await;
    fake.remove(known::pods(), "ns", "orphan");
    fake.wait_for(known::pods(), "three again", |p| {
        p.len() == 3 && owned(p) == 3
    })
    .await;
    set["spec"]["replicas"] = 1.into();
    fake.put(known::replicasets(), set);
    fake.wait_for(known::pods(), "one", |p| p.len() == 1).await;
    fake.wait_for(known::replicasets(), "counted", |s| {
        s[0]["status"]["replicas"] == 1
    })
    .await;
    tasks.stop().await;
}
