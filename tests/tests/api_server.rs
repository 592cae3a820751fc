//! The API server alone, over its real store, with the `kube` client.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kontiki_tests::host::Host;
use kontiki_tests::node::{Node, Role};
use kontiki_tests::process;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

const WATCH_DEADLINE: Duration = Duration::from_secs(10);

fn server() -> Result<(Host, Node)> {
    let host = Host::enter()?;
    let node = Node::start(&process::kontiki()?, Role::Server)?;
    Ok((host, node))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // One thread: only the calling thread is in the namespace.
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

async fn client(node: &Node) -> Result<kube::Client> {
    let config = Kubeconfig::read_from(node.kubeconfig())?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    let data = BTreeMap::from([("key".to_owned(), value.to_owned())]);
    ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(name.into()),
            ..Default::default()
        },
        data: Some(data),
        ..Default::default()
    }
}

#[test]
fn objects_are_made_changed_watched_and_deleted() -> Result<()> {
    let (_host, node) = server()?;
    runtime()?.block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(client(&node).await?, "default");
        let version = maps.list(&ListParams::default()).await?.metadata.resource_version.context("a list has one")?;
        let mut events = maps.watch(&WatchParams::default(), &version).await?.boxed();

        let made = maps.create(&PostParams::default(), &config_map("a", "1")).await?;
        ensure!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
        let twice = maps.create(&PostParams::default(), &config_map("a", "1")).await;
        ensure!(matches!(&twice, Err(kube::Error::Api(e)) if e.code == 409 && e.reason == "AlreadyExists"), "{twice:?}");

        let mut stale = made.clone();
        let mut changed = made;
        changed.data = config_map("a", "2").data;
        maps.replace("a", &PostParams::default(), &changed).await?;
        stale.data = config_map("a", "3").data;
        let conflict = maps.replace("a", &PostParams::default(), &stale).await;
        ensure!(matches!(&conflict, Err(kube::Error::Api(e)) if e.code == 409 && e.reason == "Conflict"), "{conflict:?}");

        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        maps.patch("a", &PatchParams::default(), &patch).await?;
        let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"more": "x"}}));
        let applied = maps.patch("a", &PatchParams::apply("test"), &apply).await?;
        ensure!(applied.data.context("data")?.len() == 2, "apply merges");
        ensure!(maps.list(&ListParams::default().labels("a=b")).await?.items.len() == 1);
        ensure!(maps.list(&ListParams::default().labels("a!=b")).await?.items.is_empty());
        maps.delete("a", &DeleteParams::default()).await?;
        ensure!(maps.get_opt("a").await?.is_none());

        let mut kinds = Vec::new();
        while kinds.len() < 5 {
            let event = tokio::time::timeout(WATCH_DEADLINE, events.next()).await?.context("the watch ended")??;
            kinds.push(match event {
                WatchEvent::Added(_) => "ADDED",
                WatchEvent::Modified(_) => "MODIFIED",
                WatchEvent::Deleted(_) => "DELETED",
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(e) => anyhow::bail!("{e:?}"),
            });
        }
        ensure!(kinds == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"], "{kinds:?}");
        Ok(())
    })
}

#[test]
fn lists_come_in_pages_of_one_snapshot() -> Result<()> {
    let (_host, node) = server()?;
    runtime()?.block_on(async {
        let maps: Api<ConfigMap> = Api::namespaced(client(&node).await?, "default");
        for i in 0..25 {
            maps.create(
                &PostParams::default(),
                &config_map(&format!("m-{i:02}"), "x"),
            )
            .await?;
        }
        let mut names = Vec::new();
        let mut params = ListParams::default().limit(10);
        loop {
            let page = maps.list(&params).await?;
            names.extend(page.items.into_iter().filter_map(|m| m.metadata.name));
            let Some(token) = page.metadata.continue_.filter(|t| !t.is_empty()) else {
                break;
            };
            // What is deleted while paging is still in the snapshot.
            maps.delete("m-24", &DeleteParams::default()).await.ok();
            params = ListParams::default().limit(10).continue_token(&token);
        }
        let want: Vec<String> = (0..25).map(|i| format!("m-{i:02}")).collect();
        ensure!(names == want, "{names:?}");
        Ok(())
    })
}

#[test]
fn what_was_acknowledged_survives_a_kill() -> Result<()> {
    let (_host, mut node) = server()?;
    let runtime = runtime()?;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let pid = node.pid();
        runtime.block_on(async {
            let maps: Api<ConfigMap> = Api::namespaced(client(&node).await?, "default");
            for i in 0..200 {
                let name = format!("r{round}-{i}");
                if i == 150 {
                    process::signal(pid, rustix::process::Signal::KILL)?;
                }
                match maps
                    .create(&PostParams::default(), &config_map(&name, &name))
                    .await
                {
                    Ok(_) => acknowledged.push(name),
                    Err(_) if i >= 150 => break,
                    Err(e) => return Err(e.into()),
                }
            }
            anyhow::Ok(())
        })?;
        node.kill()?;
        node.restart()?;
        runtime.block_on(async {
            let maps: Api<ConfigMap> = Api::namespaced(client(&node).await?, "default");
            for name in &acknowledged {
                let map = maps
                    .get(name)
                    .await
                    .with_context(|| format!("{name} was acknowledged"))?;
                ensure!(
                    map.data.as_ref().and_then(|d| d.get("key")) == Some(name),
                    "{name} is whole"
                );
            }
            Ok(())
        })?;
    }
    ensure!(acknowledged.len() >= 450, "{} writes", acknowledged.len());
    Ok(())
}

#[test]
fn pods_are_checked_and_defaulted() -> Result<()> {
    let (_host, node) = server()?;
    runtime()?.block_on(async {
        let pods: Api<Pod> = Api::namespaced(client(&node).await?, "default");
        let pod = |name: &str, image: &str| -> Result<Pod> {
            Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image}],
                "automountServiceAccountToken": false}}))?)
        };
        let service_account = json!({"metadata": {"name": "default"}});
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client(&node).await?, "default");
        accounts.create(&PostParams::default(), &serde_json::from_value(service_account)?).await?;
        let made = pods.create(&PostParams::default(), &pod("good", "nginx")?).await?;
        let spec = made.spec.context("a spec")?;
        ensure!(spec.dns_policy.as_deref() == Some("ClusterFirst") && spec.restart_policy.as_deref() == Some("Always"));
        ensure!(spec.containers[0].image_pull_policy.as_deref() == Some("Always"), "no tag means latest");
        ensure!(made.status.and_then(|s| s.phase).as_deref() == Some("Pending"));
        let bad = pods.create(&PostParams::default(), &pod("Bad_Name", "nginx")?).await;
        ensure!(matches!(&bad, Err(kube::Error::Api(e)) if e.code == 422 && e.reason == "Invalid"), "{bad:?}");
        let bad = pods.create(&PostParams::default(), &pod("empty", "")?).await;
        ensure!(
            matches!(&bad, Err(kube::Error::Api(e)) if e.message.contains("spec.containers[0].image: Required value")),
            "{bad:?}"
        );
        Ok(())
    })
}
