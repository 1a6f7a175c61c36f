//! How long a round takes whose leader is killed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::nodes::Consortium;

/// Often enough that the median means something.
const TRIES: usize = 10;

/// Within this time the round's version is to be attested, in half of the tries.
const AIM: Duration = Duration::from_secs(2);

/// How long every hospital trains, so that the leader is killed before anybody has contributed, in milliseconds.
const TRAINING_MS: u64 = 500;

/// Entries that a replica which has caught up may not have co-signed yet.
const COSIGNED_LAG_MAX: u64 = 20;

#[test]
#[ignore = "it measures; run it alone: cargo test --test consortium -- --ignored --nocapture after_the_leader"]
fn a_round_is_completed_soon_after_the_leader_was_killed() {
    let participants = format!("training=sleep({TRAINING_MS})");
    let mut consortium = Consortium::start_with_failpoints("", &participants);
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let text = include_str!("adam.toml").replace("rounds = 3", "rounds = 1000");
    consortium.start_plan(&text);
    let mut took = Vec::new();
    while took.len() < TRIES {
        let status = consortium.wait(&["status"], is_mid_round);
        let leader = status["leader"].as_str().unwrap().to_owned();
        let round = status["plans"][0]["round"]["round"].to_string();
        consortium.kill(&leader);
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let shown = consortium.wait(&["round", "show", &round], |round| round["times"]["completed_ms"].is_u64());
        consortium.start_again(&leader);
        assert_eq!((&shown["attempt"], &shown["missing"]), (&1.into(), &serde_json::json!({})), "{shown}");
        let completed = Duration::from_millis(shown["times"]["completed_ms"].as_u64().unwrap());
        // It may have been completed between the look and the kill.
        if let Some(duration) = completed.checked_sub(killed) {
            println!("round {round}: {leader} was killed, its version was sealed after {duration:?}");
            took.push(duration);
        }
    }
    took.sort_unstable();
    let median = took[TRIES / 2];
    println!("median {median:?}, fastest {:?}, slowest {:?}", took[0], took[TRIES - 1]);
    assert!(median <= AIM, "{took:?}");
}

/// Whether everybody is there, and somebody has joined a round to which nobody has contributed.
fn is_mid_round(status: &Value) -> bool {
    let replicas = status["replicas"].as_array().unwrap();
    let current = |replica: &Value| replica["cosigned_lag"].as_u64().is_some_and(|lag| lag <= COSIGNED_LAG_MAX);
    let round = &status["plans"][0]["round"];
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    status["leader"].is_string()
        && replicas.iter().all(current)
        && round["phase"] == "collecting"
        && !is_empty(&round["joined"])
        && is_empty(&round["contributed"])
}
