//! Rollouts played through on a model of the replica sets.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::deployment::revision::POD_TEMPLATE_HASH;

/// A deployment and its sets, with the pods of a set as the age of each in rounds.
struct World {
    d: Value,
    sets: BTreeMap<String, (Value, Vec<u32>)>,
    serial: u32,
    second: i64,
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

impl World {
    fn new(replicas: i32, strategy: &Value) -> World {
        let spec = json!({"replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": "x"}}, "strategy": strategy, "template": template("one")});
        let d = json!({"metadata": {"namespace": "ns", "name": "d", "uid": "d", "generation": 1, "annotations": {}}, "spec": spec});
        World {
            d,
            sets: BTreeMap::new(),
            serial: 0,
            second: 1000,
        }
    }

    fn rolling(replicas: i32, surge: &Value, unavailable: &Value) -> World {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        World::new(
            replicas,
            &json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
        )
    }

    fn deployment(&self) -> Deployment {
        serde_json::from_value(self.d.clone()).expect("a deployment")
    }

    fn views(&self) -> Vec<Arc<ReplicaSet>> {
        self.sets
            .values()
            .map(|(v, _)| Arc::new(serde_json::from_value(v.clone()).expect("a set")))
            .collect()
    }

    fn plan(&self) -> Plan {
        let sets = self.views();
        let running = |new: Option<&ReplicaSet>| {
            self.sets
                .iter()
                .any(|(n, (_, pods))| new.is_none_or(|s| s.metadata.name != *n) && !pods.is_empty())
        };
        plan(
            &self.deployment(),
            &sets,
            running,
            Timestamp::from_second(self.second).expect("in range"),
        )
    }

    fn execute(&mut self, commands: Vec<Command>) {
        let merge = |to: &mut Value, from: &BTreeMap<String, String>| {
            for (k, v) in from {
                to["metadata"]["annotations"][k] = v.as_str().into();
            }
        };
        for c in commands {
            match c {
                Command::Create {
                    hash,
                    replicas,
                    annotations,
                } => {
                    let (name, mut template) =
                        (format!("d-{hash}"), self.d["spec"]["template"].clone());
                    template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.into();
                    self.serial += 1;
                    let metadata = json!({"namespace": "ns", "name": name, "uid": name, "generation": 1,
                        "creationTimestamp": format!("{:04}", self.serial), "annotations": annotations});
                    let spec = json!({"replicas": replicas, "template": template});
                    assert!(
                        self.sets
                            .insert(name, (json!({"metadata": metadata, "spec": spec}), vec![]))
                            .is_none()
                    );
                }
                Command::Scale {
                    set,
                    replicas,
                    annotations,
                } => {
                    let (v, _) = self.sets.get_mut(&set.metadata.name).expect("it is there");
                    v["spec"]["replicas"] = replicas.into();
                    merge(v, &annotations);
                }
                Command::Adjust { set, annotations } => {
                    let min_ready = self.d["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
                    let (v, _) = self.sets.get_mut(&set.metadata.name).expect("it is there");
                    v["spec"]["minReadySeconds"] = min_ready.into();
                    merge(v, &annotations);
                }
                Command::Delete(set) => drop(self.sets.remove(&set.metadata.name)),
                Command::Revision(r) => self.d["metadata"]["annotations"][REVISION] = r.into(),
                Command::Status(s) => self.d["status"] = json!(s),
            }
        }
    }

    /// The sets make and delete pods; a pod is available after `slow` rounds. Unavailable ones go first.
    fn live(&mut self, slow: u32) {
        self.second += 1;
        for (v, pods) in self.sets.values_mut() {
            let want = usize::try_from(v["spec"]["replicas"].as_i64().expect("a number"))
                .expect("not negative");
            pods.iter_mut().for_each(|p| *p += 1);
            pods.sort_unstable_by(|a, b| b.cmp(a));
            pods.resize(want, 0);
            let available = pods.iter().filter(|p| **p >= slow).count();
            v["status"] = json!({"replicas": want, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1});
        }
    }

    fn total(&self) -> i32 {
        self.views().iter().map(|s| s.replicas()).sum()
    }

    fn available(&self) -> i32 {
        self.views()
            .iter()
            .map(|s| s.status.available_replicas)
            .sum()
    }

    fn active(&self) -> usize {
        self.views().iter().filter(|s| s.replicas() > 0).count()
    }

    /// Runs until nothing is left to do, with a check after each round. Returns the rounds that it took.
    fn settle(
        &mut self,
        slow: u32,
        check: impl Fn(&World) -> Result<(), TestCaseError>,
    ) -> Result<u32, TestCaseError> {
        let mut idle_rounds = 0;
        for round in 0..2000 {
            let commands = self.plan().commands;
            idle_rounds = if commands.is_empty() {
                idle_rounds + 1
            } else {
                0
            };
            self.execute(commands);
            check(self)?;
            self.live(slow);
            // Pods become available after a while: only then it can be said that nothing more happens.
            if idle_rounds > slow + 1 {
                return Ok(round);
            }
        }
        Err(TestCaseError::fail("the rollout does not end"))
    }

    fn settled(&mut self) {
        self.settle(1, |_| Ok(())).expect("it settles");
    }

    fn set_image(&mut self, image: &str) {
        self.d["spec"]["template"] = template(image);
    }

    fn revision(&self) -> &str {
        self.d["metadata"]["annotations"][REVISION]
            .as_str()
            .expect("a revision")
    }

    fn progress_reason(&self) -> String {
        let d = self.deployment();
        conditions::find(&d.status.conditions, PROGRESSING)
            .map(|c| c.reason.clone())
            .unwrap_or_default()
    }
}

