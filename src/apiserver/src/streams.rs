//! Connections that are passed through: logs, exec, attach, port-forward to kubelets, and the proxies of nodes, pods and
//! services. Upgrades (WebSocket, SPDY) are passed on as they are, and the bytes after them copied both ways.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kontiki_api::{ApiError, Reason};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, BodyError};
use crate::config::KubeletAccess;
use crate::registry::Kind;
use crate::request::{Query, ResourcePath};
use crate::respond;
use crate::router::State;
use crate::user::User;

mod locate;

/// How long reaching a kubelet or pod may take, TLS included.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

/// Whether the subresource is a connection that is passed through.
pub(crate) fn is_stream(subresource: &str) -> bool {
    matches!(
        subresource,
        "exec" | "attach" | "portforward" | "proxy" | "log"
    )
}

/// How kubelets are reached.
pub(crate) struct Kubelets {
    connector: TlsConnector,
}

impl Kubelets {
    pub(crate) fn new(access: &KubeletAccess) -> Result<Kubelets, kontiki_pki::Error> {
        let config =
            kontiki_pki::tls::client(&access.ca_pem, Some(&access.identity), &["http/1.1"])?;
        Ok(Kubelets {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }
}

/// Where a stream leads.
pub(crate) struct Upstream {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query there.
    pub(crate) path: String,
    pub(crate) tls: bool,
}

/// Answers a request for a stream.
pub(crate) async fn answer(
    state: &Arc<State>,
    _user: &User,
    kind: &Arc<Kind>,
    path: &ResourcePath,
    query: &Query,
    req: Request<Incoming>,
) -> Response<Body> {
    let located = locate::upstream(state, kind, path, query, req.uri().query()).await;
    let passed = match located {
        Ok(up) => pass(state, up, req).await,
        Err(e) => Err(e),
    };
    passed.unwrap_or_else(|e| respond::refusal(&e))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn dial(state: &State, up: &Upstream) -> Result<Box<dyn Stream>, ApiError> {
    let failed = |e: &dyn std::fmt::Display| {
        let why = format!(
            "error dialing backend: dial tcp {}:{}: {e}",
            up.host, up.port
        );
        ApiError::internal(why)
    };
    let connect = async {
        let tcp = TcpStream::connect((up.host.as_str(), up.port))
            .await
            .map_err(|e| failed(&e))?;
        tcp.set_nodelay(true).map_err(|e| failed(&e))?;
        if !up.tls {
            return Ok(Box::new(tcp) as Box<dyn Stream>);
        }
        let Some(kubelets) = &state.kubelets else {
            return Err(ApiError::new(
                Reason::ServiceUnavailable,
                "this server has no credentials for kubelets",
            ));
        };
        let name = ServerName::try_from(up.host.clone()).map_err(|e| failed(&e))?;
        let tls = kubelets
            .connector
            .connect(name, tcp)
            .await
            .map_err(|e| failed(&e))?;
        Ok(Box::new(tls) as Box<dyn Stream>)
    };
    tokio::time::timeout(DIAL_TIME_MAX, connect)
        .await
        .unwrap_or_else(|_| Err(failed(&"i/o timeout")))
}

/// Headers that belong to a connection, not to a request.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
];

fn forwarded(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut out = headers.clone();
    for h in HOP_BY_HOP {
        out.remove(h);
    }
    // The user's credential is for this server alone.
    for h in [
        "authorization",
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
    ] {
        out.remove(h);
    }
    out.remove(HOST);
    if upgrade {
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        out.remove(CONNECTION);
        out.remove(UPGRADE);
    }
    out
}

async fn pass(
    state: &Arc<State>,
    up: Upstream,
    mut req: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let upgrade = req.headers().contains_key(UPGRADE);
    let io = dial(state, &up).await?;
    let failed = |e: hyper::Error| ApiError::internal(format!("error passing the request on: {e}"));
    let (mut sender, conn) = hyper::client::conn::http1::handshake::<
        _,
        BoxBody<bytes::Bytes, BodyError>,
    >(TokioIo::new(io))
    .await
    .map_err(failed)?;
    state
        .tasks
        .spawn_transient("stream connection", async move {
            if let Err(e) = conn.with_upgrades().await {
                tracing::debug!(error = %e, "a passed connection ended");
            }
        });
    let client = upgrade.then(|| hyper::upgrade::on(&mut req));
    let (head, body) = req.into_parts();
    let target = up
        .path
        .parse::<PathAndQuery>()
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let body = if head.method == Method::GET || upgrade {
        Empty::new().map_err(|never| match never {}).boxed()
    } else {
        body.map_err(|e| Box::new(e) as BodyError).boxed()
    };
    let mut out = Request::new(body);
    *out.method_mut() = head.method;
    *out.uri_mut() = Uri::from(target);
    *out.headers_mut() = forwarded(&head.headers, upgrade);
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", up.host, up.port)) {
        out.headers_mut().insert(HOST, host);
    }
    let mut answer = sender.send_request(out).await.map_err(failed)?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (answer.status(), client) {
        let backend = hyper::upgrade::on(&mut answer);
        state.tasks.spawn_transient("upgraded stream", async move {
            let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else {
                return;
            };
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                tracing::debug!(error = %e, "an upgraded stream ended");
            }
        });
        let (head, _) = answer.into_parts();
        return Ok(Response::from_parts(head, Body::empty()));
    }
    let (mut head, body) = answer.into_parts();
    for h in HOP_BY_HOP {
        head.headers.remove(HeaderName::from_static(h));
    }
    head.headers.remove(CONNECTION);
    head.version = http::Version::default();
    Ok(Response::from_parts(
        head,
        Body::Stream(body.map_err(|e| Box::new(e) as BodyError).boxed()),
    ))
}
