//! Signed notes: text with signatures that people can read and tools of other transparency logs understand.
//!
//! The format is C2SP signed-note (<https://c2sp.org/signed-note>): a text, an empty line, and a line per signature.
//!
//! ```text
//! any text, with a newline at its end
//!
//! — example.com/log Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeO...
//! ```
//!
//! Two kinds of signature are made and verified. A log signs the text itself ([`SignatureType::Ed25519`]). A witness
//! co-signs the text of a checkpoint together with the time ([`SignatureType::CosignatureV1`],
//! <https://c2sp.org/tlog-cosignature>). Lines of other kinds are kept and count for nothing.
//!
//! Unlike everything else that is signed here, a log's signature has no domain prefix, because the format leaves no
//! room for one, and a co-signature does not cover the name of its key. Therefore a key that signs notes signs nothing
//! else, and every signer and co-signer has a key of its own.
//!
//! Parsing is strict: whatever parses encodes back to the same bytes. The text of a note means nothing until
//! [`SignedNote::verify`] or [`SignedNote::verify_cosignature`] has succeeded with a key that is trusted.

mod signature;
mod verifier_key;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    signature::{COSIGNATURE_TIME_S_MAX, NoteSignature},
    verifier_key::{KeyId, SignatureType, VerifierKey, VerifierKeyError},
};
use crate::{
    digest::shortened,
    keys::{BadSignature, PublicKey, SecretKey},
};

/// Largest note, in bytes. A checkpoint with 100 Ed25519 signatures takes less than half of it.
pub const NOTE_SIZE_BYTES_MAX: usize = 64 * 1024;

/// Most signatures of a note; the format demands that at least 16 be accepted.
pub const NOTE_SIGNATURES_MAX: usize = 100;

/// A text and at least one signature, none of which has been verified.
///
/// [`fmt::Display`] writes the encoded note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A text that is no note, or a note that is not signed as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than [`NOTE_SIZE_BYTES_MAX`].
    #[error("a note of {size} bytes, at most {NOTE_SIZE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Size found, in bytes.
        size: usize,
    },
    /// More than [`NOTE_SIGNATURES_MAX`] signatures.
    #[error("a note has more than {NOTE_SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// No signature at all.
    #[error("a note must have at least one signature")]
    Unsigned,
    /// A control character other than newline.
    #[error("a note contains a control character at byte {offset}")]
    ControlCharacter {
        /// Where it stands, in bytes from the beginning.
        offset: usize,
    },
    /// Text or signatures that do not end with a newline.
    #[error("a note must end with a newline")]
    NoFinalNewline,
    /// No empty line that separates text and signatures.
    #[error("a note must have an empty line between its text and its signatures")]
    NoSeparator,
    /// A line after the separator that is no signature.
    #[error("signature line {line} is not an em dash, a key name and base64")]
    MalformedSignature {
        /// Number of the line among the signature lines, from 1.
        line: usize,
    },
    /// A key name that the format does not allow.
    #[error("the key name {0:?} is empty or contains spaces, control characters or a plus sign")]
    KeyName(String),
    /// A co-signature from beyond [`COSIGNATURE_TIME_S_MAX`].
    #[error("a co-signature of time {0} s, at most {COSIGNATURE_TIME_S_MAX} s can be signed")]
    Time(u64),
    /// No signature by the key asked for.
    #[error("the note is not signed by key {name}+{key_id}")]
    NotSigned {
        /// Name of the key.
        name: String,
        /// Id of the key.
        key_id: KeyId,
    },
    /// A signature by the key asked for that does not verify.
    #[error("the note has a bad signature by {name}: {source}")]
    BadSignature {
        /// Name of the key.
        name: String,
        /// The key.
        source: BadSignature,
    },
}

/// Signs a text with an Ed25519 key that is known under `name`. The text must end with a newline.
///
/// # Errors
///
/// [`NoteError`] if the text or name is not allowed in a note.
pub fn sign_note(text: &str, name: &str, key: &SecretKey) -> Result<SignedNote, NoteError> {
    SignedNote::from_parts(text, vec![NoteSignature::sign(text, name, key)?])
}

