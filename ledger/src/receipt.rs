//! Receipts: proof in one text that an entry is in the log, for whoever checks it without a network.
//!
//! The format is C2SP tlog-proof (<https://c2sp.org/tlog-proof>): the index of the entry, an inclusion proof
//! (RFC 6962, section 2.1.1) and the signed checkpoint that it leads to.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 2
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//! B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
//!
//! example.com/log
//! 4
//! sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
//!
//! — example.com/log hI2DJw...
//! ```
//!
//! Parsing is strict: whatever parses is written back to the same bytes. What a receipt says means nothing until
//! [`Receipt::verify`] has succeeded.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{
    Digest,
    checkpoint::{Checkpoint, CheckpointError, parse_decimal, parse_hash},
    merkle::{ProofMismatch, leaf_hash, verify_inclusion},
    note::{NOTE_SIZE_BYTES_MAX, NoteError, SignedNote},
    policy::{Accepted, Policy, PolicyError},
};

/// What the names of files with receipts end with.
pub const RECEIPT_FILE_EXTENSION: &str = "tlog-proof";

/// Largest extra data of a receipt, in bytes before they are encoded.
pub const RECEIPT_EXTRA_SIZE_BYTES_MAX: usize = 16 * 1024;

/// Most hashes of a receipt: one per level of the largest tree.
pub const RECEIPT_HASHES_MAX: usize = 64;

/// Largest receipt, in bytes: a note, the extra data and the hashes in base64, and the lines around them.
pub const RECEIPT_SIZE_BYTES_MAX: usize = NOTE_SIZE_BYTES_MAX + 32 * 1024;

/// The first line: the format and its version.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Proof that an entry is in the log, not verified yet.
///
/// [`fmt::Display`] writes the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    index: u64,
    extra: Option<Vec<u8>>,
    hashes: Vec<Digest>,
    checkpoint: SignedNote,
}

/// A text that is no receipt, or a receipt that does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Larger than [`RECEIPT_SIZE_BYTES_MAX`].
    #[error("a receipt of {size} bytes, at most {RECEIPT_SIZE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Size found, in bytes.
        size: usize,
    },
    /// Another format, or another version of it.
    #[error("a receipt must begin with the line {HEADER}")]
    Header,
    /// Extra data that is empty, too large or not in base64.
    #[error("the extra data of a receipt must be 1 to {RECEIPT_EXTRA_SIZE_BYTES_MAX} bytes in base64")]
    Extra,
    /// No index, or one that is not a decimal number in its shortest form.
    #[error("a receipt must have a line `index NUMBER`, with a decimal number in its shortest form")]
    Index,
    /// A line of the proof that is not the base64 of 32 bytes.
    #[error("hash {number} of the receipt is not 32 bytes in base64")]
    Hash {
        /// Number of the hash, from 1.
        number: usize,
    },
    /// More than [`RECEIPT_HASHES_MAX`] hashes.
    #[error("a receipt has more than {RECEIPT_HASHES_MAX} hashes")]
    TooManyHashes,
    /// No empty line after the proof: the text may have been cut off.
    #[error("a receipt must have an empty line between its proof and its checkpoint")]
    NoSeparator,
    /// What follows the proof is no signed note.
    #[error("the checkpoint of the receipt cannot be read: {0}")]
    Note(#[from] NoteError),
    /// The signed note is about something else.
    #[error("the receipt has no checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint does not satisfy the policy.
    #[error("the checkpoint of the receipt is not accepted: {0}")]
    Policy(#[from] PolicyError),
    /// The entry is not shown to be in the log.
    #[error("the receipt does not belong to this entry: {0}")]
    Inclusion(#[from] ProofMismatch),
}

impl Receipt {
    /// A receipt of the entry at `index`: the hashes of its inclusion proof from the leaf to the root, and the
    /// checkpoint that the proof leads to.
    ///
    /// `extra` is data for the application, which nothing protects from changes.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] if the note is no checkpoint, there are too many hashes, or the extra data is too large or
    /// empty. Whether the receipt shows anything is not checked.
    pub fn new(
        index: u64,
        extra: Option<Vec<u8>>,
        hashes: Vec<Digest>,
        checkpoint: SignedNote,
    ) -> Result<Self, ReceiptError> {
        Checkpoint::parse(checkpoint.text())?;
        if hashes.len() > RECEIPT_HASHES_MAX {
            return Err(ReceiptError::TooManyHashes);
        }
        if extra.as_ref().is_some_and(|extra| !(1..=RECEIPT_EXTRA_SIZE_BYTES_MAX).contains(&extra.len())) {
            return Err(ReceiptError::Extra);
        }
        Ok(Self { index, extra, hashes, checkpoint })
    }

    /// Reads a receipt; nothing is verified.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] for everything that [`fmt::Display`] would not write in exactly this way.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        if text.len() > RECEIPT_SIZE_BYTES_MAX {
            return Err(ReceiptError::TooLarge { size: text.len() });
        }
        let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(ReceiptError::Header)?;
        let (extra, rest) = parse_extra(rest)?;
        let (index, rest) =
            rest.strip_prefix("index ").and_then(|rest| rest.split_once('\n')).ok_or(ReceiptError::Index)?;
        let index = parse_decimal(index).ok_or(ReceiptError::Index)?;
        let (hashes, note) = parse_hashes(rest)?;
        Self::new(index, extra, hashes, SignedNote::parse(note)?)
    }

    /// Position of the entry in the log, from 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Data for the application. Nothing protects it from changes: do not trust it.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The hashes of the inclusion proof, from the leaf to the root.
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// The signed checkpoint that the proof leads to.
    pub fn checkpoint(&self) -> &SignedNote {
        &self.checkpoint
    }

    /// Checks that `leaf`, the bytes of the entry, is at [`Receipt::index`] in a log that satisfies the policy.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Policy`] if the checkpoint is not accepted, [`ReceiptError::Inclusion`] if the entry is not
    /// shown to be in the log.
    pub fn verify(&self, policy: &Policy, leaf: &[u8]) -> Result<Accepted, ReceiptError> {
        let accepted = policy.check(&self.checkpoint)?;
        let checkpoint = &accepted.checkpoint;
        verify_inclusion(self.index, checkpoint.size(), &leaf_hash(leaf), &self.hashes, checkpoint.root())?;
        Ok(accepted)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", BASE64.encode(hash.as_bytes())))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The extra data, if the next line is that of it, and what follows.
fn parse_extra(text: &str) -> Result<(Option<Vec<u8>>, &str), ReceiptError> {
    let Some(rest) = text.strip_prefix("extra ") else { return Ok((None, text)) };
    let (encoded, rest) = rest.split_once('\n').ok_or(ReceiptError::Extra)?;
    let extra = BASE64.decode(encoded).map_err(|_| ReceiptError::Extra)?;
    Ok((Some(extra), rest))
}

/// The hashes up to the next empty line, and what follows it.
fn parse_hashes(text: &str) -> Result<(Vec<Digest>, &str), ReceiptError> {
    let mut hashes = Vec::new();
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n').ok_or(ReceiptError::NoSeparator)?;
        rest = after;
        if line.is_empty() {
            return Ok((hashes, rest));
        }
        if hashes.len() == RECEIPT_HASHES_MAX {
            return Err(ReceiptError::TooManyHashes);
        }
        hashes.push(parse_hash(line).ok_or(ReceiptError::Hash { number: hashes.len() + 1 })?);
    }
}
