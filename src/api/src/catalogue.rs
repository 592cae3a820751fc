//! The catalogue of built-in resources: one entry a resource, with its names, scope, verbs and subresources.
//!
//! The table is `resources.tsv` (what upstream's discovery says); what discovery does not say of a resource
//! (short names, categories) stands beside it in [`extra`].

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

mod extra;

/// An API group and version. The core group's name is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// The group, or empty for the core group.
    pub group: &'static str,
    /// The version, as in `v1`.
    pub version: &'static str,
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// A subresource of a resource, as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Its name, as in `status`.
    pub name: &'static str,
    /// Group of the kind that it speaks, or empty.
    pub group: &'static str,
    /// Version of the kind that it speaks, or empty if it is the resource's own.
    pub version: &'static str,
    /// The kind that it speaks.
    pub kind: &'static str,
    /// The verbs that it takes (`connect` is not among them: it is served by the HTTP methods).
    pub verbs: Vec<&'static str>,
    /// Whether the subresource is an upgraded or proxied connection.
    pub connect: bool,
}

/// One resource of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The group, or empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The plural name, as in paths.
    pub plural: &'static str,
    /// The singular name.
    pub singular: &'static str,
    /// The kind of its objects.
    pub kind: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// The verbs that it takes, sorted.
    pub verbs: Vec<&'static str>,
    /// Short names, as in `po`.
    pub short_names: &'static [&'static str],
    /// Categories, as in `all`.
    pub categories: &'static [&'static str],
    /// Its subresources, sorted by name.
    pub subresources: Vec<Subresource>,
}

impl Resource {
    /// `pods` or `deployments.apps`, as messages name a resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion {
            group: self.group,
            version: self.version,
        }
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Whether it takes this verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The path of the collection, or with a name of the object: `/api/v1/namespaces/ns/pods/name`.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut p = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let (true, Some(ns)) = (self.namespaced, namespace) {
            p.push_str("/namespaces/");
            p.push_str(ns);
        }
        p.push('/');
        p.push_str(self.plural);
        if let Some(n) = name {
            p.push('/');
            p.push_str(n);
        }
        p
    }
}

struct Catalogue {
    resources: Vec<Resource>,
    by_name: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let mut c = Catalogue {
        resources: Vec::new(),
        by_name: HashMap::new(),
        by_kind: HashMap::new(),
    };
    for line in include_str!("../resources.tsv").lines().skip(1) {
        let f: Vec<&'static str> = line.split('\t').collect();
        let [group, version, plural, sub, kind, namespaced, verbs] = f[..] else {
            panic!(
                "resources.tsv: a line has {} columns instead of 7: {line}",
                f.len()
            );
        };
        let verbs: Vec<&str> = verbs.split(',').collect();
        if sub.is_empty() {
            c.by_name
                .insert((group, version, plural), c.resources.len());
            c.by_kind.insert((group, version, kind), c.resources.len());
            c.resources.push(Resource {
                group,
                version,
                plural,
                singular: extra::singular(kind),
                kind,
                namespaced: namespaced == "true",
                verbs,
                short_names: extra::short_names(group, plural),
                categories: extra::categories(group, plural),
                subresources: Vec::new(),
            });
        } else {
            // The kind column of a subresource is `group/version/Kind`.
            let mut parts = kind.rsplitn(3, '/');
            let (k, v, g) = (
                parts.next().unwrap_or(""),
                parts.next().unwrap_or(""),
                parts.next().unwrap_or(""),
            );
            let parent = c.by_name[&(group, version, plural)];
            c.resources[parent].subresources.push(Subresource {
                name: sub,
                group: g,
                version: v,
                kind: k,
                connect: verbs.contains(&"connect"),
                verbs,
            });
        }
    }
    c
});

/// Every built-in resource, in the order of the table (group, version, name).
pub fn all() -> &'static [Resource] {
    &CATALOGUE.resources
}

/// The resource of this plural name.
pub fn by_name(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    CATALOGUE
        .by_name
        .get(&(group, version, plural))
        .map(|i| &CATALOGUE.resources[*i])
}

/// The resource whose objects are of this kind.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    CATALOGUE
        .by_kind
        .get(&(group, version, kind))
        .map(|i| &CATALOGUE.resources[*i])
}

/// The resource of this kind, for an `apiVersion` as written in an object.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, kind)
}

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $group:literal / $version:literal / $plural:literal;)*) => {
        $($(#[$doc])*
        pub fn $name() -> &'static Resource {
            by_name($group, $version, $plural).expect(concat!($plural, " is in resources.tsv"))
        })*
    };
}

/// The resources that our own loops name.
pub mod known {
    use super::{Resource, by_name};

    known! {
        /// `namespaces`
        namespaces = "" / "v1" / "namespaces";
        /// `nodes`
        nodes = "" / "v1" / "nodes";
        /// `pods`
        pods = "" / "v1" / "pods";
        /// `services`
        services = "" / "v1" / "services";
        /// `endpoints`
        endpoints = "" / "v1" / "endpoints";
        /// `endpointslices.discovery.k8s.io`
        endpointslices = "discovery.k8s.io" / "v1" / "endpointslices";
        /// `configmaps`
        configmaps = "" / "v1" / "configmaps";
        /// `secrets`
        secrets = "" / "v1" / "secrets";
        /// `serviceaccounts`
        serviceaccounts = "" / "v1" / "serviceaccounts";
        /// `events`
        events = "" / "v1" / "events";
        /// `leases.coordination.k8s.io`
        leases = "coordination.k8s.io" / "v1" / "leases";
        /// `deployments.apps`
        deployments = "apps" / "v1" / "deployments";
        /// `replicasets.apps`
        replicasets = "apps" / "v1" / "replicasets";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_resource_or_a_subresource_of_one() {
        assert!(all().len() > 60, "{} resources", all().len());
        let pods = known::pods();
        assert_eq!(
            (pods.singular, pods.short_names, pods.namespaced),
            ("pod", &["po"][..], true)
        );
        assert!(
            pods.subresource("exec")
                .is_some_and(|s| s.connect && s.kind == "PodExecOptions")
        );
        let eviction = pods.subresource("eviction").expect("pods have evictions");
        assert_eq!(
            (eviction.group, eviction.version, eviction.kind),
            ("policy", "v1", "Eviction")
        );
    }

    #[test]
    fn paths_follow_scope_and_group() {
        assert_eq!(
            known::pods().path(Some("a"), Some("b")),
            "/api/v1/namespaces/a/pods/b"
        );
        assert_eq!(known::nodes().path(Some("a"), None), "/api/v1/nodes");
        assert_eq!(
            known::deployments().path(None, None),
            "/apis/apps/v1/deployments"
        );
    }
}
