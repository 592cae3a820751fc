//! The `scale` subresource: the replicas of a workload, in one form for all kinds.

use kontiki_api::field::{Error, Path};
use kontiki_api::{ApiError, labels, object};
use serde_json::{Map, Value, json};

use super::update::{Intent, Part};
use super::{Call, Engine, Patch, Target, Written, metadata};
use crate::schemas;

impl Engine {
    /// The scale of a workload.
    pub(crate) async fn get_scale(&self, t: Target<'_>) -> Result<Value, ApiError> {
        Ok(of(&self.get(t, None).await?.decode()))
    }

    /// Sets the replicas of a workload from a `Scale`.
    pub(crate) async fn update_scale(
        &self,
        t: Target<'_>,
        scale: Value,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let mut make = |_: &Value| Ok(scale.clone());
        self.modify_scale(t, call, &mut make).await
    }

    /// Patches the scale of a workload.
    pub(crate) async fn patch_scale(
        &self,
        t: Target<'_>,
        patch: &Patch,
        call: &Call<'_>,
    ) -> Result<Written, ApiError> {
        let schema = schemas::of_kind("autoscaling", "v1", "Scale");
        let mut make = |old: &Value| {
            schemas::patched_as(schema, SCALE, old, patch, call.options.field_validation)
        };
        self.modify_scale(t, call, &mut make).await
    }

    async fn modify_scale(
        &self,
        t: Target<'_>,
        call: &Call<'_>,
        make: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
    ) -> Result<Written, ApiError> {
        let mut outer = |old: &Value| {
            let scale = make(&of(old))?;
            let replicas = object::int(&scale, &["spec", "replicas"]).unwrap_or(0);
            if replicas < 0 {
                let path = Path::new("spec").child("replicas");
                let e = Error::invalid(&path, replicas, "must be greater than or equal to 0");
                return Err(ApiError::invalid("autoscaling", "Scale", t.name, &[e]));
            }
            let mut new = old.clone();
            let revision = object::text(&scale, &["metadata", "resourceVersion"]);
            metadata::of(&mut new).insert("resourceVersion".into(), revision.into());
            let uid = object::uid(&scale);
            if !uid.is_empty() {
                metadata::of(&mut new).insert("uid".into(), uid.into());
            }
            object::map_mut(&mut new, &["spec"]).insert("replicas".into(), replicas.into());
            Ok(new)
        };
        let mut written = self
            .modify(t, Part::Object, call, Intent::Replace, &mut outer)
            .await?;
        let v: Value = serde_json::from_slice(&written.object).expect("the engine gives JSON");
        written.object = of(&v).to_string().into();
        Ok(written)
    }
}

/// The kind of the subresource.
pub(crate) const SCALE: kontiki_schema::Expected<'static> = kontiki_schema::Expected {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
};

/// The scale of a workload.
fn of(v: &Value) -> Value {
    let mut meta = Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(x) = object::get(v, &["metadata", key]) {
            meta.insert(key.into(), x.clone());
        }
    }
    let mut spec = json!({});
    if let Some(n) = object::int(v, &["spec", "replicas"]).filter(|n| *n != 0) {
        spec["replicas"] = n.into();
    }
    let mut status = json!({"replicas": object::int(v, &["status", "replicas"]).unwrap_or(0)});
    let selector = selector(v.pointer("/spec/selector"));
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status})
}

/// The selector as text, sorted by key.
fn selector(v: Option<&Value>) -> String {
    let Some(v) = v else { return String::new() };
    let plain = v.get("matchLabels").is_none() && v.get("matchExpressions").is_none();
    let parsed = if plain {
        serde_json::from_value(v.clone())
            .ok()
            .map(|m| labels::Selector::from_map(&m))
    } else {
        serde_json::from_value::<labels::LabelSelector>(v.clone())
            .ok()
            .and_then(|s| s.to_selector().ok())
    };
    parsed.map(|s| s.to_string()).unwrap_or_default()
}
