//! [`Remote`]: calls over HTTPS, with failover among the masters.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kontiki_api::{ApiError, Reason, Resource, Status};
use kontiki_base::chain;
use kontiki_reconcile::{
    Api, CallError, ListPage, ListParams, Request, Verb, WatchParams, WatchStream,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::credentials::{Credentials, CredentialsError};
use crate::paths::{path, with_query};
use crate::watch;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a call may take, its answer included. A watch has no such limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// An idle connection is asked this often whether it still stands, so that a dead master is noticed under a watch.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

type Http = HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The API at the masters. Clones share the connections.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    servers: Vec<String>,
    /// The master that answered last.
    current: AtomicUsize,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("servers", &self.inner.servers)
            .finish_non_exhaustive()
    }
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, a success.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Remote {
    /// Reads a kubeconfig. Nothing is connected yet.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub fn from_kubeconfig(path: &Path) -> Result<Remote, CredentialsError> {
        Remote::new(&Credentials::from_kubeconfig(path)?)
    }

    /// A client with these credentials. Nothing is connected yet.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(credentials: &Credentials) -> Result<Remote, CredentialsError> {
        // The connector offers the protocols itself.
        let tls = kontiki_pki::tls::client(&credentials.ca_pem, Some(&credentials.identity), &[])?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http2()
            .wrap_connector(tcp);
        let http = HttpClient::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .http2_keep_alive_while_idle(false)
            .build(https);
        let servers = credentials.servers.clone();
        Ok(Remote {
            inner: Arc::new(Inner {
                http,
                servers,
                current: AtomicUsize::new(0),
            }),
        })
    }

    /// Sends a request to any path and reads the answer. A refusal is an error with the server's `Status`.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let answer = async {
            let response = self.send(method, path, content_type, body).await?;
            let status = response.status();
            Ok(Answer {
                status,
                body: read(response).await?,
            })
        };
        tokio::time::timeout(CALL_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| {
                let reason = format!("no answer within {} s", CALL_TIMEOUT.as_secs());
                Err(CallError::Unavailable {
                    reason,
                    maybe_done: true,
                })
            })
    }

    /// Sends a request to the current master, or if it cannot be reached to the next ones, and returns with the head of
    /// a successful answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let (servers, current) = (
            &self.inner.servers,
            self.inner.current.load(Ordering::Relaxed),
        );
        let mut last = CallError::Unavailable {
            reason: "no master is known".into(),
            maybe_done: false,
        };
        for i in 0..servers.len() {
            let at = (current + i) % servers.len();
            let mut request = HttpRequest::builder()
                .method(method.clone())
                .uri(format!("{}{path}", servers[at]))
                .header(http::header::ACCEPT, "application/json")
                .header(
                    http::header::USER_AGENT,
                    concat!("kontiki/", env!("CARGO_PKG_VERSION")),
                );
            if !content_type.is_empty() {
                request = request.header(http::header::CONTENT_TYPE, content_type);
            }
            let request = request
                .body(Full::new(body.clone()))
                .map_err(|e| CallError::Malformed(e.to_string()))?;
            match self.inner.http.request(request).await {
                Ok(response) => {
                    self.inner.current.store(at, Ordering::Relaxed);
                    if response.status().is_success() {
                        return Ok(response);
                    }
                    let code = response.status().as_u16();
                    return Err(refusal(code, &read(response).await?));
                }
                Err(e) => {
                    let unsent = e.is_connect();
                    let reason = format!("{}: {}", servers[at], chain(&e));
                    last = CallError::Unavailable {
                        reason,
                        maybe_done: !unsent,
                    };
                    // What may have been carried out is not sent again to another master.
                    if !unsent && method != Method::GET {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, CallError> {
    let limited = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) => Err(CallError::Unavailable {
            reason: format!("the answer broke off: {e}"),
            maybe_done: true,
        }),
    }
}

fn refusal(code: u16, body: &[u8]) -> CallError {
    let status = serde_json::from_slice(body)
        .ok()
        .and_then(|v| Status::from_value(&v));
    CallError::Refused(status.map_or_else(
        || {
            let text = String::from_utf8_lossy(body);
            let mut e = ApiError::new(
                Reason::Unknown,
                format!("the server answered {code}: {}", text.trim()),
            );
            e.0.code = code;
            e
        },
        |s| ApiError(Box::new(s)),
    ))
}

/// A list's envelope; the items stay the bytes that they are.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

#[async_trait]
impl Api for Remote {
    async fn call(&self, r: Request) -> Result<Bytes, CallError> {
        let (method, content_type) = match r.verb {
            Verb::Get => (Method::GET, ""),
            Verb::Create => (Method::POST, "application/json"),
            Verb::Update => (Method::PUT, "application/json"),
            Verb::Patch(kind) => (Method::PATCH, kind.content_type()),
            Verb::Delete => (Method::DELETE, "application/json"),
        };
        let path = path(r.resource, &r.namespace, &r.name, r.subresource);
        let path = with_query(path, r.query.iter().map(|(k, v)| (*k, v.as_str())));
        Ok(self.raw(method, &path, content_type, r.body).await?.body)
    }

    async fn list(
        &self,
        resource: &'static Resource,
        p: ListParams,
    ) -> Result<ListPage, CallError> {
        let limit = if p.limit == 0 {
            String::new()
        } else {
            p.limit.to_string()
        };
        let path = with_query(
            path(resource, &p.namespace, "", ""),
            [
                ("labelSelector", p.label_selector.as_str()),
                ("fieldSelector", &p.field_selector),
                ("limit", &limit),
                ("continue", &p.continue_token),
            ],
        );
        let body = self.raw(Method::GET, &path, "", Bytes::new()).await?.body;
        let list: List<'_> =
            serde_json::from_slice(&body).map_err(|e| CallError::Malformed(e.to_string()))?;
        Ok(ListPage {
            // A slice of the answer: nothing is copied.
            items: list
                .items
                .iter()
                .map(|i| body.slice_ref(i.get().as_bytes()))
                .collect(),
            resource_version: list.metadata.resource_version,
            continue_token: list.metadata.r#continue,
        })
    }

    async fn watch(
        &self,
        resource: &'static Resource,
        p: WatchParams,
    ) -> Result<WatchStream, CallError> {
        let path = with_query(
            path(resource, &p.namespace, "", ""),
            [
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("labelSelector", p.label_selector.as_str()),
                ("fieldSelector", &p.field_selector),
                ("resourceVersion", &p.resource_version),
            ],
        );
        let head = tokio::time::timeout(
            CALL_TIMEOUT,
            self.send(Method::GET, &path, "", Bytes::new()),
        )
        .await;
        let response = head.map_err(|_| CallError::Unavailable {
            reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            maybe_done: false,
        })??;
        Ok(watch::events(response.into_body()))
    }
}
