//! Endpoints.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use super::checks::{
    Errors, PORT_RANGE, complain, default_text, endpoint_ip, ip, is_port, items_mut, port_name,
    unsupported,
};
use super::columns::{AGE, NAME, named_row, or_none, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of endpoints.
pub(super) struct Endpoints;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "Endpoints",
        "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
    ),
    AGE,
];

/// The most endpoints that a row shows.
const SHOWN_MAX: usize = 3;
/// The transport protocols of ports.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

impl Strategy for Endpoints {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        for (i, subset) in list(object, &["subsets"]).iter().enumerate() {
            let at = Path::new("subsets").index(i);
            let (ready, waiting) = (
                list(subset, &["addresses"]),
                list(subset, &["notReadyAddresses"]),
            );
            if ready.is_empty() && waiting.is_empty() {
                errors.push(Error::required(
                    &at,
                    "must specify `addresses` or `notReadyAddresses`",
                ));
            }
            for (key, all) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (j, a) in all.iter().enumerate() {
                    address(&mut errors, &at.child(key).index(j), a);
                }
            }
            let ports = list(subset, &["ports"]);
            for (j, p) in ports.iter().enumerate() {
                port(&mut errors, &at.child("ports").index(j), p, ports.len() > 1);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        named_row(object, now, [shown(object)])
    }
}

fn address(errors: &mut Errors, at: &Path, a: &Value) {
    let path = at.child("ip");
    let value = text(a, &["ip"]);
    match ip(errors, &path, value) {
        Some(ip) => endpoint_ip(errors, &path, ip),
        // The second check of the same field complains in words of its own.
        None => errors.push(Error::invalid(&path, value, "must be a valid IP address")),
    }
    let hostname = text(a, &["hostname"]);
    if !hostname.is_empty() {
        complain(
            errors,
            &at.child("hostname"),
            hostname,
            names::dns1123_label(hostname),
        );
    }
    let node = text(a, &["nodeName"]);
    if !node.is_empty() {
        complain(
            errors,
            &at.child("nodeName"),
            node,
            names::dns1123_subdomain(node),
        );
    }
}

fn port(errors: &mut Errors, at: &Path, port: &Value, needs_name: bool) {
    let name = text(port, &["name"]);
    if name.is_empty() {
        if needs_name {
            errors.push(Error::required(&at.child("name"), ""));
        }
    } else {
        complain(errors, &at.child("name"), name, names::dns1123_label(name));
    }
    let number = int(port, &["port"]).unwrap_or_default();
    if !is_port(number) {
        errors.push(Error::invalid(&at.child("port"), number, PORT_RANGE));
    }
    let protocol = text(port, &["protocol"]);
    if protocol.is_empty() {
        errors.push(Error::required(&at.child("protocol"), ""));
    } else if !PROTOCOLS.contains(&protocol) {
        errors.push(unsupported(&at.child("protocol"), protocol, &PROTOCOLS));
    }
    let app = text(port, &["appProtocol"]);
    if !app.is_empty() {
        complain(
            errors,
            &at.child("appProtocol"),
            app,
            names::qualified_name(app),
        );
    }
}

/// The first few endpoints, and how many more there are.
fn shown(object: &Value) -> Value {
    let (mut out, mut count) = (Vec::new(), 0);
    let mut add = |text: String| {
        if count < SHOWN_MAX {
            out.push(text);
        }
        count += 1;
    };
    for subset in list(object, &["subsets"]) {
        let ports = list(subset, &["ports"]);
        let addresses = || {
            list(subset, &["addresses"])
                .iter()
                .map(|a| text(a, &["ip"]))
        };
        if ports.is_empty() {
            addresses().for_each(|ip| add(ip.to_owned()));
        }
        for port in ports {
            let number = int(port, &["port"]).unwrap_or_default();
            for ip in addresses() {
                add(if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                });
            }
        }
    }
    let more = if count > SHOWN_MAX {
        format!(" + {} more...", count - SHOWN_MAX)
    } else {
        String::new()
    };
    or_none(&format!("{}{more}", out.join(",")))
}

/// What is wrong with the name of a port of an endpoint slice; it may be empty.
pub(super) fn slice_port_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        Vec::new()
    } else {
        port_name(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn addresses_and_ports_are_checked() {
        let o = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}],
            "ports": [{"port": 0, "protocol": "TCP"}, {"name": "a", "port": 1, "protocol": "x"}]}, {}]});
        assert_eq!(
            fields(&Endpoints.validate(&cx(), &o)),
            [
                "subsets[0].addresses[0].ip",
                "subsets[0].addresses[1].ip",
                "subsets[0].addresses[1].ip",
                "subsets[0].ports[0].name",
                "subsets[0].ports[0].port",
                "subsets[0].ports[1].protocol",
                "subsets[1]"
            ]
        );
    }

    #[test]
    fn a_row_shows_three() {
        let ips: Vec<Value> = (1..=5)
            .map(|i| json!({"ip": format!("10.0.0.{i}")}))
            .collect();
        let o = idempotent(
            &Endpoints,
            json!({"subsets": [{"addresses": ips, "ports": [{"port": 80}]}]}),
        );
        assert_eq!(shown(&o), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!(shown(&json!({})), "<none>");
    }
}
