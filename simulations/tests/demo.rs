//! The demo as a user runs it, shortened: real sockets, real disks, real training.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{collections::BTreeSet, path::Path};

use fedledger_simulations::demo::{self, DemoOptions, DemoRule, Progress, Summary};

fn options(directory: &Path, rounds: u64, chaos: &[&str]) -> DemoOptions {
    DemoOptions {
        directory: directory.to_owned(),
        force: false,
        rounds,
        seed: 7,
        rule: DemoRule::FedAvg,
        chaos: chaos.iter().map(|event| event.parse().unwrap()).collect(),
        serve: false,
    }
}

async fn run(rounds: u64, chaos: &[&str]) -> (Summary, Vec<Progress>) {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let mut see = |event| seen.push(event);
    let demo = demo::run(options(&directory.path().join("demo"), rounds, chaos), &mut see).await.unwrap();
    let summary = demo.summary.clone();
    demo.stop().await.unwrap();
    (summary, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_weights_whatever_happens_to_replicas() {
    let (undisturbed, seen) = run(4, &[]).await;
    assert!(undisturbed.verified.ok, "{undisturbed:?}");
    // The initial version and one per round.
    assert_eq!(undisturbed.verified.versions_recomputed, 5);
    assert_eq!(seen.iter().filter(|event| matches!(event, Progress::Round(_))).count(), 4);
    for round in &undisturbed.rounds {
        assert_eq!(round.contributed, ["cleveland", "hungarian", "switzerland", "va"]);
        assert!(round.missing.is_empty() && round.accuracy.len() == 4);
    }
    let (disturbed, seen) = run(4, &["kill-leader@2"]).await;
    assert!(seen.iter().any(|event| matches!(event, Progress::Chaos(_))), "nobody was killed");
    assert!(disturbed.verified.ok, "{disturbed:?}");
    assert_eq!(disturbed.final_weights, undisturbed.final_weights);
    assert_eq!(disturbed.final_version, undisturbed.final_version);
    // Other keys, other chain: only the weights and their recipe are the same.
    let versions: BTreeSet<_> = disturbed.rounds.iter().map(|round| round.version).collect();
    assert_eq!(versions.len(), 4);
}
