//! Environment variables of containers: `$(VAR)` expansion, values from other places, variables of services.

use std::collections::{BTreeMap, HashMap};

use kontiki_api::{ObjectMeta, Quantity};
use kontiki_reconcile::View;
use serde::Deserialize;

use crate::downward::{Facts, field_value, resource_value};
use crate::materials::Materials;
use crate::pod::{Container, EnvVarSource, KeyRef, Pod};

/// A variable that cannot be given its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object is missing.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// The field cannot be referred to.
    #[error("{0}")]
    Field(String),
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign, and what has no value stays as it is.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            out.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// A service, as its variables need it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(deserialize_with = "kontiki_api::meta::null_is_default")]
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are core/v1's")]
pub struct ServicePort {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: Option<String>,
}

impl View for Service {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The variables of services: `<NAME>_SERVICE_HOST` and so on, and those of Docker's links.
pub fn of_services<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for s in services {
        let ip = match s.spec.cluster_ip.as_deref() {
            None | Some("" | "None") => continue,
            Some(ip) => ip,
        };
        let upper = |t: &str| t.to_uppercase().replace('-', "_");
        let name = upper(&s.metadata.name);
        let Some(first) = s.spec.ports.first() else {
            continue;
        };
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let url = |p: &ServicePort| {
            let protocol = p.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            format!("{protocol}://{host}:{}", p.port)
        };
        out.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
        out.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        out.insert(format!("{name}_PORT"), url(first));
        for p in &s.spec.ports {
            if let Some(port_name) = p.name.as_deref().filter(|n| !n.is_empty()) {
                out.insert(
                    format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                    p.port.to_string(),
                );
            }
            let protocol = p.protocol.as_deref().unwrap_or("TCP");
            let prefix = format!("{name}_PORT_{}_{}", p.port, protocol.to_uppercase());
            out.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{prefix}_PORT"), p.port.to_string());
            out.insert(format!("{prefix}_ADDR"), ip.to_owned());
            out.insert(prefix, url(p));
        }
    }
    out
}

