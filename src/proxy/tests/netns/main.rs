//! The proxy with its real backend, in network namespaces: what clients see, and that nothing leaves the node.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kontiki_api::catalogue::known;
use kontiki_base::{Metrics, Tasks};
use kontiki_host::Network;
use kontiki_proxy::{LocalVip, Protocol, Proxy, ProxyConfig, cleanup};
use kontiki_reconcile::fake::FakeApi;
use serde_json::{Value, json};

mod support;

use support::{
    IMPATIENCE, Machine, NODE_IP, PATIENCE, WORLD_IP, eventually, pod_ip, say, serve, tcp, udp,
    udp_from,
};

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn config() -> ProxyConfig {
    let vip = |protocol| LocalVip {
        ip: DNS,
        protocol,
        port: 53,
    };
    ProxyConfig {
        local_vips: vec![vip(Protocol::Udp), vip(Protocol::Tcp)],
        ..ProxyConfig::new("n1", NODE_IP)
    }
}

/// A proxy that runs on a thread in the node's namespace.
struct Running {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Starts a proxy and waits until the services of the API are programmed.
    fn start(machine: &Machine, api: &FakeApi) -> Running {
        Running::start_with(machine, api, config())
    }

    fn start_with(machine: &Machine, api: &FakeApi, config: ProxyConfig) -> Running {
        let (stop, stopped) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let api = api.api();
        let thread = machine.node.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let tasks = Tasks::default();
                let host = Network::system(&tasks).expect("a netlink socket");
                let proxy = Proxy::start(config, &api, &host, &tasks, &Metrics::default())
                    .await
                    .expect("it starts");
                tokio::time::timeout(PATIENCE, proxy.synced())
                    .await
                    .expect("in time");
                ready.send(()).expect("the test waits");
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tasks.stop().await;
                assert_eq!(tasks.failed(), None);
            });
        });
        is_ready
            .recv_timeout(PATIENCE * 2)
            .expect("the proxy starts");
        Running { stop, thread }
    }

    /// Ends the proxy; what it programmed stays.
    fn stop(self) {
        drop(self.stop);
        self.thread.join().expect("it ends well");
    }
}

/// A service with a TCP and a UDP port, and what the defaults of the API add to it.
fn service_object(name: &str, ip: &str, more: &Value) -> Value {
    let mut spec = json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ports": [{"name": "t", "protocol": "TCP", "port": 80}, {"name": "u", "protocol": "UDP", "port": 80}]});
    for (k, v) in more.as_object().expect("fields") {
        spec[k] = v.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn service(api: &FakeApi, name: &str, ip: &str, more: &Value) {
    api.put(known::services(), service_object(name, ip, more));
}

fn slice(api: &FakeApi, service: &str, pods: &[usize]) {
    let ips: Vec<(String, &str)> = pods
        .iter()
        .map(|i| (pod_ip(*i).to_string(), "n1"))
        .collect();
    slice_of(api, service, &ips);
}

fn slice_of(api: &FakeApi, service: &str, endpoints: &[(String, &str)]) {
    let list: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
        .collect();
    api.put(known::endpointslices(), json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": list,
        "ports": [{"name": "t", "protocol": "TCP", "port": 8080}, {"name": "u", "protocol": "UDP", "port": 8080}]}));
}

/// A machine whose two pods serve.
fn machine() -> (Machine, FakeApi) {
    let m = Machine::new();
    serve(&m.pods[0], "a", Ipv4Addr::UNSPECIFIED, 8080);
    serve(&m.pods[1], "b", Ipv4Addr::UNSPECIFIED, 8080);
    (m, FakeApi::default())
}

/// Whether the client was told at once. A sender over UDP on the node itself hears it from the system call that sends.
fn refused(result: std::io::Result<String>) -> bool {
    matches!(result, Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied))
}

/// Who answered, out of many tries, and which clients they saw.
fn answers(
    mut ask: impl FnMut() -> std::io::Result<String>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut servers, mut clients) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..16 {
        let line = ask().expect("an answer");
        let (server, client) = line.split_once(' ').expect("two words");
        servers.insert(server.to_owned());
        clients.insert(client.to_owned());
    }
    (servers, clients)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