#[test]
fn the_first_rollout_makes_one_set_of_full_size() {
    let mut w = World::rolling(3, &json!("25%"), &json!("25%"));
    let first = w.plan().commands;
    assert!(
        matches!(&first[0], Command::Create { replicas: 3, .. }),
        "{first:?}"
    );
    w.settled();
    assert_eq!((w.sets.len(), w.total(), w.revision()), (1, 3, "1"));
    assert_eq!(w.progress_reason(), "NewReplicaSetAvailable");
    let d = w.deployment();
    assert_eq!(
        (
            d.status.updated_replicas,
            d.status.available_replicas,
            d.status.unavailable_replicas
        ),
        (3, 3, 0)
    );
}

#[test]
fn rolling_back_takes_the_old_set_again_under_a_new_revision() {
    let mut w = World::rolling(2, &json!(1), &json!(0));
    w.settled();
    w.set_image("two");
    w.settled();
    assert_eq!((w.sets.len(), w.active(), w.revision()), (2, 1, "2"));
    w.set_image("one");
    w.settled();
    assert_eq!((w.sets.len(), w.active(), w.revision()), (2, 1, "3"));
    let history: Vec<_> = w
        .views()
        .iter()
        .filter_map(|s| {
            s.metadata
                .annotations
                .get("deployment.kubernetes.io/revision-history")
                .cloned()
        })
        .collect();
    assert_eq!(history, ["1"]);
}

#[test]
fn the_history_is_kept_short() {
    let mut w = World::rolling(1, &json!(1), &json!(0));
    for image in ["one", "two", "three", "four", "five"] {
        w.set_image(image);
        w.settled();
    }
    let revisions: Vec<i64> = w.views().iter().map(|s| revision(s)).collect();
    assert_eq!(w.sets.len(), 3, "two old ones and the new one");
    assert!(revisions.iter().all(|r| *r >= 3), "{revisions:?}");
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut w = World::rolling(2, &json!(1), &json!(0));
    w.settled();
    w.d["spec"]["paused"] = true.into();
    w.set_image("two");
    w.d["spec"]["replicas"] = 5.into();
    w.settled();
    assert_eq!(
        (w.sets.len(), w.total(), w.progress_reason().as_str()),
        (1, 5, "DeploymentPaused")
    );
    w.d["spec"]["paused"] = false.into();
    w.settled();
    assert_eq!(
        (w.active(), w.total(), w.progress_reason().as_str()),
        (1, 5, "NewReplicaSetAvailable")
    );
    assert_eq!(w.deployment().status.updated_replicas, 5);
}

