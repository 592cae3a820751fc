//! The server over a store in memory, asked over real TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kontiki_api::catalogue::known;
use kontiki_apiserver::{ApiServer, Config, Running};
use kontiki_base::{Metrics, Tasks};
use kontiki_pki::{Ca, Identity, Pki, Profile};
use kontiki_raft::Store;
use kontiki_reconcile::{Client, ListParams, WatchEvent, WatchParams};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a test waits for what has to happen.
const DEADLINE: Duration = Duration::from_secs(10);

struct Cluster {
    running: Running,
    metrics: Metrics,
    tasks: Tasks,
    store: Arc<kontiki_raft::MemoryStore>,
    pki: Pki,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

async fn start() -> Cluster {
    start_on(Arc::new(kontiki_raft::memory())).await
}

async fn start_on(store: Arc<kontiki_raft::MemoryStore>) -> Cluster {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::load_or_create(dir.path()).expect("keys");
    let localhost = "127.0.0.1".parse().expect("an address");
    let serving = pki
        .ca()
        .issue(&Profile::server("kube-apiserver", &[], &[localhost]))
        .expect("a certificate");
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        advertise: localhost,
        serving,
        client_ca_pem: pki.ca().cert_pem().to_owned(),
        service_account_key_pem: pki.service_account_key_pem().to_owned(),
        service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
        kubelet: None,
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        node_ports: (30000, 32767),
    };
    let (metrics, tasks) = (Metrics::default(), Tasks::default());
    let running = ApiServer::start(config, store.clone(), &metrics, &tasks)
        .await
        .expect("it starts");
    tokio::time::timeout(DEADLINE, running.wait_ready())
        .await
        .expect("it gets ready");
    Cluster {
        running,
        metrics,
        tasks,
        store,
        pki,
        _dir: dir,
    }
}

impl Cluster {
    fn admin(&self) -> Identity {
        let profile = Profile::client("kubernetes-admin", "system:masters");
        self.pki.ca().issue(&profile).expect("a certificate")
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.running.local_addresses[0])
            .await
            .expect("connected")
    }

    async fn connect(
        &self,
        who: Option<&Identity>,
    ) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let config = kontiki_pki::tls::client(self.pki.ca().cert_pem(), who, &["http/1.1"])
            .expect("a configuration");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, self.tcp().await)
            .await
            .expect("TLS");
        let (sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .expect("HTTP");
        self.tasks.spawn_transient("client", async move {
            drop(conn.await);
        });
        sender
    }

    async fn send(
        &self,
        who: Option<&Identity>,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", content_type)
            .header("user-agent", "test/1")
            .body(Full::new(body.into()))
            .expect("a request");
        let mut sender = self.connect(who).await;
        let answer = sender.send_request(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(Some(&self.admin()), method, path, body).await
    }
}

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}, "data": {"x": "1"}})
}

