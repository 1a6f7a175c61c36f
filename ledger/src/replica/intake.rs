//! Transactions and reads: from the caller to the consensus, and the answer back.

use super::{Answer, Replica, Step, Submission, SubmitError, Ticket, WAITING_MAX};
use crate::{
    consensus::{ProposeError, ReadError},
    digest::Digest,
    log::Refusal,
    machine::StateMachine,
    seal::SEAL_KIND,
    transaction::{Envelope, Transaction},
};

impl<M: StateMachine> Replica<M> {
    /// Brings a transaction onto the ledger. The caller is answered in a later [`Step`], unless the answer is known.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; nothing is waited for.
    pub fn submit(&mut self, ticket: Ticket, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let transaction = match self.log.check(envelope) {
            Ok(transaction) => transaction,
            Err(refusal) => return self.known_although(refusal, envelope),
        };
        if let Some(index) = self.log.find(&transaction, envelope) {
            return Ok(Submission::Known(index));
        }
        refuse_seal(&transaction)?;
        if self.tickets.len() >= WAITING_MAX {
            return Err(SubmitError::Busy);
        }
        let digest = Digest::of(envelope);
        let submission = self.propose(digest, envelope)?;
        self.waiting.entry(digest).or_default().insert(ticket);
        self.tickets.insert(ticket, digest);
        Ok(submission)
    }

    /// Proposes a transaction that another replica waits for. This replica must lead.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    pub fn propose_for_peer(&mut self, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let transaction = match self.log.check(envelope) {
            Ok(transaction) => transaction,
            Err(refusal) => return self.known_although(refusal, envelope),
        };
        match self.log.find(&transaction, envelope) {
            Some(index) => Ok(Submission::Known(index)),
            None => {
                refuse_seal(&transaction)?;
                self.propose(Digest::of(envelope), envelope)
            }
        }
    }

    /// Forgets a caller that no longer waits.
    pub fn forget(&mut self, ticket: Ticket) {
        if let Some(digest) = self.tickets.remove(&ticket)
            && let Some(tickets) = self.waiting.get_mut(&digest)
        {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.waiting.remove(&digest);
            }
        }
        self.reads.retain(|_, waiting| *waiting != ticket);
    }

    /// Begins a linearizable read: the ticket is answered once everything committed by now is applied here.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&mut self, ticket: Ticket) -> Result<(), ReadError> {
        let read = self.consensus.read_index()?;
        self.reads.insert(read, ticket);
        Ok(())
    }

    /// An expired transaction may still be one that is on the ledger; then that is the answer.
    fn known_although(&self, refusal: Refusal, envelope: &[u8]) -> Result<Submission, SubmitError> {
        if let Refusal::Expired { .. } = refusal
            && let Ok(transaction) = Envelope::open_unverified(envelope)
            && let Some(index) = self.log.find(&transaction, envelope)
        {
            return Ok(Submission::Known(index));
        }
        Err(refusal.into())
    }

    pub(super) fn propose(&mut self, digest: Digest, envelope: &[u8]) -> Result<Submission, SubmitError> {
        let term = self.consensus.status().term;
        if self.leads() && self.proposed.get(&digest) == Some(&term) {
            return Ok(Submission::Proposed);
        }
        match self.consensus.propose(envelope.to_vec()) {
            Ok(()) => {
                self.proposed.insert(digest, term);
                Ok(Submission::Proposed)
            }
            Err(ProposeError::NotLeader { leader }) => Ok(Submission::Forward(leader)),
            Err(ProposeError::Busy) => Err(SubmitError::Busy),
            Err(error) => Err(SubmitError::Propose(error)),
        }
    }

    pub(super) fn answer(&mut self, digest: &Digest, answer: &Answer, step: &mut Step<M>) {
        for ticket in self.waiting.remove(digest).unwrap_or_default() {
            self.tickets.remove(&ticket);
            step.answers.push((ticket, answer.clone()));
        }
    }
}

fn refuse_seal(transaction: &Transaction) -> Result<(), SubmitError> {
    if transaction.kind == SEAL_KIND { Err(SubmitError::Seal) } else { Ok(()) }
}
