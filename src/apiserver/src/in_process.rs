//! The API for loops in the same process: the engine without HTTP, sharing the cache's bytes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kontiki_api::{ApiError, Reason, Resource, fields, labels};
use kontiki_raft::Observation;
use kontiki_reconcile::{
    Api, CallError, ListPage, ListParams, PatchKind, Request, Verb, WatchEvent, WatchParams,
    WatchStream,
};
use kontiki_schema::Expected;
use serde_json::{Value, json};

use crate::cache::EventKind;
use crate::convert;
use crate::engine::{
    Call, Engine, ListOptions, Part, Patch, SCALE, Target, Told, Watch, WatchOptions, selectors,
};
use crate::options::{DeleteOptions, WriteOptions, WriteVerb};
use crate::registry::Kind;
use crate::request::Query;
use crate::respond;
use crate::router::State;
use crate::schemas;
use crate::user::User;

/// The engine as an [`Api`].
pub(crate) struct InProcess {
    state: Arc<State>,
    user: User,
    /// The caches are fed as long as somebody uses them.
    _observation: Arc<Observation>,
}

impl InProcess {
    pub(crate) fn new(state: Arc<State>, observation: Arc<Observation>) -> InProcess {
        InProcess {
            state,
            user: User::server(),
            _observation: observation,
        }
    }

    fn engine(&self) -> &Engine {
        &self.state.engine
    }

    fn kind(&self, r: &Resource) -> Result<&Arc<Kind>, ApiError> {
        self.engine()
            .registry()
            .of(r)
            .ok_or_else(respond::resource_not_found)
    }

    async fn carry_out(&self, r: Request) -> Result<Bytes, ApiError> {
        let kind = self.kind(r.resource)?;
        if kind.is_storage_version() {
            return self.carry_out_stored(kind, r).await;
        }
        let bytes = self.carry_out_stored(kind, r).await?;
        let mut v: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
        convert::convert(&mut v, kind.storage, kind.resource);
        Ok(v.to_string().into())
    }

    async fn carry_out_stored(&self, kind: &Arc<Kind>, r: Request) -> Result<Bytes, ApiError> {
        let t = Target {
            kind,
            namespace: &r.namespace,
            name: &r.name,
        };
        let q = Query::of_pairs(&r.query);
        let call = |verb| -> Result<Call<'_>, ApiError> {
            Ok(Call::new(
                &self.user,
                WriteOptions::from_query(&q, verb, "kontiki")?,
            ))
        };
        let engine = self.engine();
        let part = Part::of(r.subresource);
        match r.verb {
            Verb::Get if r.subresource == "scale" => {
                Ok(engine.get_scale(t).await?.to_string().into())
            }
            Verb::Get => Ok(engine.get(t, None).await?.bytes().clone()),
            Verb::Create if r.subresource.is_empty() => {
                let v = self.object(kind, &r.body)?;
                if crate::reviews::is_review(kind.resource.group, kind.resource.plural) {
                    let (plural, ns) = (kind.resource.plural, &r.namespace);
                    let v = crate::reviews::answer(
                        plural,
                        ns,
                        v,
                        &self.user,
                        &self.state.tokens,
                        engine,
                    )?;
                    return Ok(v.to_string().into());
                }
                Ok(engine
                    .create(kind, &r.namespace, v, &call(WriteVerb::Create)?)
                    .await?
                    .object)
            }
            Verb::Create => {
                self.create_subresource(t, r.subresource, &r.body, &call(WriteVerb::Create)?)
                    .await
            }
            Verb::Update if r.subresource == "scale" => {
                let v = decode(&r.body, SCALE)?;
                Ok(engine
                    .update_scale(t, v, &call(WriteVerb::Update)?)
                    .await?
                    .object)
            }
            Verb::Update => {
                let part = part.ok_or_else(respond::method_not_allowed)?;
                let v = self.object(kind, &r.body)?;
                Ok(engine
                    .update(t, part, v, &call(WriteVerb::Update)?)
                    .await?
                    .object)
            }
            Verb::Patch(how) => {
                let verb = if how == PatchKind::Apply {
                    WriteVerb::Apply
                } else {
                    WriteVerb::Patch
                };
                let call = call(verb)?;
                let patch = match how {
                    PatchKind::Json => Patch::Json(r.body),
                    PatchKind::Merge => Patch::Merge(r.body),
                    PatchKind::Strategic => Patch::Strategic(r.body),
                    PatchKind::Apply => Patch::Apply(
                        serde_json::from_slice(&r.body)
                            .map_err(|e| ApiError::bad_request(e.to_string()))?,
                    ),
                };
                if r.subresource == "scale" {
                    return Ok(engine.patch_scale(t, &patch, &call).await?.object);
                }
                let part = part.ok_or_else(respond::method_not_allowed)?;
                Ok(engine.patch(t, part, &patch, &call).await?.object)
            }
            Verb::Delete => {
                let options = if r.body.is_empty() {
                    DeleteOptions::from_query(&q)?
                } else {
                    let v: Value = serde_json::from_slice(&r.body)
                        .map_err(|e| ApiError::bad_request(e.to_string()))?;
                    DeleteOptions::from_value(&v)?
                };
                let call = Call::new(&self.user, WriteOptions::default());
                Ok(engine.delete(t, &options, &call).await?.answer)
            }
        }
    }

    fn object(&self, kind: &Kind, body: &[u8]) -> Result<Value, ApiError> {
        let mut v = decode(body, schemas::expected(kind.resource))?;
        convert::convert(&mut v, kind.resource, kind.storage);
        schemas::default(kind, &mut v);
        Ok(v)
    }

    async fn create_subresource(
        &self,
        t: Target<'_>,
        subresource: &str,
        body: &[u8],
        call: &Call<'_>,
    ) -> Result<Bytes, ApiError> {
        let expected = |group, kind| Expected {
            group,
            version: "v1",
            kind,
        };
        match subresource {
            "binding" => {
                self.engine()
                    .bind(t, &decode(body, expected("", "Binding"))?, call)
                    .await?;
            }
            "eviction" => {
                self.engine()
                    .evict(t, &decode(body, expected("policy", "Eviction"))?, call)
                    .await?;
            }
            "token" => {
                let request = decode(body, expected("authentication.k8s.io", "TokenRequest"))?;
                let account = self.engine().get(t, None).await?.decode();
                return Ok(self
                    .state
                    .tokens
                    .request(&account, &request, self.engine())?
                    .to_string()
                    .into());
            }
            _ => return Err(respond::method_not_allowed()),
        }
        Ok(
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
                .to_string()
                .into(),
        )
    }
}

