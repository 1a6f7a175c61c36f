//! The states that recent seals fix, for proofs of what was recorded when a head became final.

use std::collections::BTreeMap;

use super::Replica;
use crate::{log::Log, machine::StateMachine, map::StateMap};

/// States of seals whose heads are not final yet: some seconds of them at full speed. A state shares with the next one what
/// did not change.
const STATES_KEPT: usize = 64;

/// The state of the last final seal, and those that may become final.
#[derive(Debug, Default)]
pub(super) struct ProvenStates {
    /// By the size of the head.
    waiting: BTreeMap<u64, StateMap>,
    settled: Option<(u64, StateMap)>,
}

impl ProvenStates {
    /// Goes on from a log of which `final_size` entries are final. The states of earlier seals are gone; that of the last
    /// entry is known if it is a seal.
    pub fn open<M: StateMachine>(log: &Log<M>, final_size: u64) -> Self {
        let mut states = Self::default();
        let sealed = log.sealed();
        if sealed.number > 0 && log.size() == sealed.index + 1 {
            states.sealed(log);
            if final_size == log.size() {
                states.settled(final_size);
            }
        }
        states
    }

    /// Takes note of a seal with which `log` ends.
    pub fn sealed<M: StateMachine>(&mut self, log: &Log<M>) {
        self.waiting.insert(log.size(), log.state().clone());
        while self.waiting.len() > STATES_KEPT {
            self.waiting.pop_first();
        }
    }

    /// Takes note that the head of this size is final.
    pub fn settled(&mut self, size: u64) {
        let later = self.waiting.split_off(&size.saturating_add(1));
        let mut before = std::mem::replace(&mut self.waiting, later);
        if let Some(state) = before.remove(&size) {
            self.settled = Some((size, state));
        }
    }
}

impl<M: StateMachine> Replica<M> {
    /// The state that the last final seal fixes, and the size of that seal's head: the seal is the entry before. `None`
    /// until a head has become final since the replica started, unless the log ended with a final seal.
    pub fn final_state(&self) -> Option<(u64, &StateMap)> {
        self.sealing.proven.settled.as_ref().map(|(size, state)| (*size, state))
    }
}
