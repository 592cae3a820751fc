//! The schema of a value: one representation for built-in kinds (made at build time) and custom ones (owned trees).

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use crate::builtin::Definition;
use crate::check::is_zero;

/// A word that is compiled in, or owned where it came with a custom resource.
pub type Text = Cow<'static, str>;

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Anything, left as it is.
    #[default]
    Any,
    /// An object with named properties.
    Struct,
    /// An object whose members are all of one schema.
    Map,
    /// A list.
    Array,
    /// A string.
    String,
    /// Base64 text.
    Bytes,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `metav1.Time`: RFC 3339 to the second, in UTC.
    Time,
    /// `metav1.MicroTime`: RFC 3339 to the microsecond, in UTC.
    MicroTime,
    /// `resource.Quantity`, in canonical form.
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// An object of any form (`RawExtension`, `FieldsV1`).
    RawObject,
    /// Any JSON, null included (`apiextensions.v1.JSON`).
    Json,
    /// A JSON schema, a list of them or of strings, or a boolean (`JSONSchemaPropsOr…`).
    PropsOr,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said, which means atomic.
    #[default]
    Unset,
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// A map by the list's keys.
    Map,
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Nothing is said, which means granular.
    #[default]
    Unset,
    /// Each member on its own.
    Granular,
    /// Replaced as a whole.
    Atomic,
}

/// `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by their merge key (or as sets), instead of replaced.
    pub merge: bool,
    /// Members that the patch does not name with `$retainKeys` are cleared.
    pub retain_keys: bool,
    /// The value is replaced as a whole.
    pub replace: bool,
}

/// How an empty field is written, after Go's encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Omit {
    /// Left out if null: a pointer, or any property of a custom resource.
    #[default]
    Null,
    /// Left out if it is the zero value of its type (`omitempty`).
    Zero,
    /// Never left out; [`Property::empty`] says what stands there.
    Never,
}

/// A schema in place, or a reference to a definition. Dereferences to the schema.
#[derive(Clone, Debug)]
pub enum Node {
    /// A schema of its own.
    Inline(Arc<Schema>),
    /// A built-in definition.
    Named(&'static Definition),
}

impl Deref for Node {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            Node::Inline(s) => s,
            Node::Named(d) => d.schema(),
        }
    }
}

impl From<Schema> for Node {
    fn from(s: Schema) -> Node {
        Node::Inline(Arc::new(s))
    }
}

/// The schema of a value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// What the value is.
    pub ty: Type,
    /// Name of the built-in definition that this is, or empty.
    pub name: Text,
    /// The properties of a struct, sorted by name.
    pub properties: Vec<Property>,
    /// Places, within the properties, of those that are never left out.
    pub never_omitted: Vec<u16>,
    /// Places, within the properties, of those that have a default worth setting.
    pub defaulted: Vec<u16>,
    /// Schema of a map's members, of what a struct has besides its properties, or of `PropsOr`'s object.
    pub additional: Option<Node>,
    /// Schema of a list's items.
    pub items: Option<Node>,
    /// How a list is merged.
    pub list_type: ListType,
    /// The keys of a list that is a map.
    pub list_map_keys: Vec<Text>,
    /// How an object is merged.
    pub map_type: MapType,
    /// Unknown members of a struct are kept (custom resources).
    pub preserve_unknown: bool,
    /// The value is a whole object with `apiVersion`, `kind` and `metadata` (custom resources).
    pub embedded_resource: bool,
    /// Null is a value (custom resources).
    pub nullable: bool,
    /// `discriminator;field=Name,…` of a union, or empty.
    pub union: Text,
    /// What it is for, in words.
    pub description: Text,
}

impl Schema {
    /// A struct with these properties, in any order.
    pub fn with_properties(self, mut properties: Vec<Property>) -> Schema {
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        let places = |which: fn(&Property) -> bool| {
            let all = (0_u16..).zip(&properties).filter(|(_, p)| which(p));
            all.map(|(i, _)| i).collect()
        };
        Schema {
            never_omitted: places(|p| p.omit == Omit::Never),
            defaulted: places(Property::sets_default),
            properties,
            ..self
        }
    }

    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties
            .binary_search_by(|p| p.name.as_ref().cmp(name))
            .ok()
            .map(|i| &self.properties[i])
    }

    /// The schema of the member of this name: a property's, or that of a map's members.
    pub fn member(&self, name: &str) -> Option<&Schema> {
        match self.property(name) {
            Some(p) => Some(&p.node),
            None => self.additional.as_deref(),
        }
    }
}

/// One property of a struct.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name, as in JSON.
    pub name: Text,
    /// Its schema.
    pub node: Node,
    /// Its place among the required properties, if it is one.
    pub required: Option<u16>,
    /// How it is written when it is empty.
    pub omit: Omit,
    /// What is written if it is empty and never left out.
    pub empty: Option<Value>,
    /// Its default.
    pub default: Option<Value>,
    /// The values that are possible (of its items, if it is a list; of its members, if it is a map).
    pub values: Vec<Text>,
    /// Overrides the map type of its schema.
    pub map_type: MapType,
    /// How a strategic merge patch treats it.
    pub patch_strategy: PatchStrategy,
    /// The key by which a strategic merge patch merges its items, or empty.
    pub patch_merge_key: Text,
    /// What it is for, in words.
    pub description: Text,
}

impl Property {
    /// Whether a default is worth setting: the zero of a field that leaves out its zero, or of one that is always
    /// there, is not.
    fn sets_default(&self) -> bool {
        self.default
            .as_ref()
            .is_some_and(|d| self.omit == Omit::Null || !is_zero(d))
    }

    /// How the object at this property is merged: its own word, or that of its schema.
    pub fn map_type(&self) -> MapType {
        if self.map_type == MapType::Unset {
            self.node.map_type
        } else {
            self.map_type
        }
    }
}
