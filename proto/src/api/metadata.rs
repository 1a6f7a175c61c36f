//! The heads of the log that calls and answers carry in their metadata, as `api.proto` describes.
//!
//! A caller shows the newest final head that it has seen, without signatures: that is short, and enough to find out whether
//! there is a contradiction. The answer says which head the replica has, and brings note and proof where that is a newer one.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use fedledger_ledger::{Digest, checkpoint::Checkpoint, merkle::empty_root};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::{
    convert::{InvalidField, digest},
    limits::{CONSISTENCY_PROOF_LENGTH_MAX, NOTE_IN_METADATA_SIZE_BYTES_MAX},
};

/// Metadata of a call: the head that the caller knows.
const KNOWN_KEY: &str = "fedledger-known";

/// Metadata of an answer: the replica's newest final head.
const HEAD_KEY: &str = "fedledger-head";

/// Metadata of an answer: the note of a head that is newer than the known one.
const NOTE_KEY: &str = "fedledger-note-bin";

/// Metadata of an answer: the proof that this head extends the known one.
const CONSISTENCY_KEY: &str = "fedledger-consistency-bin";

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// A head of the log without its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadId {
    /// Entries under it.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
}

impl HeadId {
    /// The head of a log without entries: nothing is known, or final.
    pub fn empty() -> Self {
        Self { size: 0, root: empty_root() }
    }

    /// Shows the head with a call.
    pub(super) fn show(&self, metadata: &mut MetadataMap) {
        write_text(metadata, KNOWN_KEY, self);
    }
}

impl From<&Checkpoint> for HeadId {
    fn from(head: &Checkpoint) -> Self {
        Self { size: head.size(), root: *head.root() }
    }
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.size, self.root)
    }
}

impl FromStr for HeadId {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let parse = || {
            let (size, root) = text.split_once(' ')?;
            let head = Self { size: size.parse().ok()?, root: root.parse().ok()? };
            // One form only, and one empty log.
            (head.to_string() == text && (head.size > 0 || head == Self::empty())).then_some(head)
        };
        parse().ok_or(InvalidField("a head in the metadata is not SIZE ROOT"))
    }
}

/// The head that a call shows, if it shows one.
///
/// # Errors
///
/// [`InvalidField`].
pub fn known_head(metadata: &MetadataMap) -> Result<Option<HeadId>, InvalidField> {
    read_text(metadata, KNOWN_KEY)
}

/// What a replica answers to a caller that has shown the head which it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadAnswer {
    /// The newest final head that the replica knows.
    pub head: HeadId,
    /// Its note and the proof, where it is of more entries than the caller's.
    pub newer: Option<NewerHead>,
}

/// A head that a caller does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewerHead {
    /// The signed note.
    pub note: String,
    /// Proof that it extends the head that the caller knows (RFC 6962, section 2.1.2).
    pub consistency: Vec<Digest>,
}

impl HeadAnswer {
    /// Puts the answer into metadata; without the note if that is too large for it.
    pub fn write(&self, metadata: &mut MetadataMap) {
        write_text(metadata, HEAD_KEY, &self.head);
        let fits = |newer: &&NewerHead| newer.note.len() <= NOTE_IN_METADATA_SIZE_BYTES_MAX;
        let Some(newer) = self.newer.as_ref().filter(fits) else { return };
        let consistency: Vec<u8> = newer.consistency.iter().flat_map(|digest| *digest.as_bytes()).collect();
        metadata.insert_bin(NOTE_KEY, MetadataValue::from_bytes(newer.note.as_bytes()));
        metadata.insert_bin(CONSISTENCY_KEY, MetadataValue::from_bytes(&consistency));
    }

