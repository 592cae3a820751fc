//! The machine below the kubelet: a containerd of our own, supervised, and the images that it needs from the start.
//!
//! Entry points: [`Containerd::start`], [`images::import_directory`], [`teardown::remove_all`].
//!
//! Invariants: containerd, its shims and the containers outlive this process. At a restart the containerd that runs is
//! adopted and no second one is started. This crate knows nothing of pods or of the Kubernetes API.

pub mod config;
pub mod containerd;
pub mod images;
pub mod pause;
mod tar;
pub mod teardown;

pub use config::ContainerdConfig;
pub use containerd::{Containerd, Error};
