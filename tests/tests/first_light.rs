//! A whole node, driven with kubectl as a newcomer would: the sample answers through its Services, and everyday commands work.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kontiki_tests::bench::node::{SAMPLE, deploy_sample, http_get, import, sample_image};
use kontiki_tests::host::{self, Host};
use kontiki_tests::node::{Node, Role};
use kontiki_tests::{process, wait};

const MINUTE: Duration = Duration::from_secs(60);
const ROLLOUT: [&str; 4] = ["rollout", "status", "deployment/nginx", "--timeout=90s"];

fn up() -> Result<(Host, Node)> {
    let image = sample_image()?;
    let host = Host::enter()?;
    let node = Node::start(&process::kontiki()?, Role::Up)?;
    import(&node, &image)?;
    Ok((host, node))
}

#[test]
fn the_sample_answers_and_everyday_commands_work() -> Result<()> {
    let (_host, node) = up()?;
    deploy_sample(&node)?;
    let node_port: SocketAddr = (host::ADDRESS, 31045).into();
    wait::until("an answer through the NodePort", MINUTE, || {
        let answer = http_get(node_port, "/")?;
        ensure!(answer.contains("Welcome to nginx!"), "{answer}");
        Ok(())
    })?;

    let nodes = node.kubectl(&["get", "nodes"])?;
    ensure!(
        nodes.contains("node-1") && nodes.contains(" Ready ") && nodes.contains("v1.36"),
        "{nodes}"
    );
    let all = node.kubectl(&["get", "pods,deploy,rs,svc", "-o", "wide"])?;
    ensure!(
        all.contains("1/1")
            && all.contains("deployment.apps/nginx")
            && all.contains("80:31045/TCP"),
        "{all}"
    );

    names_resolve_in_a_pod(&node)?;
    a_deleted_pod_is_replaced(&node)?;
    scaling(&node)?;
    rollouts(&node)?;
    logs_and_exec(&node)?;
    describing_and_explaining(&node)?;
    creating_and_deleting(&node)
}

fn names_resolve_in_a_pod(node: &Node) -> Result<()> {
    for name in ["nginx", "nginx.default", "nginx.default.svc.cluster.local"] {
        let url = format!("http://{name}/");
        let page = node.kubectl(&[
            "exec",
            "deploy/nginx",
            "--",
            "timeout",
            "10",
            "wget",
            "-qO-",
            &url,
        ])?;
        ensure!(page.contains("Welcome to nginx!"), "{name}: {page}");
    }
    let out = node.kubectl_output(&[
        "exec",
        "deploy/nginx",
        "--",
        "nslookup",
        "no-such-name.default.svc.cluster.local",
    ])?;
    ensure!(
        !out.status.success(),
        "a name without a Service does not resolve"
    );
    Ok(())
}

