//! Changes of epoch that this replica has missed being vouched for, because it was away when the co-signatures came.

use super::{Finality, Finding, OfferError, head};
use crate::{checkpoint::Checkpoint, digest::Digest, note::SignedNote};

impl Finality {
    /// Number of the first epoch that the one before has not vouched for, as far as this replica knows: nothing under it is
    /// final here before. Others may have the note.
    pub fn unvouched_epoch(&self) -> Option<u64> {
        self.unvouched.front().map(|first| first.to)
    }

    /// Takes the note by which the replicas of an epoch have vouched for the first one that this replica does not know to be
    /// vouched for; `root` is that of this replica's own log at the size of the note's head.
    ///
    /// # Errors
    ///
    /// [`OfferError`]: the note does not vouch for that epoch; nothing was taken from it.
    pub fn vouched(&mut self, text: &str, root: &Digest) -> Result<Vec<Finding>, OfferError> {
        let Some(first) = self.unvouched.front() else { return Ok(Vec::new()) };
        let note = SignedNote::parse(text)?;
        let checkpoint = Checkpoint::of_note(&note, &self.origin)?;
        let refused = OfferError::NotVouched { epoch: first.to };
        if checkpoint.size() < first.size || checkpoint.root() != root {
            return Err(refused);
        }
        let cosignatures = head::verified(&self.origin, &first.from, &note, |_| false)?;
        let vouching = cosignatures.iter().filter(|cosignature| cosignature.is_replica).count() as u64;
        let mut log_keys = first.from.replicas.values().map(|keys| &keys.log);
        let is_signed = log_keys.any(|key| head::verified_log_line(&self.origin, key, &note).is_some());
        if vouching < first.from.threshold || !is_signed {
            return Err(refused);
        }
        let mut findings = vec![Finding::EpochVouchedFor { number: first.to, note: text.to_owned() }];
        self.unvouched.pop_front();
        for size in self.heads.keys().copied().collect::<Vec<_>>() {
            self.conclude(size, &mut findings);
        }
        Ok(findings)
    }
}
