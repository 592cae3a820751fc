//! Cluster IPs and node ports: which are free, and who gets them.
//!
//! The engine makes services one after the other, so what is free when it is looked at is free when it is stored.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{int, list, map_mut, name, namespace, text, truth};
use rand::Rng;
use serde_json::{Map, Value, json};

use super::{HEADLESS, is_headless, needs_cluster_ip};
use crate::kinds::checks::{Errors, clear, items_mut, keep, map_of, same};
use crate::strategy::Context;

/// The range of cluster IPs while no ServiceCIDR says another.
const DEFAULT_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);
/// The number after which a dry run counts its ports, so that nobody takes them for real.
const DRY_RUN_PORT: i64 = 32768;

/// What other services have.
struct Taken {
    ips: HashSet<IpAddr>,
    ports: HashSet<(i64, String)>,
}

/// Gives the service what it still needs. Answers what it asks for and cannot have.
pub(super) fn allocate(cx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let own = (name(object).to_owned(), namespace_of(cx, object).to_owned());
    let Some(spec) = map_of(object, "spec") else {
        return errors;
    };
    if !needs_cluster_ip(spec) {
        return errors;
    }
    families(&mut errors, spec);
    if !errors.is_empty() {
        return errors;
    }
    let settled = old.is_some_and(|o| is_settled(spec, o.get("spec").unwrap_or(&Value::Null)));
    if settled {
        return errors;
    }
    let mut taken = Taken {
        ips: HashSet::new(),
        ports: HashSet::new(),
    };
    cx.objects.each("", "services", &mut |s| {
        if name(s) != own.0 || namespace(s) != own.1 {
            taken.add(s);
        }
    });
    let had = old.and_then(|o| o.pointer("/spec/clusterIPs"));
    cluster_ip(cx, &mut errors, spec, &taken, had);
    if errors.is_empty() {
        node_ports(cx, &mut errors, spec, &mut taken);
    }
    errors
}

fn namespace_of<'a>(cx: &'a Context<'_>, object: &'a Value) -> &'a str {
    match namespace(object) {
        "" => cx.namespace,
        ns => ns,
    }
}

impl Taken {
    fn add(&mut self, service: &Value) {
        let ips = list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(Value::as_str);
        self.ips
            .extend(ips.filter_map(|ip| ip.parse::<IpAddr>().ok()));
        for p in list(service, &["spec", "ports"]) {
            if let Some(n) = int(p, &["nodePort"]).filter(|n| *n != 0) {
                self.ports.insert((n, text(p, &["protocol"]).to_owned()));
            }
        }
        if let Some(n) = int(service, &["spec", "healthCheckNodePort"]).filter(|n| *n != 0) {
            self.ports.insert((n, "TCP".into()));
        }
    }
}

/// Whether nothing is missing, and nothing asked for that the old service does not have.
fn is_settled(spec: &Value, old: &Value) -> bool {
    let ports = |v: &Value| -> Vec<i64> {
        let mut all: Vec<i64> = list(v, &["ports"])
            .iter()
            .map(|p| int(p, &["nodePort"]).unwrap_or_default())
            .collect();
        all.push(int(v, &["healthCheckNodePort"]).unwrap_or_default());
        all
    };
    let had = ports(old);
    let mut ports_settled = ports(spec).into_iter();
    let health = wants_health_port(spec);
    let count = list(spec, &["ports"]).len();
    same(spec.get("clusterIPs"), old.get("clusterIPs"))
        && !list(spec, &["clusterIPs"]).is_empty()
        && ports_settled.by_ref().take(count).all(|n| {
            if n == 0 {
                !wants_node_ports(spec)
            } else {
                had.contains(&n)
            }
        })
        && ports_settled.all(|n| if n == 0 { !health } else { had.contains(&n) })
}

fn wants_node_ports(spec: &Value) -> bool {
    match text(spec, &["type"]) {
        "NodePort" => true,
        "LoadBalancer" => truth(spec, &["allocateLoadBalancerNodePorts"]),
        _ => false,
    }
}

