use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("in range")
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "a json! reads better at the calls"
)]
fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    )
    .expect("a pod")
}

fn web() -> Pod {
    pod(json!({"containers": [{"name": "web", "image": "i"}]}))
}

/// The facts of a case; the tests change what they are about.
struct Case {
    pod: Pod,
    observed: Observed,
    busy: BTreeSet<String>,
    health: HashMap<String, Health>,
    retry_at: HashMap<String, Timestamp>,
    crashes: HashMap<String, Crash>,
    set_up: bool,
    torn_down: bool,
    gone: bool,
    written: bool,
}

impl Case {
    fn of(pod: Pod) -> Case {
        Case {
            pod,
            observed: Observed::default(),
            busy: BTreeSet::new(),
            health: HashMap::new(),
            retry_at: HashMap::new(),
            crashes: HashMap::new(),
            set_up: true,
            torn_down: false,
            gone: false,
            written: false,
        }
    }

    fn sandbox(mut self, id: &str, attempt: u32, ready: bool) -> Case {
        let s = Sandbox {
            id: id.into(),
            attempt,
            ready,
            created_at: at(0),
            ips: vec!["10.244.0.2".into()],
        };
        self.observed.sandboxes.insert(0, s);
        self
    }

    fn container(mut self, name: &str, attempt: u32, state: State, exit_code: i32) -> Case {
        let spec = self.pod.container(name).expect("in the pod").0.clone();
        let c = Seen {
            id: format!("{name}-{attempt}"),
            sandbox_id: self
                .observed
                .sandboxes
                .first()
                .expect("made before")
                .id
                .clone(),
            name: name.into(),
            attempt,
            state,
            hash: hash(&spec),
            exit_code,
            finished_at: (state == State::Exited).then(|| at(90)),
            grace_seconds: 7,
            ..Seen::default()
        };
        if state == State::Running {
            self.health.insert(
                c.id.clone(),
                Health {
                    started: true,
                    ready: true,
                    failed: None,
                },
            );
        }
        self.observed.containers.insert(0, c);
        self
    }

    fn plan(&self) -> Plan {
        plan(&Input {
            pod: &self.pod,
            gone: self.gone,
            ended: false,
            observed: &self.observed,
            busy: &self.busy,
            set_up: self.set_up,
            torn_down: self.torn_down,
            health: &self.health,
            retry_at: &self.retry_at,
            crashes: &self.crashes,
            ending_since: Some(at(95)),
            final_status_written: self.written,
            now: at(100),
        })
    }

    fn commands(&self) -> Vec<Command> {
        self.plan().commands.into_iter().map(|(_, c)| c).collect()
    }
}

fn start_of(name: &str, attempt: u32) -> Command {
    Command::Start {
        name: name.into(),
        attempt,
        sandbox_id: "s".into(),
    }
}

#[test]
fn a_new_pod_is_set_up_then_gets_a_sandbox_then_its_containers() {
    let mut c = Case::of(web());
    c.set_up = false;
    assert_eq!(c.commands(), [Command::SetUp]);
    c.set_up = true;
    assert_eq!(c.commands(), [Command::CreateSandbox { attempt: 0 }]);
    c.busy.insert(POD_KEY.into());
    assert_eq!(c.commands(), []);
    c.busy.clear();
    let mut c = c.sandbox("s", 0, true);
    assert_eq!(c.commands(), [start_of("web", 0)]);
    c.busy.insert("web".into());
    assert_eq!(c.commands(), []);
}

#[test]
fn a_healthy_pod_is_left_alone() {
    let c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Running, 0);
    assert_eq!(c.plan(), Plan::default());
}

#[test]
fn failed_setup_waits_for_its_time() {
    let mut c = Case::of(web());
    c.retry_at.insert(POD_KEY.into(), at(130));
    assert_eq!(
        c.plan(),
        Plan {
            wake_at: Some(at(130)),
            ..Plan::default()
        }
    );
}

