//! Plans that say themselves what is done to records: they are read for each plan, and what they amount to is waited for.

use std::{collections::BTreeMap, fs};

use fedledger_federation::{Command, command::Contribute, plan::Plan, records::Participation};
use fedledger_ledger::Digest;
use fedledger_participant::node::{
    Intent, NodeEvent,
    core::{DataSummary, Input, Output, TrainedUpdate},
};
use fedledger_proto::kit::{Selection, Surprises};

use crate::{
    fixture::{Ledger, Running, core, data, described_plan, plan, site, trained},
    live,
    replica::Replica,
};

fn described() -> Plan {
    described_plan(["age", "pressure"], 3)
}

fn description_of(plan: &Plan) -> Digest {
    plan.data.as_ref().unwrap().digest()
}

/// What the records of the described plan amount to.
fn summary() -> DataSummary {
    let skipped_rows = BTreeMap::from([("not_a_number".to_owned(), 2)]);
    DataSummary { manifest: Some(Digest::of(b"described")), skipped_rows, ..data() }
}

/// The digests of the descriptions that are to be read.
fn reads(outputs: &[Output]) -> Vec<Digest> {
    let descriptions = outputs.iter().filter_map(|output| match output {
        Output::ReadData(description) => Some(description.digest()),
        _ => None,
    });
    descriptions.collect()
}

fn submitted(outputs: &[Output]) -> Vec<Intent> {
    let intents = outputs.iter().filter_map(|output| match output {
        Output::Submit(intent, _) => Some(*intent),
        _ => None,
    });
    intents.collect()
}

#[test]
fn a_site_consents_once_it_knows_what_its_records_amount_to() {
    let mut ledger = Ledger::new();
    let plan = described();
    let (id, description) = (ledger.propose(plan.clone()), description_of(&plan));
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!((reads(&outputs), submitted(&outputs)), (vec![description], vec![]));
    alpha.input(Input::Tick);
    assert_eq!(reads(&alpha.take()), [], "it is asked for once");
    alpha.input(Input::DataRead(description, Ok(summary())));
    assert_eq!(submitted(&alpha.take()), [Intent::Approve(id)]);
}

#[test]
fn records_that_do_not_fit_are_a_reason_to_withhold_consent() {
    for (data, expected) in [
        (Err("line 7: \"old\" is not a number".to_owned()), "cannot be used: line 7: \"old\" is not a number"),
        (Ok(DataSummary { features: 3, ..summary() }), "the records of this site have 3"),
    ] {
        let mut ledger = Ledger::new();
        ledger.propose(described());
        let mut alpha = Running::start(core(site("alpha")), &ledger);
        alpha.input(Input::DataRead(description_of(&described()), data));
        let outputs = alpha.take();
        assert_eq!(submitted(&outputs), []);
        let withheld = |output: &Output| {
            matches!(output,
            Output::Report(NodeEvent::ConsentWithheld { reason, .. }) if reason.contains(expected))
        };
        assert!(outputs.iter().any(withheld), "{expected}");
    }
}

#[test]
fn a_round_is_neither_joined_nor_declined_before_the_records_are_known() {
    for readable in [true, false] {
        let mut ledger = Ledger::new();
        let id = ledger.start_plan(described(), &["alpha", "beta"]);
        let key = ledger.open_round(id);
        let mut alpha = Running::start(core(site("alpha")), &ledger);
        assert_eq!(submitted(&alpha.take()), []);
        let data = if readable { Ok(summary()) } else { Err("no such file".to_owned()) };
        alpha.input(Input::DataRead(description_of(&described()), data));
        let outputs = alpha.take();
        let expected = if readable { Intent::Join(key) } else { Intent::Decline(key) };
        assert_eq!(submitted(&outputs), [expected]);
        ledger.submit("alpha", &outputs);
        if !readable {
            let participation = ledger.state().participation(&key, &"alpha".to_owned());
            let Some(Participation::Declined { reason, .. }) = participation else { panic!("{participation:?}") };
            assert_eq!(reason, "the records of this site cannot be used: no such file");
        }
    }
}

