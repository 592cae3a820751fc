//! The plan, from plain data.
#![allow(
    clippy::needless_pass_by_value,
    reason = "literals are handed over as they are"
)]

use serde_json::{Value, json};

use super::*;

fn svc(spec: Value) -> Service {
    let mut all = json!({"type": "ClusterIP", "clusterIP": "10.96.0.20", "ports": [{"name": "web", "port": 80}]});
    for (k, v) in spec.as_object().expect("fields") {
        all[k] = v.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "default"}, "spec": all}))
        .expect("a service")
}

fn slice(endpoints: Value) -> Vec<Arc<EndpointSlice>> {
    let o = json!({"metadata": {"name": "s-1", "namespace": "default"}, "addressType": "IPv4",
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}], "endpoints": endpoints});
    vec![Arc::new(serde_json::from_value(o).expect("a slice"))]
}

fn planned(spec: Value, endpoints: Value) -> PortPlan {
    let plan = service(&svc(spec), &slice(endpoints), "n1");
    assert_eq!(plan.len(), 1, "{plan:?}");
    (**plan.values().next().expect("one port")).clone()
}

fn ips(t: &Target) -> Vec<String> {
    t.endpoints()
        .iter()
        .map(|e| format!("{}:{}", e.ip, e.port))
        .collect()
}

const REJECT: Target = Target::Nowhere(Nowhere::Reject);
const DROP: Target = Target::Nowhere(Nowhere::Drop);

#[test]
fn ready_endpoints_serve_and_terminating_ones_only_if_there_is_no_other() {
    let going = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let gone = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false, "terminating": true}});
    let sick = json!({"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": true}});
    let ready = json!({"addresses": ["10.0.0.1"]});
    assert_eq!(
        ips(&planned(json!({}), json!([going, gone, sick, ready])).internal),
        ["10.0.0.1:8080"]
    );
    assert_eq!(
        ips(&planned(json!({}), json!([going, gone, sick])).internal),
        ["10.0.0.2:8080"]
    );
    assert_eq!(planned(json!({}), json!([gone, sick])).internal, REJECT);
    // What publishes not-ready addresses has slices that call them ready.
    let published = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": true, "serving": false, "terminating": true}});
    assert_eq!(
        ips(&planned(json!({}), json!([published])).internal),
        ["10.0.0.2:8080"]
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_as_ready() {
    let mut slices = slice(json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]));
    slices.extend(slice(
        json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]),
    ));
    let plan = service(&svc(json!({})), &slices, "n1");
    assert_eq!(
        ips(&plan.values().next().expect("one port").internal),
        ["10.0.0.1:8080"]
    );
}

#[test]
fn local_policies_keep_to_the_node_and_drop_elsewhere() {
    let here = json!({"addresses": ["10.0.0.1"], "nodeName": "n1"});
    let there = json!({"addresses": ["10.0.0.2"], "nodeName": "n2"});
    let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    let p = planned(spec.clone(), json!([here, there]));
    assert_eq!(
        (
            ips(&p.internal).len(),
            ips(&p.external),
            ips(&p.inside).len()
        ),
        (2, vec!["10.0.0.1:8080".into()], 2)
    );
    assert_eq!((p.node_port, p.external_local), (Some(30080), true));
    let p = planned(spec.clone(), json!([there]));
    assert_eq!((ips(&p.internal).len(), &p.external), (1, &DROP));
    assert_eq!(planned(spec, json!([])).external, REJECT);
    let p = planned(
        json!({"internalTrafficPolicy": "Local"}),
        json!([here, there]),
    );
    assert_eq!(ips(&p.internal), ["10.0.0.1:8080"]);
    assert_eq!(
        planned(json!({"internalTrafficPolicy": "Local"}), json!([there])).internal,
        DROP
    );
    // A terminating endpoint here is better than a ready one that may not be used.
    let going = json!({"addresses": ["10.0.0.3"], "nodeName": "n1",
        "conditions": {"ready": false, "serving": true, "terminating": true}});
    let p = planned(
        json!({"internalTrafficPolicy": "Local"}),
        json!([going, there]),
    );
    assert_eq!(ips(&p.internal), ["10.0.0.3:8080"]);
}

#[test]
fn what_is_not_ours_or_has_nothing_to_proxy_is_left_out() {
    assert!(service(&svc(json!({"clusterIP": "None"})), &[], "n1").is_empty());
    assert!(
        service(
            &svc(json!({"type": "ExternalName", "clusterIP": ""})),
            &[],
            "n1"
        )
        .is_empty()
    );
    let mut labelled = svc(json!({}));
    labelled
        .metadata
        .labels
        .insert(PROXY_NAME_LABEL.into(), "other".into());
    assert!(service(&labelled, &[], "n1").is_empty());
    assert!(
        service(&svc(json!({"clusterIP": "fd00::1"})), &[], "n1").is_empty(),
        "there is no IPv6 backend yet"
    );
}

#[test]
fn addresses_affinity_and_ranges_are_taken_over() {
    let mut s = svc(
        json!({"type": "LoadBalancer", "externalIPs": ["198.51.100.2", "bad", "198.51.100.1"],
        "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["192.0.2.0/24", " 10.0.0.0/8"],
        "ports": [{"name": "web", "port": 80, "nodePort": 30080}]}),
    );
    s.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "x"}]}}))
    .expect("a status");
    let plan = service(&s, &[], "n1");
    let p = plan.values().next().expect("one port");
    let texts = |ips: &[Ipv4Addr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&p.external_ips), ["198.51.100.1", "198.51.100.2"]);
    assert_eq!(texts(&p.balancer_ips), ["203.0.113.1"]);
    assert_eq!(
        (p.source_ranges.len(), p.affinity_seconds),
        (2, Some(10_800))
    );
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    let p = planned(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}),
        json!([]),
    );
    assert_eq!(p.affinity_seconds, Some(60));
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let s = svc(
        json!({"ports": [{"name": "web", "port": 80}, {"name": "web-udp", "protocol": "UDP", "port": 80},
        {"name": "odd", "protocol": "QUIC", "port": 1}]}),
    );
    let plan = service(&s, &slice(json!([{"addresses": ["10.0.0.1"]}])), "n1");
    let found: Vec<_> = plan
        .iter()
        .map(|(k, p)| (k.to_string(), ips(&p.internal).len()))
        .collect();
    assert_eq!(
        found,
        [
            ("default/s/tcp/80".to_owned(), 1),
            ("default/s/udp/80".to_owned(), 0)
        ]
    );
}
