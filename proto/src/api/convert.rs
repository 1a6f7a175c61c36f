//! Conversions between the wire and what it means, each check made once.

use bytes::Bytes;
use fedledger_ledger::{Digest, consensus};

use super::{
    limits::{CONSISTENCY_PROOF_LENGTH_MAX, HAS_DIGESTS_MAX, PEERS_MAX, PROOF_LENGTH_MAX},
    progress,
    types::{Level, NodeStatus, PeerStatus, RaftRole, SealStatus},
    v1,
};

/// A field of a message that is not what it should be. The text names the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidField(pub(super) &'static str);

/// A digest from its bytes.
///
/// # Errors
///
/// [`InvalidField`] if there are not 32.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest, InvalidField> {
    let bytes = bytes.try_into().map_err(|_| InvalidField("a digest is not 32 bytes long"))?;
    Ok(Digest::from_bytes(bytes))
}

impl v1::GetBlobRequest {
    /// The digest of the blob asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidField`].
    pub fn digest(&self) -> Result<Digest, InvalidField> {
        digest(&self.digest)
    }
}

impl v1::HasBlobsRequest {
    /// The digests asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidField`]: too many, or one of another length.
    pub fn digests(&self) -> Result<Vec<Digest>, InvalidField> {
        if self.digests.len() > HAS_DIGESTS_MAX {
            return Err(InvalidField("more than 1024 digests are asked for at once"));
        }
        self.digests.iter().map(|bytes| digest(bytes)).collect()
    }
}

impl v1::InclusionProofResponse {
    /// The digests of the proof.
    ///
    /// # Errors
    ///
    /// [`InvalidField`]: too many, or one of another length.
    pub fn digests(&self) -> Result<Vec<Digest>, InvalidField> {
        if self.hashes.len() > PROOF_LENGTH_MAX {
            return Err(InvalidField("the proof is longer than any tree is deep"));
        }
        self.hashes.iter().map(|bytes| digest(bytes)).collect()
    }
}

impl v1::ConsistencyProofResponse {
    /// The digests of the proof.
    ///
    /// # Errors
    ///
    /// [`InvalidField`]: too many, or one of another length.
    pub fn digests(&self) -> Result<Vec<Digest>, InvalidField> {
        if self.hashes.len() > CONSISTENCY_PROOF_LENGTH_MAX {
            return Err(InvalidField("the proof is longer than any of two trees can be"));
        }
        self.hashes.iter().map(|bytes| digest(bytes)).collect()
    }
}

impl From<&[Digest]> for v1::ConsistencyProofResponse {
    fn from(digests: &[Digest]) -> Self {
        Self { hashes: digests.iter().map(|digest| Bytes::copy_from_slice(digest.as_bytes())).collect() }
    }
}

/// The level that a number on the wire stands for; committed where none is given.
///
/// # Errors
///
/// [`InvalidField`] for a level that this software does not know.
pub fn level(number: i32) -> Result<Level, InvalidField> {
    match v1::Level::try_from(number) {
        Ok(v1::Level::Accepted) => Ok(Level::Accepted),
        Ok(v1::Level::Unspecified | v1::Level::Committed) => Ok(Level::Committed),
        Ok(v1::Level::Final) => Ok(Level::Final),
        Ok(v1::Level::Unanimous) => Ok(Level::Unanimous),
        Err(_) => Err(InvalidField("the level is unknown")),
    }
}

impl From<Level> for v1::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Accepted => Self::Accepted,
            Level::Committed => Self::Committed,
            Level::Final => Self::Final,
            Level::Unanimous => Self::Unanimous,
        }
    }
}

impl From<SealStatus> for v1::Seal {
    fn from(SealStatus { number, index, time_ms }: SealStatus) -> Self {
        Self { number, index, time_ms }
    }
}

impl From<v1::Seal> for SealStatus {
    fn from(v1::Seal { number, index, time_ms }: v1::Seal) -> Self {
        Self { number, index, time_ms }
    }
}

impl From<RaftRole> for v1::RaftRole {
    fn from(role: RaftRole) -> Self {
        match role {
            RaftRole::Follower => Self::Follower,
            RaftRole::PreCandidate => Self::PreCandidate,
            RaftRole::Candidate => Self::Candidate,
            RaftRole::Leader => Self::Leader,
        }
    }
}

impl From<consensus::Role> for RaftRole {
    fn from(role: consensus::Role) -> Self {
        match role {
            consensus::Role::Follower => Self::Follower,
            consensus::Role::PreCandidate => Self::PreCandidate,
            consensus::Role::Candidate => Self::Candidate,
            consensus::Role::Leader => Self::Leader,
        }
    }
}

impl TryFrom<v1::RaftRole> for RaftRole {
    type Error = InvalidField;

    fn try_from(role: v1::RaftRole) -> Result<Self, InvalidField> {
        Ok(match role {
            v1::RaftRole::Follower => Self::Follower,
            v1::RaftRole::PreCandidate => Self::PreCandidate,
            v1::RaftRole::Candidate => Self::Candidate,
            v1::RaftRole::Leader => Self::Leader,
            v1::RaftRole::Unspecified => return Err(InvalidField("the role is unknown")),
        })
    }
}

impl From<NodeStatus> for v1::StatusResponse {
    fn from(status: NodeStatus) -> Self {
        Self {
            node: status.node,
            software: status.software,
            consortium: status.consortium,
            chain: status.chain.as_bytes().to_vec().into(),
            role: v1::RaftRole::from(status.role).into(),
            leader: status.leader,
            term: status.term,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            last_index: status.last_index,
            log_size: status.log_size,
            root: status.root.as_bytes().to_vec().into(),
            final_size: status.final_size,
            finality_threshold: status.finality_threshold,
            checkpoint: status.checkpoint,
            peers: status.peers.into_iter().map(Into::into).collect(),
            unanimous_size: status.unanimous_size,
            cosigned_size: status.cosigned_size,
            epoch: status.epoch,
            seal: status.seal.map(Into::into),
            trusted_time_s: status.trusted_time_s,
            progress: status.progress.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::StatusResponse> for NodeStatus {
    type Error = InvalidField;

    fn try_from(status: v1::StatusResponse) -> Result<Self, InvalidField> {
        if status.peers.len() > PEERS_MAX {
            return Err(InvalidField("the status names too many peers"));
        }
        Ok(Self {
            role: status.role().try_into()?,
            chain: digest(&status.chain)?,
            root: digest(&status.root)?,
            node: status.node,
            software: status.software,
            consortium: status.consortium,
            leader: status.leader,
            term: status.term,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            last_index: status.last_index,
            log_size: status.log_size,
            final_size: status.final_size,
            finality_threshold: status.finality_threshold,
            checkpoint: status.checkpoint,
            peers: status.peers.into_iter().map(Into::into).collect(),
            unanimous_size: status.unanimous_size,
            cosigned_size: status.cosigned_size,
            epoch: status.epoch,
            seal: status.seal.map(Into::into),
            trusted_time_s: status.trusted_time_s,
            progress: progress::plans(status.progress)?,
        })
    }
}

impl From<PeerStatus> for v1::Peer {
    fn from(peer: PeerStatus) -> Self {
        Self {
            node: peer.node,
            connected: peer.connected,
            matched_index: peer.matched_index,
            cosigned_size: peer.cosigned_size,
        }
    }
}

impl From<v1::Peer> for PeerStatus {
    fn from(peer: v1::Peer) -> Self {
        Self {
            node: peer.node,
            connected: peer.connected,
            matched_index: peer.matched_index,
            cosigned_size: peer.cosigned_size,
        }
    }
}
