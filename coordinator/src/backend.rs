//! What the gRPC API and the HTTP server are answered from.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fedledger_federation::{Federation, member::MemberId};
use fedledger_ledger::{
    Digest, PublicKey,
    checkpoint::Checkpoint,
    consensus::{Role, Status},
    epoch::{Epoch, EpochLink},
    log::{read_epochs, read_leaf, read_node},
    merkle::{self, ProofError},
    note::SignedNote,
    replica::{Replica, SubmitError as CoreError},
    storage::{LogStorage, notes::read_note},
};
use fedledger_proto::{
    api::{HeadAnswer, HeadId, Level, NodeStatus, PeerStatus, RaftRole, SealStatus, limits::PLANS_MAX},
    endpoint::Endpoint,
};
use tokio::sync::watch;

use crate::{
    api::{Backend, Blob, Caller, ReadError, Recorded, StateAnswer, SubmitError, SubmitOutcome},
    blobs::BlobStore,
    checkpoints::{CheckpointFailure, Checkpoints, Latest},
    http::{Condition, TileBackend},
    intake::{Intake, Taken},
    peers::Peers,
    proofs,
    replica::{Finalized, Handle, LEVEL_TIMEOUT, SubmitFailure, Submitted},
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
    /// Takes transactions whose authors do not wait.
    pub intake: Intake,
    /// Where files are kept.
    pub blobs: BlobStore,
    /// Who is who.
    pub view: SharedView,
    /// The other replicas.
    pub peers: Peers,
    /// To the peers.
    pub endpoint: Endpoint,
}

/// What the replica's task knows for a status.
struct Standing {
    status: Status,
    consortium: String,
    chain: Digest,
    size: u64,
    root: Digest,
    checkpoint: String,
    epoch: Epoch,
    seal: Option<SealStatus>,
    cosigned_size: u64,
    /// Size of the largest head that each replica has co-signed.
    cosigned: BTreeMap<String, u64>,
}

impl Standing {
    fn of(replica: &Replica<Federation>) -> Self {
        let log = replica.log();
        let sealed = log.sealed();
        let nodes = sealed.epoch.replicas.keys();
        let cosigned = nodes.filter_map(|node| Some((node.clone(), replica.finality().cosigned_size(node)?))).collect();
        let seal = SealStatus { number: sealed.number, index: sealed.index, time_ms: sealed.time_ms };
        Self {
            status: replica.status(),
            consortium: log.machine().consortium().consortium.clone(),
            chain: *log.chain(),
            size: log.size(),
            root: log.root(),
            checkpoint: replica.checkpoint().to_owned(),
            epoch: sealed.epoch.clone(),
            seal: (sealed.number > 0).then_some(seal),
            cosigned_size: replica.cosigned().size,
            cosigned,
        }
    }
}

impl ReplicaBackend {
    /// The trusted time of the final head on the disk, which may be older than this process and its epoch.
    fn stored_time_s(&self) -> Result<Option<u64>, ReadError> {
        let storage = &**self.handle.storage();
        let Some(note) = read_note(storage, "final")? else { return Ok(None) };
        let Some((note, head)) = parse_head(&note) else { return Ok(None) };
        // The head of the seal that puts an epoch into force belongs to the epoch before.
        let epochs = read_epochs(storage)?;
        let Some(in_force) = epochs.iter().rev().find(|in_force| in_force.size < head.size()) else { return Ok(None) };
        let vouchers = in_force.epoch.vouchers(head.origin(), &note).ok();
        Ok(vouchers.filter(|vouchers| vouchers.is_final(&in_force.epoch)).and_then(|vouchers| vouchers.time_s()))
    }
}

fn parse_head(note: &str) -> Option<(SignedNote, Checkpoint)> {
    let note = SignedNote::parse(note).ok()?;
    let head = Checkpoint::parse(note.text()).ok()?;
    Some((note, head))
}

fn submit_error(failure: SubmitFailure) -> SubmitError {
    match failure {
        SubmitFailure::Refused(CoreError::Refused(refusal)) => SubmitError::Refusal(refusal),
        SubmitFailure::Refused(CoreError::Seal) => SubmitError::Seal,
        SubmitFailure::Refused(CoreError::Busy | CoreError::Propose(_)) => SubmitError::Busy,
        SubmitFailure::NoLeader | SubmitFailure::NotLeader => SubmitError::NoLeader,
        SubmitFailure::TimedOut => SubmitError::TimedOut,
        SubmitFailure::ExpiresTooSoon { not_after_index, by_index } => {
            SubmitError::ExpiresTooSoon { not_after_index, by_index }
        }
        SubmitFailure::Storage(_) | SubmitFailure::Randomness(_) | SubmitFailure::Stopping => SubmitError::Stopping,
    }
}

