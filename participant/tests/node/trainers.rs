//! What programs of the site are told of the records, and what they may say of them: data and their digests, rows, examples,
//! rows that cannot be read, and what of it all gets onto the ledger.

use std::fs;

use fedledger_federation::{architecture::Architecture, plan::Plan};
use fedledger_ledger::Digest;
use fedledger_participant::node::core::{DataSummary, Output, Site, SiteTrainer};
use fedledger_proto::kit::ParticipantKit;

use crate::{
    external::{Bench, TAKE, equipped, external, objection, until},
    fixture::{Ledger, Running, core, data, described_plan, plan, site},
    live::start,
};

/// A trainer that says of itself how many examples its data have.
fn with_own_data(examples: Option<u64>) -> Site {
    let trainer = SiteTrainer {
        program: Digest::of(b"train.py"),
        evaluates: false,
        own_data: Some(DataSummary::of_trainer(examples)),
    };
    let own_data = Err("there is no table".to_owned());
    Site { own_data, trainers: [("script".to_owned(), trainer)].into(), ..site("alpha") }
}

#[test]
fn a_trainer_with_data_of_its_own_needs_no_table() {
    assert_eq!(objection(external(plan(), None), with_own_data(None)), None);
    let described = described_plan(["age", "pressure"], 0);
    assert_eq!(objection(external(described, None), with_own_data(None)), None, "nor one that the plan describes");
    let reason = objection(plan(), with_own_data(None)).unwrap();
    assert!(reason.contains("there is no table"), "{reason}");

    let mut strict = with_own_data(Some(49));
    strict.policy.examples_min = 50;
    assert!(objection(external(plan(), None), strict.clone()).unwrap().contains("fewer training examples than the 50"));
    strict.trainers = with_own_data(None).trainers;
    assert_eq!(objection(external(plan(), None), strict), None, "the program says it afterwards");
}

#[test]
fn a_plan_that_asks_for_examples_gets_a_number_or_no_consent() {
    let mut asking = external(plan(), None);
    asking.participation.minimum_example_share = Some("0.1".parse().unwrap());
    let mut ledger = Ledger::new();
    ledger.propose(asking);
    let declared = |site: Site| {
        let alpha = Running::start(core(site), &ledger);
        alpha.outputs.into_iter().find_map(|output| match output {
            Output::Submit(_, command) => match *command {
                fedledger_federation::Command::ApprovePlan(consent) => Some(consent.examples),
                _ => None,
            },
            _ => None,
        })
    };
    assert_eq!(declared(with_own_data(Some(70))), Some(Some(70)));
    assert_eq!(declared(with_own_data(None)), None, "nobody knows how many there are");
}

/// How alpha evaluates the initial version of a plan: none if it does not, else whether a program does.
fn evaluation(plan: Plan, site: Site) -> Option<bool> {
    let mut ledger = Ledger::new();
    ledger.start_plan(plan, &["alpha", "beta"]);
    let running = Running::start(core(site), &ledger);
    running.outputs.iter().find_map(|output| match output {
        Output::Evaluate(task) => Some(task.external.is_some()),
        _ => None,
    })
}

