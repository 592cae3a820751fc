use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::shape::tests::workload;

fn patched(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let schema = workload();
    let mut object = object.clone();
    apply(
        &schema,
        &mut object,
        parse_patch(patch.to_string().as_bytes())?,
    )?;
    Ok(object)
}

fn live() -> Value {
    json!({
        "metadata": {"finalizers": ["example.com/a", "example.com/b"], "labels": {"l": "1"}},
        "spec": {
            "replicas": 1,
            "containers": [
                {"name": "a", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                 "args": ["x", "y"], "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]},
                {"name": "b", "image": "i"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
            "nodeSelector": {"a": "1", "b": "2"},
            "tolerations": [{"key": "k"}],
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        },
    })
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect()
}

fn spec(patch: &Value) -> Result<Value, PatchError> {
    patched(&live(), &json!({ "spec": patch })).map(|mut o| o["spec"].take())
}

#[test]
fn items_are_merged_by_their_key() {
    let got = spec(
        &json!({"containers": [{"name": "a", "image": "j", "env": [{"name": "A", "value": "9"}, {"name": "N", "value": "n"}]}]}),
    );
    let containers = got.unwrap()["containers"].take();
    assert_eq!(names(&containers), ["a", "b"]);
    assert_eq!(containers[0]["image"], "j");
    assert_eq!(containers[0]["args"], json!(["x", "y"]));
    let env = json!([{"name": "A", "value": "9"}, {"name": "N", "value": "n"}, {"name": "B", "value": "2"}]);
    assert_eq!(
        containers[0]["env"], env,
        "what the patch names comes first, in its order"
    );
}

#[test]
fn new_items_stand_where_the_patch_has_them() {
    let got = spec(&json!({"containers": [{"name": "c", "image": "i", "env": null}]})).unwrap();
    assert_eq!(names(&got["containers"]), ["c", "a", "b"]);
    assert_eq!(got["containers"][0], json!({"name": "c", "image": "i"}));
}

#[test]
fn items_are_deleted_and_lists_replaced() {
    let got = spec(&json!({"containers": [{"name": "b", "$patch": "delete"}]})).unwrap();
    assert_eq!(names(&got["containers"]), ["a"]);
    let got =
        spec(&json!({"containers": [{"$patch": "replace"}, {"name": "z", "image": "i"}]})).unwrap();
    assert_eq!(got["containers"], json!([{"name": "z", "image": "i"}]));
    let got =
        spec(&json!({"containers": [{"name": "a", "args": ["q"]}], "tolerations": [{"key": "z"}]}))
            .unwrap();
    assert_eq!(got["containers"][0]["args"], json!(["q"]));
    assert_eq!(got["tolerations"], json!([{"key": "z"}]));
}

#[test]
fn maps_are_merged_replaced_and_deleted() {
    assert_eq!(
        spec(&json!({"nodeSelector": {"a": null, "c": "3"}})).unwrap()["nodeSelector"],
        json!({"b": "2", "c": "3"})
    );
    let got = spec(&json!({"nodeSelector": {"$patch": "replace", "z": "1"}})).unwrap();
    assert_eq!(got["nodeSelector"], json!({"z": "1"}));
    assert_eq!(
        spec(&json!({"nodeSelector": {"$patch": "delete"}})).unwrap()["nodeSelector"],
        json!({})
    );
    assert_eq!(
        spec(&json!({"nodeSelector": null}))
            .unwrap()
            .get("nodeSelector"),
        None
    );
}

#[test]
fn keys_are_retained() {
    let got = spec(&json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}})).unwrap();
    assert_eq!(got["strategy"], json!({"type": "Recreate"}));
    let volume =
        json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}});
    let got = spec(&json!({"volumes": [volume]})).unwrap();
    assert_eq!(
        got["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}])
    );
    let error =
        spec(&json!({"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}})).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (400, "invalid patch format of retainKeys")
    );
}

#[test]
fn order_is_set() {
    let order =
        |names: &[&str]| Value::from(names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>());
    let got =
        spec(&json!({"$setElementOrder/volumes": order(&["w", "v"]), "volumes": [{"name": "w"}]}))
            .unwrap();
    assert_eq!(names(&got["volumes"]), ["w", "v"]);
    let got = spec(&json!({"$setElementOrder/volumes": order(&["w", "n"]), "volumes": [{"name": "n", "emptyDir": {}}]})).unwrap();
    assert_eq!(
        names(&got["volumes"]),
        ["v", "w", "n"],
        "the live item keeps its place before w"
    );
    let error = spec(
        &json!({"$setElementOrder/volumes": order(&["w"]), "volumes": [{"name": "q", "emptyDir": {}}]}),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "The order in patch list:\n[map[emptyDir:map[] name:q]]\n doesn't match $setElementOrder list:\n[map[name:w]]\n"
    );
}

#[test]
fn lists_of_scalars() {
    let finalizers = |patch: Value| {
        patched(&live(), &json!({ "metadata": patch }))
            .map(|mut o| o["metadata"]["finalizers"].take())
    };
    let got = finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}));
    assert_eq!(got, Ok(json!(["example.com/b"])));
    let got = finalizers(json!({"finalizers": ["example.com/c"]}));
    assert_eq!(
        got,
        Ok(json!(["example.com/c", "example.com/a", "example.com/b"]))
    );
    let got = finalizers(
        json!({"$setElementOrder/finalizers": ["example.com/c", "example.com/b"], "finalizers": ["example.com/c"]}),
    );
    assert_eq!(
        got,
        Ok(json!(["example.com/c", "example.com/a", "example.com/b"]))
    );
    let got = finalizers(json!({"$deleteFromPrimitiveList/labels": ["a"]}));
    assert_eq!(
        got,
        Ok(json!(["example.com/a", "example.com/b"])),
        "labels is no list, so nothing happens"
    );
}

