//! The whole node over real connections, with a replica that keeps its ledger in memory.

use std::path::Path;

use fedledger_federation::{
    Federation,
    architecture::Architecture,
    command::RoundKey,
    metrics::is_interval_end,
    records::{Participation, PlanRecord},
};
use fedledger_ledger::{Digest, SecretKey, log::Log};
use fedledger_participant::node::{HistoryError, NodeEvent, NodeFiles, NodeOptions, ParticipantError, ParticipantNode};
use fedledger_proto::{endpoint::Transports, wire::CHUNK_BYTES};
use tempfile::TempDir;

use crate::{
    fixture::{Ledger, genesis, plan},
    kit::write_directory,
    replica::Replica,
};

/// A plan that alpha alone can carry out.
pub fn lone_plan() -> fedledger_federation::plan::Plan {
    let mut plan = plan();
    plan.participation.minimum_participants = 1;
    plan
}

pub async fn start(directory: &Path) -> ParticipantNode {
    let options = NodeOptions { transports: Transports::TcpOnly };
    ParticipantNode::start(directory, options).await.unwrap()
}

pub fn directory(replicas: &[(&str, &Replica)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let addresses: Vec<_> = replicas.iter().map(|(name, replica)| (*name, replica.address())).collect();
    write_directory(directory.path(), "alpha", &addresses);
    directory
}

fn contribution_of(state: &Federation, key: &RoundKey) -> Option<(u64, Digest)> {
    state.participations(key).find_map(|(member, participation)| match participation {
        Participation::Contributed { index, contribution, .. } if member == "alpha" => {
            Some((*index, contribution.update))
        }
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_carried_out_from_consent_to_evaluation() {
    let mut ledger = Ledger::new();
    let id = ledger.propose(lone_plan());
    let replica = Replica::start("alpha", ledger);
    let directory = directory(&[("alpha", &replica)]);
    let node = start(directory.path()).await;
    let mut events = node.events();

    let consented = |record: &PlanRecord| record.consents.contains_key("alpha");
    replica.until(|state| state.plans().get(&id).is_some_and(consented)).await;
    replica.change(|ledger| ledger.start(id));
    let mut versions = Vec::new();
    for _ in 0..3 {
        let key = replica.change(|ledger| ledger.open_round(id));
        replica.until(|state| contribution_of(state, &key).is_some()).await;
        let update = replica.change(|ledger| contribution_of(ledger.state(), &key)).unwrap().1;
        assert!(replica.change(|ledger| ledger.blobs.contains_key(&update)), "the update came before the contribution");
        assert_eq!(replica.fetch("alpha", update).await.map(|bytes| Digest::of(&bytes)), Some(update));
        let base = replica.change(|ledger| {
            let base = ledger.state().rounds().get(&key).unwrap().base;
            ledger.state().versions().get(&base).unwrap().manifest.weights().unwrap().digest
        });
        let served = replica.fetch("alpha", base).await.map(|bytes| Digest::of(&bytes));
        assert_eq!(served, Some(base), "replicas may have lost the version that is trained on");
        versions.push(replica.complete_round(key));
    }
    let last = *versions.last().unwrap();
    replica.until(|state| state.evaluations(&last).count() == 1).await;
    let metrics = replica.change(|ledger| ledger.state().evaluations(&last).next().unwrap().1.metrics.clone());
    let keys: Vec<&str> = metrics.keys().map(String::as_str).filter(|name| !is_interval_end(name)).collect();
    assert_eq!(keys, ["accuracy", "auc", "calibration_error", "f1", "loss"]);

    let weights = replica.change(|ledger| ledger.state().head("main").unwrap().1.manifest.weights().unwrap().digest);
    assert_eq!(replica.fetch("alpha", weights).await, None, "what is not worked on any more is not given away");
    let mut status = node.status();
    status.wait_for(|status| status.witnessed > 0).await.unwrap();
    node.shutdown().await.unwrap();
    assert!(directory.path().join("witness.note").is_file());

    let mut seen = Vec::new();
    while let Ok(event) = events.recv().await {
        seen.push(event);
    }
    let count = |wanted: fn(&NodeEvent) -> bool| seen.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, NodeEvent::Joined { .. })), 3);
    assert_eq!(count(|event| matches!(event, NodeEvent::Trained { .. })), 3);
    assert_eq!(count(|event| matches!(event, NodeEvent::Contributed { .. })), 3);
    let memory = |event: &NodeEvent| match event {
        NodeEvent::TrainingMemory { peak_bytes, estimated_bytes, .. } => *peak_bytes > 0 && *estimated_bytes > 0,
        _ => false,
    };
    // Only Linux tells a process how much memory it has had.
    assert_eq!(count(memory), if cfg!(target_os = "linux") { 3 } else { 0 });
    assert!(count(|event| matches!(event, NodeEvent::Evaluated { .. })) >= 3);
    assert_eq!(count(|event| matches!(event, NodeEvent::Rejected { .. } | NodeEvent::Distrusted { .. })), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_started_again_goes_on_and_gives_the_same_update() {
    let mut updates = Vec::new();
    for interruption in [None, Some("restart"), Some("lost disk")] {
        let mut ledger = Ledger::new();
        let id = ledger.start_plan(lone_plan(), &["alpha"]);
        let key = ledger.open_round(id);
        let mut replica = Replica::start("alpha", ledger);
        let mut directory = directory(&[("alpha", &replica)]);
        let mut node = start(directory.path()).await;
        if let Some(interruption) = interruption {
            replica.until(|state| state.participations(&key).next().is_some()).await;
            // The node stops wherever it is, and the replica comes back at another address.
            node.shutdown().await.unwrap();
            replica = Replica::start("alpha", replica.stop().await);
            if interruption == "lost disk" {
                directory = tempfile::tempdir().unwrap();
            }
            write_directory(directory.path(), "alpha", &[("alpha", replica.address())]);
            node = start(directory.path()).await;
        }
        replica.until(|state| contribution_of(state, &key).is_some()).await;
        updates.push(replica.change(|ledger| contribution_of(ledger.state(), &key)).unwrap().1);
        // Whatever was in flight, there is one contribution, and nothing of the node was refused.
        let leaves = replica.change(|ledger| ledger.leaves.clone());
        node.shutdown().await.unwrap();
        let (mut log, _) = Log::<Federation>::genesis(&genesis()).unwrap();
        let outcomes = leaves.iter().map(|leaf| log.replay(leaf).unwrap().leaf.outcome);
        assert!(outcomes.into_iter().all(|outcome| outcome.is_accepted()));
    }
    assert!(updates.iter().all(|update| *update == updates[0]), "{updates:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_that_is_interrupted_goes_on_from_its_local_checkpoint_to_the_same_update() {
    let mut plan = lone_plan();
    let steps = 50_000;
    plan.training.as_mut().unwrap().steps = steps;
    let mut updates = Vec::new();
    for interrupted in [false, true] {
        let mut ledger = Ledger::new();
        let id = ledger.start_plan(plan.clone(), &["alpha"]);
        let key = ledger.open_round(id);
        ledger.join("alpha", key);
        let replica = Replica::start("alpha", ledger);
        let directory = directory(&[("alpha", &replica)]);
        let checkpoint = directory.path().join(format!("work/{id}-1/checkpoint"));
        // With the weights at hand, a node that is stopped at once has begun to train in about every other case.
        let weights = replica.change(|ledger| ledger.blobs.values().next().unwrap().clone());
        NodeFiles::open(directory.path()).unwrap().write_blob(&weights).unwrap();
        while interrupted && !checkpoint.exists() {
            let node = start(directory.path()).await;
            node.status().wait_for(|status| status.current).await.unwrap();
            node.shutdown().await.unwrap();
            assert_eq!(replica.change(|ledger| contribution_of(ledger.state(), &key)), None, "it was too fast to stop");
        }
        let node = start(directory.path()).await;
        let mut events = node.events();
        replica.until(|state| contribution_of(state, &key).is_some()).await;
        updates.push(replica.change(|ledger| contribution_of(ledger.state(), &key)).unwrap().1);
        node.shutdown().await.unwrap();
        let mut resumed = 0;
        while let Ok(event) = events.recv().await {
            if let NodeEvent::Resumed { step, .. } = event {
                assert!((1..steps).contains(&step), "it went on from step {step}");
                resumed += 1;
            }
        }
        assert_eq!(resumed, u64::from(interrupted), "nothing is done again that was saved");
        assert!(!checkpoint.exists(), "a local checkpoint is of no use after the training");
    }
    assert_eq!(updates[0], updates[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_are_cut_off_are_fetched_on_and_not_anew() {
    let mut plan = lone_plan();
    plan.architecture = Architecture::multilayer_perceptron(2, &[512, 512]);
    plan.training.as_mut().unwrap().steps = 1;
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(plan, &["alpha"]);
    let key = ledger.open_round(id);
    let weights = ledger.blobs.values().map(Vec::len).max().unwrap() as u64;
    assert!(weights > 3 * CHUNK_BYTES as u64);
    let replica = Replica::start("alpha", ledger);
    replica.cut(1);
    let directory = directory(&[("alpha", &replica)]);
    let node = start(directory.path()).await;
    replica.until(|state| contribution_of(state, &key).is_some()).await;
    // The first chunk came before the cut, and only once.
    assert_eq!(replica.read_bytes(), weights);
    node.shutdown().await.unwrap();
}

/// The members replace the transport key of the only replica that the node reaches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_with_a_replicas_new_transport_key_and_begins_with_it_the_next_time() {
    let mut replica = Replica::start("alpha", Ledger::new());
    let directory = directory(&[("alpha", &replica)]);
    let node = start(directory.path()).await;
    let mut status = node.status();
    replica.until_joined().await;
    let new = SecretKey::from_seed([77; 32]);
    let size = replica.change(|ledger| {
        ledger.rotate_transport_key("alpha", new.public());
        ledger.log.size()
    });
    status.wait_for(|status| status.size >= size).await.unwrap();
    // The old key is none of a replica's any more.
    replica.until_alone().await;
    let address = replica.address();
    replica = Replica::start_at("alpha", replica.stop().await, new, address);
    let id = replica.change(|ledger| ledger.propose(lone_plan()));
    let consented = |state: &Federation| state.plans().get(&id).is_some_and(|plan| plan.consents.contains_key("alpha"));
    replica.until(consented).await;
    node.shutdown().await.unwrap();
    // Nobody has the key of the genesis file any more.
    let size = replica.change(|ledger| ledger.log.size());
    let node = start(directory.path()).await;
    node.status().wait_for(|status| status.size >= size).await.unwrap();
    replica.change(|ledger| ledger.start(id));
    let key = replica.change(|ledger| ledger.open_round(id));
    replica.until(|state| contribution_of(state, &key).is_some()).await;
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_another_history_stops_the_node_that_has_witnessed_one() {
    let mut ledger = Ledger::new();
    ledger.start_plan(lone_plan(), &["alpha"]);
    let replicas = [Replica::start("alpha", ledger)];
    let directory = directory(&[("alpha", &replicas[0])]);
    let node = start(directory.path()).await;
    node.status().wait_for(|status| status.witnessed > 0).await.unwrap();
    node.shutdown().await.unwrap();

    let mut forged = [Ledger::new(), Ledger::new()];
    for ledger in &mut forged {
        ledger.start_plan(lone_plan(), &["beta", "alpha"]);
    }
    let [first, second] = forged;
    let replicas = [Replica::start("alpha", first), Replica::start("beta", second)];
    write_directory(directory.path(), "alpha", &[("alpha", replicas[0].address()), ("beta", replicas[1].address())]);
    let mut node = start(directory.path()).await;
    let error = node.finished().await.unwrap_err();
    assert!(matches!(error, ParticipantError::History(HistoryError::Rewritten { .. })), "{error}");
    assert!(replicas[0].change(|ledger| ledger.state().rounds().is_empty()));
}
