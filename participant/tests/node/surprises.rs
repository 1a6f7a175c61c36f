//! Plans that surprise are left to the site's people, and so are trainings that would take too much memory.

use fedledger_federation::{
    Command,
    architecture::Architecture,
    command::WithdrawConsent,
    limits::TEXT_LENGTH_MAX,
    plan::{Plan, Training},
};
use fedledger_ledger::Digest;
use fedledger_participant::node::{
    Intent, NodeEvent,
    core::{DataSummary, Output, Site},
    policy::{Objection, Surprise, consented, objection_to_round, surprises},
};
use fedledger_proto::kit::Surprises;

use crate::fixture::{Ledger, Purpose, Running, core, data, described_plan, key, plan, site};

/// A site that asks about surprises, and otherwise consents by itself.
fn asking() -> Site {
    let mut site = site("alpha");
    site.policy.surprises = Surprises::Ask;
    site
}

fn named(name: &str, architecture: Architecture) -> Plan {
    Plan { name: name.to_owned(), branch: name.to_owned(), architecture, ..plan() }
}

fn perceptron(hidden: &[u32]) -> Architecture {
    Architecture::multilayer_perceptron(2, hidden)
}

/// What a freshly started node of a site does about the plans of a ledger: consents, and the reasons of those withheld.
fn decided(site: Site, ledger: &Ledger) -> (Vec<Digest>, Vec<(Digest, String)>) {
    let outputs = Running::start(core(site), ledger).take();
    let consents = outputs.iter().filter_map(|output| match output {
        Output::Submit(Intent::Approve(plan), _) => Some(*plan),
        _ => None,
    });
    let withheld = outputs.iter().filter_map(|output| match output {
        Output::Report(NodeEvent::ConsentWithheld { plan, reason }) => Some((*plan, reason.clone())),
        _ => None,
    });
    (consents.collect(), withheld.collect())
}

/// The reason for which the one plan of a ledger is not consented to.
fn reason(site: Site, ledger: &Ledger) -> String {
    match decided(site, ledger) {
        (consents, withheld) if consents.is_empty() && withheld.len() == 1 => withheld.into_iter().next().unwrap().1,
        other => panic!("one plan is withheld: {other:?}"),
    }
}

#[test]
fn new_shapes_wait_for_a_person_and_then_are_known() {
    let mut ledger = Ledger::new();
    let first = ledger.propose(plan());
    let why = reason(asking(), &ledger);
    assert!(why.contains("has not consented to a model of these tensor shapes"), "{why}");
    assert!(why.contains("looks at the plan and approves it"), "it says what to do: {why}");

    // Another member's consent says nothing about this site.
    ledger.consent("beta", first);
    assert_eq!(reason(asking(), &ledger), why);
    ledger.consent("alpha", first);
    let again = ledger.propose(named("again", plan().architecture));
    let other = ledger.propose(named("other", Architecture::logistic_regression(3)));
    let mut wider = asking();
    wider.own_data = Ok(DataSummary { features: 3, ..data() });
    assert_eq!(decided(asking(), &ledger).0, [again], "the shapes are known now, after every restart");
    assert_eq!(decided(wider, &ledger).1.iter().map(|(plan, _)| *plan).collect::<Vec<_>>().len(), 2);
    let withheld = decided(asking(), &ledger).1;
    assert_eq!(withheld.iter().map(|(plan, _)| *plan).collect::<Vec<_>>(), [other]);

    let withdraw = WithdrawConsent { plan: first, reason: "no".to_owned() };
    ledger.apply(&key("alpha", Purpose::Organisation), Command::WithdrawConsent(withdraw));
    assert_eq!(decided(asking(), &ledger).0, [], "what was taken back is not known any more");
}

#[test]
fn a_layer_wider_than_a_batch_waits_for_a_person() {
    // Batches of four records, ten records in all.
    let mut ledger = Ledger::new();
    let known = ledger.propose(named("known", perceptron(&[4, 3])));
    ledger.consent("alpha", known);
    let narrow = ledger.propose(named("narrow", perceptron(&[4, 3])));
    assert_eq!(decided(asking(), &ledger).0, [narrow], "as wide as a batch");

    let wide = named("wide", perceptron(&[3, 5]));
    let id = ledger.propose(wide.clone());
    ledger.consent("alpha", id);
    let again = ledger.propose(Plan { seed: 8, ..named("wide-again", wide.architecture.clone()) });
    let withheld = decided(asking(), &ledger).1;
    assert_eq!(withheld.len(), 1, "each wide plan is looked at anew: {withheld:?}");
    assert_eq!(withheld[0].0, again);
    assert!(withheld[0].1.contains("layer1.weight has 5 units, more than the 4 records of a batch"), "{withheld:?}");

    let few = asking();
    let expected = Surprise::WiderThanBatch { tensor: "layer0.weight".to_owned(), units: 4, batch: 3 };
    let known = consented(ledger.state(), &few.member);
    let found = surprises(&few.policy, 3, &named("narrow", perceptron(&[4, 3])), known);
    assert_eq!(found, [expected], "a batch has no more records than the site");
}

