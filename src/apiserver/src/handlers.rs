//! Requests for resources: reads options and body, calls the engine, writes the answer. The same for every kind.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use kontiki_api::{ApiError, Reason};
use serde_json::Value;

use crate::body::{Body, WatchBody};

use crate::engine::{Call, ListOptions, Part, Target, WatchOptions, Written};
use crate::negotiate;
use crate::options::{DeleteOptions, WriteOptions, WriteVerb};
use crate::registry::Kind;
use crate::request::{Query, ResourcePath};
use crate::respond::{self, Style};
use crate::router::State;
use crate::streams;
use crate::user::User;

mod bodies;
mod subresources;

/// The most bytes of a body (upstream's `MaxRequestBodyBytes`).
const BODY_BYTES_MAX: usize = 3 << 20;

/// A request for a resource, taken apart.
struct Ask<'a> {
    state: &'a Arc<State>,
    user: &'a User,
    kind: &'a Arc<Kind>,
    path: &'a ResourcePath,
    query: &'a Query,
    headers: &'a HeaderMap,
    style: Style,
}

impl Ask<'_> {
    fn target(&self) -> Target<'_> {
        Target {
            kind: self.kind,
            namespace: &self.path.namespace,
            name: &self.path.name,
        }
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    fn call(&self, verb: WriteVerb) -> Result<Call<'_>, ApiError> {
        let options = WriteOptions::from_query(self.query, verb, self.header(USER_AGENT))?;
        Ok(Call::new(self.user, options))
    }

    /// The answer to a write; the warnings go with a refusal as well.
    fn written(&self, result: Result<Written, ApiError>, call: &Call<'_>) -> Response<Body> {
        let mut r = match result {
            Ok(w) => {
                let status = if w.created {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                };
                respond::object(status, self.kind, w.object, &self.style)
            }
            Err(e) => respond::refusal(&e),
        };
        respond::warn(&mut r, &call.take_warnings());
        r
    }
}

/// Answers a request for a resource.
pub(crate) async fn resource(
    state: &Arc<State>,
    user: &User,
    path: &ResourcePath,
    query: &Query,
    req: Request<Incoming>,
) -> Response<Body> {
    match try_resource(state, user, path, query, req).await {
        Ok(r) => r,
        Err(e) => respond::refusal(&e),
    }
}

async fn try_resource(
    state: &Arc<State>,
    user: &User,
    path: &ResourcePath,
    query: &Query,
    req: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let Some(kind) = state
        .engine
        .registry()
        .get(&path.group, &path.version, &path.resource)
    else {
        let known = state.discovery.has_group(&path.group);
        return if known {
            Err(respond::resource_not_found())
        } else {
            Ok(respond::page_not_found())
        };
    };
    if !path.subresource.is_empty() && kind.resource.subresource(&path.subresource).is_none() {
        return Err(respond::resource_not_found());
    }
    if streams::is_stream(&path.subresource) {
        return Ok(streams::answer(state, user, kind, path, query, req).await);
    }
    // A namespaced object is only reached through its namespace, and a cluster-scoped one only without.
    if kind.resource.namespaced == path.namespace.is_empty()
        && (!path.name.is_empty() || !kind.resource.namespaced)
    {
        return Err(respond::resource_not_found());
    }
    let (head, body) = req.into_parts();
    let accept = head
        .headers
        .get(ACCEPT)
        .and_then(|a| a.to_str().ok())
        .unwrap_or_default();
    let gzip = head
        .headers
        .get(ACCEPT_ENCODING)
        .and_then(|a| a.to_str().ok())
        .is_some_and(|a| a.contains("gzip"));
    let unprinted = !path.subresource.is_empty() && Part::of(&path.subresource).is_none();
    let accepted = negotiate::negotiate(accept, query, !unprinted);
    let style = |accepted| Style {
        accepted,
        gzip,
        now: state.clock.now(),
    };
    let mut ask = Ask {
        state,
        user,
        kind,
        path,
        query,
        headers: &head.headers,
        style: style(negotiate::Accepted::JSON),
    };
    let verb = path.verb(&head.method, query);
    check_verb(kind, path, &head.method, verb)?;
    let mut r = match accepted {
        Ok(a) => {
            ask.style = style(a);
            answer(&ask, verb, &head.method, body)
                .await
                .unwrap_or_else(|e| respond::refusal(&e))
        }
        Err(e) => respond::refusal(&e),
    };
    if let Some(warning) = kind.traits.deprecation {
        respond::warn(&mut r, &[warning.to_owned()]);
    }
    Ok(r)
}