#[test]
fn a_node_that_is_started_again_reads_again_and_contributes_what_was_read() {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(described(), &["alpha", "beta"]);
    let key = ledger.open_round(id);
    ledger.join("alpha", key);
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    let outputs = alpha.take();
    assert_eq!(reads(&outputs), [description_of(&described())]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Train(_))), "it trains on what it does not know");
    alpha.input(Input::DataRead(description_of(&described()), Ok(summary())));
    let outputs = alpha.take();
    let task = outputs.iter().find_map(|output| match output {
        Output::Train(task) => Some(task),
        _ => None,
    });
    let task = task.unwrap();
    let data = task.data.clone().unwrap();
    assert_eq!((&data.description, Some(data.manifest)), (&described().data, summary().manifest));
    let skipped_rows = summary().skipped_rows;
    let update = TrainedUpdate { data_manifest: data.manifest, skipped_rows, ..trained(0.5) };
    alpha.input(Input::Trained(key, update));
    alpha.input(Input::Uploaded(key));
    assert_eq!(ledger.submit("alpha", &alpha.take()), ["accepted"]);
    let contribution = contribution(&ledger, "alpha");
    let said = (Some(contribution.data_manifest), contribution.skipped_rows);
    assert_eq!(said, (summary().manifest, summary().skipped_rows));
}

