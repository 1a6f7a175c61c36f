//! Signature lines, and what is signed for each kind of them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{KeyId, NOTE_SIZE_BYTES_MAX, NoteError, SignatureType, check_text, verifier_key::is_key_name};
use crate::{
    digest::shortened,
    keys::{BadSignature, PublicKey, SecretKey, Signature},
};

/// Latest time of a co-signature, in seconds since the beginning of 1970: C2SP tlog-cosignature leaves the sign bit
/// unset.
pub const COSIGNATURE_TIME_S_MAX: u64 = i64::MAX as u64;

/// What a signature line starts with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// One signature line of a note, by a known or unknown key.
///
/// [`fmt::Display`] writes the line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: KeyId,
    signature: Vec<u8>,
}

impl NoteSignature {
    /// Signs the text of a note with an Ed25519 key that is known under `name`.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if the text or name is not allowed in a note.
    pub fn sign(text: &str, name: &str, key: &SecretKey) -> Result<Self, NoteError> {
        let signature = |text: &[u8]| key.sign(b"", text).as_bytes().to_vec();
        Self::make(text, name, SignatureType::Ed25519, key, signature)
    }

    /// Co-signs the text of a checkpoint with an Ed25519 key that is known under `name` (`cosignature/v1`).
    ///
    /// With it a witness states that at `time_s`, in seconds since the beginning of 1970, the largest head that it had
    /// seen of this log was the one in the text, and that it was consistent with all earlier ones. The key must be used
    /// under this name only.
    ///
    /// # Errors
    ///
    /// [`NoteError`] if the text or name is not allowed in a note, or the time is beyond [`COSIGNATURE_TIME_S_MAX`].
    pub fn cosign(text: &str, name: &str, key: &SecretKey, time_s: u64) -> Result<Self, NoteError> {
        if time_s > COSIGNATURE_TIME_S_MAX {
            return Err(NoteError::Time(time_s));
        }
        let signature = |text: &[u8]| {
            let signature = key.sign(cosignature_header(time_s).as_bytes(), text);
            [time_s.to_be_bytes().as_slice(), signature.as_bytes()].concat()
        };
        Self::make(text, name, SignatureType::CosignatureV1, key, signature)
    }

    /// Reads one signature line, without its newline; nothing is verified.
    ///
    /// # Errors
    ///
    /// [`NoteError::TooLarge`], or [`NoteError::MalformedSignature`] for everything that [`fmt::Display`] would not
    /// write in exactly this way.
    pub fn parse_line(line: &str) -> Result<Self, NoteError> {
        if line.len() > NOTE_SIZE_BYTES_MAX {
            return Err(NoteError::TooLarge { size: line.len() });
        }
        Self::parse(line).ok_or(NoteError::MalformedSignature { line: 1 })
    }

    /// Name of the key, usually the address of its owner without a scheme.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key, which also depends on the name and the type of signature.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The signature, whose form depends on its type: 64 bytes for [`SignatureType::Ed25519`], the time in 8 bytes
    /// before them for [`SignatureType::CosignatureV1`].
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let bytes = BASE64.decode(encoded).ok()?;
        let (key_id, signature) = bytes.split_first_chunk()?;
        (is_key_name(name) && !signature.is_empty()).then(|| Self {
            name: name.to_owned(),
            key_id: KeyId::from_bytes(*key_id),
            signature: signature.to_vec(),
        })
    }

    /// Checks a line of type [`SignatureType::Ed25519`].
    pub(super) fn verify_text(&self, text: &str, key: &PublicKey) -> Result<(), BadSignature> {
        let bytes = self.signature.as_slice().try_into().map_err(|_| BadSignature(*key))?;
        key.verify(b"", text.as_bytes(), &Signature::from_bytes(bytes))
    }

    /// Checks a line of type [`SignatureType::CosignatureV1`] and returns its time.
    pub(super) fn verify_cosignature(&self, text: &str, key: &PublicKey) -> Result<u64, BadSignature> {
        let (time, signature) = self.signature.split_first_chunk().ok_or(BadSignature(*key))?;
        let signature = signature.try_into().map(Signature::from_bytes).map_err(|_| BadSignature(*key))?;
        let time_s = u64::from_be_bytes(*time);
        if time_s > COSIGNATURE_TIME_S_MAX {
            return Err(BadSignature(*key));
        }
        key.verify(cosignature_header(time_s).as_bytes(), text.as_bytes(), &signature)?;
        Ok(time_s)
    }

    fn make(
        text: &str,
        name: &str,
        kind: SignatureType,
        key: &SecretKey,
        signature: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Self, NoteError> {
        check_text(text)?;
        if !is_key_name(name) {
            return Err(NoteError::KeyName(shortened(name)));
        }
        let key_id = KeyId::of(name, kind, &key.public());
        Ok(Self { name: name.to_owned(), key_id, signature: signature(text.as_bytes()) })
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_bytes().as_slice(), &self.signature].concat();
        write!(f, "{SIGNATURE_PREFIX}{} {}", self.name, BASE64.encode(bytes))
    }
}

/// What stands before the text in the message of a co-signature; no checkpoint begins like this.
fn cosignature_header(time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n")
}
