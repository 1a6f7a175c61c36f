//! Hospitals that are slow, killed or suspended in a round.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::{
    PLAN,
    nodes::{Consortium, SITES},
    sites, strings,
};

/// How long a round lasts at most, in milliseconds: long enough for everybody to be started, and to train.
const ROUND_DURATION_MS: u64 = 7000;

/// How much longer than otherwise the slow one trains, in milliseconds.
const SLOWED_BY_MS: u64 = 1500;

/// Three rounds of which two hospitals are enough.
fn plan() -> String {
    let (four, two) = ("minimum_participants = 4", "minimum_participants = 2");
    let (patient, hasty) = ("round_duration_ms = 30000", format!("round_duration_ms = {ROUND_DURATION_MS}"));
    assert!(PLAN.contains(four) && PLAN.contains(patient));
    PLAN.replace(four, two).replace(patient, &hasty)
}

/// The first round waits for switzerland, which is slow. In the second va is killed and hungarian suspended before they
/// contribute. Hungarian sends its contribution as soon as it goes on, before it hears that the round is over.
fn failpoints(name: &str) -> String {
    match name {
        "switzerland/participant" => format!("training=1*sleep({SLOWED_BY_MS})"),
        "va/participant" => "before-Contribute=1*off->1*return".to_owned(),
        "hungarian/participant" => {
            format!("before-Contribute=1*off->1*sleep({ROUND_DURATION_MS});withdrawing=return")
        }
        _ => String::new(),
    }
}

#[test]
fn a_round_waits_for_who_is_slow_and_ends_without_who_is_killed_or_suspended() {
    let mut consortium = Consortium::start_with(failpoints);
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let plan = consortium.start_plan(&plan());

    consortium.wait_for_abort("va/participant");
    consortium.wait(&["round", "show", "2"], |round| round["steps"]["hungarian"]["joined"].is_u64());
    consortium.signal("hungarian/participant", "STOP");
    let first = consortium.json(&["round", "show", "1"]);
    assert_eq!(strings(&first["contributed"]), sites(), "the slow one is waited for");
    let time = |value: &Value| value.as_u64().unwrap();
    let took = time(&first["times"]["steps"]["switzerland"]["contributed"]) - time(&first["times"]["opened_ms"]);
    // Times are those of the next seals, so the round may have been opened earlier than it says.
    assert!(took > SLOWED_BY_MS / 2, "switzerland was not slow: {took} ms");

    let second = consortium.wait(&["round", "show", "2"], |round| round["phase"] == "completed");
    let two = json!({ "hungarian": "not_contributed", "va": "not_contributed" });
    assert_eq!((&second["missing"], &second["attempt"]), (&two, &1.into()), "{second}");
    assert_eq!(second["contributed"], json!(["cleveland", "switzerland"]));

    consortium.signal("hungarian/participant", "CONT");
    consortium.start_again("va/participant");
    consortium.wait_for_plan(&plan, "finished");
    let third = consortium.json(&["round", "show", "3"]);
    assert_eq!(strings(&third["contributed"]), sites(), "both are back: {third}");

    let refused = |round: &Value| round["refused"].as_array().is_some_and(|refused| !refused.is_empty());
    let second = consortium.wait(&["round", "show", "2"], refused);
    let refused = second["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{second}");
    assert_eq!((&refused[0]["member"], &refused[0]["code"]), (&"hungarian".into(), &"round_closed".into()));
    assert_eq!(second["missing"], two, "what comes late changes nothing");
    assert!(consortium.ok(&["round", "show", "2"]).contains("hungarian (entry "), "people are told as well");
    nobody_has_contributed_twice(&consortium);
    let report = consortium.json(&["verify", "cleveland/replica"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &4.into()), "{report}");
    consortium.stop();
}

#[test]
fn a_base_version_that_every_replica_has_lost_comes_back_from_a_participant() {
    // The second round stays open long enough for cleveland to be suspended in it.
    let mut consortium = Consortium::start_with(|name| match name {
        "cleveland/participant" => "training=1*off->1*sleep(2000)".to_owned(),
        _ => String::new(),
    });
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let plan = consortium.start_plan(PLAN);
    consortium.wait(&["round", "show", "2"], |round| round["steps"]["cleveland"]["joined"].is_u64());
    consortium.signal("cleveland/participant", "STOP");
    let base = consortium.json(&["checkout", "v1", "--out", "../base"]);
    let digest = base["files"]["weights.safetensors"].as_str().unwrap();
    for site in SITES {
        consortium.stop_node(&format!("{site}/replica"));
        let blobs = consortium.kits().join(site).join("replica/blobs");
        fs::remove_file(blobs.join(&digest[..2]).join(&digest[2..])).unwrap();
    }
    for site in SITES {
        consortium.start_again(&format!("{site}/replica"));
    }
    consortium.signal("cleveland/participant", "CONT");
    consortium.wait_for_plan(&plan, "finished");
    let second = consortium.json(&["round", "show", "2"]);
    assert_eq!((strings(&second["contributed"]), &second["attempt"]), (sites(), &1.into()), "{second}");
    consortium.stop();
    let report = consortium.json(&["verify", "va/replica"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &4.into()), "{report}");
}

/// Counts the contributions on the ledger of each member to each attempt.
fn nobody_has_contributed_twice(consortium: &Consortium) {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for entry in consortium.json(&["events"]).as_array().unwrap() {
        let event = &entry["event"];
        if event["event"] == "contributed" {
            *counts.entry((event["key"].to_string(), event["member"].to_string())).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 3 * SITES.len() - 2, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