#[test]
fn init_containers_come_one_after_the_other() {
    let spec =
        json!({"initContainers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "web"}]});
    let c = Case::of(pod(spec.clone())).sandbox("s", 0, true);
    assert_eq!(c.commands(), [start_of("a", 0)]);
    let c = c.container("a", 0, State::Running, 0);
    assert_eq!(c.commands(), []);
    let c = Case::of(pod(spec))
        .sandbox("s", 0, true)
        .container("a", 0, State::Exited, 0);
    assert_eq!(c.commands(), [start_of("b", 0)]);
    let c = c.container("b", 0, State::Exited, 1);
    assert_eq!(
        c.commands(),
        [start_of("b", 1)],
        "restartPolicy Always retries it"
    );
    let c = c.container("b", 1, State::Exited, 0);
    assert_eq!(c.commands(), [start_of("web", 0)]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}], "containers": [{"name": "web"}]});
    let c = Case::of(pod(spec))
        .sandbox("s", 0, true)
        .container("a", 0, State::Exited, 1);
    let p = c.plan();
    assert!(p.finished);
    assert_eq!(
        p.commands,
        [(POD_KEY.to_owned(), Command::StopSandbox { id: "s".into() })]
    );
}

#[test]
fn sidecars_start_first_and_end_last() {
    let spec = json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}],
        "containers": [{"name": "web"}], "terminationGracePeriodSeconds": 20,
    });
    let c = Case::of(pod(spec))
        .sandbox("s", 0, true)
        .container("side", 0, State::Running, 0);
    assert_eq!(c.commands(), [start_of("init", 0)]);
    let mut c = c
        .container("init", 0, State::Exited, 0)
        .container("web", 0, State::Running, 0);
    assert_eq!(c.commands(), []);
    c.pod.metadata.deletion_timestamp = Some("now".into());
    let names = |cmds: Vec<Command>| -> Vec<(String, i64)> {
        cmds.into_iter()
            .map(|c| match c {
                Command::Stop {
                    name,
                    grace_seconds,
                    ..
                } => (name, grace_seconds),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(names(c.commands()), [("web".to_owned(), 20)]);
    c.observed.containers[0].state = State::Exited;
    assert_eq!(
        names(c.commands()),
        [("side".to_owned(), 15)],
        "five seconds are spent"
    );
}

#[test]
fn a_crashing_container_waits_longer_each_time_until_it_is_forgiven() {
    let mut c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Exited, 1);
    assert_eq!(
        c.commands(),
        [start_of("web", 1)],
        "the first restart comes at once"
    );
    let first = Crash::next(None, at(90), at(90));
    let second = Crash::next(Some(&first), at(95), at(95));
    assert_eq!((first.delay.as_secs(), second.delay.as_secs()), (10, 20));
    c.crashes.insert("web".into(), second);
    assert_eq!(
        c.plan(),
        Plan {
            wake_at: Some(at(110)),
            ..Plan::default()
        }
    );
    assert_eq!(
        Crash::next(Some(&second), at(1000), at(1000))
            .delay
            .as_secs(),
        10
    );
    let worst = (0..20).fold(first, |c, _| Crash::next(Some(&c), at(90), at(90)));
    assert_eq!(worst.delay.as_secs(), 300);
}

#[test]
fn policies_decide_what_is_started_again() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 1, false),
    ] {
        let spec =
            json!({"restartPolicy": policy, "containers": [{"name": "web"}, {"name": "other"}]});
        let c = Case::of(pod(spec)).sandbox("s", 0, true);
        let c = c
            .container("web", 0, State::Exited, code)
            .container("other", 0, State::Running, 0);
        assert_eq!(!c.commands().is_empty(), again, "{policy} {code}");
    }
}

#[test]
fn a_finished_pod_gives_back_its_network_and_volumes_and_keeps_its_logs() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "web"}]});
    let c = Case::of(pod(spec.clone()))
        .sandbox("s", 0, true)
        .container("web", 0, State::Exited, 0);
    assert_eq!(c.commands(), [Command::StopSandbox { id: "s".into() }]);
    let mut c = Case::of(pod(spec))
        .sandbox("s", 0, false)
        .container("web", 0, State::Exited, 0);
    assert_eq!(c.commands(), [Command::TearDown]);
    c.torn_down = true;
    assert_eq!(c.commands(), []);
}

