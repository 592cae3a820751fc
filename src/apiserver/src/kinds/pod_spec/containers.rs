//! Checks of containers, their ports and their mounts.

use std::collections::HashSet;

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, list, text, truth};
use serde_json::Value;

use super::env::{env, env_from};
use super::probes::{lifecycle, probe};
use super::{resources, security};
use crate::kinds::checks::{
    Errors, PORT_RANGE, complain, is_port, local_path, member, port_name, unsupported,
};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];

/// What the checks of a container have to know of its pod.
pub(super) struct Pod<'a> {
    /// The pod's spec.
    pub(super) spec: &'a Value,
    /// The names of its volumes, as far as they are in order.
    pub(super) volumes: HashSet<&'a str>,
}

/// All containers of a pod.
pub(super) fn all(errors: &mut Errors, at: &Path, pod: &Pod<'_>) {
    let containers = list(pod.spec, &["containers"]);
    let path = at.child("containers");
    if containers.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    let mut seen = HashSet::new();
    for (i, c) in containers.iter().enumerate() {
        let at = path.index(i);
        common(errors, &at, c, pod);
        unique(errors, &at, c, &mut seen);
        handlers(errors, &at, c);
    }
    host_ports(errors, &path, containers);
    let path = at.child("initContainers");
    for (i, c) in list(pod.spec, &["initContainers"]).iter().enumerate() {
        let at = path.index(i);
        common(errors, &at, c, pod);
        unique(errors, &at, c, &mut seen);
        match text(c, &["restartPolicy"]) {
            "Always" => handlers(errors, &at, c),
            _ => not_for_init(errors, &at, c),
        }
        host_ports(errors, &path, std::slice::from_ref(c));
    }
}

fn unique<'a>(errors: &mut Errors, at: &Path, c: &'a Value, seen: &mut HashSet<&'a str>) {
    let name = text(c, &["name"]);
    if !name.is_empty() && !seen.insert(name) {
        errors.push(Error::duplicate(&at.child("name"), name));
    }
}