#[tokio::test]
async fn an_object_lives_its_life_and_watchers_see_it() {
    let c = start().await;
    let list = c.ask(Method::GET, CONFIGMAPS, Value::Null).await;
    let revision = list.json()["metadata"]["resourceVersion"].clone();
    let revision = revision.as_str().expect("a revision");

    let created = c.ask(Method::POST, CONFIGMAPS, configmap("a")).await;
    assert_eq!(created.status, 201, "{:?}", created.body);
    let a = created.json();
    assert_eq!(a["metadata"]["managedFields"][0]["manager"], "test");
    let path = format!("{CONFIGMAPS}/a");
    assert_eq!(c.ask(Method::GET, &path, Value::Null).await.json(), a);
    assert_eq!(
        c.ask(Method::POST, CONFIGMAPS, configmap("a")).await.status,
        409
    );

    let same = c.ask(Method::PUT, &path, a.clone()).await;
    assert_eq!(
        same.json(),
        a,
        "an update that changes nothing writes nothing"
    );
    let patched = c
        .ask(Method::PATCH, &path, json!({"data": {"y": "2"}}))
        .await;
    assert_eq!(patched.json()["data"], json!({"x": "1", "y": "2"}));
    let stale = c.ask(Method::PUT, &path, a).await;
    assert_eq!(stale.json()["reason"], "Conflict");
    assert_eq!(
        c.ask(Method::DELETE, &path, Value::Null).await.json()["status"],
        "Success"
    );
    assert_eq!(c.ask(Method::GET, &path, Value::Null).await.status, 404);

    let watch = format!("{CONFIGMAPS}?watch=1&timeoutSeconds=1&resourceVersion={revision}");
    let seen = c.ask(Method::GET, &watch, Value::Null).await;
    let events: Vec<Value> = seen
        .body
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).expect("an event"))
        .collect();
    let types: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED"]);
    let expired = format!("{CONFIGMAPS}?watch=1&resourceVersion=1&resourceVersionMatch=Exact");
    assert_eq!(c.ask(Method::GET, &expired, Value::Null).await.status, 422);
    c.tasks.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_of_one_snapshot() {
    let c = start().await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        c.ask(Method::POST, CONFIGMAPS, configmap(name)).await;
    }
    let page = c
        .ask(Method::GET, &format!("{CONFIGMAPS}?limit=2"), Value::Null)
        .await
        .json();
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    assert_eq!(
        page["items"][0].get("kind"),
        None,
        "items of a list name no kind"
    );
    c.ask(Method::DELETE, &format!("{CONFIGMAPS}/d"), Value::Null)
        .await;
    let token = page["metadata"]["continue"].as_str().expect("a token");
    let rest = c
        .ask(
            Method::GET,
            &format!("{CONFIGMAPS}?continue={token}"),
            Value::Null,
        )
        .await
        .json();
    let items = rest["items"].as_array().expect("items");
    let shown: Vec<&str> = items
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert_eq!(
        shown,
        ["c", "d", "e"],
        "the deleted one is still in the snapshot"
    );
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        page["metadata"]["resourceVersion"]
    );
    c.tasks.stop().await;
}

