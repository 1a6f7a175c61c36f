//! One small log with two seals, each of which puts an epoch into force, and what its replicas vouch for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::{Epoch, EpochChain, EpochLink, ReplicaKeys, cosigner_name},
    leaf::{Leaf, Outcome},
    merkle::{LeafHashes, leaf_hash},
    note::{NoteSignature, SignedNote},
    receipt::Receipt,
    seal::{RULES_VERSION, Seal},
};

use super::state_proof;

/// Name of the log.
pub const ORIGIN: &str = "example.com/sealed";

/// Indexes of the seals.
pub const SEALS: [u64; 2] = [3, 6];

/// Entries of the log.
const SIZE: u64 = 8;

/// The one replica that signs anything; it belongs to every epoch.
pub const LIAR: &str = "a";

/// The replicas of each epoch; two of the three make a head final. The honest ones sign true heads only.
const REPLICAS: [[&str; 3]; 3] = [["a", "b", "c"], ["a", "b", "d"], ["a", "d", "e"]];

/// The entry that made each epoch.
const MADE_BY: [u64; 3] = [0, 2, 5];

/// The log and what goes with it.
pub struct Sealed {
    /// The epoch of the genesis file, and those that the seals put into force.
    pub epochs: Vec<Epoch>,
    /// From the first epoch to the last.
    pub chain: EpochChain,
    /// The leaves of the seals, with their receipts.
    pub seals: Vec<(Vec<u8>, Receipt)>,
}

impl Sealed {
    /// The log.
    pub fn get() -> &'static Self {
        static SEALED: OnceLock<Sealed> = OnceLock::new();
        SEALED.get_or_init(|| {
            let epochs: Vec<Epoch> = (0..).zip(REPLICAS).map(|(number, names)| epoch(number, &names)).collect();
            let entries: Vec<Vec<u8>> = (0..SIZE).map(|index| entry(index, &epochs)).collect();
            let mut hashes = LeafHashes::default();
            entries.iter().for_each(|entry| hashes.push(leaf_hash(entry)));
            let seals: Vec<(Vec<u8>, Receipt)> = SEALS
                .iter()
                .zip(REPLICAS)
                .map(|(index, replicas)| {
                    let size = index + 1;
                    let note = cosigned(size, hashes.root_at(size).expect("the log was as long"), &replicas);
                    let hashes = hashes.inclusion(*index, size).expect("the seal is in it");
                    let receipt = Receipt::new(*index, None, hashes, note).expect("the note is a checkpoint");
                    (entries[*index as usize].clone(), receipt)
                })
                .collect();
            let link = |((leaf, receipt), epoch): (&(Vec<u8>, Receipt), &Epoch)| EpochLink {
                epoch: epoch.to_bytes(),
                leaf: leaf.clone(),
                receipt: receipt.clone(),
            };
            let chain = EpochChain::new(seals.iter().zip(&epochs[1..]).map(link).collect()).expect("two links");
            Self { epochs, chain, seals }
        })
    }
}

/// The key of a node for a purpose.
fn secret(node: &str, purpose: &str) -> SecretKey {
    SecretKey::from_seed(*Digest::of(format!("{node}/{purpose}").as_bytes()).as_bytes())
}

fn epoch(number: usize, names: &[&str]) -> Epoch {
    let public = |node: &str, purpose| secret(node, purpose).public();
    let keys = |node: &&str| {
        let (author, log, cosign) = (public(node, "author"), public(node, "log"), public(node, "cosign"));
        ((*node).to_owned(), ReplicaKeys { author, log, cosign })
    };
    Epoch {
        number: number as u64,
        index: MADE_BY[number],
        threshold: 2,
        replicas: names.iter().map(keys).collect(),
        witnesses: BTreeMap::from([("w".to_owned(), public("w", "cosign"))]),
    }
}

/// The entry at `index`: a seal, or anything.
fn entry(index: u64, epochs: &[Epoch]) -> Vec<u8> {
    match SEALS.iter().position(|seal| *seal == index) {
        Some(seal) => seal_leaf(index, seal as u64, epochs[seal + 1].digest()),
        None => index.to_be_bytes().to_vec(),
    }
}

/// The leaf of a seal that puts an epoch into force.
pub fn seal_leaf(index: u64, epoch: u64, next_epoch: Digest) -> Vec<u8> {
    let seal = Seal {
        number: epoch + 1,
        previous: if epoch == 0 { 0 } else { SEALS[0] },
        state_root: state_proof::state().root(),
        epoch,
        next_epoch,
        time_ms: 1_700_000_000_000,
        rules_version: RULES_VERSION,
    };
    let (envelope, write_set) = (b"envelope".to_vec(), Digest::of(b"writes"));
    Leaf { index, raft_index: index, envelope, outcome: Outcome::Accepted, write_set, seal: Some(seal) }.to_bytes()
}

/// A head that nodes have co-signed, the first of them in the name of the log as well.
pub fn cosigned(size: u64, root: Digest, nodes: &[&str]) -> SignedNote {
    let text = Checkpoint::new(ORIGIN, size, root).expect("the origin is allowed").to_note_text();
    let log = nodes.first().map(|node| NoteSignature::sign(&text, ORIGIN, &secret(node, "log")));
    let lines = nodes
        .iter()
        .map(|node| NoteSignature::cosign(&text, &cosigner_name(ORIGIN, node), &secret(node, "cosign"), 1_700_000_000));
    let lines = log.into_iter().chain(lines).collect::<Result<_, _>>().expect("a checkpoint can be signed");
    SignedNote::from_parts(text, lines).expect("there are few lines")
}

/// A seal of a log that never was, which puts `epoch` into force: its leaf, and a receipt under a head that only the liar
/// and nodes of no epoch have signed.
pub fn forged_seal(index: u64, previous: u64, epoch: &Epoch) -> (Vec<u8>, Receipt) {
    let leaf = seal_leaf(index, previous, epoch.digest());
    let mut hashes = LeafHashes::default();
    (0..index).for_each(|other| hashes.push(leaf_hash(&other.to_be_bytes())));
    hashes.push(leaf_hash(&leaf));
    let nodes: BTreeSet<&str> = epoch.replicas.keys().map(String::as_str).chain([LIAR]).collect();
    let nodes: Vec<&str> = nodes.into_iter().filter(|node| !is_honest(node)).collect();
    let size = index + 1;
    let note = cosigned(size, hashes.root_at(size).expect("all of it"), &nodes);
    let hashes = hashes.inclusion(index, size).expect("the last entry");
    (leaf, Receipt::new(index, None, hashes, note).expect("the note is a checkpoint"))
}

fn is_honest(node: &str) -> bool {
    node != LIAR && REPLICAS.iter().flatten().any(|replica| *replica == node)
}
