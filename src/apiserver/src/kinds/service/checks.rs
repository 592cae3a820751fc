//! What is wrong with a service (upstream's `ValidateService` and `ValidateServiceUpdate`).

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use super::{HEADLESS, externally_accessible, is_headless, needs_cluster_ip};
use crate::kinds::checks::{
    Errors, PORT_RANGE, cidr, complain, ip, is_port, labels, member, port_name, same,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// The longest time that a client stays with its endpoint: a day.
const AFFINITY_SECONDS_MAX: i64 = 86400;

/// A service as a whole.
pub(super) fn validate(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("spec");
    let Some(spec) = object.get("spec") else {
        return errors;
    };
    let kind = text(spec, &["type"]);
    let headless = is_headless(spec);
    let all = list(spec, &["ports"]);
    if all.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&at.child("ports"), ""));
    }
    by_type(&mut errors, &at, spec, kind, headless);
    for (i, p) in all.iter().enumerate() {
        port(&mut errors, &at.child("ports").index(i), p, all, i);
    }
    labels(&mut errors, &at.child("selector"), spec.get("selector"));
    affinity(&mut errors, &at, spec);
    cluster_ips(&mut errors, &at, spec, kind);
    for (i, a) in list(spec, &["externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        let at = at.child("externalIPs").index(i);
        if let Some(ip) = ip(&mut errors, &at, a) {
            crate::kinds::checks::endpoint_ip(&mut errors, &at, ip);
        }
    }
    if kind.is_empty() {
        errors.push(Error::required(&at.child("type"), ""));
    } else if !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&at.child("type"), kind, &TYPES));
    }
    load_balancer(&mut errors, &at, spec, kind);
    duplicates(&mut errors, &at.child("ports"), all);
    traffic(&mut errors, &at, spec);
    errors
}

fn by_type(errors: &mut Errors, at: &Path, spec: &Value, kind: &str, headless: bool) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(
                &at.child("clusterIPs").index(0),
                HEADLESS,
                why,
            ));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !same(spec.get(key), None) {
                    errors.push(Error::forbidden(
                        &at.child(key),
                        "may not be set for ExternalName services",
                    ));
                }
            }
            let target = text(spec, &["externalName"]);
            if target.is_empty() {
                errors.push(Error::required(&at.child("externalName"), ""));
            } else {
                let plain = target.strip_suffix('.').unwrap_or(target);
                complain(
                    errors,
                    &at.child("externalName"),
                    target,
                    names::dns1123_subdomain(plain),
                );
            }
        }
        _ => {}
    }
}

