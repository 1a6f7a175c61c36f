//! Receipts, policies and chains of epochs through the command line, on a ledger that the test writes itself.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

#[path = "proofs/traces.rs"]
mod traces;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fedledger_federation::{
    Federation,
    history::origin,
    member::{GENESIS_SCHEMA, Genesis, Member, Node, NodeKind, Role, default_finality_threshold},
};
use fedledger_ledger::{
    SecretKey,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    log::{Applied, Log},
    note::{NoteSignature, SignedNote},
    seal::{SEAL_KIND, SealProposal},
    storage::{LogStorage as _, notes::put_note, rocks::RocksStorage},
    transaction::{Nonce, Transaction},
};
use serde_json::Value;

const SITES: [&str; 4] = ["basel", "lyon", "porto", "turin"];

/// A replica's directory with a little ledger of four replicas, and the genesis file beside it.
struct Ledger {
    folder: tempfile::TempDir,
    log: Log<Federation>,
}

fn key(label: &str) -> SecretKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(label.bytes()).for_each(|(to, from)| *to = from);
    SecretKey::from_seed(seed)
}

fn member((number, site): (u64, &str)) -> Member {
    let public = |purpose: &str| key(&format!("{site}/{purpose}")).public();
    let kind = NodeKind::Replica { number, log_key: public("log"), cosign_key: public("cosign") };
    let (transport_key, transaction_key) = (public("transport"), public("replica"));
    Member {
        id: site.to_owned(),
        name: site.to_owned(),
        roles: [Role::Replica, Role::Operator].into(),
        organisation_key: public("organisation"),
        api_key: public("api"),
        nodes: vec![Node { name: format!("{site}/replica"), kind, transport_key, transaction_key }],
    }
}

impl Ledger {
    /// A ledger with a rejected entry and a seal, whose head three of four replicas have co-signed, and one entry more.
    fn new() -> Self {
        let genesis = Genesis {
            schema: GENESIS_SCHEMA.to_owned(),
            consortium: "hearts".to_owned(),
            salt: Default::default(),
            finality_threshold: default_finality_threshold(4),
            members: (1..).zip(SITES).map(member).collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("genesis.cbor"), genesis.to_bytes()).unwrap();
        let (log, batch) = Log::genesis(&genesis.to_bytes()).unwrap();
        let storage = RocksStorage::open(&folder.path().join("replica/ledger")).unwrap();
        storage.write(&batch, true).unwrap();
        let mut ledger = Self { folder, log };
        ledger.submit(&storage, "office", "Greet", vec![0xa0]);
        let seal = SealProposal { time_ms: 1_700_000_000_000, term: 1, cosigned: Vec::new() };
        ledger.submit(&storage, "basel/replica", SEAL_KIND, seal.to_bytes());
        let origin = origin(ledger.log.machine().consortium());
        let text = Checkpoint::new(origin.as_str(), ledger.log.size(), ledger.log.root()).unwrap().to_note_text();
        let mut lines = vec![NoteSignature::sign(&text, &origin, &key("basel/log")).unwrap()];
        for site in &SITES[..3] {
            let name = cosigner_name(&origin, &format!("{site}/replica"));
            let line = NoteSignature::cosign(&text, &name, &key(&format!("{site}/cosign")), 1_700_000_001);
            lines.push(line.unwrap());
        }
        let mut batch = Default::default();
        put_note(&mut batch, "final", &SignedNote::from_parts(text, lines).unwrap().to_string());
        storage.write(&batch, true).unwrap();
        ledger.submit(&storage, "basel/organisation", "Greet", vec![0xa0]);
        let text = Checkpoint::new(origin.as_str(), ledger.log.size(), ledger.log.root()).unwrap().to_note_text();
        let head =
            SignedNote::from_parts(&*text, vec![NoteSignature::sign(&text, &origin, &key("basel/log")).unwrap()]);
        let mut batch = Default::default();
        put_note(&mut batch, "head", &head.unwrap().to_string());
        storage.write(&batch, true).unwrap();
        ledger
    }

