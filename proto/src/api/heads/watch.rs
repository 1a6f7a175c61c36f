//! What was seen of the log: the newest final head, and the epochs that lead to it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fedledger_federation::history::origin;
use fedledger_ledger::{
    Digest, PublicKey,
    checkpoint::Checkpoint,
    epoch::{EpochChain, EpochLink, EpochLinkError, Epochs},
    evidence::Evidence,
    note::{NoteError, SignedNote, VerifierKey},
};

use super::super::metadata::HeadId;
use crate::kit::{GenesisFile, KitError, SeenHeads};

/// How often the newest head is written to the disk while calls go on. The last one is written when the client goes.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// A head that was seen, and found to be final.
#[derive(Debug)]
pub(in crate::api) struct Known {
    pub head: Checkpoint,
    pub note: SignedNote,
}

impl Known {
    /// The head without its signatures.
    pub fn id(&self) -> HeadId {
        HeadId::from(&self.head)
    }
}

/// What a client, all of its clones, and its connections to other replicas have seen of the log.
#[derive(Debug)]
pub(in crate::api) struct HeadWatch {
    chain: Digest,
    origin: String,
    /// Where it is kept, if on the disk.
    store: Option<SeenHeads>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Option<Arc<Known>>,
    /// Every epoch that the one before vouches for, from that of the genesis file on.
    epochs: Epochs,
    /// How that was shown.
    links: Vec<EpochLink>,
    /// Entries under the head that is on the disk.
    saved_size: u64,
    saved_at: Option<Instant>,
    /// Whether it has been said that nothing can be kept.
    told: bool,
}

impl HeadWatch {
    /// Goes on from what `store` holds, or from the genesis file alone.
    ///
    /// # Errors
    ///
    /// [`KitError`] if the last head cannot be read.
    pub fn new(genesis: &GenesisFile, store: Option<SeenHeads>) -> Result<Self, KitError> {
        let (origin, first) = (origin(&genesis.genesis), genesis.genesis.epoch());
        let known = store.as_ref().map(SeenHeads::last).transpose()?.flatten();
        let known = match (known, &store) {
            (Some(note), Some(store)) => {
                let head = Checkpoint::parse(note.text()).ok().filter(|head| head.origin() == origin);
                Some(Known { head: head.ok_or_else(|| store.no_head())?, note })
            }
            _ => None,
        };
        // The chain follows from the genesis file: a damaged one is asked for again.
        let chain = store.as_ref().and_then(SeenHeads::epochs).unwrap_or_default();
        let (epochs, links) = match chain.verify(&origin, &first) {
            Ok(epochs) => (epochs, chain.links().to_vec()),
            Err(error) => {
                tracing::warn!(%error, "the chain of epochs that was kept does not hold: it is asked for again");
                (Epochs::first(&origin, first), Vec::new())
            }
        };
        let saved_size = known.as_ref().map_or(0, |known| known.head.size());
        let known = known.map(Arc::new);
        let state = State { known, epochs, links, saved_size, saved_at: None, told: false };
        Ok(Self { chain: genesis.chain, origin, store, state: Mutex::new(state) })
    }

    /// SHA-256 of the genesis file.
    pub const fn chain(&self) -> Digest {
        self.chain
    }

    /// Identity of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The newest final head that was seen.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.state().known.clone()
    }

    /// Whether the replicas of its epoch have made a head final.
    pub fn is_final(&self, head: &Checkpoint, note: &SignedNote) -> Result<bool, NoteError> {
        let state = self.state();
        let Some(epoch) = state.epochs.of_head(head.size()) else { return Ok(false) };
        Ok(epoch.vouchers(&self.origin, note)?.is_final(epoch))
    }

    /// Remembers a final head that goes on from `known`, if it is larger. Where another head has become known meanwhile, that
    /// one is given back: the new one is to be compared with it as well.
    pub fn take(&self, known: Option<&Known>, head: Checkpoint, note: SignedNote) -> Result<(), Arc<Known>> {
        let mut state = self.state();
        if let Some(current) = &state.known
            && known.map(Known::id) != Some(current.id())
        {
            return Err(Arc::clone(current));
        }
        if known.is_some_and(|known| known.head.size() >= head.size()) {
            return Ok(());
        }
        state.known = Some(Arc::new(Known { head, note }));
        if state.saved_at.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL) {
            self.save(&mut state);
        }
        Ok(())
    }

    /// Number of the last epoch that is known.
    pub fn epoch(&self) -> u64 {
        self.state().epochs.newest().number
    }

    /// Goes on to later epochs, all of them or none; false if there is none among `links`.
    pub fn extend(&self, links: Vec<EpochLink>) -> Result<bool, EpochLinkError> {
        let mut epochs = self.state().epochs.clone();
        let from = epochs.newest().number;
        for link in &links {
            epochs.extend(link)?;
        }
        let mut state = self.state();
        // Another call may have come first.
        if links.is_empty() || state.epochs.newest().number != from {
            return Ok(!links.is_empty());
        }
        state.epochs = epochs;
        state.links.extend(links);
        if let (Some(store), Ok(chain)) = (&self.store, EpochChain::new(state.links.clone()))
            && let Err(error) = store.remember_epochs(&chain)
        {
            tracing::warn!(%error, "the chain of epochs cannot be kept in {}", store.directory().display());
        }
        Ok(true)
    }

    /// Name of the replica that signs transactions and promises with a key, in the last epoch that is known.
    pub fn replica_of_author(&self, author: &PublicKey) -> Option<String> {
        self.state().epochs.newest().replica_of_author(author).map(str::to_owned)
    }

    /// Every key that may sign heads, of any epoch.
    pub fn keys(&self) -> Vec<VerifierKey> {
        let state = self.state();
        let policies = state.epochs.iter().filter_map(|(_, epoch)| epoch.policy(&self.origin).ok());
        let keys = policies.flat_map(|policy| {
            let witnesses = policy.witnesses().iter().map(|witness| witness.key.clone());
            policy.logs().iter().map(|log| log.key.clone()).chain(witnesses).collect::<Vec<_>>()
        });
        keys.collect()
    }

    /// Keeps two notes that contradict each other, and evidence; the files.
    pub fn keep_conflict(&self, known: &SignedNote, served: &SignedNote, evidence: Option<&Evidence>) -> Vec<PathBuf> {
        let Some(store) = &self.store else { return Vec::new() };
        store.keep_conflict(known, served, evidence).unwrap_or_else(|error| {
            tracing::error!(%error, "two heads that contradict each other cannot be kept as files");
            Vec::new()
        })
    }

    fn save(&self, state: &mut State) {
        let (Some(store), Some(known)) = (&self.store, &state.known) else { return };
        if known.head.size() <= state.saved_size {
            return;
        }
        state.saved_at = Some(Instant::now());
        match store.remember(&known.note) {
            Ok(()) => state.saved_size = known.head.size(),
            Err(error) if !std::mem::replace(&mut state.told, true) => {
                let directory = store.directory().display();
                tracing::warn!(%error, "the newest head of the log cannot be remembered in {directory}");
            }
            Err(_) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeadWatch {
    fn drop(&mut self) {
        self.save(&mut self.state());
    }
}
