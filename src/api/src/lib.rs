//! What every room knows of Kubernetes: resources and their catalogue, object metadata, names, quantities, selectors,
//! field errors and the `Status` that every refusal becomes.
//!
//! Entry points: [`catalogue`] for the built-in resources, [`ApiError`] for refusals, [`field::Path`] for validation.
//!
//! Invariants: everything here is a pure function over plain data. This crate knows of no server, no store and no
//! transport, and it never decodes an object into a typed struct that would drop fields it does not know.

pub mod catalogue;
pub mod field;
pub mod fields;
pub mod labels;
pub mod meta;
pub mod names;
pub mod object;
pub mod quantity;
pub mod status;
pub mod taints;

pub use catalogue::{GroupVersion, Resource};
pub use meta::{ObjectMeta, OwnerReference};
pub use quantity::Quantity;
pub use status::{ApiError, Cause, Reason, Status};