#[test]
fn a_cluster_address_leads_to_all_pods_from_pods_and_from_the_node() {
    let (m, api) = machine();
    service(&api, "s", "10.96.0.20", &json!({}));
    slice(&api, "s", &[0, 1]);
    let proxy = Running::start(&m, &api);
    let (servers, clients) = answers(|| tcp(&m.node, "10.96.0.20:80", PATIENCE));
    assert_eq!(servers, names(&["a", "b"]));
    assert_eq!(clients, names(&["10.244.0.1"]), "the address of the bridge");
    let (servers, clients) = answers(|| udp(&m.node, "10.96.0.20:80", PATIENCE));
    assert_eq!(
        (servers, clients),
        (names(&["a", "b"]), names(&["10.244.0.1"]))
    );
    // From a pod: its own address is seen, but by itself, which would answer itself past the proxy.
    for ask in [
        |m: &Machine| tcp(&m.pods[0], "10.96.0.20:80", PATIENCE),
        |m: &Machine| udp(&m.pods[0], "10.96.0.20:80", PATIENCE),
    ] {
        let mut seen = BTreeSet::new();
        for _ in 0..16 {
            seen.insert(ask(&m).expect("an answer"));
        }
        assert_eq!(seen, names(&["a 10.244.0.1", "b 10.244.0.5"]));
    }
    proxy.stop();
}

#[test]
fn changes_are_seen_soon_and_removed_services_refuse() {
    let (m, api) = machine();
    let proxy = Running::start(&m, &api);
    service(&api, "s", "10.96.0.20", &json!({}));
    slice(&api, "s", &[0]);
    let start = Instant::now();
    eventually("the new service answers", || {
        tcp(&m.node, "10.96.0.20:80", PATIENCE).is_ok_and(|l| l.starts_with('a'))
    });
    eprintln!("from the change to an answer: {:?}", start.elapsed());
    slice(&api, "s", &[1]);
    eventually("the new endpoint answers", || {
        tcp(&m.node, "10.96.0.20:80", PATIENCE).is_ok_and(|l| l.starts_with('b'))
    });
    api.remove(known::services(), "default", "s");
    eventually("the service is gone", || {
        refused(tcp(&m.node, "10.96.0.20:80", PATIENCE))
    });
    let listing = m.node.nft("list table ip kontiki-proxy");
    assert!(!listing.contains("default/s"), "{listing}");
    proxy.stop();
}

#[test]
fn what_has_no_endpoint_or_is_no_service_is_refused_and_never_leaves() {
    let (m, api) = machine();
    // The counter counts: before there is a proxy, such packets do leave.
    udp(&m.pods[0], "10.96.77.1:9", IMPATIENCE).expect_err("nobody answers");
    udp(&m.node, "10.96.77.2:9", IMPATIENCE).expect_err("nobody answers");
    assert_eq!(m.leaked(), 2);

    service(
        &api,
        "s",
        "10.96.0.20",
        &json!({"type": "NodePort", "externalIPs": ["198.51.100.9"], "ports": [
        {"name": "t", "protocol": "TCP", "port": 80, "nodePort": 30080},
        {"name": "u", "protocol": "UDP", "port": 80, "nodePort": 30080}]}),
    );
    let proxy = Running::start(&m, &api);
    let all_refused = || {
        for to in [
            "10.96.0.20:80",
            "10.96.0.20:81",
            "10.96.77.1:9",
            "10.111.255.255:443",
        ] {
            for from in [&m.node, &m.pods[0]] {
                assert!(refused(tcp(from, to, PATIENCE)), "TCP to {to}");
                assert!(refused(udp(from, to, PATIENCE)), "UDP to {to}");
            }
        }
    };
    all_refused();
    for to in ["192.0.2.1:30080", "198.51.100.9:80"] {
        assert!(refused(tcp(&m.pods[0], to, PATIENCE)), "TCP to {to}");
        assert!(refused(udp(&m.pods[0], to, PATIENCE)), "UDP to {to}");
    }
    assert!(refused(tcp(&m.world, "192.0.2.1:30080", PATIENCE)));
    assert_eq!(m.leaked(), 2);

    // The same with the proxy dead, and after all services are gone.
    proxy.stop();
    all_refused();
    api.remove(known::services(), "default", "s");
    let proxy = Running::start(&m, &api);
    all_refused();
    assert_eq!(m.leaked(), 2);
    proxy.stop();
}

