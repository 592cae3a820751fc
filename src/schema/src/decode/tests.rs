use serde_json::json;

use super::*;

const POD: Expected<'static> = Expected {
    group: "",
    version: "v1",
    kind: "Pod",
};

fn pod(body: &str, strictness: Strictness) -> Result<Decoded, String> {
    let schema = Schemas::builtin().get("", "v1", "Pod").unwrap();
    decode(body.as_bytes(), schema, POD, strictness).map_err(|e| e.to_string())
}

#[test]
fn the_kind_is_optional_but_has_to_fit() {
    let d = pod(r#"{"metadata":{"name":"x"}}"#, Strictness::Strict).unwrap();
    assert_eq!(d.value["apiVersion"], "v1");
    assert_eq!(d.value["kind"], "Pod");
    for (body, message) in [
        (
            r#"{"kind":"Other"}"#,
            r#"Other in version "v1" cannot be handled as a Pod: no kind "Other" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            r#"{"apiVersion":"example.com/v9"}"#,
            r#"Pod in version "v9" cannot be handled as a Pod: no kind "Pod" is registered for version "example.com/v9" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            r#"{"metadata":[]}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta"#,
        ),
    ] {
        assert_eq!(pod(body, Strictness::Strict).unwrap_err(), message);
    }
    let hpa = Expected {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
    };
    let schema = Schemas::builtin()
        .get("autoscaling", "v2", "HorizontalPodAutoscaler")
        .unwrap();
    let e = decode(
        br#"{"apiVersion":"autoscaling/v1"}"#,
        schema,
        hpa,
        Strictness::Strict,
    )
    .unwrap_err();
    assert_eq!(
        e.to_string(),
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    );
}

#[test]
fn strictness_decides_what_becomes_of_the_unknown() {
    let body = r#"{"metadata":{"name":"x","nope":1,"name":"y"},"nope":2}"#;
    assert_eq!(
        pod(body, Strictness::Strict).unwrap_err(),
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"metadata.nope\", \
         unknown field \"nope\", duplicate field \"metadata.name\""
    );
    let warned = pod(body, Strictness::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 3);
    assert_eq!(warned.value["metadata"], json!({"name": "y"}));
    assert!(pod(body, Strictness::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn what_is_no_object_is_unrecognised() {
    assert_eq!(
        pod("[1]", Strictness::Strict).unwrap_err(),
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
         json: cannot unmarshal array into Go value of type struct { APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b315d)"
    );
    assert_eq!(
        pod("", Strictness::Strict).unwrap_err(),
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
         unexpected end of JSON input (<empty>)"
    );
    let long = format!("{{\"a\":\"{}\"", "x".repeat(40));
    assert!(
        pod(&long, Strictness::Strict)
            .unwrap_err()
            .ends_with("({\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxx ...)")
    );
}
