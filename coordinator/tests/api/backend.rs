//! A ledger in memory that accepts everything it is not told to refuse.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io::Cursor,
    sync::{Mutex, RwLock},
};

use bytes::Bytes;
use fedledger_coordinator::{
    api::{Backend, Blob, Caller, ReadError, Recorded, StateAnswer, SubmitError, SubmitOutcome},
    checkpoints::{CheckpointFailure, Latest},
    replica::Finalized,
};
use fedledger_federation::member::{Genesis, MemberId};
use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    checkpoint::Checkpoint,
    epoch::EpochLink,
    intake::IntakeReceipt,
    leaf::{Leaf, Outcome},
    map::StateMap,
    note::SignedNote,
};
use fedledger_proto::{
    api::{HeadAnswer, HeadId, Level, NewerHead, NodeStatus, PeerStatus, RaftRole, SealStatus},
    kit::GenesisFile,
};
use tokio::sync::watch;

/// What every state of the API's tests can be set up from.
#[derive(Debug)]
pub struct MemoryLedger {
    genesis: GenesisFile,
    leaves: Mutex<Vec<Bytes>>,
    sizes: watch::Sender<u64>,
    pub finality: watch::Sender<Finalized>,
    /// Submissions that are left without an answer.
    pub stalled: Mutex<u64>,
    /// Heads that were shown to it.
    pub shown: Mutex<Vec<Option<String>>>,
    /// The proof that the checkpoint extends what was shown, or nothing for a contradiction.
    pub consistency: Mutex<Option<Vec<Digest>>>,
    /// Records of the state.
    pub records: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    members: RwLock<HashMap<PublicKey, Caller>>,
    /// Errors to answer the next submissions with.
    refusals: Mutex<VecDeque<SubmitError>>,
    /// Code and reason to reject the next transaction with.
    rejection: Mutex<Option<(String, String)>>,
    pub checkpoint: Mutex<Option<String>>,
    /// Heads that calls have shown.
    pub known: Mutex<Vec<HeadId>>,
    /// Roots of the log that it says it has.
    pub roots: Mutex<BTreeMap<u64, Digest>>,
    /// Whether it says which head it has without showing it.
    pub withholds: Mutex<bool>,
    /// The audit path of every entry, if it is not to be made up.
    pub path: Mutex<Option<Vec<Digest>>>,
    /// Links of the chain of epochs, with the epochs' numbers.
    pub links: Mutex<Vec<(u64, EpochLink)>>,
    /// The epoch that it says is in force.
    pub epoch: Mutex<u64>,
    pub blobs: RwLock<BTreeMap<Digest, StoredBlob>>,
    pub raw_updates: RwLock<BTreeSet<Digest>>,
}

/// A blob, and what is said of its size.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    pub size: u64,
    pub bytes: Bytes,
}

impl MemoryLedger {
    pub fn new(genesis: GenesisFile) -> Self {
        let members = genesis
            .genesis
            .members
            .iter()
            .map(|member| (member.api_key, Caller { member: member.id.clone(), roles: member.roles.clone() }));
        Self {
            leaves: Mutex::new(vec![genesis.bytes.clone().into()]),
            sizes: watch::Sender::new(1),
            finality: watch::Sender::new(Finalized::default()),
            stalled: Mutex::default(),
            shown: Mutex::default(),
            consistency: Mutex::default(),
            records: RwLock::default(),
            members: RwLock::new(members.collect()),
            refusals: Mutex::default(),
            rejection: Mutex::default(),
            checkpoint: Mutex::default(),
            known: Mutex::default(),
            roots: Mutex::default(),
            withholds: Mutex::default(),
            path: Mutex::default(),
            links: Mutex::default(),
            epoch: Mutex::default(),
            blobs: RwLock::default(),
            raw_updates: RwLock::default(),
            genesis,
        }
    }

    pub fn genesis_of(&self) -> &Genesis {
        &self.genesis.genesis
    }

    pub fn size(&self) -> u64 {
        *self.sizes.borrow()
    }

    /// How many entries there are, as it changes.
    pub fn sizes(&self) -> watch::Receiver<u64> {
        self.sizes.subscribe()
    }

    /// Lets so many entries be final and unanimous.
    pub fn finalize(&self, final_size: u64, unanimous_size: u64) {
        self.finality.send_replace(Finalized { final_size, unanimous_size, time_s: Some(1_700_000_000) });
    }