#[test]
fn a_node_port_hides_the_client_unless_told_to_stay_on_the_node() {
    let (m, api) = machine();
    let ports = json!([{"name": "t", "protocol": "TCP", "port": 80, "nodePort": 30080},
                       {"name": "u", "protocol": "UDP", "port": 80, "nodePort": 30080}]);
    service(
        &api,
        "s",
        "10.96.0.20",
        &json!({"type": "NodePort", "ports": ports}),
    );
    slice(&api, "s", &[0, 1]);
    let proxy = Running::start(&m, &api);
    let (servers, clients) = answers(|| tcp(&m.world, "192.0.2.1:30080", PATIENCE));
    assert_eq!(
        (servers, clients),
        (names(&["a", "b"]), names(&["10.244.0.1"]))
    );
    assert_eq!(
        answers(|| udp(&m.world, "192.0.2.1:30080", PATIENCE)).0,
        names(&["a", "b"])
    );
    assert_eq!(
        answers(|| tcp(&m.node, "192.0.2.1:30080", PATIENCE)).0,
        names(&["a", "b"])
    );
    assert_eq!(
        answers(|| tcp(&m.pods[0], "10.244.0.1:30080", PATIENCE)).0,
        names(&["a", "b"])
    );
    // A node port is on the node's addresses, and not on those of services.
    assert!(refused(tcp(&m.node, "10.96.0.20:30080", PATIENCE)));
    assert!(refused(tcp(&m.pods[0], "10.96.0.10:30080", PATIENCE)));

    let local = json!({"type": "NodePort", "ports": ports, "externalTrafficPolicy": "Local"});
    service(&api, "s", "10.96.0.20", &local);
    slice_of(
        &api,
        "s",
        &[(pod_ip(0).to_string(), "n1"), (pod_ip(1).to_string(), "n2")],
    );
    let world = WORLD_IP.to_string();
    eventually("the policy is followed", || {
        tcp(&m.world, "192.0.2.1:30080", PATIENCE).is_ok_and(|l| l == format!("a {world}"))
    });
    assert_eq!(
        answers(|| tcp(&m.world, "192.0.2.1:30080", PATIENCE)),
        (names(&["a"]), names(&[&world]))
    );
    assert_eq!(
        answers(|| tcp(&m.node, "192.0.2.1:30080", PATIENCE)).0,
        names(&["a", "b"]),
        "not for those inside"
    );
    assert_eq!(
        answers(|| tcp(&m.pods[0], "192.0.2.1:30080", PATIENCE)).0,
        names(&["a", "b"])
    );

    slice_of(&api, "s", &[(pod_ip(1).to_string(), "n2")]);
    eventually("the local endpoint is gone", || {
        tcp(&m.world, "192.0.2.1:30080", IMPATIENCE).is_err()
    });
    let e = tcp(&m.world, "192.0.2.1:30080", IMPATIENCE).expect_err("this node is the wrong one");
    assert_eq!(
        e.kind(),
        ErrorKind::TimedOut,
        "dropped, not refused: a balancer goes on elsewhere"
    );
    assert_eq!(
        answers(|| tcp(&m.pods[0], "192.0.2.1:30080", PATIENCE)).0,
        names(&["b"])
    );
    proxy.stop();
}

#[test]
fn external_addresses_are_taken_on_their_way_and_limited_to_whom_they_are_for() {
    let (m, api) = machine();
    m.world.ip("route add 198.51.100.0/24 via 192.0.2.1");
    service(
        &api,
        "ext",
        "10.96.0.20",
        &json!({"externalIPs": ["198.51.100.1"]}),
    );
    slice(&api, "ext", &[0]);
    let balanced = |range: &str, ip: &str| {
        let mut s = service_object(
            "lb",
            ip,
            &json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [range]}),
        );
        s["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}]}});
        api.put(known::services(), s);
    };
    balanced("192.0.2.0/24", "10.96.0.21");
    slice(&api, "lb", &[1]);
    let proxy = Running::start(&m, &api);
    assert_eq!(
        tcp(&m.world, "198.51.100.1:80", PATIENCE).expect("an answer"),
        "a 10.244.0.1"
    );
    assert_eq!(
        udp(&m.world, "198.51.100.2:80", PATIENCE).expect("an answer"),
        "b 10.244.0.1"
    );
    assert_eq!(
        tcp(&m.pods[0], "198.51.100.2:80", IMPATIENCE)
            .expect_err("it is not for pods")
            .kind(),
        ErrorKind::TimedOut
    );
    balanced("203.0.113.0/24", "10.96.0.21");
    eventually("the world is kept out", || {
        tcp(&m.world, "198.51.100.2:80", IMPATIENCE).is_err()
    });
    assert!(tcp(&m.world, "198.51.100.1:80", PATIENCE).is_ok());
    proxy.stop();
}