#[test]
fn a_failed_probe_and_a_new_image_stop_the_container() {
    let mut c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Running, 0);
    let failed = Some(("liveness", Some(3)));
    c.health.insert(
        "web-0".into(),
        Health {
            started: true,
            ready: true,
            failed,
        },
    );
    assert!(
        matches!(
            &c.commands()[..],
            [Command::Stop {
                grace_seconds: 3,
                ..
            }]
        ),
        "{:?}",
        c.commands()
    );
    c.busy.insert(stop_key("web", 3));
    assert_eq!(c.commands(), []);
    let mut c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Running, 0);
    c.pod.spec.containers[0].image = "other".into();
    assert!(matches!(
        &c.commands()[..],
        [Command::Stop {
            grace_seconds: 30,
            ..
        }]
    ));
}

#[test]
fn a_dead_sandbox_is_replaced_and_the_old_one_removed() {
    let c = Case::of(web())
        .sandbox("old", 0, false)
        .container("web", 0, State::Running, 0);
    assert!(matches!(&c.commands()[..], [Command::Stop { .. }]));
    let c = Case::of(web())
        .sandbox("old", 0, false)
        .container("web", 0, State::Exited, 137);
    assert_eq!(c.commands(), [Command::CreateSandbox { attempt: 1 }]);
    let c = c.sandbox("s", 1, true);
    assert_eq!(
        c.commands(),
        [
            Command::RemoveSandbox { id: "old".into() },
            start_of("web", 1)
        ]
    );
}

#[test]
fn a_deleted_pod_is_stopped_reported_removed_and_only_then_forgotten() {
    let mut c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Running, 0);
    c.pod.metadata.deletion_timestamp = Some("now".into());
    c.pod.metadata.deletion_grace_period_seconds = Some(5);
    assert!(matches!(
        &c.commands()[..],
        [Command::Stop {
            grace_seconds: 5,
            ..
        }]
    ));
    c.busy.insert(stop_key("web", 5));
    assert_eq!(c.commands(), []);
    c.pod.metadata.deletion_grace_period_seconds = Some(0);
    assert!(
        matches!(
            &c.commands()[..],
            [Command::Stop {
                grace_seconds: 0,
                ..
            }]
        ),
        "a shorter grace overtakes"
    );
    c.busy.clear();
    c.observed.containers[0].state = State::Exited;
    assert_eq!(c.commands(), [Command::StopSandbox { id: "s".into() }]);
    c.observed.sandboxes[0].ready = false;
    assert_eq!(c.commands(), [], "the end is reported first");
    c.written = true;
    assert_eq!(c.commands(), [Command::RemoveSandbox { id: "s".into() }]);
    c.observed = Observed::default();
    assert_eq!(c.commands(), [Command::TearDown]);
    c.torn_down = true;
    assert_eq!(c.commands(), [Command::DeleteObject]);
    c.gone = true;
    assert_eq!(c.commands(), []);
}

#[test]
fn a_pod_without_its_object_ends_with_the_grace_that_its_containers_remember() {
    let mut c = Case::of(web())
        .sandbox("s", 0, true)
        .container("web", 0, State::Running, 0);
    c.gone = true;
    assert!(matches!(
        &c.commands()[..],
        [Command::Stop {
            grace_seconds: 7,
            ..
        }]
    ));
}

#[test]
fn attempts_go_on_from_what_the_status_remembers() {
    let mut p = web();
    assert_eq!(next_attempt(&p, &Observed::default(), "web"), 0);
    p.status.container_statuses =
        serde_json::from_value(json!([{"name": "web", "restartCount": 4, "containerID": "x"}]))
            .expect("read");
    assert_eq!(next_attempt(&p, &Observed::default(), "web"), 5);
}

#[test]
fn containers_before_the_last_two_are_removed() {
    let c = Case::of(web()).sandbox("s", 0, true);
    let c = c
        .container("web", 0, State::Exited, 1)
        .container("web", 1, State::Exited, 1)
        .container("web", 2, State::Running, 0);
    assert_eq!(c.commands(), [Command::Remove { id: "web-0".into() }]);
}
