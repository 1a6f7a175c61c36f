//! Consent, rounds and evaluation.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command,
    command::{AbandonRound, CancelPlan, Evaluate, MoveBranch, PausePlan, RoundKey, WithdrawConsent},
    early_stopping::{EarlyStopping, Goal},
    governance::Action,
    plan::Plan,
    retention::{PruneVersion, Retention},
};
use fedledger_ledger::Digest;
use fedledger_participant::{
    evaluation::{Evaluation, Outputs, score},
    node::{
        Intent, NodeEvent,
        core::{DataSummary, Input, Kept, Output, Site},
        policy::SitePolicy,
    },
};
use fedledger_proto::kit::Selection;

use crate::fixture::{Ledger, Purpose, Running, core, data, key, plan, site, trained};

/// The intents that are to be submitted.
fn submitted(outputs: &[Output]) -> Vec<Intent> {
    let intents = outputs.iter().filter_map(|output| match output {
        Output::Submit(intent, _) => Some(*intent),
        _ => None,
    });
    intents.collect()
}

fn trains(outputs: &[Output]) -> Vec<RoundKey> {
    let keys = outputs.iter().filter_map(|output| match output {
        Output::Train(task) => Some(task.key),
        _ => None,
    });
    keys.collect()
}

/// The reason of the one decline among the outputs.
fn decline_reason(outputs: &[Output]) -> String {
    let reasons: Vec<String> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Submit(_, command) => match &**command {
                Command::DeclineRound(decline) => Some(decline.reason.clone()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 1, "{outputs:?}");
    reasons.into_iter().next().unwrap()
}

/// The files that are kept, as the last of the outputs says that names any.
fn kept(outputs: &[Output]) -> Kept {
    let kept = outputs.iter().rev().find_map(|output| match output {
        Output::Keep(kept) => Some(kept.clone()),
        _ => None,
    });
    kept.unwrap()
}

/// A ledger with an open round of alpha and beta.
fn open_round() -> (Ledger, RoundKey) {
    let mut ledger = Ledger::new();
    let plan = ledger.start_plan(plan(), &["alpha", "beta"]);
    let key = ledger.open_round(plan);
    (ledger, key)
}

#[test]
fn a_plan_within_the_policy_is_consented_to_once() {
    let mut ledger = Ledger::new();
    let plan = ledger.propose(plan());
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!(submitted(&outputs), [Intent::Approve(plan)]);
    assert_eq!(ledger.submit("alpha", &outputs), ["accepted"]);
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::Withdraw(Intent::Approve(plan))));
    assert!(outputs.contains(&Output::Report(NodeEvent::Consented { plan })));
    let restarted = Running::start(core(site("alpha")), &ledger);
    assert_eq!(submitted(&restarted.outputs), []);
}

#[test]
fn examples_are_declared_where_the_plan_weighs_them() {
    let mut ledger = Ledger::new();
    let mut weighing = Plan { name: "weighing".to_owned(), ..plan() };
    weighing.participation.minimum_example_share = Some("0.5".parse().unwrap());
    let (weighing, plain) = (ledger.propose(weighing), ledger.propose(plan()));
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!(ledger.submit("alpha", &outputs), ["accepted", "accepted"]);
    let examples = |plan: &Digest| ledger.state().plans().get(plan).unwrap().consents["alpha"].examples;
    assert_eq!((examples(&weighing), examples(&plain)), (Some(data().train_examples), None));
}

#[test]
fn a_cancelled_plan_is_not_consented_to() {
    let mut ledger = Ledger::new();
    let id = ledger.propose(plan());
    let cancel = CancelPlan { plan: id, reason: "no ethics vote".to_owned() };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::CancelPlan(cancel));
    assert_eq!(submitted(&Running::start(core(site("beta")), &ledger).outputs), []);
}

#[test]
fn work_goes_on_and_files_are_kept_while_the_plan_is_paused() {
    let (mut ledger, round) = open_round();
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let before = kept(&alpha.take());
    let pause = PausePlan { plan: round.plan, reason: "holidays".to_owned() };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::PausePlan(pause));
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!((submitted(&outputs), kept(&outputs)), (vec![Intent::Join(round)], before));
    ledger.submit("alpha", &outputs);
    alpha.catch_up(&ledger);
    assert_eq!(trains(&alpha.take()), [round]);
    alpha.input(Input::Trained(round, trained(0.5)));
    alpha.input(Input::Uploaded(round));
    assert_eq!(ledger.submit("alpha", &alpha.take()), ["accepted"]);
}

