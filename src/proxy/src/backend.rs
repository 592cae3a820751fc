//! What carries a plan out.

use async_trait::async_trait;
use kontiki_host::NftError;

use crate::plan::{Changes, Plan};

/// A change that was not carried out; what was programmed before still is.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The packet filter could not be changed.
    #[error("cannot {action}")]
    Nft {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: NftError,
    },
}

/// Carries plans out in the kernel.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Its name, as metrics and logs show it.
    fn name(&self) -> &'static str;

    /// Puts in place what refuses packets to unknown services. Services that are programmed already stay.
    ///
    /// # Errors
    /// The kernel refused.
    async fn prepare(&mut self) -> Result<(), BackendError>;

    /// Makes the kernel hold this plan, whatever it holds; packets see what was before or what is after.
    ///
    /// # Errors
    /// The kernel refused.
    async fn replace(&mut self, plan: &Plan) -> Result<(), BackendError>;

    /// Carries out changes of the plan that was last programmed.
    ///
    /// # Errors
    /// The kernel refused. The plan has to be replaced before it can be changed again.
    async fn change(&mut self, changes: &Changes) -> Result<(), BackendError>;

    /// Whether what was programmed is still there; others may flush the packet filter.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    async fn is_intact(&mut self) -> Result<bool, BackendError>;
}
