//! Plans that wait, end early, are cancelled or find no quorum, and what people and scripts are told of it.

use std::fs;

use serde_json::Value;

use crate::{
    PLAN,
    nodes::{Consortium, SITES},
};

/// The plan of the other tests under another name, on a branch of that name, with some text replaced.
fn variant(name: &str, replaced: &[(&str, &str)]) -> String {
    let heading = format!("name = \"{name}\"\nbranch = \"{name}\"");
    let named = PLAN.replacen("name = \"heart\"", &heading, 1);
    replaced.iter().fold(named, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the plan");
        text.replacen(from, to, 1)
    })
}

fn propose(consortium: &Consortium, name: &str, text: &str) -> String {
    let file = consortium.path(&format!("{name}.toml"));
    fs::write(&file, text).unwrap();
    consortium.json(&["plan", "propose", file.to_str().unwrap()])["plan"].as_str().unwrap().to_owned()
}

fn approve_all(consortium: &Consortium, plan: &str, options: &[&str]) {
    for site in SITES {
        let identity = format!("{site}/identity");
        let arguments = [&["plan", "approve", plan, "--identity", &identity], options].concat();
        consortium.json(&consortium.unlocking(site, &arguments));
    }
}

/// What a command prints as JSON that ends with this exit code.
fn json_and_exit(consortium: &Consortium, arguments: &[&str], exit: i32) -> Value {
    let output = consortium.run(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    // Those that watch print one object per line, the last of which is the newest.
    serde_json::from_str(&lines).unwrap_or_else(|_| serde_json::from_str(lines.lines().last().unwrap()).unwrap())
}

#[test]
fn plans_wait_end_early_and_tell_why_they_found_no_quorum() {
    let mut consortium = Consortium::start();
    consortium.wait(&["status"], |status| status["leader"].is_string());
    a_plan_is_cancelled(&consortium);
    a_plan_is_paused_and_ends_early(&consortium);
    a_round_without_a_quorum_is_told_by_the_exit_code(&consortium);
    consortium.stop();
    let stopped = consortium.json(&["status", "--ledger", "va/replica"]);
    let progress = stopped["plans"].as_array().unwrap().iter().filter(|plan| !plan["progress"].is_null());
    assert_eq!(progress.count(), 0, "nothing is carried out any more: {stopped}");
}

fn a_plan_is_cancelled(consortium: &Consortium) {
    let plan = propose(consortium, "shelved", &variant("shelved", &[]));
    let refused = consortium.fails(&["plan", "pause", &plan, "--reason", "too early"], 4);
    assert!(refused.contains("plan_status"), "{refused}");
    consortium.json(&["plan", "cancel", &plan, "--reason", "no ethics vote"]);
    let shown = consortium.json(&["plan", "show", &plan]);
    assert_eq!((&shown["status"], &shown["status_reason"]), (&"cancelled".into(), &"no ethics vote".into()));
    for command in ["approve", "start"] {
        assert!(consortium.fails(&["plan", command, &plan], 4).contains("plan_status"));
    }
    json_and_exit(consortium, &["plan", "list"], 0);
}

fn a_plan_is_paused_and_ends_early(consortium: &Consortium) {
    let weighing = "[participation]\nminimum_example_share = \"0.9\"";
    // Long enough that the plan is paused in its first round.
    let text = variant("weighing", &[("[participation]", weighing), ("steps = 20", "steps = 200000")]);
    let early = "[early_stopping]\nmetric = \"accuracy\"\ngoal = \"max\"\ntarget = \"0.01\"\n";
    let plan = propose(consortium, "weighing", &format!("{text}{early}"));
    assert!(consortium.fails(&["plan", "approve", &plan], 4).contains("examples_undeclared"));
    approve_all(consortium, &plan, &["--examples", "200"]);
    consortium.json(&["plan", "withdraw", &plan, "--reason", "one more look"]);
    assert_eq!(consortium.json(&["plan", "show", &plan])["consents"].as_array().unwrap().len(), 3);
    consortium.json(&["plan", "approve", &plan, "--examples", "199"]);
    let shown = consortium.json(&["plan", "show", &plan]);
    assert_eq!(
        (&shown["declared_examples"]["cleveland"], &shown["declared_examples"]["va"]),
        (&199.into(), &200.into())
    );

    consortium.json(&["plan", "start", &plan]);
    consortium.json(&["plan", "pause", &plan, "--reason", "the ward is moved"]);
    let status = consortium.json(&["status"]);
    let paused = status["plans"].as_array().unwrap().iter().find(|row| row["plan"] == plan.as_str()).unwrap();
    assert_eq!((&paused["status"], &paused["progress"]["stuck"]), (&"paused".into(), &false.into()));
    assert!(consortium.ok(&["status"]).contains("waits for"), "people are told as well");
    consortium.json(&["plan", "resume", &plan, "--reason", "it has moved"]);
    let last = json_and_exit(consortium, &["round", "watch", "--until", "1", "--plan", &plan], 0);
    assert_eq!((&last["round"], &last["phase"]), (&1.into(), &"completed".into()));

    consortium.wait_for_plan(&plan, "finished");
    let shown = consortium.json(&["plan", "show", &plan]);
    assert_eq!((&shown["next_round"], &shown["early_stop"]["cause"]), (&2.into(), &"target_reached".into()));
    assert!(consortium.ok(&["plan", "show", &plan]).contains("which reached the target"));
    let sealed = |round: &Value| round["times"]["completed_ms"].is_u64();
    let round = consortium.wait(&["round", "show", "1", "--plan", &plan], sealed);
    let share = &round["quorum"]["example_share"];
    assert_eq!(share["contributed"], share["selected"], "everybody has contributed: {round}");
    assert!(round["times"]["steps"]["va"]["contributed"].as_u64() <= round["times"]["ended_ms"].as_u64());
    assert!(round["steps"]["va"]["joined"].as_u64() < round["steps"]["va"]["contributed"].as_u64());
    assert!(consortium.ok(&["round", "show", "1", "--plan", &plan]).contains("a share of 0.9 needed"));
    let finished = json_and_exit(consortium, &["round", "watch", "--until", "2", "--plan", &plan], 1);
    assert_eq!(finished["round"], 1);
}

fn a_round_without_a_quorum_is_told_by_the_exit_code(consortium: &Consortium) {
    let hasty = [("round_duration_ms = 30000", "round_duration_ms = 1\nattempts = 2")];
    let plan = propose(consortium, "hasty", &variant("hasty", &hasty));
    approve_all(consortium, &plan, &[]);
    consortium.json(&["plan", "start", &plan]);
    let last = json_and_exit(consortium, &["round", "watch", "--until", "1", "--plan", &plan], 5);
    assert_eq!((&last["phase"], &last["reason"]), (&"abandoned".into(), &"below_quorum".into()));
    let shown = consortium.json(&["plan", "show", &plan]);
    assert_eq!((&shown["status"], &shown["status_reason"]), (&"stopped".into(), &"below_quorum".into()));
    let words = "is stopped (below_quorum: the contributions do not meet the plan's quorum)";
    assert!(consortium.ok(&["status"]).contains(words), "people are told why");
    let shown = json_and_exit(consortium, &["round", "show", "1", "--plan", &plan], 5);
    assert_eq!((&shown["attempt"], &shown["quorum"]["needed"]), (&2.into(), &4.into()));
    assert_eq!(shown["missing"].as_object().unwrap().len(), 4, "{shown}");
    let stderr = consortium.fails(&["round", "show", "1", "--plan", &plan, "--attempt", "1"], 5);
    assert!(stderr.contains("0 contributions can be aggregated, the plan needs 4"), "{stderr}");
    let stderr = consortium.fails(&["round", "show", "1", "--plan", &plan, "--attempt", "77"], 1);
    assert!(stderr.contains("no attempt 77 at round 1; there are 1 of hasty, 2 of hasty"), "{stderr}");
}
