//! Linearizable reads: the names under which Raft confirms them (Raft dissertation, section 6.4).
//!
//! Raft 0.7 finds a read by the context that its asker chose, and an acknowledgement of a context releases every read
//! queued before it. A context that is ever used twice therefore answers reads with stale indexes. So no context is:
//! the asker names each attempt anew (replica, boot, count), and the leader adds a count of its own to each request
//! it takes, so that not even a repeated request brings an old context back.

use std::collections::BTreeMap;

use super::{
    bounds::{READ_EXPIRY_TICKS, READS_PENDING_MAX},
    config::ReplicaId,
    error::ReadError,
};

/// Size of a read's name.
const NAME_SIZE_BYTES: usize = 24;

/// Size of the context under which the leader confirms a read: its name and the leader's count.
pub(super) const CONTEXT_SIZE_BYTES: usize = 32;

/// One attempt to read. No two attempts of any replica have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId {
    replica: ReplicaId,
    boot_id: u64,
    count: u64,
}

impl ReadId {
    /// The bytes that name this attempt to other replicas.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.replica.0, self.boot_id, self.count].map(u64::to_be_bytes).concat()
    }

    /// The replica that asks, from the request that it sent.
    pub(super) fn asker_of_request(request: &[u8]) -> Option<ReplicaId> {
        (request.len() == NAME_SIZE_BYTES).then(|| Self::parse(request))?.map(|read| read.replica)
    }

    /// The attempt that a confirmed context belongs to.
    fn of_context(context: &[u8]) -> Option<Self> {
        (context.len() == CONTEXT_SIZE_BYTES).then(|| Self::parse(context))?
    }

    /// The replica whose read waits under this context at the leader.
    pub(super) fn asker_of_context(context: &[u8]) -> Option<ReplicaId> {
        Self::of_context(context).map(|read| read.replica)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (replica, rest) = bytes.split_first_chunk()?;
        let (boot_id, rest) = rest.split_first_chunk()?;
        let (count, _) = rest.split_first_chunk()?;
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Some(Self { replica: ReplicaId(number(replica)), boot_id: number(boot_id), count: number(count) })
    }
}

/// The reads of this replica, and the count of those that it took as leader.
pub(super) struct Reads {
    replica: ReplicaId,
    boot_id: u64,
    begun: u64,
    taken: u64,
    /// Reads without an answer, and for how many ticks already.
    waiting: BTreeMap<ReadId, u32>,
    lost: Vec<ReadId>,
}

impl Reads {
    pub(super) const fn new(replica: ReplicaId, boot_id: u64) -> Self {
        Self { replica, boot_id, begun: 0, taken: 0, waiting: BTreeMap::new(), lost: Vec::new() }
    }

    /// Begins an attempt under a name that was never used.
    pub(super) fn begin(&mut self) -> Result<ReadId, ReadError> {
        if self.waiting.len() + self.lost.len() >= READS_PENDING_MAX {
            return Err(ReadError::TooMany);
        }
        self.begun += 1;
        let read = ReadId { replica: self.replica, boot_id: self.boot_id, count: self.begun };
        self.waiting.insert(read, 0);
        Ok(read)
    }

    /// As leader: the context for a request. It is new even if the request is not. The count begins anew with the
    /// process, but then the term does not go on: a replica that restarts must first be elected again, and answers
    /// from earlier terms are ignored.
    pub(super) fn take(&mut self, request: &[u8]) -> Vec<u8> {
        self.taken += 1;
        [request, self.taken.to_be_bytes().as_slice()].concat()
    }

    /// Whether an answer under this context is waited for.
    pub(super) fn is_waiting(&self, context: &[u8]) -> bool {
        ReadId::of_context(context).is_some_and(|read| self.waiting.contains_key(&read))
    }

    /// The read that is answered under this context, once.
    pub(super) fn finish(&mut self, context: &[u8]) -> Option<ReadId> {
        ReadId::of_context(context).filter(|read| self.waiting.remove(read).is_some())
    }

    /// Gives up reads that waited too long.
    pub(super) fn tick(&mut self) {
        let lost = &mut self.lost;
        self.waiting.retain(|read, ticks| {
            *ticks += 1;
            let keep = *ticks < READ_EXPIRY_TICKS;
            if !keep {
                lost.push(*read);
            }
            keep
        });
    }

    /// Whether reads were given up since [`Self::take_lost`].
    pub(super) const fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The reads that were given up.
    pub(super) fn take_lost(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_context_is_ever_used_twice() {
        let mut leader = Reads::new(ReplicaId(1), 5);
        let mut contexts = BTreeSet::new();
        for boot_id in [1, 2] {
            let mut asker = Reads::new(ReplicaId(2), boot_id);
            for _ in 0..50 {
                let request = asker.begin().unwrap().to_bytes();
                assert!(contexts.insert(leader.take(&request)));
                assert!(contexts.insert(leader.take(&request)), "a repeated request");
            }
        }
    }

    #[test]
    fn an_answer_is_taken_once_and_never_after_expiry() {
        let (mut asker, mut leader) = (Reads::new(ReplicaId(2), 9), Reads::new(ReplicaId(1), 5));
        let (answered, lost) = (asker.begin().unwrap(), asker.begin().unwrap());
        let context = leader.take(&answered.to_bytes());
        assert_eq!((asker.finish(&context), asker.finish(&context)), (Some(answered), None));
        for _ in 0..READ_EXPIRY_TICKS {
            asker.tick();
        }
        assert_eq!(asker.take_lost(), [lost]);
        assert_eq!(asker.finish(&leader.take(&lost.to_bytes())), None);
    }

    #[test]
    fn waiting_reads_are_bounded() {
        let mut reads = Reads::new(ReplicaId(2), 9);
        for _ in 0..READS_PENDING_MAX {
            reads.begin().unwrap();
        }
        assert_eq!(reads.begin(), Err(ReadError::TooMany));
    }
}
