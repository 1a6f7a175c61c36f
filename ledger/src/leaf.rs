//! The leaf: one transaction, its place and its fate, as hashed into the Merkle log.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digest::Digest,
    limits::{GENESIS_SIZE_BYTES_MAX, LEAF_SIZE_BYTES_MAX},
    seal::Seal,
};

/// The version of the leaf that this code writes and reads.
pub const LEAF_VERSION: u64 = 2;

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Accepted,
    /// It was refused by the state machine and changed nothing; the code says why.
    Rejected(String),
}

/// One entry of the log. Index 0 is the genesis file itself and has no leaf structure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "LeafTuple", try_from = "LeafTuple")]
pub struct Leaf {
    /// Position in the log; the genesis file is 0.
    pub index: u64,
    /// Position of the transaction in the replicated Raft log. It rises with `index` and lets a replica that received
    /// leaves from a peer recognise entries that it has already applied.
    pub raft_index: u64,
    /// The signed envelope, as received.
    pub envelope: Vec<u8>,
    /// The transaction's fate.
    pub outcome: Outcome,
    /// Digest of everything that the transaction changed in the replicated state; see
    /// [`WriteSet::digest`](crate::machine::WriteSet::digest).
    pub write_set: Digest,
    /// What the entry fixes, if it is a seal that took effect.
    pub seal: Option<Seal>,
}

impl Leaf {
    /// The canonical bytes that the Merkle log hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes a leaf.
    ///
    /// # Errors
    ///
    /// [`CodecError`] for anything but a canonical leaf of at most [`LEAF_SIZE_BYTES_MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, LEAF_SIZE_BYTES_MAX)
    }

    /// The largest size in bytes of what may stand at `index`.
    pub const fn size_bytes_max(index: u64) -> usize {
        if index == 0 { GENESIS_SIZE_BYTES_MAX } else { LEAF_SIZE_BYTES_MAX }
    }
}

impl Outcome {
    /// `accepted`, or the rejection's code.
    pub fn code(&self) -> &str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected(code) => code,
        }
    }

    /// Whether the transaction took effect.
    pub const fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted)
    }
}

#[derive(Serialize, Deserialize)]
struct LeafTuple(u64, u64, u64, #[serde(with = "serde_bytes")] Vec<u8>, Option<String>, Digest, Option<Seal>);

impl From<Leaf> for LeafTuple {
    fn from(leaf: Leaf) -> Self {
        let code = match leaf.outcome {
            Outcome::Accepted => None,
            Outcome::Rejected(code) => Some(code),
        };
        Self(LEAF_VERSION, leaf.index, leaf.raft_index, leaf.envelope, code, leaf.write_set, leaf.seal)
    }
}

impl TryFrom<LeafTuple> for Leaf {
    type Error = String;

    fn try_from(tuple: LeafTuple) -> Result<Self, String> {
        let LeafTuple(version, index, raft_index, envelope, code, write_set, seal) = tuple;
        if version != LEAF_VERSION {
            return Err(format!("leaf version {version}, this software knows {LEAF_VERSION}"));
        }
        let outcome = code.map_or(Outcome::Accepted, Outcome::Rejected);
        if seal.is_some() && !outcome.is_accepted() {
            return Err("a seal that did not take effect fixes nothing".to_owned());
        }
        Ok(Self { index, raft_index, envelope, outcome, write_set, seal })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal() -> Seal {
        Seal {
            number: 3,
            previous: 17,
            state_root: Digest::of(b"state"),
            epoch: 1,
            next_epoch: Digest::of(b"epoch"),
            time_ms: 1_700_000_000_123,
            rules_version: 1,
        }
    }

    fn leaf(seal: Option<Seal>) -> Leaf {
        Leaf {
            index: 20,
            raft_index: 25,
            envelope: b"envelope".to_vec(),
            outcome: Outcome::Accepted,
            write_set: Digest::of(b"writes"),
            seal,
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        // Changing these digests changes the ledger's format.
        let rejected = Leaf { outcome: Outcome::Rejected("code".into()), ..leaf(None) };
        let pinned = [leaf(None), leaf(Some(seal())), rejected].map(|leaf| {
            let bytes = leaf.to_bytes();
            (bytes.len(), Digest::of(&bytes).to_string())
        });
        let expected = [
            (50, "2a48bcf315fa32695ec6b343e4ad5483d995052dfd1fd151b1dc69840fd50457"),
            (131, "376565229ddc45ecd893dca89ccc61d23326cccc548a1be99cc58e4f221809da"),
            (54, "34a932fa4d25941e68556bc615a47e300200be32a5ccf41ec721350faedbc22c"),
        ];
        assert_eq!(pinned, expected.map(|(size, digest)| (size, digest.to_owned())));
    }

    #[test]
    fn a_rejected_leaf_has_no_seal() {
        let bytes = Leaf { outcome: Outcome::Rejected("code".into()), ..leaf(Some(seal())) }.to_bytes();
        let refused = Leaf::from_bytes(&bytes).unwrap_err();
        assert!(refused.to_string().contains("did not take effect"), "{refused}");
    }

    #[test]
    fn other_versions_are_refused() {
        let mut bytes = leaf(None).to_bytes();
        // After the header of the list comes the version.
        assert_eq!(bytes.get(1), Some(&2));
        bytes[1] = 1;
        assert!(Leaf::from_bytes(&bytes).unwrap_err().to_string().contains("leaf version 1"));
    }

    #[test]
    fn every_flipped_bit_makes_another_leaf_or_none() {
        let bytes = leaf(Some(seal())).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Leaf::from_bytes(&flipped).ok(), Some(leaf(Some(seal()))), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            numbers in any::<[u64; 7]>(), digests in any::<[[u8; 32]; 3]>(), code in "[a-z_]{0,20}", kind in 0..3u8,
            envelope in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let [index, raft_index, number, previous, epoch, time_ms, rules_version] = numbers;
            let [write_set, state_root, next_epoch] = digests.map(Digest::from_bytes);
            let seal = Seal { number, previous, state_root, epoch, next_epoch, time_ms, rules_version };
            let outcome = if kind == 0 { Outcome::Rejected(code) } else { Outcome::Accepted };
            let leaf = Leaf { index, raft_index, envelope, outcome, write_set, seal: (kind == 2).then_some(seal) };
            prop_assert_eq!(Leaf::from_bytes(&leaf.to_bytes()), Ok(leaf));
        }
    }
}
