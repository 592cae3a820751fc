//! Ingresses.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, list, map_mut, name, text};
use serde_json::{Value, json};

use super::checks::{Errors, PORT_RANGE, complain, is_port, keep, member, port_name};
use super::columns::{AGE, NAME, age, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of ingresses.
pub(super) struct Ingress;

static COLUMNS: [Column; 6] = [
    NAME,
    string(
        "Class",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    string(
        "Hosts",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    string(
        "Address",
        "Address is a list containing ingress points for the load-balancer",
    ),
    string("Ports", "Ports of TLS configurations that open"),
    AGE,
];

/// The older way to name the class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// The most hosts that a row shows.
const HOSTS_SHOWN_MAX: usize = 3;

impl Strategy for Ingress {
    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({"loadBalancer": {}}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let (rules, default) = (list(spec, &["rules"]), member(spec, "defaultBackend"));
        if rules.is_empty() && default.is_none() {
            errors.push(Error::invalid(
                &at,
                Value::Null,
                "either `defaultBackend` or `rules` must be specified",
            ));
        }
        if let Some(b) = default {
            backend(&mut errors, &at.child("defaultBackend"), b);
        }
        for (i, r) in rules.iter().enumerate() {
            rule(&mut errors, &at.child("rules").index(i), r);
        }
        for (i, t) in list(spec, &["tls"]).iter().enumerate() {
            for (j, h) in list(t, &["hosts"])
                .iter()
                .filter_map(Value::as_str)
                .enumerate()
            {
                host(
                    &mut errors,
                    &at.child("tls").index(i).child("hosts").index(j),
                    h,
                    true,
                );
            }
        }
        let class = text(spec, &["ingressClassName"]);
        if !class.is_empty() {
            complain(
                &mut errors,
                &at.child("ingressClassName"),
                class,
                names::dns1123_subdomain(class),
            );
            if !text(object, &["metadata", "annotations", CLASS_ANNOTATION]).is_empty() {
                let path = Path::new("annotations").key(CLASS_ANNOTATION);
                errors.push(Error::invalid(
                    &path,
                    class,
                    "can not be set when the class field is also set",
                ));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("status").child("loadBalancer").child("ingress");
        for (i, e) in list(new, &["status", "loadBalancer", "ingress"])
            .iter()
            .enumerate()
        {
            super::service::ingress(&mut errors, &at.index(i), e);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let class = match text(object, &["spec", "ingressClassName"]) {
            "" => text(object, &["metadata", "annotations", CLASS_ANNOTATION]),
            c => c,
        };
        let addresses = list(object, &["status", "loadBalancer", "ingress"])
            .iter()
            .map(|i| match text(i, &["ip"]) {
                "" => text(i, &["hostname"]),
                ip => ip,
            });
        let addresses: Vec<&str> = addresses.filter(|a| !a.is_empty()).collect();
        let ports = if list(object, &["spec", "tls"]).is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            name(object).into(),
            or_none(class),
            hosts(object).into(),
            addresses.join(",").into(),
            ports.into(),
            age(object, now),
        ]
    }
}

fn hosts(object: &Value) -> String {
    let all: Vec<&str> = list(object, &["spec", "rules"])
        .iter()
        .map(|r| text(r, &["host"]))
        .filter(|h| !h.is_empty())
        .collect();
    match all.len() {
        0 => "*".into(),
        n if n > HOSTS_SHOWN_MAX => {
            format!(
                "{} + {} more...",
                all[..HOSTS_SHOWN_MAX].join(","),
                n - HOSTS_SHOWN_MAX
            )
        }
        _ => all.join(","),
    }
}

fn host(errors: &mut Errors, at: &Path, h: &str, wildcard: bool) {
    if h.parse::<std::net::IpAddr>().is_ok() {
        return errors.push(Error::invalid(
            at,
            h,
            "must be a DNS name, not an IP address",
        ));
    }
    let plain = if wildcard {
        h.strip_prefix("*.").unwrap_or(h)
    } else {
        h
    };
    complain(errors, at, h, names::dns1123_subdomain(plain));
}

fn rule(errors: &mut Errors, at: &Path, r: &Value) {
    let h = text(r, &["host"]);
    if !h.is_empty() {
        host(errors, &at.child("host"), h, true);
    }
    let Some(http) = member(r, "http") else {
        return;
    };
    let paths = list(http, &["paths"]);
    let at = at.child("http").child("paths");
    if paths.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    for (i, p) in paths.iter().enumerate() {
        path(errors, &at.index(i), p);
    }
}

fn path(errors: &mut Errors, at: &Path, p: &Value) {
    let (kind, value) = (
        member(p, "pathType").and_then(Value::as_str),
        text(p, &["path"]),
    );
    match kind {
        None => errors.push(Error::required(
            &at.child("pathType"),
            "pathType must be specified",
        )),
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.push(Error::invalid(
                    &at.child("path"),
                    value,
                    "must be an absolute path",
                ));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"]
                .iter()
                .filter(|s| value.contains(**s))
            {
                errors.push(Error::invalid(
                    &at.child("path"),
                    value,
                    format!("must not contain '{part}'"),
                ));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(Error::invalid(
                    &at.child("path"),
                    value,
                    "must be an absolute path",
                ));
            }
        }
        Some(other) => errors.push(Error::not_supported(
            &at.child("pathType"),
            other,
            &PATH_TYPES,
        )),
    }
    backend(
        errors,
        &at.child("backend"),
        p.get("backend").unwrap_or(&Value::Null),
    );
}

fn backend(errors: &mut Errors, at: &Path, b: &Value) {
    let (service, resource) = (member(b, "service"), member(b, "resource"));
    match (service, resource) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(
                at,
                "",
                "cannot set both resource and service backends",
            ));
        }
        (None, None) => errors.push(Error::required(
            at,
            "resource or service backend is required",
        )),
        (None, Some(r)) => {
            for key in ["kind", "name"] {
                if text(r, &[key]).is_empty() {
                    errors.push(Error::required(&at.child("resource").child(key), ""));
                }
            }
        }
        (Some(s), None) => {
            let path = at.child("service");
            match text(s, &["name"]) {
                "" => errors.push(Error::required(&path.child("name"), "")),
                n => complain(errors, &path.child("name"), n, names::dns1123_label(n)),
            }
            let port = get(s, &["port"]).unwrap_or(&Value::Null);
            match (
                text(port, &["name"]),
                int(port, &["number"]).unwrap_or_default(),
            ) {
                ("", 0) => errors.push(Error::required(at, "port name or number is required")),
                ("", n) if !is_port(n) => {
                    errors.push(Error::invalid(
                        &path.child("port").child("number"),
                        n,
                        PORT_RANGE,
                    ));
                }
                ("", _) => {}
                (n, 0) => complain(errors, &path.child("port").child("name"), n, port_name(n)),
                _ => errors.push(Error::invalid(
                    at,
                    "",
                    "cannot set both port name & port number",
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields};
    use super::*;

    fn of(rule: Value) -> Vec<String> {
        fields(&Ingress.validate(&cx(), &json!({"spec": {"rules": [rule]}})))
    }

    #[test]
    fn rules_are_checked() {
        let path = |p: Value| {
            let mut full = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}});
            full.as_object_mut()
                .expect("an object")
                .extend(p.as_object().expect("an object").clone());
            of(json!({"http": {"paths": [full]}}))
        };
        let at = |s: &str| vec![format!("spec.rules[0].http.paths[0].{s}")];
        assert!(path(json!({})).is_empty());
        assert_eq!(path(json!({"pathType": null})), at("pathType"));
        assert_eq!(path(json!({"path": "x"})), at("path"));
        assert_eq!(
            path(json!({"backend": {"service": {"name": "s"}}})),
            at("backend")
        );
        assert_eq!(path(json!({"backend": {}})), at("backend"));
        assert_eq!(of(json!({"host": "A_b"})), ["spec.rules[0].host"]);
        assert!(of(json!({"host": "*.example.com"})).is_empty());
        assert_eq!(
            fields(&Ingress.validate(&cx(), &json!({"spec": {}}))),
            ["spec"]
        );
    }

    #[test]
    fn a_row_shows_hosts_and_ports() {
        let rules: Vec<Value> = (1..=5).map(|i| json!({"host": format!("h{i}")})).collect();
        let row = Ingress.row(
            &json!({"spec": {"rules": rules, "tls": [{}]}}),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (&row[2], &row[4]),
            (&json!("h1,h2,h3 + 2 more..."), &json!("80, 443"))
        );
    }
}