#[test]
fn a_plan_whose_updates_may_be_made_of_few_records_waits_for_a_person() {
    let mut ledger = Ledger::new();
    let first = ledger.propose(plan());
    ledger.consent("alpha", first);
    let mut careful = asking();
    careful.policy.suppress_below = 10;
    let known = || consented(ledger.state(), &careful.member);
    let with = |steps, batch_size| {
        let training = plan().training.map(|training| Training { steps, batch_size, ..training });
        Plan { training, ..named("again", plan().architecture) }
    };
    let few = |records| Surprise::FewRecords { records, below: 10 };
    assert_eq!(surprises(&careful.policy, 100, &with(1, 1), known()), [few(1)]);
    assert_eq!(surprises(&careful.policy, 100, &with(5, 1), known()), [few(5)]);
    assert_eq!(surprises(&careful.policy, 65, &with(1, 64), known()), [few(1)], "the last batch of a pass");
    assert_eq!(surprises(&careful.policy, 9, &with(100, 3), known()), [few(9)], "as many as there are");
    assert_eq!(surprises(&careful.policy, 64, &with(1, 64), known()), []);
    assert_eq!(surprises(&careful.policy, 65, &with(2, 64), known()), []);

    // What is more than a surprise is refused even where somebody has consented.
    let mut strict = site("alpha");
    (strict.policy.examples_min, strict.policy.suppress_below) = (5, 0);
    let objection = |plan: &Plan| objection_to_round(&strict, Ok(&data()), plan, 1, "alpha");
    assert_eq!(objection(&with(2, 2)), Some(Objection::TooFewInUpdate { found: 4, needed: 5 }));
    assert_eq!(objection(&with(3, 2)), None);
}

#[test]
fn records_described_in_another_way_wait_for_a_person_and_then_are_known() {
    let mut ledger = Ledger::new();
    let first = described_plan(["age", "pressure"], 3);
    let id = ledger.propose(first.clone());
    ledger.consent("alpha", id);
    let policy = asking().policy;
    let member = "alpha".to_owned();
    let found = |plan: &Plan| surprises(&policy, 100, plan, consented(ledger.state(), &member));
    assert_eq!(found(&Plan { name: "again".to_owned(), ..first.clone() }), []);
    assert_eq!(found(&described_plan(["age", "diagnosis"], 3)), [Surprise::Records]);
    assert_eq!(found(&described_plan(["age", "pressure"], 4)), [Surprise::Records], "more may be skipped");
    assert_eq!(found(&Plan { data: None, ..first }), [], "the site's own description is its own");
}

#[test]
fn a_model_larger_than_the_policy_allows_waits_for_a_person_whatever_surprises_are_allowed() {
    let mut ledger = Ledger::new();
    let id = ledger.propose(plan());
    let mut small = site("alpha");
    small.policy.parameters_max = 3;
    assert_eq!(decided(small.clone(), &ledger).0, [id], "two weights and a bias");
    small.policy.parameters_max = 2;
    let why = reason(small.clone(), &ledger);
    assert!(why.contains("3 parameters") && why.contains("allows 2 without asking"), "{why}");

    // With a person's consent it is trained.
    ledger.consent("alpha", id);
    ledger.consent("beta", id);
    ledger.start(id);
    let round = ledger.open_round(id);
    let outputs = Running::start(core(small), &ledger).take();
    assert!(outputs.iter().any(|output| matches!(output, Output::Submit(Intent::Join(key), _) if *key == round)));
}

#[test]
fn a_person_who_is_asked_anyway_is_told_what_surprises() {
    let mut ledger = Ledger::new();
    ledger.propose(named("wide", perceptron(&[64])));
    let mut manual = asking();
    manual.policy.auto_approve = false;
    manual.policy.parameters_max = 10;
    let why = reason(manual, &ledger);
    assert!(why.starts_with("consent needs a person of this organisation: approve the plan"), "{why}");
    for surprise in ["these tensor shapes", "layer0.weight has 64 units", "257 parameters"] {
        assert!(why.contains(surprise), "{surprise} is missing in {why}");
    }
}

#[test]
fn a_training_that_would_take_too_much_memory_is_declined_with_the_figures() {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(plan(), &["alpha", "beta"]);
    let round = ledger.open_round(id);
    let mut small = site("alpha");
    small.memory_max = Some(1_000_000);
    let outputs = Running::start(core(small.clone()), &ledger).take();
    let declined = outputs.iter().find_map(|output| match output {
        Output::Submit(Intent::Decline(key), command) if *key == round => match &**command {
            Command::DeclineRound(decline) => Some(decline.reason.clone()),
            _ => None,
        },
        _ => None,
    });
    let why = declined.unwrap();
    assert!(why.contains("training would take about 17 MB") && why.contains("allows 1 MB"), "{why}");
    assert!(why.len() <= TEXT_LENGTH_MAX);
    small.memory_max = Some(20_000_000);
    let outputs = Running::start(core(small), &ledger).take();
    assert!(outputs.iter().any(|output| matches!(output, Output::Submit(Intent::Join(_), _))));
}
