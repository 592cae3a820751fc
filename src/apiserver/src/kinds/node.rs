//! Nodes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{list, map_mut, name, text, truth};
use kontiki_api::{ApiError, names};
use serde_json::{Value, json};

use super::checks::{
    Errors, cidr, complain, default_value, keep, map_of, member, same, unsupported,
};
use super::columns::{AGE, NAME, age, or_none, string, wide};
use super::pod_spec::resources;
use super::pod_spec::scheduling::EFFECTS;
use crate::strategy::{Column, Context, Strategy};

/// The strategy of nodes.
pub(super) struct Node;

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";

static COLUMNS: [Column; 10] = [
    NAME,
    string("Status", "The status of the node"),
    string("Roles", "The roles of the node"),
    AGE,
    string("Version", "Kubelet Version reported by the node."),
    wide("Internal-IP", ADDRESSES),
    wide("External-IP", ADDRESSES),
    wide(
        "OS-Image",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

/// The taint of a node that has not yet said that it is ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Labels of this prefix name a role.
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// The value of this label is a role.
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = map_of(object, "spec") {
            pod_cidrs(spec);
        }
        if let Some(status) = map_of(object, "status")
            && let Some(capacity) = member(status, "capacity").cloned()
        {
            default_value(status, "allocatable", capacity);
        }
    }

    fn admit_create(&self, _cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        // Nothing is placed on a node before it has said that it is ready.
        let alike =
            |t: &Value| text(t, &["key"]) == NOT_READY && text(t, &["effect"]) == "NoSchedule";
        if !list(object, &["spec", "taints"]).iter().any(alike) {
            let taints = map_mut(object, &["spec"])
                .entry("taints")
                .or_insert_with(|| json!([]));
            if let Some(all) = taints.as_array_mut() {
                all.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        taints(&mut errors, list(object, &["spec", "taints"]));
        amounts(&mut errors, object);
        let cidrs = list(object, &["spec", "podCIDRs"]);
        let at = Path::new("spec").child("podCIDRs");
        for (i, c) in cidrs.iter().filter_map(Value::as_str).enumerate() {
            cidr(&mut errors, &at.index(i), c);
        }
        if cidrs.len() > 2 {
            let why = "may specify no more than one CIDR for each IP family";
            errors.push(Error::invalid(&at, cidrs.to_vec(), why));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let (spec, was) = (
            new.get("spec").unwrap_or(&Value::Null),
            old.get("spec").unwrap_or(&Value::Null),
        );
        if !list(was, &["podCIDRs"]).is_empty() && !same(spec.get("podCIDRs"), was.get("podCIDRs"))
        {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&at.child("podCIDRs"), why));
        }
        let id = text(was, &["providerID"]);
        if !id.is_empty() && text(spec, &["providerID"]) != id {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.push(Error::forbidden(&at.child("providerID"), why));
        }
        errors.extend(self.validate(cx, new));
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        amounts(&mut errors, new);
        let all = list(new, &["status", "addresses"]);
        for (i, a) in all.iter().enumerate() {
            if all[..i].contains(a) {
                errors.push(Error::duplicate(
                    &Path::new("status").child("addresses").index(i),
                    a.clone(),
                ));
            }
        }
        errors
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "spec.unschedulable").then(|| {
            if truth(object, &["spec", "unschedulable"]) {
                "true"
            } else {
                "false"
            }
            .into()
        })
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |key: &str| text(object, &["status", "nodeInfo", key]);
        let or_unknown = |s: &str| {
            if s.is_empty() {
                Value::from("<unknown>")
            } else {
                s.into()
            }
        };
        let kernel = match (info("kernelVersion"), info("architecture")) {
            (k, "") | (k @ "", _) => k.to_owned(),
            (k, a) => format!("{k} ({a})"),
        };
        vec![
            name(object).into(),
            status(object).into(),
            roles(object),
            age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            or_unknown(info("osImage")),
            or_unknown(&kernel),
            or_unknown(info("containerRuntimeVersion")),
        ]
    }
}

/// `podCIDR` and the first of `podCIDRs` say the same; where they differ, the first is right.
fn pod_cidrs(spec: &mut Value) {
    let one = text(spec, &["podCIDR"]);
    let first = list(spec, &["podCIDRs"])
        .first()
        .and_then(Value::as_str)
        .unwrap_or_default();
    if one == first {
        return;
    }
    let (key, value) = if one.is_empty() {
        ("podCIDR", first.into())
    } else {
        ("podCIDRs", json!([one]))
    };
    map_mut(spec, &[]).insert(key.into(), value);
}

