//! Why a trainer has led to nothing: for the site's own eyes, and for the ledger.

use std::{io, process::ExitStatus};

use fedledger_federation::tensors::{FileError, LayoutError};
use fedledger_ledger::Digest;

use super::{
    data::DataError,
    folder::PrepareError,
    program::{Excess, ProgramError},
    results::ResultsError,
    weights::UpdateError,
};

/// Why a trainer has led to nothing. Some of these texts quote what the program has printed or written, so they are for the
/// log of the site; what stands on the ledger is [`code`](Self::code).
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The site has no such trainer.
    #[error("node.toml of this site names no trainer {0:?}")]
    UnknownTrainer(String),
    /// A file of the program cannot be read.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The plan requires another program.
    #[error("the plan requires program {expected} as trainer {trainer:?}, this site has {found}")]
    WrongProgram {
        /// The trainer.
        trainer: String,
        /// Digest in the plan.
        expected: Digest,
        /// Digest of the site's program.
        found: Digest,
    },
    /// A file of the program is not what it was when the training began.
    #[error("trainer {0:?} was changed while it ran: leave its files alone during a round")]
    Changed(String),
    /// The records cannot be told by a digest, or have changed.
    #[error(transparent)]
    Data(DataError),
    /// The plan requires other data.
    #[error("the plan requires data {expected} of this site, trainer {trainer:?} has {found}")]
    WrongData {
        /// The trainer.
        trainer: String,
        /// Digest in the plan.
        expected: Digest,
        /// Digest of the trainer's data.
        found: Digest,
    },
    /// The folder could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The program could not be started or waited for.
    #[error("trainer {trainer:?} cannot be run: {source}")]
    Run {
        /// The trainer.
        trainer: String,
        /// What the system says.
        source: io::Error,
    },
    /// The program ended, but not well.
    #[error("trainer {trainer:?} failed with {status}: {last_lines}")]
    Failed {
        /// The trainer.
        trainer: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed last.
        last_lines: String,
    },
    /// The program took too long.
    #[error("trainer {trainer:?} took longer than the {seconds} s that it is allowed: {last_lines}")]
    TimeUp {
        /// The trainer.
        trainer: String,
        /// Seconds that it was allowed.
        seconds: u64,
        /// What it printed last.
        last_lines: String,
    },
    /// The program used too much.
    #[error("trainer {trainer:?} was ended: {excess}: {last_lines}")]
    Exceeded {
        /// The trainer.
        trainer: String,
        /// What it used.
        excess: Excess,
        /// What it printed last.
        last_lines: String,
    },
    /// A file that the program should have left is not there, or is no file.
    #[error("trainer {trainer:?} has left no {file} that can be read: {source}")]
    Missing {
        /// The trainer.
        trainer: String,
        /// The file.
        file: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The results are of no use.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The trained weights are of no use.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The model is too large for a file.
    #[error("the model is too large for a file: {0}")]
    Layout(#[from] LayoutError),
    /// The node's own disk refuses.
    #[error("the update cannot be stored: {0}")]
    Storage(#[from] io::Error),
    /// The node has no use for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
    /// The node's own task did not end as it should.
    #[error("the task ended unexpectedly")]
    Task,
}

impl From<DataError> for ExternalError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Interrupted => Self::Cancelled,
            error => Self::Data(error),
        }
    }
}

impl ExternalError {
    /// What was wrong with the node's own copy of the base weights, if that is why.
    pub fn of_base(&self) -> Option<&FileError> {
        match self {
            Self::Prepare(PrepareError::Base(error)) | Self::Update(UpdateError::Base(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the program itself is to blame, so that nothing that it has left is worth going on with.
    pub(super) const fn is_programs_own(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. }
                | Self::Exceeded { .. }
                | Self::Missing { .. }
                | Self::Results(_)
                | Self::Update(_)
                | Self::Changed(_)
                | Self::Data(DataError::Changed(_))
        )
    }

    /// What the ledger is told, where it stands for good: a code, how the program ended, and what the plan itself says.
    /// Nothing is in it that the program has printed or written, or that tells of the site's files.
    pub fn code(&self) -> String {
        match self {
            Self::UnknownTrainer(_) => "unknown_trainer".to_owned(),
            Self::Program(_) => "trainer_unreadable".to_owned(),
            Self::WrongProgram { .. } => "wrong_program".to_owned(),
            Self::Changed(_) => "trainer_changed".to_owned(),
            Self::Data(DataError::Changed(_)) => "data_changed".to_owned(),
            Self::Data(_) => "data_unreadable".to_owned(),
            Self::WrongData { .. } => "wrong_data".to_owned(),
            Self::Prepare(_) => "trainer_not_prepared".to_owned(),
            Self::Run { .. } => "trainer_not_run".to_owned(),
            // `exit status: 3` or `signal: 9 (SIGKILL)`.
            Self::Failed { status, .. } => format!("trainer_failed, {status}"),
            Self::TimeUp { seconds, .. } => format!("trainer_time_up, {seconds} s"),
            Self::Exceeded { excess, .. } => format!("trainer_exceeded_{}", excess.code()),
            Self::Missing { file, .. } => format!("trainer_left_no_file, {file}"),
            Self::Results(error) => format!("trainer_results_refused, {}", error.code()),
            Self::Update(_) => "trainer_weights_refused".to_owned(),
            Self::Layout(_) => "model_too_large".to_owned(),
            Self::Storage(_) => "update_not_stored".to_owned(),
            Self::Cancelled => "cancelled".to_owned(),
            Self::Task => "task_failed".to_owned(),
        }
    }
}
