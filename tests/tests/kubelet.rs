//! The kubelet with a real containerd, in a network namespace of its own, against an API in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_host::cgroups::{Cgroups, KernelCgroups};
use kontiki_kubelet::{Config, Kubelet};
use kontiki_node::{Containerd, ContainerdConfig, images, teardown};
use kontiki_pki::{Ca, ca::Profile, tls};
use kontiki_reconcile::fake::FakeApi;
use kontiki_tests::host::{ADDRESS, Host};
use kontiki_tests::wait::until;
use serde_json::{Value, json};

const IMAGE: &str = "localhost/busybox:test";
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A node whose API is only data. What it made is removed when it is dropped.
struct Node {
    dir: tempfile::TempDir,
    runtime: ContainerdConfig,
    cgroup: String,
    api: FakeApi,
    executor: tokio::runtime::Runtime,
    containerd_tasks: Tasks,
    _host: Host,
}

impl Node {
    fn start() -> Result<Node> {
        let host = Host::enter()?;
        // Its threads are made here, so they live in the host's network too.
        let executor = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let dir = tempfile::tempdir()?;
        let runtime = ContainerdConfig::below(&dir.path().join("data"), &dir.path().join("run"));
        write_network(&runtime.cni_conf_dir, dir.path())?;
        let containerd_tasks = Tasks::default();
        let cgroup = format!("/{}", host.name());
        let node = Node {
            dir,
            runtime,
            cgroup,
            api: FakeApi::default(),
            executor,
            containerd_tasks,
            _host: host,
        };
        node.executor.block_on(async {
            Containerd::start(node.runtime.clone(), &node.containerd_tasks).await?;
            images::ensure_pause(&node.runtime).await?;
            let archive = busybox_image(node.dir.path())?;
            images::import_file(&node.runtime, &archive).await?;
            Ok::<(), anyhow::Error>(())
        })?;
        Ok(node)
    }

    /// Starts a kubelet, which runs until its tasks are stopped.
    fn kubelet(&self) -> Result<Tasks> {
        let ca = Ca::create("test")?;
        let identity = ca.issue(&Profile::server(
            "node1",
            &["node1".into()],
            &[ADDRESS.into()],
        ))?;
        let mut config = Config::new(
            "node1",
            ADDRESS.into(),
            Arc::new(tls::server(&identity, ca.cert_pem(), &[])?),
        );
        config.root_dir = self.dir.path().join("kubelet");
        config.pod_logs_dir = self.dir.path().join("logs");
        config.cri_socket.clone_from(&self.runtime.socket);
        config.cgroup_root.clone_from(&self.cgroup);
        config.listen = (ADDRESS, 0).into();
        let tasks = Tasks::default();
        self.executor.block_on(Kubelet::start(
            config,
            self.api.api(),
            &Metrics::default(),
            &tasks,
        ))?;
        Ok(tasks)
    }

    fn put_pod(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        spec["nodeName"] = "node1".into();
        for c in spec["containers"].as_array_mut().into_iter().flatten() {
            c["image"] = IMAGE.into();
            c["imagePullPolicy"] = "Never".into();
        }
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": {"phase": "Pending"}});
        self.api.put(known::pods(), pod);
    }

    fn pod(&self, name: &str) -> Value {
        self.api
            .object(known::pods(), "default", name)
            .unwrap_or_default()
    }

    /// Waits until a pod is as wanted; returns it.
    fn wait(&self, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        until(&format!("pod {name} {what}"), WAIT_MAX, || {
            let pod = self.pod(name);
            if good(&pod) {
                return Ok(pod);
            }
            let events: Vec<String> = self
                .api
                .objects(known::events())
                .iter()
                .map(|e| {
                    format!(
                        "{} {} {}",
                        e["involvedObject"]["name"], e["reason"], e["message"]
                    )
                })
                .collect();
            bail!("it is {pod:#}\nevents:\n{}", events.join("\n"))
        })
    }

    fn wait_gone(&self, name: &str) -> Result<()> {
        self.wait(name, "went", Value::is_null).map(drop)
    }

    fn delete(&self, name: &str, grace_seconds: i64) -> Result<()> {
        let client = kontiki_reconcile::Client::new(self.api.api(), "test");
        let options = kontiki_reconcile::client::DeleteOptions {
            grace_period_seconds: Some(grace_seconds),
            ..kontiki_reconcile::client::DeleteOptions::default()
        };
        Ok(self
            .executor
            .block_on(client.delete(known::pods(), "default", name, &options))?)
    }

