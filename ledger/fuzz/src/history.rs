//! One small log with honest and lying signers, whose proofs and heads the targets change.

use std::{collections::BTreeMap, sync::OnceLock};

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    merkle::{Frontier, NodeId, consistency_proof, inclusion_proof, leaf_hash},
    note::{SignedNote, VerifierKey, sign_note},
};

/// Entries of the log: beyond a full tree of six levels.
pub const SIZE: u64 = 70;

/// Name of the log, and of the key that signs its true heads only.
pub const ORIGIN: &str = "example.com/history";

/// A log whose nodes are all at hand. The entry at `index` is [`entry`].
pub struct History {
    /// Hashes of the entries.
    pub leaves: Vec<Digest>,
    /// Roots of the first 0 to [`SIZE`] entries.
    pub roots: Vec<Digest>,
    /// Roots of the complete subtrees.
    pub nodes: BTreeMap<[u8; 9], Digest>,
    /// Heads of the first 0 to [`SIZE`] entries.
    heads: Vec<SignedNote>,
}

/// The entry at `index`.
pub fn entry(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The key of the log, which signs what is true.
pub fn honest() -> SecretKey {
    SecretKey::from_seed([11; 32])
}

/// A key that signs anything, in the name of a replica.
pub fn liar() -> SecretKey {
    SecretKey::from_seed([12; 32])
}

/// Name of the key [`liar`].
pub const LIAR: &str = "example.com/history/liar";

/// The verifying half of [`honest`].
pub fn honest_key() -> VerifierKey {
    VerifierKey::ed25519(ORIGIN, honest().public()).expect("the name is allowed")
}

/// The verifying half of [`liar`].
pub fn liar_key() -> VerifierKey {
    VerifierKey::ed25519(LIAR, liar().public()).expect("the name is allowed")
}

impl History {
    /// The log.
    pub fn get() -> &'static Self {
        static HISTORY: OnceLock<History> = OnceLock::new();
        HISTORY.get_or_init(|| {
            let mut frontier = Frontier::new();
            let roots = vec![frontier.root()];
            let mut log = Self { leaves: Vec::new(), roots, nodes: BTreeMap::new(), heads: Vec::new() };
            for index in 0..SIZE {
                let leaf = leaf_hash(&entry(index));
                log.nodes.extend(frontier.append(leaf).into_iter().map(|(node, hash)| (node.to_key(), hash)));
                log.leaves.push(leaf);
                log.roots.push(frontier.root());
            }
            log.heads = (0..).zip(&log.roots).map(|(size, root)| sign_head(size, *root)).collect();
            log
        })
    }

    fn fetch(&self, node: NodeId) -> Result<Digest, NodeId> {
        self.nodes.get(&node.to_key()).copied().ok_or(node)
    }

    /// The root of the first `size` entries.
    pub fn root(&self, size: u64) -> Digest {
        self.roots[size as usize]
    }

    /// The proof that an entry is among the first `size`.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Digest> {
        inclusion_proof(index, size, |node| self.fetch(node)).expect("the log has this entry")
    }

    /// The proof that the first `new` entries begin with the first `old`.
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Digest> {
        consistency_proof(old, new, |node| self.fetch(node)).expect("the log had these sizes")
    }

    /// The true head of the first `size` entries, signed by both keys.
    pub fn head(&self, size: u64) -> SignedNote {
        self.heads[size as usize].clone()
    }
}

fn sign_head(size: u64, root: Digest) -> SignedNote {
    let mut note = sign_note(&head_text(size, root), ORIGIN, &honest()).expect("a checkpoint can be signed");
    note.sign(LIAR, &liar()).expect("there is room");
    note
}

/// A head that the liar alone has signed.
pub fn lie(size: u64, root: Digest) -> SignedNote {
    sign_note(&head_text(size, root), LIAR, &liar()).expect("a checkpoint can be signed")
}

fn head_text(size: u64, root: Digest) -> String {
    Checkpoint::new(ORIGIN, size, root).expect("the origin is allowed").to_note_text()
}