#[tokio::test]
async fn nobody_without_a_valid_credential_gets_in() {
    let c = start().await;
    let anonymous = c.send(None, Method::GET, CONFIGMAPS, "").await;
    assert_eq!(
        (anonymous.status, anonymous.json()["reason"].clone()),
        (403, json!("Forbidden"))
    );
    assert_eq!(c.send(None, Method::GET, "/readyz", "").await.body, "ok");
    let foreign = Ca::create("other").expect("a CA");
    let identity = foreign
        .issue(&Profile::client("kubernetes-admin", "system:masters"))
        .expect("a certificate");
    // The client's own library takes the server's CA for the list of acceptable issuers: show the certificate anyway.
    let answer = c.send(Some(&identity), Method::GET, CONFIGMAPS, "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["message"], "Unauthorized");
    let user = c
        .pki
        .ca()
        .issue(&Profile::client("jane", "people"))
        .expect("a certificate");
    let jane = c.send(Some(&user), Method::GET, CONFIGMAPS, "").await;
    assert_eq!(
        jane.json()["message"],
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        c.send(Some(&user), Method::GET, "/apis", "").await.status,
        200
    );
    c.tasks.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_in_upstreams_terms() {
    let c = start().await;
    let strict = format!("{CONFIGMAPS}?fieldValidation=Strict");
    let mut unknown = configmap("a");
    unknown["nope"] = 1.into();
    let e = c.ask(Method::POST, &strict, unknown).await.json();
    assert_eq!(
        (e["code"].clone(), e["reason"].clone()),
        (json!(400), json!("BadRequest"))
    );
    let warned = c.ask(Method::POST, CONFIGMAPS, {
        let mut v = configmap("warned");
        v["nope"] = 1.into();
        v
    });
    assert_eq!(
        warned.await.headers["warning"],
        "299 - \"unknown field \\\"nope\\\"\""
    );
    assert_eq!(
        c.ask(Method::POST, CONFIGMAPS, configmap("Bad_Name"))
            .await
            .status,
        422
    );
    assert_eq!(
        c.send(Some(&c.admin()), Method::POST, CONFIGMAPS, "{")
            .await
            .status,
        400
    );
    let mut large = configmap("large");
    large["data"]["x"] = "x".repeat(1_100_000).into();
    let e = c.ask(Method::POST, CONFIGMAPS, large.clone()).await;
    assert_eq!(e.status, 422, "a config map holds 1 MiB");
    let huge = c
        .send(
            Some(&c.admin()),
            Method::POST,
            CONFIGMAPS,
            vec![b' '; 3 << 20 | 1],
        )
        .await;
    assert_eq!(huge.json()["reason"], "RequestEntityTooLarge");
    assert_eq!(
        c.ask(
            Method::POST,
            "/api/v1/namespaces/none/configmaps",
            configmap("a")
        )
        .await
        .status,
        404
    );
    assert_eq!(
        c.ask(Method::GET, "/api/v1/nothing", Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        c.ask(Method::PATCH, CONFIGMAPS, json!({})).await.status,
        405
    );
    c.tasks.stop().await;
}

#[tokio::test]
async fn broken_handshakes_leave_nothing_behind() {
    let c = start().await;
    for n in [0, 1, 5, 40] {
        let mut tcp = c.tcp().await;
        let hello = [0x16, 3, 1, 2, 0]
            .into_iter()
            .chain(std::iter::repeat(1))
            .take(n)
            .collect::<Vec<u8>>();
        tcp.write_all(&hello).await.expect("written");
        tcp.shutdown().await.expect("closed");
        let mut rest = Vec::new();
        drop(tcp.read_to_end(&mut rest).await);
    }
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !c.metrics.encode().contains("apiserver_connections 0\n") {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{}",
            c.metrics.encode()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        c.metrics
            .encode()
            .contains("apiserver_tls_handshake_errors_total 4")
    );
    assert_eq!(c.send(None, Method::GET, "/livez", "").await.status, 200);
    c.tasks.stop().await;
}

#[tokio::test]
async fn loops_in_the_process_see_what_is_written() {
    let c = start().await;
    let client = Client::new(c.running.in_process.clone(), "loop");
    let page = c
        .running
        .in_process
        .list(known::configmaps(), ListParams::default())
        .await
        .expect("a list");
    let params = WatchParams {
        resource_version: page.resource_version,
        ..WatchParams::default()
    };
    let mut watch = c
        .running
        .in_process
        .watch(known::configmaps(), params)
        .await
        .expect("a watch");
    let created = client
        .create(known::configmaps(), "default", &configmap("a"))
        .await
        .expect("created");
    let event = tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("in time")
        .expect("an event");
    let WatchEvent::Added(bytes) = event else {
        panic!("{event:?}")
    };
    assert_eq!(
        serde_json::from_slice::<Value>(&bytes).expect("JSON"),
        created
    );
    let again = client
        .create(known::configmaps(), "default", &configmap("a"))
        .await;
    assert!(again.expect_err("it exists").is_already_exists());
    c.tasks.stop().await;
}

#[tokio::test]
async fn a_page_whose_snapshot_is_gone_is_answered_with_a_way_on() {
    let c = start().await;
    for name in ["a", "b", "c"] {
        c.ask(Method::POST, CONFIGMAPS, configmap(name)).await;
    }
    let page = c
        .ask(Method::GET, &format!("{CONFIGMAPS}?limit=1"), Value::Null)
        .await
        .json();
    let token = page["metadata"]["continue"].as_str().expect("a token");
    c.ask(Method::POST, CONFIGMAPS, configmap("d")).await;
    let now = c.store.applied_revision();
    c.store.compact(now).await.expect("compacted");
    let gone = c
        .ask(
            Method::GET,
            &format!("{CONFIGMAPS}?continue={token}"),
            Value::Null,
        )
        .await
        .json();
    assert_eq!(
        (gone["code"].clone(), gone["reason"].clone()),
        (json!(410), json!("Expired"))
    );
    let token = gone["metadata"]["continue"]
        .as_str()
        .expect("another token");
    let rest = c
        .ask(
            Method::GET,
            &format!("{CONFIGMAPS}?continue={token}"),
            Value::Null,
        )
        .await
        .json();
    let items = rest["items"].as_array().expect("items");
    let shown: Vec<&str> = items
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert_eq!(shown, ["b", "c", "d"], "the rest as it is now");
    c.tasks.stop().await;
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_service_account() {
    let c = start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}});
    assert_eq!(c.ask(Method::POST, accounts, account).await.status, 201);
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = c
        .ask(Method::POST, &format!("{accounts}/bot/token"), request)
        .await
        .json();
    let token = answer["status"]["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let ask = async |token: String| {
        let request = Request::get("/api/v1/pods")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::new()))
            .expect("a request");
        let answer = c
            .connect(None)
            .await
            .send_request(request)
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        (
            status,
            answer
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes(),
        )
    };
    let (status, body) = ask(token.clone()).await;
    assert_eq!(status, 403);
    assert!(String::from_utf8_lossy(&body).contains("system:serviceaccount:default:bot"));
    let (mut forged, last) = (token.clone(), token.len() - 10);
    forged.replace_range(
        last..=last,
        if &token[last..=last] == "A" { "B" } else { "A" },
    );
    assert_eq!(ask(forged).await.0, 401);
    c.ask(Method::DELETE, &format!("{accounts}/bot"), Value::Null)
        .await;
    assert_eq!(ask(token).await.0, 401);
    c.tasks.stop().await;
}

