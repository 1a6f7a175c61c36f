//! A log of 10^9 entries of which only one is there: all beside its way to the root is made up when it is asked for.
//!
//! The leaf's own way is computed from the made-up siblings, so the inclusion proof of the entry is as long as in a real
//! log and leads to the very root that the checkpoint names. The signatures of that checkpoint are real.

use std::convert::Infallible;

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    merkle::{NodeId, inclusion_proof, leaf_hash, node_hash, root_at},
    note::{NoteSignature, SignedNote, VerifierKey},
    policy::{Policy, PolicyBuilder, Threshold},
    receipt::Receipt,
};

/// Entries of the log.
pub const ENTRIES: u64 = 1_000_000_000;

/// The entry that a receipt is asked of.
const INDEX: u64 = 123_456_789;

/// Levels of the perfect subtree that the entry is in: the largest within [`ENTRIES`].
const LEVELS: u8 = 29;

/// Size of the entry, in bytes: a leaf with a payload of 256 bytes.
const LEAF_BYTES: usize = 560;

/// Time of the co-signatures, in seconds since the Unix epoch.
const TIME_S: u64 = 1_800_000_000;

const ORIGIN: &str = "fedledger/consortium";

/// The log, its newest head as a replica keeps it, and the policy of whoever checks.
pub struct BillionLog {
    pub leaf: Vec<u8>,
    pub policy: Policy,
    /// The head, signed in the name of the log and co-signed.
    pub note: String,
    /// Hashes of the nodes above the entry, from the leaf to the root of its subtree.
    path: Vec<Digest>,
}

impl BillionLog {
    /// A log of `replicas` replicas, of which `needed` must have co-signed and the first `cosigned` have.
    pub fn new(replicas: usize, needed: usize, cosigned: usize) -> Self {
        let leaf = vec![0x5a; LEAF_BYTES];
        let mut log = Self { path: path(&leaf), leaf, policy: policy(replicas, needed), note: String::new() };
        let Ok(root) = root_at(ENTRIES, |node| log.fetch(node));
        let text = Checkpoint::new(ORIGIN, ENTRIES, root).unwrap().to_note_text();
        let mut lines = vec![NoteSignature::sign(&text, ORIGIN, &key("log", 1)).unwrap()];
        for number in 1..=cosigned {
            let name = cosigner_name(ORIGIN, &node_name(number));
            lines.push(NoteSignature::cosign(&text, &name, &key("cosign", number), TIME_S).unwrap());
        }
        log.note = SignedNote::from_parts(text, lines).unwrap().to_string();
        log
    }

    /// What a replica does for a caller who wants a receipt: the proof from the nodes of the tree, the head as it is
    /// kept, and the text of both.
    pub fn receipt(&self) -> String {
        let proof = inclusion_proof(INDEX, ENTRIES, |node| self.fetch(node)).unwrap();
        let note = SignedNote::parse(&self.note).unwrap();
        Receipt::new(INDEX, None, proof, note).unwrap().to_string()
    }

    /// What whoever holds the text, the entry and the policy does.
    pub fn verify(&self, receipt: &str) -> bool {
        Receipt::parse(receipt).is_ok_and(|receipt| receipt.verify(&self.policy, &self.leaf).is_ok())
    }

    fn fetch(&self, node: NodeId) -> Result<Digest, Infallible> {
        let on_path = node.index == INDEX >> node.level;
        let computed = self.path.get(usize::from(node.level)).filter(|_| on_path);
        Ok(computed.copied().unwrap_or_else(|| made_up(node)))
    }
}

fn path(leaf: &[u8]) -> Vec<Digest> {
    let mut path = vec![leaf_hash(leaf)];
    for level in 0..LEVELS {
        let (own, index) = (path[usize::from(level)], INDEX >> level);
        let sibling = made_up(NodeId { level, index: index ^ 1 });
        path.push(if index & 1 == 0 { node_hash(&own, &sibling) } else { node_hash(&sibling, &own) });
    }
    path
}

fn made_up(node: NodeId) -> Digest {
    Digest::of(&node.to_key())
}

fn node_name(number: usize) -> String {
    format!("hospital-{number}/replica")
}

fn key(purpose: &str, number: usize) -> SecretKey {
    SecretKey::from_seed(*Digest::of(format!("{purpose}/{number}").as_bytes()).as_bytes())
}

/// Every replica may sign in the name of the log; `needed` of them must have co-signed.
fn policy(replicas: usize, needed: usize) -> Policy {
    let mut policy = PolicyBuilder::new();
    let names: Vec<String> = (1..=replicas).map(node_name).collect();
    for (number, name) in (1..).zip(&names) {
        policy.log(VerifierKey::ed25519(ORIGIN, key("log", number).public()).unwrap(), None).unwrap();
        let cosigner = VerifierKey::cosignature_v1(&cosigner_name(ORIGIN, name), key("cosign", number).public());
        policy.witness(name.as_bytes(), cosigner.unwrap(), None).unwrap();
    }
    policy.group(b"replicas", Threshold::AtLeast(needed), &names).unwrap().quorum(b"replicas").unwrap();
    policy.build().unwrap()
}
