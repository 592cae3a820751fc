use serde_json::json;

use super::*;
use crate::shape::tests::workload;

const T1: &str = "2026-01-01T00:00:01Z";
const T2: &str = "2026-01-01T00:00:02Z";

fn ctx<'a>(manager: &'a str, now: &'a str) -> WriteContext<'a> {
    WriteContext {
        manager,
        api_version: "v1",
        subresource: "",
        now,
        ignored: None,
    }
}

fn deployment(containers: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Workload", "metadata": {"name": "d"}, "spec": {"containers": containers}})
}

fn written(old: Option<&Value>, new: &Value, ctx: &WriteContext<'_>) -> Value {
    let mut new = new.clone();
    on_write(&workload(), old, &mut new, ctx);
    new
}

fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "u".into();
    object
}

/// What each manager owns, and since when.
fn owners(object: &Value) -> Vec<(String, String, Value)> {
    let list = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|e| (text(&e["manager"]), text(&e["time"]), e["fieldsV1"].clone()))
        .collect()
}

fn owner(name: &str, time: &str, fields: Value) -> (String, String, Value) {
    (name.into(), time.into(), fields)
}

#[test]
fn a_create_owns_all_that_it_says() {
    let object = json!({
        "apiVersion": "v1", "kind": "Workload",
        "metadata": {"name": "d", "namespace": "n", "labels": {"a": "1"}, "finalizers": ["x/y"]},
        "spec": {"replicas": 1, "containers": [{"name": "c", "ports": [{"port": 80}]}], "nodeSelector": {"a": "b"},
            "strategy": {"type": "Recreate"}},
        "status": {},
    });
    let got = written(None, &object, &ctx("one", T1));
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {".": {}, "v:\"x/y\"": {}}},
        "f:spec": {
            "f:replicas": {}, "f:nodeSelector": {}, "f:strategy": {"f:type": {}},
            "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:ports": {
                ".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}},
        },
    });
    assert_eq!(
        got["metadata"]["managedFields"],
        json!([{"manager": "one", "operation": "Update", "apiVersion": "v1", "time": T1,
            "fieldsType": "FieldsV1", "fieldsV1": fields}])
    );
}

#[test]
fn an_update_takes_over_what_it_changes() {
    let data = |data: Value| stored(json!({"metadata": {"name": "c"}, "data": data}));
    let one = stored(written(None, &data(json!({"a": "1"})), &ctx("one", T1)));
    let two = written(
        Some(&one),
        &data(json!({"a": "2", "b": "1"})),
        &ctx("two", T2),
    );
    let expected = [
        owner("one", T1, json!({"f:data": {}})),
        owner("two", T2, json!({"f:data": {"f:a": {}, "f:b": {}}})),
    ];
    assert_eq!(owners(&two), expected);
    let removed = written(Some(&two), &data(json!({"a": "2"})), &ctx("three", T2));
    let expected = [
        owner("one", T1, json!({"f:data": {}})),
        owner("two", T2, json!({"f:data": {"f:a": {}}})),
    ];
    assert_eq!(owners(&removed), expected, "who only removes owns nothing");
    let same = written(Some(&two), &two, &ctx("three", T2));
    assert_eq!(same, two);
}

#[test]
fn managed_fields_can_be_reset_and_are_then_not_kept() {
    let object = stored(json!({"metadata": {"name": "c"}, "data": {"a": "1"}}));
    let live = written(None, &object, &ctx("one", T1));
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([]);
    let untracked = written(Some(&live), &reset, &ctx("two", T2));
    assert_eq!(untracked["metadata"].get("managedFields"), None);
    let mut changed = untracked.clone();
    changed["data"]["b"] = "2".into();
    assert_eq!(
        written(Some(&untracked), &changed, &ctx("two", T2))["metadata"].get("managedFields"),
        None
    );

    reset["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(written(Some(&live), &reset, &ctx("two", T2)), untracked);
    reset["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Nope"}]);
    assert_eq!(
        written(Some(&live), &reset, &ctx("two", T2)),
        live,
        "what is not understood does no harm"
    );
}

#[test]
fn a_subresource_has_owners_of_its_own_and_ignores_the_rest() {
    let live = stored(written(None, &deployment(&json!([])), &ctx("one", T1)));
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1});
    new["spec"]["replicas"] = 5.into();
    new["metadata"]["managedFields"] = json!([]);
    let ignored = FieldSet::of_members(&[&["spec"]]);
    let got = written(
        Some(&live),
        &new,
        &WriteContext {
            subresource: "status",
            ignored: Some(&ignored),
            ..ctx("one", T2)
        },
    );
    let list = got["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(list[1]["subresource"], "status");
    assert_eq!(
        list[1]["fieldsV1"],
        json!({"f:status": {".": {}, "f:replicas": {}}})
    );
}

