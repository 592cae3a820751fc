//! What merging has to know of a schema: how maps and lists are composed, and by which keys.

use serde_json::Value;

pub(crate) use crate::node::ListType;
use crate::node::{MapType, Omit, Property, Schema, Type};

/// A node of a schema together with what the property that led to it says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    schema: &'a Schema,
    property: Option<&'a Property>,
}

impl<'a> Shape<'a> {
    pub(crate) fn root(schema: &'a Schema) -> Self {
        Shape {
            schema,
            property: None,
        }
    }

    /// The declared property `name` of an object.
    pub(crate) fn declared(self, name: &str) -> Option<Self> {
        self.schema.property(name).map(|p| Shape {
            schema: &p.node,
            property: Some(p),
        })
    }

    /// The member `name` of an object, be it declared or one of free keys.
    pub(crate) fn member(self, name: &str) -> Option<Self> {
        self.declared(name)
            .or_else(|| self.schema.additional.as_deref().map(Shape::root))
    }

    pub(crate) fn items(self) -> Option<Self> {
        self.schema.items.as_deref().map(Shape::root)
    }

    pub(crate) fn list_type(self) -> ListType {
        self.schema.list_type
    }

    /// The properties that tell apart the items of a list of type map.
    pub(crate) fn map_keys(self) -> impl Iterator<Item = &'a str> {
        self.schema.list_map_keys.iter().map(AsRef::as_ref)
    }

    /// Whether an object is one value.
    pub(crate) fn is_atomic_map(self) -> bool {
        let map_type = self
            .property
            .map_or(self.schema.map_type, Property::map_type);
        // Of what has any form there is no schema by which parts of it could be told apart.
        map_type == MapType::Atomic
            || matches!(self.ty(), Type::RawObject | Type::Json | Type::PropsOr)
    }

    pub(crate) fn ty(self) -> Type {
        self.schema.ty
    }

    /// Whether it is a list or an object whose parts count on their own.
    pub(crate) fn is_composed(self) -> bool {
        match self.schema.ty {
            Type::Array => matches!(self.list_type(), ListType::Set | ListType::Map),
            Type::Struct | Type::Map => !self.is_atomic_map(),
            _ => false,
        }
    }

    /// Whether a strategic merge patch merges this list instead of replacing it.
    pub(crate) fn merges(self) -> bool {
        self.property.is_some_and(|p| p.patch_strategy.merge)
    }

    /// Whether a strategic merge patch replaces this map as a whole.
    pub(crate) fn replaces(self) -> bool {
        self.property.is_some_and(|p| p.patch_strategy.replace)
    }

    /// The property that tells apart the items of a list in a strategic merge patch.
    pub(crate) fn merge_key(self) -> Option<&'a str> {
        self.property
            .map(|p| p.patch_merge_key.as_ref())
            .filter(|k| !k.is_empty())
    }

    pub(crate) fn default_value(self) -> Option<&'a Value> {
        self.property.and_then(|p| p.default.as_ref())
    }

    /// Whether members that are not declared may stand in this object.
    pub(crate) fn keeps_unknown(self) -> bool {
        self.schema.preserve_unknown
    }

    /// Whether null is a value here.
    pub(crate) fn is_nullable(self) -> bool {
        self.schema.nullable || matches!(self.schema.ty, Type::Any | Type::Json | Type::RawObject)
    }

    /// The properties that are written even when they are empty, with what then stands there.
    pub(crate) fn always_there(self) -> impl Iterator<Item = (&'a str, Shape<'a>, &'a Value)> {
        let all = self
            .schema
            .properties
            .iter()
            .filter(|p| p.omit == Omit::Never);
        all.map(|p| {
            (
                p.name.as_ref(),
                Shape {
                    schema: &p.node,
                    property: Some(p),
                },
                p.empty.as_ref().unwrap_or(&Value::Null),
            )
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::node::{Node, PatchStrategy};

    /// The schema that an OpenAPI document describes, with nothing to refer to.
    pub(crate) fn schema(doc: &Value) -> Schema {
        let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
        let map_type = if text("x-kubernetes-map-type") == "atomic" {
            MapType::Atomic
        } else {
            MapType::Unset
        };
        let list_type = match text("x-kubernetes-list-type").as_str() {
            "set" => ListType::Set,
            "map" => ListType::Map,
            "atomic" => ListType::Atomic,
            _ => ListType::Unset,
        };
        let keys = doc["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten();
        let node = |name: &str| doc.get(name).map(|d| Node::from(schema(d)));
        let ty = match text("type").as_str() {
            "string" => Type::String,
            "integer" => Type::Int32,
            _ if doc.get("properties").is_some() => Type::Struct,
            _ if doc.get("additionalProperties").is_some() => Type::Map,
            _ if list_type != ListType::Unset => Type::Array,
            _ => Type::Any,
        };
        let mut properties: Vec<Property> = doc["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, doc)| property(name, doc))
            .collect();
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        Schema {
            ty,
            properties,
            additional: node("additionalProperties"),
            items: node("items"),
            list_type,
            list_map_keys: keys
                .map(|k| k.as_str().unwrap().to_owned().into())
                .collect(),
            map_type,
            ..Schema::default()
        }
    }

    fn property(name: &str, doc: &Value) -> Property {
        let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
        let strategy = text("x-kubernetes-patch-strategy");
        let has = |s: &str| strategy.split(',').any(|x| x == s);
        let always = doc.get("x-always");
        Property {
            name: name.to_owned().into(),
            node: schema(doc).into(),
            required: None,
            omit: if always.is_some() {
                Omit::Never
            } else {
                Omit::Zero
            },
            empty: always.cloned(),
            default: doc.get("default").cloned(),
            values: Vec::new(),
            map_type: MapType::Unset,
            patch_strategy: PatchStrategy {
                merge: has("merge"),
                retain_keys: has("retainKeys"),
                replace: has("replace"),
            },
            patch_merge_key: text("x-kubernetes-patch-merge-key").into(),
            description: "".into(),
        }
    }

    /// A schema with one list and map of each kind, in the form of a pod template.
    pub(crate) fn workload() -> Schema {
        let string = || serde_json::json!({"type": "string"});
        let strings =
            || serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}});
        let env = serde_json::json!({
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
            "items": {"properties": {"name": string(), "value": string()}},
        });
        let ports = serde_json::json!({
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "port",
            "items": {"properties": {
                "name": string(), "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"},
            }},
        });
        let containers = serde_json::json!({
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
            "items": {"properties": {
                "name": string(), "image": string(), "env": env, "ports": ports,
                "args": {"x-kubernetes-list-type": "atomic", "items": string()},
            }},
        });
        let volumes = serde_json::json!({
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge,retainKeys", "x-kubernetes-patch-merge-key": "name",
            "items": {"properties": {
                "name": string(), "emptyDir": {"properties": {"medium": string()}},
                "hostPath": {"properties": {"path": string()}},
            }},
        });
        schema(&serde_json::json!({"properties": {
            "apiVersion": string(), "kind": string(),
            "metadata": {"x-always": {}, "properties": {
                "name": string(), "namespace": string(), "uid": string(), "resourceVersion": string(),
                "creationTimestamp": string(), "managedFields": {"x-kubernetes-list-type": "atomic"},
                "labels": strings(), "annotations": strings(),
                "finalizers": {
                    "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge", "items": string(),
                },
            }},
            "spec": {"x-always": {}, "properties": {
                "replicas": {"type": "integer"}, "containers": containers, "volumes": volumes,
                "nodeSelector": {"type": "object", "additionalProperties": string(), "x-kubernetes-map-type": "atomic"},
                "tolerations": {"x-kubernetes-list-type": "atomic", "items": {"properties": {"key": string()}}},
                "strategy": {
                    "x-always": {},
                    "x-kubernetes-patch-strategy": "retainKeys",
                    "properties": {"type": string(), "rollingUpdate": {"properties": {"maxSurge": string()}}},
                },
            }},
            "status": {"x-always": {}, "properties": {"replicas": {"type": "integer"}}},
            "data": strings(),
        }}))
    }
}
