//! The command line on running replicas, through a change of keys: what it fetches can be judged by whoever has the genesis
//! file.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

#[path = "../../coordinator/tests/shared/cluster.rs"]
#[expect(dead_code, reason = "the tests of nodes use the rest of it")]
mod cluster;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use cluster::Cluster;
use fedledger_ledger::{checkpoint::Checkpoint, epoch::EpochChain, note::SignedNote};
use fedledger_proto::{api::Level, kit::ReplicaKit};
use serde_json::Value;

/// What everybody has who trusts the consortium.
const GENESIS: &str = "site-1/replica/genesis.cbor";

/// The command line in the folder of a cluster.
struct People<'a> {
    folder: &'a Path,
    urls: String,
}

impl<'a> People<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let url =
            |number| format!("https://{}", ReplicaKit::load(&cluster.replica_directory(number)).unwrap().config.api);
        Self { folder: cluster.directory(), urls: [1, 2].map(url).join(",") }
    }

    /// As the people of a site, connected with the replicas.
    fn connected(&self, site: &str, arguments: &[&str]) -> Value {
        let identity = format!("{site}/identity");
        self.ok(&[arguments, &["--connect", &self.urls, "--identity", &identity]].concat())
    }

    /// As somebody who is connected with nobody.
    fn ok(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FEDLEDGER_")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder).args(arguments).arg("--json").output().unwrap()
    }

    /// Entries under the last head that the first site has seen.
    fn seen(&self) -> u64 {
        let note = fs::read_to_string(self.folder.join("site-1/identity/checkpoint")).unwrap();
        Checkpoint::parse(SignedNote::parse(&note).unwrap().text()).unwrap().size()
    }
}

/// Brings an entry onto the ledger and waits until it is final at the first two replicas.
async fn finalize(cluster: &mut Cluster) -> u64 {
    let envelope = cluster.transaction("Greet", vec![0xa0]);
    let index = cluster.node(1).handle().submit(envelope).await.unwrap().index;
    for number in [1, 2] {
        assert!(cluster.node(number).handle().reach(index, Level::Final).await, "entry {index} did not become final");
    }
    index
}

/// The members replace the keys with which a replica signs heads, and it starts again with the new ones.
async fn replace_keys(cluster: &mut Cluster, number: u64) {
    let site = format!("site-{number}");
    let people = People::of(cluster);
    let rotate = ["identity", "rotate", "--dir", &site, "--node", "replica", "--purpose", "log,cosign"];
    people.ok(&[&rotate[..], &["--out", "rotation.toml"]].concat());
    let proposed = people.connected("site-1", &["member", "rotate", "rotation.toml", "--reason", "yearly"]);
    let id = proposed["proposal"].as_str().unwrap();
    let voted = people.connected("site-2", &["proposal", "vote", id, "--approve"]);
    assert_eq!(voted["status"], "executed");
    people.connected("site-1", &["identity", "adopt", "--dir", &site]);
    // The head over the vote belongs to the old keys still: with them the replica vouches for the new ones, and then goes.
    let index = voted["index"].as_u64().unwrap();
    for number in 1..=3 {
        assert!(cluster.node(number).handle().reach(index, Level::Final).await, "the vote did not become final");
    }
    cluster.kill(number).await;
    cluster.restart(number).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_after_a_change_of_keys_verifies_with_the_genesis_file_alone() {
    let mut cluster = Cluster::start(3).await;
    let before = finalize(&mut cluster).await;
    People::of(&cluster).connected("site-1", &["status"]);
    assert!(People::of(&cluster).seen() > before);
    assert!(!cluster.directory().join("site-1/identity/epochs").exists(), "there is one epoch only");
    replace_keys(&mut cluster, 3).await;
    replace_keys(&mut cluster, 2).await;
    // Of three replicas two must co-sign, and two have other keys than in the genesis file.
    let after = finalize(&mut cluster).await;

    let people = People::of(&cluster);
    let entry = after.to_string();
    people.connected("site-1", &["prove", &entry, "--out", "after.tlog-proof"]);
    assert!(people.seen() > after, "the head of the new epoch was not remembered");
    let kept = fs::read(cluster.directory().join("site-1/identity/epochs")).unwrap();
    assert_eq!(EpochChain::from_bytes(&kept).unwrap().links().len(), 2);

    let exported = people.connected("site-1", &["export", "--epochs", "epochs.cbor"]);
    assert_eq!(exported["epoch_count"], 3);
    assert!(exported["final_entries"].as_u64().unwrap() > after);
    assert_eq!(fs::read(cluster.directory().join("epochs.cbor")).unwrap(), kept, "people have verified the same chain");
    let check = ["prove", "--check", "after.tlog-proof", "--trust", GENESIS];
    assert_eq!(people.run(&check).status.code(), Some(3), "the old keys alone do not make it final");
    people.ok(&[&check[..], &["--epochs", "epochs.cbor"]].concat());

    people.connected("site-1", &["export", "--out", "heart.bundle"]);
    for verified in [
        people.ok(&["verify", "heart.bundle", "--trust", GENESIS, "--epochs", "epochs.cbor"]),
        people.connected("site-1", &["verify", "--trust", GENESIS]),
    ] {
        assert_eq!((&verified["ok"], &verified["epochs"]), (&true.into(), &3.into()), "{verified}");
        assert!(verified["final_entries"].as_u64().unwrap() > after, "{verified}");
    }
    // The same as from the directory of a replica that has stopped.
    cluster.stop().await;
    let people = People::of(&cluster);
    people.ok(&["export", "--epochs", "directory.cbor", "--ledger", "site-2/replica"]);
    let directory = fs::read(cluster.directory().join("directory.cbor")).unwrap();
    let epochs = |bytes: &[u8]| -> Vec<Vec<u8>> {
        EpochChain::from_bytes(bytes).unwrap().links().iter().map(|link| link.epoch.clone()).collect()
    };
    assert_eq!(epochs(&directory), epochs(&kept));
}
