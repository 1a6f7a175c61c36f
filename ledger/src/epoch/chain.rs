//! The chain of epochs: how whoever trusts the first one comes to trust all later ones.
//!
//! Each [`EpochLink`] holds an epoch, the seal that put it into force, and a [receipt](crate::receipt) of that seal under a
//! head that the replicas of the epoch *before* have made final with the keys that they had then. So nobody can vouch for
//! its own place in the consortium, and whoever has the genesis file can check any receipt for ever.
//!
//! What a chain cannot show is that there is no later epoch: like a root of trust that is never updated, it goes on to
//! accept heads by the keys of its last epoch. Compare it with one from another member, or look at the time of the head.
//!
//! [`EpochChain::to_bytes`] is canonical DAG-CBOR, the list `[domain, version, [[epoch, seal's leaf, receipt]...]]`.

use std::iter;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Epoch;
use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    codec::{self, CodecError},
    digest::{Digest, shortened},
    leaf::Leaf,
    merkle::ProofMismatch,
    note::{NoteError, SignedNote},
    policy::{Accepted, Policy, PolicyDefect, PolicyError},
    receipt::{Receipt, ReceiptError},
};

/// Most links of a chain: changes of members or keys in the life of a consortium.
pub const EPOCH_LINKS_MAX: usize = 4096;

/// Largest encoding of a chain, in bytes.
pub const EPOCH_CHAIN_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The version of the format that this code writes and reads.
const EPOCH_CHAIN_VERSION: u64 = 1;

/// What the encoding begins with, so that it is taken for nothing else.
const DOMAIN: &str = "fedledger/v1/epochs";

/// Links from the first epoch to a later one, not verified yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochChain {
    links: Vec<EpochLink>,
}

/// An epoch, and how the one before it vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochLink {
    /// The canonical bytes of the epoch.
    pub epoch: Vec<u8>,
    /// The leaf of the seal that puts it into force.
    pub leaf: Vec<u8>,
    /// Receipt of that leaf, under a head that the epoch before has made final. Without extra data.
    pub receipt: Receipt,
}

/// Bytes that are no chain, or a chain with a link that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochChainError {
    /// Bytes that cannot be read.
    #[error("the chain of epochs cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// Something other than a chain, or one in another version of the format.
    #[error("expected {DOMAIN} in version {EPOCH_CHAIN_VERSION}, found {domain:?} in version {version}")]
    Format {
        /// What it says it is.
        domain: String,
        /// Version found.
        version: u64,
    },
    /// More than [`EPOCH_LINKS_MAX`] links.
    #[error("the chain has more than {EPOCH_LINKS_MAX} epochs")]
    TooManyLinks,
    /// A link that cannot be read or does not hold.
    #[error("link {link} of the chain of epochs does not hold: {error}")]
    Link {
        /// Number of the link, from 1.
        link: usize,
        /// What is wrong with it.
        error: EpochLinkError,
    },
}

/// What is wrong with a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochLinkError {
    /// The epoch cannot be read.
    #[error("the epoch is malformed: {0}")]
    Epoch(CodecError),
    /// The leaf cannot be read.
    #[error("the leaf is malformed: {0}")]
    Leaf(CodecError),
    /// The receipt cannot be read.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The receipt carries data that nothing protects.
    #[error("the receipt has extra data, which is not allowed here")]
    Extra,
    /// The leaf is no seal that took effect.
    #[error("the leaf is no seal")]
    NoSeal,
    /// The receipt is of another entry than the leaf.
    #[error("the receipt is of entry {receipt}, the leaf is entry {leaf}")]
    Index {
        /// Index in the leaf.
        leaf: u64,
        /// Index in the receipt.
        receipt: u64,
    },
    /// An epoch is missing between this one and the one before.
    #[error(
        "the seal belongs to epoch {found}, the chain has come to epoch {expected}: one is left out or out of order"
    )]
    Gap {
        /// The epoch before.
        expected: u64,
        /// The epoch of the seal.
        found: u64,
    },
    /// The seal puts another epoch into force.
    #[error("the seal puts the epoch {expected} into force, this one is {found}")]
    Digest {
        /// Digest in the seal.
        expected: Digest,
        /// Digest of the link's epoch.
        found: Digest,
    },
    /// The epoch does not follow the one before.
    #[error("epoch {number}, made by entry {index}, does not follow the epoch before it")]
    Order {
        /// Its number.
        number: u64,
        /// The entry that made it.
        index: u64,
    },
    /// A threshold that makes no head final, or every one.
    #[error("the epoch has a threshold of {threshold} for {replicas} replicas")]
    Threshold {
        /// Its threshold.
        threshold: u64,
        /// Its replicas.
        replicas: u64,
    },
    /// The receipt's note is no checkpoint.
    #[error("the receipt has no checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The receipt is of another log.
    #[error("the receipt is of the log {0:?}")]
    Origin(String),
    /// A signature by a key of the epoch before does not verify.
    #[error(transparent)]
    Signature(#[from] NoteError),
    /// Too few replicas of the epoch before vouch for this one.
    #[error("{cosigned} replicas of the epoch before have co-signed, {threshold} must have")]
    NotVouchedFor {
        /// How many have.
        cosigned: u64,
        /// How many must have.
        threshold: u64,
    },
    /// The seal is not shown to be in the log.
    #[error("the receipt does not belong to the seal: {0}")]
    Inclusion(#[from] ProofMismatch),
}

/// Why a head is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochsError {
    /// The epoch cannot be expressed as a policy.
    #[error("epoch {number} cannot be expressed as a policy: {error}")]
    Policy {
        /// Its number.
        number: u64,
        /// Why.
        error: PolicyDefect,
    },
    /// The head is not final.
    #[error(transparent)]
    Refused(#[from] PolicyError),
}

/// Epochs that are vouched for, each by the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    origin: String,
    first: Epoch,
    /// The epochs after it; each is that of heads larger than its size.
    later: Vec<(u64, Epoch)>,
}

