//! Getting one file into the store from whichever peer has it.

use std::{collections::BTreeSet, io};

use fedledger_ledger::PublicKey;

use super::{BlobStore, partials::Reservation};
use crate::endpoint::{BlobError, Endpoint, Turn, WantedBlob};

/// A file that is looked for at one peer after the other. What was verified stays, so that each goes on where the last one
/// ended; who was found to have another file under this name is not asked again.
#[derive(Debug)]
pub struct Fetch {
    endpoint: Endpoint,
    store: BlobStore,
    wanted: WantedBlob,
    /// Peers whose copy is damaged or made up, and that are not asked again for now.
    blamed: BTreeSet<PublicKey>,
    /// All peers that were ever blamed. They are told so, that they look at what they have.
    doubted: BTreeSet<PublicKey>,
    /// Whether a peer has the file, but not with the beginning that is here.
    differs: bool,
    /// Whether a beginning may have been put aside.
    exchanged: bool,
    /// Held once a peer that was sending the file had to be interrupted: nobody else may send it before this has ended.
    reserved: Option<Reservation>,
}

/// Why a peer did not give the file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Another transfer of the same file is under way.
    #[error("another transfer of this file is under way")]
    UnderWay,
    /// The peer was not asked.
    #[error("the peer gave a damaged copy before")]
    Blamed,
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] BlobError),
    /// The local disk failed.
    #[error("the file cannot be kept: {0}")]
    Store(#[from] io::Error),
}

impl Fetch {
    /// Looks for a file, of at most so many bytes.
    pub fn new(endpoint: Endpoint, store: BlobStore, wanted: WantedBlob) -> Self {
        let (blamed, doubted) = (BTreeSet::new(), BTreeSet::new());
        Self { endpoint, store, wanted, blamed, doubted, differs: false, exchanged: false, reserved: None }
    }

    /// Whether the file is there.
    pub fn is_done(&self) -> bool {
        self.store.has(&self.wanted.digest)
    }

    /// Waits until no other transfer of the file is under way, so that all who want it share one. One that a peer began is
    /// not waited for for ever, and once it had to be interrupted, no peer may begin another while this search goes on.
    pub async fn until_idle(&mut self) {
        if let Some(reserved) = self.store.until_idle(&self.wanted.digest).await {
            self.reserved = Some(reserved);
        }
    }

    /// Tries one peer. The file is in the store when this succeeds.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn from(&mut self, peer: PublicKey) -> Result<(), FetchError> {
        self.from_in_turn(peer, Turn::default()).await
    }

    /// Like [`Self::from`], as one of several transfers, or with less patience for a peer that has this one wait.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn from_in_turn(&mut self, peer: PublicKey, turn: Turn) -> Result<(), FetchError> {
        if self.blamed.contains(&peer) {
            return Err(FetchError::Blamed);
        }
        let (store, wanted) = (self.store.clone(), WantedBlob { doubted: self.doubted.contains(&peer), ..self.wanted });
        let partial = blocking(move || store.begin(&wanted.digest, wanted.size_max)).await?;
        let partial = partial.ok_or(FetchError::UnderWay)?;
        match self.endpoint.get_blob_in_turn(peer, wanted, partial, turn).await {
            Ok(partial) => {
                let store = self.store.clone();
                Ok(blocking(move || store.finish(partial)).await?)
            }
            Err(error) => {
                if error.blames_peer() {
                    tracing::warn!(%peer, %error, digest = %wanted.digest, "a peer's copy of a file is damaged or made up");
                    self.blamed.insert(peer);
                    self.doubted.insert(peer);
                }
                self.differs |= matches!(error, BlobError::Differs(_));
                Err(error.into())
            }
        }
    }

    /// To be called when every peer was tried in vain. If a peer's file begins otherwise than what is here, and nobody else
    /// could go on with that, it is [put aside](super::Partial::exchange): either that peer is wrong or whoever sent the
    /// beginning. Peers whose copy was damaged are asked again: they may have repaired it.
    ///
    /// # Errors
    ///
    /// [`FetchError::Store`].
    pub async fn reconsider(&mut self) -> Result<(), FetchError> {
        self.blamed.clear();
        let differs = std::mem::take(&mut self.differs);
        if differs || self.exchanged {
            self.exchanged = true;
            let (store, wanted) = (self.store.clone(), self.wanted);
            blocking(move || match store.begin(&wanted.digest, wanted.size_max)? {
                // Nothing at all is worse than what was put aside.
                Some(partial) if differs || partial.bytes() == 0 => partial.exchange(),
                _ => Ok(()),
            })
            .await?;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