fn taints(errors: &mut Errors, all: &[Value]) {
    // Upstream names them as if they were metadata.
    let at = Path::new("metadata").child("taints");
    for (i, t) in all.iter().enumerate() {
        let at = at.index(i);
        let (key, value, effect) = (text(t, &["key"]), text(t, &["value"]), text(t, &["effect"]));
        complain(errors, &at.child("key"), key, names::qualified_name(key));
        complain(errors, &at.child("value"), value, names::label_value(value));
        if effect.is_empty() {
            errors.push(Error::required(&at.child("effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            errors.push(unsupported(&at.child("effect"), effect, &EFFECTS));
        }
        if all[..i]
            .iter()
            .any(|u| text(u, &["key"]) == key && text(u, &["effect"]) == effect)
        {
            let mut e = Error::duplicate(&at, "");
            let part = |s: &str| Value::from(s).to_string();
            let added = t.get("timeAdded").unwrap_or(&Value::Null);
            e.value = Some(format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{added}}}",
                part(key),
                part(value),
                part(effect)
            ));
            e.detail = "taints must be unique by key and effect pair".into();
            errors.push(e);
        }
    }
}

fn amounts(errors: &mut Errors, object: &Value) {
    for part in ["capacity", "allocatable"] {
        let at = Path::new("status").child(part);
        let all = object
            .pointer("/status")
            .and_then(|s| s.get(part))
            .and_then(Value::as_object);
        for (key, value) in all.into_iter().flatten() {
            resources::resource_name(errors, &at.key(key), key);
            resources::quantity(errors, &at.key(key), key, value);
        }
    }
}

fn status(object: &Value) -> String {
    let ready = list(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut s = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if truth(object, &["spec", "unschedulable"]) {
        s.push_str(",SchedulingDisabled");
    }
    s
}

fn roles(object: &Value) -> Value {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let role = |(key, value): (&String, &Value)| {
        let role = match key.strip_prefix(ROLE_PREFIX) {
            Some(r) => r.to_owned(),
            None if key == ROLE_LABEL => value.as_str().unwrap_or_default().to_owned(),
            None => String::new(),
        };
        (!role.is_empty()).then_some(role)
    };
    let all: BTreeSet<String> = labels.into_iter().flatten().filter_map(role).collect();
    or_none(&all.into_iter().collect::<Vec<_>>().join(","))
}

fn address(object: &Value, kind: &str) -> Value {
    let found = list(object, &["status", "addresses"])
        .iter()
        .find(|a| text(a, &["type"]) == kind);
    or_none(found.map_or("", |a| text(a, &["address"])))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn a_new_node_is_not_ready_and_has_what_it_can_hold() {
        let mut o = idempotent(
            &Node,
            json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": "4"}}}),
        );
        assert_eq!(o["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
        assert_eq!(o["status"]["allocatable"], json!({"cpu": "4"}));
        Node.admit_create(&cx(), &mut o).expect("admitted");
        Node.admit_create(&cx(), &mut o).expect("admitted");
        assert_eq!(
            o["spec"]["taints"],
            json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        );
        assert!(Node.validate(&cx(), &o).is_empty());
    }

    #[test]
    fn taints_and_blocks_are_checked() {
        let t = json!({"key": "k", "effect": "NoSchedule"});
        let o = json!({"spec": {"taints": [t, t, {"key": "k", "effect": "x"}], "podCIDRs": ["x"]}});
        assert_eq!(
            fields(&Node.validate(&cx(), &o)),
            [
                "metadata.taints[1]",
                "metadata.taints[2].effect",
                "spec.podCIDRs[0]"
            ]
        );
    }

    #[test]
    fn some_things_are_set_once() {
        let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
        let new = json!({"spec": {"podCIDRs": ["10.0.1.0/24"], "providerID": "b"}});
        assert_eq!(
            fields(&Node.validate_update(&cx(), &new, &old)),
            ["spec.podCIDRs", "spec.providerID"]
        );
        assert!(Node.validate_update(&cx(), &old, &json!({})).is_empty());
    }

    #[test]
    fn a_row_shows_readiness_roles_and_versions() {
        let o = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "x"}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kernelVersion": "k", "architecture": "a"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        let row = Node.row(&o, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&row[1], &row[2]),
            (&json!("Ready,SchedulingDisabled"), &json!("worker,x"))
        );
        assert_eq!(
            row[5..9],
            ["10.0.0.1", "<none>", "<unknown>", "k (a)"].map(Value::from)
        );
    }
}
