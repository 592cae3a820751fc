//! The kubelet's node API on a real containerd: exec, attach, port-forward and logs, as the API server asks for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kontiki_base::{Metrics, Tasks};
use kontiki_kubelet::cri::{Runtime, v1 as cri};
use kontiki_kubelet::pod::Pod;
use kontiki_kubelet::server::{self, Pods};
use kontiki_kubelet::{Config, logs, sandbox};
use kontiki_node::{Containerd, ContainerdConfig, images, pause, teardown};
use kontiki_pki::{Ca, Identity, ca::Profile, tls};
use kontiki_tests::host::{ADDRESS, Host};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const WAIT_MAX: Duration = Duration::from_secs(60);
const NAME: &str = "node1";
const BUSYBOX: &str = "/bin/busybox";
/// Small, so that the test's container soon fills a file.
const LOG_BYTES_MAX: u64 = 4096;
const WEB_PORT: u16 = 8123;

/// An API that has nothing to say of the node's pods.
struct NoPods;

impl Pods for NoPods {
    fn list(&self) -> Option<Vec<Arc<Pod>>> {
        None
    }
}

/// A containerd with one pod, and the node API over it. What it made is removed when it is dropped.
struct Node {
    dir: tempfile::TempDir,
    containerd: ContainerdConfig,
    cgroup: String,
    executor: tokio::runtime::Runtime,
    tasks: Tasks,
    ca: Ca,
    admin: Identity,
    runtime: Runtime,
    port: u16,
    _host: Host,
}

impl Node {
    fn start() -> Result<Node> {
        let host = Host::enter()?;
        let executor = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let dir = tempfile::tempdir()?;
        let containerd = ContainerdConfig::below(&dir.path().join("data"), &dir.path().join("run"));
        let cgroup = format!("/{}", host.name());
        let ca = Ca::create("test")?;
        let admin = ca.issue(&Profile::client(
            "kube-apiserver-kubelet-client",
            "system:masters",
        ))?;
        let runtime = executor.block_on(async { Runtime::new(&containerd.socket) });
        let tasks = Tasks::default();
        let mut node = Node {
            dir,
            containerd,
            cgroup,
            executor,
            tasks,
            ca,
            admin,
            runtime,
            port: 0,
            _host: host,
        };
        node.port = node.executor.block_on(async {
            Containerd::start(node.containerd.clone(), &node.tasks).await?;
            images::ensure_pause(&node.containerd).await?;
            let identity =
                node.ca
                    .issue(&Profile::server(NAME, &[NAME.into()], &[ADDRESS.into()]))?;
            let tls = tls::server(&identity, node.ca.cert_pem(), &["http/1.1"])?;
            let mut config = Config::new(NAME, ADDRESS.into(), Arc::new(tls));
            config.listen = (ADDRESS, 0).into();
            config.root_dir = node.dir.path().to_owned();
            config.pod_logs_dir = node.dir.path().join("logs");
            config.log_bytes_max = LOG_BYTES_MAX;
            let address = server::serve(
                &config,
                &node.runtime,
                Arc::new(NoPods),
                &node.tasks,
                &Metrics::default(),
            )
            .await?;
            logs::start(&config, &node.runtime, Arc::new(NoPods), &node.tasks);
            Ok::<_, anyhow::Error>(address.port())
        })?;
        Ok(node)
    }