    fn ctr(&self, args: &[&str]) -> Result<String> {
        let out = Command::new("ctr")
            .arg("--address")
            .arg(&self.runtime.socket)
            .args(["--namespace", "k8s.io"])
            .args(args)
            .output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.executor.block_on(async {
            self.containerd_tasks.stop().await;
            teardown::remove_all(&self.runtime, false).await;
        });
        let groups = KernelCgroups::default();
        // Processes that were just killed may hold a group for a moment. What is left then is told by the next run.
        let _ = until("the control groups go", WAIT_MAX, || {
            Ok(Cgroups::remove(&groups, &self.cgroup)?)
        });
    }
}

fn write_network(dir: &Path, data: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let list = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": data.join("ipam"), "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    Ok(std::fs::write(
        dir.join("10-pods.conflist"),
        list.to_string(),
    )?)
}

/// An image of the machine's busybox.
fn busybox_image(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("image/root/bin");
    std::fs::create_dir_all(&root)?;
    std::fs::copy("/bin/busybox", root.join("busybox"))
        .context("the test takes Debian's busybox-static")?;
    for name in [
        "sh", "httpd", "sleep", "cat", "echo", "test", "hostname", "touch", "id",
    ] {
        std::os::unix::fs::symlink("busybox", root.join(name))?;
    }
    let image = dir.join("image");
    let sh = |script: &str| -> Result<String> {
        let out = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&image)
            .output()?;
        ensure!(
            out.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let digest = sh("tar -C root -cf layer.tar . && sha256sum layer.tar | cut -d' ' -f1")?;
    let arch = kontiki_node::pause::architecture();
    let config = json!({"architecture": arch, "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    std::fs::write(image.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    std::fs::write(image.join("manifest.json"), manifest.to_string())?;
    sh("tar -cf ../busybox.tar config.json manifest.json layer.tar")?;
    Ok(dir.join("busybox.tar"))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}

fn http_get(address: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut s = std::net::TcpStream::connect(address)?;
    s.set_read_timeout(Some(Duration::from_secs(5)))?;
    s.write_all(b"GET /greeting HTTP/1.0\r\n\r\n")?;
    let mut out = String::new();
    s.read_to_string(&mut out)?;
    Ok(out)
}

fn web() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            {"name": "site", "configMap": {"name": "site"}},
            {"name": "scratch", "emptyDir": {"medium": "Memory"}},
            {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 256}},
        ],
        "initContainers": [],
        "containers": [{
            "name": "web",
            "command": ["sh", "-c", "echo hello $(WHO) $SECRET; touch /scratch/up/x; exec httpd -f -p 8080 -h /site"],
            "env": [
                {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "word"}}},
            ],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"port": "http", "path": "/greeting"}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["test", "-e", "/scratch/up/x"]}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "site", "mountPath": "/site"},
                {"name": "scratch", "mountPath": "/scratch/up", "subPath": "made"},
                {"name": "keys", "mountPath": "/keys"},
            ],
        }],
    })
}

fn put_objects(node: &Node) {
    let meta = |name: &str| json!({"name": name, "namespace": "default"});
    node.api.put(
        known::configmaps(),
        json!({"metadata": meta("site"), "data": {"greeting": "good day"}}),
    );
    node.api.put(
        known::secrets(),
        json!({"metadata": meta("keys"), "data": {"word": "c2VzYW1l"}}),
    );
}

#[test]
fn pods_live_and_end_on_a_real_runtime() -> Result<()> {
    let node = Node::start()?;
    put_objects(&node);
    let kubelet = node.kubelet()?;
    serves_and_logs(&node)?;
    ends_are_told(&node)?;
    failures_are_restarted(&node)?;
    let kubelet = survives_the_kubelet(&node, &kubelet)?;
    leaves_nothing(&node)?;
    node.executor.block_on(kubelet.stop());
    Ok(())
}

fn serves_and_logs(node: &Node) -> Result<()> {
    node.put_pod("web", &web());
    let pod = node.wait("web", "became ready", is_ready)?;
    ensure!(
        pod["status"]["phase"] == "Running" && pod["status"]["qosClass"] == "Guaranteed",
        "{pod:#}"
    );
    let ip = pod["status"]["podIP"]
        .as_str()
        .context("it has an address")?;
    let answer = http_get(&format!("{ip}:8080"))?;
    ensure!(answer.ends_with("good day"), "{answer}");
    let uid = pod["metadata"]["uid"].as_str().context("it has a uid")?;
    let log = node
        .dir
        .path()
        .join(format!("logs/default_web_{uid}/web/0.log"));
    let log = std::fs::read_to_string(log)?;
    ensure!(log.contains("stdout F hello web sesame"), "{log}");
    Ok(())
}

