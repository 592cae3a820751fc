//! Defaults that the schema itself carries. (Defaults that depend on other fields are the work of the strategies.)

use serde_json::{Map, Value};

use crate::check::is_zero;
use crate::node::{Omit, Property, Schema};

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
    for p in schema.properties.iter().filter(|p| says_something(p)) {
        let absent = map.get(p.name.as_ref()).is_none_or(|v| {
            // A field that cannot be told from an empty one gets its default; so does null that is not allowed.
            (v.is_null() && !p.node.nullable) || (p.omit == Omit::Zero && is_zero(v))
        });
        if absent && let Some(d) = &p.default {
            map.insert(p.name.clone().into_owned(), d.clone());
        }
    }
    for (key, v) in map.iter_mut() {
        if let Some(member) = schema.member(key) {
            default(member, v);
        }
    }
}

/// The zero of a field that leaves out its zero, or of one that is always there, is no default to set.
fn says_something(p: &Property) -> bool {
    p.default
        .as_ref()
        .is_some_and(|d| p.omit == Omit::Null || !is_zero(d))
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