#[test]
fn the_oldest_updates_become_one() {
    let mut live = stored(json!({"metadata": {"name": "c"}, "data": {}}));
    for i in 0..12 {
        let mut new = live.clone();
        new["data"][format!("k{i:02}")] = "v".into();
        let now = format!("2026-01-01T00:00:{i:02}Z");
        let manager = format!("m{i:02}");
        let old = (i > 0).then_some(&live);
        live = written(old, &new, &ctx(&manager, &now));
    }
    let got = owners(&live);
    assert_eq!(got.len(), UPDATE_MANAGERS_MAX);
    assert_eq!(got[0].0, "ancient-changes");
    assert_eq!(got[0].1, "2026-01-01T00:00:02Z");
    assert_eq!(
        got[0].2,
        json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}}})
    );
    assert_eq!(got[9].0, "m11");
}

#[test]
fn times_are_kept_if_nothing_else_changes() {
    let live = stored(written(None, &deployment(&json!([])), &ctx("one", T1)));
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = T2.into();
    keep_times_if_unchanged(&live, &mut new);
    assert_eq!(new, live);
    new["metadata"]["managedFields"][0]["time"] = T2.into();
    new["spec"]["replicas"] = 2.into();
    let changed = new.clone();
    keep_times_if_unchanged(&live, &mut new);
    assert_eq!(new, changed);
}

fn config(labels: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Workload", "metadata": {"name": "d", "labels": labels}, "spec": spec})
}

fn applied(
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApplyError> {
    apply(&workload(), live, config, &ctx(manager, T1), force).map(stored)
}

#[test]
fn an_applier_owns_its_configuration_and_no_more() {
    let first = config(
        &json!({"a": "1"}),
        &json!({"containers": [{"name": "c", "image": "i"}], "strategy": {"type": "x"}}),
    );
    let got = applied(None, &first, "m1", false).unwrap();
    let fields = json!({
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}},
            "f:strategy": {"f:type": {}},
        },
    });
    assert_eq!(owners(&got), [owner("m1", T1, fields)]);
    assert_eq!(got["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(applied(Some(&got), &first, "m1", false), Ok(got));
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let live = applied(
        None,
        &config(&json!({"diff": "a"}), &json!({"replicas": 1})),
        "m1",
        false,
    )
    .unwrap();
    let other = config(&json!({"diff": "b"}), &json!({"replicas": 1}));
    let error = applied(Some(&live), &other, "m2", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"m1\": .metadata.labels.diff"
    );
    assert_eq!(error.code(), 409);
    let both = config(&json!({"diff": "b"}), &json!({"replicas": 2}));
    let error = applied(Some(&live), &both, "m2", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"m1\":\n- .metadata.labels.diff\n- .spec.replicas"
    );
    let forced = applied(Some(&live), &other, "m2", true).unwrap();
    let expected = [
        owner("m1", T1, json!({"f:spec": {"f:replicas": {}}})),
        owner(
            "m2",
            T1,
            json!({"f:metadata": {"f:labels": {"f:diff": {}}}, "f:spec": {"f:replicas": {}}}),
        ),
    ];
    assert_eq!(owners(&forced), expected);
}

#[test]
fn an_updater_is_named_with_its_version() {
    let object = config(&json!({}), &json!({"replicas": 1}));
    let live = stored(written(None, &object, &ctx("hand", T1)));
    let error = applied(
        Some(&live),
        &config(&json!({}), &json!({"replicas": 2})),
        "m1",
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"hand\" using v1: .spec.replicas"
    );
    let mut unowned = live;
    managers::set(&mut unowned, None);
    let error = applied(
        Some(&unowned),
        &config(&json!({}), &json!({"replicas": 2})),
        "m1",
        false,
    )
    .unwrap_err();
    let ApplyError::Conflicts(conflicts) = error else {
        panic!("{error}")
    };
    assert_eq!(
        conflicts[0].message(),
        "conflict with \"before-first-apply\" using v1"
    );

    unowned["status"] = json!({"replicas": 1});
    let status = FieldSet::of_members(&[&["status"]]);
    let main = WriteContext {
        ignored: Some(&status),
        ..ctx("m1", T1)
    };
    let got = apply(&workload(), Some(&unowned), &object, &main, false).unwrap();
    let before = owner(
        "before-first-apply",
        T1,
        json!({"f:metadata": {"f:labels": {}}, "f:spec": {"f:replicas": {}}}),
    );
    assert_eq!(
        owners(&got)[1],
        before,
        "what a write to here leaves alone is not given an owner"
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let first = config(
        &json!({"a": "1", "b": "2"}),
        &json!({"containers": [{"name": "c", "image": "i"}, {"name": "d"}]}),
    );
    let mut live = applied(None, &first, "m1", false).unwrap();
    live["spec"]["containers"][0]["args"] = json!(["set by a default"]);
    let shared = config(&json!({"a": "1"}), &json!({"containers": [{"name": "d"}]}));
    let live = applied(Some(&live), &shared, "m2", false).unwrap();
    let none = json!({"apiVersion": "v1", "kind": "Workload", "metadata": {"name": "d"}});
    let got = applied(Some(&live), &none, "m1", false).unwrap();
    assert_eq!(got["metadata"]["labels"], json!({"a": "1"}));
    assert_eq!(got["spec"]["containers"], json!([{"name": "d"}]));
    assert_eq!(owners(&got).len(), 1);
    let got = applied(Some(&got), &none, "m2", false).unwrap();
    assert_eq!(got["metadata"].get("labels"), None);
    assert_eq!(got["spec"].get("containers"), None);
    assert_eq!(got["metadata"].get("managedFields"), None);
}

#[test]
fn an_item_keeps_what_others_put_into_it() {
    let first = config(
        &json!({}),
        &json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "E", "value": "1"}]}]}),
    );
    let live = applied(None, &first, "m1", false).unwrap();
    let mut edited = live.clone();
    edited["spec"]["containers"][0]["args"] = json!(["x"]);
    let live = written(Some(&live), &edited, &ctx("hand", T2));
    let without_env = config(
        &json!({}),
        &json!({"containers": [{"name": "c", "image": "i"}]}),
    );
    let got = applied(Some(&live), &without_env, "m1", false).unwrap();
    assert_eq!(
        got["spec"]["containers"],
        json!([{"name": "c", "image": "i", "args": ["x"]}])
    );
}

