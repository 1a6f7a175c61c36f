//! Directories that a node cannot start from, and what it keeps in them.

use std::{fs, io::Write as _, path::Path};

use fedledger_federation::{VersionId, command::FileRef};
use fedledger_ledger::Digest;
use fedledger_participant::node::{NodeFiles, NodeOptions, ParticipantError, ParticipantNode, core::Kept};
use tempfile::TempDir;

use crate::kit::write_directory;

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path(), "alpha", &[("alpha", "127.0.0.1:1".parse().unwrap())]);
    directory
}

async fn refusal(directory: &Path) -> ParticipantError {
    match ParticipantNode::start(directory, NodeOptions::default()).await {
        Ok(_) => panic!("the node started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn two_processes_cannot_work_in_one_directory() {
    let directory = directory();
    let first = ParticipantNode::start(directory.path(), NodeOptions::default()).await.unwrap();
    let error = refusal(directory.path()).await;
    assert!(matches!(&error, ParticipantError::InUse(path) if path == directory.path()), "{error}");
    assert!(error.to_string().contains("stop it first"), "{error}");
    first.shutdown().await.unwrap();
    let second = ParticipantNode::start(directory.path(), NodeOptions::default()).await.unwrap();
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named() {
    let cases: [(&str, &[u8], &str); 7] = [
        ("node.toml", b"", "node.toml"),
        ("node.toml", b"\xff", "node.toml"),
        ("genesis.cbor", b"\xa0", "genesis.cbor"),
        ("keys/transaction.key", b"short", "transaction.key"),
        ("policy.toml", b"auto_aprove = true", "policy.toml"),
        ("schema.toml", b"missing = \"maybe\"", "schema.toml"),
        ("witness.note", b"hearts\n", "witness.note"),
    ];
    for (file, bytes, named) in cases {
        let directory = directory();
        fs::write(directory.path().join(file), bytes).unwrap();
        let text = error_chain(&refusal(directory.path()).await);
        assert!(text.contains(named), "{file}: {text}");
    }
    for file in ["node.toml", "genesis.cbor", "keys/transport.key", "policy.toml", "schema.toml", "records.csv"] {
        let directory = directory();
        fs::remove_file(directory.path().join(file)).unwrap();
        let text = error_chain(&refusal(directory.path()).await);
        let name = file.rsplit('/').next().unwrap();
        assert!(text.contains(name), "{file}: {text}");
    }
}

#[tokio::test]
async fn a_peer_that_the_genesis_file_does_not_know_is_named() {
    let directory = directory();
    write_directory(directory.path(), "alpha", &[("delta", "127.0.0.1:1".parse().unwrap())]);
    let text = refusal(directory.path()).await.to_string();
    assert!(text.contains("delta/replica"), "{text}");
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_damaged_blob_counts_as_absent() {
    let directory = tempfile::tempdir().unwrap();
    let files = NodeFiles::open(directory.path()).unwrap();
    let file = files.write_blob(b"weights").unwrap();
    assert_eq!(files.read_blob(&file).unwrap().as_deref(), Some(&b"weights"[..]));
    assert!(files.has_blob(&file).unwrap());
    for damage in [&b"weightz"[..], b"", b"weights and more"] {
        fs::write(files.blob_path(&file.digest), damage).unwrap();
        assert_eq!(files.read_blob(&file).unwrap(), None);
        assert!(!files.has_blob(&file).unwrap());
    }
    let unknown = FileRef { digest: Digest::of(b"unknown"), size: 3 };
    assert_eq!(files.read_blob(&unknown).unwrap(), None);
}

#[test]
fn what_is_of_no_use_any_more_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let files = NodeFiles::open(directory.path()).unwrap();
    let [kept, dropped] = [&b"kept"[..], b"dropped"].map(|bytes| files.write_blob(bytes).unwrap());
    let plan = Digest::of(b"plan");
    let base = VersionId::of_manifest(Digest::of(b"base"));
    let data = Digest::of(b"data");
    let of = |round| fedledger_participant::node::OutcomeOf { plan: &plan, round, base: &base, data_manifest: &data };
    let metrics = [("loss_last".to_owned(), 3)].into();
    let report =
        fedledger_participant::node::TrainingReport { examples: 1, metrics, skipped_rows: [].into(), trainer: None };
    let [first, second] = [1, 2].map(|round| {
        let mut update = files.begin_update(&plan, round).unwrap();
        update.write_all(&[round as u8]).unwrap();
        let file = FileRef { digest: Digest::of(&[round as u8]), size: 1 };
        files.save_outcome(&of(round), update, file, report.clone()).unwrap()
    });
    assert_eq!(files.outcome(&of(1)), Some(first));

    let blobs = Kept { updates: [kept.digest].into(), work: [(plan, 2)].into(), ..Kept::default() };
    files.keep_only(&blobs).unwrap();
    assert!(files.read_blob(&kept).unwrap().is_some());
    assert!(files.read_blob(&dropped).unwrap().is_none());
    assert_eq!(files.outcome(&of(1)), None);
    assert_eq!(files.outcome(&of(2)), Some(second), "the update of a round that is kept is kept with it");
    let other_base = VersionId::of_manifest(Digest::of(b"other"));
    assert_eq!(files.outcome(&fedledger_participant::node::OutcomeOf { base: &other_base, ..of(2) }), None);
}
