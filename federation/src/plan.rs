//! Training plans: what the hospitals agree to, before anything is trained.
//!
//! A plan is identified by the digest of its canonical bytes, and each hospital consents to that digest. Real numbers are
//! decimal strings: the ledger holds no floats.

mod external_training;

use std::collections::BTreeMap;

use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

use crate::{
    architecture::{Architecture, ArchitectureError},
    decimal::{Decimal, DecimalError},
    early_stopping::{EarlyStopping, EarlyStoppingError},
    limits::{
        ATTEMPTS_MAX, EXAMPLE_SCALE_MAX, MEMBERS_MAX, NAME_LENGTH_MAX, ROUND_DURATION_MS_MAX, ROUNDS_MAX,
        TEXT_LENGTH_MAX,
    },
    member::{MemberId, is_name},
};

pub use external_training::{CONFIGURATION_SIZE_BYTES_MAX, ExternalTraining, TIME_MAX_MS_MAX};

/// What is trained, how, by whom and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Short name for people; the plan is identified by its digest.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The branch that the plan's versions extend.
    #[serde(default = "default_branch")]
    pub branch: String,
    /// The model.
    pub architecture: Architecture,
    /// What each participant does in a round with the built-in trainer. Either this or `external_training` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// What each participant does in a round with a program of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_training: Option<ExternalTraining>,
    /// How updates become a version.
    pub aggregation: Aggregation,
    /// Seed of initial weights, batch order and every other choice.
    pub seed: u64,
    /// Rounds to complete.
    pub rounds: u64,
    /// Who takes part, how many are enough, how long is waited.
    pub participation: Participation,
    /// What contributions must have been made with.
    #[serde(default)]
    pub requirements: Requirements,
    /// When no further round is worth its while; every round is carried out where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

/// Local training in one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The local optimiser.
    pub optimizer: Optimizer,
    /// Optimiser steps per round, of one batch each.
    pub steps: u64,
    /// Examples per batch.
    pub batch_size: u32,
}

/// A participant's optimiser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Step size.
        learning_rate: Decimal,
    },
    /// Adam (Kingma and Ba 2015), with bias correction.
    Adam {
        /// Step size.
        learning_rate: Decimal,
        /// Decay of the first moment.
        beta1: Decimal,
        /// Decay of the second moment.
        beta2: Decimal,
        /// Added to the root of the second moment.
        epsilon: Decimal,
    },
}

/// How updates become the next version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregation {
    /// The rule and its parameters.
    pub rule: Rule,
    /// A power of two, at least the largest example count of any participant: counts are weighed against it.
    pub example_scale: u64,
    /// In which numbers updates travel. Halves take half the time, and lose digits that training noise mostly covers.
    #[serde(default, skip_serializing_if = "UpdateDtype::is_default")]
    pub update_dtype: UpdateDtype,
}

/// The element type of update files. Base weights and sums keep their precision; only what participants send is rounded, to
/// the nearest, ties to even.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateDtype {
    /// 32 bits: no rounding.
    #[default]
    F32,
    /// IEEE 754 binary16: 11 significant bits, up to 65,504. An update with a larger value cannot be sent.
    F16,
    /// The upper half of a binary32: 8 significant bits and its range.
    BF16,
}

impl UpdateDtype {
    /// Whether it need not be written down, so that plans that were made before there was a choice keep their ids.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The aggregation rule. FedAvg is McMahan et al. 2017; the adaptive server optimisers are Reddi et al. 2021, without bias
/// correction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Weighted mean of the updates.
    FedAvg {
        /// Server step size; `1` for plain averaging.
        server_learning_rate: Decimal,
    },
    /// Averaging with server momentum (Hsu et al. 2019).
    FedAvgM {
        /// Server step size.
        server_learning_rate: Decimal,
        /// Share of the previous step that is kept.
        momentum: Decimal,
    },
    /// FedAdagrad.
    FedAdagrad(ServerOptimizer),
    /// FedAdam.
    FedAdam(ServerOptimizer),
    /// FedYogi.
    FedYogi(ServerOptimizer),
}

/// Parameters of an adaptive server optimiser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptimizer {
    /// Server step size, eta.
    pub server_learning_rate: Decimal,
    /// Decay of the first moment.
    pub beta1: Decimal,
    /// Decay of the second moment (not used by FedAdagrad).
    pub beta2: Decimal,
    /// Degree of adaptivity, tau.
    pub tau: Decimal,
}