#[test]
fn recreate_never_runs_two_templates_at_once() {
    let mut w = World::new(3, &json!({"type": "Recreate"}));
    w.settled();
    w.set_image("two");
    w.settle(3, |w| {
        let running = w
            .sets
            .values()
            .filter(|(v, pods)| !pods.is_empty() || v["spec"]["replicas"] != 0)
            .count();
        prop_assert!(running <= 1, "{running} sets have pods");
        Ok(())
    })
    .expect("it settles");
    assert_eq!((w.total(), w.deployment().status.updated_replicas), (3, 3));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared() {
    let mut w = World::rolling(10, &json!(3), &json!(2));
    w.settled();
    w.set_image("broken");
    for _ in 0..6 {
        let commands = w.plan().commands;
        w.execute(commands);
        w.live(100);
        // The old pods stay available.
        for (v, _) in w.sets.values_mut() {
            if v["spec"]["template"]["spec"]["containers"][0]["image"] == "one" {
                v["status"]["availableReplicas"] = v["spec"]["replicas"].clone();
            }
        }
    }
    let sizes = |w: &World| w.views().iter().map(|s| s.replicas()).collect::<Vec<_>>();
    let mut before = sizes(&w);
    before.sort_unstable();
    assert_eq!(before, [5, 8]);
    w.d["spec"]["replicas"] = 15.into();
    let commands = w.plan().commands;
    w.execute(commands);
    let mut after = sizes(&w);
    after.sort_unstable();
    assert_eq!(after, [7, 11], "18 in all, in proportion");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// A rollout never has more pods than the surge allows, never fewer available than asked for, and always ends.
    #[test]
    fn rollouts_keep_their_limits_and_end(
        replicas in 0_i32..12,
        surge in prop_oneof![(0_i32..5).prop_map(|n| json!(n)), (0_i32..=100).prop_map(|n| json!(format!("{n}%")))],
        unavailable in prop_oneof![(0_i32..5).prop_map(|n| json!(n)), (0_i32..=100).prop_map(|n| json!(format!("{n}%")))],
        slow in 1_u32..4,
        interrupted in 0_u32..8,
    ) {
        let mut w = World::rolling(replicas, &surge, &unavailable);
        w.settle(slow, |_| Ok(()))?;
        let l = limits(&w.deployment());
        let kept = |w: &World| {
            prop_assert!(w.total() <= replicas + l.surge, "{} pods", w.total());
            // What is taken away counts as gone at once: the sets have not seen it yet.
            let available: i32 = w.views().iter().map(|s| s.status.available_replicas.min(s.replicas())).sum();
            prop_assert!(available >= replicas - l.unavailable, "{available} available");
            Ok(())
        };
        w.set_image("two");
        for _ in 0..interrupted {
            let commands = w.plan().commands;
            w.execute(commands);
            kept(&w)?;
            w.live(slow);
        }
        w.set_image("three");
        w.settle(slow, kept)?;
        prop_assert_eq!((w.total(), w.available()), (replicas, replicas));
        prop_assert!(w.active() <= 1);
        prop_assert_eq!(w.deployment().status.updated_replicas, replicas);
    }

    /// However the size is changed, it is reached.
    #[test]
    fn every_size_is_reached(sizes in prop::collection::vec((0_i32..15, 0_u32..6), 1..5)) {
        let mut w = World::rolling(3, &json!("25%"), &json!("25%"));
        for (size, rounds) in &sizes {
            w.d["spec"]["replicas"] = (*size).into();
            for _ in 0..*rounds {
                let commands = w.plan().commands;
                w.execute(commands);
                w.live(2);
            }
            w.set_image(&format!("{size}"));
        }
        w.settle(2, |_| Ok(()))?;
        let want = sizes.last().expect("one at least").0;
        prop_assert_eq!((w.total(), w.available()), (want, want));
        prop_assert!(w.active() <= 1);
    }
}
