//! Plans that are carried out beside each other, and one that is drained.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{PLAN, nodes::Consortium, sites, strings};

/// Rounds of the plan that comes to its end.
const ROUNDS: u64 = 8;

/// How many rounds of one plan may be completed in a row while there is another one.
const IN_A_ROW_MAX: usize = 3;

/// The plan of the other tests under another name, on a branch of that name.
fn plan(name: &str, rounds: u64) -> String {
    let heading = format!("name = \"{name}\"\nbranch = \"{name}\"");
    let rounds = format!("rounds = {rounds}");
    PLAN.replacen("name = \"heart\"", &heading, 1).replacen("rounds = 3", &rounds, 1)
}

#[test]
fn two_plans_at_once_both_go_on_and_one_of_them_is_drained() {
    let mut consortium = Consortium::start_with_failpoints("", "");
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let endless = consortium.start_plan(&plan("endless", 100_000));
    let short = consortium.start_plan(&plan("short", ROUNDS));
    consortium.wait_for_plan(&short, "finished");
    neither_starves(&consortium, [&endless, &short]);

    let open = consortium.wait(&["status"], |status| of(status, &endless)["round"]["phase"] == "collecting");
    let open = of(&open, &endless)["round"]["round"].as_u64().unwrap();
    let drained = consortium.json(&["plan", "drain", &endless, "--reason", "the audit begins"]);
    let index = drained["index"].as_u64().unwrap();
    consortium.wait_for_plan(&endless, "stopped");
    let shown = consortium.json(&["plan", "show", &endless]);
    assert_eq!(shown["status_reason"], "the audit begins", "{shown}");

    // The round that was in progress is completed with everybody, and is the last one.
    let rounds = consortium.json(&["round", "list", "--plan", &endless]);
    let rounds = rounds.as_array().unwrap();
    let last = rounds.last().unwrap();
    assert!(last["round"].as_u64() >= Some(open), "{last}");
    for round in rounds {
        assert!(round["opened_index"].as_u64().unwrap() < index, "opened after it was drained: {round}");
        assert_eq!((&round["phase"], strings(&round["contributed"])), (&"completed".into(), sites()), "{round}");
    }
    let head = consortium.json(&["show", "endless"]);
    assert_eq!(head["version"], last["version"], "the branch stands where the plan has ended: {head}");
    consortium.stop();
    let report = consortium.json(&["verify", "cleveland/replica"]);
    assert_eq!(report["ok"], true, "{report}");
}

/// What `status` says of a plan.
fn of<'a>(status: &'a Value, plan: &str) -> &'a Value {
    let plans = status["plans"].as_array().unwrap();
    plans.iter().find(|view| view["plan"] == plan).unwrap_or(&Value::Null)
}

/// While the second plan was carried out, the first one went on beside it, and never was one of them passed over for long.
fn neither_starves(consortium: &Consortium, [endless, short]: [&str; 2]) {
    let completed = |plan: &str| -> Vec<u64> {
        let rounds = consortium.json(&["round", "list", "--plan", plan]);
        rounds.as_array().unwrap().iter().filter_map(|round| round["completed_index"].as_u64()).collect()
    };
    let (of_endless, of_short) = (completed(endless), completed(short));
    assert_eq!(of_short.len() as u64, ROUNDS);
    let (first, last) = (of_short[0], of_short[of_short.len() - 1]);
    let both = of_endless.iter().map(|index| (*index, endless)).chain(of_short.iter().map(|index| (*index, short)));
    let turns: BTreeMap<u64, &str> = both.filter(|(index, _)| (first..=last).contains(index)).collect();
    let turns: Vec<&str> = turns.into_values().collect();
    let longest = turns.chunk_by(|one, next| one == next).map(<[&str]>::len).max();
    assert!(longest <= Some(IN_A_ROW_MAX), "one plan was passed over: {turns:?}");
}