fn wants_health_port(spec: &Value) -> bool {
    text(spec, &["type"]) == "LoadBalancer" && text(spec, &["externalTrafficPolicy"]) == "Local"
}

/// The address families: the cluster has one.
fn families(errors: &mut Errors, spec: &mut Value) {
    let at = Path::new("spec");
    let loose = is_headless(spec)
        && spec
            .get("selector")
            .and_then(Value::as_object)
            .is_none_or(Map::is_empty);
    if loose {
        // Nobody allocates for it: its owner may publish addresses of any family.
        let policy = map_mut(spec, &[])
            .entry("ipFamilyPolicy")
            .or_insert_with(|| "RequireDualStack".into());
        let both = *policy != "SingleStack";
        if list(spec, &["ipFamilies"]).is_empty() {
            spec["ipFamilies"] = if both {
                json!(["IPv4", "IPv6"])
            } else {
                json!(["IPv4"])
            };
        }
        return;
    }
    for (i, family) in list(spec, &["ipFamilies"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        if family != "IPv4" {
            errors.push(Error::invalid(
                &at.child("ipFamilies").index(i),
                family,
                "not configured on this cluster",
            ));
        }
    }
    if text(spec, &["ipFamilyPolicy"]) == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(
            &at.child("ipFamilyPolicy"),
            "RequireDualStack",
            why,
        ));
    }
    if errors.is_empty() {
        let spec = map_mut(spec, &[]);
        spec.entry("ipFamilyPolicy")
            .or_insert_with(|| "SingleStack".into());
        if spec
            .get("ipFamilies")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
        {
            spec.insert("ipFamilies".into(), json!(["IPv4"]));
        }
    }
}

/// The ranges of cluster IPs: those of the ServiceCIDRs that are not on their way out.
fn ranges(cx: &Context<'_>) -> Vec<Ipv4Net> {
    let mut all: Vec<(String, Ipv4Net)> = Vec::new();
    cx.objects
        .each("networking.k8s.io", "servicecidrs", &mut |c| {
            if !text(c, &["metadata", "deletionTimestamp"]).is_empty() {
                return;
            }
            let nets = list(c, &["spec", "cidrs"])
                .iter()
                .filter_map(|s| s.as_str()?.parse::<Ipv4Net>().ok());
            all.extend(nets.map(|n| (name(c).to_owned(), n)));
        });
    // The cluster's own range comes first, whatever else there is.
    all.sort_by_key(|(name, _)| (name != "kubernetes", name.clone()));
    if all.is_empty() {
        vec![DEFAULT_RANGE]
    } else {
        all.into_iter().map(|(_, n)| n).collect()
    }
}

fn cluster_ip(
    cx: &Context<'_>,
    errors: &mut Errors,
    spec: &mut Value,
    taken: &Taken,
    had: Option<&Value>,
) {
    let asked = list(spec, &["clusterIPs"])
        .first()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if asked == HEADLESS || (!asked.is_empty() && same(spec.get("clusterIPs"), had)) {
        return;
    }
    let ranges = ranges(cx);
    let path = Path::new("spec").child("clusterIPs");
    if asked.is_empty() {
        match ranges.iter().find_map(|r| free_ip(r, &taken.ips)) {
            Some(ip) => {
                let spec = map_mut(spec, &[]);
                spec.insert("clusterIP".into(), ip.to_string().into());
                spec.insert("clusterIPs".into(), json!([ip.to_string()]));
            }
            None => errors.push(Error::invalid(
                &path,
                json!([]),
                "failed to allocate a serviceIP: range is full",
            )),
        }
        return;
    }
    let Ok(ip) = asked.parse::<IpAddr>() else {
        return;
    };
    let why = if !ranges.iter().any(|r| IpNet::V4(*r).contains(&ip)) {
        "the provided network does not match the current range"
    } else if taken.ips.contains(&ip) {
        "provided IP is already allocated"
    } else {
        return;
    };
    errors.push(Error::invalid(
        &path,
        json!([asked]),
        format!("failed to allocate IP {asked}: {why}"),
    ));
}