fn port(errors: &mut Errors, at: &Path, p: &Value, all: &[Value], index: usize) {
    let name = text(p, &["name"]);
    if name.is_empty() {
        if all.len() > 1 {
            errors.push(Error::required(&at.child("name"), ""));
        }
    } else {
        complain(errors, &at.child("name"), name, names::dns1123_label(name));
        if all[..index].iter().any(|q| text(q, &["name"]) == name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
    }
    let number = int(p, &["port"]).unwrap_or_default();
    if !is_port(number) {
        errors.push(Error::invalid(&at.child("port"), number, PORT_RANGE));
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
    match p.get("targetPort") {
        Some(Value::String(s)) => complain(errors, &at.child("targetPort"), s, port_name(s)),
        Some(Value::Number(n)) if !n.as_i64().is_some_and(is_port) => {
            errors.push(Error::invalid(
                &at.child("targetPort"),
                n.as_i64(),
                PORT_RANGE,
            ));
        }
        _ => {}
    }
    let app = text(p, &["appProtocol"]);
    if !app.is_empty() {
        complain(
            errors,
            &at.child("appProtocol"),
            app,
            names::qualified_name(app),
        );
    }
}

fn affinity(errors: &mut Errors, at: &Path, spec: &Value) {
    let path = at.child("sessionAffinity");
    match text(spec, &["sessionAffinity"]) {
        "" => errors.push(Error::required(&path, "")),
        "ClientIP" => {
            let seconds = int(
                spec,
                &["sessionAffinityConfig", "clientIP", "timeoutSeconds"],
            )
            .unwrap_or_default();
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
                let path = at
                    .child("sessionAffinityConfig")
                    .child("clientIP")
                    .child("timeoutSeconds");
                let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                errors.push(Error::invalid(&path, seconds, why));
            }
        }
        "None" => {
            if member(spec, "sessionAffinityConfig").is_some() {
                let why = "must not be set when session affinity is None";
                errors.push(Error::forbidden(&at.child("sessionAffinityConfig"), why));
            }
        }
        other => errors.push(Error::not_supported(&path, other, &["ClientIP", "None"])),
    }
}

fn cluster_ips(errors: &mut Errors, at: &Path, spec: &Value, kind: &str) {
    if kind == "ExternalName" {
        return;
    }
    let (first, ips) = (text(spec, &["clusterIP"]), list(spec, &["clusterIPs"]));
    let path = at.child("clusterIPs");
    if let Some(primary) = ips.first().and_then(Value::as_str) {
        if first.is_empty() {
            let why = "must be empty when `clusterIP` is not specified";
            errors.push(Error::forbidden(&path, why));
        } else if primary != first {
            errors.push(Error::invalid(
                &path,
                ips.to_vec(),
                "first value must match `clusterIP`",
            ));
        }
    }
    for (i, address) in ips.iter().filter_map(Value::as_str).enumerate() {
        if address == HEADLESS {
            if ips.len() > 1 {
                let why = "'None' must be the first and only value";
                errors.push(Error::invalid(&path.index(i), address, why));
            }
            continue;
        }
        ip(errors, &path.index(i), address);
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(
            &path,
            ips.to_vec(),
            "may only hold up to 2 values",
        ));
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(p) = member(spec, "ipFamilyPolicy").and_then(Value::as_str)
        && !policies.contains(&p)
    {
        errors.push(Error::not_supported(
            &at.child("ipFamilyPolicy"),
            p,
            &policies,
        ));
    }
    let families = list(spec, &["ipFamilies"]);
    for (i, f) in families.iter().enumerate() {
        let shown = f.as_str().unwrap_or_default();
        if !["IPv4", "IPv6"].contains(&shown) {
            errors.push(Error::not_supported(
                &at.child("ipFamilies").index(i),
                shown,
                &["IPv4", "IPv6"],
            ));
        } else if families[..i].contains(f) {
            errors.push(Error::duplicate(&at.child("ipFamilies").index(i), shown));
        }
    }
}

fn load_balancer(errors: &mut Errors, at: &Path, spec: &Value, kind: &str) {
    let is_balancer = kind == "LoadBalancer";
    for (i, range) in list(spec, &["loadBalancerSourceRanges"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        cidr(
            errors,
            &at.child("loadBalancerSourceRanges").index(i),
            range.trim(),
        );
    }
    if !is_balancer && !list(spec, &["loadBalancerSourceRanges"]).is_empty() {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(Error::forbidden(&at.child("loadBalancerSourceRanges"), why));
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !is_balancer && member(spec, key).is_some() {
            errors.push(Error::forbidden(
                &at.child(key),
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
    }
    if is_balancer && member(spec, "allocateLoadBalancerNodePorts").is_none() {
        errors.push(Error::required(
            &at.child("allocateLoadBalancerNodePorts"),
            "",
        ));
    }
}

fn duplicates(errors: &mut Errors, at: &Path, all: &[Value]) {
    for (i, p) in all.iter().enumerate() {
        let alike = |key: &str| {
            let of = |q: &Value| {
                (
                    int(q, &[key]).unwrap_or_default(),
                    text(q, &["protocol"]).to_owned(),
                )
            };
            let own = of(p);
            own.0 != 0 && all[..i].iter().any(|q| of(q) == own)
        };
        if alike("port") {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                p["protocol"], p["port"]
            );
            let mut e = Error::duplicate(&at.index(i), "");
            e.value = Some(shown);
            errors.push(e);
        }
        if alike("nodePort") {
            errors.push(Error::duplicate(
                &at.index(i).child("nodePort"),
                p["nodePort"].clone(),
            ));
        }
    }
}

fn traffic(errors: &mut Errors, at: &Path, spec: &Value) {
    let policies = ["Cluster", "Local"];
    let external = text(spec, &["externalTrafficPolicy"]);
    let path = at.child("externalTrafficPolicy");
    match (externally_accessible(spec), external) {
        (true, "") => errors.push(Error::required(&path, "")),
        (false, "") => {}
        (false, p) => {
            errors.push(Error::invalid(
                &path,
                p,
                "may only be set for externally-accessible services",
            ));
        }
        (true, p) if !policies.contains(&p) => {
            errors.push(Error::not_supported(&path, p, &policies));
        }
        _ => {}
    }
    if let Some(n) = int(spec, &["healthCheckNodePort"]).filter(|n| *n != 0)
        && (external != "Local" || text(spec, &["type"]) != "LoadBalancer")
    {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&at.child("healthCheckNodePort"), n, why));
    }
    let path = at.child("internalTrafficPolicy");
    match member(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        None if needs_cluster_ip(spec) => errors.push(Error::required(&path, "")),
        Some(p) if !policies.contains(&p) => errors.push(Error::not_supported(&path, p, &policies)),
        _ => {}
    }
}

/// What may not change.
pub(super) fn validate_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = Path::new("spec");
    let (spec, was) = (&new["spec"], &old["spec"]);
    if needs_cluster_ip(was) && needs_cluster_ip(spec) {
        let of = |v| list(v, &["clusterIPs"]).first();
        if of(was).is_some() && of(was) != of(spec) {
            let ips = list(spec, &["clusterIPs"]).to_vec();
            errors.push(Error::invalid(
                &at.child("clusterIPs").index(0),
                ips,
                "may not change once set",
            ));
        }
        let family = |v| list(v, &["ipFamilies"]).first();
        if family(was).is_some() && family(spec).is_some() && family(was) != family(spec) {
            let families = list(spec, &["ipFamilies"]).to_vec();
            errors.push(Error::invalid(
                &at.child("ipFamilies").index(0),
                families,
                "may not change once set",
            ));
        }
    }
    let class = |v: &Value| member(v, "loadBalancerClass").cloned();
    if text(was, &["type"]) == "LoadBalancer"
        && text(spec, &["type"]) == "LoadBalancer"
        && class(was) != class(spec)
    {
        let why = "may not change once set";
        errors.push(Error::invalid(
            &at.child("loadBalancerClass"),
            class(spec).unwrap_or_default(),
            why,
        ));
    }
    errors
}

/// What a load balancer says of where it is reached.
pub(in crate::kinds) fn ingress(errors: &mut Errors, at: &Path, ingress: &Value) {
    let (address, host) = (text(ingress, &["ip"]), text(ingress, &["hostname"]));
    if !address.is_empty() {
        ip(errors, &at.child("ip"), address);
    }
    if !host.is_empty() {
        complain(
            errors,
            &at.child("hostname"),
            host,
            names::dns1123_subdomain(host),
        );
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(Error::invalid(
                &at.child("hostname"),
                host,
                "must be a DNS name, not an IP address",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(change: Value) -> Vec<String> {
        let mut o = json!({"spec": {"type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Local", "ports": [{"name": "a", "port": 80, "protocol": "TCP"}]}});
        o["spec"]
            .as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        fields(&validate(&o))
    }

    #[test]
    fn mistakes_are_named() {
        assert!(of(json!({})).is_empty());
        assert_eq!(of(json!({"ports": []})), ["spec.ports"]);
        assert_eq!(
            of(json!({"type": "Nope", "internalTrafficPolicy": null})),
            ["spec.type", "spec.externalTrafficPolicy"]
        );
        assert_eq!(
            of(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            ["spec.clusterIPs[0]"]
        );
        assert_eq!(
            of(json!({"clusterIP": "x", "clusterIPs": ["x"]})),
            ["spec.clusterIPs[0]"]
        );
        assert_eq!(
            of(json!({"sessionAffinity": "x"})),
            ["spec.sessionAffinity"]
        );
        let two = |b: Value| json!({"ports": [{"name": "a", "port": 80, "protocol": "TCP"}, b]});
        assert_eq!(
            of(two(json!({"port": 81, "protocol": "TCP"}))),
            ["spec.ports[1].name"]
        );
        assert_eq!(
            of(two(json!({"name": "b", "port": 80, "protocol": "TCP"}))),
            ["spec.ports[1]"]
        );
        assert!(of(two(json!({"name": "b", "port": 80, "protocol": "UDP"}))).is_empty());
        assert_eq!(
            of(json!({"ports": [{"port": 70000, "targetPort": 70000, "protocol": "x"}]})),
            [
                "spec.ports[0].port",
                "spec.ports[0].protocol",
                "spec.ports[0].targetPort"
            ]
        );
    }
}
