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
//! Unlike everything else that is signed here, a note is signed without a domain prefix, because the format leaves no
//! room for one. Therefore a key that signs notes signs nothing else.
//!
//! Parsing is strict: whatever parses encodes back to the same bytes. The text of a note means nothing until
//! [`SignedNote::verify`] has succeeded with a key that is trusted.

mod verifier_key;

#[cfg(test)]
mod tests;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use self::verifier_key::is_key_name;
pub use self::verifier_key::{KeyId, SignatureType, VerifierKey, VerifierKeyError};
use crate::{
    digest::shortened,
    keys::{BadSignature, PublicKey, SecretKey, Signature},
};

/// Largest note, in bytes. A checkpoint with 100 Ed25519 signatures takes less than half of it.
pub const NOTE_SIZE_BYTES_MAX: usize = 64 * 1024;

/// Most signatures of a note; the format demands that at least 16 be accepted.
pub const NOTE_SIGNATURES_MAX: usize = 100;

/// What a signature line starts with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// A text and at least one signature, none of which has been verified.
///
/// [`fmt::Display`] writes the encoded note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line of a note, by a known or unknown key.
///
/// [`fmt::Display`] writes the line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: KeyId,
    signature: Vec<u8>,
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
    check_characters(text)?;
    if !text.ends_with('\n') {
        return Err(NoteError::NoFinalNewline);
    }
    let mut note = SignedNote { text: text.to_owned(), signatures: Vec::new() };
    note.sign(name, key)?;
    Ok(note)
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

    /// Adds a signature by an Ed25519 key that is known under `name`.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if the name is not allowed or the note is full; it is unchanged then.
    pub fn sign(&mut self, name: &str, key: &SecretKey) -> Result<(), NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::KeyName(shortened(name)));
        }
        self.add(NoteSignature {
            name: name.to_owned(),
            key_id: KeyId::of(name, SignatureType::Ed25519, &key.public()),
            signature: key.sign(b"", self.text.as_bytes()).as_bytes().to_vec(),
        })
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
        let key_id = KeyId::of(name, SignatureType::Ed25519, key);
        let mut signed = false;
        for line in self.signatures.iter().filter(|line| line.name == name && line.key_id == key_id) {
            let verified = match line.signature.as_slice().try_into() {
                Ok(bytes) => key.verify(b"", self.text.as_bytes(), &Signature::from_bytes(bytes)),
                Err(_) => Err(BadSignature(*key)),
            };
            verified.map_err(|source| NoteError::BadSignature { name: name.to_owned(), source })?;
            signed = true;
        }
        if signed { Ok(()) } else { Err(NoteError::NotSigned { name: shortened(name), key_id }) }
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl NoteSignature {
    /// Name of the key, usually the address of its owner without a scheme.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key, which also depends on the name and the type of signature.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The signature, whose form depends on its type: 64 bytes for [`SignatureType::Ed25519`].
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Reads a signature line without its newline.
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let bytes = BASE64.decode(encoded).ok()?;
        let (key_id, signature) = bytes.split_first_chunk()?;
        (is_key_name(name) && !signature.is_empty()).then(|| Self {
            name: name.to_owned(),
            key_id: KeyId::from_bytes(*key_id),
            signature: signature.to_vec(),
        })
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_bytes().as_slice(), &self.signature].concat();
        write!(f, "{SIGNATURE_PREFIX}{} {}", self.name, BASE64.encode(bytes))
    }
}

/// Refuses ASCII control characters, those below U+0020, but newline.
fn check_characters(text: &str) -> Result<(), NoteError> {
    match text.bytes().position(|byte| byte < b' ' && byte != b'\n') {
        Some(offset) => Err(NoteError::ControlCharacter { offset }),
        None => Ok(()),
    }
}
