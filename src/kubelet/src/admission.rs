//! Whether the node takes a pod that was assigned to it: what it asks for must be there.

use crate::config::Config;
use crate::machine::Machine;
use crate::pod::{Pod, resources};
use crate::status::Ended;

/// Why the node refuses a pod beside those that it runs, if it does.
pub fn refusal(
    pod: &Pod,
    others: &[std::sync::Arc<Pod>],
    config: &Config,
    machine: &Machine,
) -> Option<Ended> {
    let active: Vec<&Pod> = others
        .iter()
        .map(|p| &**p)
        .filter(|p| p.metadata.uid != pod.metadata.uid && !p.is_terminal())
        .collect();
    let sum = |of: fn(&Pod) -> i64| active.iter().map(|p| of(p)).sum::<i64>();
    let checks = [
        (
            "pods",
            1,
            i64::try_from(active.len()).unwrap_or(i64::MAX),
            i64::from(config.pods_max),
        ),
        (
            "cpu",
            resources::cpu_request_millis(pod),
            sum(resources::cpu_request_millis),
            machine.allocatable_cpu_millis(config),
        ),
        (
            "memory",
            resources::memory_request_bytes(pod),
            sum(resources::memory_request_bytes),
            machine.allocatable_memory_bytes(config),
        ),
    ];
    let (name, requested, used, capacity) = checks
        .into_iter()
        .find(|(_, requested, used, capacity)| *requested > 0 && requested + used > *capacity)?;
    Some(Ended {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::testing;

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).expect("a pod"),
        )
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_pod_itself_does_not_count_twice() {
        let (config, machine) = (
            testing::config(),
            Machine {
                cpus: 2,
                memory_bytes: 1 << 30,
                ..Machine::default()
            },
        );
        let all = [pod("a", "1500m"), pod("b", "600m")];
        assert_eq!(refusal(&all[0], &all[..1], &config, &machine), None);
        let e = refusal(&all[1], &all, &config, &machine).expect("too much");
        assert_eq!(e.reason, "OutOfcpu");
        assert!(
            e.message
                .contains("requested: 600, used: 1500, capacity: 2000"),
            "{}",
            e.message
        );
    }
}
