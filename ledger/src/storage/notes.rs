//! Signed checkpoint notes in the storage, by what they are kept for.

use super::{Batch, Column, LogStorage, StorageError, scan_all};

/// What the keys of notes begin with, among the single values; the name follows.
const META_NOTE: &[u8] = b"note/";

/// Under which name the note is kept by which the replicas of the epoch before vouch for this one.
pub fn epoch_note(number: u64) -> String {
    format!("epoch/{number:020}")
}

/// Keeps `note`, encoded, under a name.
pub fn put_note(batch: &mut Batch, name: &str, note: &str) {
    batch.put(Column::Meta, [META_NOTE, name.as_bytes()].concat(), note);
}

/// The note that is kept under a name, encoded.
///
/// # Errors
///
/// [`StorageError`]; [`StorageError::Corrupt`] for a note that is not text.
pub fn read_note<S: LogStorage + ?Sized>(storage: &S, name: &str) -> Result<Option<String>, StorageError> {
    let note = storage.get(Column::Meta, &[META_NOTE, name.as_bytes()].concat())?;
    note.map(String::from_utf8).transpose().map_err(not_text)
}

/// Every note, encoded, by name.
///
/// # Errors
///
/// [`StorageError`]; [`StorageError::Corrupt`] for a note that is not text.
pub fn read_notes<S: LogStorage + ?Sized>(storage: &S) -> Result<Vec<String>, StorageError> {
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

fn not_text(_: std::string::FromUtf8Error) -> StorageError {
    StorageError::Corrupt("a checkpoint note is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn the_last_note_of_each_name_is_kept() {
        let storage = MemoryStorage::default();
        let mut batch = Batch::default();
        batch.put(Column::Meta, b"nose".as_slice(), b"before".as_slice());
        batch.put(Column::Meta, b"position".as_slice(), b"behind".as_slice());
        put_note(&mut batch, "head", "one");
        put_note(&mut batch, "final", "two");
        put_note(&mut batch, "head", "three");
        storage.write(&batch, true).unwrap();
        assert_eq!(read_notes(&storage).unwrap(), ["two", "three"]);
        assert_eq!(read_note(&storage, "head").unwrap().as_deref(), Some("three"));
        assert_eq!(read_note(&storage, "epoch/1").unwrap(), None);
    }
}
