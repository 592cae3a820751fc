//! What a deployment has to do next, decided on plain data.
//!
//! A plan is one step: what follows is planned when the step's writes are in the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::limits::{DESIRED_REPLICAS, MAX_REPLICAS, limits, new_set_replicas, share};
use super::revision::{REVISION, age, annotated, find_new, hash, new_set_annotations, revision};
use super::status::{self, PROGRESSING, condition};
use crate::conditions;
use crate::views::{Deployment, DeploymentStatus, ReplicaSet};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the set of the current template.
    Create {
        /// Hash of the template, in its name and labels.
        hash: String,
        /// How many pods it begins with.
        replicas: i32,
        /// Its annotations.
        annotations: BTreeMap<String, String>,
    },
    /// Change the number of pods of a set.
    Scale {
        /// The set.
        set: Arc<ReplicaSet>,
        /// The number.
        replicas: i32,
        /// Annotations to set at the same time.
        annotations: BTreeMap<String, String>,
    },
    /// Change annotations or `minReadySeconds` of the new set.
    Adjust {
        /// The set.
        set: Arc<ReplicaSet>,
        /// Annotations to set.
        annotations: BTreeMap<String, String>,
    },
    /// Delete a set that the history has no room for.
    Delete(Arc<ReplicaSet>),
    /// Write the revision into the deployment's annotations.
    Revision(String),
    /// Write the status.
    Status(DeploymentStatus),
}

/// What to do, and the seconds after which to look again even if nothing happens.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order.
    pub commands: Vec<Command>,
    /// The progress deadline is due then.
    pub look_again_seconds: Option<i64>,
}

/// A deployment with its sets.
struct Rollout<'a> {
    d: &'a Deployment,
    all: &'a [Arc<ReplicaSet>],
    new: Option<Arc<ReplicaSet>>,
    /// The others, the oldest first.
    old: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
    commands: Vec<Command>,
}

/// What a deployment has to do next. `old_pods_run` says whether pods of sets other than the given one are there.
pub fn plan(
    d: &Deployment,
    sets: &[Arc<ReplicaSet>],
    old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool,
    now: Timestamp,
) -> Plan {
    let new = find_new(d, sets).cloned();
    let mut old: Vec<_> = sets
        .iter()
        .filter(|s| {
            new.as_ref()
                .is_none_or(|n| n.metadata.uid != s.metadata.uid)
        })
        .cloned()
        .collect();
    old.sort_by_key(|s| age(s));
    let r = Rollout {
        d,
        all: sets,
        new,
        old,
        now,
        commands: Vec::new(),
    };
    if d.metadata.is_deleting() {
        let s = status::counted(d, sets, r.new.as_deref(), now);
        return r.finish(s, None);
    }
    if let Some(s) = r.pause_condition() {
        return r.finish(s, None);
    }
    if d.spec.paused || r.is_scaling_event() {
        return r.scale();
    }
    match d.spec.strategy.kind.as_str() {
        "Recreate" => r.recreate(old_pods_run),
        _ => r.roll(),
    }
}

