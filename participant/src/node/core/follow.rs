//! Taking in the ledger: leaves, signed heads, and replicas that cannot be trusted.

use fedledger_federation::{
    Command, Event, Federation, VersionId,
    history::origin,
    member::{Node, NodeKind},
};
use fedledger_ledger::{
    PublicKey,
    epoch::Epoch,
    log::{Entry, Log, ReplayError},
    machine::RejectionCode,
    note::SignedNote,
};

use super::{Core, HEADS_AHEAD_MAX, Output, READ_AGAIN_TICKS, STALLED_TICKS_MAX};
use crate::node::{error::HistoryError, event::NodeEvent, intent::Intent, witness::Verdict};

impl Core {
    pub(super) fn on_following(&mut self, replica: String, next: u64) {
        self.target = Some(next);
        // What comes first has happened while nobody was followed.
        self.acted &= self.size() >= next;
        self.ahead = (self.size(), 0);
        self.report(NodeEvent::Connected { replica: replica.clone() });
        self.following = Some(replica);
    }

    pub(super) fn on_lost(&mut self, reason: String) {
        if let Some(replica) = self.following.take() {
            self.report(NodeEvent::Disconnected { replica, reason });
        }
    }

    pub(super) fn on_leaf(&mut self, bytes: &[u8]) {
        // It comes from a replica that was left meanwhile.
        if self.following.is_none() {
            return;
        }
        match self.log.replay(bytes) {
            Ok(entry) => {
                let size = self.log.size();
                for verdict in self.witness.extend(size, self.log.root()) {
                    self.on_verdict(verdict);
                    // A verdict may have discarded the log, and with it what the other verdicts were about.
                    if self.log.size() != size {
                        return;
                    }
                }
                self.on_entry(&entry);
            }
            Err(error) => self.on_invalid_leaf(&error),
        }
    }

    pub(super) fn on_note(&mut self, replica: &str, text: &str) {
        let Some(key) = self.log_key(replica) else { return };
        let origin = origin(self.federation().consortium());
        match self.witness.note(&origin, replica, &key, text) {
            Ok(Some(verdict)) => self.on_verdict(verdict),
            Ok(None) => self.count_head_ahead(replica),
            Err(error) => tracing::warn!(replica, %error, "a replica sent something else than a signed head"),
        }
    }

    /// A replica may stay connected and yet get nothing new itself; then the heads of others run ahead.
    fn count_head_ahead(&mut self, replica: &str) {
        if self.following.as_deref() == Some(replica) {
            return;
        }
        let size = self.size();
        if self.ahead.0 != size {
            self.ahead = (size, 0);
        }
        self.ahead.1 += 1;
        if self.ahead.1 > HEADS_AHEAD_MAX {
            self.ahead = (size, 0);
            self.on_lost("other replicas are ahead of it".to_owned());
            self.outputs.push(Output::Refollow);
        }
    }

