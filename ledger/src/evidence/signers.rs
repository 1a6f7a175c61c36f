//! Every key with which heads of a log may have been signed: those of all epochs, also keys that were replaced since.
//!
//! Whoever signs two histories is convicted by any key that was ever theirs. So evidence is made and judged with the keys of
//! every epoch, in the name of the log as well as in that of the node.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::{
    epoch::{Epoch, cosigner_name},
    keys::PublicKey,
    note::{SignedNote, VerifierKey},
};

/// A node, and one of the keys with which it signs heads or did so once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Name of the node; for a key that was given by hand, the name of the key.
    pub node: String,
    /// The key.
    pub key: VerifierKey,
}

/// The signers of a log.
///
/// A key has one owner: the first whom an epoch gives it to.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    /// In the order in which they were added.
    signers: Vec<Signer>,
    known: BTreeSet<PublicKey>,
    /// Where the signers of a name stand. The log's own name has one for each replica.
    by_name: BTreeMap<String, Vec<usize>>,
}

impl Signers {
    /// The replicas and witnesses of `epochs`, the oldest first, of the log of this origin.
    pub fn of<'e>(origin: &str, epochs: impl IntoIterator<Item = &'e Epoch>) -> Self {
        let mut signers = Self::default();
        for epoch in epochs {
            for (node, keys) in &epoch.replicas {
                signers.add(node, VerifierKey::ed25519(origin, keys.log).ok());
                signers.add(node, VerifierKey::cosignature_v1(&cosigner_name(origin, node), keys.cosign).ok());
            }
            for (node, key) in &epoch.witnesses {
                signers.add(node, VerifierKey::cosignature_v1(&cosigner_name(origin, node), *key).ok());
            }
        }
        signers
    }

    /// Adds a key that somebody vouches for by other means than an epoch.
    pub fn add_key(&mut self, key: VerifierKey) {
        let name = key.name().to_owned();
        self.add(&name, Some(key));
    }

    fn add(&mut self, node: &str, key: Option<VerifierKey>) {
        // A name that no note can hold signs nothing.
        let Some(key) = key else { return };
        if self.known.insert(*key.public_key()) {
            self.by_name.entry(key.name().to_owned()).or_default().push(self.signers.len());
            self.signers.push(Signer { node: node.to_owned(), key });
        }
    }

    /// Every signer.
    pub fn iter(&self) -> impl Iterator<Item = &Signer> {
        self.signers.iter()
    }

    /// Who of those for whom `wanted` holds has signed a note; each with the note as it is with one line of theirs, the first
    /// that verifies. Lines that do not verify count for nothing and take nothing from others.
    pub fn signed(&self, note: &SignedNote, wanted: impl Fn(&Signer) -> bool) -> Vec<(&Signer, SignedNote)> {
        let signers = self.named(note).filter(|signer| wanted(signer));
        signers.filter_map(|signer| Some((signer, signed_by(note, &signer.key)?))).collect()
    }

    /// Whose names stand in a note. Every replica has that of the log; nothing is verified.
    pub fn named(&self, note: &SignedNote) -> impl Iterator<Item = &Signer> {
        let names: BTreeSet<&str> = note.signatures().iter().map(|line| line.name()).collect();
        let named: Vec<&Vec<usize>> = names.into_iter().filter_map(|name| self.by_name.get(name)).collect();
        named.into_iter().flatten().filter_map(|place| self.signers.get(*place))
    }

    /// Who has signed both heads of evidence.
    pub fn convicted_by(&self, evidence: &Evidence) -> Vec<&Signer> {
        self.iter().filter(|signer| evidence.verify(std::slice::from_ref(&signer.key)).is_ok()).collect()
    }
}

