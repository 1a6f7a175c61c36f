//! One head of the log, and who has co-signed it or another in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Finding, OfferError};
use crate::{
    checkpoint::Checkpoint,
    digest::Digest,
    epoch::{Epoch, cosigner_name, cosigner_node},
    evidence::Evidence,
    keys::PublicKey,
    note::{KeyId, NoteSignature, SignatureType, SignedNote},
};

/// A co-signature that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Name of the node that co-signed.
    pub node: String,
    /// Whether it is a replica, and not a witness.
    pub is_replica: bool,
    /// The key that verified it.
    pub key: PublicKey,
    /// When, in seconds since the Unix epoch, as the node's clock had it.
    pub time_s: u64,
    /// The line of the note.
    pub line: NoteSignature,
}

/// A head that this replica has sealed.
#[derive(Debug)]
pub(super) struct Head {
    pub root: Digest,
    pub epoch: Arc<Epoch>,
    /// The text that is signed.
    pub text: String,
    /// A signature in the name of the log: this replica's own, or until there is one that of another.
    pub log: Option<NoteSignature>,
    pub replicas: BTreeMap<String, Cosignature>,
    pub witnesses: BTreeMap<String, Cosignature>,
    /// What nodes have co-signed in this head's place, the last of each: whoever signs many roots takes nobody's room.
    others: BTreeMap<String, Other>,
    /// Nodes against which there is evidence already.
    convicted: BTreeSet<String>,
}

/// Another root of the same size that a node has co-signed.
#[derive(Debug)]
struct Other {
    root: Digest,
    text: String,
    cosignature: Cosignature,
}

impl Head {
    pub fn new(checkpoint: &Checkpoint, epoch: Arc<Epoch>) -> Self {
        Self {
            root: *checkpoint.root(),
            epoch,
            text: checkpoint.to_note_text(),
            log: None,
            replicas: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            others: BTreeMap::new(),
            convicted: BTreeSet::new(),
        }
    }

    /// The co-signatures of a note that are not known yet.
    pub fn verify_new(&self, origin: &str, root: &Digest, note: &SignedNote) -> Result<Vec<Cosignature>, OfferError> {
        let known = |node: &str| {
            if *root == self.root {
                self.cosignature(node).is_some()
            } else {
                self.others.get(node).is_some_and(|other| other.root == *root)
            }
        };
        verified(origin, &self.epoch, note, known)
    }

    /// Takes a replica's signature in the name of the log from a note of this head, where there is none yet: a replica
    /// that has not signed the head itself can then still show that it is final.
    pub fn adopt_log_signature(&mut self, origin: &str, note: &SignedNote) {
        if self.log.is_none() {
            self.log = self.epoch.replicas.values().find_map(|keys| verified_log_line(origin, &keys.log, note));
        }
    }

    /// Takes a co-signature of this head; evidence, if the node has co-signed another before.
    pub fn insert(&mut self, cosignature: Cosignature) -> Option<Finding> {
        let node = cosignature.node.clone();
        let evidence = self.others.get(&node).and_then(|other| {
            Evidence::new(note_of(&self.text, &cosignature)?, note_of(&other.text, &other.cosignature)?, None).ok()
        });
        let key = cosignature.key;
        let nodes = if cosignature.is_replica { &mut self.replicas } else { &mut self.witnesses };
        nodes.insert(node.clone(), cosignature);
        self.convict(node, key, evidence)
    }

    /// Takes a co-signature of another root; evidence, if the node has co-signed this one or a third one as well.
    pub fn insert_other(&mut self, root: Digest, text: &str, cosignature: Cosignature) -> Option<Finding> {
        let node = cosignature.node.clone();
        let own = self.cosignature(&node).and_then(|own| note_of(&self.text, own));
        let before = || self.others.get(&node).and_then(|other| note_of(&other.text, &other.cosignature));
        let evidence = own.or_else(before).and_then(|one| Evidence::new(one, note_of(text, &cosignature)?, None).ok());
        let key = cosignature.key;
        self.others.insert(node.clone(), Other { root, text: text.to_owned(), cosignature });
        self.convict(node, key, evidence)
    }

    /// Evidence against a node, the first time: more would tell nothing new.
    fn convict(&mut self, node: String, key: PublicKey, evidence: Option<Evidence>) -> Option<Finding> {
        let evidence = Box::new(evidence?);
        self.convicted.insert(node).then_some(Finding::Equivocation { evidence, key })
    }

