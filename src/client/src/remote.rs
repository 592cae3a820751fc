//! [`Remote`]: API calls over HTTP/2 to one of the masters.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kontiki_api::Resource;
use kontiki_pki::Identity;
use kontiki_reconcile::{
    Api, CallError, ListPage, ListParams, Request, Verb, WatchParams, WatchStream,
};

use crate::answer::{self, Events};
use crate::{Kubeconfig, SetupError, request};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take; the server's own limit is a minute.
const CALL_TIMEOUT: Duration = Duration::from_secs(65);
/// How long a page of a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the answer to a watch may take to begin.
const WATCH_START_TIMEOUT: Duration = Duration::from_secs(30);
/// A watch ends by itself after so long, and a new one goes on; watches are spread up to twice that.
const WATCH_SECONDS_MIN: u64 = 300;
/// An idle connection is asked for a sign of life so often.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Without a sign of life for so long the connection is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer to a call in bytes.
const CALL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest page of a list in bytes.
const LIST_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Where the masters are, and who we are.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The masters, as in `https://10.0.0.1:6443`; the first that answers is used until it does not.
    pub masters: Vec<String>,
    /// The CA of the masters, as PEM.
    pub ca_pem: String,
    /// Our certificate, if we have one.
    pub identity: Option<Identity>,
    /// Our token, if we have one.
    pub token: Option<String>,
}

impl From<Kubeconfig> for Config {
    fn from(k: Kubeconfig) -> Config {
        Config {
            masters: vec![k.server],
            ca_pem: k.ca_pem,
            identity: k.identity,
            token: k.token,
        }
    }
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, a success.
    pub status: http::StatusCode,
    /// The body.
    pub body: Bytes,
}

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The API of the masters. Clones share connections.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    masters: Vec<http::Uri>,
    /// The master that answered last.
    current: AtomicUsize,
    http: Http,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("masters", &self.0.masters)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Prepares calls; nothing is connected yet.
    ///
    /// # Errors
    /// An address or the credentials cannot be used.
    pub fn new(config: &Config) -> Result<Remote, SetupError> {
        let masters = config
            .masters
            .iter()
            .map(|m| master(m))
            .collect::<Result<Vec<_>, _>>()?;
        if masters.is_empty() {
            return Err(SetupError::NoMasters);
        }
        let tls = kontiki_pki::tls::client(&config.ca_pem, config.identity.as_ref(), &[])
            .map_err(SetupError::Credentials)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http2()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .build(https);
        let authorization = match &config.token {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| {
                    SetupError::Credentials(kontiki_pki::Error::Parse {
                        what: "token",
                        why: e.to_string(),
                    })
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Remote(Arc::new(Inner {
            masters,
            current: AtomicUsize::new(0),
            http,
            authorization,
        })))
    }

    /// Prepares calls with a kubeconfig's current context.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub fn from_kubeconfig(path: &Path) -> Result<Remote, SetupError> {
        Remote::new(&Kubeconfig::read(path)?.into())
    }

    /// Sends a request to any path, which the caller has escaped; an empty content type goes with an empty body.
    ///
    /// # Errors
    /// The server's refusal, or that no answer came.
    pub async fn raw(
        &self,
        method: http::Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let maybe_done = method != http::Method::GET;
        let response = self
            .send(method, path, content_type, body, CALL_TIMEOUT)
            .await?;
        let status = response.status();
        let body = Remote::read(response, LIST_BYTES_MAX, CALL_TIMEOUT, maybe_done).await?;
        Ok(Answer { status, body })
    }

    /// The master that answered last, as in `https://10.0.0.1:6443`.
    pub fn current_master(&self) -> String {
        let i = &self.0;
        i.masters[i.current.load(Ordering::Relaxed) % i.masters.len()].to_string()
    }

    /// Sends a request to the current master or, where that cannot have had an effect, to the next ones.
    async fn send(
        &self,
        method: http::Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<http::Response<Incoming>, CallError> {
        let i = &self.0;
        let first = i.current.load(Ordering::Relaxed);
        let is_read = method == http::Method::GET;
        let mut failure = None;
        for n in 0..i.masters.len() {
            let at = (first + n) % i.masters.len();
            let request = i.request(&i.masters[at], &method, path, content_type, body.clone());
            let result = tokio::time::timeout(timeout, i.http.request(request)).await;
            let (reason, certainly_not_done) = match result {
                Ok(Ok(response)) => {
                    i.current.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(Err(e)) => (chain(&e), e.is_connect()),
                Err(_) => (format!("no answer within {} s", timeout.as_secs()), false),
            };
            let reason = format!("{}: {reason}", i.masters[at]);
            tracing::debug!(reason, "a master did not answer");
            failure = Some(CallError::Unavailable {
                reason,
                maybe_done: !is_read && !certainly_not_done,
            });
            if !is_read && !certainly_not_done {
                break;
            }
        }
        // The next call begins with another master.
        i.current
            .store((first + 1) % i.masters.len(), Ordering::Relaxed);
        Err(failure.unwrap_or(CallError::Unavailable {
            reason: "there is no master".into(),
            maybe_done: false,
        }))
    }

    /// Reads an answer to its end; a refusal becomes an error.
    async fn read(
        response: http::Response<Incoming>,
        bytes_max: usize,
        timeout: Duration,
        maybe_done: bool,
    ) -> Result<Bytes, CallError> {
        let status = response.status();
        let collected = tokio::time::timeout(
            timeout,
            Limited::new(response.into_body(), bytes_max).collect(),
        )
        .await;
        let unavailable = |reason: String| CallError::Unavailable { reason, maybe_done };
        let body = match collected {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) => return Err(unavailable(format!("the answer broke off: {}", chain(&*e)))),
            Err(_) => {
                return Err(unavailable(format!(
                    "the answer did not end within {} s",
                    timeout.as_secs()
                )));
            }
        };
        if status.is_success() {
            return Ok(body);
        }
        Err(CallError::Refused(answer::refusal(status.as_u16(), &body)))
    }
}

