//! Creation (upstream's `createHandler`, `rest.BeforeCreate`, `Store.Create`).

use std::sync::Arc;

use kontiki_api::{ApiError, Reason, names, object};
use serde_json::Value;

use super::{Call, Engine, Target, Written, metadata};
use crate::cache::Entry;
use crate::registry::Kind;
use crate::schemas;
use crate::stored;

/// How often another name is tried when a generated one is taken.
const GENERATE_NAME_TRIES_MAX: usize = 8;

impl Engine {
    /// Creates an object. `v` is decoded, checked and defaulted.
    pub(crate) async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        v: Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let generates = object::name(&v).is_empty()
            && !object::text(&v, &["metadata", "generateName"]).is_empty();
        if !generates {
            return self.create_once(kind, namespace, v, call).await;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.create_once(kind, namespace, v.clone(), call).await {
                Err(e)
                    if e.reason() == Reason::AlreadyExists && tries < GENERATE_NAME_TRIES_MAX => {}
                other => return other,
            }
        }
    }

    /// Creates what an apply made; its managed fields are right already.
    pub(super) async fn create_applied(
        &self,
        t: Target<'_>,
        v: Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let now = object::time_text(self.now());
        self.store_new(t.kind, t.namespace, v, call, &now).await
    }

    async fn create_once(
        &self,
        kind: &Kind,
        namespace: &str,
        mut v: Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let now = object::time_text(self.now());
        match_namespace(&mut v, kind, namespace)?;
        schemas::track_create(kind, &mut v, &call.options.field_manager, &now);
        self.store_new(kind, namespace, v, call, &now).await
    }

    async fn store_new(
        &self,
        kind: &Kind,
        namespace: &str,
        mut v: Value,
        call: &Call<'_>,
        now: &str,
    ) -> Result<Written, ApiError> {
        let _turn = self.turn(kind).await;
        let cx = self.context(namespace, call, now);
        self.admit_namespace(kind, namespace, &v).await?;
        let generate = object::text(&v, &["metadata", "generateName"]).to_owned();
        if object::name(&v).is_empty() && !generate.is_empty() {
            metadata::of(&mut v).insert("name".into(), names::generate(&generate).into());
        }
        metadata::fill_new(&mut v, kind, now);
        kind.strategy.prepare_for_create(&cx, &mut v);
        kind.strategy.admit_create(&cx, &mut v)?;
        let mut errors = metadata::validate(&v, kind);
        errors.extend(kind.strategy.validate(&cx, &v));
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                kind.storage.group,
                kind.resource.kind,
                object::name(&v),
                &errors,
            ));
        }
        call.warn(kind.strategy.warnings(&v, None));
        if !matches!(object::text(&v, &["metadata", "resourceVersion"]), "" | "0") {
            return Err(ApiError::new(
                Reason::Unknown,
                "resourceVersion should not be set on objects to be created",
            ));
        }
        metadata::of(&mut v).remove("resourceVersion");
        let name = object::name(&v).to_owned();
        let exists = || ApiError::already_exists(kind.resource, &name);
        if call.options.dry_run {
            if kind.cache.get(namespace, &name).is_some() {
                return Err(exists());
            }
            let object = serde_json::to_vec(&v)
                .expect("a value is written to memory")
                .into();
            return Ok(Written {
                object,
                created: true,
            });
        }
        let value = stored::encode(&v);
        match self.put(&kind.cache, (namespace, &name), value, 0).await? {
            Some(object) => Ok(Written {
                object,
                created: true,
            }),
            None => {
                let mut e = exists();
                let deleting = |e: Arc<Entry>| {
                    object::get(&e.decode(), &["metadata", "deletionTimestamp"]).is_some()
                };
                if kind.cache.get(namespace, &name).is_some_and(deleting) {
                    e.0.message = format!("object is being deleted: {}", e.0.message);
                }
                Err(e)
            }
        }
    }
}

/// The namespace of the object is that of the request, and may be left out.
pub(super) fn match_namespace(v: &mut Value, kind: &Kind, namespace: &str) -> Result<(), ApiError> {
    let meta = metadata::of(v);
    let own = meta
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !kind.resource.namespaced {
        meta.remove("namespace");
    } else if own.is_empty() {
        meta.insert("namespace".into(), namespace.into());
    } else if own != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
