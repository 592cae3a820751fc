//! One try of a probe or hook: HTTP, TCP, gRPC or a command in the container.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cri::Runtime;
use crate::pod::{Container, ExecAction, GrpcAction, HttpGetAction, TcpSocketAction};

/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 10 << 10;

/// The generated messages of the gRPC health protocol.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Where a container can be reached, and by whom it is run.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The runtime.
    pub runtime: &'a Runtime,
    /// The container, as the pod describes it.
    pub container: &'a Container,
    /// Its id.
    pub id: &'a str,
    /// The pod's address.
    pub ip: &'a str,
}

/// The kinds of actions that a probe or hook can have.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action<'a> {
    Exec(&'a ExecAction),
    Http(&'a HttpGetAction),
    Tcp(&'a TcpSocketAction),
    Grpc(&'a GrpcAction),
}

/// Carries out an action; the error says what was wrong, in the words of an event.
///
/// # Errors
/// The action failed or took too long.
pub async fn act(t: &Target<'_>, action: Action<'_>, limit: Duration) -> Result<(), String> {
    if let Action::Exec(e) = action {
        return exec(t, e, limit).await;
    }
    let tried = async {
        match action {
            Action::Exec(_) => Ok(()),
            Action::Http(h) => http_get(t, h).await,
            Action::Tcp(s) => {
                let port = s
                    .port
                    .resolve(t.container)
                    .ok_or("the port has no number")?;
                tcp(
                    s.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(t.ip),
                    port,
                )
                .await
                .map(drop)
            }
            Action::Grpc(g) => grpc(t, g).await,
        }
    };
    match tokio::time::timeout(limit, tried).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "no answer within {} s (context deadline exceeded)",
            limit.as_secs()
        )),
    }
}

async fn exec(t: &Target<'_>, e: &ExecAction, limit: Duration) -> Result<(), String> {
    let answer = t.runtime.exec_sync(t.id, &e.command, limit).await;
    match answer {
        Ok(a) if a.exit_code == 0 => Ok(()),
        Ok(a) => {
            let mut out = a.stdout;
            out.extend(a.stderr);
            out.truncate(ANSWER_BYTES_MAX);
            Err(String::from_utf8_lossy(&out).into_owned())
        }
        Err(e) if e.is_deadline() => Err(format!("command timed out after {} s", limit.as_secs())),
        Err(e) => Err(e.to_string()),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

async fn http_get(t: &Target<'_>, h: &HttpGetAction) -> Result<(), String> {
    let port = h
        .port
        .resolve(t.container)
        .ok_or("the port has no number")?;
    let host = h.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(t.ip);
    let path = h.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = http::Request::get(&path).header(http::header::CONNECTION, "close");
    let named = |n: &str| {
        h.http_headers
            .iter()
            .any(|x| x.name.eq_ignore_ascii_case(n))
    };
    for x in &h.http_headers {
        request = request.header(&x.name, &x.value);
    }
    for (name, value) in [
        ("host", authority.as_str()),
        ("user-agent", "kube-probe/1.36"),
        ("accept", "*/*"),
    ] {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let stream = tcp(host, port).await?;
    let status = if h
        .scheme
        .as_deref()
        .is_some_and(|s| s.eq_ignore_ascii_case("https"))
    {
        let name =
            rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let tls = tokio_rustls::TlsConnector::from(crate::tls::without_verification());
        let stream = tls.connect(name, stream).await.map_err(|e| e.to_string())?;
        send(TokioIo::new(stream), request).await?
    } else {
        send(TokioIo::new(stream), request).await?
    };
    // Redirects count as success, as upstream's do when they lead elsewhere.
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {status}"))
    }
}

async fn send<S>(io: S, request: http::Request<Empty<Bytes>>) -> Result<u16, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        // Read so that the server is not cut off in the middle; what it says beyond the limit does not matter.
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        Ok::<_, String>(status)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        status = &mut exchange => status,
        closed = &mut connection => match closed {
            // The connection may end in the moment in which the answer is complete.
            Ok(()) => exchange.await,
            Err(e) => Err(e.to_string()),
        }
    }
}

async fn grpc(t: &Target<'_>, g: &GrpcAction) -> Result<(), String> {
    let host = if t.ip.contains(':') {
        format!("[{}]", t.ip)
    } else {
        t.ip.to_owned()
    };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{host}:{}", g.port));
    let channel = endpoint
        .map_err(|e| e.to_string())?
        .connect()
        .await
        .map_err(|e| e.to_string())?;
    let request = health::HealthCheckRequest {
        service: g.service.clone().unwrap_or_default(),
    };
    let answer = health::health_client::HealthClient::new(channel)
        .check(request)
        .await;
    match answer
        .map_err(|s| s.message().to_owned())?
        .into_inner()
        .status()
    {
        health::health_check_response::ServingStatus::Serving => Ok(()),
        other => Err(format!(
            "service unhealthy (responded with {:?})",
            other.as_str_name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pod::PortRef;

    async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let served = tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.expect("a connection");
            let mut buffer = vec![0; 4096];
            let n = s.read(&mut buffer).await.expect("a request");
            s.write_all(answer.as_bytes()).await.expect("answered");
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        });
        (port, served)
    }

    async fn probe(action: Action<'_>) -> Result<(), String> {
        let runtime = Runtime::new(std::path::Path::new("/nonexistent.sock"));
        let container = Container::default();
        let t = Target {
            runtime: &runtime,
            container: &container,
            id: "x",
            ip: "127.0.0.1",
        };
        act(&t, action, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn http_probes_judge_by_the_status_code() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            let (port, served) = server(answer).await;
            let h = HttpGetAction {
                port: PortRef::Number(port),
                path: Some("/healthz".into()),
                ..HttpGetAction::default()
            };
            assert_eq!(probe(Action::Http(&h)).await.is_ok(), good, "{answer}");
            let request = served.await.expect("served");
            assert!(
                request.starts_with("GET /healthz HTTP/1.1")
                    && request.contains("user-agent: kube-probe/"),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn tcp_probes_judge_by_the_connection() {
        let (port, _served) = server("").await;
        let s = TcpSocketAction {
            port: PortRef::Number(port),
            host: None,
        };
        probe(Action::Tcp(&s)).await.expect("connects");
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port")
            .local_addr()
            .expect("bound")
            .port();
        let s = TcpSocketAction {
            port: PortRef::Number(closed),
            host: None,
        };
        assert!(probe(Action::Tcp(&s)).await.is_err());
    }
}
