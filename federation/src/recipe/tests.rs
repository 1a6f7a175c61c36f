//! Which sums are kept, and that they are used only for what they hold.

use std::{collections::BTreeMap, io::Cursor};

use super::*;
use crate::{
    aggregation::{Destination, RunningSum},
    architecture::Architecture,
    plan::{Aggregation, Optimizer, Participation, Requirements, Rule, ServerOptimizer, Training, UpdateDtype},
    tensors::{Tensor, TensorWriter},
};

fn plan(update_dtype: UpdateDtype) -> Plan {
    let decimal = |text: &str| text.parse().unwrap();
    let rule = Rule::FedAdam(ServerOptimizer {
        server_learning_rate: decimal("0.1"),
        beta1: decimal("0.9"),
        beta2: decimal("0.99"),
        tau: decimal("0.001"),
    });
    Plan {
        name: "heart".to_owned(),
        description: String::new(),
        branch: "main".to_owned(),
        architecture: Architecture::multilayer_perceptron(20, &[30]),
        training: Some(Training { optimizer: Optimizer::sgd(decimal("1")), steps: 1, batch_size: 1 }),
        external_training: None,
        data: None,
        aggregation: Aggregation { rule, example_scale: 1024, update_dtype },
        seed: 7,
        rounds: 3,
        participation: Participation {
            cohort_size: None,
            minimum_participants: 1,
            required_members: Vec::new(),
            round_duration_ms: 1000,
            attempts: 3,
            minimum_example_share: None,
        },
        early_stopping: None,
        requirements: Requirements::default(),
    }
}

fn key(round: u64) -> RoundKey {
    RoundKey { plan: Digest::of(b"plan"), round, attempt: 1 }
}

/// Files by digest.
#[derive(Default)]
struct Files(BTreeMap<Digest, Vec<u8>>);