/// Who takes part in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participation {
    /// Participants drawn for each round; all that have consented where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort_size: Option<u64>,
    /// Contributions below which a round does not count.
    pub minimum_participants: u64,
    /// Members without whose contribution a round does not count.
    #[serde(default)]
    pub required_members: Vec<MemberId>,
    /// Share of the cohort's training examples, above 0 and at most 1, below whose contributions a round does not count.
    /// A hospital declares its examples with its consent; once it contributes, its contribution says how many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_example_share: Option<Decimal>,
    /// Time for contributions, in milliseconds on the leader's clock; a round closes earlier when all have contributed.
    pub round_duration_ms: u64,
    /// Attempts at one round before the plan stops, counted anew when it is started or resumed; with 1, the first that does
    /// not meet the quorum stops it.
    #[serde(default = "default_attempts")]
    pub attempts: u64,
}

/// Digests that contributions must declare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Data manifest by member.
    pub data_manifests: BTreeMap<MemberId, Digest>,
    /// Environment of every participant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Digest>,
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Neither a valid name for a plan nor for a branch.
    #[error("{0:?} is no valid name: use 1 to {NAME_LENGTH_MAX} lowercase letters, digits and inner hyphens")]
    Name(String),
    /// A number outside its range.
    #[error("{field} is {found}: use {allowed}")]
    Range {
        /// The field, as written in the plan.
        field: &'static str,
        /// Value found.
        found: u64,
        /// What is allowed.
        allowed: String,
    },
    /// The description is too long.
    #[error("the description has {0} bytes: use at most {TEXT_LENGTH_MAX}")]
    Description(usize),
    /// Required members are listed twice, out of order, or are more than can be drawn.
    #[error("required_members must be in alphabetical order, without repetition, and fit into the cohort")]
    RequiredMembers,
    /// The architecture is not allowed.
    #[error("architecture: {0}")]
    Architecture(#[from] ArchitectureError),
    /// A decimal outside its range.
    #[error("{field} is {found}: use {allowed}")]
    Decimal {
        /// The field, as written in the plan.
        field: &'static str,
        /// Value found.
        found: Decimal,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Not a decimal number.
    #[error(transparent)]
    NotDecimal(#[from] DecimalError),
    /// No trainer, or two.
    #[error("the plan says how to train in {0} ways: write either [training] or [external_training]")]
    Trainers(u8),
    /// The built-in trainer does not know the model.
    #[error(
        "a custom architecture is unknown to the built-in trainer: write [external_training] instead of [training]"
    )]
    CustomArchitecture,
    /// The external trainer's configuration is too long.
    #[error("external_training.configuration has {0} bytes: use at most {CONFIGURATION_SIZE_BYTES_MAX}")]
    ConfigurationSize(usize),
    /// The external trainer's configuration is no JSON.
    #[error("external_training.configuration is no JSON text: check its quotes and commas, or leave it out")]
    ConfigurationText,
    /// The condition for stopping early means nothing.
    #[error("early_stopping: {0}")]
    EarlyStopping(#[from] EarlyStoppingError),
}

fn default_branch() -> String {
    "main".to_owned()
}

const fn default_attempts() -> u64 {
    10
}

impl Plan {
    /// The plan's id: SHA-256 of its canonical bytes.
    pub fn id(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// [`PlanError`], which names the field.
    pub fn check(&self) -> Result<(), PlanError> {
        for name in [&self.name, &self.branch] {
            if !is_name(name) {
                return Err(PlanError::Name(name.chars().take(80).collect()));
            }
        }
        if self.description.len() > TEXT_LENGTH_MAX {
            return Err(PlanError::Description(self.description.len()));
        }
        self.architecture.validate()?;
        self.check_training()?;
        self.aggregation.check()?;
        range("rounds", self.rounds, 1, ROUNDS_MAX)?;
        self.early_stopping.as_ref().map_or(Ok(()), EarlyStopping::check)?;
        self.participation.check()
    }

    fn check_training(&self) -> Result<(), PlanError> {
        match (&self.training, &self.external_training) {
            (Some(_), None) if matches!(self.architecture, Architecture::Custom { .. }) => {
                Err(PlanError::CustomArchitecture)
            }
            (Some(training), None) => training.check(),
            (None, Some(training)) => training.check(),
            (None, None) => Err(PlanError::Trainers(0)),
            (Some(_), Some(_)) => Err(PlanError::Trainers(2)),
        }
    }
}

impl Training {
    fn check(&self) -> Result<(), PlanError> {
        range("training.steps", self.steps, 1, 1_000_000_000)?;
        range("training.batch_size", self.batch_size.into(), 1, 1 << 20)?;
        match &self.optimizer {
            Optimizer::Sgd { learning_rate } => positive("training.optimizer.learning_rate", learning_rate),
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
                positive("training.optimizer.learning_rate", learning_rate)?;
                fraction("training.optimizer.beta1", beta1)?;
                fraction("training.optimizer.beta2", beta2)?;
                positive("training.optimizer.epsilon", epsilon)
            }
        }
    }
}

impl Aggregation {
    fn check(&self) -> Result<(), PlanError> {
        range("aggregation.example_scale", self.example_scale, 1, EXAMPLE_SCALE_MAX)?;
        if !self.example_scale.is_power_of_two() {
            let allowed = "a power of two".to_owned();
            return Err(PlanError::Range { field: "aggregation.example_scale", found: self.example_scale, allowed });
        }
        self.rule.check()
    }
}

impl Rule {
    /// The rule's name on the ledger and the command line.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::FedAvg { .. } => "fed_avg",
            Self::FedAvgM { .. } => "fed_avg_m",
            Self::FedAdagrad(_) => "fed_adagrad",
            Self::FedAdam(_) => "fed_adam",
            Self::FedYogi(_) => "fed_yogi",
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        match self {
            Self::FedAvg { server_learning_rate } => {
                positive("aggregation.rule.server_learning_rate", server_learning_rate)
            }
            Self::FedAvgM { server_learning_rate, momentum } => {
                positive("aggregation.rule.server_learning_rate", server_learning_rate)?;
                fraction("aggregation.rule.momentum", momentum)
            }
            Self::FedAdagrad(parameters) | Self::FedAdam(parameters) | Self::FedYogi(parameters) => {
                positive("aggregation.rule.server_learning_rate", &parameters.server_learning_rate)?;
                fraction("aggregation.rule.beta1", &parameters.beta1)?;
                fraction("aggregation.rule.beta2", &parameters.beta2)?;
                positive("aggregation.rule.tau", &parameters.tau)
            }
        }
    }
}

