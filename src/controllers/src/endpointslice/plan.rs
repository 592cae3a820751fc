//! The endpoints that a service should have, and the fewest writes that bring its slices there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::views::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Node, Pod, Service, ServicePort,
    TargetRef,
};

/// Endpoints in a slice at most.
pub const SLICE_ENDPOINTS_MAX: usize = 100;
/// The label that names the service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who cares for a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Ourselves, in that label.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label of what belongs to a service without an address of its own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Address family and ports: what all endpoints of a slice share.
type Group = (String, Vec<EndpointPort>);

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a slice.
    Create {
        /// `IPv4` or `IPv6`.
        address_type: String,
        /// Its ports.
        ports: Vec<EndpointPort>,
        /// Its endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// Give a slice other endpoints.
    Update {
        /// The slice.
        slice: Arc<EndpointSlice>,
        /// Its endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// Delete a slice.
    Delete(Arc<EndpointSlice>),
}

/// The fewest writes that bring a service's slices to its pods.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: &dyn Fn(&str) -> Option<String>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<Command> {
    let mut want: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for family in families(service) {
        // A service without pods has one slice that says so.
        if pods.is_empty() || pods.iter().all(|p| address(p, &family).is_none()) {
            want.entry((family.clone(), Vec::new())).or_default();
        }
        for pod in pods {
            if let Some(ip) = address(pod, &family) {
                let group = (family.clone(), ports(service, pod));
                want.entry(group).or_default().insert(
                    pod.metadata.uid.clone(),
                    endpoint(service, pod, ip, zone_of),
                );
            }
        }
    }
    // The slice without ports is only there if nothing else is.
    let families_with_pods: BTreeSet<String> = want
        .iter()
        .filter(|(_, e)| !e.is_empty())
        .map(|(g, _)| g.0.clone())
        .collect();
    want.retain(|(family, _), e| !e.is_empty() || !families_with_pods.contains(family));
    let mut have: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for s in slices {
        let mut ports = s.ports.clone();
        ports.sort();
        have.entry((s.address_type.clone(), ports))
            .or_default()
            .push(s.clone());
    }
    let mut commands = Vec::new();
    for (group, endpoints) in &want {
        plan_group(
            service,
            group,
            endpoints,
            &have.remove(group).unwrap_or_default(),
            &mut commands,
        );
    }
    commands.extend(have.into_values().flatten().map(Command::Delete));
    commands
}

fn uid_of(e: &Endpoint) -> &str {
    e.target_ref.as_ref().map_or("", |t| t.uid.as_str())
}

fn plan_group(
    service: &Service,
    group: &Group,
    want: &BTreeMap<String, Endpoint>,
    slices: &[Arc<EndpointSlice>],
    commands: &mut Vec<Command>,
) {
    let mut left = want.clone();
    // What each slice keeps, with the changes of its endpoints, and whether it has to be written at all.
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>, bool)> = Vec::new();
    for s in slices {
        let (mut endpoints, mut changed) = (Vec::new(), !has_labels(service, s));
        for e in &s.endpoints {
            match left.remove(uid_of(e)) {
                Some(new) => {
                    changed |= new != *e;
                    endpoints.push(new);
                }
                None => changed = true,
            }
        }
        kept.push((s.clone(), endpoints, changed));
    }
    let mut left: Vec<Endpoint> = left.into_values().collect();
    // Slices that are written anyway are filled first, then the fullest of the others, so that few are written.
    kept.sort_by_key(|(_, e, changed)| (!changed, std::cmp::Reverse(e.len())));
    for (_, endpoints, changed) in &mut kept {
        let room = SLICE_ENDPOINTS_MAX.saturating_sub(endpoints.len());
        if !left.is_empty() && room > 0 && (*changed || left.len() <= room || endpoints.is_empty())
        {
            endpoints.extend(left.drain(..room.min(left.len())));
            *changed = true;
        }
    }
    while !left.is_empty() {
        let endpoints = left.drain(..SLICE_ENDPOINTS_MAX.min(left.len())).collect();
        commands.push(Command::Create {
            address_type: group.0.clone(),
            ports: group.1.clone(),
            endpoints,
        });
    }
    let is_placeholder = want.is_empty();
    if is_placeholder && kept.is_empty() {
        commands.push(Command::Create {
            address_type: group.0.clone(),
            ports: group.1.clone(),
            endpoints: Vec::new(),
        });
    }
    let mut keep_empty = is_placeholder;
    for (slice, endpoints, changed) in kept {
        if endpoints.is_empty() && !std::mem::take(&mut keep_empty) {
            commands.push(Command::Delete(slice));
        } else if changed {
            commands.push(Command::Update { slice, endpoints });
        }
    }
}