    /// Appends an accepted entry.
    pub fn append(&self, envelope: &[u8]) -> Recorded {
        let rejection = self.rejection.lock().unwrap().take();
        let mut leaves = self.leaves.lock().unwrap();
        let index = leaves.len() as u64;
        let (outcome, reason) = match rejection {
            None => (Outcome::Accepted, None),
            Some((code, reason)) => (Outcome::Rejected(code), Some(reason)),
        };
        let write_set = Digest::default();
        let leaf = Leaf { index, raft_index: index + 1, envelope: envelope.to_vec(), outcome, write_set, seal: None };
        let leaf = Bytes::from(leaf.to_bytes());
        leaves.push(leaf.clone());
        self.sizes.send_replace(index + 1);
        Recorded { index, leaf, reason, level: Level::Committed }
    }

    pub fn refuse_next(&self, errors: impl IntoIterator<Item = SubmitError>) {
        self.refusals.lock().unwrap().extend(errors);
    }

    pub fn reject_next(&self, code: &str, reason: &str) {
        *self.rejection.lock().unwrap() = Some((code.to_owned(), reason.to_owned()));
    }

    /// Takes the API key from a member, in effect from the next entry on.
    pub fn revoke(&self, member: &str) {
        self.members.write().unwrap().retain(|_, caller| caller.member != member);
        self.append(b"revoke");
    }

    pub fn store(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs.write().unwrap().insert(digest, StoredBlob { size: bytes.len() as u64, bytes });
        digest
    }
}

impl Backend for MemoryLedger {
    async fn submit(&self, envelope: Bytes, wait: Level, member: &MemberId) -> Result<SubmitOutcome, SubmitError> {
        if let Some(error) = self.refusals.lock().unwrap().pop_front() {
            return Err(error);
        }
        let stalls = {
            let mut stalled = self.stalled.lock().unwrap();
            let stalls = *stalled > 0;
            *stalled = stalled.saturating_sub(1);
            stalls
        };
        if stalls {
            std::future::pending::<()>().await;
        }
        if wait == Level::Accepted {
            assert_eq!(member, "budapest", "the submission is on the wrong account");
            let transaction = Digest::of(&envelope);
            let receipt = IntakeReceipt::sign(self.genesis.chain, transaction, self.size() + 10, &intake_key());
            return Ok(SubmitOutcome::Accepted(receipt));
        }
        let recorded = self.append(&envelope);
        let mut finality = self.finality.subscribe();
        let reached = finality.wait_for(|finality| finality.level_of(recorded.index) >= wait).await;
        let level = reached.unwrap().level_of(recorded.index);
        Ok(SubmitOutcome::Recorded(Recorded { level, ..recorded }))
    }

    async fn status(&self) -> Result<NodeStatus, ReadError> {
        Ok(NodeStatus {
            node: "cleveland/replica".into(),
            software: "test".into(),
            consortium: self.genesis.genesis.consortium.clone(),
            chain: self.genesis.chain,
            role: RaftRole::Leader,
            leader: Some("cleveland/replica".into()),
            term: 2,
            committed_index: self.size() + 1,
            applied_index: self.size(),
            last_index: self.size() + 2,
            log_size: self.size(),
            root: Digest::of(b"root"),
            final_size: self.finality.borrow().final_size,
            finality_threshold: 1,
            checkpoint: self.checkpoint.lock().unwrap().clone(),
            peers: vec![PeerStatus {
                node: "budapest/replica".into(),
                connected: false,
                matched_index: Some(0),
                cosigned_size: None,
            }],
            unanimous_size: self.finality.borrow().unanimous_size,
            cosigned_size: 1,
            epoch: *self.epoch.lock().unwrap(),
            seal: Some(SealStatus { number: 1, index: 1, time_ms: 1_700_000_000_500 }),
            trusted_time_s: self.finality.borrow().time_s,
            progress: Vec::new(),
        })
    }

    async fn leaf(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        Ok(self.leaves.lock().unwrap().get(usize::try_from(index).unwrap()).cloned())
    }

    fn size_changes(&self) -> watch::Receiver<u64> {
        self.sizes.subscribe()
    }

