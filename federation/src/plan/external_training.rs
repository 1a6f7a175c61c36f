//! Training by a program that each hospital brings itself.

use fedledger_ledger::Digest;
use serde::{Deserialize, Serialize};

use super::{PlanError, range};
use crate::{
    limits::{NAME_LENGTH_MAX, ROUND_DURATION_MS_MAX},
    member::is_name,
};

/// Longest configuration of an external trainer, in bytes. With it, a plan still fits into a transaction beside the names
/// and shapes of some hundreds of tensors.
pub const CONFIGURATION_SIZE_BYTES_MAX: usize = 32 * 1024;

/// Longest time that a plan can give an external trainer for a round, in milliseconds: no round takes longer.
pub const TIME_MAX_MS_MAX: u64 = ROUND_DURATION_MS_MAX;

/// Local training in one round by a program at the hospital.
///
/// The plan names the program by a name that every hospital has given to one of its own; it cannot bring a program along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalTraining {
    /// The trainer, by its name in each site's `node.toml`.
    pub trainer: String,
    /// Digest that the site's program must have; any program of this name will do where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
    /// JSON text that the program is given as it is: hyperparameters, layers, whatever it understands.
    #[serde(default = "default_configuration")]
    pub configuration: String,
    /// Longest time for one run, in milliseconds; a site may allow less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_max_ms: Option<u64>,
}

fn default_configuration() -> String {
    "{}".to_owned()
}

impl ExternalTraining {
    pub(super) fn check(&self) -> Result<(), PlanError> {
        if !is_name(&self.trainer) {
            return Err(PlanError::Name(self.trainer.chars().take(NAME_LENGTH_MAX).collect()));
        }
        if self.configuration.len() > CONFIGURATION_SIZE_BYTES_MAX {
            return Err(PlanError::ConfigurationSize(self.configuration.len()));
        }
        if serde_json::from_str::<serde_json::Value>(&self.configuration).is_err() {
            return Err(PlanError::ConfigurationText);
        }
        self.time_max_ms.map_or(Ok(()), |time| range("external_training.time_max_ms", time, 1, TIME_MAX_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training() -> ExternalTraining {
        ExternalTraining {
            trainer: "pytorch".to_owned(),
            program: None,
            configuration: r#"{"epochs": 2, "rate": 1e-3}"#.to_owned(),
            time_max_ms: None,
        }
    }

    #[test]
    fn a_trainer_is_described() {
        assert_eq!(training().check(), Ok(()));
        let short: ExternalTraining = serde_json::from_str(r#"{"trainer": "numpy"}"#).unwrap();
        assert_eq!((short.configuration.as_str(), short.check()), ("{}", Ok(())));
    }

    #[test]
    fn every_bound_is_checked() {
        let wrong = ExternalTraining { trainer: "../bin/sh".to_owned(), ..training() };
        assert!(matches!(wrong.check(), Err(PlanError::Name(_))));
        for text in ["", "{", "{} {}", "epochs = 2", "{'epochs': 2}"] {
            let wrong = ExternalTraining { configuration: text.to_owned(), ..training() };
            assert_eq!(wrong.check(), Err(PlanError::ConfigurationText), "{text:?} was accepted");
        }
        let longest = format!("\"{}\"", "a".repeat(CONFIGURATION_SIZE_BYTES_MAX - 2));
        assert_eq!(ExternalTraining { configuration: longest.clone(), ..training() }.check(), Ok(()));
        let wrong = ExternalTraining { configuration: longest + " ", ..training() };
        assert_eq!(wrong.check(), Err(PlanError::ConfigurationSize(CONFIGURATION_SIZE_BYTES_MAX + 1)));
        for time in [0, TIME_MAX_MS_MAX + 1] {
            let wrong = ExternalTraining { time_max_ms: Some(time), ..training() };
            assert!(matches!(wrong.check(), Err(PlanError::Range { field: "external_training.time_max_ms", .. })));
        }
    }

    /// A parser that recurses must not be led to the end of its stack.
    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let wrong = ExternalTraining { configuration: deep, ..training() };
        assert_eq!(wrong.check(), Err(PlanError::ConfigurationText));
    }
}
