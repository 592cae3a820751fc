//! The server against a cluster that is only data, and resolvers on loopback.

use hickory_proto::op::{Edns, MessageType, OpCode, Query};
use hickory_proto::rr::{Record, RecordType};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::views::{EndpointSlice, Namespace, Service};

fn service(v: serde_json::Value) -> Service {
    serde_json::from_value(v).expect("a service")
}

fn slice(v: serde_json::Value) -> EndpointSlice {
    serde_json::from_value(v).expect("a slice")
}

/// A namespace with a service, a headless one with two endpoints (one of them not ready besides), and two aliases.
fn cluster() -> Cluster {
    let c = Cluster::default();
    for ns in ["default", "kube-system"] {
        let o = json!({"metadata": {"name": ns}});
        c.namespaces
            .insert(serde_json::from_value::<Namespace>(o).expect("a namespace"));
    }
    c.services.insert(service(json!({
        "metadata": {"name": "nginx", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.5.5", "clusterIPs": ["10.96.5.5"],
                 "ports": [{"name": "http", "protocol": "TCP", "port": 80}, {"port": 443}]}})));
    c.services.insert(service(json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}})));
    c.services.insert(service(json!({
        "metadata": {"name": "empty", "namespace": "default"},
        "spec": {"clusterIP": "None"}})));
    c.services.insert(service(json!({
        "metadata": {"name": "away", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.test"}})));
    c.services.insert(service(json!({
        "metadata": {"name": "alias", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "nginx.default.svc.cluster.local"}})));
    c.services.insert(service(json!({
        "metadata": {"name": "circle", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "circle.default.svc.cluster.local"}})));
    c.slices.insert(slice(json!({
        "metadata": {"name": "db-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "protocol": "TCP", "port": 5432}],
        "endpoints": [
            {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.0.6"], "conditions": {}},
            {"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]})));
    c
}

fn zone() -> Zone {
    Zone {
        domain: Name::from_ascii("cluster.local.").expect("valid"),
        ttl_seconds: 30,
        servers: vec![IpAddr::from([10, 96, 0, 10])],
        ranges: vec![
            "10.96.0.0/12".parse().expect("valid"),
            "10.244.0.0/16".parse().expect("valid"),
        ],
    }
}

fn ask(name: &str, kind: RecordType) -> Answer {
    let name = Name::from_ascii(name).expect("valid");
    match zone().answer(&cluster(), &name, kind) {
        Verdict::Ours(a) => a,
        Verdict::NotOurs => panic!("{name} is ours"),
    }
}

fn data(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| format!("{} {}", r.name, r.data))
        .collect()
}

/// There is such a name, but nothing of this type: no records, and the SOA says for how long.
fn assert_no_data(name: &str, kind: RecordType) {
    let a = ask(name, kind);
    assert_eq!(
        (a.code, a.answers.len()),
        (ResponseCode::NoError, 0),
        "{name}: {a:?}"
    );
    assert_eq!(a.authorities[0].record_type(), RecordType::SOA);
}

fn assert_nothing(name: &str, kind: RecordType) {
    let a = ask(name, kind);
    assert_eq!(
        (a.code, a.answers.len()),
        (ResponseCode::NXDomain, 0),
        "{name}: {a:?}"
    );
    assert_eq!(
        (a.authorities[0].record_type(), a.authorities[0].ttl),
        (RecordType::SOA, 5)
    );
}

#[test]
fn a_service_has_an_address_and_other_types_are_empty() {
    let a = ask("nginx.default.svc.cluster.local.", RecordType::A);
    assert_eq!(
        data(&a.answers),
        ["nginx.default.svc.cluster.local. 10.96.5.5"]
    );
    assert_eq!(a.answers[0].ttl, 30);
    assert_eq!(
        ask("NGINX.Default.SVC.Cluster.Local.", RecordType::A)
            .answers
            .len(),
        1
    );
    assert_no_data("nginx.default.svc.cluster.local.", RecordType::AAAA);
    assert_no_data("nginx.default.svc.cluster.local.", RecordType::MX);
}

#[test]
fn names_of_a_search_path_are_refused_fast_and_parents_exist() {
    for name in [
        "nginx.default.svc.default.svc.cluster.local.",
        "nginx.default.svc.svc.cluster.local.",
        "example.com.default.svc.cluster.local.",
        "none.default.svc.cluster.local.",
        "nginx.nowhere.svc.cluster.local.",
        "nowhere.svc.cluster.local.",
        "x.cluster.local.",
    ] {
        assert_nothing(name, RecordType::A);
    }
    for name in [
        "default.svc.cluster.local.",
        "svc.cluster.local.",
        "cluster.local.",
        "default.pod.cluster.local.",
    ] {
        assert_no_data(name, RecordType::A);
    }
    assert_eq!(ask("cluster.local.", RecordType::SOA).answers.len(), 1);
    assert_eq!(
        data(&ask("ns.dns.cluster.local.", RecordType::A).answers),
        ["ns.dns.cluster.local. 10.96.0.10"]
    );
}

#[test]
fn a_headless_service_leads_to_its_ready_endpoints() {
    let a = ask("db.default.svc.cluster.local.", RecordType::A);
    let own = "db.default.svc.cluster.local.";
    assert_eq!(
        data(&a.answers),
        [format!("{own} 10.244.0.6"), format!("{own} 10.244.0.5")]
    );
    assert_eq!(
        data(&ask("db-0.db.default.svc.cluster.local.", RecordType::A).answers),
        [format!("db-0.{own} 10.244.0.5")]
    );
    assert_eq!(
        ask("10-244-0-6.db.default.svc.cluster.local.", RecordType::A)
            .answers
            .len(),
        1
    );
    assert_nothing("10-244-0-7.db.default.svc.cluster.local.", RecordType::A);
    assert_no_data("empty.default.svc.cluster.local.", RecordType::A);
}

#[test]
fn ports_are_srv_records_with_the_addresses_beside_them() {
    let a = ask(
        "_http._tcp.nginx.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert_eq!(
        data(&a.answers),
        ["_http._tcp.nginx.default.svc.cluster.local. 0 100 80 nginx.default.svc.cluster.local."]
    );
    assert_eq!(
        data(&a.additionals),
        ["nginx.default.svc.cluster.local. 10.96.5.5"]
    );
    let a = ask("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV);
    let targets: Vec<String> = data(&a.answers)
        .iter()
        .map(|d| d.rsplit(' ').next().expect("a word").to_owned())
        .collect();
    let own = "db.default.svc.cluster.local.";
    assert_eq!(
        targets,
        [format!("10-244-0-6.{own}"), format!("db-0.{own}")]
    );
    assert_eq!(a.additionals.len(), 2);
    assert_nothing(
        "_none._tcp.nginx.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert_nothing(
        "_http._udp.nginx.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert_no_data("_tcp.nginx.default.svc.cluster.local.", RecordType::SRV);
}

#[test]
fn aliases_are_followed_within_the_cluster_and_left_to_others_outside() {
    let a = ask("alias.default.svc.cluster.local.", RecordType::A);
    let own = "alias.default.svc.cluster.local. nginx.default.svc.cluster.local.";
    assert_eq!(
        data(&a.answers),
        [own, "nginx.default.svc.cluster.local. 10.96.5.5"]
    );
    let a = ask("away.default.svc.cluster.local.", RecordType::A);
    assert_eq!(
        a.chase,
        Some(Name::from_ascii("example.test.").expect("valid"))
    );
    assert_eq!(
        ask("away.default.svc.cluster.local.", RecordType::CNAME).chase,
        None
    );
    assert_eq!(
        ask("circle.default.svc.cluster.local.", RecordType::A)
            .answers
            .len(),
        1,
        "no turning in circles"
    );
}

#[test]
fn pods_and_reverse_names_and_the_version() {
    assert_eq!(
        data(&ask("10-244-0-9.default.pod.cluster.local.", RecordType::A).answers).len(),
        1
    );
    assert_nothing("10-244-0-9.nowhere.pod.cluster.local.", RecordType::A);
    assert_nothing("10-244-0-999.default.pod.cluster.local.", RecordType::A);
    let ptr = |name| data(&ask(name, RecordType::PTR).answers);
    assert_eq!(
        ptr("5.5.96.10.in-addr.arpa."),
        ["5.5.96.10.in-addr.arpa. nginx.default.svc.cluster.local."]
    );
    assert_eq!(
        ptr("5.0.244.10.in-addr.arpa."),
        ["5.0.244.10.in-addr.arpa. db-0.db.default.svc.cluster.local."]
    );
    assert_nothing("99.0.244.10.in-addr.arpa.", RecordType::PTR);
    let foreign = Name::from_ascii("1.2.0.192.in-addr.arpa.").expect("valid");
    assert_eq!(
        zone().answer(&cluster(), &foreign, RecordType::PTR),
        Verdict::NotOurs
    );
    assert_eq!(
        data(&ask("dns-version.cluster.local.", RecordType::TXT).answers),
        ["dns-version.cluster.local. 1.1.0"]
    );
}

fn request(name: &str, kind: RecordType) -> Message {
    let mut m = Message::query();
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).expect("valid"), kind));
    m
}

/// An API whose lists never end: the cluster stays unknown.
struct Silent;

#[async_trait::async_trait]
impl Api for Silent {
    async fn call(
        &self,
        _: kontiki_reconcile::Request,
    ) -> Result<bytes::Bytes, kontiki_reconcile::CallError> {
        std::future::pending().await
    }
    async fn list(
        &self,
        _: &'static kontiki_api::Resource,
        _: kontiki_reconcile::ListParams,
    ) -> Result<kontiki_reconcile::ListPage, kontiki_reconcile::CallError> {
        std::future::pending().await
    }
    async fn watch(
        &self,
        _: &'static kontiki_api::Resource,
        _: kontiki_reconcile::WatchParams,
    ) -> Result<kontiki_reconcile::WatchStream, kontiki_reconcile::CallError> {
        std::future::pending().await
    }
}

/// A server that follows an empty API, with the cluster of these tests put into its caches.
async fn start(upstreams: Vec<SocketAddr>) -> (Dns, Tasks) {
    let tasks = Tasks::default();
    let mut config = DnsConfig::new(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    config.upstreams = upstreams;
    config.resolv_conf = "/nonexistent".into();
    let api: Arc<dyn Api> = Arc::new(kontiki_reconcile::fake::FakeApi::default());
    let dns = Dns::start(config, &api, &tasks, &Metrics::default())
        .await
        .expect("it starts");
    tokio::time::timeout(Duration::from_secs(10), dns.synced())
        .await
        .expect("an empty list is there soon");
    let known = cluster();
    for v in known.services.list() {
        dns.cluster.services.insert((*v).clone());
    }
    for v in known.slices.list() {
        dns.cluster.slices.insert((*v).clone());
    }
    for v in known.namespaces.list() {
        dns.cluster.namespaces.insert((*v).clone());
    }
    (dns, tasks)
}

async fn over_udp(server: SocketAddr, bytes: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(bytes, server).await.expect("sent");
    let mut buffer = vec![0; 65535];
    let n = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer))
        .await
        .ok()?
        .expect("received");
    Some(Message::from_vec(&buffer[..n]).expect("an answer"))
}

async fn query(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    over_udp(server, &request(name, kind).to_vec().expect("encodes"))
        .await
        .expect("an answer in time")
}

async fn over_tcp(stream: &mut TcpStream, m: &Message) -> Message {
    let bytes = m.to_vec().expect("encodes");
    stream
        .write_u16(u16::try_from(bytes.len()).expect("short"))
        .await
        .expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let answer = read_message(stream)
        .await
        .expect("received")
        .expect("not closed");
    Message::from_vec(&answer).expect("an answer")
}

#[tokio::test]
async fn it_answers_over_udp_and_tcp_and_truncates() {
    let (dns, tasks) = start(Vec::new()).await;
    let server = dns.addresses()[0];
    let many: Vec<_> = (0..200)
        .map(|i| json!({"addresses": [format!("10.244.1.{i}")]}))
        .collect();
    dns.cluster.slices.insert(slice(json!({
        "metadata": {"name": "e", "namespace": "default", "labels": {"kubernetes.io/service-name": "empty"}},
        "endpoints": many})));

    let m = query(server, "nginx.default.svc.cluster.local.", RecordType::A).await;
    assert!(
        m.metadata.authoritative && m.metadata.recursion_available && m.metadata.recursion_desired
    );
    assert_eq!(m.answers.len(), 1);

    let big = request("empty.default.svc.cluster.local.", RecordType::A);
    let m = over_udp(server, &big.to_vec().expect("encodes"))
        .await
        .expect("an answer");
    assert!(
        m.metadata.truncation && (10..200).contains(&m.answers.len()),
        "{} answers",
        m.answers.len()
    );
    assert!(m.to_vec().expect("encodes").len() <= 512);
    let mut with_edns = big.clone();
    with_edns
        .set_edns(Edns::new())
        .edns
        .as_mut()
        .expect("just set")
        .set_max_payload(4096);
    let larger = over_udp(server, &with_edns.to_vec().expect("encodes"))
        .await
        .expect("an answer");
    assert!(larger.edns.is_some() && larger.answers.len() > m.answers.len());

    let mut stream = TcpStream::connect(server).await.expect("it listens");
    for _ in 0..2 {
        let m = over_tcp(&mut stream, &big).await;
        assert_eq!((m.answers.len(), m.metadata.truncation), (200, false));
    }
    tasks.stop().await;
    assert_eq!(tasks.failed(), None);
}

#[tokio::test]
async fn bad_requests_are_refused_and_answers_ignored() {
    let (dns, tasks) = start(Vec::new()).await;
    let server = dns.addresses()[0];
    let code = |m: Option<Message>| m.map(|m| m.metadata.response_code);
    let mut bytes = request("a.", RecordType::A).to_vec().expect("encodes");
    bytes.truncate(14);
    assert_eq!(
        code(over_udp(server, &bytes).await),
        Some(ResponseCode::FormErr)
    );
    let mut two = request("a.cluster.local.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(
        code(over_udp(server, &two.to_vec().expect("encodes")).await),
        Some(ResponseCode::FormErr)
    );
    let mut update = request("a.cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(
        code(over_udp(server, &update.to_vec().expect("encodes")).await),
        Some(ResponseCode::NotImp)
    );
    assert_eq!(
        query(server, "cluster.local.", RecordType::AXFR)
            .await
            .metadata
            .response_code,
        ResponseCode::Refused
    );
    // Nobody to ask: an answer at once instead of a client that waits.
    assert_eq!(
        query(server, "example.test.", RecordType::A)
            .await
            .metadata
            .response_code,
        ResponseCode::ServFail
    );
    let mut answer = request("a.cluster.local.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket
        .send_to(&answer.to_vec().expect("encodes"), server)
        .await
        .expect("sent");
    socket
        .send_to(
            &request("cluster.local.", RecordType::SOA)
                .to_vec()
                .expect("encodes"),
            server,
        )
        .await
        .expect("sent");
    let mut buffer = [0; 512];
    let n = socket.recv(&mut buffer).await.expect("received");
    let first = Message::from_vec(&buffer[..n]).expect("an answer");
    assert_eq!(
        first.queries[0].query_type(),
        RecordType::SOA,
        "the first one got no answer"
    );
    tasks.stop().await;
}

/// A resolver that gives every name the same address, and counts the questions.
async fn resolver(silent: bool) -> (SocketAddr, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (n, peer) = socket.recv_from(&mut buffer).await.expect("received");
            let m = Message::from_vec(&buffer[..n]).expect("a request");
            counted.fetch_add(1, Ordering::SeqCst);
            let name = m.queries[0].name().clone();
            assert!(
                !name.to_ascii().ends_with("cluster.local."),
                "{name} was asked of somebody else"
            );
            let mut answer = message::reply(&m, ResponseCode::NoError);
            answer.add_answer(Record::from_rdata(
                name,
                60,
                RData::from(IpAddr::from([192, 0, 2, 7])),
            ));
            if !silent {
                // Somebody else's answer comes first, and is not taken.
                let mut forged = answer.clone();
                forged.metadata.id ^= 1;
                forged.answers.clear();
                socket
                    .send_to(&forged.to_vec().expect("encodes"), peer)
                    .await
                    .expect("sent");
                socket
                    .send_to(&answer.to_vec().expect("encodes"), peer)
                    .await
                    .expect("sent");
            }
        }
    });
    (address, count, task)
}

#[tokio::test]
async fn other_names_are_asked_of_others_once_and_aliases_chased() {
    let ((dead, dead_count, t1), (alive, count, t2)) =
        (resolver(true).await, resolver(false).await);
    let (dns, tasks) = start(vec![dead, alive]).await;
    let server = dns.addresses()[0];
    let all = (0..10).map(|_| query(server, "Example.test.", RecordType::A));
    for m in futures::future::join_all(all).await {
        assert_eq!(data(&m.answers), ["example.test. 192.0.2.7"]);
        assert!(!m.metadata.authoritative);
    }
    assert_eq!(
        (
            dead_count.load(Ordering::SeqCst),
            count.load(Ordering::SeqCst)
        ),
        (1, 1),
        "asked once for all of them"
    );
    let m = query(server, "away.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(
        m.answers.len(),
        2,
        "the alias, and the address from the cache: {m:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_nothing("none.cluster.local.", RecordType::A);
    t1.abort();
    t2.abort();
    tasks.stop().await;
}

#[tokio::test]
async fn until_the_cluster_is_known_its_names_fail_and_are_not_denied() {
    let tasks = Tasks::default();
    let mut config = DnsConfig::new(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    config.resolv_conf = "/nonexistent".into();
    let api: Arc<dyn Api> = Arc::new(Silent);
    let dns = Dns::start(config.clone(), &api, &tasks, &Metrics::default())
        .await
        .expect("it starts");
    let m = query(
        dns.addresses()[0],
        "nginx.default.svc.cluster.local.",
        RecordType::A,
    )
    .await;
    assert_eq!(m.metadata.response_code, ResponseCode::ServFail);
    let m = query(
        dns.addresses()[0],
        "5.5.96.10.in-addr.arpa.",
        RecordType::PTR,
    )
    .await;
    assert_eq!(m.metadata.response_code, ResponseCode::ServFail);
    config.domain = "not a domain..".into();
    assert!(matches!(
        Dns::start(config, &api, &tasks, &Metrics::default()).await,
        Err(DnsError::Domain(_))
    ));
    tasks.stop().await;
}

/// Names made of pieces that mean something.
fn a_name() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("cluster.local"),
        Just("svc"),
        Just("pod"),
        Just("default"),
        Just("db"),
        Just("nginx"),
        Just("_tcp"),
        Just("_"),
        Just("_http"),
        Just("10-244-0-5"),
        Just("-"),
        Just("in-addr.arpa"),
        Just("10"),
        Just("ip6.arpa"),
        Just("dns-version"),
        Just("x"),
        Just("alias"),
        Just("away"),
    ];
    proptest::collection::vec(piece, 0..9).prop_map(|p| format!("{}.", p.join(".")))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Parsed::Refused(m) = message::parse(&bytes) {
            prop_assert!(message::encode(m, 512).is_some());
        }
    }

    #[test]
    fn no_broken_request_makes_it_panic(name in a_name(), at in 0usize..80, byte in any::<u8>(), kind in any::<u16>()) {
        let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
        let mut m = Message::query();
        m.add_query(Query::query(name, RecordType::from(kind)));
        let mut bytes = m.to_vec().expect("encodes");
        let len = bytes.len();
        bytes[at % len] = byte;
        if let Parsed::Asked(asked) = message::parse(&bytes)
            && let Verdict::Ours(answer) = zone().answer(&cluster(), asked.query.name(), asked.query.query_type())
        {
            let answered = message::own(&asked, answer);
            let limit = message::udp_limit_bytes(&asked.request);
            prop_assert!(message::encode(answered, limit).is_some_and(|b| b.len() <= limit));
        }
    }

    #[test]
    fn whatever_is_ours_has_records_or_says_that_there_are_none(name in a_name()) {
        let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
        for kind in [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY] {
            if let Verdict::Ours(a) = zone().answer(&cluster(), &name, kind) {
                prop_assert!(!a.answers.is_empty() || !a.authorities.is_empty(), "{name} {kind}: {a:?}");
                prop_assert!(a.answers.is_empty() || a.code == ResponseCode::NoError);
            }
        }
    }
}
