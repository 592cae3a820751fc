//! What upstream's default admission plugins do to a new pod: ServiceAccount, Priority, DefaultTolerationSeconds, RuntimeClass.

use kontiki_api::object::{get, int, list, map_mut, name, text};
use kontiki_api::{ApiError, catalogue, names};
use serde_json::{Value, json};

use crate::kinds::checks::{default_value, items_mut, member, same};
use crate::kinds::pod_spec::defaults::service_account;
use crate::kinds::priorityclass;
use crate::strategy::Context;

/// Where containers find the token of their service account.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name of the token's volume, before its suffix.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// How long the token is valid: an hour and some, so that one that is renewed hourly never runs out.
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod stays on a node that is not ready or cannot be reached.
const TOLERATION_SECONDS: i64 = 300;
/// The annotation of pods that a node agent runs without being told by the API.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// All plugins, in upstream's order.
pub(super) fn admit(cx: &Context<'_>, pod: &mut Value) -> Result<(), ApiError> {
    account(cx, pod)?;
    priority(cx, pod)?;
    tolerate(pod);
    runtime_class(cx, pod)
}

/// What the plugins do to an update: what it does not state stays, and the pod still leaves a failed node after a while.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let (Some(spec), Some(was)) = (new.get_mut("spec"), old.get("spec")) else {
        return;
    };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(v) = member(was, key) {
            default_value(spec, key, v.clone());
        }
    }
    tolerate(new);
}

fn forbidden(pod: &Value, why: String) -> ApiError {
    ApiError::forbidden(catalogue::known::pods(), name(pod), why)
}

fn account(cx: &Context<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !text(pod, &["metadata", "annotations", MIRROR]).is_empty() {
        return match text(pod, &["spec", "serviceAccountName"]) {
            "" => Ok(()),
            _ => Err(forbidden(
                pod,
                "a mirror pod may not reference service accounts".into(),
            )),
        };
    }
    let mut wanted = text(pod, &["spec", "serviceAccountName"]).to_owned();
    if wanted.is_empty() {
        wanted = "default".into();
        map_mut(pod, &["spec"]).insert("serviceAccountName".into(), wanted.as_str().into());
    }
    let Some(found) = cx.objects.get("", "serviceaccounts", cx.namespace, &wanted) else {
        let at = format!("{}/{wanted}", cx.namespace);
        let why =
            format!("error looking up service account {at}: serviceaccount {wanted:?} not found");
        return Err(forbidden(pod, why));
    };
    let spec = pod
        .get_mut("spec")
        .expect("the service account's name was just set there");
    service_account(spec);
    let mounts = |v: &Value| {
        v.get("automountServiceAccountToken")
            .and_then(Value::as_bool)
    };
    if mounts(spec).or_else(|| mounts(&found)).unwrap_or(true) {
        mount_token(spec);
    }
    if list(spec, &["imagePullSecrets"]).is_empty()
        && !list(&found, &["imagePullSecrets"]).is_empty()
    {
        spec["imagePullSecrets"] = found["imagePullSecrets"].clone();
    }
    Ok(())
}

