//! Evidence of two histories, and promises, through the command line.

use fedledger_ledger::{
    Digest,
    intake::IntakeReceipt,
    leaf::Leaf,
    log::{read_leaf, read_node},
    merkle::root_at,
    storage::notes::read_note,
};

use super::*;

const ORIGIN: &str = "fedledger/hearts";

impl Ledger {
    fn storage(&self) -> RocksStorage {
        RocksStorage::open_read_only(&self.path("replica/ledger")).unwrap()
    }

    fn root_at(&self, size: u64) -> Digest {
        let storage = self.storage();
        root_at(size, |node| read_node(&storage, node)).unwrap()
    }

    /// Writes a head of another history, co-signed by porto's replica and signed by lyon's in the name of the log.
    fn forge(&self, size: u64) {
        let text = Checkpoint::new(ORIGIN, size, Digest::of(b"another history")).unwrap().to_note_text();
        let lines = vec![
            NoteSignature::sign(&text, ORIGIN, &key("lyon/log")).unwrap(),
            NoteSignature::cosign(&text, &cosigner_name(ORIGIN, "porto/replica"), &key("porto/cosign"), 7).unwrap(),
        ];
        fs::write(self.path("forged"), SignedNote::from_parts(text, lines).unwrap().to_string()).unwrap();
    }

    fn promise(&self, name: &str, transaction: Digest, by_index: u64, signer: &str) {
        let receipt = IntakeReceipt::sign(*self.log.chain(), transaction, by_index, &key(signer));
        fs::write(self.path(name), receipt.to_bytes()).unwrap();
    }
}

/// The final head, as others have it.
fn write_final_head(ledger: &Ledger) {
    fs::write(ledger.path("final"), read_note(&ledger.storage(), "final").unwrap().unwrap()).unwrap();
}

#[test]
fn two_heads_of_one_size_or_of_two_become_evidence_that_anybody_checks() {
    let ledger = Ledger::new();
    write_final_head(&ledger);
    for size in [3, 2] {
        ledger.forge(size);
        let place = if size == 3 { [].as_slice() } else { &["--ledger", "replica"] };
        let make = [&["evidence", "make", "final", "forged", "--out", "porto.evidence", "--force"], place].concat();
        let made = ledger.json(&make);
        assert_eq!(
            (&made["sizes"], &made["accused"]),
            (&serde_json::json!([size, 3]), &serde_json::json!(["fedledger/hearts/porto/replica"]))
        );
        let checked = ledger.json(&["evidence", "check", "porto.evidence", "--trust", "genesis.cbor"]);
        assert_eq!((&checked["schema"], &checked["ok"]), (&"fedledger.evidence/1".into(), &true.into()));
        let signers = checked["signers"].as_array().unwrap();
        assert_eq!(signers.len(), 1);
        assert_eq!((&signers[0]["node"], &signers[0]["signs"]), (&"porto/replica".into(), &"cosignature".into()));
        let by_hand = ["evidence", "check", "porto.evidence", "--key", signers[0]["key"].as_str().unwrap()];
        assert_eq!(ledger.json(&by_hand)["convicted"], checked["convicted"]);
        assert_eq!(ledger.json(&["verify", "porto.evidence", "--trust", "genesis.cbor"]), checked);
    }
    ledger.json(&["export", "--ledger", "replica", "--policy", "hearts.policy"]);
    ledger.json(&["evidence", "check", "porto.evidence", "--policy", "hearts.policy"]);
    ledger.fails(&["evidence", "check", "porto.evidence"], 2);
    assert_eq!(ledger.json(&["evidence", "list", "--ledger", "replica"]), serde_json::json!([]));
}

#[test]
fn a_log_key_convicts_as_well() {
    let ledger = Ledger::new();
    ledger.forge(1);
    let text = Checkpoint::new(ORIGIN, 1, ledger.root_at(1)).unwrap().to_note_text();
    let line = NoteSignature::sign(&text, ORIGIN, &key("lyon/log")).unwrap();
    fs::write(ledger.path("right"), SignedNote::from_parts(text, vec![line]).unwrap().to_string()).unwrap();
    ledger.json(&["evidence", "make", "right", "forged", "--out", "lyon.evidence"]);
    let checked = ledger.json(&["evidence", "check", "lyon.evidence", "--trust", "genesis.cbor"]);
    assert_eq!(
        (&checked["signers"][0]["node"], &checked["signers"][0]["signs"]),
        (&"lyon/replica".into(), &"log".into())
    );
}

