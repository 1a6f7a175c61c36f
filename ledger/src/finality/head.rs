//! One head of the log, and who has co-signed it or another in its place.

use std::{collections::BTreeMap, sync::Arc};

use super::{Finding, OfferError};
use crate::{
    checkpoint::Checkpoint,
    digest::Digest,
    epoch::{Epoch, cosigner_node},
    evidence::Evidence,
    keys::PublicKey,
    note::{KeyId, NoteSignature, SignatureType, SignedNote},
};

/// Other roots of the same size that are remembered: more would tell nothing new.
const OTHER_ROOTS_KEPT: usize = 8;

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
    /// This replica's signature in the name of the log.
    pub log: Option<NoteSignature>,
    pub replicas: BTreeMap<String, Cosignature>,
    pub witnesses: BTreeMap<String, Cosignature>,
    /// What nodes have co-signed in this head's place: by root, the text and the co-signatures.
    others: BTreeMap<Digest, (String, BTreeMap<String, Cosignature>)>,
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
        }
    }

    /// The co-signatures of a note that are not known yet.
    pub fn verify_new(&self, origin: &str, root: &Digest, note: &SignedNote) -> Result<Vec<Cosignature>, OfferError> {
        let known = |node: &str| {
            if *root == self.root {
                self.cosignature(node).is_some()
            } else {
                self.others.get(root).is_some_and(|(_, others)| others.contains_key(node))
            }
        };
        let lines: Vec<_> = note.signatures().iter().filter(|line| !node_of(origin, line).is_some_and(known)).collect();
        let mut cosignatures = Vec::new();
        for line in lines {
            cosignatures.extend(verify_line(origin, &self.epoch, note, line)?);
        }
        Ok(cosignatures)
    }

    pub fn insert(&mut self, cosignature: Cosignature) {
        let nodes = if cosignature.is_replica { &mut self.replicas } else { &mut self.witnesses };
        nodes.insert(cosignature.node.clone(), cosignature);
    }

    /// Takes a co-signature of another root; evidence, if the node has co-signed this one as well.
    pub fn insert_other(&mut self, root: Digest, text: &str, cosignature: Cosignature) -> Option<Finding> {
        if self.others.len() >= OTHER_ROOTS_KEPT && !self.others.contains_key(&root) {
            return None;
        }
        let own = self.cosignature(&cosignature.node).and_then(|own| note_of(&self.text, own));
        let evidence = own.and_then(|own| Evidence::new(own, note_of(text, &cosignature)?, None).ok());
        let (_, others) = self.others.entry(root).or_insert_with(|| (text.to_owned(), BTreeMap::new()));
        others.insert(cosignature.node.clone(), cosignature);
        evidence.map(|evidence| Finding::Equivocation(Box::new(evidence)))
    }

    /// Evidence against a node that has co-signed this head and had co-signed another before.
    pub fn contradictions_of(&self, cosignature: &Cosignature) -> Vec<Finding> {
        let others = self.others.values().filter_map(|(text, others)| note_of(text, others.get(&cosignature.node)?));
        let evidence = others.filter_map(|other| Evidence::new(note_of(&self.text, cosignature)?, other, None).ok());
        evidence.map(|evidence| Finding::Equivocation(Box::new(evidence))).collect()
    }

    /// What it means that nodes have co-signed `root` in this head's place.
    pub fn disagreement(&self, size: u64, root: &Digest) -> Option<Finding> {
        let (_, others) = self.others.get(root)?;
        let signers: Vec<String> = others.values().filter(|other| other.is_replica).map(|o| o.node.clone()).collect();
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

/// Every co-signature of a note by a node of `epoch`.
pub(super) fn verified(origin: &str, epoch: &Epoch, note: &SignedNote) -> Result<Vec<Cosignature>, OfferError> {
    let mut cosignatures = Vec::new();
    for line in note.signatures() {
        cosignatures.extend(verify_line(origin, epoch, note, line)?);
    }
    Ok(cosignatures)
}

/// The co-signature in a line, if it is by a node of `epoch`. Other lines are ignored, as the format demands.
fn verify_line(
    origin: &str,
    epoch: &Epoch,
    note: &SignedNote,
    line: &NoteSignature,
) -> Result<Option<Cosignature>, OfferError> {
    let Some(node) = node_of(origin, line) else { return Ok(None) };
    let replica = epoch.replicas.get(node).map(|keys| keys.cosign);
    let Some(key) = replica.or_else(|| epoch.witnesses.get(node).copied()) else { return Ok(None) };
    if KeyId::of(line.name(), SignatureType::CosignatureV1, &key) != line.key_id() {
        return Ok(None);
    }
    let time_s = note.verify_cosignature(line.name(), &key)?;
    Ok(Some(Cosignature { node: node.to_owned(), is_replica: replica.is_some(), key, time_s, line: line.clone() }))
}

fn node_of<'a>(origin: &str, line: &'a NoteSignature) -> Option<&'a str> {
    cosigner_node(origin, line.name())
}

fn note_of(text: &str, cosignature: &Cosignature) -> Option<SignedNote> {
    SignedNote::from_parts(text, vec![cosignature.line.clone()]).ok()
}
