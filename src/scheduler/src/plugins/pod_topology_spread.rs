//! Spreading over zones, nodes or other domains: `DoNotSchedule` constraints reject, `ScheduleAnyway` ones score.
//!
//! A pod without constraints gets soft ones over hosts and zones, counted over the pods of the same controller.

use std::collections::{HashMap, HashSet};

use kontiki_api::labels::{Operator, Requirement, Selector};
use kontiki_api::taints::{NO_EXECUTE, NO_SCHEDULE, tolerated};

use super::{Plugin, Rejection, SCORE_MAX, node_affinity};
use crate::cluster::{Cluster, NodeInfo};
use crate::node::Node;
use crate::pod::{Pod, TopologySpreadConstraint};

/// The label whose value is another one on every node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Constraints of a pod that has none: topology key and skew that costs nothing.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

/// Which pods are counted.
#[derive(Debug)]
enum Counted {
    Matching(Selector),
    OfController(String),
}

#[derive(Debug)]
struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: i64,
    /// Whether the pod itself is among those that are counted.
    counts_itself: bool,
    domains: HashMap<String, i64>,
}

/// The pods in each domain, for each constraint of a pod.
#[derive(Debug, Default)]
pub struct Counts {
    hard: Vec<Constraint>,
    soft: Vec<Constraint>,
    /// Whether the soft constraints are the pod's own, which nodes without their keys do not take part in.
    soft_given: bool,
}

impl Counts {
    /// Counts for the constraints of this pod.
    pub fn new(pod: &Pod, cluster: &Cluster) -> Counts {
        let given = |when: &str| {
            pod.spec
                .spread
                .iter()
                .filter(|c| c.when_unsatisfiable == when)
                .collect::<Vec<_>>()
        };
        let hard = count(pod, cluster, &given("DoNotSchedule"));
        let soft = given("ScheduleAnyway");
        if pod.spec.spread.is_empty() {
            return Counts {
                hard,
                soft: count_defaults(pod, cluster),
                soft_given: false,
            };
        }
        Counts {
            hard,
            soft: count(pod, cluster, &soft),
            soft_given: true,
        }
    }

    /// Rejects a node whose domain has too many of the pods already.
    pub fn filter(&self, node: &Node) -> Result<(), Rejection> {
        for c in &self.hard {
            let Some(domain) = node.metadata.labels.get(&c.key) else {
                let text =
                    "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::lasting(Plugin::PodTopologySpread, text));
            };
            let domains = i64::try_from(c.domains.len()).unwrap_or(i64::MAX);
            let fewest = if domains < c.min_domains {
                0
            } else {
                c.domains.values().copied().min().unwrap_or(0)
            };
            let here = c.domains.get(domain).copied().unwrap_or(0);
            if here + i64::from(c.counts_itself) - fewest > c.max_skew {
                let text = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection::crowded(Plugin::PodTopologySpread, text));
            }
        }
        Ok(())
    }

    /// Scores nodes: the fewer of the pods in their domains, the better.
    pub fn score(&self, nodes: &[(&Node, &NodeInfo)]) -> Vec<i64> {
        if self.soft.is_empty() {
            return vec![0; nodes.len()];
        }
        let raw: Vec<Option<i64>> = nodes.iter().map(|(n, _)| self.crowd(n, nodes)).collect();
        let most = raw.iter().flatten().copied().max().unwrap_or(0);
        let fewest = raw.iter().flatten().copied().min().unwrap_or(0);
        raw.into_iter()
            .map(|s| match s {
                None => 0,
                Some(_) if most == 0 => SCORE_MAX,
                Some(s) => SCORE_MAX * (most + fewest - s) / most,
            })
            .collect()
    }

    fn crowd(&self, node: &Node, nodes: &[(&Node, &NodeInfo)]) -> Option<i64> {
        let mut sum = 0.0;
        for c in &self.soft {
            let Some(domain) = node.metadata.labels.get(&c.key) else {
                if self.soft_given {
                    return None;
                }
                continue;
            };
            let size = if c.key == HOSTNAME {
                nodes.len()
            } else {
                nodes
                    .iter()
                    .filter_map(|(n, _)| n.metadata.labels.get(&c.key))
                    .collect::<HashSet<_>>()
                    .len()
            };
            let here = c.domains.get(domain).copied().unwrap_or(0);
            // Many domains hold few pods each: the weight makes constraints of different size comparable.
            #[allow(
                clippy::cast_precision_loss,
                reason = "counts of pods and nodes are small"
            )]
            let part = here as f64 * ((size + 2) as f64).ln() + (c.max_skew - 1) as f64;
            sum += part;
        }
        #[allow(clippy::cast_possible_truncation, reason = "a sum of counts of pods")]
        let rounded = sum.round() as i64;
        Some(rounded)
    }
}

fn count(
    pod: &Pod,
    cluster: &Cluster,
    constraints: &[&TopologySpreadConstraint],
) -> Vec<Constraint> {
    let keys: Vec<&str> = constraints
        .iter()
        .map(|c| c.topology_key.as_str())
        .collect();
    constraints
        .iter()
        .map(|c| {
            let honor_affinity = c.node_affinity_policy.as_deref() != Some("Ignore");
            let honor_taints = c.node_taints_policy.as_deref() == Some("Honor");
            let selector = with_label_keys(&c.label_selector.0, &c.match_label_keys, pod);
            let eligible = |n: &Node| {
                keys.iter().all(|k| n.metadata.labels.contains_key(*k))
                    && (!honor_affinity || node_affinity::matches(pod, n))
                    && (!honor_taints
                        || n.taints.iter().all(|t| {
                            !matches!(t.effect.as_str(), NO_SCHEDULE | NO_EXECUTE)
                                || tolerated(&pod.spec.tolerations, t)
                        }))
            };
            let counts_itself = selector.matches(&pod.metadata.labels);
            let domains = domains(
                pod,
                cluster,
                &c.topology_key,
                &Counted::Matching(selector),
                &eligible,
            );
            let min_domains = c.min_domains.unwrap_or(1);
            Constraint {
                key: c.topology_key.clone(),
                max_skew: c.max_skew,
                min_domains,
                counts_itself,
                domains,
            }
        })
        .collect()
}