#[test]
fn what_convicts_nobody_is_told_with_exit_code_3() {
    let ledger = Ledger::new();
    write_final_head(&ledger);
    // Nobody has signed both, the heads agree, and the ledger knows nothing of the larger one.
    let text = Checkpoint::new(ORIGIN, 3, Digest::of(b"another history")).unwrap().to_note_text();
    let line = NoteSignature::sign(&text, ORIGIN, &key("lyon/log")).unwrap();
    fs::write(ledger.path("lone"), SignedNote::from_parts(text, vec![line]).unwrap().to_string()).unwrap();
    let make = |other: &'static str| ["evidence", "make", "final", other, "--out", "none", "--ledger", "replica"];
    assert!(ledger.fails(&make("lone"), 1).1.contains("no key has signed both heads"));
    assert!(ledger.fails(&make("final"), 1).1.contains("do not contradict each other"));
    ledger.forge(9);
    assert!(ledger.fails(&make("forged"), 1).1.contains("is not of this ledger"));
    assert!(!ledger.path("none").exists());
    // Of strangers, and with a bit changed.
    ledger.forge(3);
    ledger.json(&["evidence", "make", "final", "forged", "--out", "porto.evidence"]);
    fs::write(ledger.path("no.policy"), "quorum none\n").unwrap();
    let (view, _) = ledger.fails(&["evidence", "check", "porto.evidence", "--policy", "no.policy"], 3);
    assert_eq!((&view["ok"], view["problem"].is_string()), (&false.into(), true));
    let mut forged = fs::read(ledger.path("porto.evidence")).unwrap();
    let last = forged.len() - 4;
    forged[last] ^= 1;
    fs::write(ledger.path("forged.evidence"), &forged).unwrap();
    ledger.fails(&["evidence", "check", "forged.evidence", "--trust", "genesis.cbor"], 3);
    fs::write(ledger.path("none.evidence"), b"no evidence").unwrap();
    ledger.fails(&["evidence", "submit", "none.evidence"], 3);
}

#[test]
fn a_promise_is_kept_open_or_broken() {
    let ledger = Ledger::new();
    let leaf = Leaf::from_bytes(&read_leaf(&ledger.storage(), 1).unwrap()).unwrap();
    let there = Digest::of(&leaf.envelope);
    let absent = Digest::of(b"held back");
    let check = |name: &'static str| ["promise", "check", name, "--ledger", "replica"];
    ledger.promise("kept", there, 2, "basel/replica");
    let kept = ledger.json(&check("kept"));
    assert_eq!((&kept["schema"], &kept["verdict"]), (&"fedledger.promise/1".into(), &"kept".into()));
    assert_eq!(
        (&kept["index"], &kept["is_final"], &kept["replica"]),
        (&1.into(), &true.into(), &"basel/replica".into())
    );
    // As it stands in the output of a command.
    let digits = hex::encode(fs::read(ledger.path("kept")).unwrap()) + "\n";
    fs::write(ledger.path("digits"), digits).unwrap();
    assert_eq!(ledger.json(&check("digits"))["verdict"], "kept");
    // Entries up to 2 are final, entry 3 is not.
    for (name, transaction, by_index, verdict, code) in
        [("broken", absent, 2, "broken", 3), ("late", there, 0, "broken", 3), ("open", absent, 3, "open", 5)]
    {
        ledger.promise(name, transaction, by_index, "basel/replica");
        assert_eq!(ledger.fails(&check(name), code).0["verdict"], verdict, "{name}");
    }
    // The bundle of the history is enough.
    ledger.json(&["export", "--ledger", "replica", "--out", "hearts.bundle"]);
    let (view, stderr) = ledger.fails(&["promise", "check", "broken", "--ledger", "hearts.bundle"], 3);
    assert!(view["verdict"] == "broken" && stderr.contains("has broken its word"), "{stderr}");
    // A stranger's word is worth nothing, nor is a changed one.
    ledger.promise("stranger", absent, 2, "basel/organisation");
    assert!(ledger.fails(&check("stranger"), 3).1.contains("was never a replica's"));
    let mut changed = fs::read(ledger.path("broken")).unwrap();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(ledger.path("changed"), changed).unwrap();
    assert!(ledger.fails(&check("changed"), 3).1.contains("promises nothing"));
}
