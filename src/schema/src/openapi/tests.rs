use kontiki_api::catalogue;

use super::*;

fn resources() -> Vec<&'static Resource> {
    catalogue::all()
        .iter()
        .filter(|r| !r.version.contains("alpha") && !r.version.contains("beta"))
        .collect()
}

fn document(name: &str) -> Value {
    let resources = resources();
    let api = Api {
        resources: &resources,
        version: "v1.36.2",
    };
    serde_json::from_slice(&api.v3(name).unwrap()).unwrap()
}

#[test]
fn every_name_has_a_document_whose_references_hold() {
    let resources = resources();
    let api = Api {
        resources: &resources,
        version: "v1.36.2",
    };
    for name in api.v3_names() {
        let v: Value = serde_json::from_slice(&api.v3(&name).unwrap()).unwrap();
        let mut references = BTreeSet::new();
        collect(&v, &mut references);
        for r in references {
            let at = r.strip_prefix("#/components/schemas/").unwrap();
            assert!(
                v["components"]["schemas"].get(at).is_some(),
                "{name}: {r} leads nowhere"
            );
        }
    }
    assert!(api.v3("apis/none.example.net/v1").is_none());
    assert!(api.v3("nothing").is_none());
}

fn collect(v: &Value, all: &mut BTreeSet<String>) {
    match v {
        Value::Object(map) => {
            // A property may have the name `$ref`, too.
            if let Some(Value::String(r)) = map.get("$ref") {
                all.insert(r.clone());
            }
            map.values().for_each(|x| collect(x, all));
        }
        Value::Array(items) => items.iter().for_each(|x| collect(x, all)),
        _ => {}
    }
}

#[test]
fn the_whole_of_version_2_hangs_together() {
    let resources = resources();
    let api = Api {
        resources: &resources,
        version: "v1.36.2",
    };
    let v: Value = serde_json::from_slice(&api.v2()).unwrap();
    let mut references = BTreeSet::new();
    collect(&v, &mut references);
    for r in references {
        let at = r.strip_prefix('#').unwrap();
        assert!(v.pointer(at).is_some(), "{r} leads nowhere");
    }
    let ports = &v["definitions"]["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        json!(["containerPort", "protocol"])
    );
}

#[test]
fn a_definition_is_as_upstreams() {
    let v = document("api/v1");
    let mut port = v["components"]["schemas"]["io.k8s.api.core.v1.ContainerPort"].clone();
    for p in port["properties"].as_object_mut().unwrap().values_mut() {
        p.as_object_mut().unwrap().remove("description");
    }
    port.as_object_mut().unwrap().remove("description");
    assert_eq!(
        port,
        json!({
            "type": "object",
            "required": ["containerPort"],
            "properties": {
                "containerPort": {"type": "integer", "format": "int32", "default": 0},
                "hostIP": {"type": "string"},
                "hostPort": {"type": "integer", "format": "int32"},
                "name": {"type": "string"},
                "protocol": {"type": "string", "default": "TCP", "enum": ["SCTP", "TCP", "UDP"]},
            },
        })
    );
    let pod = &v["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "kind": "Pod", "version": "v1"}])
    );
    assert_eq!(
        pod["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}])
    );
}

#[test]
fn a_patch_says_what_it_takes() {
    let v = document("apis/apps/v1");
    let patch = &v["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "kind": "Deployment", "version": "v1"})
    );
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "pretty",
            "dryRun",
            "fieldManager",
            "fieldValidation",
            "force"
        ]
    );
}

/// The fields of a protobuf message that are length-delimited, as kubectl's decoder would find them.
fn fields(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (field, wire) = prost::encoding::decode_key(&mut bytes).unwrap();
        let n = usize::try_from(prost::encoding::decode_varint(&mut bytes).unwrap()).unwrap();
        if wire == prost::encoding::WireType::LengthDelimited {
            let (head, tail) = bytes.split_at(n);
            all.push((field, head));
            bytes = tail;
        }
    }
    all
}

#[test]
fn the_protobuf_form_carries_the_same() {
    let resources = resources();
    let api = Api {
        resources: &resources,
        version: "v1.36.2",
    };
    let bytes = api.v2_protobuf();
    let top = fields(&bytes);
    assert_eq!(
        top.iter().map(|f| f.0).collect::<Vec<_>>(),
        [1, 2, 8, 9, 10, 12, 13]
    );
    let v: Value = serde_json::from_slice(&api.v2()).unwrap();
    let definitions = fields(top[3].1);
    assert_eq!(
        definitions.len(),
        v["definitions"].as_object().unwrap().len()
    );
    let named = |name: &str| {
        let entry = definitions
            .iter()
            .map(|d| fields(d.1))
            .find(|e| e[0].1 == name.as_bytes())
            .unwrap();
        fields(entry[1].1)
    };
    let pod = named("io.k8s.api.core.v1.Pod");
    let kind = fields(pod.iter().find(|f| f.0 == 31).unwrap().1);
    assert_eq!(kind[0].1, b"x-kubernetes-group-version-kind");
    assert_eq!(
        fields(kind[1].1)[0].1,
        b"[{\"group\":\"\",\"kind\":\"Pod\",\"version\":\"v1\"}]\n"
    );
}