impl Backend for ReplicaBackend {
    async fn submit(&self, envelope: Bytes, wait: Level, member: &MemberId) -> Result<SubmitOutcome, SubmitError> {
        if wait == Level::Accepted
            && let Taken::Promised(receipt) = self.intake.take(member, envelope.to_vec()).await.map_err(submit_error)?
        {
            return Ok(SubmitOutcome::Accepted(receipt));
        }
        let Submitted { index, leaf, reason } = self.handle.submit(envelope.to_vec()).await.map_err(submit_error)?;
        if !self.handle.reach(index, wait).await {
            return Err(SubmitError::NotFinal { index, level: wait, after: LEVEL_TIMEOUT });
        }
        let level = self.handle.finalized().borrow().level_of(index);
        Ok(SubmitOutcome::Recorded(Recorded { index, leaf: leaf.into(), reason, level }))
    }

    async fn status(&self) -> Result<NodeStatus, ReadError> {
        let asked = self.handle.query(Standing::of).await.ok_or(ReadError::Stopping)?;
        let Standing { status, consortium, chain, size, root, checkpoint, epoch, seal, cosigned_size, cosigned } =
            asked;
        let mut progress = self.handle.progress().await.ok_or(ReadError::Stopping)?;
        progress.truncate(PLANS_MAX);
        let connected = self.endpoint.connected().borrow().clone();
        let name = |key: &PublicKey| {
            let view = self.view.read();
            view.members.by_transport_key(key).map(|(_, node)| node.name.clone())
        };
        let others = self.peers.all().into_iter().filter(|(id, _)| *id != status.id);
        let peers = others.filter_map(|(id, key)| {
            let matched_index = status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.matched);
            let connected = connected.contains(&key);
            let node = name(&key)?;
            let cosigned_size = cosigned.get(&node).copied();
            Some(PeerStatus { node, connected, matched_index, cosigned_size })
        });
        let finalized = *self.handle.finalized().borrow();
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
            log_size: size,
            root,
            final_size: finalized.final_size,
            finality_threshold: epoch.threshold,
            checkpoint: Some(checkpoint),
            peers: peers.collect(),
            unanimous_size: finalized.unanimous_size,
            cosigned_size,
            epoch: epoch.number,
            seal,
            trusted_time_s: match finalized.time_s {
                Some(time_s) => Some(time_s),
                None => self.stored_time_s()?,
            },
            progress,
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

    fn finality_changes(&self) -> watch::Receiver<Finalized> {
        self.handle.finalized()
    }

    fn genesis(&self) -> Bytes {
        self.genesis.clone()
    }

    async fn checkpoint(&self, known: Option<String>) -> Result<Option<Latest>, CheckpointFailure> {
        self.checkpoints.latest(known.as_deref()).await
    }

    async fn holds(&self, known: &HeadId) -> Result<(), CheckpointFailure> {
        self.checkpoints.holds(known)
    }

    async fn head_since(&self, known: &HeadId) -> Result<HeadAnswer, CheckpointFailure> {
        self.checkpoints.since(known).await
    }

    async fn epoch_link(&self, after: u64) -> Result<Option<(u64, EpochLink)>, ReadError> {
        Ok(self.checkpoints.epoch_link(after)?)
    }

    async fn consistency_proof(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, ReadError> {
        let log_size = *self.handle.log_size().borrow();
        let proof = self.checkpoints.consistency(old_size, new_size)?;
        proof.ok_or(ReadError::NoConsistency { old_size, new_size, log_size })
    }

    async fn state_proof(&self, key: Bytes) -> Result<StateAnswer, ReadError> {
        proofs::prove(&self.handle, key).await
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
        match self.checkpoints.latest(None).await {
            Ok(latest) => Ok(latest.map(|latest| latest.note)),
            Err(CheckpointFailure::Storage(error)) => Err(error.into()),
            Err(_) => Err(ReadError::Stopping),
        }
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
