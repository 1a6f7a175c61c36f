//! The demo's plan: FLamby's Fed-Heart-Disease protocol.

use std::{str::FromStr, time::Duration};

use fedledger_federation::{
    architecture::Architecture,
    decimal::Decimal,
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, ServerOptimizer, Training, UpdateDtype},
};

use super::DemoOptions;

/// Features of a patient.
const FEATURES: u32 = 13;

/// Local steps per round.
const STEPS: u64 = 100;

/// Patients per batch.
const BATCH_SIZE: u32 = 4;

/// At least the patients of the largest hospital's training set (199), a power of two.
const EXAMPLE_SCALE: u64 = 256;

/// A round closes when all four have contributed, or after this time with three, unless the caller wants another.
pub const ROUND_DURATION: Duration = Duration::from_secs(30);

/// The aggregation rules of the demo, with the learning rates of FLamby's benchmark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DemoRule {
    /// Federated averaging.
    #[default]
    FedAvg,
    /// FedAdagrad.
    FedAdagrad,
    /// FedAdam.
    FedAdam,
    /// FedYogi.
    FedYogi,
}

/// Text that names no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no rule {0:?}: use fedavg, fedadagrad, fedadam or fedyogi")]
pub struct UnknownRule(String);

impl FromStr for DemoRule {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.replace(['_', '-'], "").to_lowercase().as_str() {
            "fedavg" => Ok(Self::FedAvg),
            "fedadagrad" => Ok(Self::FedAdagrad),
            "fedadam" => Ok(Self::FedAdam),
            "fedyogi" => Ok(Self::FedYogi),
            _ => Err(UnknownRule(text.to_owned())),
        }
    }
}

/// The plan that the demo's hospitals consent to.
pub(super) fn plan(options: &DemoOptions) -> Plan {
    let (learning_rate, rule) = match options.rule {
        DemoRule::FedAvg => ("0.001", Rule::FedAvg { server_learning_rate: decimal("1") }),
        DemoRule::FedAdagrad => ("0.003162", Rule::FedAdagrad(server("0.316228"))),
        DemoRule::FedAdam => ("0.01", Rule::FedAdam(server("0.01"))),
        DemoRule::FedYogi => ("0.003162", Rule::FedYogi(server("0.01"))),
    };
    Plan {
        name: "heart-disease".to_owned(),
        description: "Narrowed coronary arteries from 13 features, after FLamby's Fed-Heart-Disease".to_owned(),
        branch: "main".to_owned(),
        architecture: Architecture::logistic_regression(FEATURES),
        training: Some(Training {
            optimizer: Optimizer::sgd(decimal(learning_rate)),
            steps: STEPS,
            batch_size: BATCH_SIZE,
        }),
        external_training: None,
        data: None,
        aggregation: Aggregation { rule, example_scale: EXAMPLE_SCALE, update_dtype: UpdateDtype::F32 },
        seed: options.seed,
        rounds: options.rounds,
        participation: Participation {
            cohort_size: None,
            minimum_participants: 3,
            required_members: Vec::new(),
            minimum_example_share: None,
            round_duration_ms: u64::try_from(options.round_duration.as_millis()).unwrap_or(u64::MAX),
            attempts: 10,
        },
        requirements: Requirements::default(),
        early_stopping: None,
    }
}

fn server(server_learning_rate: &str) -> ServerOptimizer {
    ServerOptimizer {
        server_learning_rate: decimal(server_learning_rate),
        beta1: decimal("0.9"),
        beta2: decimal("0.999"),
        tau: decimal("0.00000001"),
    }
}

fn decimal(text: &str) -> Decimal {
    #[expect(clippy::expect_used, reason = "the texts stand in this file, and the test below makes every plan")]
    text.parse().expect("a decimal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_gives_a_valid_plan() {
        for rule in [DemoRule::FedAvg, DemoRule::FedAdagrad, DemoRule::FedAdam, DemoRule::FedYogi] {
            let options = DemoOptions {
                directory: "demo".into(),
                force: false,
                rounds: 15,
                seed: 42,
                rule,
                round_duration: ROUND_DURATION,
                chaos: Vec::new(),
                serve: false,
            };
            assert_eq!(plan(&options).check(), Ok(()));
        }
    }
}