#[test]
fn consent_is_withheld_with_a_reason_and_never_renewed_after_it_was_taken_back() {
    let mut ledger = Ledger::new();
    let id = ledger.propose(plan());
    let mut cautious = site("alpha");
    cautious.policy = SitePolicy::default();
    let running = Running::start(core(cautious), &ledger);
    assert_eq!(submitted(&running.outputs), []);
    let withheld = |output: &Output| {
        matches!(output, Output::Report(NodeEvent::ConsentWithheld { plan, reason })
        if *plan == id && reason.contains("needs a person"))
    };
    assert_eq!(running.outputs.iter().filter(|output| withheld(output)).count(), 1);

    ledger.consent("alpha", id);
    let withdraw = WithdrawConsent { plan: id, reason: "no".to_owned() };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::WithdrawConsent(withdraw));
    let running = Running::start(core(site("alpha")), &ledger);
    assert_eq!(submitted(&running.outputs), []);
}

#[test]
fn a_round_is_joined_trained_uploaded_and_contributed_to() {
    let (mut ledger, key) = open_round();
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!(submitted(&outputs), [Intent::Join(key)]);
    assert_eq!(trains(&outputs), [], "nothing is trained before the round is joined");
    ledger.submit("alpha", &outputs);
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert_eq!(trains(&outputs), [key]);

    alpha.input(Input::Trained(key, trained(0.5)));
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::Upload(key, trained(0.5).file)));
    assert_eq!(submitted(&outputs), [], "nothing is contributed before a replica has the update");
    alpha.input(Input::Uploaded(key));
    let outputs = alpha.take();
    assert_eq!(submitted(&outputs), [Intent::Contribute(key)]);
    assert_eq!(ledger.submit("alpha", &outputs), ["accepted"]);
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    let index = ledger.log.size() - 1;
    assert!(outputs.contains(&Output::Report(NodeEvent::Contributed { key, index })));
    assert!(outputs.contains(&Output::Stop(key)));
    assert_eq!(submitted(&outputs), []);
}

#[test]
fn an_update_that_the_disk_has_lost_is_trained_again_until_it_is_uploaded() {
    let (mut ledger, key) = open_round();
    ledger.join("alpha", key);
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    for _ in 0..2 {
        assert_eq!(trains(&alpha.take()), [key]);
        alpha.input(Input::Trained(key, trained(0.5)));
        alpha.take();
        alpha.input(Input::UpdateLost(key));
    }
    assert_eq!(trains(&alpha.take()), [key]);
    alpha.input(Input::Trained(key, trained(0.5)));
    alpha.input(Input::Uploaded(key));
    alpha.take();
    alpha.input(Input::UpdateLost(key));
    assert_eq!(trains(&alpha.take()), [], "a replica has it");
}

#[test]
fn a_restart_at_any_point_neither_repeats_nor_loses_a_contribution() {
    let (mut ledger, key) = open_round();
    for step in ["nothing", "joined", "trained", "uploaded", "contributed"] {
        // A process that dies at each step in turn: what it did is on the ledger, all else is forgotten.
        let mut alpha = Running::start(core(site("alpha")), &ledger);
        if step == "nothing" {
            let outputs = alpha.take();
            assert_eq!(submitted(&outputs), [Intent::Join(key)]);
            ledger.submit("alpha", &outputs);
            continue;
        }
        assert_eq!(submitted(&alpha.outputs), [], "{step}");
        if step == "contributed" {
            assert_eq!(trains(&alpha.outputs), []);
            break;
        }
        assert_eq!(trains(&alpha.outputs), [key], "{step}");
        if step == "joined" {
            continue;
        }
        alpha.input(Input::Trained(key, trained(0.5)));
        if step == "trained" {
            continue;
        }
        alpha.take();
        alpha.input(Input::Uploaded(key));
        assert_eq!(ledger.submit("alpha", &alpha.take()), ["accepted"]);
    }
}

#[test]
fn a_submission_that_a_replica_only_claims_to_have_recorded_is_made_again() {
    let (mut ledger, key) = open_round();
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    alpha.take();
    let index = ledger.log.size();
    alpha.input(Input::Committed { intent: Intent::Join(key), index });
    assert_eq!(submitted(&alpha.take()), [], "the leaf may still come");
    ledger.join("beta", key);
    alpha.catch_up(&ledger);
    assert_eq!(submitted(&alpha.take()), [Intent::Join(key)], "another leaf stands there");
    alpha.input(Input::Expired(Intent::Join(key)));
    assert_eq!(submitted(&alpha.take()), [Intent::Join(key)]);
}

