//! Pods that want to be, or must not be, in the same domain as others.

use std::collections::HashMap;

use kontiki_api::labels::{Operator, Requirement, Selector};

use super::{Plugin, Rejection, SCORE_MAX};
use crate::cluster::{Cluster, NodeInfo};
use crate::node::Node;
use crate::pod::{Pod, PodAffinityTerm};

/// How many pods, or how much weight, there is in a domain (topology key and value).
type Domains = HashMap<(String, String), i64>;

/// What the pods on all nodes mean for a pod.
#[derive(Debug, Default)]
pub struct Counts {
    /// Domains that pods which are there keep this one out of.
    kept_out: Domains,
    /// Pods that match all required affinity terms.
    wanted: Domains,
    /// Pods that match a required anti-affinity term.
    unwanted: Domains,
    /// Weight of the preferences.
    preferred: Domains,
}

impl Counts {
    /// Counts for this pod.
    pub fn new(pod: &Pod, cluster: &Cluster) -> Counts {
        let mut out = Counts::default();
        let (with, against) = (
            &pod.spec.affinity.pod_affinity,
            &pod.spec.affinity.pod_anti_affinity,
        );
        let own = [&with.required, &against.required]
            .iter()
            .any(|t| !t.is_empty())
            || [&with.preferred, &against.preferred]
                .iter()
                .any(|t| !t.is_empty());
        if !own && !cluster.has_anti_affinity() {
            return out;
        }
        for (node, info) in cluster.nodes() {
            let domain = |t: &PodAffinityTerm| {
                node.metadata
                    .labels
                    .get(&t.topology_key)
                    .map(|v| (t.topology_key.clone(), v.clone()))
            };
            let add = |to: &mut Domains, t: &PodAffinityTerm, n: i64| {
                if let Some(d) = domain(t) {
                    *to.entry(d).or_default() += n;
                }
            };
            for there in &info.pods {
                for t in &there.spec.affinity.pod_anti_affinity.required {
                    if matches(t, there, pod, cluster) {
                        add(&mut out.kept_out, t, 1);
                    }
                }
                if !with.required.is_empty()
                    && with
                        .required
                        .iter()
                        .all(|t| matches(t, pod, there, cluster))
                {
                    with.required
                        .iter()
                        .for_each(|t| add(&mut out.wanted, t, 1));
                }
                for t in against
                    .required
                    .iter()
                    .filter(|t| matches(t, pod, there, cluster))
                {
                    add(&mut out.unwanted, t, 1);
                }
                for (list, sign) in [(&with.preferred, 1), (&against.preferred, -1)] {
                    for p in list
                        .iter()
                        .filter(|p| matches(&p.pod_affinity_term, pod, there, cluster))
                    {
                        add(&mut out.preferred, &p.pod_affinity_term, sign * p.weight);
                    }
                }
            }
        }
        out
    }

    /// Rejects a node in whose domains pods must be that are not, or are that must not be.
    pub fn filter(&self, pod: &Pod, node: &Node) -> Result<(), Rejection> {
        let count = |of: &Domains, t: &PodAffinityTerm| {
            let value = node.metadata.labels.get(&t.topology_key)?;
            Some(
                of.get(&(t.topology_key.clone(), value.clone()))
                    .copied()
                    .unwrap_or(0),
            )
        };
        let required = &pod.spec.affinity.pod_affinity.required;
        if !required
            .iter()
            .all(|t| count(&self.wanted, t).is_some_and(|n| n > 0))
        {
            // The first pod of a group that wants to be together would otherwise wait for itself.
            let is_first = self.wanted.is_empty()
                && required
                    .iter()
                    .all(|t| count(&self.wanted, t).is_some() && matches_own(t, pod));
            if !is_first {
                return Err(Rejection::lasting(
                    Plugin::InterPodAffinity,
                    "node(s) didn't match pod affinity rules",
                ));
            }
        }
        let unwanted = &pod.spec.affinity.pod_anti_affinity.required;
        if unwanted
            .iter()
            .any(|t| count(&self.unwanted, t).is_some_and(|n| n > 0))
        {
            let text = "node(s) didn't match pod anti-affinity rules";
            return Err(Rejection::crowded(Plugin::InterPodAffinity, text));
        }
        if self
            .kept_out
            .keys()
            .any(|(k, v)| node.metadata.labels.get(k) == Some(v))
        {
            let text = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::crowded(Plugin::InterPodAffinity, text));
        }
        Ok(())
    }

    /// Scores nodes by the weight of the preferences that they fulfil.
    pub fn score(&self, nodes: &[(&Node, &NodeInfo)]) -> Vec<i64> {
        let weight = |n: &Node| -> i64 {
            self.preferred
                .iter()
                .filter(|((k, v), _)| n.metadata.labels.get(k) == Some(v))
                .map(|(_, w)| w)
                .sum()
        };
        let raw: Vec<i64> = nodes.iter().map(|(n, _)| weight(n)).collect();
        let (least, most) = (
            raw.iter().copied().min().unwrap_or(0),
            raw.iter().copied().max().unwrap_or(0),
        );
        raw.into_iter()
            .map(|w| {
                if most > least {
                    SCORE_MAX * (w - least) / (most - least)
                } else {
                    0
                }
            })
            .collect()
    }
}