async fn answer(
    ask: &Ask<'_>,
    verb: &str,
    method: &Method,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    let path = ask.path;
    if !path.subresource.is_empty() && Part::of(&path.subresource).is_none() {
        return subresources::answer(ask, method, body).await;
    }
    match verb {
        "get" => get(ask).await,
        "list" => list(ask).await,
        "watch" => watch(ask).await,
        "create" => create(ask, body).await,
        "update" => update(ask, body).await,
        "patch" => patch(ask, body).await,
        "delete" => delete(ask, body).await,
        _ => delete_collection(ask, body).await,
    }
}

/// Whether the resource (or subresource) takes the verb, where it is asked.
fn check_verb(
    kind: &Kind,
    path: &ResourcePath,
    method: &Method,
    verb: &str,
) -> Result<(), ApiError> {
    let collection = path.name.is_empty();
    let fits = match *method {
        Method::GET => true,
        Method::POST => collection == path.subresource.is_empty(),
        Method::PUT | Method::PATCH => !collection,
        Method::DELETE => true,
        _ => false,
    };
    let all_namespaces = kind.resource.namespaced && path.namespace.is_empty();
    let readable = matches!(verb, "list" | "watch");
    let known = match kind.resource.subresource(&path.subresource) {
        Some(s) => s.verbs.contains(&verb),
        None => kind.resource.has_verb(verb),
    };
    if fits && known && (readable || !all_namespaces) {
        Ok(())
    } else {
        Err(respond::method_not_allowed())
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {BODY_BYTES_MAX}"),
        )),
        Err(e) => Err(ApiError::bad_request(format!(
            "error reading the request's body: {e}"
        ))),
    }
}

async fn get(ask: &Ask<'_>) -> Result<Response<Body>, ApiError> {
    if ask.kind.resource.plural == "componentstatuses" {
        return Err(ApiError::not_found(ask.kind.resource, &ask.path.name));
    }
    let revision = ask.query.get("resourceVersion").parse().ok();
    let entry = ask.state.engine.get(ask.target(), revision).await?;
    Ok(respond::object(
        StatusCode::OK,
        ask.kind,
        entry.bytes().clone(),
        &ask.style,
    ))
}

async fn list(ask: &Ask<'_>) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::from_query(ask.query, ask.kind)?;
    check_include(ask)?;
    let list = ask
        .state
        .engine
        .list(ask.kind, &ask.path.namespace, &options)
        .await?;
    Ok(respond::list(ask.kind, list, &ask.style))
}

fn check_include(ask: &Ask<'_>) -> Result<(), ApiError> {
    let include = ask.query.get("includeObject");
    if ask.style.accepted.transform == negotiate::Transform::Table
        && !matches!(include, "" | "None" | "Metadata" | "Object")
    {
        return Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {include:?}: must be 'Metadata', 'Object', 'None', or empty"
        )));
    }
    Ok(())
}

async fn watch(ask: &Ask<'_>) -> Result<Response<Body>, ApiError> {
    let mut options = WatchOptions::from_query(ask.query, ask.kind)?;
    if !ask.path.name.is_empty() {
        let name = kontiki_api::fields::Term {
            field: "metadata.name".into(),
            value: ask.path.name.clone(),
            negated: false,
        };
        options.fields.terms.push(name);
    }
    let content_type = ask.style.accepted.format.stream_type();
    let started = ask
        .state
        .engine
        .watch(ask.kind, &ask.path.namespace, options)
        .await;
    let watch = match started {
        Ok(w) => w,
        // Upstream has begun to answer by then: the refusal is the only event.
        Err(e) if e.reason() == Reason::Expired => {
            return Ok(respond::typed(
                StatusCode::OK,
                content_type,
                respond::error_event(&e),
            ));
        }
        Err(e) => return Err(e),
    };
    let encoder = respond::WatchEncoder::new(
        ask.kind.clone(),
        ask.style.accepted,
        ask.state.clock.clone(),
    );
    let body = WatchBody::new(watch, encoder, ask.state.metrics.watching());
    let mut r = Response::new(Body::Watch(Box::new(body)));
    r.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(r)
}

