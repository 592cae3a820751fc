//! The hop to the runtime's streaming server, which it names in its answer to an Exec, Attach or PortForward call.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kontiki_api::ApiError;
use kontiki_base::{Tasks, chain};
use tokio::net::TcpStream;

use super::spdy;

/// How long the runtime may take to take a stream.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The most that is read of a refusal.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// The header by which the protocol above SPDY is agreed upon.
pub(super) const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A connection that the runtime has switched to SPDY.
pub(super) struct Dialed {
    /// The headers with which it did.
    pub(super) headers: HeaderMap,
    pub(super) io: TokioIo<Upgraded>,
}

/// Asks for SPDY at the URL; `protocols` are offered in this order.
pub(super) async fn dial(
    url: &str,
    protocols: &[HeaderValue],
    tasks: &Tasks,
) -> Result<Dialed, ApiError> {
    match tokio::time::timeout(TIME_MAX, upgrade(url, protocols, tasks)).await {
        Ok(dialed) => dialed,
        Err(_) => Err(ApiError::internal(
            "the container runtime does not take the stream in time",
        )),
    }
}

fn failed(e: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::internal(format!(
        "the container runtime's streaming server: {}",
        chain(e)
    ))
}

async fn upgrade(url: &str, protocols: &[HeaderValue], tasks: &Tasks) -> Result<Dialed, ApiError> {
    let uri: Uri = url.parse().map_err(|e| failed(&e))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(ApiError::internal(format!(
            "the container runtime streams at {url}, and only http is spoken to it"
        )));
    };
    let tcp = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .map_err(|e| failed(&e))?;
    tcp.set_nodelay(true).map_err(|e| failed(&e))?;
    let (mut sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(|e| failed(&e))?;
    tasks.spawn_transient("stream to the runtime", async move {
        if let Err(e) = conn.with_upgrades().await {
            tracing::debug!(error = %e, "a stream to the runtime ended");
        }
    });
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, spdy::NAME)
        .header(CONTENT_LENGTH, 0);
    for p in protocols {
        request = request.header(PROTOCOL_HEADER, p);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let mut answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX)
            .collect()
            .await;
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        let why = format!(
            "the container runtime refuses the stream with {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
        return Err(ApiError::internal(why));
    }
    let upgraded = hyper::upgrade::on(&mut answer)
        .await
        .map_err(|e| failed(&e))?;
    Ok(Dialed {
        headers: std::mem::take(answer.headers_mut()),
        io: TokioIo::new(upgraded),
    })
}
