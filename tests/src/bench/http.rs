//! A load generator's HTTP/2 connection over TLS 1.3, with a client certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kontiki_pki::Identity;
use serde_json::Value;

/// What a client needs to talk to the server: an admin kubeconfig, read.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where the server listens.
    pub address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

impl Access {
    /// Reads a kubeconfig with embedded credentials.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_kubeconfig(path: &std::path::Path) -> Result<Access> {
        let config: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path)?)?;
        let text = |p: &str| -> Result<String> {
            let data = config
                .pointer(p)
                .and_then(Value::as_str)
                .with_context(|| format!("{p} is missing"))?;
            use base64::Engine;
            Ok(String::from_utf8(
                base64::engine::general_purpose::STANDARD.decode(data)?,
            )?)
        };
        let server = config
            .pointer("/clusters/0/cluster/server")
            .and_then(Value::as_str)
            .context("no server")?;
        let identity = Identity {
            cert_pem: text("/users/0/user/client-certificate-data")?,
            key_pem: text("/users/0/user/client-key-data")?,
        };
        let ca = text("/clusters/0/cluster/certificate-authority-data")?;
        let tls = kontiki_pki::tls::client(&ca, Some(&identity), &["h2"])?;
        let address = server
            .trim_start_matches("https://")
            .trim_end_matches('/')
            .parse()?;
        Ok(Access {
            address,
            tls: Arc::new(tls),
        })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn connect(&self) -> Result<Connection> {
        let tcp = tokio::net::TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = rustls_pki_types::ServerName::IpAddress(self.address.ip().into());
        let tls = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        let driver = tokio::spawn(async move {
            // The end of the server ends the connection; the request under way reports it.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            _driver: AbortOnDrop(driver),
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One HTTP/2 connection.
pub struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    _driver: AbortOnDrop,
}

impl Connection {
    /// Sends a request and returns the response with its body still to come.
    ///
    /// # Errors
    /// The connection broke, or the status is not a success.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://server{path}"))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!(
                "{method} {path}: {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(response)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// The connection broke, or the status is not a success.
    pub async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        Ok(self
            .open(method, path, body)
            .await?
            .into_body()
            .collect()
            .await?
            .to_bytes())
    }
}
