//! Checkpoints, co-signatures, proofs and receipts: Go accepts what we write and refuses what was changed in it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fedledger_ledger::{
    Digest,
    merkle::leaf_hash,
    note::{NoteSignature, VerifierKey},
    receipt::Receipt,
};
use serde_json::{Value, json};

use crate::{
    program::Program,
    sample_log::{ORIGIN, SampleLog, TIME_S, WITNESSES, log_key, secret, witness_key},
};

/// Sizes that are checked exhaustively: every proof of every log up to here, beyond a full tree of five levels.
const EXHAUSTIVE_SIZE: u64 = 33;

/// Checks for the program, and what it is to say.
#[derive(Default)]
struct Checks {
    checks: Vec<Value>,
    /// Whether each is to be accepted.
    expected: Vec<bool>,
}

impl Checks {
    fn accepted(&mut self, check: Value) {
        self.checks.push(check);
        self.expected.push(true);
    }

    fn refused(&mut self, check: Value) {
        self.checks.push(check);
        self.expected.push(false);
    }

    /// Lets the program answer, which it does with an empty text or with why it refuses.
    fn run(self, program: &Program) {
        assert!(self.expected.contains(&true) && self.expected.contains(&false));
        let answers: Vec<String> = program.run(&self.checks);
        assert_eq!(answers.len(), self.checks.len());
        for ((check, answer), expected) in self.checks.iter().zip(answers).zip(self.expected) {
            assert_eq!(answer.is_empty(), expected, "Go says {answer:?} about {check}");
        }
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

fn encoded(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(|hash| base64(hash.as_bytes())).collect()
}

/// Every way to change one hash, to leave one out and to add one.
fn damaged(hashes: &[Digest]) -> Vec<Vec<Digest>> {
    let mut damaged = vec![[hashes, &[Digest::default()]].concat()];
    for index in 0..hashes.len() {
        let mut changed = hashes.to_vec();
        changed[index] = Digest::of(changed[index].as_bytes());
        damaged.push(changed);
        let mut shorter = hashes.to_vec();
        shorter.remove(index);
        damaged.push(shorter);
    }
    damaged
}

#[test]
fn go_opens_our_checkpoints() {
    let Some(program) = Program::build("formats") else { return };
    let log = SampleLog::of_size(EXHAUSTIVE_SIZE);
    let mut checks = Checks::default();
    let check = |note: &str, key: &VerifierKey, size| {
        let root = base64(log.root(size).as_bytes());
        json!({ "kind": "checkpoint", "note": note, "key": key.to_string(), "size": size, "root": root })
    };
    for size in 0..=EXHAUSTIVE_SIZE {
        let note = log.checkpoint(size, &WITNESSES).to_string();
        checks.accepted(check(&note, &log_key(), size));
        checks.refused(check(
            &note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1),
            &log_key(),
            size,
        ));
        checks.refused(check(&note.replacen(ORIGIN, "example.com/lag", 1), &log_key(), size));
        let other = VerifierKey::ed25519(ORIGIN, secret("other").public()).unwrap();
        checks.refused(check(&note, &other, size));
    }
    checks.run(&program);
}

#[test]
fn go_verifies_our_cosignatures() {
    let Some(program) = Program::build("formats") else { return };
    let log = SampleLog::of_size(5);
    let note = log.checkpoint(5, &WITNESSES).to_string();
    let mut checks = Checks::default();
    let check = |note: &str, key: &VerifierKey, time_s| {
        let key = key.to_string();
        json!({ "kind": "cosignature", "note": note, "key": key, "time_s": time_s })
    };
    for (name, time_s) in WITNESSES.iter().zip(TIME_S..) {
        let key = witness_key(name);
        checks.accepted(check(&note, &key, time_s));
        checks.refused(check(&note, &key, time_s + 1));
        checks.refused(check(&note.replacen("\n5\n", "\n6\n", 1), &key, time_s));
        checks.refused(check(&note, &VerifierKey::cosignature_v1(name, secret("other").public()).unwrap(), time_s));
        // The same signature, with another time written before it.
        let line = NoteSignature::cosign(&log.text(5), name, &secret(name), time_s).unwrap();
        let later = [key.key_id().as_bytes().as_slice(), &(time_s + 1).to_be_bytes(), &line.signature()[8..]].concat();
        let forged = note.replace(&line.to_string(), &format!("\u{2014} {name} {}", base64(later)));
        assert_ne!(forged, note);
        checks.refused(check(&forged, &key, time_s + 1));
    }
    for time_s in [0, i64::MAX as u64] {
        let mut note = log.checkpoint(5, &[]);
        note.add(NoteSignature::cosign(&log.text(5), "w.example", &secret("w"), time_s).unwrap()).unwrap();
        let key = VerifierKey::cosignature_v1("w.example", secret("w").public()).unwrap();
        checks.accepted(check(&note.to_string(), &key, time_s));
    }
    checks.run(&program);
}

#[test]
fn go_checks_our_inclusion_proofs() {
    let Some(program) = Program::build("formats") else { return };
    let log = SampleLog::of_size(EXHAUSTIVE_SIZE);
    let mut checks = Checks::default();
    for size in 1..=EXHAUSTIVE_SIZE {
        let root = base64(log.root(size).as_bytes());
        for index in 0..size {
            let check = |index: u64, leaf: &[u8], hashes: &[Digest]| {
                let leaf = base64(leaf_hash(leaf).as_bytes());
                let hashes = encoded(hashes);
                json!({
                    "kind": "inclusion", "index": index, "leaf": leaf, "size": size, "root": root, "hashes": hashes,
                })
            };
            let hashes = log.inclusion(index, size).unwrap();
            checks.accepted(check(index, log.leaf(index), &hashes));
            checks.refused(check(index, b"another entry", &hashes));
            checks.refused(check(index + 1, log.leaf(index), &hashes));
            for damaged in damaged(&hashes) {
                checks.refused(check(index, log.leaf(index), &damaged));
            }
        }
    }
    checks.run(&program);
}

#[test]
fn go_checks_our_consistency_proofs() {
    let Some(program) = Program::build("formats") else { return };
    let log = SampleLog::of_size(EXHAUSTIVE_SIZE);
    let other = SampleLog::forked(EXHAUSTIVE_SIZE, 0);
    let mut checks = Checks::default();
    for size in 1..=EXHAUSTIVE_SIZE {
        for old_size in 1..=size {
            let check = |old_root: Digest, root: Digest, hashes: &[Digest]| {
                let (old_root, root) = (base64(old_root.as_bytes()), base64(root.as_bytes()));
                json!({
                    "kind": "consistency", "old_size": old_size, "old_root": old_root, "size": size, "root": root,
                    "hashes": encoded(hashes),
                })
            };
            let hashes = log.consistency(old_size, size);
            checks.accepted(check(log.root(old_size), log.root(size), &hashes));
            checks.refused(check(other.root(old_size), log.root(size), &hashes));
            checks.refused(check(log.root(old_size), other.root(size), &hashes));
            for damaged in damaged(&hashes) {
                checks.refused(check(log.root(old_size), log.root(size), &damaged));
            }
        }
    }
    checks.run(&program);
}

#[test]
fn go_checks_our_receipts() {
    let Some(program) = Program::build("formats") else { return };
    let log = SampleLog::of_size(7);
    let mut checks = Checks::default();
    let witness_keys: Vec<String> = WITNESSES.iter().map(|name| witness_key(name).to_string()).collect();
    let check = |receipt: &str, leaf: &[u8]| {
        json!({
            "kind": "receipt", "receipt": receipt, "key": log_key().to_string(), "witness_keys": witness_keys,
            "leaf": base64(leaf_hash(leaf).as_bytes()),
        })
    };
    for (index, extra) in (0..7).zip([None, Some(b"extra".to_vec())].into_iter().cycle()) {
        let hashes = log.inclusion(index, 7).unwrap();
        let receipt = Receipt::new(index, extra, hashes, log.checkpoint(7, &WITNESSES)).unwrap().to_string();
        checks.accepted(check(&receipt, log.leaf(index)));
        checks.refused(check(&receipt, b"another entry"));
        let elsewhere = receipt.replacen(&format!("index {index}\n"), &format!("index {}\n", (index + 1) % 7), 1);
        checks.refused(check(&elsewhere, log.leaf(index)));
        checks.refused(check(&receipt.replacen("\n7\n", "\n8\n", 1), log.leaf(index)));
        checks.refused(check(&receipt.replacen("@v1", "@v2", 1), log.leaf(index)));
        let unwitnessed =
            Receipt::new(index, None, log.inclusion(index, 7).unwrap(), log.checkpoint(7, &WITNESSES[1..]));
        checks.refused(check(&unwitnessed.unwrap().to_string(), log.leaf(index)));
    }
    checks.run(&program);
}
