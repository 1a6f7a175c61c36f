//! Evidence that somebody signed two histories: two signed heads of one log that no append-only log can have both had.
//!
//! Whoever keeps the history vouches for every head that it signs, and honest signers never sign two that contradict
//! each other. So two such notes with signatures of the same key convict the owner of that key, before anybody who
//! knows the key, without a network and without the log.
//!
//! Two heads contradict each other in one of two ways:
//!
//! * They are of the same size and have different roots.
//! * The larger tree begins with a tree of the smaller one's size that has another root than the smaller one. The
//!   evidence carries that other root and a consistency proof (RFC 6962, section 2.1.2) that the larger tree begins
//!   with it. A wrong proof shows nothing, and only the larger tree's own beginning has a right one: a convicted
//!   signer cannot say that somebody else made it up.
//!
//! That a key signed a smaller head later than a larger one is no evidence: both may be heads of one log.
//!
//! [`Evidence::to_bytes`] is canonical DAG-CBOR, the list `[domain, version, note, note, [root, [hash...]] or null]`.

mod signers;

use serde::{Deserialize, Serialize};

pub use self::signers::{Signer, Signers, signed_by};
use crate::{
    Digest,
    checkpoint::{Checkpoint, CheckpointError},
    codec::{self, CodecError},
    digest::shortened,
    merkle::{ProofMismatch, verify_consistency},
    note::{NoteError, SignedNote, VerifierKey},
};

/// Largest evidence, in bytes. Two checkpoints with 100 signatures each take less than half of it.
pub const EVIDENCE_SIZE_BYTES_MAX: usize = 64 * 1024;

/// Most hashes of the consistency proof: one per level of the largest tree, and the one that it may start with.
pub const EVIDENCE_HASHES_MAX: usize = 65;

/// The version of the format that this code writes and reads.
pub const EVIDENCE_VERSION: u64 = 1;

/// What the encoding begins with, so that it is taken for nothing else.
const DOMAIN: &str = "fedledger/v1/evidence";

/// Two signed heads of one log that contradict each other. Who signed them is not verified yet.
///
/// The same two notes make the same evidence in either order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The smaller head; of two heads of one size the one with the lesser root.
    first: SignedNote,
    second: SignedNote,
    /// There if the sizes differ.
    prefix: Option<Prefix>,
    origin: String,
}

/// What the larger tree begins with, where the sizes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "PrefixTuple", from = "PrefixTuple")]
pub struct Prefix {
    /// Root of the larger tree's beginning, which has as many entries as the smaller tree.
    pub root: Digest,
    /// Consistency proof from this beginning to the larger tree.
    pub proof: Vec<Digest>,
}

