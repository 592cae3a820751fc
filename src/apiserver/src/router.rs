//! From a request to whoever answers it: authentication, authorization, and the paths that are no resource.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use kontiki_api::{ApiError, Reason};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::authn;
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::discovery::Discovery;
use crate::engine::Engine;
use crate::health;
use crate::metrics::{self, Observed, ServerMetrics};
use crate::openapi::OpenApi;
use crate::request::{Query, ResourcePath};
use crate::respond;
use crate::streams::Kubelets;
use crate::tls::Peer;
use crate::token::Tokens;
use crate::user::User;
use crate::version;

/// Reads that are served at the same time; more of them are refused with 429. Watches and streams do not count.
const READS_IN_FLIGHT_MAX: usize = 4096;
/// Writes that are served at the same time; more of them are refused with 429.
const WRITES_IN_FLIGHT_MAX: usize = 2048;
/// How long a request may take, watches and streams aside.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// What every request needs.
pub(crate) struct State {
    pub(crate) engine: Arc<Engine>,
    pub(crate) tokens: Tokens,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) metrics: ServerMetrics,
    pub(crate) kubelets: Option<Kubelets>,
    pub(crate) tasks: kontiki_base::Tasks,
    pub(crate) clock: Arc<dyn kontiki_base::Clock>,
    /// Where the server says that it is.
    pub(crate) address: String,
    pub(crate) ready: AtomicBool,
    pub(crate) reads: Semaphore,
    pub(crate) writes: Semaphore,
}

impl State {
    pub(crate) fn permits() -> (Semaphore, Semaphore) {
        (
            Semaphore::new(READS_IN_FLIGHT_MAX),
            Semaphore::new(WRITES_IN_FLIGHT_MAX),
        )
    }
}

/// Answers a request.
pub(crate) async fn serve(
    state: Arc<State>,
    peer: Arc<Peer>,
    req: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let head = req.method() == Method::HEAD;
    let path = ResourcePath::parse(req.uri().path());
    let query = Query::parse(req.uri().query());
    let method = req.method().clone();
    let mut response = admitted(&state, &peer, path.as_ref(), &query, req).await;
    if head {
        *response.body_mut() = Body::empty();
    }
    let h = response.headers_mut();
    h.entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    if let Ok(mut id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        // No two are the same: in HPACK's table of the connection each would push out a header that comes again.
        id.set_sensitive(true);
        h.insert(HeaderName::from_static("audit-id"), id);
    }
    observe(
        &state,
        path.as_ref(),
        &query,
        &method,
        response.status(),
        started.elapsed(),
    );
    response
}

fn observe(
    state: &State,
    path: Option<&ResourcePath>,
    q: &Query,
    method: &Method,
    status: StatusCode,
    took: Duration,
) {
    let verb = match (path, method) {
        (Some(p), _) if is_connect(p) => "CONNECT",
        (Some(p), m) if m == Method::GET => match p.verb(m, q) {
            "watch" => "WATCH",
            "list" => "LIST",
            _ => "GET",
        },
        (_, m) => match m.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            "HEAD" => "HEAD",
            _ => "OTHER",
        },
    };
    // Only resources that there are get a time series.
    let known = path.filter(|p| {
        state
            .engine
            .registry()
            .get(&p.group, &p.version, &p.resource)
            .is_some()
    });
    let text = |f: fn(&ResourcePath) -> &str| known.map_or("", f);
    let o = Observed {
        verb,
        group: text(|p| &p.group),
        version: text(|p| &p.version),
        resource: text(|p| &p.resource),
        subresource: if status.is_success() {
            text(|p| &p.subresource)
        } else {
            ""
        },
        code: status.as_u16(),
    };
    state.metrics.observe(&o, took);
}

/// Whether the path is a stream to a kubelet or through it.
pub(crate) fn is_connect(p: &ResourcePath) -> bool {
    matches!(
        p.subresource.as_str(),
        "exec" | "attach" | "portforward" | "proxy" | "log"
    )
}