    /// A replica may announce leaves and send none; then another one is asked.
    pub(super) fn on_tick(&mut self) {
        let size = self.size();
        let waits = self.following.is_some() && !self.is_current();
        self.stalled = if waits && self.stalled.0 == size { (size, self.stalled.1 + 1) } else { (size, 0) };
        if self.stalled.1 > STALLED_TICKS_MAX {
            self.stalled = (size, 0);
            self.on_lost("it announced leaves that it does not send".to_owned());
            self.outputs.push(Output::Refollow);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(READ_AGAIN_TICKS) {
            self.read_again();
        }
    }

    fn on_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Agrees(head)
                if head.checkpoint.size() > self.witness.stored_size() && self.is_vouched_for(&head.note) =>
            {
                let (replica, size) = (head.replica.clone(), head.checkpoint.size());
                self.witness.store(head.checkpoint.clone());
                self.outputs.push(Output::Witness(head));
                self.report(NodeEvent::Witnessed { replica, size });
            }
            Verdict::Agrees(_) => {}
            Verdict::Contradicts { head, own_root } => {
                let (size, signed) = (head.checkpoint.size(), head.checkpoint.root());
                let reason = format!("it signed root {signed} for {size} entries, this node computed {own_root}");
                let begin_anew = self.following.as_ref() == Some(&head.replica);
                self.exclude(head.replica, reason, begin_anew);
            }
            Verdict::Rewritten { size, witnessed, found } => {
                let error = HistoryError::Rewritten { size, witnessed, found };
                let reason = error.to_string();
                self.rewritten = Some(error);
                let replica = self.following.clone().unwrap_or_default();
                self.exclude(replica, reason, true);
            }
        }
    }

    /// Whether the replicas have made a head final, as far as this node's own log tells who they are. One replica's word is
    /// not enough to hold on to a history for good.
    fn is_vouched_for(&self, note: &str) -> bool {
        let (origin, sealed) = (origin(self.federation().consortium()), self.log.sealed());
        let Ok(note) = SignedNote::parse(note) else { return false };
        let is_final = |epoch: &Epoch| epoch.vouchers(&origin, &note).is_ok_and(|vouchers| vouchers.is_final(epoch));
        is_final(sealed.head_epoch()) || is_final(&sealed.epoch)
    }

    fn on_invalid_leaf(&mut self, error: &ReplayError) {
        let replica = self.following.clone().unwrap_or_default();
        self.exclude(replica, format!("its leaf {} is not valid: {error}", self.log.size()), true);
    }

    /// Listens no more to a replica; with `begin_anew`, what it sent is discarded and another one is followed.
    fn exclude(&mut self, replica: String, reason: String, begin_anew: bool) {
        if self.excluded.insert(replica.clone()) {
            self.report(NodeEvent::Distrusted { replica: replica.clone(), reason: reason.clone() });
        }
        let (replicas, quorum) = (self.federation().members().replica_count(), self.federation().attestation_quorum());
        if self.excluded.len() > replicas.saturating_sub(quorum) {
            let error = self.rewritten.clone().unwrap_or(HistoryError::NoMajority { replica, reason });
            self.target = None;
            self.outputs.push(Output::Fail(error));
        } else if begin_anew {
            self.on_lost(reason);
            self.begin_anew();
            self.outputs.push(Output::Refollow);
        }
    }

    /// Discards the log. Work and submissions go on; the next log will say whether they are wanted.
    fn begin_anew(&mut self) {
        // The genesis file was accepted at the start, so it is accepted again.
        if let Ok((log, _)) = Log::genesis(&self.genesis) {
            self.log = log;
            self.witness.restart();
            self.witness.extend(self.log.size(), self.log.root());
            self.target = None;
            self.acted = false;
            self.operators.clear();
            self.withdrawn.clear();
            self.rejected.clear();
        }
    }

    /// Remembers what the state does not say: refusals of own transactions, and consent taken back.
    fn on_entry(&mut self, entry: &Entry<Federation>) {
        let own = entry.transaction.author == self.site.author;
        match &entry.result {
            Some(Ok(Event::PlanProposed { plan })) => {
                let operator = self.federation().members().author(&entry.transaction.author);
                if let Some(member) = operator.map(|author| author.member.clone()) {
                    self.operators.insert(*plan, member);
                }
            }
            Some(Ok(event)) => self.on_event(entry.leaf.index, event),
            Some(Err(rejection)) if own => {
                let command = Command::decode(&entry.transaction.kind, &entry.transaction.payload);
                if let Some(intent) = command.ok().as_ref().and_then(Intent::of) {
                    self.rejected.insert(intent);
                    if self.is_current() {
                        let code = rejection.code().to_owned();
                        self.report(NodeEvent::Rejected { intent: intent.to_string(), code });
                    }
                }
            }
            // A nonce that was used twice says nothing about the command; it will be signed anew.
            Some(Err(_)) | None => {}
        }
    }

    fn on_event(&mut self, index: u64, event: &Event) {
        let current = self.is_current();
        match event {
            Event::ConsentWithdrawn { plan, member } if *member == self.site.member => {
                self.withdrawn.insert(*plan);
            }
            Event::ConsentGiven { plan, member } if *member == self.site.member => {
                self.withdrawn.remove(plan);
                if current {
                    self.report(NodeEvent::Consented { plan: *plan });
                }
            }
            Event::VersionAttested { version, moved: true, .. } if current => self.enqueue_evaluation(*version),
            Event::Executed { consequences, .. } if current => {
                // Fewer replicas may be enough for a version that was a candidate before.
                consequences.attested.iter().for_each(|version| self.enqueue_evaluation(*version));
            }
            Event::RoundJoined { key, member } if *member == self.site.member && current => {
                self.report(NodeEvent::Joined { key: *key });
            }
            Event::Contributed { key, member, .. } if *member == self.site.member && current => {
                self.report(NodeEvent::Contributed { key: *key, index });
            }
            Event::RoundDeclined { key, member } if *member == self.site.member && current => {
                let reason = self.declined_reason(key).unwrap_or_default();
                self.report(NodeEvent::Declined { key: *key, reason });
            }
            Event::Evaluated { version, member } if *member == self.site.member && current => {
                self.report_evaluation(version);
            }
            _ => {}
        }
    }

    fn report_evaluation(&mut self, version: &VersionId) {
        let state = self.federation();
        let number = state.versions().get(version).and_then(|record| record.number());
        let own = state.evaluation(version, &self.site.member);
        let accuracy = own.and_then(|record| record.metrics.get("accuracy").copied());
        if let (Some(number), Some(accuracy_millionths)) = (number, accuracy) {
            self.report(NodeEvent::Evaluated { version: *version, number, accuracy_millionths });
        }
    }

    /// The key with which a replica signs heads, as the ledger says now.
    fn log_key(&self, replica: &str) -> Option<PublicKey> {
        let node = self.federation().members().nodes().find(|(_, node)| node.name == replica);
        match node {
            Some((_, Node { kind: NodeKind::Replica { log_key, .. }, .. })) => Some(*log_key),
            _ => None,
        }
    }
}
