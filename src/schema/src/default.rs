//! Defaults that the schema itself carries. (Defaults that depend on other fields are the work of the strategies.)

use serde_json::{Map, Value};

use crate::check::is_zero;
use crate::node::{Omit, Schema};

/// Sets the members of `value` that are absent and have a default, as deep as objects reach.
pub fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => object(schema, map),
        Value::Array(items) => {
            if let Some(item) = schema.items.as_deref() {
                items.iter_mut().for_each(|v| default(item, v));
            }
        }
        _ => {}
    }
}

fn object(schema: &Schema, map: &mut Map<String, Value>) {
    for at in &schema.defaulted {
        let p = &schema.properties[usize::from(*at)];
        let absent = map.get(p.name.as_ref()).is_none_or(|v| {
            // A field that cannot be told from an empty one gets its default; so does null that is not allowed.
            (v.is_null() && !p.node.nullable) || (p.omit == Omit::Zero && is_zero(v))
        });
        if absent && let Some(d) = &p.default {
            map.insert(p.name.clone().into_owned(), d.clone());
        }
    }
    // Members and properties are both sorted.
    let mut properties = schema.properties.iter().peekable();
    for (key, v) in map.iter_mut() {
        if !v.is_object() && !v.is_array() {
            continue;
        }
        while properties
            .next_if(|p| p.name.as_ref() < key.as_str())
            .is_some()
        {}
        match (
            properties.next_if(|p| p.name.as_ref() == key.as_str()),
            schema.additional.as_deref(),
        ) {
            (Some(p), _) => default(&p.node, v),
            (None, Some(member)) => default(member, v),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::Schemas;

    #[test]
    fn defaults_reach_into_lists() {
        let schema = Schemas::builtin().get("", "v1", "Pod").unwrap();
        let mut pod = json!({"spec": {"containers": [
            {"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]},
            {"name": "b", "livenessProbe": {"grpc": {"port": 1}}},
        ]}});
        default(schema, &mut pod);
        assert_eq!(
            pod["spec"]["containers"],
            json!([
                {"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]},
                {"name": "b", "livenessProbe": {"grpc": {"port": 1, "service": ""}}},
            ])
        );
        let once = pod.clone();
        default(schema, &mut pod);
        assert_eq!(pod, once);
    }
}