async fn create(ask: &Ask<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let call = ask.call(WriteVerb::Create)?;
    let bytes = read_body(body).await?;
    let (v, warnings) = bodies::object(ask, &bytes, call.options.field_validation)?;
    call.warn(warnings);
    let engine = &ask.state.engine;
    let (plural, ns) = (ask.kind.resource.plural, &ask.path.namespace);
    if crate::reviews::is_review(ask.kind.resource.group, plural) {
        let v = crate::reviews::answer(plural, ns, v, ask.user, &ask.state.tokens, engine)?;
        let mut r = respond::encoded(StatusCode::CREATED, &v, &ask.style);
        respond::warn(&mut r, &call.take_warnings());
        return Ok(r);
    }
    if plural == "bindings" {
        return subresources::bind(ask, kontiki_api::object::name(&v), &v, &call).await;
    }
    Ok(ask.written(engine.create(ask.kind, ns, v, &call).await, &call))
}

async fn update(ask: &Ask<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let call = ask.call(WriteVerb::Update)?;
    let bytes = read_body(body).await?;
    let (v, warnings) = bodies::object(ask, &bytes, call.options.field_validation)?;
    call.warn(warnings);
    let part = Part::of(&ask.path.subresource).expect("it was looked at");
    let written = ask.state.engine.update(ask.target(), part, v, &call).await;
    Ok(ask.written(written, &call))
}

async fn patch(ask: &Ask<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let (patch, verb) = bodies::patch_kind(ask.header(CONTENT_TYPE))?;
    let call = ask.call(verb)?;
    let bytes = read_body(body).await?;
    let patch = bodies::patch(patch, bytes)?;
    let part = Part::of(&ask.path.subresource).expect("it was looked at");
    let written = ask
        .state
        .engine
        .patch(ask.target(), part, &patch, &call)
        .await;
    Ok(ask.written(written, &call))
}

/// A deletion's options come from its body; without one, from the query.
fn delete_options(ask: &Ask<'_>, bytes: &Bytes) -> Result<DeleteOptions, ApiError> {
    if bytes.is_empty() {
        DeleteOptions::from_query(ask.query)
    } else {
        bodies::delete_options(ask, bytes)
    }
}

fn delete_call<'a>(ask: &'a Ask<'_>) -> Call<'a> {
    Call::new(ask.user, WriteOptions::default())
}

async fn delete(ask: &Ask<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let bytes = read_body(body).await?;
    let options = delete_options(ask, &bytes)?;
    let call = delete_call(ask);
    let deleted = ask.state.engine.delete(ask.target(), &options, &call).await;
    let done = match deleted {
        Ok(d) => d,
        Err(e) => {
            let mut r = respond::refusal(&e);
            respond::warn(&mut r, &call.take_warnings());
            return Ok(r);
        }
    };
    let code = if !done.gone && options.orphan_dependents == Some(false) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let mut r = if done.is_object {
        respond::object(code, ask.kind, done.answer, &ask.style)
    } else {
        let v: Value = serde_json::from_slice(&done.answer).expect("the engine gives JSON");
        respond::encoded(code, &v, &ask.style)
    };
    respond::warn(&mut r, &call.take_warnings());
    Ok(r)
}

async fn delete_collection(ask: &Ask<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let bytes = read_body(body).await?;
    let what = ListOptions::from_query(ask.query, ask.kind)?;
    let options = delete_options(ask, &bytes)?;
    let call = delete_call(ask);
    let list = ask
        .state
        .engine
        .delete_collection(ask.kind, &ask.path.namespace, what, &options, &call)
        .await?;
    let mut r = respond::list(ask.kind, list, &ask.style);
    respond::warn(&mut r, &call.take_warnings());
    Ok(r)
}
