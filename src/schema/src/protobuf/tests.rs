use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The object as it is after a way over the wire and the check that every body goes through, which takes out empty values.
fn round_trip(object: &Value) -> Value {
    let text = |name: &str| object[name].as_str().unwrap();
    let body = encode(text("apiVersion"), text("kind"), object).unwrap();
    let decoded = decode(&body).unwrap();
    assert_eq!(decoded.api_version, text("apiVersion"));
    assert_eq!(decoded.kind, text("kind"));
    checked(decoded.object)
}

fn checked(mut object: Value) -> Value {
    let (group, version) = {
        let api_version = object["apiVersion"].as_str().unwrap();
        api_version.split_once('/').map_or(("", api_version), |x| x)
    };
    let kind = object["kind"].as_str().unwrap();
    let schemas = crate::Schemas::builtin();
    let schema = schemas
        .get(group, version, kind)
        .or_else(|| schemas.get("meta.k8s.io", "v1", kind));
    if let Some(schema) = schema {
        crate::check(schema, &mut object, crate::Strictness::Strict).unwrap();
    }
    object
}

/// Metadata with a name, as Go's encoder has it: what is no pointer is written, and no time is an empty message.
const META: &[u8] = b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";

#[test]
fn golden_bytes() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let body = encode("v1", "ConfigMap", &object).unwrap();
    let mut expected = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11".to_vec();
    expected.extend_from_slice(META);
    expected.extend_from_slice(b"\x12\x06\x0a\x01k\x12\x01v\x1a\x00\x22\x00");
    assert_eq!(body, expected);
    let metadata = json!({"name": "a", "generateName": "", "namespace": "", "selfLink": "", "uid": "",
        "resourceVersion": "", "generation": 0});
    let decoded = decode(&body).unwrap().object;
    assert_eq!(
        decoded,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}})
    );
    assert_eq!(checked(decoded), object);
}

#[test]
fn a_pod_with_what_is_special() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a": "b"}, "generation": -1,
            "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}}}}],
        },
        "spec": {
            "containers": [{
                "name": "c", "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "x", "defaultMode": 420}}],
            "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c"}],
            "nodeSelector": {}, "hostNetwork": true, "securityContext": {"supplementalGroups": [1, 2]},
        },
        "status": {},
    });
    let mut expected = pod.clone();
    // An empty map is nothing on the wire.
    expected["spec"]
        .as_object_mut()
        .unwrap()
        .remove("nodeSelector");
    assert_eq!(round_trip(&pod), checked(expected));
}

#[test]
fn other_kinds_and_lists() {
    for object in [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"k": "AAECAw=="}, "type": "Opaque"}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 15}}),
        json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {"resourceVersion": "7"},
            "items": [{"metadata": {"name": "d"}, "spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}]}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
            "details": {"name": "x", "causes": [{"field": "f"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {},
            "spec": {"rules": [{"host": "h", "http": {"paths": [{"path": "/"}]}}]}}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "status": {"user": {"extra": {"k": ["a", "b"]}}}}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {}, "data": {"any": [1, {"x": null}]}, "revision": 3}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {},
            "webhooks": [{"name": "w", "rules": [{"operations": ["CREATE"], "apiGroups": [""], "resources": ["pods"]}]}]}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "$ref": "r", "type": "object", "maximum": 1.5, "default": {"a": [1, null]}, "enum": [1, "x"],
            "x-kubernetes-preserve-unknown-fields": true, "additionalProperties": {"type": "string"},
            "properties": {"l": {"items": {"type": "string"}, "additionalProperties": false}},
        }}}]}}),
    ] {
        assert_eq!(round_trip(&object), checked(object));
    }
}

#[test]
fn a_kind_that_no_definition_describes() {
    let object = json!({"metadata": {}, "items": [{"metadata": {"name": "a"}}]});
    let body = encode("meta.k8s.io/v1", "PartialObjectMetadataList", &object).unwrap();
    assert!(
        body.windows(META.len()).any(|w| w == META),
        "metadata is written as Go does in it, too"
    );
    assert_eq!(
        decode(&body).unwrap().object["items"][0]["metadata"]["name"],
        "a"
    );
}

