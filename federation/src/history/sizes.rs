//! How many entries of a history are final, as its checkpoint notes show.

use fedledger_ledger::{
    heads::{Conclusion, Heads, Judged},
    note::SignedNote,
};

use super::EncodedNote;

/// Entries that enough replicas, and all of them, have co-signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FinalSizes {
    /// Entries under the largest head that is final: as many replicas of its epoch as the threshold says have co-signed it,
    /// and every change of epoch up to it is vouched for by the epoch before.
    pub final_size: u64,
    /// Entries under the largest such head that every replica of its epoch has co-signed.
    pub unanimous_size: u64,
    /// Trusted time of the final head, in seconds since the Unix epoch.
    pub time_s: Option<u64>,
}

impl FinalSizes {
    /// What notes amount to that were held against the log.
    pub(crate) fn of(judged: &[Judged], conclusion: &Conclusion) -> Self {
        let judged = |note: Option<usize>| note.and_then(|note| judged.get(note));
        let size = |head: Option<&Judged>| head.map_or(0, |head| head.size);
        let head = judged(conclusion.final_note);
        Self {
            final_size: size(head),
            unanimous_size: size(judged(conclusion.unanimous_note)),
            time_s: head.and_then(|head| head.vouchers.time_s()),
        }
    }

    /// Holds notes against the log. Those that do not hold are passed over: [`verify`](crate::verify) tells what is wrong
    /// with them.
    pub(super) fn shown_by(heads: &Heads, notes: &[EncodedNote]) -> Self {
        let judge = |note: &EncodedNote| heads.judge(&SignedNote::parse(&note.text).ok()?).ok();
        let judged: Vec<Judged> = notes.iter().filter_map(judge).collect();
        Self::of(&judged, &heads.conclude(&judged))
    }
}
