//! Services.

mod allocation;
mod checks;

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::field::Path;
use kontiki_api::object::{get, int, list, map_mut, name, text};
use kontiki_api::{ApiError, names};
use serde_json::{Value, json};

use super::checks::{
    Errors, clear, default_int, default_text, default_value, items_mut, keep, map_of,
};
pub(super) use checks::ingress;

use super::columns::{AGE, NAME, age, map_text, or_none, string, wide};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of services.
pub(super) struct Service;

/// How long a client stays with its endpoint if the service does not say.
const AFFINITY_SECONDS: i64 = 10_800;
/// The cluster IP of a service that has none.
const HEADLESS: &str = "None";

static COLUMNS: [Column; 7] = [
    NAME,
    string(
        "Type",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    string(
        "Cluster-IP",
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    string(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
    ),
    string(
        "Port(s)",
        "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    AGE,
    wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

impl Strategy for Service {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(if prefix {
            name.trim_end_matches('-')
        } else {
            name
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if text(object, &["spec", "type"]) == "LoadBalancer"
            && let Some(balancer) = map_of(object, "status").and_then(|s| map_of(s, "loadBalancer"))
        {
            for ingress in items_mut(balancer, "ingress") {
                if !text(ingress, &["ip"]).is_empty() {
                    default_value(ingress, "ipMode", "VIP");
                }
            }
        }
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_text(spec, "sessionAffinity", "None");
        match text(spec, &["sessionAffinity"]) {
            "None" => clear(spec, "sessionAffinityConfig"),
            "ClientIP" => {
                let config = map_mut(spec, &["sessionAffinityConfig", "clientIP"]);
                config
                    .entry("timeoutSeconds")
                    .or_insert_with(|| AFFINITY_SECONDS.into());
            }
            _ => {}
        }
        default_text(spec, "type", "ClusterIP");
        for port in items_mut(spec, "ports") {
            default_text(port, "protocol", "TCP");
            let number = int(port, &["port"]).unwrap_or_default();
            default_text(port, "targetPort", "");
            if port["targetPort"] == "" || port["targetPort"] == 0 {
                clear(port, "targetPort");
                default_int(port, "targetPort", number);
            }
        }
        if externally_accessible(spec) {
            default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if needs_cluster_ip(spec) {
            default_value(spec, "internalTrafficPolicy", "Cluster");
        }
        if text(spec, &["type"]) == "LoadBalancer" {
            default_value(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({"loadBalancer": {}}));
        // Who writes only the old field means the new one too.
        let ip = text(object, &["spec", "clusterIP"]).to_owned();
        if !ip.is_empty() && list(object, &["spec", "clusterIPs"]).is_empty() {
            map_mut(object, &["spec"]).insert("clusterIPs".into(), json!([ip]));
        }
    }

    fn admit_create(&self, cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        // What is malformed is refused by the checks that follow: only a service in order gets addresses.
        if !checks::validate(object).is_empty() {
            return Ok(());
        }
        let errors = allocation::allocate(cx, object, None);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid("", "Service", name(object), &errors))
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        checks::validate(object)
    }

    fn prepare_for_update(&self, cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        allocation::carry_over(new, old);
        if checks::validate(new).is_empty() && allocation::unchanged_address(new, old) {
            // What cannot be allocated is named by the checks that follow.
            let _ = allocation::allocate(cx, new, Some(old));
        }
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = checks::validate_update(new, old);
        errors.extend(checks::validate(new));
        if errors.is_empty() {
            errors = allocation::allocate(cx, &mut new.clone(), Some(old));
        }
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_status_update(&self, _cx: &Context<'_>, new: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("status").child("loadBalancer").child("ingress");
        for (i, ingress) in list(new, &["status", "loadBalancer", "ingress"])
            .iter()
            .enumerate()
        {
            checks::ingress(&mut errors, &at.index(i), ingress);
        }
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let used = |v: &Value| !list(v, &["spec", "externalIPs"]).is_empty();
        if used(new) && !old.is_some_and(used) {
            return vec![
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                    .into(),
            ];
        }
        Vec::new()
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        match field {
            "spec.clusterIP" => Some(text(object, &["spec", "clusterIP"]).into()),
            "spec.type" => Some(text(object, &["spec", "type"]).into()),
            _ => None,
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = text(object, &["spec", "type"]);
        let ip = list(object, &["spec", "clusterIPs"])
            .first()
            .and_then(Value::as_str)
            .unwrap_or_default();
        vec![
            name(object).into(),
            kind.into(),
            or_none(ip),
            external(object, kind),
            ports(object),
            age(object, now),
            map_text(get(object, &["spec", "selector"])),
        ]
    }
}

/// Whether clients outside of the cluster reach the service.
fn externally_accessible(spec: &Value) -> bool {
    match text(spec, &["type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, &["externalIPs"]).is_empty(),
        _ => false,
    }
}

/// Whether a service of this type has a cluster IP, or says that it has none.
fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(
        text(spec, &["type"]),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

fn is_headless(spec: &Value) -> bool {
    list(spec, &["clusterIPs"])
        .first()
        .is_some_and(|ip| ip == HEADLESS)
}

fn external(object: &Value, kind: &str) -> Value {
    if kind == "ExternalName" {
        return text(object, &["spec", "externalName"]).into();
    }
    let mut all: Vec<&str> = Vec::new();
    if kind == "LoadBalancer" {
        all.extend(
            list(object, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|i| match text(i, &["ip"]) {
                    "" => text(i, &["hostname"]),
                    ip => ip,
                }),
        );
    }
    all.extend(
        list(object, &["spec", "externalIPs"])
            .iter()
            .filter_map(Value::as_str),
    );
    match (all.is_empty(), kind) {
        (true, "LoadBalancer") => "<pending>".into(),
        (true, _) => "<none>".into(),
        _ => all.join(",").into(),
    }
}

fn ports(object: &Value) -> Value {
    let one = |p: &Value| {
        let (port, protocol) = (
            int(p, &["port"]).unwrap_or_default(),
            text(p, &["protocol"]),
        );
        match int(p, &["nodePort"]).unwrap_or_default() {
            0 => format!("{port}/{protocol}"),
            node => format!("{port}:{node}/{protocol}"),
        }
    };
    or_none(
        &list(object, &["spec", "ports"])
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixed, cx, fields, idempotent, with};
    use super::*;

    fn service(spec: Value) -> Value {
        let mut o = json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"ports": [{"port": 80}]}});
        o["spec"]
            .as_object_mut()
            .expect("an object")
            .extend(spec.as_object().expect("an object").clone());
        idempotent(&Service, o)
    }

    fn created(spec: Value) -> Value {
        let mut o = service(spec);
        Service.prepare_for_create(&cx(), &mut o);
        Service.admit_create(&cx(), &mut o).expect("admitted");
        assert_eq!(Service.validate(&cx(), &o), Vec::new());
        o
    }

    #[test]
    fn types_get_what_they_need() {
        let plain = created(json!({}));
        assert_eq!(plain["spec"]["clusterIP"], plain["spec"]["clusterIPs"][0]);
        assert_eq!(plain["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(
            plain["spec"]["ports"][0],
            json!({"port": 80, "protocol": "TCP", "targetPort": 80})
        );
        let node = created(json!({"type": "NodePort"}));
        let port = node["spec"]["ports"][0]["nodePort"]
            .as_i64()
            .expect("a port");
        assert!((30000..=32767).contains(&port));
        let local = created(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}));
        assert!(local["spec"]["healthCheckNodePort"].is_i64());
        let name = created(json!({"type": "ExternalName", "externalName": "a.example.com"}));
        assert!(
            name["spec"].get("clusterIP").is_none()
                && name["spec"].get("internalTrafficPolicy").is_none()
        );
        let headless = created(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn what_is_taken_or_outside_is_refused() {
        let taken = Fixed(vec![("", "services", {
            let mut o = service(json!({"clusterIPs": ["10.96.0.7"]}));
            o["metadata"]["name"] = "other".into();
            o["spec"]["ports"][0]["nodePort"] = 30001.into();
            o
        })]);
        let of = |spec: Value| {
            let mut o = service(spec);
            let cx = with(&taken);
            Service.prepare_for_create(&cx, &mut o);
            let e = Service.admit_create(&cx, &mut o).expect_err("refused");
            e.0.causes[0].message.clone()
        };
        assert!(of(json!({"clusterIP": "1.2.3.4"})).ends_with("does not match the current range"));
        assert!(
            of(json!({"clusterIP": "10.96.0.7"})).ends_with("provided IP is already allocated")
        );
        let port = |n: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": n}]});
        assert!(of(port(80)).contains("The range of valid ports is 30000-32767"));
        assert!(of(port(30001)).ends_with("provided port is already allocated"));
        assert!(of(json!({"ipFamilies": ["IPv6"]})).ends_with("not configured on this cluster"));
        assert!(
            of(json!({"ipFamilyPolicy": "RequireDualStack"}))
                .contains("not configured for dual-stack")
        );
    }

    #[test]
    fn an_update_keeps_addresses_and_gives_them_back() {
        let old = created(json!({"type": "NodePort"}));
        let mut new = service(json!({"type": "NodePort", "selector": {"a": "b"}}));
        Service.prepare_for_update(&cx(), &mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
        assert_eq!(Service.validate_update(&cx(), &new, &old), Vec::new());
        let mut plain = old.clone();
        plain["spec"]["type"] = "ClusterIP".into();
        clear(&mut plain["spec"], "externalTrafficPolicy");
        Service.prepare_for_update(&cx(), &mut plain, &old);
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
        let mut moved = old.clone();
        moved["spec"]["clusterIP"] = "10.96.200.200".into();
        moved["spec"]["clusterIPs"] = json!(["10.96.200.200"]);
        Service.prepare_for_update(&cx(), &mut moved, &old);
        assert_eq!(
            fields(&Service.validate_update(&cx(), &moved, &old)),
            ["spec.clusterIPs[0]"]
        );
        let mut opened = created(json!({}));
        let was = opened.clone();
        opened["spec"]["type"] = "NodePort".into();
        Service.default(&mut opened);
        Service.prepare_for_update(&cx(), &mut opened, &was);
        assert!(opened["spec"]["ports"][0]["nodePort"].is_i64());
    }

    #[test]
    fn a_row_shows_addresses_and_ports() {
        let row = |o: Value| Service.row(&o, Timestamp::UNIX_EPOCH);
        let lb = json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "ports":
            [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            row(lb.clone())[1..5],
            [
                "LoadBalancer",
                "10.0.0.1",
                "<pending>",
                "80:30080/TCP,53/UDP"
            ]
            .map(Value::from)
        );
        let mut lb = lb;
        lb["status"] = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "h"}]}});
        assert_eq!(row(lb)[3], "1.2.3.4,h");
        let name = row(json!({"spec": {"type": "ExternalName", "externalName": "x.example.com"}}));
        assert_eq!(
            (&name[2], &name[3]),
            (&json!("<none>"), &json!("x.example.com"))
        );
    }
}
