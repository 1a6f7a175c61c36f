//! The site's records in memory, as plans describe them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use fedledger_federation::data_description::DataDescription;
use fedledger_ledger::Digest;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{core::DataRef, error::described};
use crate::table::{SiteData, Table};

/// Data sets that stay in memory, beside one that is still trained on: most sites work on one plan at a time, and a second
/// one takes its turn.
pub const DATA_KEPT_MAX: usize = 2;

/// Reads the site's records, one description at a time, and keeps those that were used last.
#[derive(Debug)]
pub struct DataStore {
    source: SiteData,
    /// By the digest of the description, used last at the end.
    kept: Mutex<VecDeque<(Option<Digest>, Arc<Table>)>>,
    reading: Semaphore,
}

impl DataStore {
    /// A store with nothing in memory.
    pub const fn new(source: SiteData) -> Self {
        Self { source, kept: Mutex::new(VecDeque::new()), reading: Semaphore::const_new(1) }
    }

    /// Where the records come from.
    pub const fn source(&self) -> &SiteData {
        &self.source
    }

    /// Reads the records as the schema itself describes them, if it does, and keeps them. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`](crate::table::OpenError): what is wrong with them.
    pub fn read_own(&self) -> Result<Option<Arc<Table>>, crate::table::OpenError> {
        if self.source.schema().description().is_none() {
            return Ok(None);
        }
        let table = Arc::new(self.source.read(None)?);
        tell(None, &table);
        self.keep(None, &table);
        Ok(Some(table))
    }

    /// The records as they are described; read, if they are not in memory. None once cancelled.
    ///
    /// # Errors
    ///
    /// Why they cannot be read, in words that others may know.
    pub async fn obtain(
        &self,
        description: Option<&DataDescription>,
        stop: &CancellationToken,
    ) -> Option<Result<Arc<Table>, String>> {
        let id = description.map(DataDescription::digest);
        if let Some(table) = self.find(id) {
            return Some(Ok(table));
        }
        // Nobody closes the semaphore.
        let _permit = stop.run_until_cancelled(self.reading.acquire()).await?.ok()?;
        if let Some(table) = self.find(id) {
            return Some(Ok(table));
        }
        let (source, wanted, wanted_still) = (self.source.clone(), description.cloned(), stop.clone());
        let read = move || source.read_while(wanted.as_ref(), &|| !wanted_still.is_cancelled());
        let read = stop.run_until_cancelled(tokio::task::spawn_blocking(read)).await?;
        Some(match read {
            Ok(Ok(table)) => {
                let table = Arc::new(table);
                tell(id, &table);
                self.keep(id, &table);
                Ok(table)
            }
            Ok(Err(error)) => Err(self.refused(&described(&error), error.told())),
            // What a damaged file makes of a library that reads it is no reason to stop the node.
            Err(error) => Err(self.refused(&error, "their file is damaged".to_owned())),
        })
    }

    /// The records that a task needs, as they were when they were read first. None once cancelled.
    ///
    /// # Errors
    ///
    /// Why they cannot be read, or that they are others now, in words that others may know.
    pub async fn obtain_unchanged(
        &self,
        data: &DataRef,
        stop: &CancellationToken,
    ) -> Option<Result<Arc<Table>, String>> {
        let unchanged = |table: Arc<Table>| {
            if table.manifest.digest() == data.manifest {
                return Ok(table);
            }
            let told = "they have changed since the node read them, and it was not started again".to_owned();
            Err(self.refused(&"start the node again", told))
        };
        Some(self.obtain(data.description.as_ref(), stop).await?.and_then(unchanged))
    }

    /// Says at length here what is wrong, and returns what others are told of it.
    fn refused(&self, why: &dyn std::fmt::Display, told: String) -> String {
        tracing::warn!(records = %self.source.path().display(), %why, told, "the site's records cannot be used");
        told
    }

    fn find(&self, id: Option<Digest>) -> Option<Arc<Table>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().position(|(kept, _)| *kept == id)?;
        let found = kept.remove(position)?;
        let table = Arc::clone(&found.1);
        kept.push_back(found);
        Some(table)
    }

    fn keep(&self, id: Option<Digest>, table: &Arc<Table>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(kept, _)| *kept != id);
        kept.push_back((id, Arc::clone(table)));
        while kept.len() > DATA_KEPT_MAX {
            kept.pop_front();
        }
    }
}

