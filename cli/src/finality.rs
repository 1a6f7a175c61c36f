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
    /// What a running replica says, or the notes in a directory or bundle show: under the keys of each head's epoch, as far
    /// as the epochs vouch for each other.
    pub fn of(source: &Source, history: &History) -> Result<Self, Failure> {
        if let Source::Replica(replica) = source {
            let status = replica.status()?;
            let (final_size, unanimous_size) = (status.final_size, status.unanimous_size);
            return Ok(Self { final_size, unanimous_size, time_s: status.trusted_time_s });
        }
        let FinalSizes { final_size, unanimous_size, time_s } = history.sizes;
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