#[test]
fn errors() {
    let error = encode("example.com/v1", "Thing", &json!({})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "object Thing of example.com/v1 does not implement the protobuf marshalling interface"
    );
    let error = encode("v1", "Pod", &json!({"spec": {"hostNetwork": "yes"}})).unwrap_err();
    assert_eq!(
        error,
        ProtobufError::Unfit {
            field: "hostNetwork".into(),
            wanted: "a boolean"
        }
    );
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
    assert_eq!(
        decode(b"k8s\0\x0a\x7f"),
        Err(ProtobufError::Malformed("unexpected EOF"))
    );
    let mut many = b"k8s\0\x0a\x0d\x0a\x02v1\x12\x07PodList\x12".to_vec();
    let items = [0x12u8, 0].repeat(VALUES_MAX + 1);
    wire::put_varint(&mut many, items.len() as u64);
    many.extend_from_slice(&items);
    assert_eq!(
        decode(&many),
        Err(ProtobufError::TooMuch("the number of values"))
    );
}

#[test]
fn depth_is_limited() {
    let mut schema = json!({});
    for _ in 0..120 {
        schema = json!({"not": schema});
    }
    let object = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
    let error = encode(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &object,
    )
    .unwrap_err();
    assert_eq!(error, ProtobufError::TooMuch("the depth of an object"));

    // Bodies within bodies, by way of raw objects.
    let mut body = encode("v1", "ConfigMap", &json!({})).unwrap();
    for _ in 0..120 {
        let mut raw = Vec::new();
        put_bytes(&mut raw, 1, &body);
        let mut revision = Vec::new();
        put_bytes(&mut revision, 2, &raw);
        body = b"k8s\0\x0a\x1d\x0a\x07apps/v1\x12\x12ControllerRevision".to_vec();
        put_bytes(&mut body, 2, &revision);
    }
    assert_eq!(
        decode(&body),
        Err(ProtobufError::TooMuch("the depth of a message"))
    );
}

#[test]
fn watch_frames() {
    let object = encode("v1", "ConfigMap", &json!({"metadata": {"name": "a"}})).unwrap();
    let frame = watch_frame("ADDED", &object);
    let expected = WatchFrame {
        event_type: "ADDED".into(),
        object: &object,
        length: frame.len(),
    };
    assert_eq!(read_watch_frame(&frame), Ok(Some(expected)));
    for cut in 0..frame.len() {
        assert_eq!(read_watch_frame(&frame[..cut]), Ok(None));
    }
}

/// Every message of the table can be read from nothing and names only what is there.
#[test]
fn the_table_is_whole() {
    for definition in crate::Schemas::builtin().definitions() {
        let Some(message) = table::message(definition.name) else {
            continue;
        };
        let mut members = Map::new();
        read::message(message, &[], &mut members, &mut read::Budget::new(), 0).unwrap();
        assert!(members.is_empty());
        for field in &message.fields {
            if let Kind::Message(place) = field.kind {
                table::at(place);
            }
            let known = definition.schema().property(field.name).is_some();
            let open =
                definition.schema().properties.is_empty() || field.shape == table::Shape::Inline;
            assert!(known || open, "{}: {}", definition.name, field.name);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in "Pod|Service|ConfigMap|CustomResourceDefinition|Lease") {
        let _ = decode(&bytes);
        let _ = read_watch_frame(&bytes);
        let mut type_meta = Vec::new();
        put_bytes(&mut type_meta, 1, b"v1");
        put_bytes(&mut type_meta, 2, kind.as_bytes());
        let mut body = MAGIC.to_vec();
        put_bytes(&mut body, 1, &type_meta);
        put_bytes(&mut body, 2, &bytes);
        let _ = decode(&body);
    }

    /// A byte that is changed makes another object or an error.
    #[test]
    fn no_damage_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}]}});
        let mut body = encode("v1", "Pod", &pod).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode(&body);
    }
}