fn pods(node: &Node) -> Result<Vec<String>> {
    let text = node.kubectl(&["get", "pods", "-l", "app=nginx", "-o", "name"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn a_deleted_pod_is_replaced(node: &Node) -> Result<()> {
    let before = pods(node)?;
    node.kubectl(&["delete", &before[0], "--timeout=60s"])?;
    node.kubectl(&ROLLOUT)?;
    let after = pods(node)?;
    ensure!(after.len() == 1 && after != before, "{before:?} {after:?}");
    Ok(())
}

fn scaling(node: &Node) -> Result<()> {
    node.kubectl(&["scale", "deployment", "nginx", "--replicas", "3"])?;
    node.kubectl(&ROLLOUT)?;
    let ready = node.kubectl(&[
        "get",
        "deploy",
        "nginx",
        "-o",
        "jsonpath={.status.readyReplicas}",
    ])?;
    ensure!(ready == "3", "{ready} replicas are ready");
    let slice = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=nginx",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[0]}",
    ];
    node.wait_kubectl(&slice, MINUTE, |t| t.split_whitespace().count() == 3)?;
    node.kubectl(&["scale", "deployment", "nginx", "--replicas", "1"])?;
    node.wait_kubectl(
        &["get", "pods", "-l", "app=nginx", "-o", "name"],
        MINUTE,
        |t| t.lines().count() == 1,
    )?;
    Ok(())
}

fn rollouts(node: &Node) -> Result<()> {
    // The same image under its full name is another template, and needs no second image.
    node.kubectl(&[
        "set",
        "image",
        "deployment/nginx",
        "nginx=docker.io/library/nginx:stable",
    ])?;
    node.kubectl(&ROLLOUT)?;
    let image = [
        "get",
        "deploy",
        "nginx",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ];
    ensure!(node.kubectl(&image)? == "docker.io/library/nginx:stable");
    let history = node.kubectl(&["rollout", "history", "deployment/nginx"])?;
    ensure!(
        history.contains("\n1 ") && history.contains("\n2 "),
        "{history}"
    );
    node.kubectl(&["rollout", "undo", "deployment/nginx"])?;
    node.kubectl(&ROLLOUT)?;
    ensure!(node.kubectl(&image)? == "nginx:stable");
    node.kubectl(&["rollout", "restart", "deployment/nginx"])?;
    node.kubectl(&ROLLOUT)?;
    // An image that is nowhere: the rollout stands still, and what runs goes on running.
    node.kubectl(&[
        "set",
        "image",
        "deployment/nginx",
        "nginx=localhost:1/none:none",
    ])?;
    let reason = [
        "get",
        "pods",
        "-l",
        "app=nginx",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[0].state.waiting.reason}",
    ];
    node.wait_kubectl(&reason, MINUTE, |t| {
        t.contains("ErrImagePull") || t.contains("ImagePullBackOff")
    })?;
    let ready = node.kubectl(&[
        "get",
        "deploy",
        "nginx",
        "-o",
        "jsonpath={.status.availableReplicas}",
    ])?;
    ensure!(ready == "1", "{ready} replicas are available");
    node.kubectl(&["rollout", "undo", "deployment/nginx"])?;
    node.kubectl(&ROLLOUT)?;
    Ok(())
}

fn logs_and_exec(node: &Node) -> Result<()> {
    node.wait_kubectl(
        &["get", "pods", "-l", "app=nginx", "-o", "name"],
        MINUTE,
        |t| t.lines().count() == 1,
    )?;
    let mut follow = node
        .kubectl_command(&["logs", "-f", "deploy/nginx", "--tail=0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run kubectl logs")?;
    let lines = BufReader::new(follow.stdout.take().context("stdout was asked for")?);
    let node_port: SocketAddr = (host::ADDRESS, 31045).into();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        s.spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if line.contains("/followed") {
                    let _ = sender.send(());
                }
            }
        });
        let seen = wait::until("a followed log line", MINUTE, || {
            http_get(node_port, "/followed")?;
            receiver
                .recv_timeout(Duration::from_millis(500))
                .context("the line has not come yet")
        });
        follow.kill()?;
        follow.wait()?;
        seen
    })?;

    let out = node.kubectl_output(&[
        "exec",
        "deploy/nginx",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ])?;
    ensure!(out.status.code() == Some(7), "{out:?}");
    ensure!(
        out.stdout == b"out\n" && String::from_utf8_lossy(&out.stderr).contains("err"),
        "{out:?}"
    );
    // A terminal: script(1) gives kubectl one.
    let kubectl = node.kubectl_command(&[
        "exec",
        "-it",
        "deploy/nginx",
        "--",
        "sh",
        "-c",
        "test -t 0 && echo interactive",
    ]);
    let line: Vec<String> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|a| format!("'{}'", a.to_string_lossy()))
        .collect();
    let terminal = process::run("script", &["-qec", &line.join(" "), "/dev/null"])?;
    ensure!(terminal.contains("interactive\r\n"), "{terminal:?}");
    Ok(())
}

fn describing_and_explaining(node: &Node) -> Result<()> {
    let text = node.kubectl(&["describe", "deployment", "nginx"])?;
    ensure!(
        text.contains("StrategyType:") && text.contains("ScalingReplicaSet"),
        "{text}"
    );
    let text = node.kubectl(&["describe", "pods", "-l", "app=nginx"])?;
    ensure!(
        text.contains("Scheduled") && text.contains("Started"),
        "{text}"
    );
    let text = node.kubectl(&["describe", "node", "node-1"])?;
    ensure!(
        text.contains("Non-terminated Pods") && text.contains("KubeletReady"),
        "{text}"
    );
    let text = node.kubectl(&["explain", "deployment.spec.strategy.rollingUpdate"])?;
    ensure!(text.contains("maxSurge"), "{text}");
    node.kubectl(&["label", "deployment", "nginx", "tier=web"])?;
    let text = node.kubectl(&["get", "deploy", "-l", "tier=web", "-o", "name"])?;
    ensure!(text == "deployment.apps/nginx\n", "{text}");
    // What a second apply must not change, it does not.
    let text = node.kubectl(&["apply", "-f", SAMPLE])?;
    ensure!(text.matches("unchanged").count() == 3, "{text}");
    Ok(())
}