#[test]
fn rounds_of_others_are_none_of_its_business() {
    let (ledger, _) = open_round();
    let mut gamma = site("gamma");
    gamma.policy.auto_approve = false;
    let running = Running::start(core(gamma), &ledger);
    assert_eq!(submitted(&running.outputs), []);
    assert_eq!(trains(&running.outputs), []);
    let evaluates = running.outputs.iter().any(|output| matches!(output, Output::Evaluate(_)));
    assert!(!evaluates, "a version of a plan without consent was evaluated");
}

/// Changes what a site allows, or what it has.
type Restrict = fn(&mut Site);

#[test]
fn a_round_outside_the_policy_is_declined_with_the_reason() {
    let (mut ledger, key) = open_round();
    let cases: [(&str, Restrict); 9] = [
        ("the plan has 3 rounds, this site's policy allows 2", |site| site.policy.rounds_max = 2),
        ("fewer training examples than the 11", |site| site.policy.examples_min = 11),
        ("as few as 2 contributions", |site| site.policy.contributions_min = 3),
        ("plan \"heart\" is not among", |site| site.policy.plans = only("lung")),
        ("plans of \"alpha\" are not among", |site| site.policy.operators = only("beta")),
        ("models of kind \"logistic_regression\"", |site| site.policy.architectures = only("multilayer_perceptron")),
        ("takes 2 features, the records of this site have 13", |site| {
            site.own_data = Ok(DataSummary { features: 13, ..data() });
        }),
        ("tells 2 classes apart, the records of this site have 10", |site| {
            site.own_data = Ok(DataSummary { classes: 10, ..data() });
        }),
        ("the records of this site cannot be used: no features", |site| {
            site.own_data = Err("no features".to_owned());
        }),
    ];
    for (expected, change) in cases {
        let mut restricted = site("alpha");
        change(&mut restricted);
        let running = Running::start(core(restricted), &ledger);
        let reason = decline_reason(&running.outputs);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(submitted(&running.outputs), [Intent::Decline(key)]);
    }
    let mut restricted = site("alpha");
    restricted.policy.rounds_max = 2;
    let mut alpha = Running::start(core(restricted), &ledger);
    ledger.submit("alpha", &alpha.take());
    alpha.catch_up(&ledger);
    let declined = |output: &Output| {
        matches!(output, Output::Report(NodeEvent::Declined { key: found, reason })
        if *found == key && reason.contains("3 rounds"))
    };
    assert!(alpha.outputs.iter().any(declined));
    assert_eq!(submitted(&alpha.take()), []);
}

fn only(name: &str) -> Selection {
    Selection::Only([name.to_owned()].into())
}

#[test]
fn a_training_that_fails_declines_the_round() {
    let (mut ledger, key) = open_round();
    ledger.join("alpha", key);
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    alpha.take();
    alpha.input(Input::TrainingFailed(key, "training diverged ".repeat(100)));
    let outputs = alpha.take();
    assert_eq!(submitted(&outputs), [Intent::Decline(key)]);
    assert_eq!(ledger.submit("alpha", &outputs), ["accepted"], "a reason that is too long is cut");
    alpha.catch_up(&ledger);
    assert_eq!(submitted(&alpha.take()), []);
}

#[test]
fn work_on_an_abandoned_attempt_stops_and_the_next_attempt_is_joined() {
    let (mut ledger, first) = open_round();
    ledger.join("alpha", first);
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    assert_eq!(trains(&alpha.take()), [first]);
    let abandon = AbandonRound { key: first, reason: "below_quorum".to_owned(), excluded: BTreeMap::new() };
    ledger.apply(&key("gamma", Purpose::Replica), Command::AbandonRound(abandon));
    let second = ledger.open_round(first.plan);
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::Stop(first)));
    assert_eq!(submitted(&outputs), [Intent::Join(second)]);
    alpha.input(Input::Trained(first, trained(0.5)));
    assert_eq!(alpha.take(), [], "what comes late from the first attempt is ignored");
}

#[test]
fn a_round_is_declined_after_consent_was_taken_back() {
    let (mut ledger, key_of) = open_round();
    let withdraw = WithdrawConsent { plan: key_of.plan, reason: "audit".to_owned() };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::WithdrawConsent(withdraw));
    let running = Running::start(core(site("alpha")), &ledger);
    assert!(decline_reason(&running.outputs).contains("does not consent"));
}