impl Participation {
    fn check(&self) -> Result<(), PlanError> {
        range("participation.minimum_participants", self.minimum_participants, 1, MEMBERS_MAX as u64)?;
        range("participation.round_duration_ms", self.round_duration_ms, 1, ROUND_DURATION_MS_MAX)?;
        range("participation.attempts", self.attempts, 1, ATTEMPTS_MAX)?;
        let cohort_size_max = self.cohort_size.unwrap_or(MEMBERS_MAX as u64);
        range("participation.cohort_size", cohort_size_max, self.minimum_participants, MEMBERS_MAX as u64)?;
        if let Some(share) = &self.minimum_example_share {
            let (numerator, denominator) = share.ratio();
            if numerator <= 0 || numerator > denominator {
                let (field, allowed) = ("participation.minimum_example_share", "a number above 0 and at most 1");
                return Err(PlanError::Decimal { field, found: share.clone(), allowed });
            }
        }
        let sorted = self.required_members.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        let fits = self.required_members.len() as u64 <= cohort_size_max;
        if sorted && fits { Ok(()) } else { Err(PlanError::RequiredMembers) }
    }
}

fn range(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), PlanError> {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err(PlanError::Range { field, found, allowed: format!("{least} to {most}") })
    }
}

fn positive(field: &'static str, found: &Decimal) -> Result<(), PlanError> {
    if found.is_positive() {
        Ok(())
    } else {
        Err(PlanError::Decimal { field, found: found.clone(), allowed: "a number above 0" })
    }
}

fn fraction(field: &'static str, found: &Decimal) -> Result<(), PlanError> {
    if found.is_fraction() {
        Ok(())
    } else {
        Err(PlanError::Decimal { field, found: found.clone(), allowed: "a number from 0 to below 1" })
    }
}
