//! The passphrase with which key files are encrypted.

use std::{fmt, path::Path};

use zeroize::Zeroizing;

use super::{error::KitError, files::read_secret};

/// Longest passphrase, in bytes.
const PASSPHRASE_LENGTH_MAX: usize = 1024;

/// Largest file with a passphrase, in bytes: the passphrase and the end of its line.
const PASSPHRASE_FILE_SIZE_BYTES_MAX: u64 = PASSPHRASE_LENGTH_MAX as u64 + 2;

/// A passphrase, wiped when it is dropped and never printed. Its UTF-8 bytes count as they are.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Text that is no passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a passphrase is one line of 1 to {PASSPHRASE_LENGTH_MAX} bytes")]
pub struct PassphraseError;

impl Passphrase {
    /// A passphrase as it was typed, without the end of its line.
    ///
    /// # Errors
    ///
    /// [`PassphraseError`] if it is empty, too long, or has several lines.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        let fits = !text.is_empty() && text.len() <= PASSPHRASE_LENGTH_MAX && !text.contains(['\n', '\r', '\0']);
        if fits { Ok(Self(text)) } else { Err(PassphraseError) }
    }

    /// The passphrase in a file that only its owner may read.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file.
    pub fn load(file: &Path) -> Result<Self, KitError> {
        let text = read_secret(file, PASSPHRASE_FILE_SIZE_BYTES_MAX)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Self::new(Zeroizing::new(line.to_owned()))
            .map_err(|source| KitError::PassphraseFile { file: file.to_owned(), source })
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}