    /// What it means that nodes have co-signed `root` in this head's place.
    pub fn disagreement(&self, size: u64, root: &Digest) -> Option<Finding> {
        let others = self.others.iter().filter(|(_, other)| other.root == *root && other.cosignature.is_replica);
        let signers: Vec<String> = others.map(|(node, _)| node.clone()).collect();
        if signers.is_empty() {
            return None;
        }
        Some(if signers.len() as u64 >= self.epoch.threshold {
            Finding::Diverged { size, own: self.root, theirs: *root, signers }
        } else {
            Finding::Disagreement { size, signers }
        })
    }

    /// Whether enough replicas of `epoch` have co-signed, each with the key that it has there.
    pub fn satisfies(&self, epoch: &Epoch) -> bool {
        let counts = |cosignature: &&Cosignature| {
            epoch.replicas.get(&cosignature.node).is_some_and(|keys| keys.cosign == cosignature.key)
        };
        self.replicas.values().filter(counts).count() as u64 >= epoch.threshold
    }

    pub fn cosignature(&self, node: &str) -> Option<&Cosignature> {
        self.replicas.get(node).or_else(|| self.witnesses.get(node))
    }

    /// Median of the times at which replicas have co-signed, the lower one of two.
    pub fn time_s(&self) -> Option<u64> {
        let mut times: Vec<u64> = self.replicas.values().map(|cosignature| cosignature.time_s).collect();
        times.sort_unstable();
        times.get(times.len().checked_sub(1)? / 2).copied()
    }

    /// The head as a note: signed in the name of the log by this replica, and co-signed. Without an own signature, none.
    pub fn note(&self) -> Option<String> {
        let mut note = SignedNote::from_parts(self.text.clone(), vec![self.log.clone()?]).ok()?;
        for cosignature in self.replicas.values().chain(self.witnesses.values()) {
            // Where there are more witnesses than a note has room for, some are left out.
            if note.add(cosignature.line.clone()).is_err() {
                break;
            }
        }
        Some(note.to_string())
    }
}

/// The co-signatures of a note by nodes of `epoch`, without those of nodes for which `known` holds.
///
/// Other lines are ignored, as the format demands. Every line is verified once at most.
pub(super) fn verified(
    origin: &str,
    epoch: &Epoch,
    note: &SignedNote,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<Cosignature>, OfferError> {
    let mut cosignatures = Vec::new();
    for node in cosigners(origin, note).filter(|node| !known(node)).collect::<BTreeSet<_>>() {
        cosignatures.extend(verify_node(origin, epoch, note, node)?);
    }
    Ok(cosignatures)
}

/// Names of the nodes that a note says have co-signed it.
pub(super) fn cosigners<'a>(origin: &'a str, note: &'a SignedNote) -> impl Iterator<Item = &'a str> {
    note.signatures().iter().filter_map(move |line| cosigner_node(origin, line.name()))
}

/// The key with which a node co-signs in an epoch.
pub(super) fn key_of(epoch: &Epoch, node: &str) -> Option<PublicKey> {
    let replica = epoch.replicas.get(node).map(|keys| keys.cosign);
    replica.or_else(|| epoch.witnesses.get(node).copied())
}

/// The co-signature of a node, if it is one of `epoch` and has co-signed with the key that it has there.
fn verify_node(origin: &str, epoch: &Epoch, note: &SignedNote, node: &str) -> Result<Option<Cosignature>, OfferError> {
    let Some(key) = key_of(epoch, node) else { return Ok(None) };
    let name = cosigner_name(origin, node);
    let key_id = KeyId::of(&name, SignatureType::CosignatureV1, &key);
    let is_its = |line: &&NoteSignature| line.name() == name && line.key_id() == key_id;
    if !note.signatures().iter().any(|line| is_its(&line)) {
        return Ok(None);
    }
    let time_s = note.verify_cosignature(&name, &key)?;
    // Of several lines the earliest counts; a line begins with its time.
    let earliest = |line: &&NoteSignature| line.signature().starts_with(&time_s.to_be_bytes());
    let line = note.signatures().iter().filter(is_its).find(earliest);
    Ok(line.map(|line| Cosignature {
        node: node.to_owned(),
        is_replica: epoch.replicas.contains_key(node),
        key,
        time_s,
        line: line.clone(),
    }))
}

/// The signature by `key` in the name of the log, if there is one and it verifies.
pub(super) fn verified_log_line(origin: &str, key: &PublicKey, note: &SignedNote) -> Option<NoteSignature> {
    let key_id = KeyId::of(origin, SignatureType::Ed25519, key);
    let line = note.signatures().iter().find(|line| line.name() == origin && line.key_id() == key_id)?;
    note.verify(origin, key).is_ok().then(|| line.clone())
}

pub(super) fn note_of(text: &str, cosignature: &Cosignature) -> Option<SignedNote> {
    SignedNote::from_parts(text, vec![cosignature.line.clone()]).ok()
}