/// The labels of a service's slices: those of the service, and who it is and who cares.
pub fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut out = service.metadata.labels.clone();
    out.remove(HEADLESS);
    if service.is_headless() {
        out.insert(HEADLESS.into(), String::new());
    }
    out.insert(SERVICE_NAME.into(), service.metadata.name.clone());
    out.insert(MANAGED_BY.into(), MANAGER.into());
    out
}

fn has_labels(service: &Service, slice: &EndpointSlice) -> bool {
    labels(service) == slice.metadata.labels
}

/// The address families that a service has slices for.
fn families(service: &Service) -> Vec<String> {
    if service.spec.ip_families.is_empty() {
        vec!["IPv4".into()]
    } else {
        service.spec.ip_families.clone()
    }
}

fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let is = |ip: &IpAddr| {
        if family == "IPv6" {
            ip.is_ipv6()
        } else {
            ip.is_ipv4()
        }
    };
    pod.ips
        .iter()
        .find(|ip| ip.parse().is_ok_and(|ip| is(&ip)))
        .map(String::as_str)
}

/// Whether a pod is an endpoint of the services that select it: until all of its containers have ended.
pub fn is_endpoint(pod: &Pod) -> bool {
    !pod.is_terminated() && !pod.ips.is_empty()
}

/// The service's ports on this pod, sorted. A named port that the pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let one = |p: &ServicePort| {
        let port = target_port(p, pod)?;
        Some(EndpointPort {
            name: Some(p.name.clone()),
            protocol: Some(protocol(p)),
            port: Some(port),
            app_protocol: p.app_protocol.clone(),
        })
    };
    let mut out: Vec<_> = service.spec.ports.iter().filter_map(one).collect();
    out.sort();
    out
}

fn protocol(p: &ServicePort) -> String {
    if p.protocol.is_empty() {
        "TCP".into()
    } else {
        p.protocol.clone()
    }
}

