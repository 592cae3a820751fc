//! The remote source against a TLS server on port 0 that answers by script.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kontiki_api::catalogue::known;
use kontiki_client::{Config, Remote};
use kontiki_pki::{Ca, Profile, tls};
use kontiki_reconcile::{Api, CallError, Client, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

fn full(status: u16, v: &Value) -> http::Response<Body> {
    let body = Full::new(Bytes::from(v.to_string())).boxed();
    http::Response::builder()
        .status(status)
        .body(body)
        .expect("a response")
}

/// What the scripted API answers: pods can be listed, watched and (once) created.
fn answer(q: &http::Request<Incoming>, user: &str) -> http::Response<Body> {
    let query = q.uri().query().unwrap_or_default();
    match (q.method().as_str(), q.uri().path()) {
        ("GET", "/api/v1/pods") if query.contains("watch=true") => {
            assert!(query.contains("resourceVersion=5"), "{query}");
            let events = [
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"",
                "}}}\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"8\"}}}\n",
            ];
            let frames = events.map(|e| Ok(Frame::data(Bytes::from_static(e.as_bytes()))));
            let body = StreamBody::new(futures::stream::iter(frames));
            http::Response::new(BodyExt::boxed(body))
        }
        ("GET", "/api/v1/pods") => full(
            200,
            &json!({"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}}]}),
        ),
        ("GET", "/api/v1/nodes/me") => full(200, &json!({"user": user})),
        ("POST", "/api/v1/namespaces/ns/pods") => {
            assert_eq!(q.headers()["content-type"], "application/json");
            full(
                409,
                &json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409, "message": "there"}),
            )
        }
        _ => full(404, &json!({})),
    }
}

async fn serve(ca: &Ca) -> SocketAddr {
    let identity = ca
        .issue(&Profile::server(
            "master",
            &[],
            &["127.0.0.1".parse().expect("an address")],
        ))
        .expect("issued");
    let config = tls::server(&identity, ca.cert_pem(), &["h2"]).expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let certs = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|c| c.first().cloned());
                let subject = certs.and_then(|c| kontiki_pki::Subject::of_certificate(&c).ok());
                let user = subject.map(|s| s.user).unwrap_or_default();
                let service = service_fn(move |q| {
                    let user = user.clone();
                    async move { Ok::<_, std::convert::Infallible>(answer(&q, &user)) }
                });
                let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    at
}

fn config(ca: &Ca, masters: Vec<String>) -> Config {
    let identity = ca
        .issue(&Profile::client("system:node:n", "system:nodes"))
        .expect("issued");
    Config {
        masters,
        ca_pem: ca.cert_pem().to_owned(),
        identity: Some(identity),
        token: None,
    }
}

/// An address where nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("https://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn calls_lists_and_watches_reach_the_master_that_lives() {
    let ca = Ca::create("test").expect("a CA");
    let live = format!("https://{}", serve(&ca).await);
    let remote = Remote::new(&config(&ca, vec![dead().await, live.clone()])).expect("a client");
    let client = Client::new(Arc::new(remote.clone()), "test");
    let me: Value = client
        .get(known::nodes(), "", "me")
        .await
        .expect("an answer");
    assert_eq!(me["user"], "system:node:n");
    assert_eq!(remote.current_master(), format!("{live}/"));
    let page = remote
        .list(known::pods(), ListParams::default())
        .await
        .expect("a list");
    assert_eq!((page.items.len(), page.resource_version.as_str()), (1, "5"));
    let params = WatchParams {
        resource_version: "5".into(),
        ..WatchParams::default()
    };
    let events: Vec<WatchEvent> = remote
        .watch(known::pods(), params)
        .await
        .expect("a watch")
        .collect()
        .await;
    assert!(matches!(&events[..], [WatchEvent::Added(_), WatchEvent::Bookmark(r)] if r == "8"));
    let e = client
        .create(known::pods(), "ns", &json!({}))
        .await
        .expect_err("it is there");
    assert!(e.is_already_exists(), "{e}");
    let e = client
        .get::<Value>(known::nodes(), "", "other")
        .await
        .expect_err("it is not there");
    assert!(e.is_not_found(), "{e}");
}

#[tokio::test]
async fn a_call_that_cannot_connect_was_certainly_not_done() {
    let ca = Ca::create("test").expect("a CA");
    let remote = Remote::new(&config(&ca, vec![dead().await, dead().await])).expect("a client");
    let e = Client::new(Arc::new(remote), "test")
        .create(known::pods(), "ns", &json!({}))
        .await
        .expect_err("nobody is there");
    assert!(
        matches!(
            e,
            CallError::Unavailable {
                maybe_done: false,
                ..
            }
        ),
        "{e:?}"
    );
}

#[tokio::test]
async fn a_call_that_was_cut_off_may_have_been_done() {
    let (ca, listener) = (
        Ca::create("test").expect("a CA"),
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let identity = ca
        .issue(&Profile::server(
            "master",
            &[],
            &["127.0.0.1".parse().expect("an address")],
        ))
        .expect("issued");
    let tls = tls::server(&identity, ca.cert_pem(), &["h2"]).expect("a configuration");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            let stream = TlsAcceptor::from(Arc::new(tls.clone()))
                .accept(tcp)
                .await
                .expect("a handshake");
            // The request arrives, and then the master dies.
            let service = service_fn(|_: http::Request<Incoming>| async {
                Err::<http::Response<Body>, _>(std::io::Error::other("dead"))
            });
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            let _ended = tokio::time::timeout(Duration::from_secs(5), served).await;
        }
    });
    let remote = Remote::new(&config(&ca, vec![format!("https://{at}")])).expect("a client");
    let e = Client::new(Arc::new(remote), "test")
        .create(known::pods(), "ns", &json!({}))
        .await
        .expect_err("it is cut off");
    assert!(
        matches!(
            e,
            CallError::Unavailable {
                maybe_done: true,
                ..
            }
        ),
        "{e:?}"
    );
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_talked_to() {
    let (ours, theirs) = (
        Ca::create("ours").expect("a CA"),
        Ca::create("theirs").expect("a CA"),
    );
    let at = serve(&theirs).await;
    let remote = Remote::new(&config(&ours, vec![format!("https://{at}")])).expect("a client");
    let e = remote
        .list(known::pods(), ListParams::default())
        .await
        .expect_err("a stranger");
    assert!(e.to_string().contains("certificate"), "{e}");
}

#[test]
fn unusable_settings_are_refused() {
    let ca = Ca::create("test").expect("a CA");
    assert!(
        Remote::new(&config(&ca, vec![]))
            .expect_err("none")
            .to_string()
            .contains("no master is given")
    );
    for bad in ["10.0.0.1:6443", "http://h", "https://"] {
        assert!(
            Remote::new(&config(&ca, vec![bad.into()])).is_err(),
            "{bad}"
        );
    }
}
