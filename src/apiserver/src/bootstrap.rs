//! The objects that every cluster has: the system's namespaces, the Service of the API itself, the default roles, the
//! levels of flow control, the priority classes.
//!
//! What does not depend on one another is made at the same time, so that the store takes it in a few of its entries.

mod apiservices;
mod flowcontrol;
mod rbac;

use std::net::IpAddr;

use futures::future::try_join_all;
use kontiki_api::{ApiError, Reason};
use serde_json::{Value, json};

use crate::config::Config;
use crate::discovery::Discovery;
use crate::engine::{Call, Engine, Part, Patch, Target};
use crate::options::WriteOptions;
use crate::schemas;
use crate::user::User;

/// Who owns the fields of these objects.
const MANAGER: &str = "kube-apiserver";
/// Who owns those of flow control.
const FLOW_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";
/// Who says that the range of the services' addresses is in use.
const RANGE_MANAGER: &str = "kubernetes-service-cidr-controller";
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// An object to be made.
struct Made {
    group: &'static str,
    plural: &'static str,
    namespace: &'static str,
    object: Value,
}

/// Makes what is missing, and brings the endpoints of the API up to date.
///
/// # Errors
/// The store takes no writes now; try again.
pub(crate) async fn run(
    engine: &Engine,
    discovery: &Discovery,
    config: &Config,
    port: u16,
) -> Result<(), ApiError> {
    // Services are given addresses of this range.
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_cidr.to_string()]}});
    let mut first = vec![Made {
        group: "networking.k8s.io",
        plural: "servicecidrs",
        namespace: "",
        object: cidr,
    }];
    first.extend(NAMESPACES.map(|name| Made {
        group: "",
        plural: "namespaces",
        namespace: "",
        object: json!({"metadata": {"name": name}}),
    }));
    ensure_all(engine, first).await?;
    range_is_ready(engine).await?;
    let mut all = rbac::objects();
    all.extend(flowcontrol::objects());
    all.extend(apiservices::objects(discovery));
    all.extend(classes());
    all.push(service(config, port));
    all.push(Made {
        group: "",
        plural: "configmaps",
        namespace: "kube-system",
        object: json!({
            "metadata": {"name": "extension-apiserver-authentication"},
            "data": {"client-ca-file": config.client_ca_pem},
        }),
    });
    ensure_all(engine, all).await?;
    // No pod reaches a loopback address; endpoints may not have one.
    if !config.advertise.is_loopback() && !config.advertise.is_unspecified() {
        endpoints(engine, config.advertise, port).await?;
    }
    Ok(())
}

/// The Service that pods reach the API at.
fn service(config: &Config, port: u16) -> Made {
    let address = config.kubernetes_service_ip();
    Made {
        group: "",
        plural: "services",
        namespace: "default",
        object: json!({
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "type": "ClusterIP", "clusterIP": address.to_string(),
                "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        }),
    }
}

/// The priority classes of what the cluster cannot do without.
fn classes() -> impl Iterator<Item = Made> {
    [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
    .into_iter()
    .map(|(name, value, description)| Made {
        group: "scheduling.k8s.io",
        plural: "priorityclasses",
        namespace: "",
        object: json!({
            "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        }),
    })
}

/// Says of the default range of the services' addresses that it is in use.
async fn range_is_ready(engine: &Engine) -> Result<(), ApiError> {
    let kind = engine
        .registry()
        .stored("networking.k8s.io", "servicecidrs")
        .expect("it is in the catalogue");
    let said = |e: &crate::cache::Entry| {
        kontiki_api::object::get(&e.decode(), &["status", "conditions"]).is_some()
    };
    if kind.cache.get("", "kubernetes").is_some_and(|e| said(&e)) {
        return Ok(());
    }
    let ready = json!({
        "apiVersion": kind.resource.api_version(), "kind": kind.resource.kind,
        "metadata": {"name": "kubernetes"},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": kontiki_api::object::time_text(engine.now()),
        }]},
    });
    let target = Target {
        kind,
        namespace: "",
        name: "kubernetes",
    };
    let user = User::server();
    let mut call = call(&user, RANGE_MANAGER);
    call.options.force = true;
    engine
        .patch(target, Part::Status, &Patch::Apply(ready), &call)
        .await
        .map(drop)
}

async fn ensure_all(engine: &Engine, all: Vec<Made>) -> Result<(), ApiError> {
    try_join_all(all.into_iter().map(|m| ensure(engine, m)))
        .await
        .map(drop)
}

/// The addresses behind the Service `kubernetes`: this master's own.
async fn endpoints(engine: &Engine, advertise: IpAddr, port: u16) -> Result<(), ApiError> {
    let subsets = json!([{
        "addresses": [{"ip": advertise.to_string()}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }]);
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let object = json!({"metadata": {"name": "kubernetes", "labels": labels}, "subsets": subsets});
    reconcile(engine, "", "endpoints", object).await?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [advertise.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    reconcile(engine, "discovery.k8s.io", "endpointslices", slice).await
}

fn call<'a>(user: &'a User, manager: &str) -> Call<'a> {
    Call::new(
        user,
        WriteOptions {
            field_manager: manager.into(),
            ..WriteOptions::default()
        },
    )
}

/// Creates the object unless it is there.
async fn ensure(engine: &Engine, made: Made) -> Result<(), ApiError> {
    let Made {
        group,
        plural,
        namespace,
        object: mut v,
    } = made;
    let kind = engine
        .registry()
        .stored(group, plural)
        .expect("it is in the catalogue")
        .clone();
    let name = kontiki_api::object::name(&v).to_owned();
    if kind.cache.get(namespace, &name).is_some() {
        return Ok(());
    }
    v["apiVersion"] = kind.resource.api_version().into();
    v["kind"] = kind.resource.kind.into();
    schemas::default(&kind, &mut v);
    let manager = if group == flowcontrol::GROUP {
        FLOW_MANAGER
    } else {
        MANAGER
    };
    let user = User::server();
    let call = call(&user, manager);
    match Box::pin(engine.create(&kind, namespace, v, &call)).await {
        Err(e) if e.reason() != Reason::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Creates the object in the namespace `default`, or replaces it.
async fn reconcile(
    engine: &Engine,
    group: &'static str,
    plural: &'static str,
    mut v: Value,
) -> Result<(), ApiError> {
    let kind = engine
        .registry()
        .stored(group, plural)
        .expect("it is in the catalogue")
        .clone();
    let name = kontiki_api::object::name(&v).to_owned();
    let made = Made {
        group,
        plural,
        namespace: "default",
        object: v.clone(),
    };
    ensure(engine, made).await?;
    v["apiVersion"] = kind.resource.api_version().into();
    v["kind"] = kind.resource.kind.into();
    schemas::default(&kind, &mut v);
    let target = Target {
        kind: &kind,
        namespace: "default",
        name: &name,
    };
    engine
        .update(target, Part::Object, v, &call(&User::server(), MANAGER))
        .await
        .map(drop)
}