fn target_port(p: &ServicePort, pod: &Pod) -> Option<i32> {
    match &p.target_port {
        Some(Value::Number(n)) => n
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .filter(|n| *n != 0)
            .or(Some(p.port)),
        Some(Value::String(name)) if !name.is_empty() => {
            let named = |c: &&crate::views::PodPort| {
                c.name == *name
                    && (c.protocol == protocol(p)
                        || (c.protocol.is_empty() && protocol(p) == "TCP"))
            };
            pod.ports.iter().find(named).map(|c| c.container_port)
        }
        _ => Some(p.port),
    }
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    ip: &str,
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let terminating = pod.metadata.is_deleting();
    let serving = pod.ready;
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let has_name = !pod.hostname.is_empty() && pod.subdomain == service.metadata.name;
    let conditions = EndpointConditions {
        ready: Some(ready),
        serving: Some(serving),
        terminating: Some(terminating),
    };
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions,
        hostname: has_name.then(|| pod.hostname.clone()),
        node_name: Some(pod.node_name.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(TargetRef {
            kind: "Pod".into(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
        zone: zone_of(&pod.node_name),
    }
}

/// The zone that a node's labels name.
pub fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.get(ZONE).cloned()
}

/// The endpoints of all pods by address, as the older Endpoints object shows them: grouped by the ports that they have.
pub fn by_ports(
    service: &Service,
    pods: &[Arc<Pod>],
) -> BTreeMap<Vec<EndpointPort>, Vec<(Endpoint, bool)>> {
    let mut out: BTreeMap<Vec<EndpointPort>, Vec<(Endpoint, bool)>> = BTreeMap::new();
    let family = families(service).into_iter().next().unwrap_or_default();
    let mut seen: HashMap<String, ()> = HashMap::new();
    for pod in pods {
        let Some(ip) = address(pod, &family) else {
            continue;
        };
        // A pod that is going away is not listed, unless the service shows everything.
        if pod.metadata.is_deleting() && !service.spec.publish_not_ready_addresses {
            continue;
        }
        if seen.insert(pod.metadata.uid.clone(), ()).is_none() {
            let e = endpoint(service, pod, ip, &|_| None);
            let ready = e.conditions.ready == Some(true);
            out.entry(ports(service, pod)).or_default().push((e, ready));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn service(more: &Value) -> Service {
        let mut spec = json!({"clusterIP": "10.96.0.9", "selector": {"app": "x"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]});
        spec.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "svc", "labels": {"a": "b"}}, "spec": spec})).expect("a service")
    }

    fn pod(n: usize, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        let mut p = Pod {
            node_name: "n1".into(),
            phase: "Running".into(),
            ready: true,
            ..Pod::default()
        };
        p.metadata.namespace = "ns".into();
        p.metadata.name = format!("p{n}");
        p.metadata.uid = format!("u{n}");
        p.ips = vec![format!("10.1.{}.{}", n / 250, n % 250)];
        p.ports = vec![crate::views::PodPort {
            name: "web".into(),
            container_port: 8080,
            protocol: "TCP".into(),
        }];
        change(&mut p);
        Arc::new(p)
    }

    fn zone_of(node: &str) -> Option<String> {
        (node == "n1").then(|| "z1".into())
    }

    /// Carries out a plan on a list of slices.
    fn execute(
        service: &Service,
        slices: &mut Vec<Arc<EndpointSlice>>,
        commands: Vec<Command>,
        serial: &mut u32,
    ) {
        for c in commands {
            match c {
                Command::Create {
                    address_type,
                    ports,
                    endpoints,
                } => {
                    *serial += 1;
                    let mut s = EndpointSlice {
                        address_type,
                        ports,
                        endpoints,
                        ..EndpointSlice::default()
                    };
                    s.metadata.name = format!("svc-{serial}");
                    s.metadata.labels = labels(service);
                    slices.push(Arc::new(s));
                }
                Command::Update { slice, endpoints } => {
                    let at = slices
                        .iter()
                        .position(|s| s.metadata.name == slice.metadata.name)
                        .expect("it is there");
                    let mut s = (*slices[at]).clone();
                    s.endpoints = endpoints;
                    s.metadata.labels = labels(service);
                    slices[at] = Arc::new(s);
                }
                Command::Delete(slice) => slices.retain(|s| s.metadata.name != slice.metadata.name),
            }
        }
    }

    fn settled(service: &Service, pods: &[Arc<Pod>]) -> Vec<Arc<EndpointSlice>> {
        let (mut slices, mut serial) = (Vec::new(), 0);
        let commands = plan(service, pods, &zone_of, &slices);
        execute(service, &mut slices, commands, &mut serial);
        assert!(
            plan(service, pods, &zone_of, &slices).is_empty(),
            "one plan is enough"
        );
        slices
    }

    #[test]
    fn endpoints_tell_what_the_pods_do() {
        let pods = [
            pod(1, |p| {
                (p.hostname, p.subdomain) = ("h".into(), "svc".into());
            }),
            pod(2, |p| p.ready = false),
            pod(3, |p| p.metadata.deletion_timestamp = Some("t".into())),
        ];
        let slices = settled(&service(&json!({})), &pods);
        assert_eq!(slices.len(), 1);
        let s = &slices[0];
        assert_eq!(
            (s.ports[0].port, s.ports[0].name.as_deref()),
            (Some(8080), Some("http"))
        );
        assert_eq!(
            (
                s.metadata.labels[SERVICE_NAME].as_str(),
                s.metadata.labels["a"].as_str()
            ),
            ("svc", "b")
        );
        let shown: Vec<_> = s
            .endpoints
            .iter()
            .map(|e| {
                let c = &e.conditions;
                (e.hostname.as_deref(), c.ready, c.serving, c.terminating)
            })
            .collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            shown,
            [
                (Some("h"), yes, yes, no),
                (None, no, no, no),
                (None, no, yes, yes)
            ]
        );
        assert_eq!(
            (
                s.endpoints[0].zone.as_deref(),
                s.endpoints[0].node_name.as_deref()
            ),
            (Some("z1"), Some("n1"))
        );
        let all = settled(&service(&json!({"publishNotReadyAddresses": true})), &pods);
        assert!(all[0].endpoints.iter().all(|e| e.conditions.ready == yes));
    }

    #[test]
    fn pods_with_other_ports_and_families_have_slices_of_their_own() {
        let other = pod(2, |p| p.ports[0].container_port = 9090);
        assert_eq!(
            settled(&service(&json!({})), &[pod(1, |_| {}), other]).len(),
            2
        );
        let dual = service(&json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "None"}));
        let both = pod(1, |p| p.ips.push("fd00::1".into()));
        let slices = settled(&dual, &[both, pod(2, |_| {})]);
        let shown: Vec<_> = slices
            .iter()
            .map(|s| (s.address_type.as_str(), s.endpoints.len()))
            .collect();
        assert_eq!(shown, [("IPv4", 2), ("IPv6", 1)]);
        assert!(slices[0].metadata.labels.contains_key(HEADLESS));
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let slices = settled(&service(&json!({})), &[]);
        assert_eq!((slices.len(), slices[0].endpoints.len()), (1, 0));
    }

    #[test]
    fn one_changed_pod_costs_one_write() {
        let s = service(&json!({}));
        let mut pods: Vec<_> = (0..250).map(|n| pod(n, |_| {})).collect();
        let slices = settled(&s, &pods);
        assert_eq!(slices.len(), 3);
        pods[17] = pod(17, |p| p.ready = false);
        let commands = plan(&s, &pods, &zone_of, &slices);
        assert!(
            matches!(commands[..], [Command::Update { .. }]),
            "{}",
            commands.len()
        );
    }

    proptest! {
        /// However pods come and go: each is in one slice, no slice is too full, and a second plan has nothing to do.
        #[test]
        fn slices_follow_the_pods(steps in prop::collection::vec((0_usize..300, 1_usize..120), 1..8)) {
            let s = service(&json!({}));
            let (mut slices, mut serial) = (Vec::new(), 0);
            for (first, count) in steps {
                let pods: Vec<_> = (first..first + count).map(|n| pod(n, |_| {})).collect();
                let commands = plan(&s, &pods, &zone_of, &slices);
                execute(&s, &mut slices, commands, &mut serial);
                let mut uids: Vec<_> = slices.iter().flat_map(|s| s.endpoints.iter().map(|e| uid_of(e).to_owned())).collect();
                uids.sort();
                let mut want: Vec<_> = pods.iter().map(|p| p.metadata.uid.clone()).collect();
                want.sort();
                prop_assert_eq!(uids, want);
                prop_assert!(slices.iter().all(|s| s.endpoints.len() <= SLICE_ENDPOINTS_MAX));
                prop_assert!(plan(&s, &pods, &zone_of, &slices).is_empty());
            }
        }
    }
}
