//! Discovery: `/api`, `/apis`, the lists of resources, and all of it in one document (aggregated discovery).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use kontiki_api::Resource;
use kontiki_api::catalogue::Subresource;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::registry::{Kind, Registry};

/// The groups in upstream's order of priority; what is not named comes after, by name.
const GROUP_ORDER: [&str; 21] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
];

/// The documents, made once.
pub(crate) struct Discovery {
    groups: Vec<(&'static str, Vec<&'static str>)>,
    resources: BTreeMap<(&'static str, &'static str), Value>,
    aggregated_core: Value,
    aggregated: Value,
}

impl Discovery {
    pub(crate) fn new(registry: &Registry) -> Discovery {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for kind in registry.all() {
            let r = kind.resource;
            match groups.iter_mut().find(|(g, _)| *g == r.group) {
                Some((_, versions)) if !versions.contains(&r.version) => versions.push(r.version),
                Some(_) => {}
                None => groups.push((r.group, vec![r.version])),
            }
        }
        let rank = |g: &str| {
            GROUP_ORDER
                .iter()
                .position(|x| *x == g)
                .unwrap_or(GROUP_ORDER.len())
        };
        groups.sort_by_key(|(g, _)| (rank(g), *g));
        for (_, versions) in &mut groups {
            versions.sort_by(|a, b| b.cmp(a));
        }
        let mut by_version: BTreeMap<(&str, &str), Vec<&Arc<Kind>>> = BTreeMap::new();
        for kind in registry.all() {
            by_version
                .entry((kind.resource.group, kind.resource.version))
                .or_default()
                .push(kind);
        }
        let resources = by_version
            .iter()
            .map(|((g, v), kinds)| ((*g, *v), resource_list(g, v, kinds)))
            .collect();
        let aggregate = |core: bool| {
            let items: Vec<Value> = groups
                .iter()
                .filter(|(g, _)| g.is_empty() == core)
                .map(|(g, versions)| aggregated_group(g, versions, &by_version))
                .collect();
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
        };
        let (aggregated_core, aggregated) = (aggregate(true), aggregate(false));
        Discovery {
            groups,
            resources,
            aggregated_core,
            aggregated,
        }
    }

    /// `/api`.
    pub(crate) fn core_versions(&self, server: &str) -> Value {
        json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
        })
    }

    /// `/apis`.
    pub(crate) fn group_list(&self) -> Value {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .filter(|(g, _)| !g.is_empty())
            .map(|(g, v)| group(g, v))
            .collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `/apis/{group}`.
    pub(crate) fn group(&self, name: &str) -> Option<Value> {
        let (g, v) = self
            .groups
            .iter()
            .find(|(g, _)| *g == name && !g.is_empty())?;
        let mut out = group(g, v);
        out["kind"] = "APIGroup".into();
        out["apiVersion"] = "v1".into();
        Some(out)
    }

    /// Whether the group is served.
    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.groups.iter().any(|(g, _)| *g == name)
    }

    /// `/api/v1`, `/apis/{group}/{version}`.
    pub(crate) fn resources(&self, group: &str, version: &str) -> Option<&Value> {
        self.resources
            .iter()
            .find(|((g, v), _)| *g == group && *v == version)
            .map(|(_, list)| list)
    }

    /// Every group and version.
    pub(crate) fn group_versions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.groups
            .iter()
            .flat_map(|(g, versions)| versions.iter().map(move |v| (*g, *v)))
    }

    /// `/api` or `/apis` in one document.
    pub(crate) fn aggregated(&self, core: bool) -> &Value {
        if core {
            &self.aggregated_core
        } else {
            &self.aggregated
        }
    }
}

fn group_version(g: &str, v: &str) -> String {
    if g.is_empty() {
        v.to_owned()
    } else {
        format!("{g}/{v}")
    }
}

fn group(g: &str, versions: &[&str]) -> Value {
    let one = |v: &&str| json!({"groupVersion": group_version(g, v), "version": v});
    json!({"name": g, "versions": versions.iter().map(one).collect::<Vec<_>>(), "preferredVersion": one(&versions[0])})
}

