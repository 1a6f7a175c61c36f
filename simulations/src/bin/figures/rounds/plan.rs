//! What is trained: models of several sizes with hardly any training, so that everything else shows.

use fedledger_federation::{
    architecture::Architecture,
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, Training, UpdateDtype},
};

/// The branch that is trained.
pub const BRANCH: &str = "main";

/// Values per row of every table.
pub const FEATURES: u32 = 13;

/// Rows of every table.
pub const ROWS: u32 = 100;

/// Long enough never to end a round.
const ROUND_DURATION_MS: u64 = 600_000;

/// Rounds that a rollback ends are attempted again.
const ATTEMPTS: u64 = 100;

/// A model.
#[derive(Debug, Clone, Copy)]
pub enum Model {
    /// 13-32-1: 481 parameters.
    Tiny,
    /// 1 M parameters, 4 MB.
    Medium,
    /// 25 M parameters, 100 MB.
    Big,
    /// The same, with updates of 16-bit floats.
    BigHalved,
    /// Nearly as many parameters as a model may have, 1 GiB.
    Giant,
}

/// Local training in a round.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Five passes through the rows for the tiny model, one step with one example for the others.
    Little,
    /// Long enough that something can happen meanwhile.
    Noticeable,
}

impl Model {
    fn hidden(self) -> Vec<u32> {
        match self {
            Self::Tiny => vec![32],
            Self::Medium => vec![1_000, 984],
            Self::Big | Self::BigHalved => vec![1_888; 8],
            Self::Giant => vec![6_190; 8],
        }
    }

    const fn update_dtype(self) -> UpdateDtype {
        match self {
            Self::BigHalved => UpdateDtype::BF16,
            _ => UpdateDtype::F32,
        }
    }
}

/// Federated averaging with everybody.
pub fn plan(model: Model, work: Work, participants: usize, rounds: u64) -> Plan {
    let (steps, batch_size) = match (model, work) {
        (_, Work::Noticeable) => (5_000, 32),
        (Model::Tiny, Work::Little) => (5, ROWS),
        (_, Work::Little) => (1, 1),
    };
    let plan = Plan {
        name: "figures".to_owned(),
        description: String::new(),
        branch: BRANCH.to_owned(),
        architecture: Architecture::multilayer_perceptron(FEATURES, &model.hidden()),
        training: Some(Training { optimizer: Optimizer::sgd("0.01".parse().unwrap()), steps, batch_size }),
        external_training: None,
        data: None,
        aggregation: Aggregation {
            rule: Rule::FedAvg { server_learning_rate: "1".parse().unwrap() },
            example_scale: u64::from(ROWS).next_power_of_two(),
            update_dtype: model.update_dtype(),
        },
        seed: 42,
        rounds,
        participation: Participation {
            cohort_size: None,
            minimum_participants: participants as u64,
            required_members: Vec::new(),
            minimum_example_share: None,
            round_duration_ms: ROUND_DURATION_MS,
            attempts: ATTEMPTS,
        },
        requirements: Requirements::default(),
        early_stopping: None,
    };
    plan.check().unwrap();
    plan
}