    fn submit(&mut self, storage: &RocksStorage, signer: &str, kind: &str, payload: Vec<u8>) {
        let index = self.log.size();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&index.to_be_bytes());
        let key = key(signer);
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: key.public(),
            nonce: Nonce(nonce),
            not_after_index: index + 1000,
            kind: kind.into(),
            payload,
        };
        let Applied::Entry(entry) = self.log.apply(index, &transaction.sign(&key).to_bytes()) else {
            unreachable!("the transaction is valid");
        };
        storage.write(&entry.batch, true).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = fedledger(self.folder.path(), &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command prints as JSON that ends with this code.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32) -> (Value, String) {
        let output = fedledger(self.folder.path(), &[arguments, &["--json"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        (serde_json::from_slice(&output.stdout).unwrap_or_default(), stderr)
    }
}

/// Runs the command line in a folder, without defaults from outside.
fn fedledger(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG"] {
        command.env_remove(variable);
    }
    command.current_dir(folder).args(arguments).output().unwrap()
}

#[test]
fn an_entry_is_proven_to_whoever_has_the_genesis_file_or_a_policy() {
    let ledger = Ledger::new();
    let made = ledger.json(&["prove", "1", "--ledger", "replica", "--out", "1.tlog-proof"]);
    assert_eq!((&made["schema"], &made["ok"]), (&"fedledger.prove/1".into(), &true.into()));
    let exported =
        ledger.json(&["export", "--ledger", "replica", "--policy", "hearts.policy", "--epochs", "epochs.cbor"]);
    assert_eq!((&exported["final_entries"], &exported["epoch_count"]), (&3.into(), &1.into()));
    for trust in [
        ["--trust", "genesis.cbor"].as_slice(),
        &["--policy", "hearts.policy"],
        &["--trust", "genesis.cbor", "--epochs", "epochs.cbor"],
    ] {
        let checked = ledger.json(&[&["prove", "--check", "1.tlog-proof"], trust].concat());
        let (entry, head) = (&checked["entry"], &checked["head"]);
        assert_eq!((&entry["index"], &entry["kind"], &entry["accepted"]), (&1.into(), &"Greet".into(), &false.into()));
        assert_eq!(entry["outcome"], "unknown_author");
        assert_eq!((&head["size"], &head["time_s"]), (&3.into(), &1_700_000_001.into()));
        assert_eq!(head["cosigned_by"].as_array().unwrap().len(), 3);
        assert_eq!(ledger.json(&[&["verify", "1.tlog-proof"], trust].concat()), checked);
    }
    // The seal's author is known from the genesis file.
    ledger.json(&["prove", "2", "--ledger", "replica", "--out", "2.tlog-proof"]);
    let seal = ledger.json(&["prove", "--check", "2.tlog-proof", "--trust", "genesis.cbor"]);
    assert_eq!((&seal["entry"]["node"], &seal["entry"]["seal"]["number"]), (&"basel/replica".into(), &1.into()));
    // Not final, not there, and already written.
    let (_, stderr) = ledger.fails(&["prove", "3", "--ledger", "replica", "--out", "3.tlog-proof"], 1);
    assert!(stderr.contains("not final yet"), "{stderr}");
    ledger.fails(&["prove", "2", "--ledger", "replica", "--out", "2.tlog-proof"], 1);
    ledger.fails(&["prove", "--check", "2.tlog-proof"], 2);
}

#[test]
fn a_changed_receipt_or_another_trust_is_told_with_exit_code_3() {
    let ledger = Ledger::new();
    ledger.json(&["prove", "1", "--ledger", "replica", "--out", "1.tlog-proof"]);
    let receipt = fs::read_to_string(ledger.path("1.tlog-proof")).unwrap();
    let other = receipt.replacen("index 1\n", "index 2\n", 1);
    fs::write(ledger.path("other.tlog-proof"), other).unwrap();
    let check = ["prove", "--check", "other.tlog-proof", "--trust", "genesis.cbor"];
    let (view, stderr) = ledger.fails(&check, 3);
    assert_eq!(view["ok"], false);
    assert!(view["problem"].is_string() && view.get("entry").is_none() && stderr.contains("proves nothing"), "{view}");
    fs::write(ledger.path("no.policy"), "quorum none\n").unwrap();
    ledger.fails(&["prove", "--check", "1.tlog-proof", "--policy", "no.policy"], 3);
}

#[test]
fn a_record_and_its_absence_are_proven() {
    let ledger = Ledger::new();
    let revoked = key("turin/log").public().to_string();
    let made = ["prove", "--revoked-key", &revoked, "--ledger", "replica", "--out", "key.state-proof"];
    assert_eq!(ledger.json(&made)["record"]["present"], false);
    let checked = ledger.json(&["prove", "--check", "key.state-proof", "--trust", "genesis.cbor"]);
    assert_eq!(checked["record"]["statement"], format!("key {revoked} is not revoked"));
    assert_eq!(checked["record"]["seal_index"], 2);
    ledger.json(&["prove", "--member", "lyon", "--ledger", "replica", "--out", "lyon.state-proof"]);
    let lyon = ledger.json(&["verify", "lyon.state-proof", "--trust", "genesis.cbor"]);
    assert_eq!(lyon["record"]["value"]["member"]["id"], "lyon");
    let mut forged = fs::read(ledger.path("lyon.state-proof")).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(ledger.path("forged.state-proof"), forged).unwrap();
    ledger.fails(&["verify", "forged.state-proof", "--trust", "genesis.cbor"], 3);
}

#[test]
fn a_bundle_is_judged_by_a_policy_and_a_chain() {
    let ledger = Ledger::new();
    ledger.json(&["export", "--ledger", "replica", "--out", "hearts.bundle", "--policy", "p", "--epochs", "e"]);
    let report = ledger.json(&["verify", "hearts.bundle", "--policy", "p", "--trust", "genesis.cbor", "--epochs", "e"]);
    assert_eq!((&report["ok"], &report["policy_satisfied"]), (&true.into(), &true.into()));
    assert_eq!((&report["final_entries"], &report["pending_entries"]), (&3.into(), &1.into()));
    let text = fs::read_to_string(ledger.path("p")).unwrap();
    fs::write(ledger.path("strict"), text.replace("group replicas 3", "group replicas 4")).unwrap();
    let (report, _) = ledger.fails(&["verify", "hearts.bundle", "--policy", "strict"], 3);
    assert_eq!((&report["problems"][0]["kind"], &report["policy_satisfied"]), (&"policy".into(), &false.into()));
    let epochs = ledger.json(&["verify", "e", "--trust", "genesis.cbor"]);
    assert_eq!((&epochs["schema"], &epochs["epochs"][0]["threshold"]), (&"fedledger.epochs/1".into(), &3.into()));
    ledger.fails(&["verify", "e"], 2);
}
