//! Nodes that end at every step of a round: the round is finished, and nobody can tell the result from the undisturbed one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::Value;

use super::nodes::{Consortium, SITES};

/// Three rounds with a server optimiser, whose state is part of every version. All four hospitals must contribute.
pub const PLAN: &str = include_str!("adam.toml");

/// Rounds of the plan.
const ROUNDS: usize = 3;

/// Steps of training that take long enough for local checkpoints.
const LONG_TRAINING: &str = "steps = 50000";

/// Where a replica is killed in the second round: whoever leads when the step comes; for the aggregation and for
/// attestations, every replica.
pub const REPLICA_STEPS: [&str; 10] = [
    "before-OpenRound",
    "after-OpenRound",
    "uploading",
    "before-CloseRound",
    "after-CloseRound",
    "aggregating",
    "before-CommitVersion",
    "after-CommitVersion",
    "before-AttestVersion",
    "after-AttestVersion",
];

/// Where every participant is killed in the second round.
pub const PARTICIPANT_STEPS: [&str; 9] = [
    "before-JoinRound",
    "after-JoinRound",
    "training",
    "checkpointed",
    "uploading",
    "uploaded",
    "before-Contribute",
    "after-Contribute",
    "before-Evaluate",
];

/// How much longer than otherwise a slow node takes for a step, in milliseconds: longer than a leader may be silent.
const SLOWED_BY_MS: u64 = 700;

/// A pass through the records that takes so long that a local checkpoint is saved at its end, in milliseconds.
pub const LONG_PASS_MS: u64 = 300;

/// What the plan leads to when nothing happens.
pub static UNDISTURBED: LazyLock<BTreeMap<u64, String>> = LazyLock::new(|| trained(PLAN, "", ""));

/// Every step is slow the second time that a node comes to it.
fn slow(steps: &[&str]) -> String {
    let points = steps.iter().map(|step| format!("{step}=1*off->1*sleep({SLOWED_BY_MS})"));
    points.collect::<Vec<_>>().join(";")
}

#[test]
fn a_coordinator_killed_at_any_step_of_a_round_changes_no_byte_of_any_version() {
    for step in REPLICA_STEPS {
        assert_eq!(trained(PLAN, &format!("{step}=1*off->1*return"), ""), *UNDISTURBED, "killed {step}");
    }
}

#[test]
fn coordinators_and_participants_slow_at_every_step_of_a_round_change_no_byte_of_any_version() {
    assert_eq!(trained(PLAN, &slow(&REPLICA_STEPS), ""), *UNDISTURBED);
    let slow_passes = format!("{};passed={ROUNDS}*sleep({LONG_PASS_MS})", slow(&PARTICIPANT_STEPS));
    assert_eq!(trained(PLAN, "", &slow_passes), *UNDISTURBED);
}

#[test]
fn a_participant_killed_at_any_step_of_a_round_contributes_the_same_and_once() {
    let plan = PLAN.replace("steps = 100", LONG_TRAINING);
    let undisturbed = trained(&plan, "", "");
    for step in PARTICIPANT_STEPS {
        assert_eq!(trained(&plan, "", &format!("{step}=1*off->1*return")), undisturbed, "killed {step}");
    }
}

/// Every training that was killed after it had saved a local checkpoint goes on from there.
fn nothing_is_trained_again(consortium: &Consortium, killed: &BTreeSet<String>) {
    for name in killed {
        let log = consortium.log_of(name);
        let resumed = log.lines().filter(|line| line.contains("Resumed") && !line.contains("step: 0"));
        assert_eq!(resumed.count(), 1, "{name} was killed once:\n{log}");
    }
}

/// The versions by number that a plan leads to whose nodes end at these failpoints, and are started again. A version names
/// its weights, the optimiser's state and the contributions by their digests, and nothing that depends on who led.
fn trained(plan: &str, replicas: &str, participants: &str) -> BTreeMap<u64, String> {
    let mut consortium = Consortium::start_with_failpoints(replicas, participants);
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let plan = consortium.start_plan(plan);
    let mut killed = BTreeSet::new();
    let evaluated = |version: &Value| version["evaluations"].as_object().is_some_and(|all| all.len() == SITES.len());
    // What is asked for is not there while there is no majority, or before there is a third version.
    while !consortium.json_if_ok(&["show", "v3"]).is_some_and(|version| evaluated(&version)) {
        killed.extend(consortium.revive());
        let view = consortium.json_if_ok(&["plan", "show", &plan]);
        assert!(view.is_none_or(|view| view["status"] != "stopped"), "a round was given up");
    }
    // Nobody is left who has yet to end.
    killed.extend(consortium.revive());
    let expected = [replicas, participants].iter().any(|points| points.contains("return"));
    assert_eq!(!killed.is_empty(), expected, "killed: {killed:?}");
    if participants.starts_with("checkpointed") {
        nothing_is_trained_again(&consortium, &killed);
    }

    // Whichever replica answers, it may have come back just now.
    let has_all = |rows: &Value, is_one: &dyn Fn(&Value) -> bool| {
        rows.as_array().is_some_and(|rows| rows.iter().filter(|row| is_one(row)).count() == ROUNDS)
    };
    let completed = |row: &Value| row["phase"] == "completed";
    let made = |row: &Value| row["number"].as_u64().is_some_and(|number| number > 0);
    consortium.wait(&["round", "list"], |rows| has_all(rows, &completed));
    for ledger in [&[][..], &["--ledger", "va/replica"]] {
        consortium.wait(&[&["log"], ledger].concat(), |rows| has_all(rows, &made));
    }
    for row in consortium.json(&["round", "list"]).as_array().unwrap() {
        assert_eq!((&row["attempt"], &row["phase"]), (&1.into(), &"completed".into()), "{row}");
        assert_eq!(row["contributed"].as_array().unwrap().len(), SITES.len(), "{row}");
    }
    let report = consortium.json(&["verify", "va/replica"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &4.into()), "{report}");
    versions(&consortium)
}

/// The versions by number.
pub fn versions(consortium: &Consortium) -> BTreeMap<u64, String> {
    let log = consortium.json(&["log"]);
    let version = |row: &Value| (row["number"].as_u64().unwrap(), row["version"].as_str().unwrap().to_owned());
    log.as_array().unwrap().iter().map(version).collect()
}