/// The one contribution of a member.
fn contribution(ledger: &Ledger, member: &str) -> Contribute {
    let state = ledger.state();
    let found = state.rounds().iter().find_map(|(key, _)| match state.participation(key, &member.to_owned())? {
        Participation::Contributed { contribution, .. } => Some(contribution.as_ref().clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn the_same_description_in_two_plans_is_read_once_and_another_by_itself() {
    let mut ledger = Ledger::new();
    for (name, plan) in [("a", described()), ("b", described()), ("c", described_plan(["pressure", "age"], 3))] {
        ledger.propose(Plan { name: name.to_owned(), ..plan });
    }
    ledger.propose(plan());
    let alpha = Running::start(core(site("alpha")), &ledger);
    let mut found = reads(&alpha.outputs);
    found.sort();
    let mut expected = [described(), described_plan(["pressure", "age"], 3)].map(|plan| description_of(&plan));
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(submitted(&alpha.outputs).len(), 1, "the plan without a description is not held up");
}

#[test]
fn records_are_not_read_for_a_plan_that_the_policy_forbids() {
    let mut ledger = Ledger::new();
    ledger.propose(described());
    let mut restricted = site("alpha");
    restricted.policy.plans = Selection::Only(["lung".to_owned()].into());
    let alpha = Running::start(core(restricted), &ledger);
    assert_eq!(reads(&alpha.outputs), []);
    let withheld = |output: &Output| matches!(output, Output::Report(NodeEvent::ConsentWithheld { .. }));
    assert!(alpha.outputs.iter().any(withheld), "the policy's reason is said at once");
}

#[test]
fn a_version_is_evaluated_on_records_as_its_plan_describes_them() {
    for test_examples in [4, 0] {
        let mut ledger = Ledger::new();
        ledger.start_plan(described(), &["alpha", "beta"]);
        let head = *ledger.state().head("main").unwrap().0;
        let mut alpha = Running::start(core(site("alpha")), &ledger);
        let evaluated = |outputs: &[Output]| {
            outputs.iter().find_map(|output| match output {
                Output::Evaluate(task) => Some((task.version, task.data.as_ref().unwrap().description.clone())),
                _ => None,
            })
        };
        assert_eq!(evaluated(&alpha.take()), None);
        let data = DataSummary { test_examples, ..summary() };
        alpha.input(Input::DataRead(description_of(&described()), Ok(data)));
        let expected = (test_examples > 0).then(|| (head, described().data));
        assert_eq!(evaluated(&alpha.take()), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_trains_on_records_as_the_plan_describes_them() {
    let mut ledger = Ledger::new();
    let mut plan = described_plan(["years", "pressure"], 2);
    plan.participation.minimum_participants = 1;
    let id = ledger.propose(plan);
    let replica = Replica::start("alpha", ledger);
    let directory = live::directory(&[("alpha", &replica)]);
    // The site says what its files are; what is done to records stands in the plan alone.
    let schema = "columns = { years = \"age\" }\n[split]\nkind = \"test_fraction\"\nfraction = \"0.25\"\nseed = 7\n";
    fs::write(directory.path().join("schema.toml"), schema).unwrap();
    let records = directory.path().join("records.csv");
    let mut text = fs::read_to_string(&records).unwrap();
    text += "old,1,1\n0.5,0.5\n";
    fs::write(&records, text).unwrap();

    let node = live::start(directory.path()).await;
    let approved = |record: &fedledger_federation::records::PlanRecord| record.consents.contains_key("alpha");
    replica.until(|state| state.plans().get(&id).is_some_and(approved)).await;
    replica.change(|ledger| ledger.start(id));
    let key = replica.change(|ledger| ledger.open_round(id));
    let contributed =
        |participation: Option<&Participation>| matches!(participation, Some(Participation::Contributed { .. }));
    replica.until(|state| contributed(state.participation(&key, &"alpha".to_owned()))).await;
    let found = replica.change(|ledger| contribution(ledger, "alpha"));
    let expected = [("field_count".to_owned(), 1), ("not_a_number".to_owned(), 1)];
    assert_eq!((found.examples, found.skipped_rows), (15, expected.into()));
    let version = replica.complete_round(key);
    replica.until(|state| state.evaluations(&version).count() == 1).await;
    node.shutdown().await.unwrap();
}

#[test]
fn records_that_could_not_be_read_are_read_again() {
    let mut ledger = Ledger::new();
    let plan = described();
    let (id, description) = (ledger.propose(plan.clone()), description_of(&plan));
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    assert_eq!(reads(&alpha.take()), [description]);
    alpha.input(Input::DataRead(description, Err("their file cannot be read".to_owned())));
    let outputs = alpha.take();
    assert_eq!((reads(&outputs), submitted(&outputs)), (vec![], vec![]));
    for _ in 0..60 {
        alpha.input(Input::Tick);
    }
    assert_eq!(reads(&alpha.take()), [description], "once a minute");
    alpha.input(Input::DataRead(description, Ok(summary())));
    assert_eq!(submitted(&alpha.take()), [Intent::Approve(id)]);
    for _ in 0..60 {
        alpha.input(Input::Tick);
    }
    assert_eq!(reads(&alpha.take()), [], "what is known is not read again");
}

/// Whoever may propose plans could have every site read its records in any way, at any cost.
#[test]
fn nothing_is_read_for_a_plan_that_needs_a_person_before_that_person_has_consented() {
    for (auto_approve, surprises) in [(false, Surprises::Allow), (true, Surprises::Ask)] {
        let mut ledger = Ledger::new();
        let id = ledger.propose(described());
        let mut cautious = site("alpha");
        (cautious.policy.auto_approve, cautious.policy.surprises) = (auto_approve, surprises);
        let mut alpha = Running::start(core(cautious), &ledger);
        let outputs = alpha.take();
        assert!(!outputs.iter().any(|output| matches!(output, Output::ReadData(_))), "{outputs:?}");
        let withheld = |output: &Output| {
            matches!(output,
            Output::Report(NodeEvent::ConsentWithheld { plan, reason }) if *plan == id && reason.contains("person"))
        };
        assert!(outputs.iter().any(withheld), "{outputs:?}");
        ledger.consent("alpha", id);
        alpha.catch_up(&ledger);
        assert!(alpha.take().iter().any(|output| matches!(output, Output::ReadData(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_declines_with_what_is_wrong_and_not_with_what_stands_there() {
    let mut ledger = Ledger::new();
    let mut plan = described_plan(["age", "height"], 0);
    plan.participation.minimum_participants = 1;
    let id = ledger.start_plan(plan, &["alpha"]);
    let key = ledger.open_round(id);
    let replica = Replica::start("alpha", ledger);
    let directory = live::directory(&[("alpha", &replica)]);
    let node = live::start(directory.path()).await;
    replica.until(|state| state.participation(&key, &"alpha".to_owned()).is_some()).await;
    let declined = replica.change(|ledger| ledger.state().participation(&key, &"alpha".to_owned()).cloned());
    let Some(Participation::Declined { reason, .. }) = declined else { panic!("{declined:?}") };
    assert!(reason.contains("the header has no column \"height\"") && !reason.contains("records.csv"), "{reason}");
    node.shutdown().await.unwrap();
}

#[test]
fn a_plan_that_was_consented_to_is_joined_with_records_read_once() {
    let mut ledger = Ledger::new();
    let id = ledger.propose(described());
    let mut alpha = Running::start(core(site("alpha")), &ledger);
    alpha.input(Input::DataRead(description_of(&described()), Ok(summary())));
    ledger.submit("alpha", &alpha.take());
    ledger.consent("beta", id);
    ledger.start(id);
    let key = ledger.open_round(id);
    alpha.catch_up(&ledger);
    let outputs = alpha.take();
    assert_eq!((reads(&outputs), submitted(&outputs)), (vec![], vec![Intent::Join(key)]));
    let joins =
        |output: &Output| matches!(output, Output::Submit(_, command) if matches!(**command, Command::JoinRound(_)));
    assert!(outputs.iter().any(joins));
}