#[test]
fn a_known_model_of_an_external_trainer_is_evaluated_by_who_knows_its_records() {
    let program = Digest::of(b"train.py");
    let known = |inputs| Plan { architecture: Architecture::logistic_regression(inputs), ..external(plan(), None) };
    assert_eq!(evaluation(known(2), equipped(program, true)), Some(true), "the program evaluates, as it is said to");
    assert_eq!(evaluation(known(5), equipped(program, true)), Some(true), "whatever the node's table has");
    assert_eq!(evaluation(known(2), equipped(program, false)), None, "its scaling is known to nobody else");
    assert_eq!(evaluation(plan(), site("alpha")), Some(false));
    let other = Site { own_data: Ok(DataSummary { features: 3, ..data() }), ..site("alpha") };
    assert_eq!(evaluation(plan(), other), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_a_program_stand_on_the_ledger_as_they_were() {
    let bench = Bench::new(&(TAKE.to_owned() + "take"), "");
    fs::remove_file(bench.at("records.csv")).unwrap();
    fs::remove_file(bench.at("schema.toml")).unwrap();
    let node = start(bench.directory.path()).await;
    let first = bench.contribution().await;
    assert_eq!(first.data_manifest, Digest::of(&fs::read(bench.at("trained")).unwrap()), "as `sha256sum` prints it");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_change_during_a_run_are_not_contributed() {
    let bench = Bench::new(&(TAKE.to_owned() + "take; echo more >> \"$data\""), "");
    let node = start(bench.directory.path()).await;
    assert_eq!(bench.reason().await, "training failed: data_changed");
    node.shutdown().await.unwrap();
}

/// A trainer that the node's table is for; the weights lie beside it.
const BESIDE: &str = r#"
    data=$(sed 's/.*"data":"\([^"]*\)".*/\1/' configuration.json)
    take() { cp "${data%/*}/trained" trained.safetensors; echo "{\"examples\": $1}" > metrics.json; }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_edited_between_rounds_is_not_taken_for_the_old_one() {
    let bench = Bench::with_table(&(BESIDE.to_owned() + "take 15"), "");
    let node = start(bench.directory.path()).await;
    let first = bench.contribution().await;
    assert_eq!(first.examples, 15);
    let table = fs::read_to_string(bench.at("records.csv")).unwrap();
    fs::write(bench.at("records.csv"), table + "9,9,1\n").unwrap();
    bench.replica.complete_round(bench.key);
    let key = bench.replica.change(|ledger| ledger.open_round(bench.key.plan));
    bench.replica.until(|state| crate::external::reason_of(state, &key).is_some()).await;
    let reason = bench.replica.change(|ledger| crate::external::reason_of(ledger.state(), &key));
    assert_eq!(reason.unwrap(), "training failed: data_changed");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_told_the_rows_to_train_and_to_test_on() {
    // Of twenty records every one is in one of both lists.
    let script = BESIDE.to_owned()
        + r#"
        grep -q '"rows":"rows.json"' configuration.json || exit 3
        train=$(sed 's/.*"train":\[\([^]]*\)\].*/\1/' rows.json | tr , '\n')
        test=$(sed 's/.*"test":\[\([^]]*\)\].*/\1/' rows.json | tr , '\n')
        all=$(printf '%s\n' $train $test | sort -n | tr '\n' ' ')
        test "$all" = "$(seq 0 19 | tr '\n' ' ')" || exit 4
        take $(printf '%s\n' $train | wc -l)
    "#;
    let bench = Bench::with_table(&script, "");
    let node = start(bench.directory.path()).await;
    assert_eq!(bench.contribution().await.examples, 15, "a quarter is kept for testing");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_that_a_program_reports_are_held_against_rows_and_policy() {
    let policy = |text: &'static str| {
        move |bench: &Bench| {
            let policy = fs::read_to_string(bench.at("policy.toml")).unwrap();
            fs::write(bench.at("policy.toml"), policy + text).unwrap();
        }
    };
    let reason = async |bench: Bench, change: &dyn Fn(&Bench)| {
        change(&bench);
        let node = start(bench.directory.path()).await;
        let reason = bench.reason().await;
        node.shutdown().await.unwrap();
        reason
    };
    let epochs = Bench::with_table(&(BESIDE.to_owned() + "take 75"), "");
    let refused = "training failed: trainer_results_refused, ";
    assert_eq!(reason(epochs, &|_| ()).await, format!("{refused}more_examples_than_rows"));
    let few = Bench::new(&(BESIDE.to_owned() + "take 3"), "");
    assert_eq!(reason(few, &policy("examples_min = 10\n")).await, format!("{refused}too_few_examples"));
    let many = Bench::new(&(BESIDE.to_owned() + "take 41"), "examples = 40");
    assert_eq!(reason(many, &|_| ()).await, format!("{refused}more_examples_than_rows"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_program_skips_are_signed_by_reason() {
    let script = TAKE.to_owned()
        + r#"
        grep -q '"skip_reasons":\["field_count",' configuration.json || exit 3
        take; echo '{"examples": 10, "skipped_rows": {"not_a_number": 2}}' > metrics.json
    "#;
    let bench = Bench::new(&script, "");
    let node = start(bench.directory.path()).await;
    assert_eq!(bench.contribution().await.skipped_rows, [("not_a_number".to_owned(), 2)].into());
    node.shutdown().await.unwrap();
}

/// A name as it could stand in a record.
const PATIENT: &str = "Jane Doe";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_program_prints_or_writes_gets_onto_the_ledger() {
    let said = format!("ValueError: could not convert string to float: '{PATIENT}'");
    let metrics = format!("{{\"examples\": 10, \"{PATIENT}\": 1}}");
    let scripts = [
        format!("echo \"{said}\" >&2; exit 3"),
        format!("echo \"{said}\"; while :; do :; done"),
        format!("echo '{metrics}' > metrics.json"),
        format!("echo '{{\"examples\": 10, \"metrics\": {{\"{PATIENT}\": 1}}}}' > metrics.json"),
        format!("echo '{{\"examples\": 10, \"skipped_rows\": {{\"{PATIENT}\": 1}}}}' > metrics.json"),
    ];
    for script in scripts {
        let bench = Bench::new(&script, "time_max_s = 1");
        let node = start(bench.directory.path()).await;
        let reason = bench.reason().await;
        assert!(reason.starts_with("training failed: trainer_") && !reason.contains("Jane"), "{reason}");
        if script.contains("ValueError") {
            let log = bench.folder().with_extension("log");
            assert!(fs::read_to_string(log).unwrap().contains(PATIENT), "the people of the site see it");
        }
        let ledger = bench.replica.change(|ledger| ledger.leaves.concat());
        assert!(!ledger.windows(PATIENT.len()).any(|window| window == PATIENT.as_bytes()));
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_training_over_other_data_is_not_contributed_after_a_restart() {
    // It ends its own node's work by waiting until the data were changed behind it.
    let script = TAKE.to_owned()
        + "take; echo $$ > \"${data%/*}/begun.tmp\"; mv \"${data%/*}/begun.tmp\" \"${data%/*}/begun\"
        while ! test -e \"${data%/*}/go\"; do sleep 0.1; done";
    let bench = Bench::new(&script, "");
    let node = start(bench.directory.path()).await;
    until(|| bench.at("begun").exists()).await;
    fs::write(bench.folder().join("state/epoch"), "1").unwrap();
    node.shutdown().await.unwrap();
    let (old, state) = (fs::read(bench.at("trained")).unwrap(), bench.folder().join("state/epoch"));
    assert!(state.exists(), "an interrupted run is kept");
    let mut changed = old.clone();
    changed[old.len() - 1] ^= 1;
    fs::write(bench.at("trained"), &changed).unwrap();
    fs::write(bench.at("go"), "").unwrap();
    let node = start(bench.directory.path()).await;
    let mut events = node.events();
    assert_eq!(bench.contribution().await.data_manifest, Digest::of(&changed));
    node.shutdown().await.unwrap();
    let mut resumed = Vec::new();
    while let Ok(event) = events.recv().await {
        if let fedledger_participant::node::NodeEvent::TrainerStarted { resumed: again, .. } = event {
            resumed.push(again);
        }
    }
    assert_eq!(resumed, [false], "it began anew over the new data");
}

#[tokio::test]
async fn a_training_takes_no_more_than_most_of_the_machine_unless_the_site_says_so() {
    let bench = Bench::new("", "");
    let kit = ParticipantKit::load(bench.directory.path()).unwrap();
    let site = fedledger_participant::node::site(&kit, Ok(data()), [].into());
    let machine = fedledger_participant::memory::machine_bytes();
    assert_eq!(site.memory_max, machine.map(|bytes| bytes / 4 * 3));
    assert_eq!(site.memory_max.is_some(), cfg!(target_os = "linux"));
}
