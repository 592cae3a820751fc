//! The pod network against an API in memory: with a machine that is only data, and with real plugins in network namespaces.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_base::Tasks;
use kontiki_host::testing::Namespace;
use kontiki_host::{Links, Network, Sysctls};
use kontiki_network::cni::FILE_NAME;
use kontiki_network::{NetworkConfig, PodNetwork, Status, cleanup};
use kontiki_reconcile::fake::FakeApi;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

fn node(range: &str) -> Value {
    let spec = if range.is_empty() {
        json!({})
    } else {
        json!({"podCIDR": range})
    };
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": spec})
}

fn config(dir: &Path) -> NetworkConfig {
    NetworkConfig {
        cni_conf_dir: dir.join("net.d"),
        ipam_dir: dir.join("ipam"),
        ..NetworkConfig::new("n1")
    }
}

async fn ready(network: &PodNetwork) {
    let mut status = network.watch();
    let ready = status.wait_for(|s| matches!(s, Status::Ready(_)));
    let in_time = tokio::time::timeout(PATIENCE, ready).await.is_ok();
    assert!(in_time, "{:?}", network.status());
}

#[tokio::test]
async fn the_network_waits_for_its_range_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = NetworkConfig {
        cni_bin_dir: dir.path().join("bin"),
        ..config(dir.path())
    };
    std::fs::create_dir_all(&config.cni_bin_dir).expect("a directory");
    let (host, parts) = Network::fake();
    let api = FakeApi::default();
    api.put(known::nodes(), node(""));
    let tasks = Tasks::default();
    let network = PodNetwork::start(config.clone(), &api.api(), &host, &tasks);
    assert!(matches!(network.status(), Status::NotReady(r) if r.contains("no pod range yet")));

    api.put(known::nodes(), node("10.244.7.0/24"));
    let mut status = network.watch();
    let missing = status.wait_for(
        |s| matches!(s, Status::NotReady(r) if r.contains("containernetworking-plugins")),
    );
    tokio::time::timeout(PATIENCE, missing)
        .await
        .expect("in time")
        .expect("the loop runs");
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        std::fs::write(config.cni_bin_dir.join(plugin), "").expect("a file");
    }
    ready(&network).await;
    let file =
        std::fs::read_to_string(config.cni_conf_dir.join(FILE_NAME)).expect("it was written");
    assert!(file.contains("10.244.7.0/24"), "{file}");
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/bridge/bridge-nf-call-iptables", "1"),
        ("net/ipv4/conf/kontiki0/send_redirects", "0"),
    ] {
        assert_eq!(parts.sysctls.get(name).expect("there"), value, "{name}");
    }
    let table = parts
        .nft
        .table("ip", "kontiki-network")
        .expect("it was made");
    let want = "ip saddr 10.244.7.0/24 ip daddr != { 10.244.0.0/16, 10.96.0.0/12, 224.0.0.0/4 } \
                oifname != \"kontiki0\" masquerade fully-random";
    assert_eq!(table.chains["postrouting"], [want]);
    tasks.stop().await;

    for _ in 0..2 {
        cleanup(&config, &host).await.expect("works, also twice");
    }
    assert_eq!(parts.nft.table("ip", "kontiki-network"), None);
    assert_eq!(parts.links.link("kontiki0").await.expect("works"), None);
    assert_eq!(
        std::fs::read_dir(&config.cni_conf_dir)
            .expect("there")
            .count(),
        0
    );
}

/// Calls the plugins of the configuration for a pod, as the container runtime does.
fn plugins(config: &NetworkConfig, node: &Namespace, pod: &Namespace, command: &str) {
    let text =
        std::fs::read_to_string(config.cni_conf_dir.join(FILE_NAME)).expect("the configuration");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let mut previous: Option<Value> = None;
    let mut all = list["plugins"].as_array().expect("a list").clone();
    if command == "DEL" {
        all.reverse();
    }
    for mut plugin in all {
        plugin["cniVersion"] = list["cniVersion"].clone();
        plugin["name"] = list["name"].clone();
        if let Some(p) = &previous {
            plugin["prevResult"] = p.clone();
        }
        let program = config
            .cni_bin_dir
            .join(plugin["type"].as_str().expect("a name"));
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", node.path()))
            .arg(program)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod.name())
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &config.cni_bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(plugin.to_string().as_bytes())
            .expect("it reads");
        let out = child.wait_with_output().expect("it ends");
        let answer = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success(),
            "{command} {}: {answer}",
            plugin["type"]
        );
        if command == "ADD" {
            previous = serde_json::from_str(&answer).ok();
        }
    }
}

/// The address that a server sees when this namespace connects to it.
fn seen_from(from: &Namespace, to: &'static str, server: &Namespace) -> String {
    let listener = server.inside(|| TcpListener::bind("0.0.0.0:7000").expect("a free port"));
    let answering = server.thread(move || {
        let (mut stream, peer) = listener.accept().expect("accepts");
        stream
            .write_all(peer.ip().to_string().as_bytes())
            .expect("writes");
    });
    let text = from.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to.parse().expect("an address"), PATIENCE)
            .expect("connects");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reads");
        text
    });
    answering.join().expect("answered");
    text
}

#[test]
fn pods_reach_one_another_as_themselves_and_the_world_as_the_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let (node_ns, world) = (Namespace::new("node"), Namespace::new("world"));
    node_ns.ip(&format!(
        "link add out0 type veth peer name eth0 netns {}",
        world.name()
    ));
    node_ns.ip("addr add 192.0.2.1/24 dev out0");
    node_ns.ip("link set out0 up");
    world.ip("addr add 192.0.2.2/24 dev eth0");
    world.ip("link set eth0 up");
    node_ns.block_on(|| async {
        let api = FakeApi::default();
        api.put(known::nodes(), node("10.244.7.0/24"));
        let tasks = Tasks::default();
        let host = Network::system(&tasks).expect("a netlink socket");
        ready(&PodNetwork::start(
            config.clone(),
            &api.api(),
            &host,
            &tasks,
        ))
        .await;
        tasks.stop().await;
    });
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    plugins(&config, &node_ns, &a, "ADD");
    plugins(&config, &node_ns, &b, "ADD");
    assert_eq!(seen_from(&a, "10.244.7.3:7000", &b), "10.244.7.2");
    assert_eq!(seen_from(&a, "192.0.2.2:7000", &world), "192.0.2.1");
    assert_eq!(seen_from(&node_ns, "10.244.7.2:7000", &a), "10.244.7.1");
    plugins(&config, &node_ns, &a, "DEL");
    plugins(&config, &node_ns, &b, "DEL");

    node_ns.block_on(|| async {
        let tasks = Tasks::default();
        let host = Network::system(&tasks).expect("a netlink socket");
        cleanup(&config, &host).await.expect("works");
        tasks.stop().await;
    });
    let links = node_ns.ip("-br link");
    assert!(
        links
            .lines()
            .all(|l| l.starts_with("lo ") || l.starts_with("out0@")),
        "{links}"
    );
    assert!(!node_ns.nft("list ruleset").contains("kontiki"));
    assert!(!config.ipam_dir.join("kontiki").exists());
}
