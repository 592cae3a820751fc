//! What upstream's `SetDefaults_PodSpec`, `SetDefaults_Container`, `SetDefaults_Volume` and their kin fill in.

use kontiki_api::object::{text, truth};
use serde_json::{Value, json};

use crate::kinds::checks::{
    clear, default_int, default_text, default_value, items_mut, map_of, member,
};

/// The mode of projected files: rw-r--r--.
const FILE_MODE: i64 = 0o644;
/// How long a projected service account token is valid.
const TOKEN_SECONDS: i64 = 3600;
/// The lists of containers of a pod.
pub(in crate::kinds) const CONTAINER_LISTS: [&str; 3] =
    ["containers", "initContainers", "ephemeralContainers"];

/// The defaults of a pod template under `template`.
pub(in crate::kinds) fn default_template(spec: &mut Value) {
    default_value(spec, "template", json!({}));
    let Some(template) = map_of(spec, "template") else {
        return;
    };
    default_value(template, "metadata", json!({}));
    default_value(template, "spec", json!({"containers": null}));
    if let Some(pod) = map_of(template, "spec") {
        default_pod_spec(pod);
    }
}

/// The defaults of a pod's spec that templates get too.
pub(in crate::kinds) fn default_pod_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    default_value(spec, "terminationGracePeriodSeconds", 30);
    default_value(spec, "securityContext", json!({}));
    service_account(spec);
    for key in CONTAINER_LISTS {
        for c in items_mut(spec, key) {
            container(c);
        }
    }
    for v in items_mut(spec, "volumes") {
        volume(v);
    }
}

/// The defaults that only pods get, and no template.
pub(in crate::kinds) fn default_pod(spec: &mut Value) {
    default_value(spec, "enableServiceLinks", true);
    let host_network = truth(spec, &["hostNetwork"]);
    for key in &CONTAINER_LISTS[..2] {
        for c in items_mut(spec, key) {
            requests_from_limits(c);
            for port in items_mut(c, "ports").iter_mut().filter(|_| host_network) {
                if let Some(n) = port
                    .get("containerPort")
                    .and_then(Value::as_i64)
                    .filter(|n| *n != 0)
                {
                    default_int(port, "hostPort", n);
                }
            }
        }
    }
}

/// The deprecated `serviceAccount` says the same as `serviceAccountName`, which wins.
pub(in crate::kinds) fn service_account(spec: &mut Value) {
    let name = match text(spec, &["serviceAccountName"]) {
        "" => text(spec, &["serviceAccount"]),
        name => name,
    };
    if name.is_empty() {
        return;
    }
    let name = Value::from(name);
    if let Some(m) = spec.as_object_mut() {
        m.insert("serviceAccount".into(), name.clone());
        m.insert("serviceAccountName".into(), name);
    }
}

/// What is limited is requested, unless the container requests something else.
fn requests_from_limits(c: &mut Value) {
    let Some(resources) = map_of(c, "resources") else {
        return;
    };
    let Some(limits) =
        member(resources, "limits").filter(|l| l.as_object().is_some_and(|m| !m.is_empty()))
    else {
        return;
    };
    let limits = limits.clone();
    default_value(resources, "requests", json!({}));
    let Some(requests) = map_of(resources, "requests") else {
        return;
    };
    for (key, value) in limits.as_object().into_iter().flatten() {
        default_value(requests, key, value.clone());
    }
}

