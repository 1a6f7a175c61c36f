//! Reading the files of a kit: bounded, and secrets only if nobody else can read them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fedledger_federation::member::Genesis;
use fedledger_ledger::{Digest, limits::GENESIS_SIZE_BYTES_MAX};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{GENESIS_FILE, error::KitError};

/// Largest file that people write, in bytes. A `node.toml` names every replica.
const TEXT_SIZE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The genesis file of a kit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisFile {
    /// What it says.
    pub genesis: Genesis,
    /// Its bytes, entry 0 of the log.
    pub bytes: Vec<u8>,
    /// Their SHA-256, the chain id.
    pub chain: Digest,
}

impl GenesisFile {
    /// Loads and checks a genesis file.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file.
    pub fn load(file: &Path) -> Result<Self, KitError> {
        let bytes = read(file, GENESIS_SIZE_BYTES_MAX as u64)?;
        let genesis = Genesis::parse(&bytes).map_err(|source| KitError::Genesis { file: file.to_owned(), source })?;
        Ok(Self { genesis, chain: Digest::of(&bytes), bytes })
    }

    /// Loads the genesis file of a kit.
    pub(super) fn of_kit(directory: &Path) -> Result<Self, KitError> {
        Self::load(&directory.join(GENESIS_FILE))
    }
}

/// The bytes of a file of at most `limit` bytes.
pub(super) fn read(file: &Path, limit: u64) -> Result<Vec<u8>, KitError> {
    read_opened(&open(file)?, file, limit)
}

/// The text of a secret file.
pub(super) fn read_secret(file: &Path, limit: u64) -> Result<Zeroizing<String>, KitError> {
    let opened = open(file)?;
    check_permissions(&opened, file)?;
    text(read_opened(&opened, file, limit)?, file).map(Zeroizing::new)
}

/// The text of a file that people write, or of a certificate.
pub(super) fn read_text(file: &Path) -> Result<String, KitError> {
    text(read(file, TEXT_SIZE_BYTES_MAX)?, file)
}

/// What a TOML file says.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str, file: &Path) -> Result<T, KitError> {
    toml::from_str(text).map_err(|source| KitError::Toml { file: file.to_owned(), source: Box::new(source) })
}

fn open(file: &Path) -> Result<File, KitError> {
    File::open(file).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KitError::Missing { file: file.to_owned() },
        _ => KitError::Read { file: file.to_owned(), source },
    })
}

fn read_opened(opened: &File, file: &Path, limit: u64) -> Result<Vec<u8>, KitError> {
    let mut bytes = Vec::new();
    let read = opened.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    let size = read.map_err(|source| KitError::Read { file: file.to_owned(), source })?;
    if size as u64 > limit {
        return Err(KitError::TooLarge { file: file.to_owned(), limit });
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>, file: &Path) -> Result<String, KitError> {
    String::from_utf8(bytes).map_err(|_| KitError::Read {
        file: PathBuf::from(file),
        source: io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"),
    })
}

/// Refuses a secret that the group or the world can read, write or execute. The opened file is asked, so that nobody
/// can exchange it in between.
#[cfg(unix)]
fn check_permissions(opened: &File, file: &Path) -> Result<(), KitError> {
    use std::os::unix::fs::PermissionsExt as _;

    /// Permission bits of everybody but the owner.
    const OTHERS: u32 = 0o077;
    let metadata = opened.metadata().map_err(|source| KitError::Read { file: file.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 { Ok(()) } else { Err(KitError::Permissions { file: file.to_owned(), mode }) }
}

/// Elsewhere, who may read a file is not a matter of mode bits.
#[cfg(not(unix))]
fn check_permissions(_: &File, _: &Path) -> Result<(), KitError> {
    Ok(())
}
