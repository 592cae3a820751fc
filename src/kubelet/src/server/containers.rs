//! Pods and containers, found in the runtime by their labels.

use std::collections::HashMap;

use kontiki_api::{ApiError, Reason};

use super::respond::runtime_error;
use crate::cri::{Runtime, v1 as cri};
use crate::sandbox::{CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    /// Given only by clients that know it.
    pub(super) uid: Option<&'a str>,
    /// Empty where a pod is meant.
    pub(super) container: &'a str,
}

impl Place<'_> {
    fn labels(&self) -> HashMap<String, String> {
        let mut labels = vec![
            (POD_NAMESPACE_LABEL, self.namespace),
            (POD_NAME_LABEL, self.pod),
        ];
        labels.extend(self.uid.map(|u| (POD_UID_LABEL, u)));
        if !self.container.is_empty() {
            labels.push((CONTAINER_NAME_LABEL, self.container));
        }
        labels
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    /// The containers of the name, the newest first. A pod that took the place of another counts before it.
    pub(super) async fn containers(
        &self,
        runtime: &Runtime,
    ) -> Result<Vec<cri::Container>, ApiError> {
        let filter = cri::ContainerFilter {
            label_selector: self.labels(),
            ..cri::ContainerFilter::default()
        };
        let answer = runtime
            .list_containers(cri::ListContainersRequest {
                filter: Some(filter),
            })
            .await;
        let mut found = answer.map_err(|e| runtime_error(&e))?.containers;
        found.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(found)
    }

    /// The container in which something is to be run.
    pub(super) async fn container(&self, runtime: &Runtime) -> Result<String, ApiError> {
        let newest = self.containers(runtime).await?.into_iter().next();
        let missing = || {
            ApiError::new(
                Reason::NotFound,
                format!("container not found ({:?})", self.container),
            )
        };
        newest.map(|c| c.id).ok_or_else(missing)
    }

    /// The pod's newest sandbox that is up.
    pub(super) async fn sandbox(&self, runtime: &Runtime) -> Result<String, ApiError> {
        let filter = cri::PodSandboxFilter {
            label_selector: self.labels(),
            ..cri::PodSandboxFilter::default()
        };
        let answer = runtime
            .list_pod_sandbox(cri::ListPodSandboxRequest {
                filter: Some(filter),
            })
            .await;
        let items = answer.map_err(|e| runtime_error(&e))?.items;
        let ready = items
            .into_iter()
            .filter(|s| s.state() == cri::PodSandboxState::SandboxReady);
        let missing = || ApiError::new(Reason::NotFound, format!("pod not found ({:?})", self.pod));
        ready
            .max_by_key(|s| s.created_at)
            .map(|s| s.id)
            .ok_or_else(missing)
    }
}
