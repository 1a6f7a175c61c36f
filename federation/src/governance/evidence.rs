//! Evidence of equivocation on record: who has signed two histories, shown to everybody.
//!
//! Anybody in the consortium can put [evidence](fedledger_ledger::evidence) on the ledger. It is checked against every key
//! that a replica or witness has ever had, also if the key was replaced or its owner excluded since. Nothing follows by
//! itself: the members decide what to do about it, by a proposal.

use std::collections::BTreeSet;

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    codec,
    evidence::{Evidence, EvidenceError, Signers},
};
use serde::{Deserialize, Serialize};

use crate::{Federation, history::origin};

/// Domain of evidence ids.
const EVIDENCE_DOMAIN: &[u8] = b"fedledger/v1/recorded-evidence\n";

/// Puts evidence on the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordEvidence {
    /// The [encoded](Evidence::to_bytes) evidence.
    #[serde(with = "bytes")]
    pub evidence: Vec<u8>,
}

/// Evidence that was found valid. It stands in full in the entry that recorded it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Index of the entry.
    pub index: u64,
    /// Names of the nodes that signed both heads.
    pub culprits: BTreeSet<String>,
}

/// What valid evidence shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Identifies who signed which two heads. Other signatures, and the form of the notes, do not matter: the same finding
    /// is recorded once.
    pub id: Digest,
    /// Names of the nodes that signed both heads.
    pub culprits: BTreeSet<String>,
}

impl Finding {
    /// What `encoded` evidence shows in a consortium.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] if it is none, or convicts nobody whose key stands in any epoch so far; `None` if it is about
    /// another log.
    pub fn of(state: &Federation, encoded: &[u8]) -> Result<Option<Self>, EvidenceError> {
        let evidence = Evidence::from_bytes(encoded)?;
        let origin = origin(state.consortium());
        if evidence.origin() != origin {
            return Ok(None);
        }
        let signers = Signers::of(&origin, state.epochs().iter().map(|(_, epoch)| epoch));
        let culprits: BTreeSet<String> =
            signers.convicted_by(&evidence).into_iter().map(|signer| signer.node.clone()).collect();
        if culprits.is_empty() {
            return Err(EvidenceError::NobodySignedBoth);
        }
        let (first, second) =
            (Checkpoint::parse(evidence.first().text())?, Checkpoint::parse(evidence.second().text())?);
        let heads = (first.size(), first.root(), second.size(), second.root());
        let id = Digest::of_parts(&[EVIDENCE_DOMAIN, &codec::encode(&(heads, &culprits))]);
        Ok(Some(Self { id, culprits }))
    }
}

/// Byte string for machines, hexadecimal for people.
mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&hex::encode(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(serde_bytes::ByteBuf::into_vec)
        }
    }
}
