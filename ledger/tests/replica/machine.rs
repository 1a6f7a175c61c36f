//! The state machine of these tests, and the keys of its consortium.

use std::{cell::Cell, collections::BTreeMap};

use fedledger_ledger::{
    Digest, PublicKey, SecretKey, codec,
    epoch::{Epoch, ReplicaKeys},
    machine::{RejectionCode, StateMachine, WriteSet},
    transaction::{Nonce, Transaction},
};

pub const ORIGIN: &str = "test.example/log";

/// The kind of a transaction that replaces the epoch by the one in its payload.
pub const CHANGE_EPOCH: &str = "ChangeEpoch";

/// Key of the record of the newest epoch; no word begins like this.
const EPOCH_RECORD: &[u8] = b"\0epoch";

thread_local! {
    /// Whether the machine computes wrongly, as one with a defect or on broken hardware does.
    static FAULTY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; meanwhile the machines of this thread compute wrongly, if `faulty` says so.
pub fn with_faults<T>(faulty: bool, work: impl FnOnce() -> T) -> T {
    let before = FAULTY.replace(faulty);
    let result = work();
    FAULTY.set(before);
    result
}

/// Counts how often each word was said; refuses the word "no". It also keeps the epoch.
#[derive(Debug)]
pub struct Words {
    pub counts: BTreeMap<Vec<u8>, u64>,
    epoch: Epoch,
}

#[derive(Debug)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("that word is not taken")
    }
}

impl RejectionCode for Refused {
    fn code(&self) -> &'static str {
        "refused_word"
    }
}

impl StateMachine for Words {
    type Event = u64;
    type Rejection = Refused;

    fn apply(
        &mut self,
        index: u64,
        _author: &PublicKey,
        kind: &str,
        payload: &[u8],
        writes: &mut WriteSet,
    ) -> Result<u64, Refused> {
        if payload == b"no" {
            return Err(Refused);
        }
        if kind == CHANGE_EPOCH {
            let proposed: Epoch = codec::decode(payload, 1 << 16).map_err(|_| Refused)?;
            self.epoch = Epoch { number: self.epoch.number + 1, index, ..proposed };
            writes.put(EPOCH_RECORD.to_vec(), &self.epoch);
            return Ok(self.epoch.number);
        }
        let count = self.counts.entry(payload.to_vec()).or_default();
        *count += if FAULTY.get() { 1000 } else { 1 };
        writes.put(payload.to_vec(), count);
        Ok(*count)
    }

    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn genesis(bytes: &[u8], writes: &mut WriteSet) -> Result<Self, String> {
        let replicas: u64 = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or("no number")?;
        let epoch = epoch_of(replicas);
        writes.put(EPOCH_RECORD.to_vec(), &epoch);
        Ok(Self { counts: BTreeMap::new(), epoch })
    }

    fn restore(records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        let (mut counts, mut epoch) = (BTreeMap::new(), None);
        for (key, value) in records {
            if key == EPOCH_RECORD {
                epoch = Some(codec::decode(&value, 1 << 16).map_err(|error| error.to_string())?);
            } else {
                counts.insert(key, codec::decode(&value, 64).map_err(|error| error.to_string())?);
            }
        }
        Ok(Self { counts, epoch: epoch.ok_or("no epoch")? })
    }
}

/// The genesis file of a consortium of so many replicas.
pub fn genesis(replicas: u64) -> Vec<u8> {
    replicas.to_string().into_bytes()
}

pub fn name(id: u64) -> String {
    format!("replica-{id}")
}

pub fn log_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8; 32])
}

pub fn cosign_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8 + 50; 32])
}

/// The key that a replica has after its co-signing key was exchanged.
pub fn rotated_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8 + 150; 32])
}

pub fn author_key(id: u64) -> SecretKey {
    SecretKey::from_seed([id as u8 + 100; 32])
}

pub fn keys(id: u64) -> ReplicaKeys {
    ReplicaKeys { author: author_key(id).public(), log: log_key(id).public(), cosign: cosign_key(id).public() }
}

/// How many of `n` replicas make a head final: f of them may lie, f = (n - 1) / 3.
pub fn threshold(n: u64) -> u64 {
    (n + (n - 1) / 3 + 1).div_ceil(2)
}

/// The first epoch of a consortium of so many replicas.
pub fn epoch_of(replicas: u64) -> Epoch {
    let all = (1..=replicas).map(|id| (name(id), keys(id))).collect();
    Epoch { number: 0, index: 0, threshold: threshold(replicas), replicas: all, witnesses: BTreeMap::new() }
}

/// A transaction of somebody who is no replica.
pub fn transaction(chain: Digest, nonce: u64, kind: &str, payload: &[u8]) -> Vec<u8> {
    signed(&SecretKey::from_seed([9; 32]), chain, nonce, kind, payload)
}

pub fn signed(key: &SecretKey, chain: Digest, nonce: u64, kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_be_bytes());
    let transaction = Transaction {
        chain,
        author: key.public(),
        nonce: Nonce(bytes),
        not_after_index: 50_000,
        kind: kind.into(),
        payload: payload.to_vec(),
    };
    transaction.sign(key).to_bytes()
}
