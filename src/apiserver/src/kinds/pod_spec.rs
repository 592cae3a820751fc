//! The spec of pods, alone and in the templates of workloads: its defaults and its checks.

pub(super) mod affinity;
pub(super) mod containers;
pub(super) mod defaults;
pub(super) mod env;
pub(super) mod probes;
pub(super) mod resources;
pub(super) mod scheduling;
pub(super) mod security;
pub(super) mod spec;
pub(super) mod volumes;

pub(super) use defaults::{default_pod_spec, default_template};
pub(super) use spec::{Rules, validate_pod_spec, validate_template};
