//! The objects that every cluster has: the system's namespaces, the Service of the API itself, the priority classes.

use std::net::IpAddr;

use kontiki_api::{ApiError, Reason};
use serde_json::{Value, json};

use crate::config::Config;
use crate::engine::{Call, Engine, Part, Target};
use crate::options::WriteOptions;
use crate::schemas;
use crate::user::User;

/// Who owns the fields of these objects.
const MANAGER: &str = "kube-apiserver";
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Makes what is missing, and brings the endpoints of the API up to date.
///
/// # Errors
/// The store takes no writes now; try again.
pub(crate) async fn run(engine: &Engine, config: &Config, port: u16) -> Result<(), ApiError> {
    for name in NAMESPACES {
        ensure(
            engine,
            "",
            "namespaces",
            "",
            json!({"metadata": {"name": name}}),
        )
        .await?;
    }
    // Services are given addresses of this range.
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_cidr.to_string()]}});
    ensure(engine, "networking.k8s.io", "servicecidrs", "", cidr).await?;
    let address = config.kubernetes_service_ip();
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": address.to_string(), "clusterIPs": [address.to_string()],
            "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    ensure(engine, "", "services", "default", service).await?;
    // No pod reaches a loopback address; endpoints may not have one.
    if !config.advertise.is_loopback() && !config.advertise.is_unspecified() {
        endpoints(engine, config.advertise, port).await?;
    }
    let classes = [
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
    ];
    for (name, value, description) in classes {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority"});
        ensure(engine, "scheduling.k8s.io", "priorityclasses", "", class).await?;
    }
    let authentication = json!({
        "metadata": {"name": "extension-apiserver-authentication"},
        "data": {"client-ca-file": config.client_ca_pem},
    });
    ensure(engine, "", "configmaps", "kube-system", authentication).await
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

fn call(user: &User) -> Call<'_> {
    Call::new(
        user,
        WriteOptions {
            field_manager: MANAGER.into(),
            ..WriteOptions::default()
        },
    )
}

/// Creates the object unless it is there.
async fn ensure(
    engine: &Engine,
    group: &str,
    plural: &str,
    namespace: &str,
    mut v: Value,
) -> Result<(), ApiError> {
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
    match engine
        .create(&kind, namespace, v, &call(&User::server()))
        .await
    {
        Err(e) if e.reason() != Reason::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Creates the object in the namespace `default`, or replaces it.
async fn reconcile(
    engine: &Engine,
    group: &str,
    plural: &str,
    mut v: Value,
) -> Result<(), ApiError> {
    let kind = engine
        .registry()
        .stored(group, plural)
        .expect("it is in the catalogue")
        .clone();
    let name = kontiki_api::object::name(&v).to_owned();
    ensure(engine, group, plural, "default", v.clone()).await?;
    v["apiVersion"] = kind.resource.api_version().into();
    v["kind"] = kind.resource.kind.into();
    schemas::default(&kind, &mut v);
    let target = Target {
        kind: &kind,
        namespace: "default",
        name: &name,
    };
    engine
        .update(target, Part::Object, v, &call(&User::server()))
        .await
        .map(drop)
}
