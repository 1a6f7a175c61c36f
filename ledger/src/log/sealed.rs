//! The last seal, and sealing.

use serde::{Deserialize, Serialize};

use crate::{
    epoch::Epoch,
    keys::PublicKey,
    map::StateMap,
    seal::{RULES_VERSION, SEAL_MALFORMED, SEAL_NOT_BY_REPLICA, Seal, SealProposal},
};

/// Where sealing stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Number of the last seal; 0 before the first.
    pub number: u64,
    /// Its index.
    pub index: u64,
    /// Its time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The epoch whose replicas make the last seal's head final; none where it is the one in force.
    pub previous_epoch: Option<Epoch>,
    /// The epoch in force, to which the next seal belongs.
    pub epoch: Epoch,
}

impl Sealed {
    pub(super) const fn none(epoch: Epoch) -> Self {
        Self { number: 0, index: 0, time_ms: 0, previous_epoch: None, epoch }
    }

    /// The epoch whose replicas make the last seal's head final.
    pub fn head_epoch(&self) -> &Epoch {
        self.previous_epoch.as_ref().unwrap_or(&self.epoch)
    }

    /// Whether a replica with this key may propose the next seal: those of the epoch in force may, to which that seal
    /// still belongs, and those of the newest epoch.
    pub(crate) fn may_seal(&self, author: &PublicKey, newest: &Epoch) -> bool {
        self.epoch.replica_of_author(author).or_else(|| newest.replica_of_author(author)).is_some()
    }

    /// What a seal proposed by `author` fixes, or the code of the reason why it fixes nothing.
    pub(super) fn next(
        &self,
        author: &PublicKey,
        payload: &[u8],
        state: &StateMap,
        newest: &Epoch,
    ) -> Result<Seal, &'static str> {
        if !self.may_seal(author, newest) {
            return Err(SEAL_NOT_BY_REPLICA);
        }
        let proposal = SealProposal::from_bytes(payload).map_err(|_| SEAL_MALFORMED)?;
        Ok(Seal {
            number: self.number + 1,
            previous: self.index,
            state_root: state.root(),
            epoch: self.epoch.number,
            next_epoch: newest.digest(),
            time_ms: proposal.time_ms,
            rules_version: RULES_VERSION,
        })
    }

    /// Takes note of a seal at `index`.
    pub(super) fn advance(&mut self, seal: &Seal, index: u64, newest: &Epoch) {
        let changed = newest.number != self.epoch.number;
        self.previous_epoch = changed.then(|| std::mem::replace(&mut self.epoch, newest.clone()));
        (self.number, self.index, self.time_ms) = (seal.number, index, seal.time_ms);
    }
}