/// Whether a term of `owner` is about `other`.
fn matches(term: &PodAffinityTerm, owner: &Pod, other: &Pod, cluster: &Cluster) -> bool {
    let namespace = &other.metadata.namespace;
    let anywhere = &term.namespace_selector.0;
    let in_namespace = if term.namespaces.is_empty() && *anywhere == Selector::nothing() {
        *namespace == owner.metadata.namespace
    } else {
        term.namespaces.contains(namespace)
            || cluster
                .namespace_labels(namespace)
                .is_some_and(|labels| anywhere.matches(labels))
    };
    in_namespace && label_selector(term, owner).matches(&other.metadata.labels)
}

fn matches_own(term: &PodAffinityTerm, pod: &Pod) -> bool {
    let own_namespace =
        term.namespaces.is_empty() || term.namespaces.contains(&pod.metadata.namespace);
    own_namespace && label_selector(term, pod).matches(&pod.metadata.labels)
}

/// The term's selector, narrowed by the labels that pods have to share or not to share with the owner.
fn label_selector(term: &PodAffinityTerm, owner: &Pod) -> Selector {
    let given = &term.label_selector.0;
    if (term.match_label_keys.is_empty() && term.mismatch_label_keys.is_empty())
        || *given == Selector::nothing()
    {
        return given.clone();
    }
    let mut requirements = given.requirements().to_vec();
    for (keys, operator) in [
        (&term.match_label_keys, Operator::In),
        (&term.mismatch_label_keys, Operator::NotIn),
    ] {
        for key in keys {
            if let Some(v) = owner.metadata.labels.get(key) {
                requirements.push(Requirement {
                    key: key.clone(),
                    operator,
                    values: vec![v.clone()],
                });
            }
        }
    }
    Selector::new(requirements)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{cluster, node, pod};
    use super::*;

    fn zoned(name: &str, zone: &str) -> Node {
        node(name, &json!({"zone": zone}), &json!({}))
    }

    fn term(app: &str) -> Value {
        json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn wants(name: &str, app: &str, kind: &str, term: &Value) -> Pod {
        let list = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        pod(
            name,
            &json!({"app": app}),
            &json!({"affinity": {kind: list}}),
        )
    }

    fn fits(p: &Pod, c: &Cluster) -> Vec<bool> {
        let counts = Counts::new(p, c);
        c.nodes()
            .map(|(n, _)| counts.filter(p, n).is_ok())
            .collect()
    }

    #[test]
    fn affinity_follows_and_anti_affinity_avoids() {
        let nodes = || vec![zoned("n1", "a"), zoned("n2", "b")];
        let c = cluster(
            nodes(),
            vec![(pod("db", &json!({"app": "db"}), &json!({})), "n1")],
        );
        assert_eq!(
            fits(&wants("p", "web", "podAffinity", &term("db")), &c),
            [true, false]
        );
        assert_eq!(
            fits(&wants("p", "web", "podAntiAffinity", &term("db")), &c),
            [false, true]
        );
        let there = wants("db", "db", "podAntiAffinity", &term("web"));
        let c = cluster(nodes(), vec![(there, "n2")]);
        assert_eq!(
            fits(&pod("p", &json!({"app": "web"}), &json!({})), &c),
            [true, false],
            "it is symmetric"
        );
    }

    #[test]
    fn the_first_of_a_group_may_go_anywhere_that_has_the_key() {
        let c = cluster(
            vec![zoned("n1", "a"), node("n2", &json!({}), &json!({}))],
            vec![],
        );
        assert_eq!(
            fits(&wants("p", "x", "podAffinity", &term("x")), &c),
            [true, false]
        );
        assert_eq!(
            fits(&wants("p", "x", "podAffinity", &term("y")), &c),
            [false, false]
        );
    }

    #[test]
    fn namespaces_are_selected_by_their_labels() {
        let mut other = pod("db", &json!({"app": "db"}), &json!({}));
        other.metadata.namespace = "other".into();
        let mut c = cluster(vec![zoned("n1", "a")], vec![(other, "n1")]);
        c.set_namespace("other", Some([("team".to_owned(), "t".to_owned())].into()));
        let mut t = term("db");
        assert_eq!(fits(&wants("p", "x", "podAffinity", &t), &c), [false]);
        t["namespaceSelector"] = json!({"matchLabels": {"team": "t"}});
        assert_eq!(fits(&wants("p", "x", "podAffinity", &t), &c), [true]);
    }

    #[test]
    fn preferences_score() {
        let c = cluster(
            vec![zoned("n1", "a"), zoned("n2", "b")],
            vec![(pod("db", &json!({"app": "db"}), &json!({})), "n2")],
        );
        let list = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "podAffinityTerm": term("db")}]});
        let p = pod("p", &json!({}), &json!({"affinity": {"podAffinity": list}}));
        assert_eq!(
            Counts::new(&p, &c).score(&c.nodes().collect::<Vec<_>>()),
            [0, 100]
        );
    }
}