fn ends_are_told(node: &Node) -> Result<()> {
    let container = |script: &str| json!({"name": "c", "command": ["sh", "-c", script]});
    let bad = container("echo -n farewell > /dev/termination-log; exit 3");
    node.put_pod(
        "bad",
        &json!({"restartPolicy": "Never", "containers": [bad]}),
    );
    node.put_pod(
        "good",
        &json!({"restartPolicy": "OnFailure", "containers": [container("exit 0")]}),
    );
    let pod = node.wait("bad", "failed", |p| p["status"]["phase"] == "Failed")?;
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(
        end["exitCode"] == 3 && end["message"] == "farewell" && end["reason"] == "Error",
        "{end:#}"
    );
    node.wait("good", "succeeded", |p| p["status"]["phase"] == "Succeeded")?;
    Ok(())
}

fn failures_are_restarted(node: &Node) -> Result<()> {
    let crash = json!({"name": "c", "command": ["sh", "-c", "exit 1"]});
    node.put_pod("crash", &json!({"containers": [crash]}));
    let sick = json!({
        "name": "c", "command": ["sleep", "1000"],
        "livenessProbe": {"exec": {"command": ["test", "-e", "/nope"]}, "periodSeconds": 1, "failureThreshold": 1},
    });
    node.put_pod(
        "sick",
        &json!({"terminationGracePeriodSeconds": 1, "containers": [sick]}),
    );
    let missing = json!({"name": "c", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]});
    node.put_pod(
        "missing",
        &json!({"terminationGracePeriodSeconds": 1, "containers": [missing]}),
    );
    let status = |p: &Value| p["status"]["containerStatuses"][0].clone();
    node.wait("crash", "waited for its restart", |p| {
        status(p)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    })?;
    node.wait("sick", "was restarted", |p| {
        status(p)["restartCount"].as_u64() > Some(0)
    })?;
    node.wait("missing", "was told", |p| {
        status(p)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })?;
    for name in ["crash", "sick", "missing"] {
        node.delete(name, 1)?;
    }
    for name in ["crash", "sick", "missing"] {
        node.wait_gone(name)?;
    }
    Ok(())
}

fn survives_the_kubelet(node: &Node, kubelet: &Tasks) -> Result<Tasks> {
    let id = |p: &Value| p["status"]["containerStatuses"][0]["containerID"].clone();
    let before = id(&node.pod("web"));
    node.executor.block_on(kubelet.stop());
    let address = node.pod("web")["status"]["podIP"]
        .as_str()
        .context("it has an address")?
        .to_owned();
    ensure!(
        http_get(&format!("{address}:8080"))?.ends_with("good day"),
        "it serves without a kubelet"
    );
    // A pod that is deleted meanwhile is ended by the next kubelet.
    node.put_pod("orphan", &json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "command": ["sleep", "1000"]}]}));
    let kubelet = node.kubelet()?;
    node.wait("orphan", "became ready", is_ready)?;
    node.executor.block_on(kubelet.stop());
    node.api.remove(known::pods(), "default", "orphan");
    let kubelet = node.kubelet()?;
    node.put_pod("later", &json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["sh", "-c", "exit 0"]}]}));
    node.wait("later", "succeeded", |p| {
        p["status"]["phase"] == "Succeeded"
    })?;
    let pod = node.wait("web", "is ready", is_ready)?;
    ensure!(
        id(&pod) == before && pod["status"]["containerStatuses"][0]["restartCount"] == 0,
        "{pod:#}"
    );
    Ok(kubelet)
}

fn leaves_nothing(node: &Node) -> Result<()> {
    for name in ["web", "bad", "good", "later"] {
        node.delete(name, 1)?;
    }
    for name in ["web", "bad", "good", "later"] {
        node.wait_gone(name)?;
    }
    until("everything goes", WAIT_MAX, || {
        let containers = node.ctr(&["containers", "ls", "-q"])?;
        let groups = KernelCgroups::default();
        let pods = format!("{}/kubepods", node.cgroup);
        let left: Vec<String> = ["", "/burstable", "/besteffort"]
            .iter()
            .flat_map(|class| Cgroups::children(&groups, &format!("{pods}{class}")))
            .filter(|g| g.starts_with("pod"))
            .collect();
        let files =
            |dir: &str| std::fs::read_dir(node.dir.path().join(dir)).map_or(0, Iterator::count);
        let (dirs, logs) = (files("kubelet/pods"), files("logs"));
        let nothing = containers.trim().is_empty() && left.is_empty() && dirs == 0 && logs == 0;
        ensure!(
            nothing,
            "left: {containers} {left:?} {dirs} directories {logs} logs"
        );
        Ok(())
    })
}