impl EpochChain {
    /// A chain of these links, oldest first; nothing is verified.
    ///
    /// # Errors
    ///
    /// [`EpochChainError::TooManyLinks`].
    pub fn new(links: Vec<EpochLink>) -> Result<Self, EpochChainError> {
        if links.len() > EPOCH_LINKS_MAX { Err(EpochChainError::TooManyLinks) } else { Ok(Self { links }) }
    }

    /// The links, oldest first.
    pub fn links(&self) -> &[EpochLink] {
        &self.links
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let link = |link: &EpochLink| {
            LinkTuple(ByteBuf::from(link.epoch.clone()), ByteBuf::from(link.leaf.clone()), link.receipt.to_string())
        };
        let links = self.links.iter().map(link).collect();
        codec::encode(&ChainTuple(DOMAIN.to_owned(), EPOCH_CHAIN_VERSION, links))
    }

    /// Reads a chain; nothing is verified.
    ///
    /// # Errors
    ///
    /// [`EpochChainError`] for everything that [`EpochChain::to_bytes`] would not write in exactly this way.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EpochChainError> {
        let ChainTuple(domain, version, links) = codec::decode(bytes, EPOCH_CHAIN_SIZE_BYTES_MAX)?;
        if domain != DOMAIN || version != EPOCH_CHAIN_VERSION {
            return Err(EpochChainError::Format { domain: shortened(&domain), version });
        }
        if links.len() > EPOCH_LINKS_MAX {
            return Err(EpochChainError::TooManyLinks);
        }
        let read = |(link, LinkTuple(epoch, leaf, receipt))| {
            let receipt = Receipt::parse(&receipt);
            let receipt = receipt.map_err(|error| EpochChainError::Link { link, error: error.into() })?;
            Ok(EpochLink { epoch: epoch.into_vec(), leaf: leaf.into_vec(), receipt })
        };
        Self::new((1..).zip(links).map(read).collect::<Result<_, EpochChainError>>()?)
    }

    /// Whether bytes are meant to be a chain: what they begin with.
    pub fn is_meant_by(bytes: &[u8]) -> bool {
        codec::begins_with_domain(bytes, DOMAIN)
    }

    /// Follows the chain of the log `origin` from the epoch that is trusted, that of the genesis file.
    ///
    /// # Errors
    ///
    /// [`EpochChainError::Link`] for the first link that does not hold.
    pub fn verify(&self, origin: &str, first: &Epoch) -> Result<Epochs, EpochChainError> {
        let mut epochs = Epochs::first(origin, first.clone());
        for (link, number) in self.links.iter().zip(1..) {
            epochs.extend(link).map_err(|error| EpochChainError::Link { link: number, error })?;
        }
        Ok(epochs)
    }
}

