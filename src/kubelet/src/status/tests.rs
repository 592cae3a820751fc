use super::*;
use crate::observed::Sandbox;

#[allow(
    clippy::needless_pass_by_value,
    reason = "a json! reads better at the calls"
)]
fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 2});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a pod")
}

fn seen(name: &str, attempt: u32, state: State, exit_code: i32) -> Seen {
    let t = |s| Timestamp::from_second(s).expect("in range");
    Seen {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt,
        state,
        exit_code,
        started_at: Some(t(100)),
        finished_at: (state == State::Exited).then(|| t(110)),
        ..Seen::default()
    }
}

fn up(containers: Vec<Seen>) -> Observed {
    let sandbox = Sandbox {
        id: "s".into(),
        ready: true,
        ips: vec!["10.244.0.9".into()],
        ..Sandbox::default()
    };
    Observed {
        sandboxes: vec![sandbox],
        containers,
    }
}

#[derive(Default)]
struct Facts {
    health: HashMap<String, Health>,
    waiting: HashMap<String, Waiting>,
    crash_until: HashMap<String, Timestamp>,
    ended: Option<Ended>,
}

fn status(pod: &Pod, observed: &Observed, f: &Facts) -> Value {
    compute(&Input {
        pod,
        observed,
        health: &f.health,
        waiting: &f.waiting,
        crash_until: &f.crash_until,
        messages: &HashMap::new(),
        ended: f.ended.as_ref(),
        host_ip: "192.0.2.1",
        now: Timestamp::from_second(120).expect("in range"),
    })
}

fn condition_of(s: &Value, kind: &str) -> String {
    let all = s["conditions"].as_array().expect("a list");
    all.iter().find(|c| c["type"] == kind).expect("there")["status"]
        .as_str()
        .expect("text")
        .to_owned()
}

fn healthy(id: &str) -> Facts {
    let h = Health {
        started: true,
        ready: true,
        failed: None,
    };
    Facts {
        health: [(id.to_owned(), h)].into(),
        ..Facts::default()
    }
}

#[test]
fn a_pod_goes_from_pending_to_running_and_ready() {
    let p = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    let s = status(&p, &Observed::default(), &Facts::default());
    assert_eq!(s["phase"], "Pending");
    assert_eq!(
        s["containerStatuses"][0]["state"]["waiting"]["reason"],
        "ContainerCreating"
    );
    assert_eq!(condition_of(&s, "PodReadyToStartContainers"), "False");
    let s = status(
        &p,
        &up(vec![seen("c", 0, State::Running, 0)]),
        &healthy("c0"),
    );
    assert_eq!(
        (&s["phase"], &s["podIP"]),
        (&json!("Running"), &json!("10.244.0.9"))
    );
    assert_eq!(s["observedGeneration"], 2);
    for c in [
        "Ready",
        "ContainersReady",
        "Initialized",
        "PodScheduled",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition_of(&s, c), "True", "{c}");
    }
}

#[test]
fn a_container_that_is_not_ready_makes_the_pod_unready_and_a_gate_too() {
    let p = pod(json!({"containers": [{"name": "c"}]}));
    let s = status(
        &p,
        &up(vec![seen("c", 0, State::Running, 0)]),
        &Facts::default(),
    );
    assert_eq!(
        (s["phase"].as_str(), condition_of(&s, "Ready").as_str()),
        (Some("Running"), "False")
    );
    let p =
        pod(json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "c"}]}));
    let s = status(
        &p,
        &up(vec![seen("c", 0, State::Running, 0)]),
        &healthy("c0"),
    );
    assert_eq!(
        (
            condition_of(&s, "ContainersReady").as_str(),
            condition_of(&s, "Ready").as_str()
        ),
        ("True", "False")
    );
}

#[test]
fn a_crash_loop_waits_with_its_end_as_last_state() {
    let p = pod(json!({"containers": [{"name": "c"}]}));
    let until = Timestamp::from_second(130).expect("in range");
    let f = Facts {
        crash_until: [("c".to_owned(), until)].into(),
        ..Facts::default()
    };
    let s = status(&p, &up(vec![seen("c", 3, State::Exited, 2)]), &f);
    let c = &s["containerStatuses"][0];
    assert_eq!(c["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(c["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!(
        (&c["restartCount"], &s["phase"]),
        (&json!(3), &json!("Running"))
    );
}

#[test]
fn ends_are_told_by_exit_codes_and_by_the_kubelets_own_reason() {
    let p = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]}));
    let both = |code| {
        up(vec![
            seen("a", 0, State::Exited, 0),
            seen("b", 0, State::Exited, code),
        ])
    };
    assert_eq!(
        status(&p, &both(0), &Facts::default())["phase"],
        "Succeeded"
    );
    assert_eq!(status(&p, &both(1), &Facts::default())["phase"], "Failed");
    let ended = Some(Ended {
        reason: "DeadlineExceeded".into(),
        message: "too long".into(),
    });
    let s = status(
        &p,
        &Observed::default(),
        &Facts {
            ended,
            ..Facts::default()
        },
    );
    assert_eq!(
        (&s["phase"], &s["reason"]),
        (&json!("Failed"), &json!("DeadlineExceeded"))
    );
}

#[test]
fn the_state_before_a_restart_is_kept_when_the_runtime_forgot_it() {
    let mut p = pod(json!({"containers": [{"name": "c"}]}));
    let last = json!({"terminated": {"exitCode": 9}});
    p.status.container_statuses =
        serde_json::from_value(json!([{"name": "c", "restartCount": 1, "lastState": last}]))
            .expect("read");
    let s = status(
        &p,
        &up(vec![seen("c", 1, State::Running, 0)]),
        &healthy("c1"),
    );
    assert_eq!(s["containerStatuses"][0]["lastState"], last);
}

#[test]
fn conditions_of_others_and_times_of_unchanged_ones_stay() {
    let mut p = pod(json!({"containers": [{"name": "c"}]}));
    p.status.conditions = serde_json::from_value(json!([
        {"type": "x/y", "status": "True"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
    ]))
    .expect("read");
    let s = status(&p, &up(vec![]), &Facts::default());
    assert_eq!(condition_of(&s, "x/y"), "True");
    let scheduled = s["conditions"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|c| c["type"] == "PodScheduled");
    assert_eq!(
        scheduled.expect("there")["lastTransitionTime"],
        "1970-01-01T00:00:05Z"
    );
}