/// The variables of a container, in order: those of `envFrom`, those of `env`, those of services that neither names.
///
/// # Errors
/// A value cannot be found.
pub fn of_container(
    pod: &Pod,
    c: &Container,
    materials: &Materials,
    facts: &Facts,
    services: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut order: Vec<String> = Vec::new();
    let mut values: HashMap<String, String> = HashMap::new();
    let put = |order: &mut Vec<String>,
               values: &mut HashMap<String, String>,
               name: String,
               value: String| {
        if values.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for from in &c.env_from {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let sources = [
            from.config_map_ref
                .as_ref()
                .map(|r| ("configmap", r, materials.config_map(&r.name))),
            from.secret_ref
                .as_ref()
                .map(|r| ("secret", r, materials.secret(&r.name))),
        ];
        for (kind, reference, data) in sources.into_iter().flatten() {
            let Some(data) = data else {
                if reference.optional == Some(true) {
                    continue;
                }
                return Err(EnvError::Missing {
                    kind,
                    name: reference.name.clone(),
                });
            };
            for (k, v) in data.iter() {
                put(
                    &mut order,
                    &mut values,
                    format!("{prefix}{k}"),
                    String::from_utf8_lossy(v).into_owned(),
                );
            }
        }
    }
    for e in &c.env {
        let value = match (&e.value, &e.value_from) {
            (Some(v), _) => {
                let known = |n: &str| values.get(n).or_else(|| services.get(n)).cloned();
                Some(expand(v, known))
            }
            (None, Some(source)) => from_source(pod, c, source, materials, facts)?,
            (None, None) => Some(String::new()),
        };
        if let Some(v) = value {
            put(&mut order, &mut values, e.name.clone(), v);
        }
    }
    for (k, v) in services {
        if !values.contains_key(k) {
            put(&mut order, &mut values, k.clone(), v.clone());
        }
    }
    Ok(order
        .into_iter()
        .map(|n| {
            let v = values.remove(&n).unwrap_or_default();
            (n, v)
        })
        .collect())
}

fn from_source(
    pod: &Pod,
    c: &Container,
    source: &EnvVarSource,
    materials: &Materials,
    facts: &Facts,
) -> Result<Option<String>, EnvError> {
    if let Some(f) = &source.field_ref {
        return field_value(pod, &f.field_path, facts)
            .map(Some)
            .map_err(EnvError::Field);
    }
    if let Some(r) = &source.resource_field_ref {
        let of = r
            .container_name
            .as_deref()
            .and_then(|n| pod.container(n))
            .map_or(c, |(c, _)| c);
        let divisor = r
            .divisor
            .as_ref()
            .map_or(Quantity::ZERO, crate::pod::Amount::quantity);
        return resource_value(of, &r.resource, divisor, facts)
            .map(Some)
            .map_err(EnvError::Field);
    }
    let keyed = |kind: &'static str, r: &KeyRef, data: Option<&crate::materials::Data>| {
        let optional = r.optional == Some(true);
        match data {
            None if optional => Ok(None),
            None => Err(EnvError::Missing {
                kind: if kind == "Secret" {
                    "secret"
                } else {
                    "configmap"
                },
                name: r.name.clone(),
            }),
            Some(d) => match d.get(&r.key) {
                Some(v) => Ok(Some(String::from_utf8_lossy(v).into_owned())),
                None if optional => Ok(None),
                None => {
                    let (namespace, name, key) = (
                        pod.metadata.namespace.clone(),
                        r.name.clone(),
                        r.key.clone(),
                    );
                    Err(EnvError::MissingKey {
                        kind,
                        namespace,
                        name,
                        key,
                    })
                }
            },
        }
    };
    if let Some(r) = &source.config_map_key_ref {
        return keyed("ConfigMap", r, materials.config_map(&r.name));
    }
    if let Some(r) = &source.secret_key_ref {
        return keyed("Secret", r, materials.secret(&r.name));
    }
    Ok(Some(String::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expansion_keeps_what_it_does_not_know() {
        let value = |n: &str| (n == "A").then(|| "x".to_owned());
        for (text, want) in [
            ("$(A)-$(B)", "x-$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("", ""),
        ] {
            assert_eq!(expand(text, value), want, "{text}");
        }
    }

    fn service(name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": ip, "ports": [{"name": "http-web", "port": 80, "protocol": "TCP"}]},
        }))
        .expect("a service")
    }

    #[test]
    fn services_become_variables_and_headless_ones_do_not() {
        let all = [service("my-web", "10.96.0.5"), service("quiet", "None")];
        let env = of_services(all.iter());
        assert_eq!(env["MY_WEB_SERVICE_HOST"], "10.96.0.5");
        assert_eq!(env["MY_WEB_SERVICE_PORT_HTTP_WEB"], "80");
        assert_eq!(env["MY_WEB_PORT_80_TCP"], "tcp://10.96.0.5:80");
        assert_eq!(env.len(), 8);
    }

    #[test]
    fn a_containers_variables_come_in_order_and_later_ones_see_earlier_ones() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c",
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)$(P_k)$(S)"},
                    {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "N", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}},
                ]}]},
        }))
        .expect("a pod");
        let mut m = Materials::default();
        m.put_config_map("cm", Some([("k".to_owned(), b"v".to_vec())].into()));
        let services = [
            ("S".to_owned(), "s".to_owned()),
            ("A".to_owned(), "not me".to_owned()),
        ]
        .into();
        let c = &pod.spec.containers[0];
        let env = of_container(&pod, c, &m, &Facts::default(), &services).expect("all are there");
        let want = [
            ("P_k", "v"),
            ("A", "1"),
            ("B", "1vs"),
            ("L", "x"),
            ("S", "s"),
        ];
        assert_eq!(env, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let mut c = c.clone();
        c.env_from[0].config_map_ref.as_mut().expect("there").name = "gone".into();
        let e =
            of_container(&pod, &c, &m, &Facts::default(), &services).expect_err("it is missing");
        assert_eq!(e.to_string(), "configmap \"gone\" not found");
    }
}