    /// Reads an answer; nothing is verified. `None` if the replica says nothing of its head.
    ///
    /// # Errors
    ///
    /// [`InvalidField`].
    pub fn read(metadata: &MetadataMap) -> Result<Option<Self>, InvalidField> {
        let Some(head) = read_text(metadata, HEAD_KEY)? else { return Ok(None) };
        let Some(note) = read_bytes(metadata, NOTE_KEY)? else { return Ok(Some(Self { head, newer: None })) };
        let note = String::from_utf8(note.into()).map_err(|_| InvalidField("a note in the metadata is no text"))?;
        let consistency = read_bytes(metadata, CONSISTENCY_KEY)?.unwrap_or_default();
        if note.len() > NOTE_IN_METADATA_SIZE_BYTES_MAX
            || consistency.len() > CONSISTENCY_PROOF_LENGTH_MAX * DIGEST_BYTES
        {
            return Err(InvalidField("a note or proof in the metadata is too large"));
        }
        let consistency = consistency.chunks(DIGEST_BYTES).map(digest).collect::<Result<_, _>>()?;
        Ok(Some(Self { head, newer: Some(NewerHead { note, consistency }) }))
    }
}

fn write_text(metadata: &mut MetadataMap, key: &'static str, head: &HeadId) {
    // Digits and spaces always are a value.
    if let Ok(value) = MetadataValue::try_from(head.to_string()) {
        metadata.insert(key, value);
    }
}

fn read_text(metadata: &MetadataMap, key: &'static str) -> Result<Option<HeadId>, InvalidField> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    value.to_str().map_err(|_| InvalidField("a head in the metadata is no text"))?.parse().map(Some)
}

fn read_bytes(metadata: &MetadataMap, key: &'static str) -> Result<Option<Bytes>, InvalidField> {
    let Some(value) = metadata.get_bin(key) else { return Ok(None) };
    value.to_bytes().map(Some).map_err(|_| InvalidField("bytes in the metadata are not in base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: u64) -> HeadId {
        HeadId { size, root: Digest::of(b"root") }
    }

    #[test]
    fn heads_survive_the_wire() {
        let mut metadata = MetadataMap::new();
        assert_eq!((known_head(&metadata), HeadAnswer::read(&metadata)), (Ok(None), Ok(None)));
        for shown in [HeadId::empty(), head(305)] {
            shown.show(&mut metadata);
            assert_eq!(known_head(&metadata), Ok(Some(shown)));
        }
        let consistency: Vec<Digest> =
            (0..CONSISTENCY_PROOF_LENGTH_MAX).map(|n| Digest::of(&n.to_be_bytes())).collect();
        let newer = NewerHead { note: "a note\n\n— key BASE64\n".to_owned(), consistency };
        for newer in [Some(newer), Some(NewerHead { note: "n".to_owned(), consistency: Vec::new() }), None] {
            let (mut metadata, answer) = (MetadataMap::new(), HeadAnswer { head: head(7), newer });
            answer.write(&mut metadata);
            assert_eq!(HeadAnswer::read(&metadata), Ok(Some(answer)));
        }
    }

    #[test]
    fn a_note_that_is_too_large_is_left_out() {
        let note = "n".repeat(NOTE_IN_METADATA_SIZE_BYTES_MAX + 1);
        let answer = HeadAnswer { head: head(7), newer: Some(NewerHead { note, consistency: Vec::new() }) };
        let mut metadata = MetadataMap::new();
        answer.write(&mut metadata);
        assert_eq!(HeadAnswer::read(&metadata), Ok(Some(HeadAnswer { head: head(7), newer: None })));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let root = Digest::of(b"root");
        for text in [String::new(), "7".to_owned(), format!("+7 {root}"), format!("7  {root}"), format!("0 {root}")] {
            let mut metadata = MetadataMap::new();
            metadata.insert(KNOWN_KEY, text.parse().unwrap());
            assert!(known_head(&metadata).is_err(), "{text:?}");
        }
        let mut metadata = MetadataMap::new();
        HeadAnswer { head: head(7), newer: None }.write(&mut metadata);
        metadata.insert_bin(NOTE_KEY, MetadataValue::from_bytes(b"note"));
        metadata.insert_bin(CONSISTENCY_KEY, MetadataValue::from_bytes(&[7; 33]));
        assert!(HeadAnswer::read(&metadata).is_err());
    }
}
