//! NetworkPolicies.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, int, list, map_mut, text};
use serde_json::{Value, json};

use super::checks::{
    Errors, PORT_RANGE, cidr, complain, default_text, default_value, is_port, items_mut,
    label_selector, map_of, member, port_name, unsupported,
};
use super::columns::{AGE, NAME, named_row, selector, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of networkpolicies.
pub(super) struct NetworkPolicy;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "Pod-Selector",
        "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
    ),
    AGE,
];

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// The two directions: the list of rules, and the list of peers in each.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Strategy for NetworkPolicy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "podSelector", json!({}));
        for (direction, _) in DIRECTIONS {
            for rule in items_mut(spec, direction) {
                for port in items_mut(rule, "ports") {
                    default_text(port, "protocol", "TCP");
                }
            }
        }
        if list(spec, &["policyTypes"]).is_empty() {
            // A policy is about what comes in, and about what goes out if it says anything about that.
            let egress = !list(spec, &["egress"]).is_empty();
            let types = if egress {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            map_mut(spec, &[]).insert("policyTypes".into(), types);
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        if let Some(s) = member(spec, "podSelector") {
            label_selector(&mut errors, &at.child("podSelector"), s);
        }
        for (direction, peers) in DIRECTIONS {
            for (i, rule) in list(spec, &[direction]).iter().enumerate() {
                let at = at.child(direction).index(i);
                for (j, p) in list(rule, &["ports"]).iter().enumerate() {
                    port(&mut errors, &at.child("ports").index(j), p);
                }
                for (j, p) in list(rule, &[peers]).iter().enumerate() {
                    peer(&mut errors, &at.child(peers).index(j), p);
                }
            }
        }
        let types = list(spec, &["policyTypes"]);
        if types.len() > 2 {
            let why = "may not specify more than two policyTypes";
            errors.push(Error::invalid(
                &at.child("policyTypes"),
                types.to_vec(),
                why,
            ));
            return errors;
        }
        for (i, t) in types.iter().filter_map(Value::as_str).enumerate() {
            if !["Ingress", "Egress"].contains(&t) {
                errors.push(unsupported(
                    &at.child("policyTypes").index(i),
                    t,
                    &["Ingress", "Egress"],
                ));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(
            object,
            now,
            [selector(get(object, &["spec", "podSelector"]))],
        )
    }
}

fn port(errors: &mut Errors, at: &Path, p: &Value) {
    let protocol = text(p, &["protocol"]);
    if !protocol.is_empty() && !PROTOCOLS.contains(&protocol) {
        errors.push(Error::not_supported(
            &at.child("protocol"),
            protocol,
            &PROTOCOLS,
        ));
    }
    let end = int(p, &["endPort"]);
    match (member(p, "port"), end) {
        (Some(Value::String(s)), _) => {
            if end.is_some() {
                let why = "may not be specified when `port` is non-numeric";
                errors.push(Error::forbidden(&at.child("endPort"), why));
            }
            complain(errors, &at.child("port"), s, port_name(s));
        }
        (Some(n), _) => {
            let number = n.as_i64().unwrap_or_default();
            if !is_port(number) {
                errors.push(Error::invalid(&at.child("port"), number, PORT_RANGE));
            }
            if let Some(end) = end {
                if end < number {
                    // Upstream shows the port where it means the end.
                    let why = "must be greater than or equal to `port`";
                    errors.push(Error::invalid(&at.child("endPort"), number, why));
                }
                if !is_port(end) {
                    errors.push(Error::invalid(&at.child("endPort"), end, PORT_RANGE));
                }
            }
        }
        (None, Some(_)) => {
            errors.push(Error::forbidden(
                &at.child("endPort"),
                "may not be specified when `port` is not specified",
            ));
        }
        (None, None) => {}
    }
}

fn peer(errors: &mut Errors, at: &Path, p: &Value) {
    let mut peers = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(s) = member(p, key) {
            peers += 1;
            label_selector(errors, &at.child(key), s);
        }
    }
    if let Some(b) = member(p, "ipBlock") {
        peers += 1;
        block(errors, &at.child("ipBlock"), b);
        if peers > 1 {
            errors.push(Error::forbidden(
                at,
                "may not specify both ipBlock and another peer",
            ));
        }
    }
    if peers == 0 {
        errors.push(Error::required(at, "must specify a peer"));
    }
}

fn block(errors: &mut Errors, at: &Path, b: &Value) {
    let whole = text(b, &["cidr"]);
    if whole.is_empty() {
        return errors.push(Error::required(&at.child("cidr"), ""));
    }
    let Some(whole) = cidr(errors, &at.child("cidr"), whole) else {
        return;
    };
    for (i, e) in list(b, &["except"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        let path = at.child("except").index(i);
        if let Some(part) = cidr(errors, &path, e)
            && (!whole.contains(&part) || whole.prefix_len() >= part.prefix_len())
        {
            errors.push(Error::invalid(
                &path,
                e,
                "must be a strict subset of `cidr`",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn a_policy_is_about_what_it_has_rules_for() {
        let types = |spec: Value| {
            idempotent(&NetworkPolicy, json!({"spec": spec}))["spec"]["policyTypes"].clone()
        };
        assert_eq!(types(json!({})), json!(["Ingress"]));
        assert_eq!(types(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
    }

    #[test]
    fn peers_and_ports_are_checked() {
        let o = json!({"spec": {"policyTypes": ["x"], "egress": [{"to": [{}, {"ipBlock": {"cidr": "10.0.0.0/8",
            "except": ["11.0.0.0/8", "10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 70}]}]}});
        assert_eq!(
            fields(&NetworkPolicy.validate(&cx(), &idempotent(&NetworkPolicy, o))),
            [
                "spec.egress[0].ports[0].endPort",
                "spec.egress[0].to[0]",
                "spec.egress[0].to[1].ipBlock.except[0]",
                "spec.policyTypes[0]"
            ]
        );
    }
}
