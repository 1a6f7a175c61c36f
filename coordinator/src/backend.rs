//! What the gRPC API and the HTTP server are answered from.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fedledger_ledger::{
    Digest, PublicKey,
    consensus::Role,
    log::{read_leaf, read_node},
    merkle::{self, ProofError},
    replica::SubmitError as CoreError,
    storage::LogStorage,
};
use fedledger_proto::{
    api::{NodeStatus, PeerStatus, RaftRole},
    endpoint::Endpoint,
};
use tokio::sync::watch;

use crate::{
    api::{Backend, Blob, Caller, ReadError, SubmitError, SubmitOutcome},
    blobs::BlobStore,
    checkpoints::{CheckpointFailure, Checkpoints},
    http::{Condition, TileBackend},
    replica::{Handle, Peers, SubmitFailure},
    shared::SharedView,
};

/// The replica behind the API.
pub struct ReplicaBackend {
    /// Name of the node.
    pub node: String,
    /// The genesis file.
    pub genesis: Bytes,
    /// To the replica's task.
    pub handle: Handle,
    /// Heads of the log.
    pub checkpoints: Checkpoints,
    /// Where files are kept.
    pub blobs: BlobStore,
    /// Who is who.
    pub view: SharedView,
    /// The other replicas.
    pub peers: Peers,
    /// To the peers.
    pub endpoint: Endpoint,
}

impl Backend for ReplicaBackend {
    async fn submit(&self, envelope: Bytes) -> Result<SubmitOutcome, SubmitError> {
        let submitted = self.handle.submit(envelope.to_vec()).await.map_err(|failure| match failure {
            SubmitFailure::Refused(CoreError::Refused(refusal)) => SubmitError::Refusal(refusal),
            SubmitFailure::Refused(CoreError::Busy | CoreError::Seal | CoreError::Propose(_)) => SubmitError::Busy,
            SubmitFailure::NoLeader => SubmitError::NoLeader,
            SubmitFailure::TimedOut => SubmitError::TimedOut,
            SubmitFailure::Storage(_) | SubmitFailure::Stopping => SubmitError::Stopping,
        })?;
        Ok(SubmitOutcome { index: submitted.index, leaf: submitted.leaf.into(), reason: submitted.reason })
    }

    async fn status(&self) -> Result<NodeStatus, ReadError> {
        let asked = self.handle.query(|replica| {
            let consortium = replica.log().machine().consortium().consortium.clone();
            let log = replica.log();
            let threshold = log.sealed().epoch.threshold;
            let nodes = log.sealed().epoch.replicas.keys();
            let cosigned: BTreeMap<_, _> =
                nodes.filter_map(|node| Some((node.clone(), replica.finality().cosigned_size(node)?))).collect();
            (
                replica.status(),
                consortium,
                threshold,
                *log.chain(),
                log.size(),
                log.root(),
                replica.checkpoint().to_owned(),
                cosigned,
            )
        });
        let (status, consortium, finality_threshold, chain, log_size, root, checkpoint, cosigned) =
            asked.await.ok_or(ReadError::Stopping)?;
        let connected = self.endpoint.connected().borrow().clone();
        let name = |key: &PublicKey| {
            let view = self.view.read();
            view.members.by_transport_key(key).map(|(_, node)| node.name.clone())
        };
        let others = self.peers.iter().filter(|(id, _)| *id != status.id);
        let peers = others.filter_map(|(id, key)| {
            let matched_index = status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.matched);
            let connected = connected.contains(&key);
            let node = name(&key)?;
            let cosigned_size = cosigned.get(&node).copied();
            Some(PeerStatus { node, connected, matched_index, cosigned_size })
        });
        Ok(NodeStatus {
            node: self.node.clone(),
            software: concat!("fedledger ", env!("CARGO_PKG_VERSION")).to_owned(),
            consortium,
            chain,
            role: match status.role {
                Role::Follower => RaftRole::Follower,
                Role::PreCandidate | Role::Candidate => RaftRole::Candidate,
                Role::Leader => RaftRole::Leader,
            },
            leader: status.leader.and_then(|leader| name(&self.peers.key(leader)?)),
            term: status.term,
            committed_index: status.commit,
            applied_index: status.applied,
            last_index: status.last,
            log_size,
            root,
            final_size: self.handle.finalized().borrow().final_size,
            finality_threshold,
            checkpoint: Some(checkpoint),
            peers: peers.collect(),
        })
    }

    async fn leaf(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        if index >= *self.handle.log_size().borrow() {
            return Ok(None);
        }
        Ok(Some(read_leaf(&**self.handle.storage(), index)?.into()))
    }

    fn size_changes(&self) -> watch::Receiver<u64> {
        self.handle.log_size()
    }

    fn genesis(&self) -> Bytes {
        self.genesis.clone()
    }

    async fn checkpoint(&self) -> Result<Option<String>, ReadError> {
        let latest = self.checkpoints.latest(None).await.map_err(|failure| match failure {
            CheckpointFailure::Storage(error) => ReadError::Storage(error),
            CheckpointFailure::Stopping | CheckpointFailure::Offer(_) | CheckpointFailure::Contradicts { .. } => {
                ReadError::Stopping
            }
        })?;
        Ok(latest.map(|latest| latest.note))
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ReadError> {
        let log_size = *self.handle.log_size().borrow();
        if size > log_size || index >= size {
            return Err(ReadError::NoProof { index, size, log_size });
        }
        let storage = Arc::clone(self.handle.storage());
        merkle::inclusion_proof(index, size, |node| read_node(&*storage, node)).map_err(|error| match error {
            ProofError::Fetch(error) => ReadError::Storage(error),
            _ => ReadError::NoProof { index, size, log_size },
        })
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, ReadError> {
        Ok(self.blobs.has(digest))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, ReadError> {
        let Some(file) = self.blobs.open_file(digest)? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some(Blob { size, reader: Box::pin(tokio::fs::File::from_std(file)) }))
    }

    fn member_of_api_key(&self, key: &PublicKey) -> Option<Caller> {
        let view = self.view.read();
        let member = view.members.by_api_key(key)?;
        Some(Caller { member: member.id.clone(), roles: member.roles.clone() })
    }

    fn is_raw_update(&self, digest: &Digest) -> bool {
        !self.view.read().is_public(digest)
    }
}

impl TileBackend for ReplicaBackend {
    async fn head(&self) -> Result<Option<String>, ReadError> {
        self.checkpoint().await
    }

    fn storage(&self) -> Arc<dyn LogStorage> {
        Arc::clone(self.handle.storage())
    }

    fn condition(&self) -> Condition {
        let status = self.handle.status();
        // The task holds the other end.
        if status.has_changed().is_err() {
            return Condition::Stopped;
        }
        if status.borrow().leader.is_some() { Condition::Ready } else { Condition::Leaderless }
    }
}