/// An init container that ends has no life in which these would be used.
fn not_for_init(errors: &mut Errors, at: &Path, c: &Value) {
    for key in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if member(c, key).is_some() {
            errors.push(Error::forbidden(
                &at.child(key),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
}

fn handlers(errors: &mut Errors, at: &Path, c: &Value) {
    if let Some(l) = member(c, "lifecycle") {
        lifecycle(errors, &at.child("lifecycle"), l);
    }
    for (key, single, grace) in [
        ("livenessProbe", true, true),
        ("readinessProbe", false, false),
        ("startupProbe", true, true),
    ] {
        if let Some(p) = member(c, key) {
            probe(errors, &at.child(key), p, single, grace);
        }
    }
}

fn common(errors: &mut Errors, at: &Path, c: &Value, pod: &Pod<'_>) {
    let name = text(c, &["name"]);
    if name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else {
        complain(errors, &at.child("name"), name, names::dns1123_label(name));
    }
    let image = text(c, &["image"]);
    if image.is_empty() {
        errors.push(Error::required(&at.child("image"), ""));
    } else if image.trim() != image {
        errors.push(Error::invalid(
            &at.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    let policy = text(c, &["terminationMessagePolicy"]);
    if policy.is_empty() {
        errors.push(Error::required(&at.child("terminationMessagePolicy"), ""));
    } else if !["File", "FallbackToLogsOnError"].contains(&policy) {
        let supported = ["File", "FallbackToLogsOnError"];
        errors.push(unsupported(
            &at.child("terminationMessagePolicy"),
            policy,
            &supported,
        ));
    }
    ports(
        errors,
        &at.child("ports"),
        list(c, &["ports"]),
        truth(pod.spec, &["hostNetwork"]),
    );
    env(errors, &at.child("env"), list(c, &["env"]));
    env_from(errors, &at.child("envFrom"), list(c, &["envFrom"]));
    mounts(errors, &at.child("volumeMounts"), c, &pod.volumes);
    let pull = text(c, &["imagePullPolicy"]);
    if pull.is_empty() {
        errors.push(Error::required(&at.child("imagePullPolicy"), ""));
    } else if !PULL_POLICIES.contains(&pull) {
        errors.push(Error::not_supported(
            &at.child("imagePullPolicy"),
            pull,
            &PULL_POLICIES,
        ));
    }
    if let Some(r) = member(c, "resources") {
        resources::requirements(errors, &at.child("resources"), r);
    }
    if let Some(sc) = member(c, "securityContext") {
        let host_users = get(pod.spec, &["hostUsers"]).and_then(Value::as_bool);
        security::of_container(errors, &at.child("securityContext"), sc, host_users);
    }
}

fn ports(errors: &mut Errors, at: &Path, all: &[Value], host_network: bool) {
    for (i, p) in all.iter().enumerate() {
        let at = at.index(i);
        let name = text(p, &["name"]);
        if !name.is_empty() {
            let bad = port_name(name);
            if bad.is_empty() && all[..i].iter().any(|q| text(q, &["name"]) == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
            complain(errors, &at.child("name"), name, bad);
        }
        let (port, host) = (
            int(p, &["containerPort"]).unwrap_or(0),
            int(p, &["hostPort"]).unwrap_or(0),
        );
        if port == 0 {
            errors.push(Error::required(&at.child("containerPort"), ""));
        } else if !is_port(port) {
            errors.push(Error::invalid(&at.child("containerPort"), port, PORT_RANGE));
        }
        if host != 0 && !is_port(host) {
            errors.push(Error::invalid(&at.child("hostPort"), host, PORT_RANGE));
        }
        let protocol = text(p, &["protocol"]);
        if protocol.is_empty() {
            errors.push(Error::required(&at.child("protocol"), ""));
        } else if !PROTOCOLS.contains(&protocol) {
            errors.push(Error::not_supported(
                &at.child("protocol"),
                protocol,
                &PROTOCOLS,
            ));
        }
        if host_network && host != 0 && host != port {
            let why = "must match `hostPort` when `hostNetwork` is true";
            errors.push(Error::invalid(&at.child("containerPort"), port, why));
        }
    }
}

/// Two containers cannot have the same port of the node.
fn host_ports(errors: &mut Errors, at: &Path, containers: &[Value]) {
    let mut seen: Vec<(&str, &str, i64)> = Vec::new();
    for (i, c) in containers.iter().enumerate() {
        for (j, p) in list(c, &["ports"]).iter().enumerate() {
            let Some(host) = int(p, &["hostPort"]).filter(|n| *n != 0) else {
                continue;
            };
            let key = (text(p, &["protocol"]), text(p, &["hostIP"]), host);
            if seen.contains(&key) {
                let shown = format!("{}/{}/{host}", key.0, key.1);
                errors.push(Error::duplicate(
                    &at.index(i).child("ports").index(j).child("hostPort"),
                    shown,
                ));
            } else {
                seen.push(key);
            }
        }
    }
}

fn mounts(errors: &mut Errors, at: &Path, c: &Value, volumes: &HashSet<&str>) {
    let all = list(c, &["volumeMounts"]);
    for (i, m) in all.iter().enumerate() {
        let at = at.index(i);
        let name = text(m, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !volumes.contains(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        let path = text(m, &["mountPath"]);
        if path.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        } else if all[..i].iter().any(|n| text(n, &["mountPath"]) == path) {
            errors.push(Error::invalid(
                &at.child("mountPath"),
                path,
                "must be unique",
            ));
        }
        let (sub, expr) = (text(m, &["subPath"]), text(m, &["subPathExpr"]));
        if !sub.is_empty() {
            local_path(errors, &at.child("subPath"), sub);
        }
        if !expr.is_empty() {
            if !sub.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&at.child("subPathExpr"), expr, why));
            }
            local_path(errors, &at.child("subPathExpr"), expr);
        }
        propagation(errors, &at, m, c);
    }
    devices(errors, at, c, all);
}

fn propagation(errors: &mut Errors, at: &Path, m: &Value, c: &Value) {
    let Some(mode) = member(m, "mountPropagation").and_then(Value::as_str) else {
        return;
    };
    if !PROPAGATIONS.contains(&mode) {
        errors.push(Error::not_supported(
            &at.child("mountPropagation"),
            mode,
            &PROPAGATIONS,
        ));
    } else if mode == "Bidirectional" && !truth(c, &["securityContext", "privileged"]) {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(&at.child("mountPropagation"), why));
    }
}

fn devices(errors: &mut Errors, mounts_at: &Path, c: &Value, mounts: &[Value]) {
    for d in list(c, &["volumeDevices"]) {
        let path = text(d, &["devicePath"]);
        if let Some(i) = mounts
            .iter()
            .position(|m| text(m, &["mountPath"]) == path && !path.is_empty())
        {
            let why = "must not already exist in volumeDevices";
            errors.push(Error::invalid(
                &mounts_at.index(i).child("mountPath"),
                path,
                why,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(mut spec: Value) -> Vec<String> {
        super::super::default_pod_spec(&mut spec);
        let mut e = Errors::new();
        all(
            &mut e,
            &Path::new("s"),
            &Pod {
                spec: &spec,
                volumes: HashSet::from(["v"]),
            },
        );
        fields(&e)
    }

    #[test]
    fn containers_have_names_and_images() {
        assert_eq!(of(json!({})), ["s.containers"]);
        assert_eq!(
            of(json!({"containers": [{}]})),
            ["s.containers[0].name", "s.containers[0].image"]
        );
        let c = json!({"name": "a", "image": "i"});
        assert_eq!(of(json!({"containers": [c, c]})), ["s.containers[1].name"]);
        assert_eq!(
            of(json!({"containers": [c], "initContainers": [c]})),
            ["s.initContainers[0].name"]
        );
    }

    #[test]
    fn ports_are_in_range_and_unique() {
        let ports = json!([{"name": "a", "containerPort": 0}, {"name": "a", "containerPort": 70000},
            {"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]);
        assert_eq!(
            of(json!({"containers": [{"name": "a", "image": "i", "ports": ports}]})),
            [
                "s.containers[0].ports[0].containerPort",
                "s.containers[0].ports[1].name",
                "s.containers[0].ports[1].containerPort",
                "s.containers[0].ports[3].hostPort"
            ]
        );
    }

    #[test]
    fn mounts_are_of_volumes_and_unique() {
        let mounts = json!([{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a", "subPath": "../x"}]);
        assert_eq!(
            of(json!({"containers": [{"name": "a", "image": "i", "volumeMounts": mounts}]})),
            [
                "s.containers[0].volumeMounts[1].name",
                "s.containers[0].volumeMounts[1].mountPath",
                "s.containers[0].volumeMounts[1].subPath"
            ]
        );
    }

    #[test]
    fn only_restarting_init_containers_have_probes() {
        let init = json!({"name": "b", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}});
        let c = json!({"name": "a", "image": "i"});
        assert_eq!(
            of(json!({"containers": [c], "initContainers": [init]})),
            ["s.initContainers[0].livenessProbe"]
        );
        let mut side = init;
        side["restartPolicy"] = "Always".into();
        assert!(of(json!({"containers": [c], "initContainers": [side]})).is_empty());
    }
}