impl EpochLink {
    /// The epoch and the size of the head that its seal makes, if `previous` vouches for it.
    fn verify(&self, origin: &str, previous: &Epoch) -> Result<(u64, Epoch), EpochLinkError> {
        let leaf = Leaf::from_bytes(&self.leaf).map_err(EpochLinkError::Leaf)?;
        let seal = leaf.seal.ok_or(EpochLinkError::NoSeal)?;
        if seal.epoch != previous.number {
            return Err(EpochLinkError::Gap { expected: previous.number, found: seal.epoch });
        }
        let found = Digest::of(&self.epoch);
        if found != seal.next_epoch {
            return Err(EpochLinkError::Digest { expected: seal.next_epoch, found });
        }
        let epoch = Epoch::from_bytes(&self.epoch).map_err(EpochLinkError::Epoch)?;
        if epoch.number <= previous.number || epoch.index <= previous.index || epoch.index >= leaf.index {
            return Err(EpochLinkError::Order { number: epoch.number, index: epoch.index });
        }
        let (threshold, replicas) = (epoch.threshold, epoch.replicas.len() as u64);
        if !(1..=replicas).contains(&threshold) {
            return Err(EpochLinkError::Threshold { threshold, replicas });
        }
        self.verify_receipt(origin, previous, &leaf)?;
        Ok((leaf.index.saturating_add(1), epoch))
    }

    fn verify_receipt(&self, origin: &str, previous: &Epoch, leaf: &Leaf) -> Result<(), EpochLinkError> {
        let receipt = &self.receipt;
        if receipt.extra().is_some() {
            return Err(EpochLinkError::Extra);
        }
        if receipt.index() != leaf.index {
            return Err(EpochLinkError::Index { leaf: leaf.index, receipt: receipt.index() });
        }
        let head = Checkpoint::parse(receipt.checkpoint().text())?;
        if head.origin() != origin {
            return Err(EpochLinkError::Origin(shortened(head.origin())));
        }
        let vouchers = previous.vouchers(origin, receipt.checkpoint())?;
        if !vouchers.is_final(previous) {
            let (cosigned, threshold) = (vouchers.replicas.len() as u64, previous.threshold);
            return Err(EpochLinkError::NotVouchedFor { cosigned, threshold });
        }
        Ok(receipt.verify_under(&head, &self.leaf)?)
    }
}

impl Epochs {
    /// The first epoch alone: no later one is known.
    pub fn first(origin: &str, epoch: Epoch) -> Self {
        Self { origin: origin.to_owned(), first: epoch, later: Vec::new() }
    }

    /// Goes on to the next epoch, for which the newest one must vouch.
    ///
    /// # Errors
    ///
    /// [`EpochLinkError`]; nothing was taken from the link.
    pub fn extend(&mut self, link: &EpochLink) -> Result<(), EpochLinkError> {
        let next = link.verify(&self.origin, self.newest())?;
        self.later.push(next);
        Ok(())
    }

    /// The last epoch that is known.
    pub fn newest(&self) -> &Epoch {
        self.later.last().map_or(&self.first, |(_, epoch)| epoch)
    }

    /// Identity of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The epochs, oldest first, each with the size of the last head that still belongs to the epoch before it.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Epoch)> {
        iter::once((0, &self.first)).chain(self.later.iter().map(|(size, epoch)| (*size, epoch)))
    }

    /// The epoch whose replicas make heads of this size final; none for the empty log.
    ///
    /// For sizes behind the end of the chain it is the last epoch that is known.
    pub fn of_head(&self, size: u64) -> Option<&Epoch> {
        self.iter().rev().find(|(before, _)| size > *before).map(|(_, epoch)| epoch)
    }

    /// Checks that a note is a head of the log that the replicas of its epoch have made final.
    ///
    /// # Errors
    ///
    /// [`EpochsError`].
    pub fn accept(&self, note: &SignedNote) -> Result<Accepted, EpochsError> {
        Ok(self.policy_for(note)?.check(note)?)
    }

    /// The policy that a note must satisfy: that of the epoch to which its head belongs.
    ///
    /// # Errors
    ///
    /// [`EpochsError`] if the note is no checkpoint of a log with entries, or the epoch cannot be expressed as a policy.
    pub fn policy_for(&self, note: &SignedNote) -> Result<Policy, EpochsError> {
        let head = Checkpoint::parse(note.text()).map_err(PolicyError::Checkpoint)?;
        let epoch = self.of_head(head.size()).ok_or_else(|| PolicyError::UnknownLog(shortened(head.origin())))?;
        epoch.policy(&self.origin).map_err(|error| EpochsError::Policy { number: epoch.number, error })
    }
}

#[derive(Serialize, Deserialize)]
struct ChainTuple(String, u64, Vec<LinkTuple>);

#[derive(Serialize, Deserialize)]
struct LinkTuple(ByteBuf, ByteBuf, String);
