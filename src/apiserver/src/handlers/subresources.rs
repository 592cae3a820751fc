//! Subresources that speak a kind of their own: binding, eviction, scale, token.

use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use kontiki_api::{ApiError, object};
use kontiki_schema::Expected;
use serde_json::{Value, json};

use super::bodies::PatchType;
use super::{Ask, bodies, read_body};
use crate::body::Body;
use crate::engine::{Call, Patch, SCALE, Target};
use crate::options::WriteVerb;
use crate::respond;
use crate::schemas;

/// Answers a request for such a subresource.
pub(super) async fn answer(
    ask: &Ask<'_>,
    method: &Method,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    match (ask.path.subresource.as_str(), method) {
        ("scale", &Method::GET) => {
            let v = ask.state.engine.get_scale(ask.target()).await?;
            Ok(respond::encoded(StatusCode::OK, &v, &ask.style))
        }
        ("scale", &Method::PUT) => {
            let call = ask.call(WriteVerb::Update)?;
            let (v, warnings) = read(ask, body, SCALE, &call).await?;
            let written = ask
                .state
                .engine
                .update_scale(ask.target(), v, &call)
                .await?;
            Ok(scaled(ask, &written.object, &warnings))
        }
        ("scale", &Method::PATCH) => {
            let (kind, verb) = bodies::patch_kind(ask.header(CONTENT_TYPE))?;
            let call = ask.call(verb)?;
            let bytes = read_body(body).await?;
            let patch = match kind {
                PatchType::Json => Patch::Json(bytes),
                PatchType::Merge => Patch::Merge(bytes),
                PatchType::Strategic => Patch::Strategic(bytes),
                PatchType::Apply => {
                    let schema = schemas::of_kind(SCALE.group, SCALE.version, SCALE.kind);
                    Patch::Apply(
                        bodies::decode(
                            "application/yaml",
                            &bytes,
                            schema,
                            SCALE,
                            call.options.field_validation,
                        )?
                        .0,
                    )
                }
            };
            let written = ask
                .state
                .engine
                .patch_scale(ask.target(), &patch, &call)
                .await?;
            Ok(scaled(ask, &written.object, &[]))
        }
        ("binding", _) => {
            let call = ask.call(WriteVerb::Create)?;
            let expected = Expected {
                group: "",
                version: "v1",
                kind: "Binding",
            };
            let (v, _) = read(ask, body, expected, &call).await?;
            bind(ask, &ask.path.name, &v, &call).await
        }
        ("eviction", _) => {
            let call = ask.call(WriteVerb::Create)?;
            let expected = Expected {
                group: "policy",
                version: "v1",
                kind: "Eviction",
            };
            let (v, _) = read(ask, body, expected, &call).await?;
            ask.state.engine.evict(ask.target(), &v, &call).await?;
            Ok(success(ask))
        }
        ("token", _) => {
            let call = ask.call(WriteVerb::Create)?;
            let expected = Expected {
                group: "authentication.k8s.io",
                version: "v1",
                kind: "TokenRequest",
            };
            let (v, _) = read(ask, body, expected, &call).await?;
            let name = object::name(&v);
            if !name.is_empty() && name != ask.path.name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    ask.path.name
                )));
            }
            let account = ask.state.engine.get(ask.target(), None).await?.decode();
            let v = ask.state.tokens.request(&account, &v, &ask.state.engine)?;
            Ok(respond::encoded(StatusCode::CREATED, &v, &ask.style))
        }
        _ => Err(respond::method_not_allowed()),
    }
}

async fn read(
    ask: &Ask<'_>,
    body: Incoming,
    expected: Expected<'_>,
    call: &Call<'_>,
) -> Result<(Value, Vec<String>), ApiError> {
    let bytes = read_body(body).await?;
    let schema = schemas::of_kind(expected.group, expected.version, expected.kind);
    let (mut v, warnings) = bodies::decode(
        ask.header(CONTENT_TYPE),
        &bytes,
        schema,
        expected,
        call.options.field_validation,
    )?;
    kontiki_schema::default(schema, &mut v);
    Ok((v, warnings))
}

fn scaled(ask: &Ask<'_>, bytes: &[u8], warnings: &[String]) -> Response<Body> {
    let v: Value = serde_json::from_slice(bytes).expect("the engine gives JSON");
    let mut r = respond::encoded(StatusCode::OK, &v, &ask.style);
    respond::warn(&mut r, warnings);
    r
}

/// Binds a pod.
pub(super) async fn bind(
    ask: &Ask<'_>,
    name: &str,
    binding: &Value,
    call: &Call<'_>,
) -> Result<Response<Body>, ApiError> {
    let pods = kontiki_api::catalogue::known::pods();
    let kind = ask
        .state
        .engine
        .registry()
        .of(pods)
        .expect("pods are served");
    let target = Target {
        kind,
        namespace: &ask.path.namespace,
        name,
    };
    ask.state.engine.bind(target, binding, call).await?;
    Ok(success(ask))
}

fn success(ask: &Ask<'_>) -> Response<Body> {
    let v = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::encoded(StatusCode::CREATED, &v, &ask.style)
}