fn count_defaults(pod: &Pod, cluster: &Cluster) -> Vec<Constraint> {
    let Some(owner) = pod.metadata.controller() else {
        return Vec::new();
    };
    let counted = Counted::OfController(owner.uid.clone());
    let of = |(key, max_skew): (&str, i64)| {
        let domains = domains(pod, cluster, key, &counted, &|_| true);
        Constraint {
            key: key.to_owned(),
            max_skew,
            min_domains: 1,
            counts_itself: true,
            domains,
        }
    };
    DEFAULTS.into_iter().map(of).collect()
}

/// The selector, narrowed to pods that agree with this one in these labels.
fn with_label_keys(selector: &Selector, keys: &[String], pod: &Pod) -> Selector {
    if keys.is_empty() || *selector == Selector::nothing() {
        return selector.clone();
    }
    let mut requirements = selector.requirements().to_vec();
    for key in keys {
        if let Some(value) = pod.metadata.labels.get(key) {
            let values = vec![value.clone()];
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values,
            });
        }
    }
    Selector::new(requirements)
}

fn domains(
    pod: &Pod,
    cluster: &Cluster,
    key: &str,
    counted: &Counted,
    eligible: &dyn Fn(&Node) -> bool,
) -> HashMap<String, i64> {
    let mut out = HashMap::new();
    for (node, info) in cluster.nodes().filter(|(n, _)| eligible(n)) {
        let Some(domain) = node.metadata.labels.get(key) else {
            continue;
        };
        let is_counted = |p: &Pod| {
            p.metadata.namespace == pod.metadata.namespace
                && !p.metadata.is_deleting()
                && match counted {
                    Counted::Matching(s) => s.matches(&p.metadata.labels),
                    Counted::OfController(uid) => {
                        p.metadata.controller().is_some_and(|o| o.uid == *uid)
                    }
                }
        };
        let here = info.pods.iter().filter(|p| is_counted(p)).count();
        *out.entry(domain.clone()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{cluster, node, pod};
    use super::*;

    fn zoned(name: &str, zone: &str) -> Node {
        node(name, &json!({"zone": zone, HOSTNAME: name}), &json!({}))
    }

    fn spread(when: &str, more: &Value) -> Pod {
        let mut c = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "x"}}});
        c.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        pod(
            "p",
            &json!({"app": "x"}),
            &json!({"topologySpreadConstraints": [c]}),
        )
    }

    fn app(name: &str) -> Pod {
        pod(name, &json!({"app": "x"}), &json!({}))
    }

    #[test]
    fn hard_constraints_keep_the_skew() {
        let c = cluster(
            vec![zoned("n1", "a"), zoned("n2", "b")],
            vec![(app("q"), "n1")],
        );
        let counts = Counts::new(&spread("DoNotSchedule", &json!({})), &c);
        assert!(counts.filter(&zoned("n1", "a")).is_err());
        assert!(counts.filter(&zoned("n2", "b")).is_ok());
        let unlabelled = node("n3", &json!({}), &json!({}));
        assert!(
            !counts
                .filter(&unlabelled)
                .expect_err("no label")
                .helped_by_preemption
        );
        let few = Counts::new(
            &spread("DoNotSchedule", &json!({"minDomains": 3, "maxSkew": 1})),
            &c,
        );
        assert!(few.filter(&zoned("n2", "b")).is_ok() && few.filter(&zoned("n1", "a")).is_err());
    }

    #[test]
    fn soft_constraints_prefer_the_emptier_domain() {
        let c = cluster(
            vec![zoned("n1", "a"), zoned("n2", "b")],
            vec![(app("q"), "n1"), (app("r"), "n1")],
        );
        let nodes: Vec<_> = c.nodes().collect();
        let counts = Counts::new(&spread("ScheduleAnyway", &json!({})), &c);
        assert!(counts.filter(nodes[0].0).is_ok());
        let scores = counts.score(&nodes);
        assert!(scores[1] > scores[0], "{scores:?}");
    }

    #[test]
    fn pods_of_a_controller_are_spread_over_hosts_by_default() {
        let owned = |name: &str| {
            let mut p = app(name);
            let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true}]);
            p.metadata.owner_references = serde_json::from_value(owner).expect("owners");
            p
        };
        let c = cluster(
            vec![zoned("n1", "a"), zoned("n2", "a")],
            vec![(owned("q"), "n1")],
        );
        let nodes: Vec<_> = c.nodes().collect();
        let scores = Counts::new(&owned("p"), &c).score(&nodes);
        assert!(scores[1] > scores[0], "{scores:?}");
        assert_eq!(Counts::new(&app("p"), &c).score(&nodes), [0, 0]);
    }

    #[test]
    fn label_keys_narrow_the_selection() {
        let versioned = |name: &str, v: &str| pod(name, &json!({"app": "x", "v": v}), &json!({}));
        let c = cluster(
            vec![zoned("n1", "a"), zoned("n2", "b")],
            vec![(versioned("q", "1"), "n1")],
        );
        let mut p = spread("DoNotSchedule", &json!({"matchLabelKeys": ["v"]}));
        p.metadata.labels.insert("v".into(), "2".into());
        assert!(Counts::new(&p, &c).filter(&zoned("n1", "a")).is_ok());
    }
}