/// Clients only compare it: the first bytes of a hash over the storage version.
///
/// Upstream encodes these kinds in their beta version still, and clients of several servers compare the hashes.
fn storage_version_hash(r: &Resource) -> String {
    let version = match r.plural {
        "customresourcedefinitions"
        | "mutatingadmissionpolicies"
        | "mutatingadmissionpolicybindings" => "v1beta1",
        _ => r.version,
    };
    let text = format!("{}/{}/{}", r.group, version, r.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text)[..8])
}

/// The verbs as discovery shows them: connections are made with the methods of HTTP.
fn verbs(all: &[&'static str], subresource: &str) -> Vec<&'static str> {
    if !all.contains(&"connect") {
        return all.to_vec();
    }
    match subresource {
        "proxy" => vec!["create", "delete", "get", "patch", "update"],
        _ => vec!["create", "get"],
    }
}

fn resource_list(g: &str, v: &str, kinds: &[&Arc<Kind>]) -> Value {
    let mut out = Vec::new();
    for kind in kinds {
        let r = kind.resource;
        let mut m = Map::new();
        m.insert("name".into(), r.plural.into());
        m.insert("singularName".into(), r.singular.into());
        m.insert("namespaced".into(), r.namespaced.into());
        m.insert("kind".into(), r.kind.into());
        m.insert("verbs".into(), verbs(&r.verbs, "").into());
        if !r.short_names.is_empty() {
            m.insert("shortNames".into(), r.short_names.into());
        }
        if !r.categories.is_empty() {
            m.insert("categories".into(), r.categories.into());
        }
        if kind.is_stored() && r.has_verb("watch") {
            m.insert(
                "storageVersionHash".into(),
                storage_version_hash(kind.storage).into(),
            );
        }
        out.push(Value::Object(m));
        out.extend(r.subresources.iter().map(|s| subresource(r, s)));
    }
    let mut list =
        json!({"kind": "APIResourceList", "groupVersion": group_version(g, v), "resources": out});
    // Upstream's core list, the oldest of them, has no apiVersion.
    if !g.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    list
}

fn subresource(r: &Resource, s: &Subresource) -> Value {
    let mut m = Map::new();
    m.insert("name".into(), format!("{}/{}", r.plural, s.name).into());
    m.insert("singularName".into(), "".into());
    m.insert("namespaced".into(), r.namespaced.into());
    m.insert("kind".into(), s.kind.into());
    m.insert("verbs".into(), verbs(&s.verbs, s.name).into());
    if !s.version.is_empty() && (s.group, s.version) != (r.group, r.version) {
        if !s.group.is_empty() {
            m.insert("group".into(), s.group.into());
        }
        m.insert("version".into(), s.version.into());
    }
    Value::Object(m)
}

fn aggregated_group(
    g: &str,
    versions: &[&str],
    kinds: &BTreeMap<(&str, &str), Vec<&Arc<Kind>>>,
) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| {
            let resources: Vec<Value> = kinds[&(g, *v)]
                .iter()
                .map(|k| aggregated_resource(k.resource))
                .collect();
            json!({"version": v, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let meta = if g.is_empty() {
        json!({})
    } else {
        json!({"name": g})
    };
    json!({"metadata": meta, "versions": versions})
}

fn aggregated_resource(r: &Resource) -> Value {
    // Group and version are left empty where they are those of the resource.
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut out = json!({
        "resource": r.plural,
        "responseKind": kind("", "", r.kind),
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular,
        "verbs": verbs(&r.verbs, ""),
    });
    if !r.short_names.is_empty() {
        out["shortNames"] = r.short_names.into();
    }
    if !r.categories.is_empty() {
        out["categories"] = r.categories.into();
    }
    if !r.subresources.is_empty() {
        let subresources: Vec<Value> = r
            .subresources
            .iter()
            .map(|s| {
                let own = (s.group, s.version) == (r.group, r.version);
                let (g, v) = if own { ("", "") } else { (s.group, s.version) };
                json!({"subresource": s.name, "responseKind": kind(g, v, s.kind), "verbs": verbs(&s.verbs, s.name)})
            })
            .collect();
        out["subresources"] = subresources.into();
    }
    out
}