fn decode(body: &[u8], expected: Expected<'_>) -> Result<Value, ApiError> {
    let schema = schemas::of_kind(expected.group, expected.version, expected.kind);
    Ok(kontiki_schema::decode(body, schema, expected, kontiki_schema::Strictness::Ignore)?.value)
}

fn chosen(
    kind: &Kind,
    label_selector: &str,
    field_selector: &str,
) -> Result<(labels::Selector, fields::Selector), ApiError> {
    let q = Query::of_pairs(&[
        ("labelSelector", label_selector.to_owned()),
        ("fieldSelector", field_selector.to_owned()),
    ]);
    selectors(&q, kind)
}

/// The object in the version of the request.
fn shown(kind: &Kind, bytes: Bytes) -> Bytes {
    if kind.is_storage_version() {
        return bytes;
    }
    let mut v: Value = serde_json::from_slice(&bytes).expect("the cache holds JSON");
    convert::convert(&mut v, kind.storage, kind.resource);
    v.to_string().into()
}

fn event(kind: &Kind, told: Told) -> WatchEvent {
    match told {
        Told::Bookmark(revision, _) => WatchEvent::Bookmark(revision.to_string()),
        Told::Change(d) => {
            let object = shown(kind, d.object());
            match d.kind {
                EventKind::Added => WatchEvent::Added(object),
                EventKind::Modified => WatchEvent::Modified(object),
                EventKind::Deleted => WatchEvent::Deleted(object),
            }
        }
    }
}

/// What a failure means to a loop: a store that cannot be reached is no refusal.
fn failed(e: ApiError) -> CallError {
    match e.reason() {
        Reason::ServiceUnavailable => CallError::Unavailable {
            reason: e.to_string(),
            maybe_done: false,
        },
        Reason::Timeout => CallError::Unavailable {
            reason: e.to_string(),
            maybe_done: true,
        },
        _ => CallError::Refused(e),
    }
}

#[async_trait]
impl Api for InProcess {
    async fn call(&self, request: Request) -> Result<Bytes, CallError> {
        self.carry_out(request).await.map_err(failed)
    }

    async fn list(
        &self,
        resource: &'static Resource,
        p: ListParams,
    ) -> Result<ListPage, CallError> {
        let list = async {
            let kind = self.kind(resource)?;
            let (labels, fields) = chosen(kind, &p.label_selector, &p.field_selector)?;
            let options = ListOptions {
                labels,
                fields,
                limit: p.limit,
                token: p.continue_token.clone(),
                ..ListOptions::default()
            };
            let list = self.engine().list(kind, &p.namespace, &options).await?;
            Ok(ListPage {
                items: list
                    .entries
                    .iter()
                    .map(|e| shown(kind, e.bytes().clone()))
                    .collect(),
                resource_version: list.revision.to_string(),
                continue_token: list.token,
            })
        };
        list.await.map_err(failed)
    }

    async fn watch(
        &self,
        resource: &'static Resource,
        p: WatchParams,
    ) -> Result<WatchStream, CallError> {
        let begin = async {
            let kind = self.kind(resource)?;
            let (labels, fields) = chosen(kind, &p.label_selector, &p.field_selector)?;
            let revision = p.resource_version.parse().ok();
            let options = WatchOptions {
                labels,
                fields,
                revision,
                bookmarks: true,
                ..WatchOptions::default()
            };
            let watch = self.engine().watch(kind, &p.namespace, options).await?;
            Ok((kind.clone(), watch))
        };
        let (kind, watch): (Arc<Kind>, Watch) = begin.await.map_err(failed)?;
        let stream = futures::stream::unfold((kind, watch), |(kind, mut watch)| async move {
            let told = watch.next().await?;
            Some((event(&kind, told), (kind, watch)))
        });
        Ok(stream.boxed())
    }
}