impl Inner {
    fn request(
        &self,
        master: &http::Uri,
        method: &http::Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> http::Request<Full<Bytes>> {
        let base = master.to_string();
        let uri = format!("{}{path}", base.trim_end_matches('/'));
        let mut r = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("kontiki/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            r = r.header(CONTENT_TYPE, content_type);
        }
        if let Some(a) = &self.authorization {
            r = r.header(AUTHORIZATION, a.clone());
        }
        r.body(Full::new(body))
            .expect("address and path were checked or escaped")
    }
}

fn master(text: &str) -> Result<http::Uri, SetupError> {
    let wrong = |why: String| SetupError::Master {
        master: text.to_owned(),
        why,
    };
    let uri: http::Uri = text
        .parse()
        .map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    if uri.scheme_str() != Some("https") || uri.authority().is_none() {
        return Err(wrong("it has to look like https://HOST:PORT".into()));
    }
    Ok(uri)
}

fn chain(e: &(dyn Error + 'static)) -> String {
    kontiki_base::chain(e)
}

#[async_trait]
impl Api for Remote {
    async fn call(&self, request: Request) -> Result<Bytes, CallError> {
        let (method, path, content_type) = request::of_call(&request);
        let maybe_done = request.verb != Verb::Get;
        let response = self
            .send(method, &path, content_type, request.body, CALL_TIMEOUT)
            .await?;
        Remote::read(response, CALL_BYTES_MAX, CALL_TIMEOUT, maybe_done).await
    }

    async fn list(
        &self,
        resource: &'static Resource,
        params: ListParams,
    ) -> Result<ListPage, CallError> {
        let path = request::of_list(resource, &params);
        let response = self
            .send(http::Method::GET, &path, "", Bytes::new(), LIST_TIMEOUT)
            .await?;
        answer::list(&Remote::read(response, LIST_BYTES_MAX, LIST_TIMEOUT, false).await?)
    }

    async fn watch(
        &self,
        resource: &'static Resource,
        params: WatchParams,
    ) -> Result<WatchStream, CallError> {
        let seconds = WATCH_SECONDS_MIN + rand::random_range(0..=WATCH_SECONDS_MIN);
        let path = request::of_watch(resource, &params, seconds);
        let response = self
            .send(
                http::Method::GET,
                &path,
                "",
                Bytes::new(),
                WATCH_START_TIMEOUT,
            )
            .await?;
        if !response.status().is_success() {
            return Err(Remote::read(response, CALL_BYTES_MAX, CALL_TIMEOUT, false)
                .await
                .err()
                .unwrap_or_else(|| CallError::Malformed("a refusal without an error".into())));
        }
        let start = (response.into_body(), Events::default());
        let events = stream::unfold(Some(start), |at| async move {
            let (mut body, mut events) = at?;
            loop {
                match events.next() {
                    Some(Ok(e)) => return Some((e, Some((body, events)))),
                    // What cannot be read ends the watch; a new one goes on from the last event that was.
                    Some(Err(e)) => {
                        tracing::warn!(error = chain(&e), "a watch event cannot be read");
                        return None;
                    }
                    None => {}
                }
                match body.frame().await? {
                    Ok(frame) => {
                        if let Some(data) = frame.data_ref() {
                            events.push(data);
                        }
                    }
                    Err(e) => {
                        tracing::debug!(error = chain(&e), "a watch broke off");
                        return None;
                    }
                }
            }
        });
        Ok(events.boxed())
    }
}
