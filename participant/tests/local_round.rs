//! A round that is tried: it is what the node would train, and all of what would leave the site is told.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{collections::BTreeMap, fs};

use fedledger_federation::{
    architecture::Architecture,
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, Training, UpdateDtype},
    tensors::{self, Tensor},
};
use fedledger_ledger::{Digest, SecretKey};
use fedledger_participant::{
    local_round::{self, Base, BuiltInTraining, LocalRound, LocalRoundError, Trained},
    node::{
        core::{DataSummary, Site},
        environment,
        policy::SitePolicy,
    },
    table::{self, Schema, Table},
    training::{ComputeDevice, TrainingSettings, train},
};

const SCHEMA: &str = r#"
missing = "error"
normalize = "site"
[label]
column = "sick"
positive_when = { equals = ["1"] }
[[features]]
kind = "numeric"
column = "age"
[[features]]
kind = "numeric"
column = "pressure"
[split]
kind = "test_fraction"
fraction = "0.25"
seed = 7
"#;

fn plan(update_dtype: UpdateDtype) -> Plan {
    Plan {
        name: "heart".to_owned(),
        description: String::new(),
        branch: "main".to_owned(),
        architecture: Architecture::logistic_regression(2),
        training: Some(Training { optimizer: Optimizer::sgd("0.5".parse().unwrap()), steps: 40, batch_size: 8 }),
        external_training: None,
        data: None,
        aggregation: Aggregation {
            rule: Rule::FedAvg { server_learning_rate: "1".parse().unwrap() },
            example_scale: 1024,
            update_dtype,
        },
        seed: 7,
        rounds: 3,
        participation: Participation {
            cohort_size: None,
            minimum_participants: 1,
            required_members: Vec::new(),
            minimum_example_share: Some("0.5".parse().unwrap()),
            round_duration_ms: 1000,
            attempts: 1,
        },
        requirements: Requirements::default(),
        early_stopping: None,
    }
}

fn records() -> Table {
    let mut csv = "age,pressure,sick\n".to_owned();
    for row in 0..80 {
        let sick = row % 2;
        csv += &format!("{},{},{sick}\n", 40 + row % 7 + 20 * sick, 120 + row % 11);
    }
    table::read(csv.as_bytes(), &Schema::from_toml(SCHEMA).unwrap(), None).unwrap()
}

fn site(table: &Table) -> Site {
    Site {
        member: "va".to_owned(),
        author: SecretKey::from_seed([1; 32]).public(),
        policy: SitePolicy::default(),
        own_data: Ok(DataSummary::from(table)),
        environment: environment::digest(ComputeDevice::Cpu),
        device: ComputeDevice::Cpu,
        software: environment::SOFTWARE.to_owned(),
        memory_max: None,
        trainers: BTreeMap::new(),
    }
}

fn built_in(round: &LocalRound) -> &BuiltInTraining {
    let Trained::BuiltIn(training) = &round.training else { unreachable!("no program was asked") };
    training
}

#[test]
fn it_is_the_training_of_the_node_and_tells_all_that_would_leave() {
    let (plan, table) = (plan(UpdateDtype::F32), records());
    let site = site(&table);
    let mut steps = Vec::new();
    let tried = local_round::run(&plan, &site, &table, Base::Initial, &mut |step| steps.push(step)).unwrap();

    let initial = plan.architecture.initial_weights(plan.seed).unwrap().into_iter();
    let initial: Vec<Tensor> = initial.map(|(name, shape, values)| Tensor { name, shape, values }).collect();
    let settings = TrainingSettings::from_plan(&plan, 1, "va").unwrap();
    let outcome = train(&settings, &table.train, &initial).unwrap();
    let file = tensors::write_tensors(&outcome.delta).unwrap();
    let leaving = &tried.leaving;
    assert_eq!((leaving.update.digest, leaving.update.size), (Digest::of(&file), file.len() as u64));
    let training = built_in(&tried);
    assert_eq!((tried.examples, training.steps, steps.last()), (60, 40, Some(&40)));

    for (tensor, shown) in outcome.delta.iter().zip(&leaving.tensors) {
        assert_eq!((&tensor.name, &tensor.shape, shown.dtype.as_str()), (&shown.name, &shown.shape, "F32"));
        assert_eq!(shown.bytes, 4 * tensor.values.len() as u64);
        let norm = tensor.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0 && (shown.norm - norm).abs() < 1e-12);
        assert!(shown.largest > 0.0 && shown.largest <= norm);
    }
    assert_eq!(leaving.tensors.len(), 2);

    let said = &leaving.contribution;
    let fields: Vec<&String> = said.as_object().unwrap().keys().collect();
    let expected = ["data_manifest", "environment", "examples", "metrics", "size", "software", "update"];
    assert_eq!(fields, expected, "every field of a contribution is shown");
    assert_eq!(said["examples"], 60);
    assert_eq!(said["data_manifest"], serde_json::json!(table.manifest.digest()));
    assert_eq!(said["metrics"]["loss_last"].as_i64(), Some((training.loss_last * 1e6).round() as i64));
    assert_eq!(leaving.consent_examples, Some(60), "the plan weighs examples");

    let (before, after) = (tried.before.clone().unwrap(), tried.after.clone().unwrap());
    assert_eq!((before["loss"] > after["loss"], after["accuracy"] > 900_000), (true, true));
    assert!(training.loss_last < training.loss_first);
    let report = leaving.evaluation.as_ref().unwrap();
    assert_eq!((&report["examples"], &report["metrics"]), (&20.into(), &serde_json::json!(after)));
}

#[test]
fn halves_are_shown_as_they_would_be_sent() {
    let table = records();
    let tried = |dtype| local_round::run(&plan(dtype), &site(&table), &table, Base::Initial, &mut |_| ()).unwrap();
    let (whole, half) = (tried(UpdateDtype::F32).leaving, tried(UpdateDtype::BF16).leaving);
    for (whole, half) in whole.tensors.iter().zip(&half.tensors) {
        assert_eq!((half.dtype.as_str(), half.bytes * 2), ("BF16", whole.bytes));
        assert!(half.norm != whole.norm && (half.norm / whole.norm - 1.0).abs() < 0.01, "rounded to eight bits");
    }
}

#[test]
fn weights_of_a_file_are_trained_on() {
    let (plan, table) = (plan(UpdateDtype::F32), records());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    let weights = [("layer0.bias", vec![1], vec![0.25]), ("layer0.weight", vec![1, 2], vec![3.0, -1.0])];
    let weights = weights.map(|(name, shape, values)| Tensor { name: name.to_owned(), shape, values });
    let bytes = tensors::write_tensors(&weights).unwrap();
    fs::write(&file, &bytes).unwrap();
    let run = || local_round::run(&plan, &site(&table), &table, Base::File(&file), &mut |_| ());
    let tried = run().unwrap();
    assert_eq!(tried.base, Digest::of(&bytes));
    let settings = TrainingSettings::from_plan(&plan, 1, "va").unwrap();
    let outcome = train(&settings, &table.train, &weights).unwrap();
    assert_eq!(tried.leaving.update.digest, Digest::of(&tensors::write_tensors(&outcome.delta).unwrap()));

    for damaged in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), b""] {
        fs::write(&file, damaged).unwrap();
        assert!(matches!(run(), Err(LocalRoundError::Evaluation(_))), "{} bytes", damaged.len());
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(run(), Err(LocalRoundError::Base { .. })));
}
