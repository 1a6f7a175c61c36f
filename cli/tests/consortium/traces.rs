//! What a hospital's security officer does with evidence and promises, against running replicas.

use std::fs;

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    merkle::leaf_hash,
    note::{NoteSignature, SignedNote},
};
use fedledger_proto::kit::ReplicaKit;

use super::nodes::Consortium;

const LIAR: &str = "cleveland/replica";

/// Cleveland's replica has shown somebody another genesis file: found, recorded by a member, and there for all to see.
pub fn evidence_is_recorded_and_a_promise_is_kept(consortium: &Consortium) {
    let kit = ReplicaKit::load(&consortium.kits().join(LIAR)).unwrap();
    let origin = format!("fedledger/{}", kit.genesis.genesis.consortium);
    let heads = [("right", leaf_hash(&kit.genesis.bytes)), ("wrong", Digest::of(b"another genesis file"))];
    for (name, root) in heads {
        let text = Checkpoint::new(&*origin, 1, root).unwrap().to_note_text();
        let line = NoteSignature::cosign(&text, &cosigner_name(&origin, LIAR), &kit.cosign_key, 7).unwrap();
        let note = SignedNote::from_parts(text, vec![line]).unwrap();
        fs::write(consortium.kits().join(name), note.to_string()).unwrap();
    }
    consortium.json(&["evidence", "make", "right", "wrong", "--out", "liar.evidence"]);
    consortium.json(&["evidence", "check", "liar.evidence", "--trust", "genesis.cbor"]);

    // The member does not wait; the replica's word is kept in a file, and held against the ledger later.
    let by = ["--identity", "switzerland/identity"];
    let promised = consortium.json(
        &[&["evidence", "submit", "liar.evidence", "--wait-for", "accepted", "--promise", "word"], &by[..]].concat(),
    );
    assert!(promised["intake_receipt"].is_string() && promised["index"].is_null(), "{promised}");
    let listed = consortium.wait(&["evidence", "list"], |listed| listed[0]["index"].is_u64());
    assert_eq!(listed[0]["culprits"], serde_json::json!([LIAR]));
    let kept = consortium.wait(&["promise", "check", "word"], |promise| promise["is_final"] == true);
    assert_eq!((&kept["verdict"], &kept["index"]), (&"kept".into(), &listed[0]["index"]));
    let again = consortium.fails(&[&["evidence", "submit", "liar.evidence"], &by[..]].concat(), 4);
    assert!(again.contains("rejected RecordEvidence"), "{again}");
    consortium.fails(&[&["evidence", "submit", "liar.evidence", "--promise", "word"], &by[..]].concat(), 2);
}
