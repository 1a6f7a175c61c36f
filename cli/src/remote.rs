//! The history of a running replica, read over its API.

use std::{
    cell::Cell,
    io::{self, Read, Seek as _},
    iter,
};

use fedledger_federation::history::{self, EncodedNote, Leaves, SourceError};
use fedledger_ledger::{Digest, bundle::BUNDLE_BLOB_SIZE_BYTES_MAX};
use fedledger_proto::api::{ApiClient, ApiCode, ApiError, NodeStatus};
use tokio::runtime::Handle;

/// A running replica as a source. Its calls block and must not be made from within the runtime.
#[derive(Debug)]
pub(crate) struct RemoteSource {
    client: ApiClient,
    runtime: Handle,
    /// Whether it has been said that updates are not shown to this member.
    told: Cell<bool>,
}

impl RemoteSource {
    /// The replica that `client` is connected with.
    pub const fn new(client: ApiClient, runtime: Handle) -> Self {
        Self { client, runtime, told: Cell::new(false) }
    }

    /// Where the replica stands.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub fn status(&self) -> Result<NodeStatus, ApiError> {
        self.runtime.block_on(self.client.status())
    }

    /// The file goes to disk, not to memory: it may be as large as a model.
    fn download(&self, digest: &Digest) -> Result<io::Result<std::fs::File>, ApiError> {
        let file = match tempfile::tempfile() {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let copy = match file.try_clone() {
            Ok(copy) => copy,
            Err(error) => return Ok(Err(error)),
        };
        let mut target = tokio::fs::File::from_std(copy);
        self.runtime.block_on(self.client.download(digest, BUNDLE_BLOB_SIZE_BYTES_MAX, &mut target))?;
        let mut file = file;
        Ok(file.rewind().map(|()| file))
    }
}

impl history::Source for RemoteSource {
    fn genesis(&self) -> Result<Vec<u8>, SourceError> {
        self.runtime.block_on(self.client.genesis()).map_err(failed)
    }

    fn leaves(&self) -> Result<Leaves<'_>, SourceError> {
        let mut entries = self.client.entries(1, false);
        let next = move || {
            let entry = self.runtime.block_on(entries.next()).map_err(failed).transpose()?;
            Some(entry.map(|entry| entry.bytes.to_vec()))
        };
        Ok(Box::new(iter::from_fn(next)))
    }

    /// The newest final head, and every note by which the replicas of an epoch have vouched for the next: without them, only
    /// heads of the first epoch would be known to be final.
    fn notes(&self) -> Result<Vec<EncodedNote>, SourceError> {
        let newest = self.runtime.block_on(self.client.checkpoint()).map_err(failed)?;
        // They come second, so that no epoch is missing up to that of the head.
        let links = self.runtime.block_on(self.client.epoch_links(0)).map_err(failed)?;
        let notes = links.iter().map(|link| link.receipt.checkpoint()).chain(&newest);
        Ok(notes.map(|note| EncodedNote { offset: None, text: note.to_string() }).collect())
    }

    fn is_at_rest(&self) -> bool {
        false
    }

    fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        match self.download(digest) {
            Ok(file) => Ok(Some(Box::new(file?))),
            Err(ApiError::Refused(refused)) if refused.code == ApiCode::NotFound => Ok(None),
            Err(ApiError::Refused(refused)) if refused.code == ApiCode::NotPermitted => {
                if !self.told.replace(true) {
                    tracing::warn!("some files are not shown to this member: {}", refused.message);
                }
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The error keeps what the API said, for whoever tells people.
fn failed(error: ApiError) -> SourceError {
    SourceError::Io(io::Error::other(error))
}
