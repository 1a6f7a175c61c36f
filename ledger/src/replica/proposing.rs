//! Proposing seals: when a leader is due, and what it does when its seals do not become final.

use super::{
    Replica,
    sealing::{PATIENCE_MS_MAX, RESEAL_MS, RESEAL_MS_MAX, SealPace},
};
use crate::{
    digest::Digest,
    machine::StateMachine,
    seal::{SEAL_KIND, SealProposal},
    transaction::{Nonce, Transaction},
};

/// How long a proposed seal may be under way before it is taken for lost, in milliseconds.
const SEAL_LOST_MS: u64 = 2000;

/// Entries within which a proposed seal must be applied.
const SEAL_VALIDITY_ENTRIES: u64 = 10_000;

impl<M: StateMachine> Replica<M> {
    /// Seals at another pace from now on, as long as this replica leads.
    pub const fn pace_seals(&mut self, pace: SealPace) {
        self.sealing.pace = pace;
    }

    /// Tells the time, in milliseconds since the Unix epoch, and lets a leader seal what is due. Nothing but the time of
    /// seals and co-signatures depends on it.
    pub fn clock(&mut self, now_ms: u64) {
        self.sealing.now_ms = now_ms;
        // A clock that was set back must not stop the sealing.
        self.sealing.proposed_ms = self.sealing.proposed_ms.min(now_ms);
        if !self.leads() {
            self.sealing.under_way = false;
            self.sealing.waiting_since_ms = None;
            return;
        }
        if self.sealing.under_way && now_ms - self.sealing.proposed_ms > SEAL_LOST_MS {
            self.sealing.under_way = false;
        }
        if self.seal_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.propose_seal();
        }
        self.wait_for_finality(now_ms);
    }

    /// Lets another replica lead when nothing becomes final for too long.
    fn wait_for_finality(&mut self, now_ms: u64) {
        let sealed = self.log.sealed();
        let sealing = &mut self.sealing;
        if sealed.number == 0 || sealing.finality.final_size() > sealed.index {
            sealing.waiting_since_ms = None;
            return;
        }
        let since_ms = sealing.waiting_since_ms.filter(|since_ms| *since_ms <= now_ms).unwrap_or(now_ms);
        sealing.waiting_since_ms = Some(since_ms);
        if now_ms - since_ms >= sealing.patience_ms {
            sealing.waiting_since_ms = Some(now_ms);
            sealing.patience_ms = (sealing.patience_ms * 2).min(PATIENCE_MS_MAX);
            tracing::warn!("seals do not become final: check this machine's clock; another replica is to lead");
            self.hand_over();
        }
    }

    /// Whether the seals of this replica would take effect.
    fn may_seal(&self) -> bool {
        self.log.sealed().may_seal(&self.identity.transaction_key.public(), self.log.machine().epoch())
    }

    /// When [`Self::clock`] must be called again at the latest, in milliseconds since the Unix epoch.
    pub fn seal_due_ms(&self) -> Option<u64> {
        let sealing = &self.sealing;
        if !self.leads() {
            return None;
        }
        if sealing.under_way {
            return Some(sealing.proposed_ms.saturating_add(SEAL_LOST_MS + 1));
        }
        if !self.may_seal() {
            return Some(sealing.proposed_ms.saturating_add(RESEAL_MS));
        }
        let sealed = self.log.sealed();
        if !self.log.is_dirty() {
            let is_unfinished = sealing.finality.final_size() <= sealed.index;
            return is_unfinished.then(|| sealing.proposed_ms.saturating_add(sealing.reseal_ms));
        }
        if self.log.size() - sealed.index > sealing.pace.entries {
            return Some(sealing.now_ms);
        }
        Some(sealing.proposed_ms.saturating_add(sealing.pace.interval_ms))
    }

    fn propose_seal(&mut self) {
        self.sealing.proposed_ms = self.sealing.now_ms;
        if !self.may_seal() {
            tracing::warn!("this replica is no longer one of the consortium's: another one is to lead");
            self.hand_over();
            return;
        }
        let is_clean = !self.log.is_dirty();
        let sealing = &mut self.sealing;
        sealing.reseal_ms = if is_clean { (sealing.reseal_ms * 2).min(RESEAL_MS_MAX) } else { RESEAL_MS };
        let payload = SealProposal {
            time_ms: self.sealing.now_ms,
            term: self.consensus.status().term,
            cosigned: self.sealing.finality.cosigners(),
        }
        .to_bytes();
        // Unique as long as a leader does not seal twice in a millisecond at one size.
        let (size, key) = (self.log.size(), &self.identity.transaction_key);
        let digest = Digest::of_parts(&[b"fedledger/v1/seal-nonce\n", &size.to_be_bytes(), &payload]);
        let mut nonce = [0; 16];
        nonce.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: key.public(),
            nonce: Nonce(nonce),
            not_after_index: size.saturating_add(SEAL_VALIDITY_ENTRIES),
            kind: SEAL_KIND.to_owned(),
            payload,
        };
        let envelope = transaction.sign(key).to_bytes();
        self.sealing.under_way = self.consensus.propose(envelope).is_ok();
    }

    /// Lets another replica lead, the next one in turn of those that can: were it always the best follower, two
    /// replicas with wrong clocks could hand leadership to each other for ever.
    fn hand_over(&mut self) {
        let peers = self.consensus.status().peers;
        let able = || peers.iter().filter(|peer| peer.active && !peer.snapshot).map(|peer| peer.id);
        let Some(to) = able().find(|id| *id > self.sealing.handed_to).or_else(|| able().next()) else { return };
        self.sealing.handed_to = to;
        match self.consensus.transfer_leadership(to) {
            Ok(()) => tracing::info!(%to, "asked another replica to lead"),
            Err(error) => tracing::debug!(%error, "leadership was not transferred"),
        }
    }
}