impl Files {
    fn keep(&mut self, bytes: Vec<u8>) -> FileRef {
        let file = FileRef { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        self.0.insert(file.digest, bytes);
        file
    }

    fn open(&self, file: &FileRef) -> io::Result<&[u8]> {
        self.0.get(&file.digest).map(Vec::as_slice).ok_or(io::ErrorKind::NotFound.into())
    }

    fn update(&mut self, plan: &Plan, site: usize) -> Update {
        let layout = plan.update_layout().unwrap();
        let mut bytes = Vec::new();
        let mut writer = TensorWriter::new(layout.clone(), &mut bytes).unwrap();
        let values = (0..layout.element_count()).map(|element| ((element + 3 * site) % 17) as f32 / 64.0 - 0.125);
        writer.push(&values.collect::<Vec<_>>()).unwrap();
        assert_eq!(writer.finish().unwrap().size, plan.update_size_bytes());
        Update { member: format!("site-{site:03}"), file: self.keep(bytes), examples: 10 + site as u64 }
    }
}

/// A recipe of updates by `sites` sites on the initial version.
fn recipe(dtype: UpdateDtype, sites: usize) -> (Recipe, Files) {
    let (plan, mut files) = (plan(dtype), Files::default());
    let weights = files.keep(plan.initial_weights().unwrap());
    let updates = (0..sites).map(|site| files.update(&plan, site)).collect();
    let base = Some(OutputFiles { weights, optimizer_state: None });
    (Recipe { key: key(1), plan, cohort: sites, base, updates }, files)
}

/// The version's files with the help of `sum`.
fn compute_with(recipe: &Recipe, files: &Files, sum: &RunningSum, threads: usize) -> Result<Outputs, RecipeError> {
    let (mut weights, mut state) = (Vec::new(), Cursor::new(Vec::new()));
    let destination = Destination { weights: &mut weights, optimizer_state: Some(&mut state) };
    let made = recipe.compute_into(|file| files.open(file), destination, Some(sum), threads)?;
    let outputs = Outputs { weights, optimizer_state: Some(state.into_inner()) };
    assert_eq!(made, OutputFiles::of(&outputs));
    Ok(outputs)
}

fn check(recipe: &Recipe, files: &Files, update: &Update, sum: Option<&RunningSum>) -> Verdict {
    check_and_add(&recipe.plan, recipe.cohort, update, sum, || files.open(&update.file)).unwrap()
}

#[test]
fn updates_of_every_type_are_summed_while_they_are_checked() {
    for dtype in [UpdateDtype::F32, UpdateDtype::F16, UpdateDtype::BF16] {
        let (recipe, files) = recipe(dtype, 5);
        let expected = recipe.compute(|file| files.open(file), 1).unwrap();
        let sum = RunningSum::new(recipe.plan.arithmetic(5).unwrap()).unwrap();
        for update in &recipe.updates {
            assert_eq!(check(&recipe, &files, update, Some(&sum)), Ok(()));
        }
        assert_eq!(sum.terms().unwrap().len(), 5);
        // With the sum at hand, only the base is read.
        let mut base_only = Files::default();
        base_only.keep(files.open(&recipe.base.unwrap().weights).unwrap().to_vec());
        assert_eq!(compute_with(&recipe, &base_only, &sum, 2).unwrap(), expected, "{dtype:?}");
        let size = recipe.updates[0].file.size;
        assert_eq!(size, recipe.plan.update_size_bytes());
        assert_eq!(dtype == UpdateDtype::F32, size == recipe.base.unwrap().weights.size);
    }
}

#[test]
fn a_sum_that_holds_other_updates_is_brought_up_to_date_or_left_aside() {
    let (whole, files) = recipe(UpdateDtype::F32, 6);
    let fresh = || RunningSum::new(whole.plan.arithmetic(6).unwrap()).unwrap();
    for (from, to) in [(0, 6), (1, 6), (0, 5), (4, 6), (0, 1)] {
        let sum = fresh();
        for update in &whole.updates[1..4] {
            assert_eq!(check(&whole, &files, update, Some(&sum)), Ok(()));
        }
        let recipe = Recipe { updates: whole.updates[from..to].to_vec(), ..whole.clone() };
        let expected = recipe.compute(|file| files.open(file), 1).unwrap();
        assert_eq!(compute_with(&recipe, &files, &sum, 2).unwrap(), expected, "updates {from} to {to}");
    }
    // One that is spoilt.
    let sum = fresh();
    let mut addition = sum.begin(whole.updates[0].term()).unwrap().unwrap();
    addition.push(files.open(&whole.updates[0].file).unwrap()).unwrap();
    drop(addition);
    assert_eq!(compute_with(&whole, &files, &sum, 2).unwrap(), whole.compute(|file| files.open(file), 1).unwrap());
}

#[test]
fn more_updates_than_are_read_side_by_side() {
    let sites = crate::aggregation::UPDATE_FILES_MAX + 6;
    let (recipe, mut files) = recipe(UpdateDtype::F32, sites);
    let sum = RunningSum::new(recipe.plan.arithmetic(sites).unwrap()).unwrap();
    for update in &recipe.updates {
        assert_eq!(check(&recipe, &files, update, Some(&sum)), Ok(()));
    }
    let expected = compute_with(&recipe, &files, &sum, 1).unwrap();
    for threads in [1, 3] {
        assert_eq!(recipe.compute(|file| files.open(file), threads).unwrap(), expected);
    }
    // A damaged one is named.
    let digest = recipe.updates[sites - 2].file.digest;
    let damaged = files.0.get_mut(&digest).unwrap();
    let end = damaged.len() - 1;
    damaged[end] = 0x7f;
    damaged[end - 1] = 0xff;
    for threads in [1, 3] {
        let error = recipe.compute(|file| files.open(file), threads).unwrap_err();
        assert!(matches!(error, RecipeError::Digest { expected, .. } if expected == digest), "{error}");
    }
}

#[test]
fn damage_is_told_from_what_was_never_right() {
    let (mut recipe, mut files) = recipe(UpdateDtype::F16, 2);
    let sum = RunningSum::new(recipe.plan.arithmetic(2).unwrap()).unwrap();
    let good = recipe.updates[0].clone();
    let mut bad = files.open(&good.file).unwrap().to_vec();
    let end = bad.len();
    // A binary16 that is not a number.
    bad[end - 2..].copy_from_slice(&[0xff, 0x7f]);
    files.0.insert(good.file.digest, bad.clone());
    for sum in [None, Some(&sum)] {
        assert_eq!(check(&recipe, &files, &good, sum).unwrap_err().0, WRONG_DIGEST);
    }
    let error = recipe.compute(|file| files.open(file), 1).unwrap_err();
    assert!(matches!(error, RecipeError::Digest { expected, .. } if expected == good.file.digest), "{error}");
    recipe.updates[0].file = files.keep(bad);
    for sum in [None, Some(&sum)] {
        assert_eq!(check(&recipe, &files, &recipe.updates[0], sum).unwrap_err().0, "not_finite");
    }
    assert_eq!(sum.terms(), Some(vec![]));
    let error = recipe.compute(|file| files.open(file), 1).unwrap_err();
    assert!(matches!(error, RecipeError::Update { ref member, .. } if *member == good.member), "{error}");
}

#[test]
fn sums_stay_within_their_bound() {
    let plan = plan(UpdateDtype::BF16);
    let size = RunningSum::size_bytes(&plan.arithmetic(3).unwrap());
    assert_eq!(size, 8 * plan.architecture.parameter_count());
    let sums = RunningSums::new(2 * size + size / 2);
    let [first, second] = [1, 2].map(|round| sums.begin(&key(round), &plan, 3).unwrap());
    assert!(first.get().is_some() && second.get().is_some());
    assert!(sums.begin(&key(3), &plan, 3).is_none(), "there is room for two");
    assert!(std::sync::Arc::ptr_eq(&sums.begin(&key(1), &plan, 3).unwrap(), &first));
    assert_eq!(sums.remove_others(|key| key.round >= 2).len(), 1);
    assert!(sums.get(&key(1)).is_none() && sums.get(&key(2)).is_some());
    assert!(sums.begin(&key(3), &plan, 3).is_some());
    let third = sums.remove(&key(3)).unwrap();
    assert!(third.get().is_none() && sums.get(&key(3)).is_none(), "what is first asked for too late is not made");
    assert!(first.get().is_some(), "who has it keeps it");
}

#[test]
fn plans_without_a_type_of_updates_keep_their_ids() {
    let plan_of = |dtype| serde_json::to_value(plan(dtype)).unwrap();
    let default = plan_of(UpdateDtype::F32);
    assert!(default["aggregation"].get("update_dtype").is_none());
    assert_eq!(serde_json::from_value::<Plan>(default).unwrap(), plan(UpdateDtype::F32));
    for (dtype, name) in [(UpdateDtype::F16, "f16"), (UpdateDtype::BF16, "bf16")] {
        let value = plan_of(dtype);
        assert_eq!(value["aggregation"]["update_dtype"], name);
        assert_eq!(serde_json::from_value::<Plan>(value).unwrap(), plan(dtype));
        assert_ne!(plan(dtype).id(), plan(UpdateDtype::F32).id());
        let encoded = fedledger_ledger::codec::encode(&plan(dtype));
        assert_eq!(fedledger_ledger::codec::decode::<Plan>(&encoded, 1 << 16), Ok(plan(dtype)));
    }
}

#[test]
fn the_first_version_is_the_same_in_pieces() {
    let plan = Plan { architecture: Architecture::multilayer_perceptron(700, &[100]), ..plan(UpdateDtype::F32) };
    let drawn = plan.architecture.initial_weights(plan.seed).unwrap();
    let tensors: Vec<_> = drawn.into_iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
    assert_eq!(plan.initial_weights().unwrap(), crate::tensors::write_tensors(&tensors).unwrap());
}
