//! Where a stream leads: the kubelet of the pod's node, the pod itself, or an endpoint of the service.

use std::sync::Arc;

use kontiki_api::{ApiError, Reason, catalogue, object};
use serde_json::Value;

use super::Upstream;
use crate::engine::Target;
use crate::registry::Kind;
use crate::request::{Query, ResourcePath};
use crate::router::State;
use crate::strategy::Objects;

/// Where kubelets listen if their node does not say it.
const KUBELET_PORT: u16 = 10250;
/// The kinds of node addresses, best first.
const ADDRESS_ORDER: [&str; 4] = ["InternalIP", "InternalDNS", "Hostname", "ExternalIP"];
/// The parameters of a log request that the kubelet takes.
const LOG_PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

/// Finds the way.
pub(super) async fn upstream(
    state: &Arc<State>,
    kind: &Arc<Kind>,
    path: &ResourcePath,
    q: &Query,
    raw_query: Option<&str>,
) -> Result<Upstream, ApiError> {
    let target = Target {
        kind,
        namespace: &path.namespace,
        name: bare_name(&path.name, &path.subresource),
    };
    let v = state.engine.get(target, None).await?.decode();
    let query = raw_query.map(|q| format!("?{q}")).unwrap_or_default();
    let rest = if path.rest.is_empty() {
        "/"
    } else {
        path.rest.as_str()
    };
    match (path.resource.as_str(), path.subresource.as_str()) {
        ("nodes", _) => {
            let (host, port) = kubelet(&v)?;
            Ok(Upstream {
                host,
                port,
                path: format!("{rest}{query}"),
                tls: true,
            })
        }
        ("pods", "proxy") => {
            let (scheme, _, port) = split_name(&path.name);
            let host = object::text(&v, &["status", "podIP"]).to_owned();
            if host.is_empty() {
                return Err(ApiError::bad_request("address not allowed"));
            }
            let port = port.parse().ok().or_else(|| first_port(&v)).unwrap_or(80);
            Ok(Upstream {
                host,
                port,
                path: format!("{rest}{query}"),
                tls: scheme == "https",
            })
        }
        ("services", _) => {
            let (scheme, name, port) = split_name(&path.name);
            let (host, port) = endpoint(state, &v, &path.namespace, name, port)?;
            Ok(Upstream {
                host,
                port,
                path: format!("{rest}{query}"),
                tls: scheme == "https",
            })
        }
        (_, subresource) => pod_stream(state, &v, subresource, q),
    }
}

/// The name without the scheme and port that proxies write around it.
fn bare_name<'a>(name: &'a str, subresource: &str) -> &'a str {
    if subresource == "proxy" {
        split_name(name).1
    } else {
        name
    }
}

/// Splits `scheme:name:port`.
fn split_name(name: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts[..] {
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => ("", name, ""),
    }
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = object::list(pod, &["spec", "containers"]);
    let port = containers
        .iter()
        .flat_map(|c| object::list(c, &["ports"]))
        .find_map(|p| object::int(p, &["containerPort"]));
    port.and_then(|p| u16::try_from(p).ok())
}

/// Address and port of a node's kubelet.
fn kubelet(node: &Value) -> Result<(String, u16), ApiError> {
    let addresses = object::list(node, &["status", "addresses"]);
    let of_type = |t: &&str| {
        addresses
            .iter()
            .find(|a| object::text(a, &["type"]) == *t)
            .map(|a| object::text(a, &["address"]))
    };
    let host = ADDRESS_ORDER
        .iter()
        .find_map(of_type)
        .filter(|h| !h.is_empty());
    let Some(host) = host else {
        let why = format!(
            "no preferred addresses found for node {:?}; known addresses: []",
            object::name(node)
        );
        return Err(ApiError::new(Reason::Unknown, why));
    };
    let port = object::int(
        node,
        &["status", "daemonEndpoints", "kubeletEndpoint", "Port"],
    );
    let port = port
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
        .unwrap_or(KUBELET_PORT);
    Ok((host.to_owned(), port))
}

