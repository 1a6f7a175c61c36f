//! Which entries have reached a level, as far as a source tells.

use clap::ValueEnum;
use fedledger_federation::history::{FinalSizes, History};
use fedledger_proto::api::Level;

use crate::{error::Failure, source::Source};

/// A level, as an argument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// A replica has promised to bring it onto the ledger.
    Accepted,
    /// A majority of the replicas has it on disk.
    #[default]
    Committed,
    /// Enough replicas have co-signed a head over it: no dishonest minority can undo it.
    Final,
    /// Every replica has co-signed a head over it.
    Unanimous,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Accepted => Self::Accepted,
            LevelArg::Committed => Self::Committed,
            LevelArg::Final => Self::Final,
            LevelArg::Unanimous => Self::Unanimous,
        }
    }
}

/// Entries that have reached each level above committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Entries under a head that enough replicas have co-signed.
    pub final_size: u64,
    /// Entries under a head that all replicas have co-signed.
    pub unanimous_size: u64,
    /// Trusted time of the final head, in seconds since the Unix epoch.
    pub time_s: Option<u64>,
}

impl Sizes {
    /// What the notes of the source show: under the keys of each head's epoch, as far as the epochs vouch for each other. Which
    /// of the final entries all replicas have co-signed a running replica only says.
    pub fn of(source: &Source, history: &History) -> Result<Self, Failure> {
        let FinalSizes { final_size, unanimous_size, time_s } = history.sizes;
        let unanimous_size = match source {
            Source::Replica(replica) => unanimous_size.max(replica.status()?.unanimous_size.min(final_size)),
            Source::Node(_) | Source::Bundle(_) | Source::Tiles(_) => unanimous_size,
        };
        Ok(Self { final_size, unanimous_size, time_s })
    }

    /// Entries that have reached a level, of `size` in the log.
    pub fn at(&self, level: Level, size: u64) -> u64 {
        match level {
            Level::Accepted | Level::Committed => size,
            Level::Final => self.final_size.min(size),
            Level::Unanimous => self.unanimous_size.min(size),
        }
    }
}
