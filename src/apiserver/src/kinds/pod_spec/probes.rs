//! Checks of probes and lifecycle handlers.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use crate::kinds::checks::{
    Errors, NOT_NEGATIVE, PORT_RANGE, complain, is_port, member, non_negative, port_name,
    unsupported,
};

/// The kinds of handlers.
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// A probe; `single` for those of which one success has to be enough.
pub(super) fn probe(errors: &mut Errors, at: &Path, p: &Value, single: bool, grace_allowed: bool) {
    handler(errors, at, p, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        non_negative(errors, at, p, key);
    }
    if let Some(n) = int(p, &["terminationGracePeriodSeconds"]) {
        let path = at.child("terminationGracePeriodSeconds");
        if !grace_allowed {
            errors.push(Error::invalid(
                &path,
                n,
                "must not be set for readinessProbes",
            ));
        } else if n <= 0 {
            errors.push(Error::invalid(&path, n, "must be greater than 0"));
        }
    }
    let successes = int(p, &["successThreshold"]).unwrap_or(1);
    if single && successes != 1 {
        errors.push(Error::invalid(
            &at.child("successThreshold"),
            successes,
            "must be 1",
        ));
    }
}

/// The handlers of a container's start and stop.
pub(super) fn lifecycle(errors: &mut Errors, at: &Path, lifecycle: &Value) {
    for key in ["postStart", "preStop"] {
        if let Some(h) = member(lifecycle, key) {
            handler(errors, &at.child(key), h, &HANDLERS);
        }
    }
}

/// Exactly one handler of those that are allowed.
fn handler(errors: &mut Errors, at: &Path, h: &Value, allowed: &[&str]) {
    let mut found = 0;
    for key in allowed {
        let Some(v) = member(h, key) else { continue };
        found += 1;
        if found > 1 {
            errors.push(Error::forbidden(
                &at.child(key),
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        let at = at.child(key);
        match *key {
            "exec" if list(v, &["command"]).is_empty() => {
                errors.push(Error::required(&at.child("command"), ""));
            }
            "httpGet" => http_get(errors, &at, v),
            "tcpSocket" => port(errors, &at.child("port"), v.get("port")),
            "grpc" => number(
                errors,
                &at.child("port"),
                int(v, &["port"]).unwrap_or_default(),
            ),
            "sleep" if int(v, &["seconds"]).unwrap_or_default() < 0 => {
                let n = int(v, &["seconds"]).unwrap_or_default();
                errors.push(Error::invalid(&at, n, NOT_NEGATIVE));
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(Error::required(at, "must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, at: &Path, h: &Value) {
    if text(h, &["path"]).is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    }
    port(errors, &at.child("port"), h.get("port"));
    let scheme = text(h, &["scheme"]);
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(unsupported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for (i, header) in list(h, &["httpHeaders"]).iter().enumerate() {
        let name = text(header, &["name"]);
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            let why = kontiki_api::names::regex_error(
                "a valid HTTP header must consist of alphanumeric characters or '-'",
                "[-A-Za-z0-9]+",
                &["X-Header-Name"],
            );
            errors.push(Error::invalid(
                &at.child("httpHeaders").index(i).child("name"),
                name,
                why,
            ));
        }
    }
}

/// A port given by number or by name.
fn port(errors: &mut Errors, at: &Path, port: Option<&Value>) {
    match port {
        Some(Value::String(name)) => complain(errors, at, name, port_name(name)),
        other => number(
            errors,
            at,
            other.and_then(Value::as_i64).unwrap_or_default(),
        ),
    }
}

fn number(errors: &mut Errors, at: &Path, n: i64) {
    if !is_port(n) {
        errors.push(Error::invalid(at, n, PORT_RANGE));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(p: Value) -> Vec<String> {
        let mut e = Errors::new();
        probe(&mut e, &Path::new("p"), &p, true, true);
        fields(&e)
    }

    #[test]
    fn a_probe_has_one_handler() {
        assert_eq!(of(json!({})), ["p"]);
        let get = json!({"path": "/", "port": "http", "scheme": "HTTP"});
        assert!(of(json!({"httpGet": get})).is_empty());
        assert_eq!(
            of(json!({"httpGet": get, "tcpSocket": {"port": 1}})),
            ["p.tcpSocket"]
        );
        assert_eq!(of(json!({"tcpSocket": {"port": 0}})), ["p.tcpSocket.port"]);
        assert_eq!(of(json!({"exec": {}})), ["p.exec.command"]);
    }

    #[test]
    fn one_success_is_enough_for_liveness() {
        assert_eq!(
            of(json!({"tcpSocket": {"port": 1}, "successThreshold": 2})),
            ["p.successThreshold"]
        );
    }
}
