//! Hospitals that are suspended, cut off or slow at every step of a round. Who is back before the round is over contributes
//! as if nothing had happened; without the others it ends in time, and they take part in the next one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    failover::{LONG_PASS_MS, PARTICIPANT_STEPS, PLAN, UNDISTURBED, versions},
    nodes::{Consortium, Relays, SITES, STOP},
    sites, strings,
};

/// How long a round waits for those that are missing, in milliseconds: long enough that the others train.
const ROUND_DURATION_MS: u64 = 3000;

/// How much longer than otherwise a slow hospital takes for a step, in milliseconds.
const SLOWED_BY_MS: u64 = ROUND_DURATION_MS + 1000;

/// The hospital that nothing happens to. Between two disturbed rounds its contribution is held back, and with it the round.
const STEADY: &str = "va";

/// The hospitals that are disturbed.
const OTHERS: [&str; 3] = ["cleveland", "hungarian", "switzerland"];

/// Rounds in which they are, and those before, between and after them.
const ROUNDS: usize = PARTICIPANT_STEPS.len() / OTHERS.len() * 2 + 1;

/// Where it is held back.
const HOLD: &str = "before-Contribute";

/// What makes local checkpoints due.
const LONG_PASS: &str = "passed";

/// Datagrams whose loss shows that a hospital which is cut off tries to reach the others, and they it.
const LOSSES: u64 = 4;

enum Disturbance {
    Suspended,
    CutOff(Relays),
    Slow,
}

impl Disturbance {
    fn begin(&self, consortium: &Consortium, hospital: &str) {
        let participant = participant(hospital);
        match self {
            Self::Suspended => consortium.wait_until_stopped(&participant),
            Self::CutOff(relays) => {
                consortium.wait_until_stopped(&participant);
                relays.cut_off(&participant);
                consortium.go_on(&participant);
            }
            Self::Slow => {}
        }
    }

    fn end(&self, consortium: &Consortium, hospital: &str) {
        match self {
            Self::Suspended => consortium.go_on(&participant(hospital)),
            Self::CutOff(relays) => relays.connect(&participant(hospital)),
            Self::Slow => {}
        }
    }

    fn order(&self) -> String {
        match self {
            Self::Suspended | Self::CutOff(_) => STOP.to_owned(),
            Self::Slow => SLOWED_BY_MS.to_string(),
        }
    }
}

#[test]
fn who_is_suspended_at_any_step_is_back_in_this_round_or_in_the_next() {
    let consortium = Consortium::start_obedient(&steps());
    who_is_back_in_time_contributes_the_same(&consortium, &Disturbance::Suspended);
    rounds_end_without_who_is_away(&consortium, &Disturbance::Suspended);
}

#[test]
fn who_is_cut_off_at_any_step_is_back_in_this_round_or_in_the_next() {
    let (consortium, relays) = Consortium::start_obedient_behind_relays(&steps());
    let cut_off = Disturbance::CutOff(relays);
    who_is_back_in_time_contributes_the_same(&consortium, &cut_off);
    rounds_end_without_who_is_away(&consortium, &cut_off);
}

#[test]
fn who_is_too_slow_at_any_step_is_back_in_the_next_round() {
    let consortium = Consortium::start_obedient(&steps());
    rounds_end_without_who_is_away(&consortium, &Disturbance::Slow);
}

/// Orders what a hospital does at a step, and has it come there.
fn order(consortium: &Consortium, hospital: &str, step: &str, order: &str) {
    if step == "checkpointed" {
        consortium.order(&participant(hospital), LONG_PASS, &LONG_PASS_MS.to_string());
    }
    consortium.order(&participant(hospital), step, order);
}

/// Where hospitals take orders.
fn steps() -> Vec<&'static str> {
    [&PARTICIPANT_STEPS[..], &[LONG_PASS]].concat()
}

fn participant(hospital: &str) -> String {
    format!("{hospital}/participant")
}

/// One hospital is disturbed at every step, one after the other, and the round waits for it. The last time it is away until
/// its connections are given up.
fn who_is_back_in_time_contributes_the_same(consortium: &Consortium, disturbance: &Disturbance) {
    let hospital = OTHERS[0];
    consortium.wait(&["status"], |status| status["leader"].is_string());
    for step in PARTICIPANT_STEPS {
        order(consortium, hospital, step, STOP);
    }
    let plan = consortium.start_plan(PLAN);
    let given_up = || {
        let logs = SITES.map(|site| consortium.log_of(&format!("{site}/replica")));
        logs.iter().map(|log| log.matches("disconnected peer=").count()).sum::<usize>()
    };
    for left in (0..PARTICIPANT_STEPS.len()).rev() {
        disturbance.begin(consortium, hospital);
        let before = given_up();
        if let Disturbance::CutOff(relays) = disturbance {
            relays.wait_for_losses(&participant(hospital), LOSSES);
        }
        let rounds = consortium.json(&["round", "list", "--plan", &plan]);
        assert!(rounds.as_array().unwrap().iter().all(|round| round["attempt"] == 1), "{rounds}");
        if left == 0 {
            consortium.wait(&["status"], |_| given_up() > before);
        }
        disturbance.end(consortium, hospital);
    }
    assert_eq!(consortium.orders(), 0);
    consortium.wait_for_plan(&plan, "finished");
    let rounds = consortium.json(&["round", "list", "--plan", &plan]);
    for round in rounds.as_array().unwrap() {
        assert_eq!((&round["attempt"], strings(&round["contributed"])), (&1.into(), sites()), "{round}");
    }
    assert_eq!(versions(consortium), *UNDISTURBED);
    nobody_has_contributed_twice(consortium);
}

