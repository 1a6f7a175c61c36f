//! Changing the passphrase of key files, or encrypting and decrypting them for good.

use std::path::{Path, PathBuf};

use fedledger_ledger::SecretKey;

use super::SiteError;
use crate::kit::{
    AUTHORITY_FOLDER, IDENTITY_FOLDER, KEYS_FOLDER, KitFile, PARTICIPANT_FOLDER, REPLICA_FOLDER,
    error::KitError,
    keys::{self, KEY_FILES, next_of},
    passphrase::Passphrase,
    protection::{self, Protection},
    write::replace_file,
};

/// A key file and what it is to become.
struct Change {
    file: PathBuf,
    name: &'static str,
    key: SecretKey,
}

/// Encrypts every key file of a directory with a new passphrase, or with `new` absent stores them in plain form: those
/// of an identity, a node, a member's folder, or of a whole output of provisioning with its authority. `old` is the
/// passphrase of files that are encrypted now. Gives the files that were changed.
///
/// All files are read before the first one is written, so a wrong passphrase changes nothing. Each is replaced at once;
/// after an interruption some have the new form, and the same call finishes the work.
///
/// # Errors
///
/// [`SiteError`], which names the file.
pub fn change_passphrase(
    directory: &Path,
    old: Option<&Passphrase>,
    new: Option<Protection<'_>>,
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<Vec<PathBuf>, SiteError> {
    let mut found = false;
    let mut changes = Vec::new();
    for (file, name) in candidates(directory) {
        match planned(file, name, old, new) {
            Ok(change) => {
                found = true;
                changes.extend(change);
            }
            Err(KitError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !found {
        return Err(KitError::NotAnIdentity { directory: directory.to_owned() }.into());
    }
    for Change { file, name, key } in &changes {
        let bytes = match new {
            Some(protection) => protection::encrypt(key, protection, randomness())?.into_bytes(),
            None => keys::to_text(name, key)?.as_bytes().to_vec(),
        };
        replace_file(file, &KitFile { bytes, secret: true })?;
    }
    Ok(changes.into_iter().map(|change| change.file).collect())
}

/// Every place at which a key file may lie.
fn candidates(directory: &Path) -> impl Iterator<Item = (PathBuf, &'static str)> {
    let folders = [
        PathBuf::new(),
        PathBuf::from(KEYS_FOLDER),
        PathBuf::from(IDENTITY_FOLDER),
        Path::new(REPLICA_FOLDER).join(KEYS_FOLDER),
        Path::new(PARTICIPANT_FOLDER).join(KEYS_FOLDER),
        PathBuf::from(AUTHORITY_FOLDER),
    ];
    folders.into_iter().flat_map(move |folder| {
        let folder = directory.join(folder);
        KEY_FILES.into_iter().flat_map(move |name| {
            let file = folder.join(name);
            [(next_of(&file), name), (file, name)]
        })
    })
}

/// The change of a file; none if it has the wanted form already.
fn planned(
    file: PathBuf,
    name: &'static str,
    old: Option<&Passphrase>,
    new: Option<Protection<'_>>,
) -> Result<Option<Change>, KitError> {
    if !keys::is_encrypted(&file)? {
        let key = keys::read(&file, None)?;
        return Ok(new.is_some().then_some(Change { file, name, key }));
    }
    let with_old = match old {
        Some(_) => keys::read(&file, old),
        None => Err(KitError::Locked { file: file.clone() }),
    };
    match (with_old, new) {
        (Ok(key), _) => Ok(Some(Change { file, name, key })),
        // An earlier run may have come this far.
        (Err(error @ (KitError::WrongPassphrase { .. } | KitError::Locked { .. })), Some(new)) => {
            keys::read(&file, Some(new.passphrase)).map(|_| None).map_err(|_| error)
        }
        (Err(error), _) => Err(error),
    }
}