    fn finality_changes(&self) -> watch::Receiver<Finalized> {
        self.finality.subscribe()
    }

    fn genesis(&self) -> Bytes {
        self.genesis.bytes.clone().into()
    }

    async fn checkpoint(&self, known: Option<String>) -> Result<Option<Latest>, CheckpointFailure> {
        let Some(note) = self.checkpoint.lock().unwrap().clone() else { return Ok(None) };
        let consistency = match &known {
            Some(_) => Some(self.consistency.lock().unwrap().clone().ok_or(CheckpointFailure::Contradicts {
                size: 1,
                theirs: Digest::of(b"theirs"),
                ours: Digest::of(b"ours"),
            })?),
            None => None,
        };
        self.shown.lock().unwrap().push(known);
        Ok(Some(Latest { note, consistency }))
    }

    async fn holds(&self, known: &HeadId) -> Result<(), CheckpointFailure> {
        let ours = self.roots.lock().unwrap().get(&known.size).copied();
        match ours.filter(|ours| *ours != known.root) {
            Some(ours) => Err(CheckpointFailure::Contradicts { size: known.size, theirs: known.root, ours }),
            None => Ok(()),
        }
    }

    async fn head_since(&self, known: &HeadId) -> Result<HeadAnswer, CheckpointFailure> {
        self.known.lock().unwrap().push(*known);
        let note = self.checkpoint.lock().unwrap().clone().unwrap_or_default();
        let checkpoint = SignedNote::parse(&note).ok().and_then(|note| Checkpoint::parse(note.text()).ok());
        let Some(checkpoint) = checkpoint else { return Ok(HeadAnswer { head: HeadId::empty(), newer: None }) };
        let consistency = self.consistency.lock().unwrap().clone().unwrap_or_default();
        let is_shown = checkpoint.size() > known.size && !*self.withholds.lock().unwrap();
        let newer = is_shown.then_some(NewerHead { note, consistency });
        Ok(HeadAnswer { head: HeadId::from(&checkpoint), newer })
    }

    async fn epoch_link(&self, after: u64) -> Result<Option<(u64, EpochLink)>, ReadError> {
        Ok(self.links.lock().unwrap().iter().find(|(number, _)| *number > after).cloned())
    }

    async fn consistency_proof(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, ReadError> {
        let log_size = self.size();
        if old_size > new_size || new_size > log_size {
            return Err(ReadError::NoConsistency { old_size, new_size, log_size });
        }
        Ok(vec![Digest::of(&old_size.to_be_bytes()), Digest::of(&new_size.to_be_bytes())])
    }

    async fn state_proof(&self, key: Bytes) -> Result<StateAnswer, ReadError> {
        let records = self.records.read().unwrap();
        if records.is_empty() {
            return Err(ReadError::NoFinalState);
        }
        let proof = state_of(&records).prove(&key).to_bytes().into();
        let value = records.get(key.as_ref()).cloned().map(Bytes::from);
        Ok(StateAnswer { seal_index: self.size() - 1, proof, value })
    }

    async fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, ReadError> {
        let log_size = self.size();
        if index >= size || size > log_size {
            return Err(ReadError::NoProof { index, size, log_size });
        }
        let made_up = || vec![Digest::of(&index.to_be_bytes()), Digest::of(&size.to_be_bytes())];
        Ok(self.path.lock().unwrap().clone().unwrap_or_else(made_up))
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, ReadError> {
        Ok(self.blobs.read().unwrap().contains_key(digest))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, ReadError> {
        let stored = self.blobs.read().unwrap().get(digest).cloned();
        Ok(stored.map(|stored| Blob { size: stored.size, reader: Box::pin(Cursor::new(stored.bytes)) }))
    }

    fn member_of_api_key(&self, key: &PublicKey) -> Option<Caller> {
        self.members.read().unwrap().get(key).cloned()
    }

    fn is_raw_update(&self, digest: &Digest) -> bool {
        self.raw_updates.read().unwrap().contains(digest)
    }
}

/// The map over these records.
pub fn state_of(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> StateMap {
    let mut state = StateMap::default();
    state.apply(records.iter().map(|(key, value)| (key, Some(value))));
    state
}

/// Signs the ledger's promises.
pub fn intake_key() -> SecretKey {
    SecretKey::from_seed([77; 32])
}
