//! When things happened: the times of seals, as far as something was recorded since the seal before.

use fedledger_ledger::log::Entry;

use crate::Federation;

/// Times of the seals after which something had been accepted, oldest first.
///
/// The ledger's own clock: every seal carries the leader's time, which replicas co-sign only where their clocks agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealTimes {
    /// Index and time of each seal, in milliseconds since the Unix epoch.
    seals: Vec<(u64, u64)>,
    /// Whether something was accepted since the last of them.
    unsealed: bool,
}

impl SealTimes {
    /// The time of an entry: that of the first seal at or after it, in milliseconds since the Unix epoch. None where no seal
    /// has followed it yet.
    pub fn of(&self, index: u64) -> Option<u64> {
        let first = self.seals.partition_point(|(sealed, _)| *sealed < index);
        self.seals.get(first).map(|(_, time_ms)| *time_ms)
    }

    /// Takes note of an entry.
    pub fn visit(&mut self, entry: &Entry<Federation>) {
        match &entry.leaf.seal {
            // Seals that follow upon seals tell nothing more, so memory grows with what was accepted only.
            Some(seal) if self.unsealed => {
                self.seals.push((entry.leaf.index, seal.time_ms));
                self.unsealed = false;
            }
            Some(_) => {}
            None => self.unsealed |= matches!(entry.result, Some(Ok(_))),
        }
    }
}