/// Mounts the token into every container that has nothing in its place.
fn mount_token(spec: &mut Value) {
    let present = list(spec, &["volumes"])
        .iter()
        .map(|v| text(v, &["name"]))
        .find(|n| n.starts_with(TOKEN_VOLUME));
    let known = present.map(str::to_owned);
    let volume = known
        .clone()
        .unwrap_or_else(|| format!("{TOKEN_VOLUME}{}", names::random_suffix()));
    let mut needed = false;
    for key in ["containers", "initContainers"] {
        for c in items_mut(spec, key) {
            if list(c, &["volumeMounts"])
                .iter()
                .any(|m| text(m, &["mountPath"]) == TOKEN_PATH)
            {
                continue;
            }
            needed = true;
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
            default_value(c, "volumeMounts", json!([]));
            if let Some(all) = c["volumeMounts"].as_array_mut() {
                all.push(mount);
            }
        }
    }
    if !needed || known.is_some() {
        return;
    }
    default_value(spec, "volumes", json!([]));
    let source = json!({"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]});
    if let Some(all) = spec["volumes"].as_array_mut() {
        all.push(json!({"name": volume, "projected": source}));
    }
}

fn priority(cx: &Context<'_>, pod: &mut Value) -> Result<(), ApiError> {
    const GROUP: &str = "scheduling.k8s.io";
    let wanted = text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if wanted.is_empty() {
        // Of several default classes the lowest wins.
        let mut default: Option<Value> = None;
        cx.objects.each(GROUP, "priorityclasses", &mut |c| {
            let value = |c: &Value| int(c, &["value"]).unwrap_or_default();
            if c.get("globalDefault") == Some(&Value::Bool(true))
                && default.as_ref().is_none_or(|d| value(c) < value(d))
            {
                default = Some(c.clone());
            }
        });
        default
    } else {
        let built_in = || {
            let of =
                |(name, value): &(&str, i64)| json!({"metadata": {"name": name}, "value": value});
            priorityclass::SYSTEM
                .iter()
                .find(|(n, _)| *n == wanted)
                .map(of)
        };
        let found = cx
            .objects
            .get(GROUP, "priorityclasses", "", &wanted)
            .or_else(built_in);
        if found.is_none() {
            return Err(forbidden(
                pod,
                format!("no PriorityClass with name {wanted} was found"),
            ));
        }
        found
    };
    let value = class
        .as_ref()
        .and_then(|c| int(c, &["value"]))
        .unwrap_or_default();
    let policy = match class
        .as_ref()
        .map_or("", |c| text(c, &["preemptionPolicy"]))
    {
        "" => "PreemptLowerPriority",
        p => p,
    };
    if let Some(given) = int(pod, &["spec", "priority"]).filter(|n| *n != value) {
        return Err(forbidden(
            pod,
            format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            ),
        ));
    }
    let given = text(pod, &["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        return Err(forbidden(
            pod,
            format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ),
        ));
    }
    let spec = map_mut(pod, &["spec"]);
    if let Some(c) = &class {
        spec.insert("priorityClassName".into(), name(c).into());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// A pod leaves a failed node after a while, unless it says how long it stays.
fn tolerate(pod: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let answered = list(pod, &["spec", "tolerations"]).iter().any(|t| {
            let (k, effect) = (text(t, &["key"]), text(t, &["effect"]));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if answered {
            continue;
        }
        let spec = pod
            .get_mut("spec")
            .expect("a pod that got this far has a spec");
        default_value(spec, "tolerations", json!([]));
        if let Some(all) = spec["tolerations"].as_array_mut() {
            all.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS}),
            );
        }
    }
}

fn runtime_class(cx: &Context<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let wanted = text(pod, &["spec", "runtimeClassName"]).to_owned();
    let rejected = |pod: &Value, why: String| Err(forbidden(pod, format!("pod rejected: {why}")));
    if wanted.is_empty() {
        if get(pod, &["spec", "overhead"])
            .and_then(Value::as_object)
            .is_some_and(|o| !o.is_empty())
        {
            return rejected(
                pod,
                "Pod Overhead set without corresponding RuntimeClass defined Overhead".into(),
            );
        }
        return Ok(());
    }
    let Some(class) = cx.objects.get("node.k8s.io", "runtimeclasses", "", &wanted) else {
        return rejected(pod, format!("RuntimeClass {wanted:?} not found"));
    };
    let overhead = get(&class, &["overhead", "podFixed"]);
    let given = get(pod, &["spec", "overhead"]);
    if given.is_some() && !same(given, overhead) {
        return rejected(
            pod,
            "Pod's Overhead doesn't match RuntimeClass's defined Overhead".into(),
        );
    }
    let Some(scheduling) = member(&class, "scheduling") else {
        set_overhead(pod, overhead);
        return Ok(());
    };
    for (key, value) in get(scheduling, &["nodeSelector"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let selector = map_mut(pod, &["spec", "nodeSelector"]);
        if selector.get(key).is_some_and(|v| v != value) {
            return rejected(
                pod,
                format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or_default(),
                    text(pod, &["spec", "nodeSelector", key])
                ),
            );
        }
        selector.insert(key.clone(), value.clone());
    }
    for t in list(scheduling, &["tolerations"]) {
        if !list(pod, &["spec", "tolerations"]).contains(t) {
            let spec = pod
                .get_mut("spec")
                .expect("a pod that got this far has a spec");
            default_value(spec, "tolerations", json!([]));
            if let Some(all) = spec["tolerations"].as_array_mut() {
                all.push(t.clone());
            }
        }
    }
    set_overhead(pod, overhead);
    Ok(())
}

