//! Signed checkpoint notes in the storage: the last one of each signer.

use super::{Batch, Column, LogStorage, StorageError, scan_all};
use crate::note::SignedNote;

/// What the keys of notes begin with, among the single values; the signer's name follows.
const META_NOTE: &[u8] = b"note/";

/// Keeps `note` as the last one that `signer` has signed.
pub fn put_note(batch: &mut Batch, signer: &str, note: &SignedNote) {
    batch.put(Column::Meta, [META_NOTE, signer.as_bytes()].concat(), note.to_string());
}

/// The last note of each signer, encoded, by the signers' names.
///
/// # Errors
///
/// [`StorageError`]; [`StorageError::Corrupt`] for a note that is not text.
pub fn read_notes<S: LogStorage + ?Sized>(storage: &S) -> Result<Vec<String>, StorageError> {
    let not_text = |_| StorageError::Corrupt("a checkpoint note is not text".to_owned());
    let mut notes = Vec::new();
    for record in scan_all(storage, Column::Meta, META_NOTE.to_vec()) {
        let (key, value) = record?;
        if !key.starts_with(META_NOTE) {
            break;
        }
        notes.push(String::from_utf8(value).map_err(not_text)?);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::SecretKey, note::sign_note, storage::memory::MemoryStorage};

    #[test]
    fn the_last_note_of_each_signer_is_kept() {
        let storage = MemoryStorage::default();
        let mut batch = Batch::default();
        batch.put(Column::Meta, b"nose".as_slice(), b"before".as_slice());
        batch.put(Column::Meta, b"position".as_slice(), b"behind".as_slice());
        let note = |signer: &str, text: &str| sign_note(text, signer, &SecretKey::from_seed([1; 32])).unwrap();
        put_note(&mut batch, "b/replica", &note("b/replica", "one\n"));
        put_note(&mut batch, "a/replica", &note("a/replica", "two\n"));
        put_note(&mut batch, "b/replica", &note("b/replica", "three\n"));
        storage.write(&batch, true).unwrap();
        let expected = [note("a/replica", "two\n").to_string(), note("b/replica", "three\n").to_string()];
        assert_eq!(read_notes(&storage).unwrap(), expected);
    }
}