#[tokio::test]
async fn finalizers_hold_objects_and_namespaces() {
    let c = start().await;
    let mut held = configmap("held");
    held["metadata"]["finalizers"] = json!(["example.com/f"]);
    c.ask(Method::POST, CONFIGMAPS, held).await;
    let path = format!("{CONFIGMAPS}/held");
    let marked = c.ask(Method::DELETE, &path, Value::Null).await.json();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(c.ask(Method::GET, &path, Value::Null).await.status, 200);
    c.ask(
        Method::PATCH,
        &path,
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    assert_eq!(c.ask(Method::GET, &path, Value::Null).await.status, 404);

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    c.ask(Method::POST, "/api/v1/namespaces", namespace).await;
    let going = c
        .ask(Method::DELETE, "/api/v1/namespaces/n", Value::Null)
        .await
        .json();
    assert_eq!(going["status"]["phase"], "Terminating");
    let late = c
        .ask(
            Method::POST,
            "/api/v1/namespaces/n/configmaps",
            configmap("a"),
        )
        .await
        .json();
    assert_eq!(
        late["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let mut empty = going;
    empty["spec"] = json!({});
    assert_eq!(
        c.ask(Method::PUT, "/api/v1/namespaces/n/finalize", empty)
            .await
            .status,
        200
    );
    assert_eq!(
        c.ask(Method::GET, "/api/v1/namespaces/n", Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        c.ask(Method::DELETE, "/api/v1/namespaces/default", Value::Null)
            .await
            .status,
        403
    );
    c.tasks.stop().await;
}

#[tokio::test]
async fn watches_go_on_after_a_restart() {
    let c = start().await;
    let list = c.ask(Method::GET, CONFIGMAPS, Value::Null).await.json();
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision")
        .to_owned();
    c.ask(Method::POST, CONFIGMAPS, configmap("a")).await;
    c.ask(Method::DELETE, &format!("{CONFIGMAPS}/a"), Value::Null)
        .await;
    c.tasks.stop().await;
    let again = start_on(c.store.clone()).await;
    again.ask(Method::POST, CONFIGMAPS, configmap("b")).await;
    let path = format!("{CONFIGMAPS}?watch=1&timeoutSeconds=1&resourceVersion={revision}");
    let seen = again.ask(Method::GET, &path, Value::Null).await.body;
    let lines = seen.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let events: Vec<(String, String)> = lines
        .map(|l| serde_json::from_slice::<Value>(l).expect("an event"))
        .map(|e| {
            (
                e["type"].to_string(),
                e["object"]["metadata"]["name"].to_string(),
            )
        })
        .collect();
    let event = |t: &str, n: &str| (format!("{t:?}"), format!("{n:?}"));
    assert_eq!(
        events,
        [
            event("ADDED", "a"),
            event("DELETED", "a"),
            event("ADDED", "b")
        ]
    );
    again.tasks.stop().await;
}