#[test]
fn errors_have_the_words_that_clients_know() {
    let text = |patch: Value| spec(&patch).unwrap_err().to_string();
    assert_eq!(
        text(json!({"containers": [{"image": "x"}]})),
        "map: map[image:x] does not contain declared merge key: name"
    );
    assert_eq!(
        text(json!({"containers": [{"name": "a", "$patch": "nope"}]})),
        "unknown patch type: nope in map: map[$patch:nope name:a]"
    );
    let body = |b: &[u8]| parse_patch(b).unwrap_err();
    assert_eq!(
        body(b"[]").to_string(),
        "json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert_eq!(body(b"{").to_string(), "unexpected end of JSON input");
    assert_eq!(body(b"{").code(), 400);
}

#[test]
fn the_kind_stays() {
    let object = json!({"apiVersion": "v1", "kind": "Workload", "data": {"a": "1"}});
    assert_eq!(
        patched(&object, &json!({"kind": "X", "apiVersion": null})),
        Ok(object)
    );
}

#[test]
fn values_without_a_counterpart_lose_their_directives() {
    let patch = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "$patch": "delete"}, {"name": "Y", "value": "1"}]}],
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let expected = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": "1"}]}],
        "strategy": {"type": "Recreate"}}});
    assert_eq!(patched(&json!({}), &patch), Ok(expected));
}

fn containers() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-f]", "[i-k]", 0..5)
        .prop_map(|m| m.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

fn as_list(items: &[(String, String)]) -> Value {
    Value::from(
        items
            .iter()
            .map(|(n, i)| json!({"name": n, "image": i}))
            .collect::<Vec<_>>(),
    )
}

proptest! {
    /// A patch with the items of the target, deletions of all others and the target's order gives the target.
    #[test]
    fn applying_the_difference_gives_the_target(from in containers(), to in containers()) {
        let order = to.iter().map(|(n, _)| json!({"name": n})).collect::<Vec<_>>();
        let mut items = as_list(&to).as_array().unwrap().clone();
        let gone = from.iter().filter(|(n, _)| to.iter().all(|(t, _)| t != n));
        items.extend(gone.map(|(n, _)| json!({"name": n, "$patch": "delete"})));
        let patch = json!({"spec": {"containers": items, "$setElementOrder/containers": order}});
        let got = patched(&json!({"spec": {"containers": as_list(&from)}}), &patch).unwrap();
        prop_assert_eq!(got, json!({"spec": {"containers": as_list(&to)}}));
    }

    /// Whatever a patch is, applying it neither panics nor leaves a directive behind.
    #[test]
    fn no_patch_panics(names in prop::collection::vec("[a-d]", 0..4), directive in "replace|delete|merge|x") {
        let items: Vec<Value> = names.iter().map(|n| json!({"name": n, "$patch": directive})).collect();
        for patch in [json!({"spec": {"containers": items}}), json!({"spec": {"$setElementOrder/containers": items}}),
            json!({"spec": {"tolerations": {"$patch": directive}}}), json!({"spec": {"tolerations": items}}), json!({"$patch": directive})] {
            if let Ok(got) = patched(&live(), &patch) {
                prop_assert!(!got.to_string().contains("\"$"), "{}", got);
            }
        }
    }
}
