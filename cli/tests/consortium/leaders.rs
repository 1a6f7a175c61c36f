//! Leaders that are suspended or cut off at every step of a round: another one finishes it, nobody can tell the result from
//! the undisturbed one, and the old leader follows when it is back.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::{
    failover::{PLAN, REPLICA_STEPS, versions},
    nodes::{Consortium, Relays, SITES, STOP},
    sites, strings,
};

/// Steps that only a leader comes to.
const LEADER_STEPS: [&str; 6] = [
    "before-OpenRound",
    "after-OpenRound",
    "before-CloseRound",
    "after-CloseRound",
    "before-CommitVersion",
    "after-CommitVersion",
];

/// Steps that all replicas but the leader come to.
const ATTESTATION_STEPS: [&str; 2] = ["before-AttestVersion", "after-AttestVersion"];

/// The participant that is held back, and with it the round, while the next step is prepared.
const HELD: &str = "va/participant";

/// Where it is held back.
const HOLD: &str = "before-Contribute";

/// Datagrams whose loss shows that the old leader goes on while it is cut off.
const LOSSES: u64 = 4;

/// What the plan leads to when nothing happens.
static UNDISTURBED: LazyLock<BTreeMap<u64, String>> = LazyLock::new(|| {
    let consortium = Consortium::start_with_failpoints("", "");
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let plan = consortium.start_plan(&plan());
    consortium.wait_for_plan(&plan, "finished");
    versions(&consortium)
});

/// A round for every step, and one more.
fn plan() -> String {
    PLAN.replacen("rounds = 3", &format!("rounds = {}", REPLICA_STEPS.len() + 1), 1)
}

#[test]
fn a_leader_suspended_at_any_step_is_replaced_and_follows_when_it_goes_on() {
    let consortium = Consortium::start_obedient(&[&REPLICA_STEPS[..], &[HOLD]].concat());
    every_leader_is_replaced(&consortium, None);
}

#[test]
fn a_leader_cut_off_at_any_step_is_replaced_and_follows_when_it_is_connected_again() {
    let (consortium, relays) = Consortium::start_obedient_behind_relays(&[&REPLICA_STEPS[..], &[HOLD]].concat());
    every_leader_is_replaced(&consortium, Some(&relays));
}

fn every_leader_is_replaced(consortium: &Consortium, relays: Option<&Relays>) {
    consortium.wait(&["status"], |status| status["leader"].is_string());
    consortium.order(HELD, HOLD, STOP);
    let plan = consortium.start_plan(&plan());
    for step in REPLICA_STEPS {
        consortium.wait_until_stopped(HELD);
        let old = stopped_replica(consortium, step);
        if let Some(relays) = relays {
            relays.cut_off(&old);
            consortium.go_on(&old);
        }
        // The round is finished without it, and the next one is under way.
        consortium.wait_until_stopped(HELD);
        let other = SITES.into_iter().find(|site| replica(site) != old).unwrap();
        let is_replaced = |status: &Value| status["leader"].as_str().is_some_and(|leader| leader != old);
        let size = consortium.wait_at(other, &["status"], is_replaced)["log"]["size"].as_u64();

        match relays {
            Some(relays) => {
                relays.wait_for_losses(&old, LOSSES);
                relays.connect(&old);
            }
            None => consortium.go_on(&old),
        }
        let (site, _) = old.split_once('/').unwrap();
        consortium.wait_at(site, &["status"], |status| is_replaced(status) && status["log"]["size"].as_u64() >= size);
    }
    consortium.go_on(HELD);
    consortium.wait_for_plan(&plan, "finished");

    let rounds = consortium.json(&["round", "list"]);
    assert_eq!(rounds.as_array().unwrap().len(), REPLICA_STEPS.len() + 1, "{rounds}");
    for round in rounds.as_array().unwrap() {
        assert_eq!((&round["attempt"], strings(&round["contributed"])), (&1.into(), sites()), "{round}");
    }
    assert_eq!(versions(consortium), *UNDISTURBED);
    for site in SITES {
        let report = consortium.json(&["verify", &replica(site)]);
        assert_eq!((&report["ok"], &report["versions_skipped"]), (&true.into(), &serde_json::json!([])), "{report}");
    }
}

/// Has the round go on until a replica comes to a step and stops there; which one. The next round is held.
fn stopped_replica(consortium: &Consortium, step: &str) -> String {
    let ordered = replicas_that_come_to(consortium, step);
    let ordered: Vec<&str> = ordered.iter().map(String::as_str).collect();
    ordered.iter().for_each(|replica| consortium.order(replica, step, STOP));
    consortium.order(HELD, HOLD, STOP);
    consortium.go_on(HELD);
    let stopped = consortium.wait_until_one_stopped(&ordered);
    ordered.iter().for_each(|replica| consortium.take_back(replica, step));
    stopped
}

/// The leader; where only a leader comes to, all of them, since another one may lead by then.
fn replicas_that_come_to(consortium: &Consortium, step: &str) -> Vec<String> {
    let mut replicas = SITES.map(replica).to_vec();
    if LEADER_STEPS.contains(&step) {
        return replicas;
    }
    let status = consortium.wait(&["status"], |status| status["leader"].is_string());
    // Who proposes a version need not attest it.
    let is_wanted = |replica: &String| (status["leader"] == replica.as_str()) != ATTESTATION_STEPS.contains(&step);
    replicas.retain(is_wanted);
    replicas.truncate(1);
    replicas
}

fn replica(site: &str) -> String {
    format!("{site}/replica")
}
