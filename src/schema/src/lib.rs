//! Schemas of every kind: what a body has to look like, what upstream would store of it, how it is patched, and the
//! OpenAPI documents that tell clients so.
//!
//! Entry points: [`Schemas::builtin`] for the schemas of the built-in kinds, [`decode()`] for a body that came in (or
//! [`json::parse`] and [`check()`] for its parts), [`default()`] for the defaults that schemas carry, [`patch`] for
//! patches, [`managed`] for field ownership and apply, [`protobuf`] for bodies in protobuf, [`openapi::Api`] for the
//! documents.
//!
//! Invariants: objects are `serde_json::Value`s whose members are sorted, and after [`check()`] one object has one form.
//! Nothing here panics on what a client sends, whatever its depth or size, or does I/O. This crate knows of no store, no
//! request and no user, and nothing of what a kind means beyond its schema.

pub mod builtin;
pub mod check;
pub mod decode;
mod default;
pub mod json;
pub mod managed;
pub mod node;
pub mod openapi;
pub mod patch;
pub mod protobuf;
mod scalar;
mod shape;

pub use builtin::{Definition, Schemas, definition_name};
pub use check::{Checked, DecodeError, Strictness, check};
pub use decode::{Decoded, Expected, decode, decode_value};
pub use default::default;
pub use node::{ListType, MapType, Node, Omit, PatchStrategy, Property, Schema, Type};
