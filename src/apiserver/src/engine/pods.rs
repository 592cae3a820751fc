//! What only pods have: binding to a node, and eviction.

use kontiki_api::{ApiError, Cause, Reason, labels, object};
use serde_json::{Value, json};

use super::update::{Intent, Part};
use super::{Call, Engine, Target, metadata};
use crate::options::DeleteOptions;

impl Engine {
    /// Binds a pod to the node that the `Binding` names.
    pub(crate) async fn bind(
        &self,
        t: Target<'_>,
        binding: &Value,
        call: &Call<'_>,
    ) -> Result<(), ApiError> {
        let target = |k: &str| object::text(binding, &["target", k]);
        let node = target("name").to_owned();
        let path = kontiki_api::field::Path::new("target");
        let mut errors = Vec::new();
        if !matches!(target("kind"), "" | "Node") {
            errors.push(kontiki_api::field::Error::not_supported(
                &path.child("kind"),
                target("kind"),
                &["Node", "<empty>"],
            ));
        }
        if node.is_empty() {
            errors.push(kontiki_api::field::Error::required(&path.child("name"), ""));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "",
                "Binding",
                object::name(binding),
                &errors,
            ));
        }
        let (uid, revision) = (
            object::uid(binding),
            object::text(binding, &["metadata", "resourceVersion"]),
        );
        let annotations = object::get(binding, &["metadata", "annotations"])
            .and_then(Value::as_object)
            .cloned();
        let labels = object::get(binding, &["metadata", "labels"])
            .and_then(Value::as_object)
            .cloned();
        let now = object::time_text(self.now());
        let conflict = |why: String| {
            let mut e = ApiError::conflict(t.kind.resource, t.name, &why);
            e.0.message = format!(
                "Operation cannot be fulfilled on pods/binding {:?}: {why}",
                t.name
            );
            e.0.kind = "pods/binding".into();
            e
        };
        let mut make = |old: &Value| {
            if (!uid.is_empty() && uid != object::uid(old))
                || (!revision.is_empty()
                    && revision != object::text(old, &["metadata", "resourceVersion"]))
            {
                return Err(conflict(
                    "the pod has changed since it was looked at".into(),
                ));
            }
            if object::get(old, &["metadata", "deletionTimestamp"]).is_some() {
                return Err(conflict(format!(
                    "pod {} is being deleted, cannot be assigned to a host",
                    t.name
                )));
            }
            let current = object::text(old, &["spec", "nodeName"]);
            if !current.is_empty() {
                return Err(conflict(format!(
                    "pod {} is already assigned to node {current:?}",
                    t.name
                )));
            }
            if !object::list(old, &["spec", "schedulingGates"]).is_empty() {
                return Err(conflict(format!(
                    "pod {} has non-empty .spec.schedulingGates",
                    t.name
                )));
            }
            let mut new = old.clone();
            object::map_mut(&mut new, &["spec"]).insert("nodeName".into(), node.as_str().into());
            for (key, more) in [("annotations", &annotations), ("labels", &labels)] {
                if let Some(more) = more {
                    object::map_mut(&mut new, &["metadata", key]).extend(more.clone());
                }
            }
            set_scheduled(&mut new, &now);
            Ok(new)
        };
        self.modify_whole(t, call, &mut make).await
    }

    /// Stores a state that the engine itself made: no strategy looks at it.
    async fn modify_whole(
        &self,
        t: Target<'_>,
        call: &Call<'_>,
        make: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
    ) -> Result<(), ApiError> {
        for _ in 0..super::CONFLICT_RETRIES_MAX {
            let entry = self.current(t).await?;
            let mut new = make(&entry.decode())?;
            metadata::of(&mut new).remove("resourceVersion");
            let value = crate::stored::encode(&new);
            if call.options.dry_run
                || self
                    .put(&t.kind.cache, (t.namespace, t.name), value, entry.revision)
                    .await?
                    .is_some()
            {
                return Ok(());
            }
            self.catch_up().await?;
        }
        Err(ApiError::conflict(t.kind.resource, t.name, super::MODIFIED))
    }

    /// Deletes a pod unless a disruption budget forbids it.
    pub(crate) async fn evict(
        &self,
        t: Target<'_>,
        eviction: &Value,
        call: &Call<'_>,
    ) -> Result<(), ApiError> {
        let options =
            DeleteOptions::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
        let pod = self.current(t).await?.decode();
        let finished = matches!(
            object::text(&pod, &["status", "phase"]),
            "Succeeded" | "Failed" | "Pending"
        );
        if !finished && object::get(&pod, &["metadata", "deletionTimestamp"]).is_none() {
            self.take_from_budget(t, &pod, call).await?;
        }
        self.delete(t, &options, call).await.map(drop)
    }

    async fn take_from_budget(
        &self,
        t: Target<'_>,
        pod: &Value,
        call: &Call<'_>,
    ) -> Result<(), ApiError> {
        let Some(budgets) = self
            .registry
            .stored("policy", "poddisruptionbudgets")
            .cloned()
        else {
            return Ok(());
        };
        let none = json!({});
        let pod_labels = object::get(pod, &["metadata", "labels"]).unwrap_or(&none);
        let all = budgets
            .cache
            .snapshot(&crate::cache::Filter::namespaced(t.namespace))
            .entries;
        let matching: Vec<_> = all
            .iter()
            .filter(|e| {
                let selector = e
                    .decode()
                    .pointer("/spec/selector")
                    .cloned()
                    .unwrap_or_default();
                let parsed = serde_json::from_value::<labels::LabelSelector>(selector).ok();
                parsed
                    .and_then(|s| s.to_selector().ok())
                    .is_some_and(|s| s.matches(pod_labels))
            })
            .collect();
        let budget = match matching[..] {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(ApiError::internal(why));
            }
        };
        let name = budget.name.to_string();
        let mut make = |old: &Value| {
            let allowed = object::int(old, &["status", "disruptionsAllowed"]).unwrap_or(0);
            if allowed <= 0 {
                let mut e = ApiError::new(
                    Reason::TooManyRequests,
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                );
                let (need, have) = (
                    object::int(old, &["status", "desiredHealthy"]).unwrap_or(0),
                    object::int(old, &["status", "currentHealthy"]).unwrap_or(0),
                );
                e.0.causes = vec![Cause {
                    reason: "DisruptionBudget".into(),
                    message: format!(
                        "The disruption budget {name} needs {need} healthy pods and has {have} currently"
                    ),
                    field: String::new(),
                }];
                return Err(e);
            }
            let mut new = old.clone();
            let status = object::map_mut(&mut new, &["status"]);
            status.insert("disruptionsAllowed".into(), (allowed - 1).into());
            Ok(new)
        };
        let target = Target {
            kind: &budgets,
            namespace: t.namespace,
            name: &budget.name,
        };
        self.modify(target, Part::Status, call, Intent::Patch, &mut make)
            .await
            .map(drop)
    }
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let status = object::map_mut(pod, &["status"]);
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    list.retain(|c| object::text(c, &["type"]) != "PodScheduled");
    list.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
}