async fn admitted(
    state: &Arc<State>,
    peer: &Peer,
    path: Option<&ResourcePath>,
    query: &Query,
    req: Request<Incoming>,
) -> Response<Body> {
    let user = match identify(state, peer, req.headers()) {
        Ok(u) => u,
        Err(e) => return respond::refusal(&e),
    };
    let method = req.method().clone();
    let verb = path.map(|p| p.verb(&method, query));
    let path_text = req.uri().path().to_owned();
    let path_verb = authz::path_verb(&method);
    let a = match (path, verb) {
        (Some(p), Some(verb)) => Attributes {
            verb,
            group: &p.group,
            namespace: &p.namespace,
            resource: &p.resource,
            subresource: &p.subresource,
            name: &p.name,
            path: "",
        },
        _ => Attributes {
            verb: &path_verb,
            path: &path_text,
            ..Attributes::default()
        },
    };
    if !authz::allowed(&user, &a) {
        let mut r = respond::refusal(&authz::forbidden(&user, &a));
        r.headers_mut().insert(
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        );
        return r;
    }
    let Some(path) = path else {
        return other(state, &path_text, query, &req).await;
    };
    let long = verb == Some("watch") || is_connect(path);
    if long {
        return crate::handlers::resource(state, &user, path, query, req).await;
    }
    let mutating = !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let permits = if mutating {
        &state.writes
    } else {
        &state.reads
    };
    let Ok(_permit) = permits.try_acquire() else {
        let e = ApiError::too_many_requests("too many requests, please try again later", 1);
        return respond::refusal(&e);
    };
    let _counted = state.metrics.serving(mutating);
    let work = crate::handlers::resource(state, &user, path, query, req);
    match tokio::time::timeout(REQUEST_TIME_MAX, Box::pin(work)).await {
        Ok(r) => r,
        Err(_) => {
            let message = "Timeout: request did not complete within requested timeout";
            respond::refusal(&ApiError::new(Reason::Timeout, message))
        }
    }
}

/// Who asks, and in whose name.
fn identify(state: &State, peer: &Peer, headers: &HeaderMap) -> Result<User, ApiError> {
    let user = authn::authenticate(peer, headers, &state.tokens, &state.engine)?;
    let Some(other) = authn::impersonated(headers)? else {
        return Ok(user);
    };
    let a = Attributes {
        verb: "impersonate",
        resource: "users",
        name: &other.name,
        ..Attributes::default()
    };
    if authz::allowed(&user, &a) {
        Ok(other)
    } else {
        Err(authz::forbidden(&user, &a))
    }
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The paths that are no resource.
async fn other(state: &State, path: &str, q: &Query, req: &Request<Incoming>) -> Response<Body> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ready = state.ready.load(Ordering::Acquire);
    match parts[..] {
        ["healthz" | "livez" | "readyz", ..] => {
            let r = health::answer(path, q, &state.engine, ready).await;
            return r.unwrap_or_else(respond::page_not_found);
        }
        ["metrics"] if req.method() == Method::GET => {
            let accept = req.headers().get(ACCEPT).and_then(|a| a.to_str().ok());
            let (content_type, body) = metrics::exposition(&state.metrics.all, accept);
            return respond::typed(StatusCode::OK, content_type, body);
        }
        ["openapi", "v2"] => return state.openapi.v2(req.headers()),
        ["openapi", "v3"] => return state.openapi.v3_index(),
        ["openapi", "v3", ..] => {
            let name = path
                .trim_start_matches("/openapi/v3/")
                .trim_end_matches('/');
            return state.openapi.v3(name, q, req.headers());
        }
        ["openid", "v1", "jwks"] => return jwks(state, req.headers()),
        [".well-known", "openid-configuration"] => return openid(state),
        ["version"] => return respond::json_value(StatusCode::OK, &version::info()),
        [""] => {
            let mut paths = vec![
                "/healthz".to_owned(),
                "/livez".into(),
                "/readyz".into(),
                "/metrics".into(),
            ];
            paths.extend(
                [
                    "/.well-known/openid-configuration",
                    "/api",
                    "/apis",
                    "/apis/",
                    "/openapi/v2",
                    "/openapi/v3",
                ]
                .map(String::from),
            );
            paths.extend(["/openapi/v3/", "/openid/v1/jwks", "/version"].map(String::from));
            paths.extend(health::paths());
            for (g, v) in state.discovery.group_versions() {
                if g.is_empty() {
                    paths.push(format!("/api/{v}"));
                } else {
                    paths.extend([format!("/apis/{g}"), format!("/apis/{g}/{v}")]);
                }
            }
            paths.sort();
            paths.dedup();
            return respond::json_value(StatusCode::OK, &json!({"paths": paths}));
        }
        ["api" | "apis", ..] => {}
        _ => return respond::page_not_found(),
    }
    if req.method() != Method::GET && req.method() != Method::HEAD {
        let mut r = respond::refusal(&respond::method_not_allowed());
        r.headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return r;
    }
    discovery(state, &parts, req.headers())
}

