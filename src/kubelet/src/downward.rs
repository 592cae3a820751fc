//! The downward API: a pod's own fields and resources as text.

use std::fmt::Write as _;
use std::net::IpAddr;

use kontiki_api::Quantity;

use crate::pod::{Container, Pod};

/// What is known of the pod and its node beside the object itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The pod's addresses, once it has them.
    pub pod_ips: Vec<String>,
    /// The node's address.
    pub host_ip: Option<IpAddr>,
    /// What pods may use of the node's CPU, in thousandths of a core.
    pub node_cpu_millis: i64,
    /// What pods may use of the node's memory.
    pub node_memory_bytes: i64,
}

/// The value of a field that variables and files may show.
///
/// # Errors
/// The path names no such field.
pub fn field_value(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let m = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(m.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(m.annotations.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => m.name.clone(),
        "metadata.namespace" => m.namespace.clone(),
        "metadata.uid" => m.uid.clone(),
        "metadata.labels" => listing(&m.labels),
        "metadata.annotations" => listing(&m.annotations),
        "spec.nodeName" => pod.spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => {
            facts.host_ip.map(|ip| ip.to_string()).unwrap_or_default()
        }
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The key in `prefix['key']`.
fn subscript<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn listing(map: &std::collections::BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (k, v) in map {
        // The quoting of JSON is that of Go for all but rare control characters.
        let sep = if out.is_empty() { "" } else { "\n" };
        write!(out, "{sep}{k}={}", serde_json::Value::from(v.as_str()))
            .expect("writing to a String does not fail");
    }
    out
}

/// A container's request or limit in units of the divisor, rounded up. Where no limit is set, the node's is.
///
/// # Errors
/// The resource is none that can be shown.
pub fn resource_value(
    c: &Container,
    resource: &str,
    divisor: Quantity,
    facts: &Facts,
) -> Result<String, String> {
    let (kind, name) = resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {resource}"))?;
    let of_node = match name {
        "cpu" => Quantity::from_millis(facts.node_cpu_millis),
        "memory" => Quantity::from_bytes(facts.node_memory_bytes),
        _ => Quantity::ZERO,
    };
    let value = match kind {
        "limits" => c.resources.limit(name).unwrap_or(of_node),
        "requests" => c.resources.request(name).unwrap_or(Quantity::ZERO),
        _ => return Err(format!("unsupported container resource: {resource}")),
    };
    let ceil = |n: i64, d: i64| n.div_euclid(d.max(1)) + i64::from(n.rem_euclid(d.max(1)) != 0);
    let one_if_zero = |q: Quantity| {
        if q.is_zero() {
            Quantity::from_units(1)
        } else {
            q
        }
    };
    Ok(match name {
        "cpu" => ceil(value.millis(), one_if_zero(divisor).millis()).to_string(),
        _ => ceil(value.units(), one_if_zero(divisor).units()).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_listed_quoted() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"labels": {"b": "x\"y", "a": "1"}}}))
                .expect("a pod");
        let f = Facts::default();
        assert_eq!(
            field_value(&pod, "metadata.labels", &f),
            Ok("a=\"1\"\nb=\"x\\\"y\"".into())
        );
        assert_eq!(
            field_value(&pod, "metadata.labels['a']", &f),
            Ok("1".into())
        );
        assert!(field_value(&pod, "spec.containers", &f).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let c: Container = serde_json::from_value(
            json!({"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}),
        )
        .expect("a container");
        let f = Facts {
            node_cpu_millis: 4000,
            node_memory_bytes: 1 << 30,
            ..Facts::default()
        };
        let q = |s: &str| s.parse::<Quantity>().expect("a quantity");
        assert_eq!(
            resource_value(&c, "limits.cpu", Quantity::ZERO, &f),
            Ok("2".into())
        );
        assert_eq!(
            resource_value(&c, "limits.cpu", q("1m"), &f),
            Ok("1500".into())
        );
        assert_eq!(
            resource_value(&c, "limits.memory", q("1Mi"), &f),
            Ok("64".into())
        );
        let bare = Container::default();
        assert_eq!(
            resource_value(&bare, "limits.memory", q("1Mi"), &f),
            Ok("1024".into())
        );
        assert_eq!(
            resource_value(&bare, "requests.cpu", Quantity::ZERO, &f),
            Ok("0".into())
        );
    }
}
