//! Updates in every element type that a plan may name, from contribution to verification.

use fedledger_federation::{
    Command, Rejection,
    audit::{ReplayResult, contributions, replay},
    command::JoinRound,
    plan::{Plan, Rule, ServerOptimizer, UpdateDtype},
    recipe::Recipe,
    tensors::TensorWriter,
    verify::{Options, verify},
};

use crate::consortium::{Consortium, plan, update_file};

const SITES: [&str; 3] = ["basel", "lyon", "porto"];

/// The update of two features and a bias in the plan's type.
fn update(plan: &Plan, values: &[f32]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = TensorWriter::new(plan.update_layout().unwrap(), &mut file).unwrap();
    writer.push(values).unwrap();
    writer.finish().unwrap();
    file
}

/// Two rounds with a rule that keeps moments.
fn history(dtype: UpdateDtype) -> Consortium {
    let decimal = |text: &str| text.parse().unwrap();
    let mut plan = plan("heart");
    plan.aggregation.update_dtype = dtype;
    plan.aggregation.rule = Rule::FedAdam(ServerOptimizer {
        server_learning_rate: decimal("0.1"),
        beta1: decimal("0.9"),
        beta2: decimal("0.99"),
        tau: decimal("0.001"),
    });
    let (mut consortium, id) = Consortium::ready_for(SITES.len(), plan.clone());
    for round in 1_u8..=2 {
        let key = consortium.open_round(&id);
        for (site, bias) in SITES.into_iter().zip([0.1, -0.2, 0.3]) {
            let file = consortium.store(update(&plan, &[bias * f32::from(round), 1.0, -0.7]));
            assert_eq!(file.size, plan.update_size_bytes());
            let contribution = consortium.contribution_of(&key, site, file);
            consortium.join_and_send(&key, site, contribution);
        }
        consortium.close(&key, &[]);
        consortium.commit_and_attest(&key);
    }
    consortium
}

#[test]
fn versions_of_every_type_are_verified_from_their_updates() {
    for dtype in [UpdateDtype::F32, UpdateDtype::F16, UpdateDtype::BF16] {
        let consortium = history(dtype);
        let source = consortium.source();
        let report = verify(&source, &Options { threads: 2, ..Options::default() }).unwrap();
        assert_eq!((report.problems, report.versions_recomputed), (vec![], 3), "{dtype:?}");
        let rows = replay(&source, consortium.state(), None, 2).unwrap();
        assert!(rows.iter().all(|row| row.result == ReplayResult::Match), "{dtype:?}: {rows:?}");
        let rows = contributions(&source, consortium.state()).unwrap();
        assert!(rows.len() == 6 && rows.iter().all(|row| row.norm.is_some()), "{dtype:?}: {rows:?}");
    }
}

#[test]
fn an_update_in_another_type_is_refused_for_its_size() {
    let mut narrow = plan("heart");
    narrow.aggregation.update_dtype = UpdateDtype::F16;
    let expected = narrow.update_size_bytes();
    let (mut consortium, id) = Consortium::ready_for(2, narrow);
    let key = consortium.open_round(&id);
    let file = consortium.store(update_file(1.0));
    let contribution = consortium.contribution_of(&key, "basel", file);
    consortium.accept("basel/participant", Command::JoinRound(JoinRound { key }));
    let refused = consortium.submit("basel/participant", &Command::Contribute(contribution)).unwrap_err();
    assert_eq!(refused, Rejection::WrongSize { expected, found: file.size });
    assert!(Recipe::of(consortium.state(), &key).is_err());
}