impl Rollout<'_> {
    fn total(&self) -> i32 {
        self.all.iter().map(|s| s.replicas()).sum()
    }

    fn finish(mut self, s: DeploymentStatus, look_again_seconds: Option<i64>) -> Plan {
        if s != self.d.status {
            self.commands.push(Command::Status(s));
        }
        Plan {
            commands: self.commands,
            look_again_seconds,
        }
    }

    fn finish_rollout(self) -> Plan {
        let (s, left) = status::rollout(self.d, self.all, self.new.as_deref(), self.now);
        self.finish(s, left)
    }

    /// A deployment that was paused or resumed says so: the deadline does not run while it is paused.
    fn pause_condition(&self) -> Option<DeploymentStatus> {
        status::deadline(self.d)?;
        let current = conditions::find(&self.d.status.conditions, PROGRESSING);
        if current.is_some_and(|c| c.reason == "ProgressDeadlineExceeded") {
            return None;
        }
        let says_paused = current.is_some_and(|c| c.reason == "DeploymentPaused");
        let (reason, text) = match (self.d.spec.paused, says_paused) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return None,
        };
        let mut s = self.d.status.clone();
        conditions::set(
            &mut s.conditions,
            condition(PROGRESSING, "Unknown", reason, text.into(), self.now),
        );
        Some(s)
    }

    /// Whether the number of wanted pods was changed since sets were last scaled.
    fn is_scaling_event(&self) -> bool {
        let desired = |s: &&Arc<ReplicaSet>| annotated(&s.metadata, DESIRED_REPLICAS);
        self.all
            .iter()
            .filter(|s| s.replicas() > 0)
            .filter_map(|s| desired(&s))
            .any(|n| n != i64::from(self.d.replicas()))
    }

    /// Scales a set, and notes in its annotations for which size of the deployment.
    fn scale_to(&mut self, set: &Arc<ReplicaSet>, replicas: i32) -> bool {
        let most = self.d.replicas() + limits(self.d).surge;
        let annotations: BTreeMap<String, String> =
            [(DESIRED_REPLICAS, self.d.replicas()), (MAX_REPLICAS, most)]
                .into_iter()
                .map(|(k, n)| (k.to_owned(), n.to_string()))
                .filter(|(k, n)| set.metadata.annotations.get(k) != Some(n))
                .collect();
        if set.replicas() == replicas && annotations.is_empty() {
            return false;
        }
        self.commands.push(Command::Scale {
            set: set.clone(),
            replicas,
            annotations,
        });
        true
    }

    /// Sees to the revision of the new set, or (if `create`) makes it. Tells whether the set has yet to be written.
    fn sync_revision(&mut self, create: bool) -> bool {
        let newest = self.old.iter().map(|s| revision(s)).max().unwrap_or(0);
        let number = newest + 1;
        let Some(new) = self.new.clone() else {
            if create {
                self.create(number);
            }
            return create;
        };
        let annotations = new_set_annotations(self.d, Some(&new), number);
        if !annotations.is_empty() || new.spec.min_ready_seconds != self.d.spec.min_ready_seconds {
            self.commands.push(Command::Adjust {
                set: new,
                annotations,
            });
            return true;
        }
        let own = revision(&new).to_string();
        if self.d.metadata.annotations.get(REVISION) != Some(&own) {
            self.commands.push(Command::Revision(own));
        }
        false
    }

    fn create(&mut self, number: i64) {
        let replicas = new_set_replicas(self.d, self.total(), 0);
        let most = self.d.replicas() + limits(self.d).surge;
        let mut annotations = new_set_annotations(self.d, None, number);
        annotations.insert(DESIRED_REPLICAS.into(), self.d.replicas().to_string());
        annotations.insert(MAX_REPLICAS.into(), most.to_string());
        let hash = hash(&self.d.template(), self.d.status.collision_count);
        let name = format!("{}-{hash}", self.d.metadata.name);
        self.commands.push(Command::Create {
            hash,
            replicas,
            annotations,
        });
        self.commands.push(Command::Revision(number.to_string()));
        if status::deadline(self.d).is_some() {
            let mut s = self.d.status.clone();
            let text = format!("Created new replica set {name:?}");
            conditions::set(
                &mut s.conditions,
                condition(PROGRESSING, "True", "NewReplicaSetCreated", text, self.now),
            );
            self.commands.push(Command::Status(s));
        }
    }

    fn roll(mut self) -> Plan {
        if self.sync_revision(true) {
            return Plan {
                commands: self.commands,
                look_again_seconds: None,
            };
        }
        if self.grow_new() || self.shrink_old() {
            return self.finish_rollout();
        }
        self.clean_up_when_complete();
        self.finish_rollout()
    }

    /// Brings the new set nearer to its size.
    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new.clone() else {
            return false;
        };
        let want = self.d.replicas();
        if new.replicas() == want {
            return false;
        }
        let replicas = if new.replicas() > want {
            want
        } else {
            new_set_replicas(self.d, self.total(), new.replicas())
        };
        replicas != new.replicas() && self.scale_to(&new, replicas)
    }

    /// Takes pods from the old sets, as many as availability allows: those that are not available first.
    fn shrink_old(&mut self) -> bool {
        let Some(new) = self.new.clone() else {
            return false;
        };
        if self.old.iter().all(|s| s.replicas() == 0) {
            return false;
        }
        let least = self.d.replicas() - limits(self.d).unavailable;
        let new_missing = new.replicas() - new.status.available_replicas;
        let most_taken = self.total() - least - new_missing;
        if most_taken <= 0 {
            return false;
        }
        let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
            self.old.iter().map(|s| (s.clone(), s.replicas())).collect();
        let mut left = most_taken;
        for (set, size) in &mut sizes {
            let unhealthy = (*size - set.status.available_replicas).max(0).min(left);
            *size -= unhealthy;
            left -= unhealthy;
        }
        let available: i32 = self.all.iter().map(|s| s.status.available_replicas).sum();
        let mut left = (available - least).max(0);
        for (_, size) in &mut sizes {
            let taken = (*size).min(left);
            *size -= taken;
            left -= taken;
        }
        let mut any = false;
        for (set, size) in sizes {
            if size != set.replicas() {
                any |= self.scale_to(&set, size);
            }
        }
        any
    }

    fn recreate(mut self, old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool) -> Plan {
        if self.new.is_some() && self.sync_revision(false) {
            return Plan {
                commands: self.commands,
                look_again_seconds: None,
            };
        }
        let mut scaled = false;
        for set in self.old.clone() {
            if set.replicas() != 0 {
                scaled |= self.scale_to(&set, 0);
            }
        }
        if scaled || old_pods_run(self.new.as_deref()) {
            return self.finish_rollout();
        }
        if self.new.is_none() {
            self.sync_revision(true);
            return Plan {
                commands: self.commands,
                look_again_seconds: None,
            };
        }
        if !self.grow_new() {
            self.clean_up_when_complete();
        }
        self.finish_rollout()
    }

    /// Follows a changed number of wanted pods, outside of and in the middle of rollouts; nothing else if it is paused.
    fn scale(mut self) -> Plan {
        if self.sync_revision(false) {
            return Plan {
                commands: self.commands,
                look_again_seconds: None,
            };
        }
        self.scale_sets();
        if self.d.spec.paused {
            self.clean_up();
        }
        let s = status::counted(self.d, self.all, self.new.as_deref(), self.now);
        self.finish(s, None)
    }

    fn scale_sets(&mut self) {
        let (d, want) = (self.d, self.d.replicas());
        let active: Vec<_> = self
            .all
            .iter()
            .filter(|s| s.replicas() > 0)
            .cloned()
            .collect();
        let only = match active.as_slice() {
            [] => self
                .new
                .clone()
                .or_else(|| self.old.iter().max_by_key(|s| revision(s)).cloned()),
            [one] => Some(one.clone()),
            _ => None,
        };
        if let Some(only) = only {
            self.scale_to(&only, want);
            return;
        }
        if let Some(new) = &self.new {
            let saturated = new.replicas() == want
                && annotated(&new.metadata, DESIRED_REPLICAS) == Some(i64::from(want))
                && new.status.available_replicas == want;
            if saturated {
                for set in self.old.clone().iter().filter(|s| s.replicas() > 0) {
                    self.scale_to(set, 0);
                }
                return;
            }
        }
        if d.spec.strategy.kind == "Recreate" {
            return;
        }
        let allowed = if want > 0 { want + limits(d).surge } else { 0 };
        let to_add = allowed - active.iter().map(|s| s.replicas()).sum::<i32>();
        let mut sorted = active;
        if to_add > 0 {
            sorted.sort_by_key(|s| (std::cmp::Reverse(s.replicas()), std::cmp::Reverse(age(s))));
        } else {
            sorted.sort_by_key(|s| (std::cmp::Reverse(s.replicas()), age(s)));
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for set in &sorted {
            let n = share(set, d, to_add, added);
            sizes.push(set.replicas() + n);
            added += n;
        }
        if let Some(first) = sizes.first_mut() {
            // What rounding left over goes to the biggest.
            *first = (*first + to_add - added).max(0);
        }
        for (set, size) in sorted.iter().zip(sizes) {
            self.scale_to(set, size);
        }
    }

    fn clean_up_when_complete(&mut self) {
        let s = status::counted(self.d, self.all, self.new.as_deref(), self.now);
        if status::is_complete(self.d, &s) {
            self.clean_up();
        }
    }

    /// Deletes the oldest revisions that the history has no room for.
    fn clean_up(&mut self) {
        let Some(limit) = self
            .d
            .spec
            .revision_history_limit
            .filter(|l| *l != i32::MAX)
        else {
            return;
        };
        let mut old: Vec<_> = self
            .old
            .iter()
            .filter(|s| !s.metadata.is_deleting())
            .cloned()
            .collect();
        let excess = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|s| (revision(s), age(s)));
        for set in old.into_iter().take(excess) {
            let idle = set.replicas() == 0 && set.status.replicas == 0;
            if idle && set.metadata.generation <= set.status.observed_generation {
                self.commands.push(Command::Delete(set));
            }
        }
    }
}

#[cfg(test)]
mod tests;