fn set_overhead(pod: &mut Value, overhead: Option<&Value>) {
    if let Some(o) = overhead {
        map_mut(pod, &["spec"]).insert("overhead".into(), o.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{Fixed, with};

    fn pod(spec: Value) -> Value {
        let mut p = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        p["spec"]
            .as_object_mut()
            .expect("an object")
            .extend(spec.as_object().expect("an object").clone());
        p
    }

    fn cluster() -> Fixed {
        let account = |name: &str, rest: Value| {
            let mut v = json!({"metadata": {"name": name, "namespace": "ns"}});
            v.as_object_mut()
                .expect("an object")
                .extend(rest.as_object().expect("an object").clone());
            v
        };
        Fixed(vec![
            (
                "",
                "serviceaccounts",
                account("default", json!({"imagePullSecrets": [{"name": "i"}]})),
            ),
            (
                "",
                "serviceaccounts",
                account("quiet", json!({"automountServiceAccountToken": false})),
            ),
            (
                "scheduling.k8s.io",
                "priorityclasses",
                json!({"metadata": {"name": "high"}, "value": 7}),
            ),
            (
                "node.k8s.io",
                "runtimeclasses",
                json!({"metadata": {"name": "rc"}, "overhead": {"podFixed": {"cpu": "1"}},
                "scheduling": {"nodeSelector": {"a": "b"}}}),
            ),
        ])
    }

    #[test]
    fn a_pod_gets_its_token_priority_and_tolerations() {
        let cluster = cluster();
        let mut p = pod(json!({}));
        admit(&with(&cluster), &mut p).expect("admitted");
        let spec = &p["spec"];
        assert_eq!(spec["serviceAccount"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "i"}]));
        assert_eq!(
            spec["containers"][0]["volumeMounts"][0]["name"],
            spec["volumes"][0]["name"]
        );
        assert_eq!(
            spec["volumes"][0]["projected"]["sources"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
        assert_eq!(
            (&spec["priority"], &spec["preemptionPolicy"]),
            (&json!(0), &json!("PreemptLowerPriority"))
        );
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn the_account_may_want_no_token() {
        let cluster = cluster();
        let mut p = pod(json!({"serviceAccountName": "quiet"}));
        admit(&with(&cluster), &mut p).expect("admitted");
        assert!(p["spec"].get("volumes").is_none());
        let mut p =
            pod(json!({"serviceAccountName": "quiet", "automountServiceAccountToken": true}));
        admit(&with(&cluster), &mut p).expect("admitted");
        assert!(p["spec"].get("volumes").is_some());
    }

    #[test]
    fn what_is_not_there_is_forbidden() {
        let cluster = cluster();
        for (spec, why) in [
            (
                json!({"serviceAccountName": "nope"}),
                "error looking up service account ns/nope",
            ),
            (
                json!({"priorityClassName": "nope"}),
                "no PriorityClass with name nope was found",
            ),
            (
                json!({"priority": 7}),
                "the integer value of priority (7) must not be provided",
            ),
            (
                json!({"runtimeClassName": "nope"}),
                "pod rejected: RuntimeClass \"nope\" not found",
            ),
            (
                json!({"runtimeClassName": "rc", "nodeSelector": {"a": "c"}}),
                "pod rejected: conflict",
            ),
        ] {
            let e = admit(&with(&cluster), &mut pod(spec)).expect_err("forbidden");
            assert_eq!(e.code(), 403);
            assert!(e.0.message.contains(why), "{}", e.0.message);
        }
    }

    #[test]
    fn classes_say_how_important_and_how_costly() {
        let cluster = cluster();
        let mut p = pod(json!({"priorityClassName": "high", "runtimeClassName": "rc"}));
        admit(&with(&cluster), &mut p).expect("admitted");
        assert_eq!(p["spec"]["priority"], 7);
        assert_eq!(p["spec"]["overhead"], json!({"cpu": "1"}));
        assert_eq!(p["spec"]["nodeSelector"], json!({"a": "b"}));
        let mut p = pod(json!({"priorityClassName": "system-node-critical"}));
        admit(&with(&cluster), &mut p).expect("admitted");
        assert_eq!(p["spec"]["priority"], 2_000_001_000);
    }

    #[test]
    fn an_update_keeps_what_it_does_not_state() {
        let cluster = cluster();
        let mut old = pod(json!({}));
        admit(&with(&cluster), &mut old).expect("admitted");
        let mut new = pod(json!({}));
        carry_over(&mut new, &old);
        assert_eq!(
            (&new["spec"]["priority"], &new["spec"]["tolerations"]),
            (&json!(0), &old["spec"]["tolerations"])
        );
    }

    #[test]
    fn a_toleration_of_everything_is_enough() {
        let mut p = pod(json!({"tolerations": [{"operator": "Exists"}]}));
        tolerate(&mut p);
        assert_eq!(p["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }
}
