//! The demo as a user runs it, shortened: real sockets, real disks, real training.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use fedledger_simulations::demo::{self, DemoOptions, DemoRule, Missing, Progress, ROUND_DURATION, SLOWED_BY, Summary};

fn options(directory: &Path, rounds: u64, chaos: &[&str]) -> DemoOptions {
    DemoOptions {
        directory: directory.to_owned(),
        force: false,
        rounds,
        seed: 7,
        rule: DemoRule::FedAvg,
        round_duration: ROUND_DURATION,
        chaos: chaos.iter().map(|event| event.parse().unwrap()).collect(),
        serve: false,
    }
}

async fn run(rounds: u64, chaos: &[&str]) -> (Summary, Vec<Progress>) {
    run_with(ROUND_DURATION, rounds, chaos).await
}

async fn run_with(round_duration: Duration, rounds: u64, chaos: &[&str]) -> (Summary, Vec<Progress>) {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let mut see = |event| seen.push(event);
    let options = DemoOptions { round_duration, ..options(&directory.path().join("demo"), rounds, chaos) };
    let demo = demo::run(options, &mut see).await.unwrap();
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
    let (disturbed, seen) = run(4, &["kill-leader@2", "slow:va@3"]).await;
    let told = |what: &str| seen.iter().any(|event| matches!(event, Progress::Chaos(text) if text.contains(what)));
    assert!(told("was killed") && told("va trains 3 s longer"), "{seen:?}");
    let durations: Vec<u128> = disturbed.rounds.iter().map(|round| round.duration_ms.into()).collect();
    assert!(durations[2] >= SLOWED_BY.as_millis(), "the round waits for who is slow: {durations:?} ms");
    assert!(disturbed.rounds.iter().all(|round| round.missing.is_empty()), "{disturbed:?}");
    assert!(disturbed.verified.ok, "{disturbed:?}");
    assert_eq!(disturbed.final_weights, undisturbed.final_weights);
    assert_eq!(disturbed.final_version, undisturbed.final_version);
    // Other keys, other chain: only the weights and their recipe are the same.
    let versions: BTreeSet<_> = disturbed.rounds.iter().map(|round| round.version).collect();
    assert_eq!(versions.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_that_is_cut_off_is_named_with_the_reason_and_takes_part_again() {
    let (summary, seen) = run_with(Duration::from_secs(5), 3, &["slow:va@1", "partition:va@1"]).await;
    assert!(summary.verified.ok, "{summary:?}");
    let told: Vec<&str> = seen
        .iter()
        .filter_map(|event| match event {
            Progress::Chaos(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["va trains 3 s longer", "the participant of va was cut off", "the participant of va is back"]);
    // It may have joined the first round before it was cut off.
    let [first, second, third] = &summary.rounds[..] else { panic!("{summary:?}") };
    assert_eq!(second.contributed, ["cleveland", "hungarian", "switzerland"]);
    assert_eq!(second.missing, [Missing { member: "va".to_owned(), reason: "not_joined".to_owned() }]);
    assert_eq!(first.accuracy.len(), 3, "who is cut off evaluates nothing");
    assert_eq!((first.contributed.len(), third.contributed.len()), (3, 4), "{summary:?}");
    assert!(first.missing.iter().all(|missing| missing.member == "va"));
}