/// A free address, from a random one upwards. The first ones of the range are for those who choose one: they come last.
fn free_ip(range: &Ipv4Net, taken: &HashSet<IpAddr>) -> Option<Ipv4Addr> {
    let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
    let (low, high) = (first.checked_add(1)?, last.checked_sub(1)?);
    if low > high {
        return None;
    }
    let size = high - low + 1;
    let reserved = (size / 16).clamp(16, 256).min(size - 1);
    let start = low + reserved;
    let from = rand::rng().random_range(start..=high);
    let free = |n: &u32| !taken.contains(&IpAddr::V4(Ipv4Addr::from(*n)));
    (from..=high)
        .chain(start..from)
        .chain(low..start)
        .find(free)
        .map(Ipv4Addr::from)
}

fn node_ports(cx: &Context<'_>, errors: &mut Errors, spec: &mut Value, taken: &mut Taken) {
    let (ports, health) = (wants_node_ports(spec), wants_health_port(spec));
    let mut dry = DRY_RUN_PORT;
    for (i, p) in items_mut(spec, "ports").iter_mut().enumerate() {
        let protocol = text(p, &["protocol"]).to_owned();
        let asked = int(p, &["nodePort"]).unwrap_or_default();
        let path = Path::new("spec").child("ports").index(i).child("nodePort");
        if asked != 0 {
            claim(cx, errors, &path, asked, &protocol, taken);
        } else if ports {
            match next_port(cx, &mut dry, &protocol, taken) {
                Some(n) => drop(map_mut(p, &[]).insert("nodePort".into(), n.into())),
                None => errors.push(Error::invalid(
                    &path,
                    0,
                    "failed to allocate a nodePort: range is full",
                )),
            }
        }
    }
    if !health {
        return;
    }
    let path = Path::new("spec").child("healthCheckNodePort");
    match int(spec, &["healthCheckNodePort"]).unwrap_or_default() {
        0 => match next_port(cx, &mut dry, "TCP", taken) {
            Some(n) => drop(map_mut(spec, &[]).insert("healthCheckNodePort".into(), n.into())),
            None => errors.push(Error::invalid(
                &path,
                0,
                "failed to allocate a nodePort: range is full",
            )),
        },
        n => claim(cx, errors, &path, n, "TCP", taken),
    }
}

fn claim(
    cx: &Context<'_>,
    errors: &mut Errors,
    path: &Path,
    port: i64,
    protocol: &str,
    taken: &mut Taken,
) {
    let range = cx.objects.node_ports();
    if !range.contains(&port) {
        let (from, to) = (range.start(), range.end());
        let why = format!(
            "provided port is not in the valid range. The range of valid ports is {from}-{to}"
        );
        errors.push(Error::invalid(path, port, why));
    } else if !taken.ports.insert((port, protocol.to_owned())) {
        errors.push(Error::invalid(
            path,
            port,
            "provided port is already allocated",
        ));
    }
}

fn next_port(cx: &Context<'_>, dry: &mut i64, protocol: &str, taken: &mut Taken) -> Option<i64> {
    if cx.dry_run {
        *dry += 1;
        return Some(*dry);
    }
    let range = cx.objects.node_ports();
    let (low, high) = (*range.start(), *range.end());
    // The first ones are for those who choose one: allocation takes them last.
    let dynamic = (low + ((high - low + 1) / 32).clamp(16, 128)).min(high);
    let from = rand::rng().random_range(dynamic..=high);
    // A port is given to one service whatever the protocol, so that nobody has to wonder whose it is.
    let used: HashSet<i64> = taken.ports.iter().map(|(n, _)| *n).collect();
    let mut all = (from..=high).chain(dynamic..from).chain(low..dynamic);
    let port = all.find(|n| !used.contains(n))?;
    taken.ports.insert((port, protocol.to_owned()));
    Some(port)
}

/// Whether the address is the one that the service had, or one that it may take.
pub(super) fn unchanged_address(new: &Value, old: &Value) -> bool {
    let (new, old) = (&new["spec"], &old["spec"]);
    !needs_cluster_ip(old) || same(new.get("clusterIPs"), old.get("clusterIPs"))
}