fn discovery(state: &State, parts: &[&str], headers: &HeaderMap) -> Response<Body> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|a| a.to_str().ok())
        .unwrap_or_default();
    let whole = matches!(parts, ["api"] | ["apis"]);
    let compact = accept.replace(' ', "");
    if whole && compact.contains(AGGREGATED) {
        let v = state.discovery.aggregated(parts == ["api"]);
        let mut r = respond::json_value(StatusCode::OK, v);
        let h = r.headers_mut();
        h.insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        h.insert(VARY, HeaderValue::from_static("Accept"));
        let etag = format!("\"{:016X}\"", fingerprint(v));
        if let Ok(v) = HeaderValue::from_str(&etag) {
            h.insert(ETAG, v);
        }
        return r;
    }
    let a = match crate::negotiate::negotiate(accept, &Query::default(), false) {
        Ok(a) => a,
        Err(e) => return respond::refusal(&e),
    };
    let found = match *parts {
        ["api"] => Some(state.discovery.core_versions(&state.address)),
        ["apis"] => Some(state.discovery.group_list()),
        ["api", version] => state.discovery.resources("", version).cloned(),
        ["apis", group] => match state.discovery.group(group) {
            Some(g) => Some(g),
            None => return respond::page_not_found(),
        },
        ["apis", group, version] => match state.discovery.resources(group, version) {
            Some(r) => Some(r.clone()),
            None if state.discovery.has_group(group) => None,
            None => return respond::page_not_found(),
        },
        _ => return respond::page_not_found(),
    };
    match found {
        Some(v) => {
            let now = state.clock.now();
            respond::encoded(
                StatusCode::OK,
                &v,
                &respond::Style {
                    accepted: a,
                    gzip: false,
                    now,
                },
            )
        }
        None => respond::refusal(&respond::resource_not_found()),
    }
}

fn fingerprint(v: &Value) -> u64 {
    use sha2::Digest;
    let d = sha2::Sha256::digest(v.to_string());
    u64::from_be_bytes(d[..8].try_into().expect("a digest has 32 bytes"))
}

fn openid(state: &State) -> Response<Body> {
    let v = json!({
        "issuer": state.tokens.issuer(),
        "jwks_uri": format!("https://{}/openid/v1/jwks", state.address),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    respond::typed(StatusCode::OK, "application/json", v.to_string())
}

fn jwks(state: &State, headers: &HeaderMap) -> Response<Body> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|a| a.to_str().ok())
        .unwrap_or("*/*");
    if !["*/*", "application/*", "application/jwk-set+json"]
        .iter()
        .any(|m| accept.contains(m))
    {
        let why = "only the following media types are accepted: application/jwk-set+json";
        let mut e = ApiError::new(Reason::NotAcceptable, why);
        e.0.with_details = true;
        return respond::refusal(&e);
    }
    let v = json!({"keys": [state.tokens.jwk()]});
    respond::typed(StatusCode::OK, "application/jwk-set+json", v.to_string())
}
