//! The genesis file: the consortium as it begins.

use std::collections::BTreeSet;

use fedledger_ledger::{Digest, PublicKey, codec, epoch::Epoch, limits::GENESIS_SIZE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::{Member, MemberError, MemberId, Node, NodeKind, check::check_name, with_member};
use crate::limits::MEMBERS_MAX;

/// The format of the genesis file.
pub const GENESIS_SCHEMA: &str = "fedledger.genesis/1";

/// The genesis file: the consortium as it begins. Entry 0 of the log; its SHA-256 is the chain id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// [`GENESIS_SCHEMA`].
    pub schema: String,
    /// Name of the consortium; the origin of its checkpoints.
    pub consortium: String,
    /// Makes two consortia of the same description distinct chains.
    pub salt: Digest,
    /// Co-signatures that make a checkpoint final. If it is the [default](default_finality_threshold) for the replicas
    /// there are, it follows their number when that changes; if not, it stays until governance changes it.
    pub finality_threshold: u64,
    /// The members, by id.
    pub members: Vec<Member>,
}

/// A genesis file that describes no consortium.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not canonical DAG-CBOR of the expected form.
    #[error("the genesis file is malformed: {0}")]
    Malformed(#[from] codec::CodecError),
    /// A format that this software does not know.
    #[error("the genesis file has the schema {0:?}, expected {GENESIS_SCHEMA:?}")]
    Schema(String),
    /// A member that cannot be one, or the consortium's name.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Members out of order or twice.
    #[error("member {0:?} is listed twice or out of order")]
    Order(MemberId),
    /// Replica numbers are not 1, 2, 3, ...
    #[error("the replicas are not numbered from 1 without gaps")]
    ReplicaNumbers,
    /// The threshold is unreachable or too low.
    #[error(
        "a finality threshold of {threshold} does not fit {replicas} replicas: at least {}, at most all",
        default_finality_threshold(*.replicas)
    )]
    FinalityThreshold {
        /// Threshold asked for.
        threshold: u64,
        /// Replicas there are.
        replicas: u64,
    },
    /// Too many members.
    #[error("the genesis file lists {0} members: a consortium has at most {MEMBERS_MAX}")]
    TooManyMembers(usize),
    /// More than fits into an entry of the log.
    #[error(
        "the genesis file has {0} bytes, at most {GENESIS_SIZE_BYTES_MAX} are allowed: begin with fewer members, and admit \
         the others by a proposal"
    )]
    TooLarge(usize),
}

/// Co-signatures needed by default so that no two conflicting heads can become final with f = floor((n - 1) / 3) dishonest
/// replicas out of n: ceil((n + f + 1) / 2).
pub const fn default_finality_threshold(replicas: u64) -> u64 {
    let dishonest = replicas.saturating_sub(1) / 3;
    (replicas + dishonest + 1).div_ceil(2)
}

/// Whether a threshold can be reached by this many replicas, and keeps a third of them from making two conflicting heads
/// final: a lower one than the default would break what the README promises.
pub const fn is_finality_threshold(threshold: u64, replicas: u64) -> bool {
    threshold <= replicas && threshold >= default_finality_threshold(replicas)
}

impl Genesis {
    /// Decodes and checks a genesis file.
    ///
    /// # Errors
    ///
    /// [`GenesisError`], which names the offending member, node or key.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = codec::decode(bytes, GENESIS_SIZE_BYTES_MAX)?;
        genesis.check()?;
        Ok(genesis)
    }

    /// The canonical bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The first epoch: the replicas, witnesses and threshold that the consortium begins with.
    pub fn epoch(&self) -> Epoch {
        let (replicas, witnesses) = Default::default();
        let mut epoch = Epoch { number: 0, index: 0, threshold: self.finality_threshold, replicas, witnesses };
        for member in &self.members {
            with_member(&mut epoch, member);
        }
        epoch
    }

    /// The replicas by number.
    pub fn replicas(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.nodes().filter(|(_, node)| matches!(node.kind, NodeKind::Replica { .. }))
    }

    /// Every node with its member.
    pub fn nodes(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.members.iter().flat_map(|member| member.nodes.iter().map(move |node| (member, node)))
    }

    /// Checks what the type cannot express.
    ///
    /// # Errors
    ///
    /// [`GenesisError`].
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.schema != GENESIS_SCHEMA {
            return Err(GenesisError::Schema(self.schema.chars().take(80).collect()));
        }
        check_name(&self.consortium)?;
        if self.members.len() > MEMBERS_MAX {
            return Err(GenesisError::TooManyMembers(self.members.len()));
        }
        for pair in self.members.windows(2) {
            if let [a, b] = pair
                && a.id >= b.id
            {
                return Err(GenesisError::Order(b.id.clone()));
            }
        }
        let mut keys = BTreeSet::<PublicKey>::new();
        for member in &self.members {
            member.check()?;
            member.check_keys(None, |key| !keys.insert(*key))?;
        }
        let numbers: BTreeSet<u64> = self.replicas().filter_map(|(_, node)| node.replica_number()).collect();
        let replicas = self.replicas().count() as u64;
        if !numbers.into_iter().eq(1..=replicas) {
            return Err(GenesisError::ReplicaNumbers);
        }
        let threshold = self.finality_threshold;
        if !is_finality_threshold(threshold, replicas) {
            return Err(GenesisError::FinalityThreshold { threshold, replicas });
        }
        let size = self.to_bytes().len();
        if size > GENESIS_SIZE_BYTES_MAX {
            return Err(GenesisError::TooLarge(size));
        }
        Ok(())
    }
}
