//! The arithmetic of rollouts: surge, unavailability, shares.

use serde_json::Value;

use super::revision::annotated;
use crate::views::{Deployment, ReplicaSet};

/// How many pods there may be at most, as it was when a set was last scaled.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// How many pods the deployment wanted when a set was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// The limits of a rolling update, as numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Pods beyond the wanted number.
    pub surge: i32,
    /// Pods of the wanted number that may be missing.
    pub unavailable: i32,
}

/// The limits of a deployment. If both round to nothing, one pod may be missing: a rollout has to be able to begin.
pub(super) fn limits(d: &Deployment) -> Limits {
    if d.spec.strategy.kind == "Recreate" {
        return Limits {
            surge: 0,
            unavailable: 0,
        };
    }
    let rolling = d.spec.strategy.rolling_update.clone().unwrap_or_default();
    let surge = scaled(rolling.max_surge.as_ref(), d.replicas(), true);
    let mut unavailable = scaled(rolling.max_unavailable.as_ref(), d.replicas(), false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Limits {
        surge,
        unavailable: unavailable.min(d.replicas()),
    }
}

/// A number, or a percentage of `total`; a quarter if it is not said.
fn scaled(value: Option<&Value>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(Value::Number(n)) => {
            return n.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        }
        Some(Value::String(s)) => s
            .strip_suffix('%')
            .and_then(|s| s.parse::<i64>().ok())
            .unwrap_or(0),
        _ => 25,
    };
    let product = i64::from(total) * percent;
    i32::try_from(if up {
        (product + 99).div_euclid(100)
    } else {
        product.div_euclid(100)
    })
    .unwrap_or(i32::MAX)
}

/// How many pods the new set gets while it grows: never more than the surge allows over all sets (`total`).
pub(super) fn new_set_replicas(d: &Deployment, total: i32, new: i32) -> i32 {
    if d.spec.strategy.kind == "Recreate" {
        return d.replicas();
    }
    let most = d.replicas() + limits(d).surge;
    if total >= most {
        new
    } else {
        new + (most - total).min(d.replicas() - new)
    }
}

/// The share of `to_add` pods (fewer than none when shrinking) that a set gets in the middle of a rollout, in
/// proportion to its size; `added` are given out already.
pub(super) fn share(set: &ReplicaSet, d: &Deployment, to_add: i32, added: i32) -> i32 {
    if set.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let fraction = fraction(set, d);
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(set: &ReplicaSet, d: &Deployment) -> i32 {
    if d.replicas() == 0 {
        return -set.replicas();
    }
    let most = i64::from(d.replicas() + limits(d).surge);
    let before = annotated(&set.metadata, MAX_REPLICAS)
        .filter(|n| *n > 0)
        .unwrap_or(i64::from(d.status.replicas));
    if before <= 0 {
        return 0;
    }
    let size = i64::from(set.replicas());
    // Rounded to the nearest.
    let new_size = (2 * size * most + before).div_euclid(2 * before);
    i32::try_from(new_size - size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32, surge: &Value, unavailable: &Value) -> Deployment {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
        serde_json::from_value(
            json!({"metadata": {}, "spec": {"replicas": replicas, "strategy": strategy}}),
        )
        .expect("a deployment")
    }

    #[test]
    fn percentages_round_towards_progress() {
        for (replicas, surge, unavailable, want) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (3, json!("25%"), json!("25%"), (1, 0)),
            (1, json!(0), json!("25%"), (0, 1)),
            (4, json!(2), json!(9), (2, 4)),
            (10, Value::Null, Value::Null, (3, 2)),
            (0, json!(1), json!(0), (1, 0)),
        ] {
            let l = limits(&deployment(replicas, &surge, &unavailable));
            assert_eq!(
                (l.surge, l.unavailable),
                want,
                "{replicas} {surge} {unavailable}"
            );
        }
    }

    #[test]
    fn shares_follow_the_sizes() {
        let d = deployment(20, &json!(0), &json!(5));
        let set = |replicas: i32| -> ReplicaSet {
            let annotations = json!({MAX_REPLICAS: "10"});
            serde_json::from_value(
                json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}),
            )
            .expect("a set")
        };
        assert_eq!(share(&set(7), &d, 10, 0), 7);
        assert_eq!(share(&set(3), &d, 10, 7), 3);
        assert_eq!(share(&set(3), &d, 10, 9), 1, "no more than is left");
        assert_eq!(share(&set(0), &d, 10, 0), 0);
    }
}