/// A ledger whose next round is based on version 1 of two completed rounds, and was opened before that was revoked.
#[test]
fn a_revoked_base_is_never_trained_on() {
    let (mut ledger, first) = open_round();
    let initial = *ledger.state().head("main").unwrap().0;
    ledger.contribute("alpha", first, 0.5);
    ledger.contribute("beta", first, 0.25);
    let version = ledger.complete_round(first);
    let second = ledger.open_round(first.plan);
    ledger.join("alpha", second);
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    assert_eq!(trains(&alpha.take()), [second]);

    let rollback = MoveBranch {
        branch: "main".to_owned(),
        from: Some(version),
        to: initial,
        revoke: true,
        reason: "bad update".to_owned(),
    };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::MoveBranch(rollback));
    let restarted = Running::start(core(site("alpha")), &ledger);
    assert_eq!(trains(&restarted.outputs), []);
    assert!(decline_reason(&restarted.outputs).contains("revoked"));
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::Stop(second)), "training on a base that was revoked meanwhile goes on");
    assert!(decline_reason(&outputs).contains("revoked"));
}

#[test]
fn new_versions_are_evaluated_once() {
    let (mut ledger, first) = open_round();
    let initial = *ledger.state().head("main").unwrap().0;
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let evaluated = |outputs: &[Output]| {
        let tasks = outputs.iter().filter_map(|output| match output {
            Output::Evaluate(task) => Some(task.version),
            _ => None,
        });
        tasks.collect::<Vec<_>>()
    };
    assert_eq!(evaluated(&alpha.take()), [initial]);

    ledger.contribute("alpha", first, 0.5);
    ledger.contribute("beta", first, 0.25);
    let version = ledger.complete_round(first);
    alpha.catch_up(&ledger);
    assert_eq!(evaluated(&alpha.take()), [], "one evaluation at a time");
    let result = evaluation();
    alpha.input(Input::Evaluated(initial, None));
    let outputs = alpha.take();
    assert_eq!(evaluated(&outputs), [version]);
    assert_eq!(submitted(&outputs), [], "a version that cannot be evaluated here is passed over");
    alpha.input(Input::Evaluated(version, Some(result)));
    let outputs = alpha.take();
    assert_eq!(submitted(&outputs), [Intent::Evaluate(version)]);
    assert_eq!(ledger.submit("alpha", &outputs), ["accepted"]);
    alpha.catch_up(&ledger);
    let event = NodeEvent::Evaluated { version, number: 1, accuracy_millionths: 750_000 };
    assert!(alpha.take().contains(&Output::Report(event)));

    let restarted = Running::start(core(site("alpha")), &ledger);
    assert_eq!(evaluated(&restarted.outputs), []);
    assert_eq!(submitted(&restarted.outputs), []);
}

/// Of four rows, three are predicted correctly.
fn evaluation() -> Evaluation {
    score(&Outputs { logits: vec![1.0, -1.0, 2.0, -2.0], classes: 2 }, &[1.0, 0.0, 1.0, 1.0], None).unwrap()
}

/// What a site says of the first round's version of a plan that is finished early by its reports, or not: the version that it
/// is to evaluate, and what it submits once it has failed to.
fn reports_of(site: Site, early_stopping: Option<EarlyStopping>) -> (bool, Vec<Evaluate>) {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(Plan { early_stopping, ..plan() }, &["alpha", "beta"]);
    let key = ledger.open_round(id);
    ledger.contribute("alpha", key, 0.5);
    ledger.contribute("beta", key, 0.25);
    let version = ledger.complete_round(key);
    let mut running = Running::start(core(site), &ledger);
    let mut outputs = running.take();
    let evaluates = outputs.iter().any(|output| matches!(output, Output::Evaluate(_)));
    running.input(Input::Evaluated(version, None));
    outputs.extend(running.take());
    let reports = outputs.iter().filter_map(|output| match output {
        Output::Submit(Intent::Evaluate(_), command) => match &**command {
            Command::Evaluate(report) => Some(report.clone()),
            _ => None,
        },
        _ => None,
    });
    let reports: Vec<Evaluate> = reports.collect();
    if !reports.is_empty() {
        assert_eq!(ledger.submit(running.core.member(), &outputs), ["accepted"]);
        running.catch_up(&ledger);
        assert_eq!(submitted(&running.take()), [], "it is said once");
    }
    (evaluates, reports)
}