    /// Runs a pod in the test host's network, with a container that runs this script. Returns the container's id.
    async fn run_pod(&self, name: &str, script: &str) -> Result<String> {
        let labels = HashMap::from([
            (
                sandbox::POD_NAMESPACE_LABEL.to_owned(),
                "default".to_owned(),
            ),
            (sandbox::POD_NAME_LABEL.to_owned(), name.to_owned()),
            (sandbox::POD_UID_LABEL.to_owned(), "u1".to_owned()),
        ]);
        let namespaces = cri::NamespaceOption {
            network: cri::NamespaceMode::Node.into(),
            ..Default::default()
        };
        let security = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            ..Default::default()
        };
        let pod = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: "u1".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            log_directory: self
                .dir
                .path()
                .join(format!("logs/default_{name}_u1"))
                .to_string_lossy()
                .into_owned(),
            labels: labels.clone(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(security),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: String::new(),
        };
        let pod_sandbox_id = self.runtime.run_pod_sandbox(request).await?.pod_sandbox_id;
        let container_labels = labels
            .into_iter()
            .chain([(sandbox::CONTAINER_NAME_LABEL.to_owned(), "c".to_owned())]);
        // The machine's static busybox stands in the image that is there anyway.
        let busybox = cri::Mount {
            container_path: BUSYBOX.into(),
            host_path: BUSYBOX.into(),
            readonly: true,
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata {
                name: "c".into(),
                attempt: 0,
            }),
            image: Some(cri::ImageSpec {
                image: pause::IMAGE.into(),
                ..Default::default()
            }),
            command: [BUSYBOX, "sh", "-c", script].map(str::to_owned).into(),
            mounts: vec![busybox],
            labels: container_labels.collect(),
            log_path: "c/0.log".into(),
            linux: Some(cri::LinuxContainerConfig::default()),
            ..Default::default()
        };
        std::fs::create_dir_all(self.dir.path().join(format!("logs/default_{name}_u1/c")))?;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id,
            config: Some(config),
            sandbox_config: Some(pod),
        };
        let container_id = self.runtime.create_container(request).await?.container_id;
        self.runtime
            .start_container(cri::StartContainerRequest {
                container_id: container_id.clone(),
            })
            .await?;
        Ok(container_id)
    }

    async fn connect(&self, identity: Option<&Identity>) -> Result<TlsStream<TcpStream>> {
        let config = tls::client(self.ca.cert_pem(), identity, &["http/1.1"])?;
        let tcp = TcpStream::connect((ADDRESS, self.port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(connector
            .connect(std::net::IpAddr::from(ADDRESS).into(), tcp)
            .await?)
    }

    async fn request(&self, identity: Option<&Identity>, path: &str) -> Result<Response<Incoming>> {
        let io = TokioIo::new(self.connect(identity).await?);
        let (mut sender, conn) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(conn);
        let request = Request::get(path)
            .header("host", NAME)
            .body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }

    /// The code and body of an answer.
    async fn get(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.request(Some(&self.admin), path).await?;
        let code = answer.status().as_u16();
        Ok((
            code,
            String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?,
        ))
    }

    async fn websocket(
        &self,
        path: &str,
        protocols: &str,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>> {
        let mut request = format!("wss://{ADDRESS}:{}{path}", self.port).into_client_request()?;
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocols.parse()?);
        let io = self.connect(Some(&self.admin)).await?;
        let (ws, answer) = tokio_tungstenite::client_async(request, io).await?;
        let agreed = answer
            .headers()
            .get("sec-websocket-protocol")
            .and_then(|p| p.to_str().ok());
        ensure!(
            agreed == protocols.split(',').next(),
            "agreed upon {agreed:?}"
        );
        Ok(ws)
    }

    /// Runs a command by exec; sends the messages, then reads to the end.
    async fn exec(&self, flags: &str, command: &[&str], input: Vec<Vec<u8>>) -> Result<Ran> {
        let escaped = |c: &&str| c.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let command: String = command
            .iter()
            .map(|c| format!("&command={}", escaped(c)))
            .collect();
        let path = format!("/exec/default/web/c?{flags}{command}");
        let ws = self
            .websocket(&path, "v5.channel.k8s.io,v4.channel.k8s.io")
            .await?;
        let (mut to, from) = ws.split();
        let sending = async move {
            for message in input {
                to.send(Message::binary(message)).await?;
            }
            Ok::<_, anyhow::Error>(to)
        };
        let (sent, ran) = tokio::join!(sending, tokio::time::timeout(WAIT_MAX, read_to_end(from)));
        drop(sent?);
        ran.context("the command does not end")?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.executor.block_on(async {
            self.tasks.stop().await;
            teardown::remove_all(&self.containerd, false).await;
        });
        let groups = kontiki_host::cgroups::KernelCgroups::default();
        // Processes that were just killed may hold a group for a moment.
        let deadline = Instant::now() + WAIT_MAX;
        while kontiki_host::cgroups::Cgroups::remove(&groups, &self.cgroup).is_err()
            && Instant::now() < deadline
        {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// What a command said, and its status.
#[derive(Debug, Default)]
struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Value,
}

async fn read_to_end<S>(mut from: S) -> Result<Ran>
where
    S: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut ran = Ran::default();
    while let Some(message) = from.next().await {
        match message? {
            Message::Binary(b) => match b.split_first().context("a message has a channel")? {
                (1, data) => ran.stdout.extend_from_slice(data),
                (2, data) => ran.stderr.extend_from_slice(data),
                (3, data) if !data.is_empty() => ran.status = serde_json::from_slice(data)?,
                _ => {}
            },
            Message::Close(frame) => {
                let code = frame.map(|f| u16::from(f.code));
                ensure!(code == Some(1000), "closed with {code:?}");
                return Ok(ran);
            }
            _ => {}
        }
    }
    bail!("the connection ended without a closing frame: {ran:?}")
}

#[test]
fn the_node_api_serves_a_real_runtime() -> Result<()> {
    let node = Node::start()?;
    node.executor.block_on(async {
        let web =
            format!("echo good day > /dev/shm/greeting; {BUSYBOX} httpd -p {WEB_PORT} -h /dev/shm");
        let script = format!("{web}; exec {BUSYBOX} sleep 1000");
        let id = node.run_pod("web", &script).await?;
        let mut idle = node.connect(None).await?;
        only_the_api_server_is_let_in(&node).await?;
        commands_end_with_their_code(&node).await?;
        input_ends_where_the_client_says(&node).await?;
        a_terminal_has_a_size(&node).await?;
        ports_are_forwarded(&node).await?;
        usage_is_told(&node).await?;
        node.runtime.stop_container(id, 0).await?;
        let gone = node
            .exec("output=1", &["/bin/busybox", "true"], vec![])
            .await;
        ensure!(gone.is_err(), "a command ran in a container that has ended");
        logs_are_followed_over_rotation(&node).await?;
        // A client that has shown no certificate and says nothing is not kept.
        let ended = tokio::time::timeout(WAIT_MAX, idle.read(&mut [0; 1])).await?;
        ensure!(!matches!(ended, Ok(1..)), "{ended:?}");
        Ok(())
    })
}

async fn only_the_api_server_is_let_in(node: &Node) -> Result<()> {
    let other = node
        .ca
        .issue(&Profile::client("system:node:node2", "system:nodes"))?;
    let path = "/exec/default/web/c?output=1&command=x";
    let code = async |identity, path| {
        Ok::<_, anyhow::Error>(node.request(identity, path).await?.status().as_u16())
    };
    ensure!(code(None, "/healthz").await? == 200);
    for path in [
        path,
        "/pods",
        "/metrics",
        "/containerLogs/default/web/c",
        "/nothing",
    ] {
        ensure!(
            code(None, path).await? == 401,
            "{path} without a certificate"
        );
        ensure!(
            code(Some(&other), path).await? == 403,
            "{path} by another node"
        );
    }
    ensure!(node.get("/nothing").await?.0 == 404);
    ensure!(
        node.get("/exec/default/web/c?output=1&command=x").await?.0 == 400,
        "without an upgrade"
    );
    let (code, body) = node.get("/containerLogs/default/none/c").await?;
    ensure!(
        code == 404 && serde_json::from_str::<Value>(&body)?["kind"] == "Status",
        "{code} {body}"
    );
    Ok(())
}

async fn commands_end_with_their_code(node: &Node) -> Result<()> {
    let script = "echo to the out; echo to the err >&2; exit 3";
    let ran = node
        .exec("output=1&error=1", &[BUSYBOX, "sh", "-c", script], vec![])
        .await?;
    ensure!(
        ran.stdout == b"to the out\n" && ran.stderr == b"to the err\n",
        "{ran:?}"
    );
    ensure!(
        ran.status["status"] == "Failure" && ran.status["reason"] == "NonZeroExitCode",
        "{ran:?}"
    );
    let cause = &ran.status["details"]["causes"][0];
    ensure!(
        cause["reason"] == "ExitCode" && cause["message"] == "3",
        "{ran:?}"
    );
    let ran = node.exec("output=1", &[BUSYBOX, "true"], vec![]).await?;
    ensure!(ran.status["status"] == "Success", "{ran:?}");
    Ok(())
}

async fn input_ends_where_the_client_says(node: &Node) -> Result<()> {
    let blocks = (0..64_u8).map(|i| [&[0][..], &vec![i; 16 << 10]].concat());
    let sent: Vec<Vec<u8>> = blocks.chain([vec![255, 0]]).collect();
    let ran = node
        .exec("input=1&output=1", &[BUSYBOX, "cat"], sent)
        .await?;
    let want: Vec<u8> = (0..64_u8).flat_map(|i| vec![i; 16 << 10]).collect();
    ensure!(ran.stdout == want, "{} bytes came back", ran.stdout.len());
    ensure!(ran.status["status"] == "Success", "{:?}", ran.status);
    Ok(())
}

async fn a_terminal_has_a_size(node: &Node) -> Result<()> {
    let size = [&[4][..], br#"{"Width":132,"Height":43}"#].concat();
    // The size is set before the line is read, as both go the same way.
    let line = [&[0][..], b"go\n"].concat();
    let script = "read x; /bin/busybox stty size; /bin/busybox tty; exit 7";
    let ran = node
        .exec(
            "input=1&output=1&error=1&tty=1",
            &[BUSYBOX, "sh", "-c", script],
            vec![size, line],
        )
        .await?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    ensure!(
        said.contains("43 132") && said.contains("/dev/pts/"),
        "{said}"
    );
    ensure!(
        ran.status["details"]["causes"][0]["message"] == "7",
        "{ran:?}"
    );
    Ok(())
}

async fn ports_are_forwarded(node: &Node) -> Result<()> {
    let path = format!("/portForward/default/web?port={WEB_PORT}");
    let mut ws = node.websocket(&path, "v4.channel.k8s.io").await?;
    for channel in [0, 1] {
        let first = ws.next().await.context("it is told the port")??.into_data();
        ensure!(
            first[..] == [&[channel][..], &WEB_PORT.to_le_bytes()].concat(),
            "{first:?}"
        );
    }
    ws.send(Message::binary(
        [&[0][..], b"GET /greeting HTTP/1.0\r\n\r\n"].concat(),
    ))
    .await?;
    let mut answer = Vec::new();
    while let Some(Ok(Message::Binary(b))) = ws.next().await {
        ensure!(b[0] == 0, "{}", String::from_utf8_lossy(&b[1..]));
        answer.extend_from_slice(&b[1..]);
    }
    let answer = String::from_utf8(answer)?;
    ensure!(
        answer.starts_with("HTTP/1.") && answer.ends_with("good day\n"),
        "{answer}"
    );

    let mut ws = node
        .websocket("/portForward/default/web?port=1", "v4.channel.k8s.io")
        .await?;
    let mut refused = String::new();
    while let Some(Ok(Message::Binary(b))) = ws.next().await {
        if b[0] == 1 && b.len() > 3 {
            refused.push_str(&String::from_utf8_lossy(&b[1..]));
        }
    }
    ensure!(refused.contains("refused"), "{refused:?}");
    Ok(())
}

async fn usage_is_told(node: &Node) -> Result<()> {
    let (code, body) = node.get("/stats/summary").await?;
    let summary: Value = serde_json::from_str(&body)?;
    ensure!(
        code == 200 && summary["node"]["memory"]["workingSetBytes"].as_u64() > Some(0),
        "{body}"
    );
    let pod = &summary["pods"][0];
    ensure!(
        pod["podRef"] == json!({"name": "web", "namespace": "default", "uid": "u1"}),
        "{body}"
    );
    ensure!(
        pod["containers"][0]["name"] == "c"
            && pod["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0),
        "{body}"
    );
    let (_, metrics) = node.get("/metrics/resource").await?;
    ensure!(
        metrics.contains(
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"web\"}"
        ),
        "{metrics}"
    );
    let (_, running) = node.get("/runningpods/").await?;
    ensure!(
        serde_json::from_str::<Value>(&running)?["items"][0]["metadata"]["name"] == "web",
        "{running}"
    );
    Ok(())
}

async fn logs_are_followed_over_rotation(node: &Node) -> Result<()> {
    let script = "i=0; while true; do echo line $i; i=$((i+1)); /bin/busybox usleep 20000; done";
    let id = node.run_pod("talker", script).await?;
    let mut attached = node
        .websocket("/attach/default/talker/c?output=1", "v5.channel.k8s.io")
        .await?;
    let mut said = String::new();
    while said.lines().count() < 3 {
        let message = tokio::time::timeout(WAIT_MAX, attached.next())
            .await?
            .context("attached")??;
        let Message::Binary(b) = message else {
            continue;
        };
        said.push_str(std::str::from_utf8(&b[1..])?);
    }
    ensure!(said.starts_with("line "), "{said}");
    drop(attached);
    let path = "/containerLogs/default/talker/c";
    let mut following = node
        .request(Some(&node.admin), &format!("{path}?follow=true"))
        .await?
        .into_body();
    let dir = node.dir.path().join("logs/default_talker_u1/c");
    let rotated = || {
        std::fs::read_dir(&dir).map(|d| {
            d.flatten()
                .any(|f| f.file_name().to_string_lossy().starts_with("0.log."))
        })
    };
    let (mut text, mut stopped) = (String::new(), false);
    let mut rotated_at_line = None;
    let deadline = Instant::now() + WAIT_MAX;
    // The body ends with the container, some time after the log was begun anew.
    while let Some(frame) = tokio::time::timeout(WAIT_MAX, following.frame())
        .await
        .context("the log stands still")?
    {
        if let Some(data) = frame?.data_ref() {
            text.push_str(std::str::from_utf8(data)?);
        }
        ensure!(Instant::now() < deadline, "the log was not rotated");
        let lines = text.lines().count();
        if rotated_at_line.is_none() && rotated()? {
            rotated_at_line = Some(lines);
        }
        // Some lines more, so that the end is in the new file: what is read afterwards is that file alone.
        if !stopped && rotated_at_line.is_some_and(|at| lines > at + 10) {
            node.runtime.stop_container(id.clone(), 0).await?;
            stopped = true;
        }
    }
    ensure!(stopped, "the log ended before its container");
    let lines = text.lines().count();
    ensure!(lines > 100, "{lines} lines");
    for (i, line) in text.lines().enumerate() {
        ensure!(line == format!("line {i}"), "line {i} is {line:?}");
    }
    let (_, tail) = node
        .get(&format!("{path}?tailLines=2&timestamps=true"))
        .await?;
    let last: Vec<&str> = tail.lines().collect();
    ensure!(
        last.len() == 2 && last[1].ends_with(&format!("Z line {}", lines - 1)),
        "{tail}"
    );
    let (_, limited) = node
        .get(&format!("{path}?tailLines=1&limitBytes=4"))
        .await?;
    ensure!(limited == "line", "{limited}");
    Ok(())
}
