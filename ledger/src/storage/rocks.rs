//! Storage on disk: one RocksDB with a column family per [`Column`]. The only IO of this crate.

use std::path::Path;

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind, IteratorMode,
    Options, WriteBatch, WriteOptions,
};

use super::{Batch, Column, LogStorage, Record, StorageError, Write};

/// A RocksDB in a directory of its own; see the module's documentation.
pub struct RocksStorage {
    db: DB,
}

impl std::fmt::Debug for RocksStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksStorage({})", self.db.path().display())
    }
}

/// Memory of one column's unflushed writes, in bytes.
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Size at which RocksDB starts a new write-ahead log, in bytes, over all columns.
const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl RocksStorage {
    /// Opens the database in `path`, creating it where there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] where another process holds it, otherwise what RocksDB reports.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let columns = Column::ALL.map(|column| ColumnFamilyDescriptor::new(column.name(), column_options()));
        let db = DB::open_cf_descriptors(&options, path, columns).map_err(|error| open_error(path, &error))?;
        Ok(Self { db })
    }

    /// Opens the database of a stopped or running node for reading; it sees what had been written at that moment.
    ///
    /// # Errors
    ///
    /// [`StorageError::Missing`] where there is none, otherwise what RocksDB reports.
    pub fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        if !path.join("CURRENT").exists() {
            return Err(StorageError::Missing { path: path.display().to_string() });
        }
        let names = Column::ALL.map(Column::name);
        let db = DB::open_cf_for_read_only(&options(), path, names, false).map_err(|error| open_error(path, &error))?;
        Ok(Self { db })
    }

    fn family(&self, column: Column) -> Result<&ColumnFamily, StorageError> {
        let missing = || StorageError::Corrupt(format!("column {} is missing", column.name()));
        self.db.cf_handle(column.name()).ok_or_else(missing)
    }
}

impl LogStorage for RocksStorage {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.db.get_cf(self.family(column)?, key).map_err(|error| storage_error(&error))
    }

    fn scan(&self, column: Column, from: &[u8], limit: usize) -> Result<Vec<Record>, StorageError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let records = self.db.iterator_cf(self.family(column)?, mode).take(limit);
        records
            .map(|record| match record {
                Ok((key, value)) => Ok((key.into_vec(), value.into_vec())),
                Err(error) => Err(storage_error(&error)),
            })
            .collect()
    }

    fn write(&self, batch: &Batch, durable: bool) -> Result<(), StorageError> {
        let mut writes = WriteBatch::default();
        for write in batch.writes() {
            match write {
                Write::Put(column, key, value) => writes.put_cf(self.family(*column)?, key, value),
                Write::Delete(column, key) => writes.delete_cf(self.family(*column)?, key),
                Write::DeleteRange(column, from, to) => writes.delete_range_cf(self.family(*column)?, from, to),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durable);
        self.db.write_opt(writes, &options).map_err(|error| storage_error(&error))
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    // A flush covers all columns, so that they can never differ after a crash.
    options.set_atomic_flush(true);
    // A torn tail is what a crash leaves; damage before it must stop the node, or acknowledged votes and entries were lost
    // without a word.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // Logs of RocksDB itself stay small and few.
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1024 * 1024);
    options
}

fn column_options() -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options
}

fn open_error(path: &Path, error: &rocksdb::Error) -> StorageError {
    // RocksDB reports a held lock as an IO error whose text names the LOCK file.
    if error.kind() == ErrorKind::IOError && error.as_ref().contains("lock") {
        return StorageError::InUse { path: path.display().to_string() };
    }
    storage_error(error)
}

fn storage_error(error: &rocksdb::Error) -> StorageError {
    match error.kind() {
        ErrorKind::Corruption => StorageError::Corrupt(error.to_string()),
        _ => StorageError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{memory::MemoryStorage, scan_all};

    fn exercise(storage: &dyn LogStorage) {
        let mut batch = Batch::default();
        for i in 0..3000u64 {
            batch.put(Column::Leaf, i.to_be_bytes(), i.to_le_bytes());
        }
        batch.put(Column::Node, [0], [1]);
        batch.push(Write::DeleteRange(Column::Leaf, 10u64.to_be_bytes().into(), 20u64.to_be_bytes().into()));
        batch.delete(Column::Leaf, 2u64.to_be_bytes());
        storage.write(&batch, true).unwrap();
        let found: Vec<u64> = scan_all(storage, Column::Leaf, Vec::new())
            .map(|record| u64::from_le_bytes(record.unwrap().1.try_into().unwrap()))
            .collect();
        let expected: Vec<u64> = (0..3000).filter(|i| *i != 2 && !(10..20).contains(i)).collect();
        assert_eq!(found, expected);
        assert_eq!(storage.get(Column::Node, &[0]).unwrap(), Some(vec![1]));
        assert_eq!(storage.get(Column::Leaf, &[0]).unwrap(), None);
    }

    #[test]
    fn both_sides_of_the_seam_behave_alike() {
        let directory = tempfile::tempdir().unwrap();
        exercise(&RocksStorage::open(directory.path()).unwrap());
        exercise(&MemoryStorage::default());
    }

    #[test]
    fn a_second_process_is_refused_and_readers_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = RocksStorage::open(directory.path()).unwrap();
        let mut batch = Batch::default();
        batch.put(Column::Meta, *b"key", *b"value");
        first.write(&batch, true).unwrap();
        assert!(matches!(RocksStorage::open(directory.path()), Err(StorageError::InUse { .. })));
        let reader = RocksStorage::open_read_only(directory.path()).unwrap();
        assert_eq!(reader.get(Column::Meta, b"key").unwrap().as_deref(), Some(b"value".as_slice()));
    }

    #[test]
    fn an_empty_directory_has_no_ledger_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let error = RocksStorage::open_read_only(directory.path()).unwrap_err();
        assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    }

    #[test]
    fn a_crash_forgets_what_was_not_durable() {
        let storage = MemoryStorage::default();
        for (key, durable) in [(1u8, false), (2, true), (3, false)] {
            let mut batch = Batch::default();
            batch.put(Column::Meta, [key], [key]);
            storage.write(&batch, durable).unwrap();
        }
        storage.crash();
        let kept: Vec<bool> = (1..=3).map(|key| storage.get(Column::Meta, &[key]).unwrap().is_some()).collect();
        assert_eq!(kept, [true, true, false]);
    }
}
