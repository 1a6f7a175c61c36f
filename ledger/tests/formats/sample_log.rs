//! A log in memory with its keys, as material for checkpoints, receipts and evidence.

use std::collections::BTreeMap;

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    merkle::{Frontier, NodeId, ProofError, consistency_proof, inclusion_proof, leaf_hash, root_at},
    note::{NoteSignature, SignedNote, VerifierKey, sign_note},
    policy::{Policy, PolicyBuilder, Threshold},
};

/// Identity of the log, and the name of its key.
pub const ORIGIN: &str = "example.com/log";

/// The witnesses, any two of which make a quorum.
pub const WITNESSES: [&str; 3] = ["w1.example", "w2.example", "w3.example"];

/// When the first witness co-signs, in seconds; the others follow a second apart.
pub const TIME_S: u64 = 1_700_000_000;

/// Entries, and the nodes of the tree over them.
pub struct SampleLog {
    leaves: Vec<Vec<u8>>,
    nodes: BTreeMap<NodeId, Digest>,
}

/// A node of a tree that is not complete there.
#[derive(Debug)]
pub struct Missing;

impl SampleLog {
    /// A log of so many entries.
    pub fn of_size(size: u64) -> Self {
        Self::forked(size, size)
    }

    /// A log whose entries are those of [`SampleLog::of_size`] up to `fork`, and others from there on.
    pub fn forked(size: u64, fork: u64) -> Self {
        let entry = |index| format!("{} {index}", if index < fork { "entry" } else { "other entry" }).into_bytes();
        let leaves: Vec<Vec<u8>> = (0..size).map(entry).collect();
        let mut frontier = Frontier::new();
        let nodes = leaves.iter().flat_map(|leaf| frontier.append(leaf_hash(leaf))).collect();
        Self { leaves, nodes }
    }

    pub fn leaf(&self, index: u64) -> &[u8] {
        &self.leaves[usize::try_from(index).unwrap()]
    }

    pub fn root(&self, size: u64) -> Digest {
        root_at(size, |node| self.node(node)).unwrap()
    }

    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, ProofError<Missing>> {
        inclusion_proof(index, size, |node| self.node(node))
    }

    pub fn consistency(&self, old: u64, new: u64) -> Vec<Digest> {
        consistency_proof(old, new, |node| self.node(node)).unwrap()
    }

    /// The text of the checkpoint at a size.
    pub fn text(&self, size: u64) -> String {
        Checkpoint::new(ORIGIN, size, self.root(size)).unwrap().to_note_text()
    }

    /// The checkpoint at a size, signed by the log and co-signed by some of [`WITNESSES`].
    pub fn checkpoint(&self, size: u64, witnesses: &[&str]) -> SignedNote {
        let text = self.text(size);
        let mut note = sign_note(&text, ORIGIN, &secret(ORIGIN)).unwrap();
        for (name, time_s) in witnesses.iter().zip(TIME_S..) {
            note.add(NoteSignature::cosign(&text, name, &secret(name), time_s).unwrap()).unwrap();
        }
        note
    }

    fn node(&self, node: NodeId) -> Result<Digest, Missing> {
        self.nodes.get(&node).copied().ok_or(Missing)
    }
}

/// The key of the owner of a name.
pub fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(*Digest::of(name.as_bytes()).as_bytes())
}

pub fn log_key() -> VerifierKey {
    VerifierKey::ed25519(ORIGIN, secret(ORIGIN).public()).unwrap()
}

pub fn witness_key(name: &str) -> VerifierKey {
    VerifierKey::cosignature_v1(name, secret(name).public()).unwrap()
}

/// The log, and so many of [`WITNESSES`].
pub fn policy(quorum: usize) -> Policy {
    let mut builder = PolicyBuilder::new();
    builder.log(log_key(), None).unwrap();
    for name in WITNESSES {
        builder.witness(name.as_bytes(), witness_key(name), None).unwrap();
    }
    builder.group(b"quorum", Threshold::AtLeast(quorum), &WITNESSES).unwrap().quorum(b"quorum").unwrap();
    builder.build().unwrap()
}
