use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::builtin::Schemas;

fn schema(group: &str, version: &str, kind: &str) -> &'static Schema {
    Schemas::builtin().get(group, version, kind).unwrap()
}

fn checked(s: &Schema, mut v: Value) -> Value {
    check(s, &mut v, Strictness::Strict).unwrap();
    v
}

fn refused(s: &Schema, mut v: Value) -> String {
    check(s, &mut v, Strictness::Strict)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_deployment_gets_what_the_go_struct_always_writes() {
    let d = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": null, "creationTimestamp": null},
        "spec": {
            "replicas": 0, "minReadySeconds": 0, "paused": false, "selector": {},
            "template": {"spec": {"containers": [{"name": "c", "image": "", "args": [], "env": [{"name": "A", "value": ""}]}]}},
        },
    });
    assert_eq!(
        checked(schema("apps", "v1", "Deployment"), d),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {
                "replicas": 0, "selector": {}, "strategy": {},
                "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "env": [{"name": "A"}], "resources": {}}]}},
            },
            "status": {},
        })
    );
}

#[test]
fn structs_within_structs_appear() {
    let s = checked(
        schema("", "v1", "Service"),
        json!({"spec": {"ports": [{"port": 80}]}}),
    );
    assert_eq!(
        s,
        json!({"metadata": {}, "spec": {"ports": [{"port": 80, "targetPort": 0}]}, "status": {"loadBalancer": {}}})
    );
    let e = checked(
        schema("discovery.k8s.io", "v1", "EndpointSlice"),
        json!({"endpoints": [{"addresses": ["1.2.3.4"]}]}),
    );
    assert_eq!(
        e,
        json!({"metadata": {}, "addressType": "", "ports": null, "endpoints": [{"addresses": ["1.2.3.4"], "conditions": {}}]})
    );
}

#[test]
fn unknown_members_are_reported_and_dropped() {
    let mut v = json!({
        "metadata": {"name": "x", "nope": 1},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "bad": {}, "resources": {"limits": {"cpu": 1}}}]},
        "nope": true,
    });
    let c = check(schema("", "v1", "Pod"), &mut v, Strictness::Warn).unwrap();
    assert_eq!(
        c.unknown,
        ["metadata.nope", "nope", "spec.containers[1].bad"]
    );
    assert!(v.get("nope").is_none() && v["spec"]["containers"][1].get("bad").is_none());
    assert_eq!(
        v["spec"]["containers"][1]["resources"]["limits"]["cpu"],
        "1"
    );
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let pod = schema("", "v1", "Pod");
    for (v, expected) in [
        (
            json!({"metadata": []}),
            "json: cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta",
        ),
        (
            json!({"spec": "x"}),
            "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            json!({"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            json!({"metadata": {"labels": "x"}}),
            "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!([]),
            "json: cannot unmarshal array into Go value of type v1.Pod",
        ),
        (
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}),
            scalar::BAD_QUANTITY,
        ),
    ] {
        assert_eq!(refused(pod, v), expected);
    }
    assert_eq!(
        refused(
            schema("apps", "v1", "Deployment"),
            json!({"spec": {"replicas": 1.5}})
        ),
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        refused(
            schema("apps", "v1", "Deployment"),
            json!({"spec": {"replicas": 3_000_000_000_i64}})
        ),
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        refused(schema("", "v1", "Secret"), json!({"data": {"a": "%"}})),
        "illegal base64 data at input byte 0"
    );
}

#[test]
fn null_members_become_zero_values() {
    let cm = checked(
        schema("", "v1", "ConfigMap"),
        json!({"data": {"a": null}, "binaryData": {}}),
    );
    assert_eq!(cm, json!({"metadata": {}, "data": {"a": ""}}));
    let secret = checked(schema("", "v1", "Secret"), json!({"data": {"a": null}}));
    assert_eq!(secret["data"], json!({"a": ""}));
    let np = checked(
        schema("networking.k8s.io", "v1", "NetworkPolicy"),
        json!({"spec": {"ingress": [null]}}),
    );
    assert_eq!(np["spec"], json!({"ingress": [{}], "podSelector": {}}));
}

#[test]
fn null_is_an_object_without_members() {
    assert_eq!(
        checked(schema("", "v1", "ConfigMap"), Value::Null),
        json!({"metadata": {}})
    );
}

#[test]
fn what_is_nested_as_deep_as_can_be_is_checked_and_defaulted() {
    let depth = crate::json::DEPTH_MAX - 5;
    let mut body = r#"{"not":"#.repeat(depth) + "{}" + &"}".repeat(depth);
    body = format!(r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{body}}}}}]}}}}"#);
    assert!(crate::json::parse(body.as_bytes()).is_err());
    body = body.replacen(r#"{"not":"#, "", 1).replacen('}', "", 1);
    let mut crd = crate::json::parse(body.as_bytes()).unwrap().value;
    let s = schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    check(s, &mut crd, Strictness::Strict).unwrap();
    crate::default(s, &mut crd);
    assert_eq!(
        serde_json::from_str::<Value>(&crd.to_string()).unwrap(),
        crd
    );
}

#[test]
fn an_empty_list_is_none_where_it_is_stored_as_protobuf() {
    let e = checked(
        schema("discovery.k8s.io", "v1", "EndpointSlice"),
        json!({"endpoints": [], "ports": []}),
    );
    assert_eq!((&e["endpoints"], &e["ports"]), (&Value::Null, &Value::Null));
    let crd = schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    assert_eq!(
        checked(crd, json!({"spec": {"versions": []}}))["spec"]["versions"],
        json!([])
    );
}

#[test]
fn json_schemas_keep_their_unions() {
    let crd = schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let v = checked(
        crd,
        json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"type": "object", "default": {"a": null}, "properties": {
            "a": {"items": {"type": "string", "enum": [null, 1]}, "additionalProperties": false, "nullable": false},
        }}}}]}}),
    );
    assert_eq!(
        v["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({"type": "object", "default": {"a": null}, "properties": {
            "a": {"items": {"type": "string", "enum": [null, 1]}, "additionalProperties": false},
        }})
    );
}

/// JSON that resembles a pod often enough to reach deep.
fn podlike() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "containers",
        "ports",
        "name",
        "labels",
        "env",
        "value",
        "valueFrom",
        "resources",
        "limits",
        "cpu",
        "x",
        "conditions",
        "lastProbeTime",
        "type",
        "annotations",
        "volumes",
        "emptyDir",
        "sizeLimit",
        "containerPort",
        "template",
        "replicas",
        "selector",
        "httpGet",
        "port",
        "livenessProbe",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-5..100_i64).prop_map(|n| Value::Number(n.into())),
        prop::sample::select(vec![
            "",
            "a",
            "1",
            "500m",
            "2024-01-02T03:04:05Z",
            "2024-01-02T03:04:05+01:00"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 96, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::btree_map(key.clone().prop_map(String::from), inner, 0..6)
                .prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn check_is_idempotent(v in podlike(), kind in prop::sample::select(vec![("", "Pod"), ("apps", "Deployment"), ("", "Service"), ("", "ConfigMap")])) {
        let s = schema(kind.0, "v1", kind.1);
        let mut once = v;
        if check(s, &mut once, Strictness::Warn).is_ok() {
            let mut twice = once.clone();
            let again = check(s, &mut twice, Strictness::Strict).unwrap();
            prop_assert!(again.unknown.is_empty());
            prop_assert_eq!(twice, once);
        }
    }
}
