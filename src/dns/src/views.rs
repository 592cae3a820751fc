//! The fields of Services, EndpointSlices and Namespaces that DNS reads.

use kontiki_api::ObjectMeta;
use kontiki_api::meta::null_is_default;
use kontiki_reconcile::View;
use serde::Deserialize;

/// A Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: ServiceSpec,
}

/// `ServiceSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    pub external_name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<Port>,
}

/// `ServicePort` and `EndpointPort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Port {
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
    #[serde(deserialize_with = "null_is_default")]
    pub port: u16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that each of them has.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<Port>,
}

/// `Endpoint`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields are the API's")]
pub struct Endpoint {
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    pub hostname: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Conditions,
}

/// `EndpointConditions`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the field is the API's")]
pub struct Conditions {
    pub ready: Option<bool>,
}

/// A Namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its metadata.
    pub metadata: ObjectMeta,
}

impl View for Service {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl View for EndpointSlice {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl View for Namespace {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Service {
    /// The service's own addresses; a headless one has none.
    pub fn ips(&self) -> Vec<std::net::IpAddr> {
        let all = if self.spec.cluster_ips.is_empty() {
            std::slice::from_ref(&self.spec.cluster_ip)
        } else {
            &self.spec.cluster_ips
        };
        all.iter().filter_map(|ip| ip.parse().ok()).collect()
    }

    /// Whether its names lead to its endpoints.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None" && self.spec.type_ != "ExternalName"
    }
}

impl Port {
    /// The protocol in lower case, as in names; the API's default is TCP.
    pub fn protocol_label(&self) -> String {
        if self.protocol.is_empty() {
            "tcp".into()
        } else {
            self.protocol.to_ascii_lowercase()
        }
    }
}
