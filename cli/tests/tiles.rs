//! The log as a tree of static files, through the command line.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fedledger_federation::{Federation, history::origin};
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    log::{Applied, Log},
    note::sign_note,
    storage::{LogStorage as _, notes::put_note, rocks::RocksStorage},
    tiles::{Tile, root_from_tiles, tiles},
    transaction::{Nonce, Transaction},
};
use fedledger_proto::kit::{Identity, ReplicaKit};
use serde_json::Value;

const CONSORTIUM: &str = "name = 'heart'\n[[members]]\nid = 'cleveland'\nroles = ['replica', 'operator']\n";

/// A replica's directory whose ledger the test writes itself, and where exports go.
struct Replica {
    folder: tempfile::TempDir,
    identity: Identity,
    log: Log<Federation>,
}

impl Replica {
    /// A replica that has only the genesis file.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("consortium.toml"), CONSORTIUM).unwrap();
        assert!(fedledger(folder.path(), &["provision", "consortium.toml", "--out", "kits"]).status.success());
        let identity = Identity::load(&folder.path().join("kits/cleveland/identity")).unwrap();
        let (log, batch) = Log::genesis(&identity.genesis.bytes).unwrap();
        let replica = Self { folder, identity, log };
        replica.storage().write(&batch, true).unwrap();
        replica
    }

    fn storage(&self) -> RocksStorage {
        RocksStorage::open(&self.path("kits/cleveland/replica/ledger")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Lets the ledger grow to `size` entries, and signs its head.
    fn grow(&mut self, size: u64) {
        let storage = self.storage();
        while self.log.size() < size {
            let index = self.log.size();
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&index.to_be_bytes());
            let key = &self.identity.organisation_key;
            let transaction = Transaction {
                chain: *self.log.chain(),
                author: key.public(),
                nonce: Nonce(nonce),
                not_after_index: index + 1000,
                kind: "Greet".into(),
                payload: vec![0xa0],
            };
            let Applied::Entry(entry) = self.log.apply(index, &transaction.sign(key).to_bytes()) else {
                unreachable!("the transaction is valid");
            };
            storage.write(&entry.batch, false).unwrap();
        }
        let origin = origin(self.log.machine().consortium());
        self.sign(&storage, &Checkpoint::new(origin, size, self.log.root()).unwrap());
    }

    fn sign(&self, storage: &RocksStorage, checkpoint: &Checkpoint) {
        let kit = ReplicaKit::load(&self.path("kits/cleveland/replica")).unwrap();
        let note = sign_note(&checkpoint.to_note_text(), checkpoint.origin(), &kit.log_key).unwrap();
        let mut batch = Default::default();
        put_note(&mut batch, "head", &note.to_string());
        storage.write(&batch, true).unwrap();
    }

    fn export(&self, ledger: &str, directory: &str) -> Output {
        fedledger(self.folder.path(), &["export", "--ledger", ledger, "--tiles", directory, "--json"])
    }

    #[track_caller]
    fn exported(&self, ledger: &str, directory: &str) -> Value {
        let output = self.export(ledger, directory);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What stands on stderr of an export that fails with this code.
    #[track_caller]
    fn refused(&self, ledger: &str, directory: &str, exit: i32) -> String {
        let output = self.export(ledger, directory);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{stderr}");
        stderr
    }

    /// Every file below a directory, by path.
    fn files(&self, directory: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(directory);
        let (mut files, mut folders) = (BTreeMap::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
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

const NODE: &str = "kits/cleveland/replica";

#[test]
fn a_ledger_becomes_a_tree_of_files_that_later_exports_extend() {
    let mut replica = Replica::new();
    replica.grow(300);
    let first = replica.exported(NODE, "web/log");
    assert_eq!((&first["schema"], &first["entries"]), (&"fedledger.tiles/1".into(), &300.into()));
    assert_eq!(
        (&first["origin"], &first["written"], &first["kept"]),
        (&"fedledger/heart".into(), &5.into(), &0.into())
    );
    assert_eq!(first["root"], replica.log.root().to_string());
    let before = replica.files("web/log");
    let expected: Vec<String> = tiles(300).map(|tile| tile.to_string()).chain(["checkpoint".into()]).collect();
    assert!(before.len() == expected.len() && expected.iter().all(|name| before.contains_key(name)), "{expected:?}");
    let fetch = |tile: &Tile| fs::read(replica.path("web/log").join(tile.to_string()));
    assert_eq!(root_from_tiles(300, fetch).unwrap(), replica.log.root());

    // The same from a bundle, which knows no hashes.
    let bundle = ["export", "--ledger", NODE, "--out", "heart.bundle"];
    assert!(fedledger(replica.folder.path(), &bundle).status.success());
    replica.exported("heart.bundle", "from-bundle");
    assert_eq!(replica.files("from-bundle"), before);

    // Again: nothing is written anew.
    let again = replica.exported(NODE, "web/log");
    assert_eq!((&again["written"], &again["kept"]), (&0.into(), &5.into()));
    assert_eq!(replica.files("web/log"), before);

    replica.grow(520);
    let later = replica.exported(NODE, "web/log");
    assert_eq!((&later["entries"], &later["kept"]), (&520.into(), &2.into()), "the full tile and bundle are kept");
    let after = replica.files("web/log");
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "checkpoint") {
        assert_eq!(after.get(name), Some(bytes), "{name} of the earlier checkpoint is gone");
    }
    assert!(tiles(520).all(|tile| after.contains_key(&tile.to_string())));
    assert!(String::from_utf8_lossy(&after["checkpoint"]).starts_with("fedledger/heart\n520\n"));

    // The bundle has fewer entries than the export by now.
    let refusal = replica.refused("heart.bundle", "web/log", 1);
    assert!(refusal.contains("520 entries") && refusal.contains("next: name another directory"), "{refusal}");
    assert_eq!(replica.files("web/log"), after);
}

#[test]
fn an_export_of_another_history_is_not_touched() {
    let mut replica = Replica::new();
    replica.grow(300);
    replica.exported(NODE, "log");
    let other = {
        let mut other = Replica::new();
        other.grow(400);
        other
    };
    let before = replica.files("log");
    // The same consortium by name, but another chain.
    let node = other.path(NODE);
    let refusal = replica.refused(node.to_str().unwrap(), "log", 3);
    assert!(refusal.contains("is not the tile of this ledger"), "{refusal}");
    assert_eq!(replica.files("log"), before);

    // A tile that was damaged in the meantime.
    let tile = replica.path("log/tile/0/000");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[100] ^= 1;
    fs::write(&tile, bytes).unwrap();
    let refusal = replica.refused(NODE, "log", 3);
    assert!(refusal.contains("log/tile/0/000 is not the tile of this ledger"), "{refusal}");
}

#[test]
fn a_fork_below_the_first_full_tile_is_noticed() {
    let mut replica = Replica::new();
    replica.grow(20);
    replica.exported(NODE, "log");
    let mut other = Replica::new();
    other.grow(30);
    let node = other.path(NODE);
    let refusal = replica.refused(node.to_str().unwrap(), "log", 3);
    assert!(refusal.contains("one of them is forged") && refusal.contains("keep both as evidence"), "{refusal}");
}

#[test]
fn only_a_directory_of_its_own_is_written_to() {
    let mut replica = Replica::new();
    replica.grow(3);
    fs::create_dir(replica.path("papers")).unwrap();
    fs::write(replica.path("papers/letter.txt"), "dear colleague").unwrap();
    let refusal = replica.refused(NODE, "papers", 1);
    assert!(refusal.contains("papers is not empty, and holds no earlier export"), "{refusal}");
    fs::write(replica.path("papers/checkpoint"), "no note").unwrap();
    replica.refused(NODE, "papers", 1);
    assert_eq!(replica.files("papers").len(), 2);
    fs::write(replica.path("file"), "").unwrap();
    assert!(replica.refused(NODE, "file", 1).contains("cannot write file"));
    for arguments in [
        &["export", "--ledger", NODE][..],
        &["export", "--ledger", NODE, "--tiles", "log", "--out", "bundle"],
        &["export", "--ledger", NODE, "--tiles", "log", "--with-blobs"],
        &["export", "--ledger", NODE, "--tiles", "log", "--force"],
    ] {
        assert_eq!(fedledger(replica.folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert!(!replica.path("log").exists() && !replica.path("bundle").exists());
}

#[test]
fn a_ledger_that_does_not_lead_to_its_checkpoint_leaves_no_files() {
    let mut replica = Replica::new();
    replica.grow(300);
    let storage = replica.storage();
    let forged = Checkpoint::new("fedledger/heart", 300, Digest::of(b"forged")).unwrap();
    replica.sign(&storage, &forged);
    drop(storage);
    let refusal = replica.refused(NODE, "log", 3);
    assert!(refusal.contains("the checkpoint signs the root") && refusal.contains("fedledger verify"), "{refusal}");
    assert_eq!(replica.files("log").len(), 0);
}

#[test]
fn people_are_told_what_was_written() {
    let mut replica = Replica::new();
    replica.grow(3);
    let output = fedledger(replica.folder.path(), &["export", "--ledger", NODE, "--tiles", "log"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("log: 3 entries in 2 tiles and entry bundles (2 new)\n"), "{text}");
}

/// Runs `fedledger verify` on what the test exported. Gives its exit code and its report.
fn verified(replica: &Replica, path: &str) -> (Option<i32>, Value) {
    let arguments = ["verify", path, "--trust", "kits/cleveland/replica/genesis.cbor", "--json"];
    let output = fedledger(replica.folder.path(), &arguments);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn a_tree_of_files_is_verified_and_every_file_that_is_damaged_is_named() {
    let mut replica = Replica::new();
    replica.grow(300);
    replica.exported(NODE, "log");
    let (exit, report) = verified(&replica, "log");
    assert_eq!(
        (exit, &report["entries"], &report["genesis_trusted"]),
        (Some(0), &300.into(), &true.into()),
        "{report}"
    );
    assert_eq!(report["root"], replica.log.root().to_string());
    let listed = fedledger(replica.folder.path(), &["log", "--ledger", "log", "--json"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));

    let damaged = |name: &str, bytes: Option<&[u8]>| {
        let (path, whole) = (replica.path("log").join(name), fs::read(replica.path("log").join(name)).unwrap());
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let (exit, report) = verified(&replica, "log");
        let problem = &report["problems"][0];
        assert_eq!((exit, &problem["file"]), (Some(3), &name.into()), "{name}: {report}");
        let output = fedledger(replica.folder.path(), &["verify", "log"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.code() == Some(3) && text.contains(&format!(" in {name}")), "{text}");
        fs::write(&path, whole).unwrap();
    };
    for (name, bytes) in &replica.files("log") {
        let mut flipped = bytes.clone();
        flipped[bytes.len() - 20] ^= 4;
        damaged(name, Some(&flipped));
        damaged(name, Some(&bytes[..bytes.len() - 1]));
        damaged(name, None);
    }
    assert_eq!(verified(&replica, "log").0, Some(0));
}

#[test]
fn flipped_bits_of_a_bundle_exit_with_3_and_a_place() {
    let mut replica = Replica::new();
    replica.grow(20);
    let export = ["export", "--ledger", NODE, "--out", "heart.bundle"];
    assert!(fedledger(replica.folder.path(), &export).status.success());
    let bundle = fs::read(replica.path("heart.bundle")).unwrap();
    assert_eq!(verified(&replica, "heart.bundle").0, Some(0));
    let body = bundle.len() - 32;
    for place in (0..20).map(|sample| sample * bundle.len() / 20).chain([body - 1, body, bundle.len() - 1]) {
        let mut flipped = bundle.clone();
        flipped[place] ^= 1 << (place % 8);
        // With the digest at the end as it was, and made right again.
        let digest = Digest::of(&flipped[..body]);
        let forged = [&flipped[..body], digest.as_bytes()].concat();
        for (bytes, is_forged) in [(flipped, false), (forged, true)] {
            if is_forged && bytes == bundle {
                continue;
            }
            fs::write(replica.path("flipped.bundle"), bytes).unwrap();
            let (exit, report) = verified(&replica, "flipped.bundle");
            let problem = &report["problems"][0];
            assert_eq!(exit, Some(3), "byte {place}: {report}");
            assert!(problem["index"].is_u64() || problem["offset"].is_u64(), "byte {place}: {report}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(!detail.contains("byte "), "the place stands beside the words: {detail}");
        }
    }
}
