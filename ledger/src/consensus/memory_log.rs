//! The log in memory, from which Raft reads. It never waits for a disk: what it holds is written by the caller, and
//! what the disk gives back after a crash becomes a new one.

use std::collections::VecDeque;

use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use super::{bounds::CATCH_UP_SIZE_BYTES_MAX, config::LogPosition};

/// What stands for the state at a position of the log.
struct Manifest {
    position: LogPosition,
    data: Vec<u8>,
}

/// Raft's `Storage`: the entries after the compaction point, and the last snapshot's manifest.
pub(super) struct MemoryLog {
    /// The state with which Raft starts; it keeps its own afterwards.
    initial: HardState,
    conf_state: ConfState,
    compacted: LogPosition,
    entries: VecDeque<Entry>,
    size_bytes: u64,
    manifest: Option<Manifest>,
}

impl MemoryLog {
    /// A log whose entries follow `compacted` without holes.
    pub(super) fn new(initial: HardState, voters: Vec<u64>, compacted: LogPosition, entries: Vec<Entry>) -> Self {
        let conf_state = ConfState { voters, ..ConfState::default() };
        let size_bytes = entries.iter().map(size_bytes).sum();
        Self { initial, conf_state, compacted, entries: entries.into(), size_bytes, manifest: None }
    }

    /// The last position that is no longer in the log.
    pub(super) const fn compacted(&self) -> LogPosition {
        self.compacted
    }

    /// Index of the last entry, or of the compaction point if there is none.
    pub(super) fn last(&self) -> u64 {
        self.compacted.index + self.entries.len() as u64
    }

    /// How much memory the entries take.
    pub(super) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The voters, in ascending order.
    pub(super) fn voters(&self) -> &[u64] {
        &self.conf_state.voters
    }

    /// The term of an entry in the log or of the compaction point.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        self.slot(index).and_then(|slot| self.entries.get(slot)).map(|entry| entry.term)
    }

    /// Appends entries that Raft handed out, replacing what they conflict with.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(keep) = entries.first().and_then(|first| self.slot(first.index)) else {
            return;
        };
        debug_assert!(keep <= self.entries.len(), "raft appends without holes");
        for dropped in self.entries.drain(keep.min(self.entries.len())..) {
            self.size_bytes -= size_bytes(&dropped);
        }
        self.size_bytes += entries.iter().map(size_bytes).sum::<u64>();
        self.entries.extend(entries);
    }

    /// Replaces everything with a snapshot. Its manifest serves replicas that lag even further behind.
    pub(super) fn install(&mut self, position: LogPosition, data: Vec<u8>) {
        self.entries.clear();
        self.size_bytes = 0;
        self.compacted = position;
        self.manifest = Some(Manifest { position, data });
    }

    /// From now on, snapshots are described by `data`.
    pub(super) fn set_manifest(&mut self, position: LogPosition, data: Vec<u8>) {
        self.manifest = Some(Manifest { position, data });
    }

    /// Drops entries up to `limit`, except the last `keep` ones (fewer if they are large), and none beyond the last
    /// snapshot: a replica that needs a dropped entry must be able to get a snapshot instead.
    pub(super) fn compact(&mut self, limit: u64, keep: u64) -> LogPosition {
        let snapshot = self.manifest.as_ref().map_or(0, |manifest| manifest.position.index);
        let limit = limit.min(snapshot).min(self.last());
        let mut kept: u64 = self.entries.iter().take(self.slot(limit + 1).unwrap_or(0)).map(size_bytes).sum();
        while let Some(first) = self.entries.front().filter(|first| first.index <= limit) {
            if first.index + keep > limit && kept <= CATCH_UP_SIZE_BYTES_MAX {
                break;
            }
            self.compacted = LogPosition { index: first.index, term: first.term };
            let size = size_bytes(first);
            kept -= size;
            self.size_bytes -= size;
            self.entries.pop_front();
        }
        self.compacted
    }

    /// Where the entry with `index` is or would be.
    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.compacted.index + 1)?).ok()
    }
}

/// What an entry takes in memory.
pub(super) fn size_bytes(entry: &Entry) -> u64 {
    (size_of::<Entry>() + entry.data.len() + entry.context.len()) as u64
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.initial.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let (Some(from), Some(to)) = (self.slot(low), self.slot(high)) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        if from > to || to > self.entries.len() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0u64;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size = size.saturating_add(u64::from(protobuf::Message::compute_size(*entry)));
            first || size <= max_size
        };
        Ok(self.entries.range(from..to).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.compacted.index { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.compacted.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Built on demand with the current voters; a snapshot whose voters lack its receiver would be ignored silently.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let lowest = request_index.max(self.compacted.index);
        let Some(manifest) = self.manifest.as_ref().filter(|manifest| manifest.position.index >= lowest) else {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot { data: manifest.data.clone().into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = manifest.position.index;
        metadata.term = manifest.position.term;
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 100].into(), ..Entry::default() }
    }

    fn log(last: u64) -> MemoryLog {
        let compacted = LogPosition { index: 1, term: 1 };
        MemoryLog::new(HardState::default(), vec![1, 2, 3], compacted, (2..=last).map(|i| entry(i, 1)).collect())
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn a_conflicting_append_replaces_the_tail() {
        let mut log = log(5);
        log.append(vec![entry(4, 2)]);
        assert_eq!((log.last(), log.term_of(3), log.term_of(4), log.term_of(5)), (4, Some(1), Some(2), None));
        assert_eq!(log.size_bytes(), 3 * size_bytes(&entry(2, 1)));
    }

    #[test]
    fn entries_are_limited_by_size_but_one_always_fits() {
        let log = log(6);
        let read = |low, high, max| log.entries(low, high, max, GetEntriesContext::empty(false));
        assert_eq!(indexes(&read(2, 7, None).unwrap()), [2, 3, 4, 5, 6]);
        assert_eq!(indexes(&read(2, 7, Some(0)).unwrap()), [2]);
        assert_eq!(indexes(&read(3, 7, Some(250)).unwrap()), [3, 4]);
        assert_eq!(read(1, 3, None), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(read(5, 8, None), Err(Error::Store(StorageError::Unavailable)));
    }

    #[test]
    fn nothing_is_compacted_without_a_snapshot_nor_beyond_it() {
        let mut log = log(100);
        assert_eq!(log.compact(90, 10).index, 1);
        log.set_manifest(LogPosition { index: 50, term: 1 }, b"m".to_vec());
        assert_eq!(log.compact(90, 10), LogPosition { index: 40, term: 1 });
        assert_eq!(log.first_index(), Ok(41));
        assert_eq!((log.term(40), log.term(39)), (Ok(1), Err(Error::Store(StorageError::Compacted))));
        assert_eq!(log.size_bytes(), 60 * size_bytes(&entry(2, 1)));
    }

    #[test]
    fn a_snapshot_is_offered_only_where_the_log_continues_it() {
        let mut log = log(100);
        let unavailable = Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        assert_eq!(log.snapshot(0, 2), unavailable);
        log.set_manifest(LogPosition { index: 50, term: 1 }, b"m".to_vec());
        let snapshot = log.snapshot(0, 2).unwrap();
        assert_eq!((snapshot.get_metadata().index, &snapshot.data[..]), (50, &b"m"[..]));
        assert_eq!(snapshot.get_metadata().get_conf_state().voters, [1, 2, 3]);
        assert_eq!(log.snapshot(51, 2), unavailable);
    }
}
