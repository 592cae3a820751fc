//! Raft: how transactions become entries, entries become durable, and durable entries become state.
//!
//! openraft decides; everything that it decides about is behind this module: the log ([`log`]), the
//! state machine ([`machine`]) and the way to other voters ([`network`]). Writers and readers meet
//! it in [`propose`] and [`reads`], and [`upkeep`] does what has to happen from time to time.

pub(crate) mod log;
pub(crate) mod log_thread;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod propose;
pub(crate) mod reads;
pub(crate) mod upkeep;

use std::sync::{Arc, OnceLock};

use openraft::impls::{BoxedErrorSource, InlineBatch, TokioRuntime, leader_id_std};
use openraft::raft::responder::Responder;
use openraft::type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::{BasicNode, OptionalSend, RaftTypeConfig};
use tokio_util::sync::CancellationToken;

use crate::command::{Answer, Command};

/// The types that our Raft is made of.
///
/// The leader id is the standard one: a term elects at most one leader, so a log id is a term and
/// an index. This is in every stored entry and cannot be changed later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Arc<Command>;
    type R = Answer;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type Membership = StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Raft = openraft::Raft<Types, machine::Machine>;

/// What is done with an entry's answer, without a task that waits for it.
pub(crate) struct Reply<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T: OptionalSend + 'static> Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// Why the store can no longer work, once it cannot: the log or the state failed to be written.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: OnceLock<String>,
    failed: CancellationToken,
}

impl Health {
    /// Remembers the first failure; later ones follow from it.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.failure.set(reason.clone()).is_ok() {
            tracing::error!(reason, "the store has failed and takes no more writes");
            self.failed.cancel();
        }
    }

    /// Returns when the store has failed.
    pub(crate) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}