fn creating_and_deleting(node: &Node) -> Result<()> {
    node.kubectl(&["create", "namespace", "tour"])?;
    node.kubectl(&[
        "-n",
        "tour",
        "create",
        "deployment",
        "web",
        "--image=nginx:stable",
        "--replicas=2",
    ])?;
    node.kubectl(&[
        "-n",
        "tour",
        "rollout",
        "status",
        "deployment/web",
        "--timeout=90s",
    ])?;
    node.kubectl(&[
        "-n",
        "tour",
        "expose",
        "deployment",
        "web",
        "--port=8080",
        "--target-port=80",
    ])?;
    let ip = node.kubectl(&[
        "-n",
        "tour",
        "get",
        "svc",
        "web",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    let address: SocketAddr = format!("{ip}:8080").parse()?;
    wait::until("an answer through the exposed Service", MINUTE, || {
        http_get(address, "/").map(drop)
    })?;
    node.kubectl(&["-n", "tour", "delete", "deployment", "web"])?;
    node.wait_kubectl(
        &["-n", "tour", "get", "pods,rs", "-o", "name"],
        MINUTE,
        str::is_empty,
    )?;
    wait::until("a refusal without endpoints", MINUTE, || {
        match http_get(address, "/") {
            Ok(answer) => bail!("still answered: {answer}"),
            Err(e) => {
                let io = e
                    .downcast_ref::<std::io::Error>()
                    .context("not an I/O error")?;
                ensure!(io.kind() == std::io::ErrorKind::ConnectionRefused, "{e:#}");
                Ok(())
            }
        }
    })?;
    node.kubectl(&["delete", "namespace", "tour", "--timeout=60s"])?;
    ensure!(
        !node
            .kubectl_output(&["get", "namespace", "tour"])?
            .status
            .success()
    );
    Ok(())
}

#[test]
fn containers_survive_the_death_of_kontiki_and_down_leaves_nothing() -> Result<()> {
    let (host, mut node) = up()?;
    deploy_sample(&node)?;
    let started = [
        "get",
        "pods",
        "-l",
        "app=nginx",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[*].containerID} {.items[*].status.containerStatuses[*].restartCount}",
    ];
    let before = node.wait_kubectl(&started, MINUTE, |t| t.contains("containerd://"))?;
    let address: SocketAddr = (host::ADDRESS, 31045).into();

    node.kill()?;
    ensure!(
        http_get(address, "/")?.contains("Welcome to nginx!"),
        "Services work without any process of ours"
    );
    node.restart()?;
    ensure!(http_get(address, "/")?.contains("Welcome to nginx!"));
    let after = node.kubectl(&started)?;
    ensure!(before == after, "containers were touched: {before} {after}");
    // It acts again: a deleted pod is replaced.
    node.kubectl(&["delete", "pods", "-l", "app=nginx", "--timeout=60s"])?;
    node.kubectl(&ROLLOUT)?;

    // Down, twice in a row, with the process still there.
    node.kontiki(&["down", "--purge"])?;
    node.kontiki(&["down", "--purge"])?;
    let links = process::run("ip", &["-br", "link"])?;
    let names: Vec<&str> = links
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    ensure!(
        names.iter().all(|n| ["lo", "uplink"].contains(n)),
        "links are left: {links}"
    );
    let addresses = process::run("ip", &["-br", "-4", "addr"])?;
    ensure!(
        !addresses.contains("10.96."),
        "addresses are left: {addresses}"
    );
    let rules = process::run("nft", &["list", "tables"])?;
    ensure!(rules.trim().is_empty(), "rules are left: {rules}");
    let dir = node.path("").display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !mounts.contains(dir.trim_end_matches('/')),
        "mounts are left: {mounts}"
    );
    for process in std::fs::read_dir("/proc")? {
        let command = std::fs::read(process?.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        ensure!(
            !command.contains(dir.trim_end_matches('/')),
            "a process is left: {command}"
        );
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")? {
        let group = hierarchy?
            .path()
            .join(node.cgroup_root().trim_start_matches('/'));
        ensure!(!group.exists(), "{} is left", group.display());
    }
    for name in ["data", "config", "run", "pods"] {
        ensure!(!node.path(name).exists(), "{name} is left");
    }
    drop(node);
    drop(host);
    Ok(())
}