#[test]
fn configurations_that_cannot_be_applied() {
    let text = |config: Value| applied(None, &config, "m1", false).unwrap_err().to_string();
    let of = |spec: Value| config(&json!({}), &spec);
    assert_eq!(
        text(of(json!({"nope": 1}))),
        "failed to create typed patch object (/d; v1, Kind=Workload): .spec.nope: field not declared in schema"
    );
    assert_eq!(
        text(of(json!({"containers": [{"image": "i"}]}))),
        "failed to create typed patch object (/d; v1, Kind=Workload): .spec.containers: element 0: associative list \
         with keys has an element that omits key field \"name\" (and doesn't have default value)"
    );
    let twice = text(of(json!({"containers": [{"name": "c"}, {"name": "c"}]})));
    assert!(
        twice.ends_with(".spec.containers: duplicate entries for key [name=\"c\"]"),
        "{twice}"
    );
    let mut managed = of(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(text(managed), "metadata.managedFields must be nil");
    let mut version = of(json!({}));
    version["apiVersion"] = "v2".into();
    assert_eq!(
        text(version),
        "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1"
    );
}

#[test]
fn kubectl_takes_over_what_it_had_applied_without_server_side() {
    let spec = |replicas: i64| json!({ "replicas": replicas });
    let mut object = config(&json!({"a": "1"}), &spec(1));
    let last = object.to_string();
    object["metadata"]["annotations"] = json!({ LAST_APPLIED: last });
    let live = stored(written(
        None,
        &object,
        &ctx("kubectl-client-side-apply", T1),
    ));
    let mut next = config(&json!({"a": "1"}), &spec(2));
    assert!(applied(Some(&live), &next, "other", false).is_err());
    let got = applied(Some(&live), &next, "kubectl", false).unwrap();
    assert_eq!(got["spec"]["replicas"], 2);
    next = config(&json!({"a": "1"}), &spec(2));
    assert_eq!(
        got["metadata"]["annotations"][LAST_APPLIED],
        format!("{next}\n")
    );
}

#[test]
fn duplicates_in_a_live_list_are_owned_as_a_whole() {
    let twice = deployment(&json!([{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]));
    let live = stored(written(None, &twice, &ctx("one", T1)));
    let fields = json!({"f:spec": {"f:containers": {".": {}, "k:{\"name\":\"c\"}": {}}}});
    assert_eq!(owners(&live), [owner("one", T1, fields)]);
    let once = stored(deployment(&json!([{"name": "c", "image": "a"}])));
    let got = written(Some(&live), &once, &ctx("two", T2));
    let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}});
    assert_eq!(owners(&got)[1], owner("two", T2, fields));
}
