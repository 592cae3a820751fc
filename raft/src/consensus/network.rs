//! The way to the other voters. There are none yet: the cluster has one voter, and its Raft never
//! asks for a way to another node. Should it ever do, every call says that the node cannot be
//! reached; above all it is not taken for granted that a vote would be granted there.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory};

use super::machine::InPlace;
use super::{Types, Vote};

/// The network of a cluster with one voter.
pub(crate) struct OneVoter;

/// What stands for a node that cannot be reached.
pub(crate) struct NoWay {
    target: u64,
}

impl NoWay {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::from_string(format!(
            "there is no way to node {}: this cluster has one voter",
            self.target
        ))
    }
}

impl RaftNetworkFactory<Types> for OneVoter {
    type Network = NoWay;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> NoWay {
        NoWay { target }
    }
}

impl RaftNetworkV2<Types> for NoWay {
    type SnapshotData = InPlace;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: SnapshotOf<Types, InPlace>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }

    async fn transfer_leader(
        &mut self,
        _req: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nobody_grants_a_vote_on_behalf_of_a_node_that_is_not_there() {
        let mut network = OneVoter.new_client(2, &BasicNode::default()).await;
        let vote = <Vote as openraft::vote::RaftVote>::from_leader_id(
            openraft::impls::leader_id_std::LeaderId {
                term: 1,
                voted_for: 1,
            },
            false,
        );
        let option = || RPCOption::new(Duration::from_secs(1));
        let rpc = || VoteRequest::new(vote, None);
        assert!(network.pre_vote(rpc(), option()).await.is_err());
        assert!(network.vote(rpc(), option()).await.is_err());
        let transfer = TransferLeaderRequest::new(vote, 2, None);
        assert!(network.transfer_leader(transfer, option()).await.is_err());
    }
}