/// Takes over what was allocated and is not stated, and gives back what is not needed any more.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let (Some(spec), Some(was)) = (map_of(new, "spec"), old.get("spec")) else {
        return;
    };
    if !needs_cluster_ip(spec) {
        // An ExternalName gives everything back that it did not change itself.
        for key in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "healthCheckNodePort",
        ] {
            if same(spec.get(key), was.get(key)) {
                clear(spec, key);
            }
        }
        drop_node_ports(spec, was);
        return;
    }
    if needs_cluster_ip(was) {
        let (ip, old_ip) = (text(spec, &["clusterIP"]), text(was, &["clusterIP"]));
        if ip.is_empty() {
            keep(spec, was, "clusterIP");
            if list(spec, &["clusterIPs"]).is_empty() {
                keep(spec, was, "clusterIPs");
            }
        } else if list(spec, &["clusterIPs"]).is_empty()
            || (ip != old_ip && same(spec.get("clusterIPs"), was.get("clusterIPs")))
        {
            let ips = if ip == old_ip {
                was["clusterIPs"].clone()
            } else {
                json!([ip])
            };
            map_mut(spec, &[]).insert("clusterIPs".into(), ips);
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec.get(key), None) {
                keep(spec, was, key);
            }
        }
    } else if !text(spec, &["clusterIP"]).is_empty() && list(spec, &["clusterIPs"]).is_empty() {
        let ip = text(spec, &["clusterIP"]).to_owned();
        map_mut(spec, &[]).insert("clusterIPs".into(), json!([ip]));
    }
    if wants_node_ports(spec) && wants_node_ports(was) {
        keep_node_ports(spec, was);
    } else if !matches!(text(spec, &["type"]), "NodePort" | "LoadBalancer") {
        drop_node_ports(spec, was);
    }
    if wants_health_port(spec) && int(spec, &["healthCheckNodePort"]).unwrap_or_default() == 0 {
        keep(spec, was, "healthCheckNodePort");
    } else if !wants_health_port(spec)
        && same(
            spec.get("healthCheckNodePort"),
            was.get("healthCheckNodePort"),
        )
    {
        clear(spec, "healthCheckNodePort");
    }
}

/// A port that says no node port keeps the one that it had.
fn keep_node_ports(spec: &mut Value, was: &Value) {
    let had = list(was, &["ports"]);
    let used: Vec<i64> = list(spec, &["ports"])
        .iter()
        .filter_map(|p| int(p, &["nodePort"]))
        .collect();
    for p in items_mut(spec, "ports") {
        if int(p, &["nodePort"]).unwrap_or_default() != 0 {
            continue;
        }
        let alike = |q: &&Value| {
            same(p.get("port"), q.get("port")) && same(p.get("protocol"), q.get("protocol"))
        };
        let old = had
            .iter()
            .find(alike)
            .and_then(|q| int(q, &["nodePort"]))
            .filter(|n| !used.contains(n));
        if let Some(n) = old {
            map_mut(p, &[]).insert("nodePort".into(), n.into());
        }
    }
}

fn drop_node_ports(spec: &mut Value, was: &Value) {
    let had: Vec<i64> = list(was, &["ports"])
        .iter()
        .filter_map(|p| int(p, &["nodePort"]))
        .collect();
    for p in items_mut(spec, "ports") {
        if int(p, &["nodePort"]).is_some_and(|n| had.contains(&n)) {
            clear(p, "nodePort");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_leave_the_first_ones_for_last() {
        let range: Ipv4Net = "10.0.0.0/24".parse().expect("a range");
        for _ in 0..100 {
            let ip = free_ip(&range, &HashSet::new()).expect("free");
            assert!((17..=254).contains(&ip.octets()[3]), "{ip}");
        }
        let all_but_one: HashSet<IpAddr> = (1..=254)
            .filter(|n| *n != 3)
            .map(|n| IpAddr::from([10, 0, 0, n]))
            .collect();
        assert_eq!(
            free_ip(&range, &all_but_one),
            Some(Ipv4Addr::new(10, 0, 0, 3))
        );
        assert_eq!(
            free_ip(&"10.0.0.0/32".parse().expect("a range"), &HashSet::new()),
            None
        );
    }
}