#[test]
fn an_endpoint_can_be_the_node_itself_as_that_of_the_api_is() {
    let (m, api) = machine();
    serve(&m.node, "host", NODE_IP, 8080);
    service(&api, "kubernetes", "10.96.0.1", &json!({}));
    slice_of(&api, "kubernetes", &[(NODE_IP.to_string(), "n1")]);
    let proxy = Running::start(&m, &api);
    for ask in [tcp, udp] {
        assert_eq!(
            ask(&m.pods[0], "10.96.0.1:80", PATIENCE).expect("an answer"),
            "host 10.244.0.5"
        );
        assert!(ask(&m.node, "10.96.0.1:80", PATIENCE).is_ok());
    }
    proxy.stop();
}

#[test]
fn a_client_stays_with_its_endpoint() {
    let (m, api) = machine();
    let sticky = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    service(&api, "s", "10.96.0.20", &sticky);
    slice(&api, "s", &[0, 1]);
    let proxy = Running::start(&m, &api);
    let (first, _) = answers(|| tcp(&m.node, "10.96.0.20:80", PATIENCE));
    assert_eq!(first.len(), 1, "{first:?}");
    let other: usize = if first.contains("a") { 1 } else { 0 };
    // The one endpoint goes and comes back: the client now stays with the other.
    slice(&api, "s", &[other]);
    eventually("the other answers", || {
        tcp(&m.node, "10.96.0.20:80", PATIENCE).is_ok_and(|l| !first.contains(&l[..1]))
    });
    slice(&api, "s", &[0, 1]);
    eventually("both are programmed", || {
        m.node.nft("list table ip kontiki-proxy").contains("mod 2")
    });
    let (second, _) = answers(|| tcp(&m.node, "10.96.0.20:80", PATIENCE));
    assert_eq!((second.len(), second.is_disjoint(&first)), (1, true));
    // And through a restart of the proxy, which programs everything anew.
    proxy.stop();
    let proxy = Running::start(&m, &api);
    assert_eq!(
        answers(|| tcp(&m.node, "10.96.0.20:80", PATIENCE)).0,
        second
    );
    proxy.stop();
}

#[test]
fn a_service_address_of_the_node_is_answered_there_and_nothing_else_on_it() {
    let (m, api) = machine();
    service(
        &api,
        "dns",
        "10.96.0.10",
        &json!({"ports": [{"name": "t", "protocol": "TCP", "port": 53},
        {"name": "u", "protocol": "UDP", "port": 53}, {"name": "m", "protocol": "TCP", "port": 9153}]}),
    );
    let proxy = Running::start(&m, &api);
    serve(&m.node, "dns", DNS, 53);
    serve(&m.node, "host", Ipv4Addr::UNSPECIFIED, 22);
    for from in [&m.node, &m.pods[0]] {
        assert!(
            udp(from, "10.96.0.10:53", PATIENCE)
                .expect("an answer")
                .starts_with("dns")
        );
        assert!(
            tcp(from, "10.96.0.10:53", PATIENCE)
                .expect("an answer")
                .starts_with("dns")
        );
        for port in [22, 9153] {
            assert!(
                refused(tcp(from, &format!("10.96.0.10:{port}"), PATIENCE)),
                "port {port}"
            );
        }
    }
    assert_eq!(
        udp(&m.pods[0], "10.96.0.10:53", PATIENCE).expect("an answer"),
        "dns 10.244.0.5"
    );
    assert!(
        tcp(&m.pods[0], "10.244.0.1:22", PATIENCE).is_ok(),
        "the host's port is there on the host's address"
    );
    proxy.stop();
}