/// Bytes that are no evidence, or evidence that convicts nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Bytes that cannot be read.
    #[error("the evidence cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// Larger than [`EVIDENCE_SIZE_BYTES_MAX`].
    #[error("evidence of {size} bytes, at most {EVIDENCE_SIZE_BYTES_MAX} are allowed: leave out other signatures")]
    TooLarge {
        /// Size found, in bytes.
        size: usize,
    },
    /// Something other than evidence, or evidence in another version of the format.
    #[error("expected {DOMAIN} in version {EVIDENCE_VERSION}, found {domain:?} in version {version}")]
    Format {
        /// What it says it is.
        domain: String,
        /// Which version it says it has.
        version: u64,
    },
    /// A signed note that cannot be read, or a signature by a key asked for that does not verify.
    #[error("a note of the evidence is not valid: {0}")]
    Note(#[from] NoteError),
    /// A note that is no checkpoint.
    #[error("a note of the evidence is no checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Heads of different logs.
    #[error("the heads are of different logs, {first:?} and {second:?}")]
    Origins {
        /// Origin of one.
        first: String,
        /// Origin of the other.
        second: String,
    },
    /// A head without entries, which is consistent with every other.
    #[error("a head without entries contradicts no other")]
    Empty,
    /// Notes in another order than [`Evidence::new`] puts them.
    #[error("the notes of the evidence do not stand in order of size and root")]
    Order,
    /// Heads that one log can have had both.
    #[error("the heads of {first} and {second} entries do not contradict each other")]
    Consistent {
        /// Size of one, in entries.
        first: u64,
        /// Size of the other, in entries.
        second: u64,
    },
    /// No root and proof, although the sizes differ; or one, although they do not.
    #[error("heads of different sizes need a proof of what the larger tree begins with, others have none")]
    Prefix,
    /// More than [`EVIDENCE_HASHES_MAX`] hashes.
    #[error("the proof has more than {EVIDENCE_HASHES_MAX} hashes")]
    TooManyHashes,
    /// The larger tree is not shown to begin as claimed.
    #[error("it is not shown what the larger tree begins with: {0}")]
    Proof(#[from] ProofMismatch),
    /// No key asked for has signed both notes.
    #[error("none of the known keys has signed both heads")]
    NobodySignedBoth,
}

impl Evidence {
    /// Evidence of two notes that contradict each other; `prefix` if their sizes differ.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] if the notes do not contradict each other, or nothing shows that they do. Signatures are not
    /// verified.
    pub fn new(one: SignedNote, other: SignedNote, prefix: Option<Prefix>) -> Result<Self, EvidenceError> {
        let (heads, (first, second)) = {
            let heads = (Checkpoint::parse(one.text())?, Checkpoint::parse(other.text())?);
            if order(&heads.0) <= order(&heads.1) { (heads, (one, other)) } else { ((heads.1, heads.0), (other, one)) }
        };
        check_contradiction(&heads.0, &heads.1, prefix.as_ref())?;
        let evidence = Self { first, second, prefix, origin: heads.0.origin().to_owned() };
        match evidence.to_bytes().len() {
            0..=EVIDENCE_SIZE_BYTES_MAX => Ok(evidence),
            size => Err(EvidenceError::TooLarge { size }),
        }
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let notes = (self.first.to_string(), self.second.to_string());
        codec::encode(&EvidenceTuple(DOMAIN.to_owned(), EVIDENCE_VERSION, notes.0, notes.1, self.prefix.clone()))
    }

    /// Reads evidence; signatures are not verified.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] for everything that [`Evidence::to_bytes`] would not write in exactly this way, which
    /// includes notes that do not contradict each other.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let EvidenceTuple(domain, version, first, second, prefix) = codec::decode(bytes, EVIDENCE_SIZE_BYTES_MAX)?;
        if domain != DOMAIN || version != EVIDENCE_VERSION {
            return Err(EvidenceError::Format { domain: shortened(&domain), version });
        }
        let first = SignedNote::parse(&first)?;
        let evidence = Self::new(first.clone(), SignedNote::parse(&second)?, prefix)?;
        if evidence.first == first { Ok(evidence) } else { Err(EvidenceError::Order) }
    }

    /// Whether bytes are meant to be evidence: what they begin with.
    pub fn is_meant_by(bytes: &[u8]) -> bool {
        codec::begins_with_domain(bytes, DOMAIN)
    }

    /// Identity of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The note of the smaller head; of two heads of one size the one with the lesser root.
    pub fn first(&self) -> &SignedNote {
        &self.first
    }

    /// The other note.
    pub fn second(&self) -> &SignedNote {
        &self.second
    }

    /// What the larger tree begins with, if the sizes differ.
    pub fn prefix(&self) -> Option<&Prefix> {
        self.prefix.as_ref()
    }

    /// Which of `keys` signed both notes, in the order given: their owners are convicted.
    ///
    /// A key of either type counts. A name whose log key signed one note and whose co-signing key the other does not,
    /// since the keys may have different owners.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::NobodySignedBoth`], or [`EvidenceError::Note`] if a signature by any of `keys` does not verify.
    pub fn verify<'k>(&self, keys: &'k [VerifierKey]) -> Result<Vec<&'k VerifierKey>, EvidenceError> {
        let mut convicted = Vec::new();
        for key in keys {
            let signed = [is_signed(&self.first, key)?, is_signed(&self.second, key)?];
            if signed == [true, true] && !convicted.contains(&key) {
                convicted.push(key);
            }
        }
        if convicted.is_empty() { Err(EvidenceError::NobodySignedBoth) } else { Ok(convicted) }
    }
}

/// By what the two heads of evidence are ordered.
fn order(head: &Checkpoint) -> (u64, &Digest) {
    (head.size(), head.root())
}

/// Checks that no log can have had both heads; `first` is not the larger one.
fn check_contradiction(first: &Checkpoint, second: &Checkpoint, prefix: Option<&Prefix>) -> Result<(), EvidenceError> {
    if first.origin() != second.origin() {
        let [first, second] = [first, second].map(|head| shortened(head.origin()));
        return Err(EvidenceError::Origins { first, second });
    }
    if first.size() == 0 {
        return Err(EvidenceError::Empty);
    }
    let beginning = match prefix {
        None if first.size() == second.size() => second.root(),
        Some(prefix) if first.size() != second.size() => {
            if prefix.proof.len() > EVIDENCE_HASHES_MAX {
                return Err(EvidenceError::TooManyHashes);
            }
            verify_consistency(first.size(), &prefix.root, second.size(), second.root(), &prefix.proof)?;
            &prefix.root
        }
        _ => return Err(EvidenceError::Prefix),
    };
    if beginning == first.root() {
        return Err(EvidenceError::Consistent { first: first.size(), second: second.size() });
    }
    Ok(())
}

fn is_signed(note: &SignedNote, key: &VerifierKey) -> Result<bool, EvidenceError> {
    match note.verify_with(key) {
        Ok(()) => Ok(true),
        Err(NoteError::NotSigned { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Domain, version, the notes and the prefix.
#[derive(Serialize, Deserialize)]
struct EvidenceTuple(String, u64, String, String, Option<Prefix>);

#[derive(Serialize, Deserialize)]
struct PrefixTuple(Digest, Vec<Digest>);

impl From<Prefix> for PrefixTuple {
    fn from(Prefix { root, proof }: Prefix) -> Self {
        Self(root, proof)
    }
}

impl From<PrefixTuple> for Prefix {
    fn from(PrefixTuple(root, proof): PrefixTuple) -> Self {
        Self { root, proof }
    }
}