#[test]
fn a_site_that_is_waited_for_says_so_when_it_has_nothing_to_report() {
    let condition = EarlyStopping {
        metric: "accuracy".to_owned(),
        goal: Goal::Max,
        target: Some("0.9".parse().unwrap()),
        patience: None,
        minimum_improvement: None,
    };
    let without_test_rows =
        |member: &str| Site { own_data: Ok(DataSummary { test_examples: 0, ..data() }), ..site(member) };
    let is_nothing =
        |reports: &[Evaluate]| matches!(reports, [Evaluate { examples: 0, metrics, .. }] if metrics.is_empty());
    let (evaluates, reports) = reports_of(without_test_rows("alpha"), Some(condition.clone()));
    assert!(!evaluates && is_nothing(&reports), "{reports:?}");
    // An evaluation that fails.
    let (evaluates, reports) = reports_of(site("alpha"), Some(condition.clone()));
    assert!(evaluates && is_nothing(&reports), "{reports:?}");
    // Nobody waits for it.
    assert_eq!(reports_of(without_test_rows("gamma"), Some(condition)), (false, vec![]));
    assert_eq!(reports_of(without_test_rows("alpha"), None), (false, vec![]));
    assert_eq!(reports_of(site("alpha"), None), (true, vec![]));
}

#[test]
fn a_site_with_fewer_test_rows_than_its_policy_wants_keeps_what_it_found() {
    for (suppress_below, examples) in [(4, 4), (5, 0)] {
        let (mut ledger, _) = open_round();
        let initial = *ledger.state().head("main").unwrap().0;
        let own = site("alpha");
        let policy = SitePolicy { suppress_below, ..own.policy.clone() };
        let mut alpha = Running::start(core(Site { policy, ..own }), &ledger);
        alpha.take();
        alpha.input(Input::Evaluated(initial, Some(evaluation())));
        let outputs = alpha.take();
        assert_eq!(ledger.submit("alpha", &outputs), ["accepted"]);
        let record = ledger.state().evaluation(&initial, &"alpha".to_owned()).unwrap();
        assert_eq!((record.examples, record.metrics.is_empty()), (examples, examples == 0));
        alpha.catch_up(&ledger);
        assert_eq!(submitted(&alpha.take()), [], "it is said once");
    }
}

#[test]
fn a_version_that_came_while_nobody_was_followed_is_evaluated() {
    let (mut ledger, key) = open_round();
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let initial = *ledger.state().head("main").unwrap().0;
    alpha.input(Input::Evaluated(initial, None));
    alpha.input(Input::Lost { reason: "killed".to_owned() });
    ledger.contribute("alpha", key, 0.5);
    ledger.contribute("beta", key, 0.25);
    let version = ledger.complete_round(key);
    alpha.take();
    alpha.follow("alpha", &ledger);
    let evaluates = |output: &Output| matches!(output, Output::Evaluate(task) if task.version == version);
    assert!(alpha.take().iter().any(evaluates));
}

#[test]
fn a_version_whose_weights_were_pruned_is_not_waited_for() {
    let (mut ledger, first) = open_round();
    ledger.decide(Action::ChangeRetention(Retention { updates: Some(1), versions: Some(2) }));
    let initial = *ledger.state().head("main").unwrap().0;
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let mut key_of = first;
    for round in 1..=2 {
        ledger.contribute("alpha", key_of, 0.5);
        ledger.contribute("beta", key_of, 0.25);
        ledger.complete_round(key_of);
        if round == 1 {
            key_of = ledger.open_round(key_of.plan);
        }
    }
    alpha.catch_up(&ledger);
    assert!(!alpha.take().contains(&Output::StopEvaluating), "its weights are kept yet");
    let prune = PruneVersion { version: initial, updates: false, files: true };
    ledger.apply(&key("beta", Purpose::Replica), Command::PruneVersion(prune));
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::StopEvaluating));
    let next = |output: &Output| matches!(output, Output::Evaluate(task) if task.version != initial);
    assert!(outputs.iter().any(next), "another version is evaluated: {outputs:?}");
}

#[test]
fn updates_are_kept_while_replicas_may_need_them() {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(fedledger_federation::plan::Plan { rounds: 9, ..plan() }, &["alpha", "beta"]);
    let mut updates = Vec::new();
    for round in 1..=6u8 {
        let key = ledger.open_round(id);
        let value = f32::from(round) / 8.0;
        ledger.contribute("alpha", key, value);
        ledger.contribute("beta", key, 0.25);
        ledger.complete_round(key);
        updates.push(trained(value).file.digest);
    }
    let running = Running::start(core(site("alpha")), &ledger);
    let kept = running.outputs.iter().find_map(|output| match output {
        Output::Keep(kept) => Some(kept.clone()),
        _ => None,
    });
    let kept = kept.unwrap();
    let recent: std::collections::BTreeSet<Digest> = updates[2..].iter().copied().collect();
    assert_eq!(kept.updates, recent);
    assert!(kept.work.contains(&(id, 7)));
    let weights = ledger.state().head("main").unwrap().1.manifest.weights().unwrap().digest;
    assert!(kept.weights.contains(&weights));
}