/// Logs what was read, and aloud what was skipped.
fn tell(description: Option<Digest>, table: &Table) {
    let manifest = &table.manifest;
    let (train, test, incomplete) = (manifest.train_rows, manifest.test_rows, manifest.dropped_rows);
    let description = description.map_or_else(|| "the schema's own".to_owned(), |digest| digest.to_string());
    tracing::info!(description, train, test, incomplete, features = manifest.feature_count, "the records were read");
    for (reason, rows) in &manifest.skipped_rows {
        tracing::warn!(description, reason, rows, "records were skipped because they cannot be read");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A site whose schema says nothing of its records, and descriptions of one of their columns each.
    fn site(folder: &std::path::Path) -> (DataStore, [DataDescription; 3]) {
        let (table, schema) = (folder.join("data.csv"), folder.join("schema.toml"));
        fs::write(&table, "a,b,c,sick\n1,2,3,1\n4,5,6,0\n").unwrap();
        fs::write(&schema, "").unwrap();
        let descriptions = ["a", "b", "c"].map(|column| {
            let text = format!(
                "kind = \"table\"\nmissing = \"error\"\nnormalize = \"none\"\n\
                 label = {{ column = \"sick\", positive_when = {{ equals = [\"1\"] }} }}\n\
                 features = [{{ kind = \"numeric\", column = \"{column}\" }}]"
            );
            toml::from_str(&text).unwrap()
        });
        (DataStore::new(SiteData::open(&table, &schema).unwrap()), descriptions)
    }

    async fn read(store: &DataStore, description: Option<&DataDescription>) -> Result<Arc<Table>, String> {
        store.obtain(description, &CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [a, ..]) = site(folder.path());
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(store.obtain(Some(&a), &stop).await.is_none());
        let interrupted = store.source.read_while(Some(&a), &|| false).unwrap_err();
        assert!(described(&interrupted).contains("interrupted"), "{interrupted:?}");
    }

    #[tokio::test]
    async fn no_more_data_sets_stay_in_memory_than_said() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [a, b, c]) = site(folder.path());
        assert!(store.read_own().unwrap().is_none());
        let first = read(&store, Some(&a)).await.unwrap();
        assert_eq!(first.train.features(), [1.0, 4.0]);
        assert!(Arc::ptr_eq(&first, &read(&store, Some(&a)).await.unwrap()), "it is read once");
        read(&store, Some(&b)).await.unwrap();
        read(&store, Some(&a)).await.unwrap();
        read(&store, Some(&c)).await.unwrap();
        assert_eq!(store.kept.lock().unwrap().len(), DATA_KEPT_MAX);
        assert!(store.find(Some(b.digest())).is_none(), "what was used longest ago goes first");
        assert!(Arc::ptr_eq(&first, &store.find(Some(a.digest())).unwrap()));
    }

    #[tokio::test]
    async fn records_that_have_changed_are_not_taken_for_those_that_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, [a, b, c]) = site(folder.path());
        let manifest = read(&store, Some(&a)).await.unwrap().manifest.digest();
        let data = DataRef { description: Some(a.clone()), manifest };
        assert!(store.obtain_unchanged(&data, &CancellationToken::new()).await.unwrap().is_ok());
        fs::write(folder.path().join("data.csv"), "a,b,c,sick\n1,2,3,1\n4,5,6,1\n").unwrap();
        for other in [&b, &c] {
            read(&store, Some(other)).await.unwrap();
        }
        let error = store.obtain_unchanged(&data, &CancellationToken::new()).await.unwrap().unwrap_err();
        assert!(error.contains("have changed since the node read them"), "{error}");
        fs::remove_file(folder.path().join("data.csv")).unwrap();
        assert!(read(&store, Some(&a)).await.is_ok(), "what is in memory is not read");
        let error = read(&store, Some(&b)).await.unwrap_err();
        assert_eq!(error, "their file cannot be read");
    }
}