/// In every other round three hospitals are disturbed at different steps until it is over.
fn rounds_end_without_who_is_away(consortium: &Consortium, disturbance: &Disturbance) {
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let rounds = Rounds::start(consortium);
    rounds.wait_for_all(1);
    for (steps, round) in PARTICIPANT_STEPS.chunks(OTHERS.len()).zip((2..).step_by(2)) {
        for (hospital, step) in OTHERS.iter().zip(steps) {
            order(consortium, hospital, step, &disturbance.order());
        }
        rounds.go_on();
        OTHERS.iter().for_each(|hospital| disturbance.begin(consortium, hospital));
        rounds.wait(round, |row| has_contributed(row, STEADY));
        rounds.hold_next();
        let disturbed = rounds.wait(round, |row| row["phase"] == "completed");
        OTHERS.iter().for_each(|hospital| disturbance.end(consortium, hospital));
        rounds.wait_for_all(round + 1);

        assert_eq!(disturbed["attempt"], 1, "{disturbed}");
        for (hospital, step) in OTHERS.iter().zip(steps) {
            let reason = disturbed["missing"][hospital].as_str();
            assert!(disturbance.explains(step, reason), "{hospital}, disturbed {step}: {disturbed}");
            let contributed = strings(&disturbed["contributed"]).contains(*hospital);
            assert_eq!(contributed, reason.is_none(), "{hospital}: {disturbed}");
            if *step == "before-Contribute" {
                rounds.wait(round, |row| is_refused(row, hospital));
            }
        }
    }
    rounds.go_on();
    consortium.wait_for_plan(&rounds.plan, "finished");
    assert_eq!(consortium.orders(), 0);

    let rows = consortium.json(&["round", "list", "--plan", &rounds.plan]);
    assert_eq!(rows.as_array().unwrap().len(), ROUNDS);
    for round in rows.as_array().unwrap().iter().step_by(2) {
        assert_eq!((&round["attempt"], strings(&round["contributed"])), (&1.into(), sites()), "{round}");
    }
    nobody_has_contributed_twice(consortium);
    let report = consortium.json(&["verify", "cleveland/replica"]);
    assert_eq!(report["ok"], true, "{report}");
}

/// A plan of which one hospital is enough for a round.
struct Rounds<'a> {
    consortium: &'a Consortium,
    plan: String,
}

impl<'a> Rounds<'a> {
    /// Starts it; the first round is held.
    fn start(consortium: &'a Consortium) -> Self {
        consortium.order(&participant(STEADY), HOLD, STOP);
        Self { consortium, plan: consortium.start_plan(&hasty_plan()) }
    }

    /// Looks at a round until it is as wanted.
    #[track_caller]
    fn wait(&self, round: u64, holds: impl Fn(&Value) -> bool) -> Value {
        self.consortium.wait(&["round", "show", &round.to_string(), "--plan", &self.plan], holds)
    }

    /// Holds the round after the one to which the steady hospital has just contributed.
    fn hold_next(&self) {
        self.consortium.order(&participant(STEADY), HOLD, STOP);
    }

    /// Waits until all the others have contributed to a round that is held, however long they take to connect, to catch up
    /// and to train.
    #[track_caller]
    fn wait_for_all(&self, round: u64) {
        self.consortium.wait_until_stopped(&participant(STEADY));
        self.consortium.json(&["plan", "pause", &self.plan, "--reason", "they have just come back"]);
        self.wait(round, |row| OTHERS.iter().all(|hospital| has_contributed(row, hospital)));
    }

    /// Goes on with a round that is held.
    fn go_on(&self) {
        self.consortium.json(&["plan", "resume", &self.plan, "--reason", "all are there"]);
        self.consortium.go_on(&participant(STEADY));
    }
}

fn has_contributed(round: &Value, hospital: &str) -> bool {
    round["steps"][hospital]["contributed"].is_u64()
}

impl Disturbance {
    /// Whether this is why a hospital is missing in the round in which it came to a step; none if it is not missing.
    fn explains(&self, step: &str, reason: Option<&str>) -> bool {
        match (self, step) {
            (_, "before-JoinRound") => reason == Some("not_joined"),
            (_, "after-Contribute") => reason.is_none(),
            // Other work goes on meanwhile, as far as it can.
            (Self::Slow, "after-JoinRound" | "before-Evaluate") => true,
            // The version before may be evaluated at any time in the round.
            (_, "before-Evaluate") => true,
            _ => reason == Some("not_contributed"),
        }
    }
}

/// Whether a hospital's contribution came too late, on record.
fn is_refused(round: &Value, hospital: &str) -> bool {
    let refused = round["refused"].as_array().unwrap();
    refused.iter().any(|refused| (&refused["member"], &refused["code"]) == (&hospital.into(), &"round_closed".into()))
}

/// One hospital is enough.
fn hasty_plan() -> String {
    let replaced = [
        ("name = \"heart-adam\"", "name = \"hasty\"".to_owned()),
        ("rounds = 3", format!("rounds = {ROUNDS}")),
        ("minimum_participants = 4", "minimum_participants = 1".to_owned()),
        ("round_duration_ms = 60000", format!("round_duration_ms = {ROUND_DURATION_MS}")),
    ];
    replaced.iter().fold(PLAN.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the plan");
        text.replacen(from, to, 1)
    })
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
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