impl SignedNote {
    /// Reads an encoded note; no signature is verified.
    ///
    /// # Errors
    ///
    /// [`NoteError`] for everything that [`fmt::Display`] would not write in exactly this way.
    pub fn parse(encoded: &str) -> Result<Self, NoteError> {
        if encoded.len() > NOTE_SIZE_BYTES_MAX {
            return Err(NoteError::TooLarge { size: encoded.len() });
        }
        check_characters(encoded)?;
        let body = encoded.strip_suffix('\n').ok_or(NoteError::NoFinalNewline)?;
        // The text may contain empty lines itself; signatures cannot.
        let (text, lines) = body.rsplit_once("\n\n").ok_or(NoteError::NoSeparator)?;
        let mut signatures = Vec::new();
        for (line, number) in lines.split('\n').zip(1..) {
            if number > NOTE_SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(NoteSignature::parse(line).ok_or(NoteError::MalformedSignature { line: number })?);
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// A note of a text, with its final newline, and signatures that were made elsewhere; none is verified.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if the text is not allowed in a note, or there are no signatures, or too many.
    pub fn from_parts(text: impl Into<String>, signatures: Vec<NoteSignature>) -> Result<Self, NoteError> {
        let note = Self { text: text.into(), signatures };
        check_text(&note.text)?;
        match note.signatures.len() {
            0 => return Err(NoteError::Unsigned),
            1..=NOTE_SIGNATURES_MAX => {}
            _ => return Err(NoteError::TooManySignatures),
        }
        match note.to_string().len() {
            0..=NOTE_SIZE_BYTES_MAX => Ok(note),
            size => Err(NoteError::TooLarge { size }),
        }
    }

    /// Adds a signature by an Ed25519 key that is known under `name`.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if the name is not allowed or the note is full; it is unchanged then.
    pub fn sign(&mut self, name: &str, key: &SecretKey) -> Result<(), NoteError> {
        self.add(NoteSignature::sign(&self.text, name, key)?)
    }

    /// Adds a signature that was made elsewhere over the same text; it is not verified.
    ///
    /// # Errors
    ///
    /// [`NoteError::TooManySignatures`] or [`NoteError::TooLarge`] if the note is full; it is unchanged then.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.len() >= NOTE_SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.push(signature);
        let size = self.to_string().len();
        if size > NOTE_SIZE_BYTES_MAX {
            self.signatures.pop();
            return Err(NoteError::TooLarge { size });
        }
        Ok(())
    }

    /// The signed text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in the order in which they stand.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks that the note is signed with the Ed25519 key `key` under `name`.
    ///
    /// Lines by other keys are ignored, as the format demands.
    ///
    /// # Errors
    ///
    /// [`NoteError::NotSigned`] if there is no such signature, [`NoteError::BadSignature`] if there is one that does
    /// not verify: the note as a whole is not to be trusted then.
    pub fn verify(&self, name: &str, key: &PublicKey) -> Result<(), NoteError> {
        self.verify_lines(name, SignatureType::Ed25519, key, |line| line.verify_text(&self.text, key))
    }

    /// Checks that the note is co-signed (`cosignature/v1`) with the Ed25519 key `key` under `name`, and returns when:
    /// seconds since the beginning of 1970, as the co-signer's clock had it.
    ///
    /// Of several co-signatures by the key the earliest counts: since then it vouches for the text.
    ///
    /// # Errors
    ///
    /// As those of [`SignedNote::verify`].
    pub fn verify_cosignature(&self, name: &str, key: &PublicKey) -> Result<u64, NoteError> {
        self.verify_lines(name, SignatureType::CosignatureV1, key, |line| line.verify_cosignature(&self.text, key))
    }

    /// Checks that the note is signed with `key`, as [`SignedNote::verify`] or [`SignedNote::verify_cosignature`],
    /// whichever the type of the key asks for.
    ///
    /// # Errors
    ///
    /// As those of [`SignedNote::verify`].
    pub fn verify_with(&self, key: &VerifierKey) -> Result<(), NoteError> {
        match key.kind() {
            SignatureType::Ed25519 => self.verify(key.name(), key.public_key()),
            SignatureType::CosignatureV1 => self.verify_cosignature(key.name(), key.public_key()).map(drop),
        }
    }

    /// What `verify` makes of the lines by one key: the least value, once all have verified.
    fn verify_lines<T: Ord>(
        &self,
        name: &str,
        kind: SignatureType,
        key: &PublicKey,
        verify: impl Fn(&NoteSignature) -> Result<T, BadSignature>,
    ) -> Result<T, NoteError> {
        let key_id = KeyId::of(name, kind, key);
        let lines = self.signatures.iter().filter(|line| line.name() == name && line.key_id() == key_id);
        let verified: Result<Vec<T>, BadSignature> = lines.map(verify).collect();
        let verified = verified.map_err(|source| NoteError::BadSignature { name: shortened(name), source })?;
        verified.into_iter().min().ok_or_else(|| NoteError::NotSigned { name: shortened(name), key_id })
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

/// Refuses what cannot be the text of a note.
fn check_text(text: &str) -> Result<(), NoteError> {
    check_characters(text)?;
    if text.ends_with('\n') { Ok(()) } else { Err(NoteError::NoFinalNewline) }
}

/// Refuses ASCII control characters, those below U+0020, but newline.
fn check_characters(text: &str) -> Result<(), NoteError> {
    match text.bytes().position(|byte| byte < b' ' && byte != b'\n') {
        Some(offset) => Err(NoteError::ControlCharacter { offset }),
        None => Ok(()),
    }
}