/// A note with one line only, the first of `key` that verifies. Whatever else stands in a note, nobody can make it too large
/// for evidence, or spoil it with another line.
pub fn signed_by(note: &SignedNote, key: &VerifierKey) -> Option<SignedNote> {
    let id = key.key_id();
    let lines = note.signatures().iter().filter(|line| line.name() == key.name() && line.key_id() == id);
    let mut notes = lines.filter_map(|line| SignedNote::from_parts(note.text(), vec![line.clone()]).ok());
    notes.find(|note| note.verify_with(key).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Digest,
        checkpoint::Checkpoint,
        epoch::ReplicaKeys,
        keys::SecretKey,
        note::{NOTE_SIGNATURES_MAX, NoteSignature},
    };

    const ORIGIN: &str = "test.example/log";

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    /// An epoch with the replica `north`, whose keys are drawn from `seed` on, and the witness `south`.
    fn epoch(number: u64, seed: u8) -> Epoch {
        let keys =
            ReplicaKeys { author: key(seed).public(), log: key(seed + 1).public(), cosign: key(seed + 2).public() };
        let replicas = [("north".to_owned(), keys)].into();
        let witnesses = [("south".to_owned(), key(9).public())].into();
        Epoch { number, index: number, threshold: 1, replicas, witnesses }
    }

    fn text(what: &str) -> String {
        Checkpoint::new(ORIGIN, 5, Digest::of(what.as_bytes())).unwrap().to_note_text()
    }

    fn log_line(text: &str, seed: u8) -> NoteSignature {
        NoteSignature::sign(text, ORIGIN, &key(seed)).unwrap()
    }

    #[test]
    fn keys_of_every_epoch_count_once_each() {
        let signers = Signers::of(ORIGIN, [&epoch(0, 10), &epoch(1, 20), &epoch(2, 20)]);
        assert_eq!(signers.iter().count(), 2 + 1 + 2, "two replaced keys, the witness, two new keys");
        let text = text("right");
        let cosigned = NoteSignature::cosign(&text, &cosigner_name(ORIGIN, "south"), &key(9), 7).unwrap();
        let lines = vec![log_line(&text, 11), log_line(&text, 21), log_line(&text, 99), cosigned];
        let note = SignedNote::from_parts(text, lines).unwrap();
        let found: Vec<_> = signers.signed(&note, |_| true).into_iter().map(|(by, note)| (by.clone(), note)).collect();
        let nodes: Vec<&str> = found.iter().map(|(signer, _)| signer.node.as_str()).collect();
        assert_eq!(nodes, ["north", "north", "south"], "the stranger counts for nothing");
        assert!(
            found.iter().all(|(signer, note)| note.signatures().len() == 1 && note.verify_with(&signer.key).is_ok())
        );
        let new: Vec<_> = signers.signed(&note, |signer| *signer.key.public_key() == key(21).public());
        assert_eq!(new.len(), 1);
    }

    #[test]
    fn neither_bad_lines_nor_many_help_a_signer_out() {
        let signers = Signers::of(ORIGIN, [&epoch(0, 10)]);
        let stuffed = |what: &str| {
            let (right, other) = (text(what), text("something else"));
            let bad = (1..NOTE_SIGNATURES_MAX).map(|_| log_line(&other, 11));
            SignedNote::from_parts(right.clone(), bad.chain([log_line(&right, 11)]).collect()).unwrap()
        };
        let signed = |note: &SignedNote| signers.signed(note, |_| true).remove(0).1;
        let (one, other) = (signed(&stuffed("one")), signed(&stuffed("other")));
        let evidence = Evidence::new(one, other, None).unwrap();
        let convicted = signers.convicted_by(&evidence);
        assert_eq!(convicted.iter().map(|signer| signer.node.as_str()).collect::<Vec<_>>(), ["north"]);
        assert!(evidence.to_bytes().len() < 1024);
        let strangers = Signers::of(ORIGIN, [&epoch(1, 20)]);
        assert_eq!(strangers.convicted_by(&evidence), Vec::<&Signer>::new());
    }

    #[test]
    fn a_key_can_be_given_by_hand() {
        let mut signers = Signers::default();
        signers.add_key(VerifierKey::ed25519(ORIGIN, key(11).public()).unwrap());
        let notes = ["one", "other"].map(|what| {
            let text = text(what);
            SignedNote::from_parts(text.clone(), vec![log_line(&text, 11)]).unwrap()
        });
        let [one, other] = notes;
        let evidence = Evidence::new(one, other, None).unwrap();
        assert_eq!(signers.convicted_by(&evidence)[0].node, ORIGIN);
    }
}
