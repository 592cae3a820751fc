//! Amounts of resources: what pods ask for and nodes have.

use std::collections::BTreeMap;

use kontiki_api::Quantity;

/// What a container without a CPU request counts for in scores.
pub const MILLI_CPU_DEFAULT: i64 = 100;
/// What a container without a memory request counts for in scores.
pub const MEMORY_BYTES_DEFAULT: i64 = 200 * 1024 * 1024;

/// An amount of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of local ephemeral storage.
    pub ephemeral_bytes: i64,
    /// Extended resources and huge pages, in their units.
    pub extended: BTreeMap<String, i64>,
}

/// Quantities by resource name, as in `requests`.
pub type ResourceList = BTreeMap<String, String>;

impl Resources {
    /// Reads a resource list; what is not a quantity counts as nothing. `pods` is not among the amounts.
    pub fn read(list: &ResourceList) -> Resources {
        let mut out = Resources::default();
        for (name, text) in list {
            let q: Quantity = text.parse().unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => out.milli_cpu = q.millis(),
                "memory" => out.memory_bytes = q.units(),
                "ephemeral-storage" => out.ephemeral_bytes = q.units(),
                "pods" => {}
                _ => {
                    out.extended.insert(name.clone(), q.units());
                }
            }
        }
        out
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Resources) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.saturating_add(other.ephemeral_bytes);
        for (k, n) in &other.extended {
            let sum = self.extended.entry(k.clone()).or_default();
            *sum = sum.saturating_add(*n);
        }
    }

    /// Takes another amount away, which was added before.
    pub fn subtract(&mut self, other: &Resources) {
        self.milli_cpu -= other.milli_cpu;
        self.memory_bytes -= other.memory_bytes;
        self.ephemeral_bytes -= other.ephemeral_bytes;
        for (k, n) in &other.extended {
            if let Some(sum) = self.extended.get_mut(k) {
                *sum -= n;
                if *sum == 0 {
                    self.extended.remove(k);
                }
            }
        }
    }

    /// Raises each amount to at least the other's.
    pub fn raise_to(&mut self, other: &Resources) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(other.ephemeral_bytes);
        for (k, n) in &other.extended {
            let most = self.extended.entry(k.clone()).or_default();
            *most = (*most).max(*n);
        }
    }
}

/// What a container asks for, and whether it is an init container that keeps running.
#[derive(Clone, Debug, Default)]
pub struct ContainerRequest {
    /// Its requests.
    pub requests: Resources,
    /// Whether its `restartPolicy` is `Always` (for init containers).
    pub restartable: bool,
}

/// What a pod takes of a node: its containers and sidecars at the same time, or the init container that needs most
/// beside the sidecars started before it, whichever is more; and the overhead of its sandbox.
pub fn pod_request(
    containers: &[ContainerRequest],
    init: &[ContainerRequest],
    overhead: &Resources,
) -> Resources {
    let mut running = Resources::default();
    for c in containers {
        running.add(&c.requests);
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for c in init {
        let mut now = sidecars.clone();
        now.add(&c.requests);
        if c.restartable {
            sidecars = now.clone();
        }
        starting.raise_to(&now);
    }
    running.add(&sidecars);
    running.raise_to(&starting);
    running.add(overhead);
    running
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(milli: i64, restartable: bool) -> ContainerRequest {
        let requests = Resources {
            milli_cpu: milli,
            ..Resources::default()
        };
        ContainerRequest {
            requests,
            restartable,
        }
    }

    fn total(containers: &[i64], init: &[(i64, bool)]) -> i64 {
        let containers: Vec<_> = containers.iter().map(|n| cpu(*n, false)).collect();
        let init: Vec<_> = init.iter().map(|(n, r)| cpu(*n, *r)).collect();
        pod_request(&containers, &init, &Resources::default()).milli_cpu
    }

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        assert_eq!(total(&[100, 200], &[]), 300);
        assert_eq!(
            total(&[100, 200], &[(500, false)]),
            500,
            "an init container runs alone"
        );
        assert_eq!(total(&[100], &[(50, true)]), 150, "a sidecar runs beside");
        assert_eq!(
            total(&[100], &[(50, true), (200, false)]),
            250,
            "and beside later init containers"
        );
        assert_eq!(
            total(&[100], &[(200, false), (50, true)]),
            200,
            "but not beside earlier ones"
        );
    }

    #[test]
    fn quantities_are_read_in_their_units() {
        let list = [
            ("cpu", "1500m"),
            ("memory", "1Gi"),
            ("example.com/gpu", "2"),
            ("pods", "110"),
        ];
        let list = list.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let r = Resources::read(&list);
        assert_eq!((r.milli_cpu, r.memory_bytes), (1500, 1 << 30));
        assert_eq!(r.extended, [("example.com/gpu".to_owned(), 2)].into());
    }

    proptest! {
        #[test]
        fn adding_and_taking_away_is_neutral(a in 0_i64..1 << 40, b in 0_i64..1 << 40, c in 0_i64..1000, d in 1_i64..1000) {
            let x = Resources { milli_cpu: a, memory_bytes: b, ephemeral_bytes: c, extended: [("g".to_owned(), d)].into() };
            let y = Resources { milli_cpu: b, memory_bytes: a, ephemeral_bytes: d, extended: [("h".to_owned(), d)].into() };
            let mut sum = x.clone();
            sum.add(&y);
            sum.subtract(&y);
            prop_assert_eq!(sum, x);
        }

        #[test]
        fn a_pod_takes_at_least_its_containers_and_every_init_container(
            containers in prop::collection::vec(0_i64..10_000, 0..5),
            init in prop::collection::vec((0_i64..10_000, any::<bool>()), 0..5),
        ) {
            let t = total(&containers, &init);
            let sidecars: i64 = init.iter().filter(|i| i.1).map(|i| i.0).sum();
            prop_assert!(t >= containers.iter().sum::<i64>() + sidecars);
            prop_assert!(init.iter().all(|i| t >= i.0));
            prop_assert!(t <= containers.iter().sum::<i64>() + init.iter().map(|i| i.0).sum::<i64>());
        }
    }
}