#[test]
fn connections_live_through_a_restart_and_other_changes() {
    let (m, api) = machine();
    service(&api, "s", "10.96.0.20", &json!({}));
    slice(&api, "s", &[0]);
    let proxy = Running::start(&m, &api);
    let to: SocketAddr = "10.96.0.20:80".parse().expect("an address");
    let mut stream =
        m.pods[1].inside(|| TcpStream::connect_timeout(&to, PATIENCE).expect("connects"));
    assert_eq!(
        say(&mut stream, PATIENCE).expect("an answer"),
        "a 10.244.0.6"
    );
    proxy.stop();
    assert!(say(&mut stream, PATIENCE).is_ok(), "the proxy is dead");
    assert!(
        tcp(&m.node, "10.96.0.20:80", PATIENCE).is_ok(),
        "new connections work as well"
    );
    let proxy = Running::start(&m, &api);
    assert!(say(&mut stream, PATIENCE).is_ok(), "a new proxy took over");
    slice(&api, "s", &[1]);
    eventually("new connections go elsewhere", || {
        tcp(&m.node, "10.96.0.20:80", PATIENCE).is_ok_and(|l| l.starts_with('b'))
    });
    assert!(
        say(&mut stream, PATIENCE).is_ok(),
        "the old connection stays with its endpoint, which still answers"
    );
    proxy.stop();
}

#[test]
fn a_udp_client_that_keeps_its_port_is_led_to_the_new_endpoint() {
    let (m, api) = machine();
    service(&api, "s", "10.96.0.20", &json!({}));
    slice(&api, "s", &[0]);
    let proxy = Running::start(&m, &api);
    let to: SocketAddr = "10.96.0.20:80".parse().expect("an address");
    let socket = m
        .node
        .inside(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    let ask = || udp_from(&socket, to, IMPATIENCE);
    assert!(ask().expect("an answer").starts_with('a'));
    slice(&api, "s", &[1]);
    eventually("the same socket hears the new endpoint", || {
        ask().is_ok_and(|l| l.starts_with('b'))
    });
    proxy.stop();
}

#[test]
fn a_udp_client_is_led_to_the_endpoint_that_came_while_there_was_no_proxy() {
    let (m, api) = machine();
    service(&api, "s", "10.96.0.20", &json!({}));
    slice(&api, "s", &[0]);
    let proxy = Running::start(&m, &api);
    let to: SocketAddr = "10.96.0.20:80".parse().expect("an address");
    let socket = m
        .node
        .inside(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    let ask = || udp_from(&socket, to, IMPATIENCE);
    assert!(ask().expect("an answer").starts_with('a'));
    proxy.stop();
    slice(&api, "s", &[1]);
    assert!(
        ask().expect("an answer").starts_with('a'),
        "what is programmed stays"
    );
    let proxy = Running::start(&m, &api);
    eventually("the same socket hears the new endpoint", || {
        ask().is_ok_and(|l| l.starts_with('b'))
    });
    proxy.stop();
}

#[test]
fn cleanup_leaves_nothing_and_can_be_done_twice() {
    let (m, api) = machine();
    let links = m.node.ip("-br link");
    service(
        &api,
        "s",
        "10.96.0.20",
        &json!({"sessionAffinity": "ClientIP"}),
    );
    slice(&api, "s", &[0, 1]);
    Running::start(&m, &api).stop();
    assert!(m.node.nft("list ruleset").contains("default/s"));
    m.node.block_on(|| async {
        let tasks = Tasks::default();
        let host = Network::system(&tasks).expect("a netlink socket");
        for _ in 0..2 {
            cleanup(&host).await.expect("works");
        }
        tasks.stop().await;
    });
    assert_eq!(m.node.nft("list ruleset"), "");
    assert_eq!(m.node.ip("-br link"), links);
    assert!(!m.node.ip("route").contains("10.96."));
}

#[test]
fn a_thousand_services_are_programmed_and_one_is_changed() {
    let (m, api) = machine();
    for i in 0..1000 {
        let name = format!("s{i}");
        service(
            &api,
            &name,
            &format!("10.97.{}.{}", i / 250, i % 250 + 1),
            &json!({}),
        );
        slice(&api, &name, &[0, 1]);
    }
    let start = Instant::now();
    let proxy = Running::start(&m, &api);
    let all = start.elapsed();
    let start = Instant::now();
    slice(&api, "s999", &[1]);
    eventually("the change is programmed", || {
        let map = m
            .node
            .nft("list chain ip kontiki-proxy svc-default/s999/tcp/80");
        map.contains("dnat to 10.244.0.6:8080")
    });
    eprintln!("all: {all:?}, one change: {:?}", start.elapsed());
    assert!(tcp(&m.node, "10.97.3.250:80", PATIENCE).is_ok_and(|l| l.starts_with('b')));
    proxy.stop();
    let start = Instant::now();
    Running::start(&m, &api).stop();
    eprintln!("all again over what was there: {:?}", start.elapsed());
}