fn container(c: &mut Value) {
    default_value(c, "resources", json!({}));
    default_text(c, "terminationMessagePath", "/dev/termination-log");
    default_text(c, "terminationMessagePolicy", "File");
    let policy = pull_policy(text(c, &["image"]));
    default_text(c, "imagePullPolicy", policy);
    for port in items_mut(c, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for e in items_mut(c, "env") {
        if let Some(from) = map_of(e, "valueFrom") {
            references(from);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = map_of(c, key) {
            probe(p);
        }
    }
    if let Some(lifecycle) = map_of(c, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(h) = map_of(lifecycle, key).and_then(|h| map_of(h, "httpGet")) {
                http_get(h);
            }
        }
    }
}

/// Always for images that may move (no tag, or `latest`), IfNotPresent for all others.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, false), |(n, _)| (n, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// `fieldRef` and `resourceFieldRef`, of variables and of files.
fn references(from: &mut Value) {
    if let Some(f) = map_of(from, "fieldRef") {
        default_text(f, "apiVersion", "v1");
    }
    if let Some(f) = map_of(from, "resourceFieldRef") {
        default_value(f, "divisor", "0");
    }
}

fn probe(p: &mut Value) {
    default_int(p, "timeoutSeconds", 1);
    default_int(p, "periodSeconds", 10);
    default_int(p, "successThreshold", 1);
    default_int(p, "failureThreshold", 3);
    if let Some(h) = map_of(p, "httpGet") {
        http_get(h);
    }
    if let Some(g) = map_of(p, "grpc") {
        default_value(g, "service", "");
    }
}

fn http_get(h: &mut Value) {
    default_text(h, "path", "/");
    default_text(h, "scheme", "HTTP");
}

fn volume(v: &mut Value) {
    let Some(m) = v.as_object_mut() else { return };
    if !m
        .iter()
        .any(|(key, value)| key != "name" && !value.is_null())
    {
        m.insert("emptyDir".into(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(s) = map_of(v, key) {
            default_value(s, "defaultMode", FILE_MODE);
        }
    }
    if let Some(d) = map_of(v, "downwardAPI") {
        items_mut(d, "items").iter_mut().for_each(references);
    }
    if let Some(p) = map_of(v, "projected") {
        for source in items_mut(p, "sources") {
            if let Some(t) = map_of(source, "serviceAccountToken") {
                default_value(t, "expirationSeconds", TOKEN_SECONDS);
            }
            if let Some(d) = map_of(source, "downwardAPI") {
                items_mut(d, "items").iter_mut().for_each(references);
            }
        }
    }
    volume_source(v);
    if let Some(image) = map_of(v, "image") {
        let policy = pull_policy(text(image, &["reference"]));
        default_text(image, "pullPolicy", policy);
    }
    if let Some(claim) = map_of(v, "ephemeral").and_then(|e| map_of(e, "volumeClaimTemplate")) {
        default_value(claim, "metadata", json!({}));
        if let Some(spec) = map_of(claim, "spec") {
            default_value(spec, "resources", json!({}));
            default_value(spec, "volumeMode", "Filesystem");
        }
    }
}

/// The defaults of sources that pods and persistent volumes have in common.
pub(in crate::kinds) fn volume_source(v: &mut Value) {
    if let Some(h) = map_of(v, "hostPath") {
        default_value(h, "type", "");
    }
    if let Some(i) = map_of(v, "iscsi") {
        default_text(i, "iscsiInterface", "default");
    }
    if let Some(r) = map_of(v, "rbd") {
        default_text(r, "pool", "rbd");
        default_text(r, "user", "admin");
        default_text(r, "keyring", "/etc/ceph/keyring");
    }
    if let Some(a) = map_of(v, "azureDisk") {
        default_value(a, "cachingMode", "ReadWrite");
        default_value(a, "kind", "Shared");
        default_value(a, "fsType", "ext4");
        default_value(a, "readOnly", false);
    }
    if let Some(s) = map_of(v, "scaleIO") {
        default_text(s, "storageMode", "ThinProvisioned");
        default_text(s, "fsType", "xfs");
    }
    if v.get("emptyDir")
        .is_some_and(|e| text(e, &["medium"]).is_empty())
        && let Some(e) = map_of(v, "emptyDir")
    {
        clear(e, "medium");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_may_move_are_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1.2", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("nginx:latest@sha256:0123", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn defaults_are_filled_in_once() {
        let mut spec = json!({
            "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                "livenessProbe": {"httpGet": {"port": 1}}, "resources": {"limits": {"cpu": "1"}, "requests": {}}}],
            "volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/"}}, {"name": "c", "projected":
                {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
            "hostNetwork": true, "serviceAccount": "sa",
        });
        default_pod_spec(&mut spec);
        default_pod(&mut spec);
        let once = spec.clone();
        default_pod_spec(&mut spec);
        default_pod(&mut spec);
        assert_eq!(spec, once);
        let c = &spec["containers"][0];
        assert_eq!(
            c["ports"][0],
            json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})
        );
        assert_eq!(c["resources"]["requests"]["cpu"], "1");
        assert_eq!(c["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(c["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
        assert_eq!(
            c["livenessProbe"]["httpGet"],
            json!({"port": 1, "path": "/", "scheme": "HTTP"})
        );
        assert_eq!(spec["volumes"][0], json!({"name": "a", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["hostPath"]["type"], "");
        assert_eq!(
            spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"],
            3600
        );
        assert_eq!(spec["serviceAccountName"], "sa");
    }

    #[test]
    fn a_missing_template_gets_its_defaults() {
        let mut spec = json!({});
        default_template(&mut spec);
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }
}