/// Logs, exec, attach and port-forward go to the kubelet of the pod's node.
fn pod_stream(
    state: &State,
    pod: &Value,
    subresource: &str,
    q: &Query,
) -> Result<Upstream, ApiError> {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let node_name = object::text(pod, &["spec", "nodeName"]);
    let container = if subresource == "portforward" {
        String::new()
    } else {
        container(pod, q, subresource)?
    };
    if node_name.is_empty() {
        if subresource == "log" {
            // There is nothing to read yet.
            return Err(ApiError::bad_request(format!(
                "pod {name} does not have a host assigned"
            )));
        }
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let node = Objects::get(&*state.engine, "", "nodes", "", node_name)
        .ok_or_else(|| ApiError::not_found(catalogue::known::nodes(), node_name))?;
    let (host, port) = kubelet(&node)?;
    let flag = |from: &str, to: &str| {
        if q.flag(from) {
            format!("{to}=1&")
        } else {
            String::new()
        }
    };
    let path = match subresource {
        "log" => {
            let pairs = LOG_PARAMETERS
                .iter()
                .filter(|p| q.has(p))
                .map(|p| format!("{p}={}&", escape(q.get(p))));
            format!(
                "/containerLogs/{namespace}/{name}/{container}?{}",
                pairs.collect::<String>()
            )
        }
        "portforward" => {
            let ports: String = q
                .all("ports")
                .map(|p| format!("port={}&", escape(p)))
                .collect();
            format!("/portForward/{namespace}/{name}?{ports}")
        }
        how => {
            let streams: String = [
                ("stdin", "input"),
                ("stdout", "output"),
                ("stderr", "error"),
                ("tty", "tty"),
            ]
            .iter()
            .map(|(from, to)| flag(from, to))
            .collect();
            let command: String = q
                .all("command")
                .map(|c| format!("command={}&", escape(c)))
                .collect();
            format!("/{how}/{namespace}/{name}/{container}?{streams}{command}")
        }
    };
    let path = path.trim_end_matches(['&', '?']).to_owned();
    Ok(Upstream {
        host,
        port,
        path,
        tls: true,
    })
}

/// The container that is meant.
fn container(pod: &Value, q: &Query, subresource: &str) -> Result<String, ApiError> {
    let name = object::name(pod);
    let names = |key: &str| -> Vec<String> {
        object::list(pod, &["spec", key])
            .iter()
            .map(|c| object::text(c, &["name"]).to_owned())
            .collect()
    };
    let (regular, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let asked = q.get("container");
    if !asked.is_empty() {
        if [&regular, &init, &ephemeral]
            .iter()
            .any(|l| l.iter().any(|c| c == asked))
        {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(match subresource {
            "log" => format!("container {asked} is not valid for pod {name}"),
            _ => format!("container not found (\"{asked}\")"),
        }));
    }
    match &regular[..] {
        [one] => Ok(one.clone()),
        [] => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        many => {
            let more = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{more}",
                many.join(" ")
            )))
        }
    }
}

/// A ready endpoint of the service behind this port.
fn endpoint(
    state: &State,
    service: &Value,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<(String, u16), ApiError> {
    let ports = object::list(service, &["spec", "ports"]);
    let wanted = ports.iter().find(|p| {
        port.is_empty()
            || object::text(p, &["name"]) == port
            || object::int(p, &["port"]).is_some_and(|n| n.to_string() == port)
    });
    let port_name = wanted
        .map(|p| object::text(p, &["name"]).to_owned())
        .unwrap_or_default();
    let mut found = None;
    Objects::each(
        &*state.engine,
        "discovery.k8s.io",
        "endpointslices",
        &mut |slice| {
            let of = object::text(slice, &["metadata", "labels", "kubernetes.io/service-name"]);
            if found.is_some() || object::namespace(slice) != namespace || of != name {
                return;
            }
            let port = object::list(slice, &["ports"])
                .iter()
                .find(|p| object::text(p, &["name"]) == port_name)
                .and_then(|p| u16::try_from(object::int(p, &["port"])?).ok());
            let ready = object::list(slice, &["endpoints"]).iter().find(|e| {
                object::get(e, &["conditions", "ready"])
                    .and_then(Value::as_bool)
                    .unwrap_or(true)
            });
            let address = ready
                .and_then(|e| object::list(e, &["addresses"]).first())
                .and_then(Value::as_str);
            if let (Some(port), Some(address)) = (port, address) {
                found = Some((address.to_owned(), port));
            }
        },
    );
    found.ok_or_else(|| {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!("no endpoints available for service {name:?}"),
        )
    })
}

/// Percent-escapes a value for a query.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for b in s.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxied_names_carry_scheme_and_port() {
        assert_eq!(split_name("a"), ("", "a", ""));
        assert_eq!(split_name("a:80"), ("", "a", "80"));
        assert_eq!(split_name("https:a:http"), ("https", "a", "http"));
        assert_eq!(escape("a b&c"), "a%20b%26c");
    }
}
