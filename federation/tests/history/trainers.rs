//! Plans that leave the training to a program of each hospital.

use fedledger_federation::{
    Command,
    architecture::{Architecture, CustomTensor},
    command::{Contribute, JoinRound},
    plan::{ExternalTraining, Plan, PlanError},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, plan};

const BASEL: &str = "basel/participant";

fn external(program: Option<Digest>) -> ExternalTraining {
    ExternalTraining { trainer: "numpy".to_owned(), program, configuration: "{}".to_owned(), time_max_ms: None }
}

#[test]
fn a_contribution_names_the_program_where_the_plan_leaves_the_training_to_one() {
    for pinned in [false, true] {
        let program = Digest::of(b"train.py");
        let training = Some(external(pinned.then_some(program)));
        let plan = Plan { training: None, external_training: training, ..plan("heart") };
        let (mut consortium, id) = Consortium::ready_for(3, plan);
        let key = consortium.open_round(&id);
        consortium.accept(BASEL, Command::JoinRound(JoinRound { key }));
        let by = |trainer, consortium: &mut Consortium| {
            Command::Contribute(Contribute { trainer, ..consortium.contribution(&key, "basel") })
        };
        let others = Some(Digest::of(b"other.py"));
        let [unnamed, other, right] = [None, others, Some(program)].map(|trainer| by(trainer, &mut consortium));
        assert_eq!(consortium.refused(BASEL, unnamed), "wrong_trainer");
        if pinned {
            assert_eq!(consortium.refused(BASEL, other), "wrong_trainer");
            consortium.accept(BASEL, right);
        } else {
            consortium.accept(BASEL, other);
        }
    }
}

#[test]
fn a_plan_says_in_one_way_how_to_train() {
    let tensor =
        CustomTensor { name: "w".to_owned(), shape: vec![2], bound: None, constant: Some("1".parse().unwrap()) };
    let custom = Architecture::Custom { tensors: vec![tensor] };
    let both = Plan { external_training: Some(external(None)), ..plan("heart") };
    assert_eq!(both.check(), Err(PlanError::Trainers(2)));
    assert_eq!(Plan { training: None, ..plan("heart") }.check(), Err(PlanError::Trainers(0)));
    let unknown = Plan { architecture: custom.clone(), ..plan("heart") };
    assert_eq!(unknown.check(), Err(PlanError::CustomArchitecture));
    let right = Plan { architecture: custom, training: None, ..both };
    assert_eq!(right.check(), Ok(()));
    assert!(right.update_size_bytes() > 0);
}
