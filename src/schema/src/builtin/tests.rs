use kontiki_api::catalogue;

use super::*;

#[test]
fn every_kind_of_the_catalogue_has_a_schema() {
    for r in catalogue::all() {
        let schema = Schemas::builtin().get(r.group, r.version, r.kind);
        let schema = schema.unwrap_or_else(|| panic!("{} {} has no schema", r.group, r.kind));
        assert_eq!(schema.ty, Type::Struct);
        assert!(schema.property("apiVersion").is_some(), "{}", schema.name);
        for s in r
            .subresources
            .iter()
            .filter(|s| !s.connect && !s.version.is_empty())
        {
            assert!(
                Schemas::builtin().get(s.group, s.version, s.kind).is_some(),
                "{} {}",
                s.group,
                s.kind
            );
        }
    }
}

#[test]
fn every_definition_parses_and_is_sorted() {
    for d in Schemas::builtin().definitions() {
        let s = d.schema();
        assert!(
            s.properties.is_sorted_by(|a, b| a.name < b.name),
            "{}",
            d.name
        );
        for p in &s.properties {
            // A merge key is a field of the items.
            if let (Some(items), false) = (&p.node.items, p.patch_merge_key.is_empty()) {
                assert!(
                    items.property(&p.patch_merge_key).is_some(),
                    "{} {}",
                    d.name,
                    p.name
                );
            }
            for key in &p.node.list_map_keys {
                let items = p.node.items.as_ref().expect("a list has items");
                assert!(items.property(key).is_some(), "{} {} {key}", d.name, p.name);
            }
        }
    }
}

/// `type list_type keys strategy merge_key default` of a property, as one line.
fn line(path: &str) -> String {
    let (definition, property) = path.split_once('/').unwrap();
    let d = Schemas::builtin()
        .definition(&format!("io.k8s.{definition}"))
        .unwrap();
    let p = d.schema().property(property).unwrap();
    let (list, keys) = (p.node.list_type, p.node.list_map_keys.join(","));
    let merge = if p.patch_strategy.merge { "merge" } else { "" };
    let retain = if p.patch_strategy.retain_keys {
        "retain"
    } else {
        ""
    };
    let default = p.default.as_ref().map(Value::to_string).unwrap_or_default();
    format!(
        "{:?} {list:?} [{keys}] {merge}{retain} {} {default} {:?}",
        p.node.ty, p.patch_merge_key, p.omit
    )
}

#[test]
fn known_properties_are_what_they_are() {
    for (path, expected) in [
        (
            "api.core.v1.PodSpec/containers",
            "Array Map [name] merge name  Never",
        ),
        (
            "api.core.v1.PodSpec/volumes",
            "Array Map [name] mergeretain name  Zero",
        ),
        ("api.core.v1.PodSpec/tolerations", "Array Atomic []    Zero"),
        (
            "api.core.v1.PodSpec/restartPolicy",
            "String Unset []    Zero",
        ),
        ("api.core.v1.PodSpec/hostUsers", "Boolean Unset []    Null"),
        (
            "api.core.v1.Container/ports",
            "Array Map [containerPort,protocol] merge containerPort  Zero",
        ),
        (
            "api.core.v1.Container/env",
            "Array Map [name] merge name  Zero",
        ),
        (
            "api.core.v1.Container/resources",
            "Struct Unset []   {} Never",
        ),
        (
            "api.core.v1.ContainerPort/protocol",
            "String Unset []   \"TCP\" Zero",
        ),
        (
            "api.core.v1.ServiceSpec/ports",
            "Array Map [port,protocol] merge port  Zero",
        ),
        (
            "api.core.v1.ServicePort/targetPort",
            "IntOrString Unset []    Never",
        ),
        ("api.core.v1.Secret/data", "Map Unset []    Zero"),
        (
            "api.core.v1.PodStatus/conditions",
            "Array Map [type] merge type  Zero",
        ),
        (
            "api.apps.v1.DeploymentSpec/strategy",
            "Struct Unset [] retain  {} Never",
        ),
        (
            "api.apps.v1.DeploymentSpec/replicas",
            "Int32 Unset []    Null",
        ),
        (
            "api.resource.v1beta1.DeviceConstraint/matchAttribute",
            "String Unset []    Null",
        ),
        (
            "apimachinery.pkg.apis.meta.v1.ObjectMeta/finalizers",
            "Array Set [] merge   Zero",
        ),
        (
            "apimachinery.pkg.apis.meta.v1.ObjectMeta/ownerReferences",
            "Array Map [uid] merge uid  Zero",
        ),
        (
            "apimachinery.pkg.apis.meta.v1.ObjectMeta/creationTimestamp",
            "Time Unset []    Null",
        ),
    ] {
        assert_eq!(line(path), expected, "{path}");
    }
    let selector = Schemas::builtin()
        .definition("io.k8s.api.core.v1.ServiceSpec")
        .unwrap()
        .schema();
    assert_eq!(
        selector.property("selector").unwrap().map_type(),
        MapType::Atomic
    );
}
