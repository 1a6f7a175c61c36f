//! Snapshots: how a replica that lags too far goes on, and how far the Raft log reaches back.

use super::{Fault, META_APPLIED, META_COMPACTED, Replica, SnapshotManifest, position_bytes};
use crate::{
    codec,
    consensus::{MessageRefused, ReplicaId, SnapshotMeta},
    digest::Digest,
    machine::StateMachine,
    storage::{Batch, Column, Write},
};

impl<M: StateMachine> Replica<M> {
    /// The snapshot in a message that is of another size than the log. Before the message is handed to
    /// [`Self::receive`], leaves that are missing must be fetched and given to [`Self::catch_up`]; where the log is longer,
    /// [`Self::compare`] must be told the root of its beginning.
    ///
    /// # Errors
    ///
    /// [`MessageRefused`]: throw the message away.
    pub fn wanted(&self, from: ReplicaId, message: &[u8]) -> Result<Option<SnapshotManifest>, MessageRefused> {
        let Some(meta) = self.consensus.peek_snapshot(from, message)? else { return Ok(None) };
        let manifest = SnapshotManifest::decode(&meta.manifest).map_err(|_| MessageRefused::Manifest)?;
        Ok((manifest.size != self.log.size()).then_some(manifest))
    }

    /// Takes the root of the first `size` entries, as the disk leads to it: a snapshot of that size is compared with it. Only
    /// the last one is remembered.
    pub const fn compare(&mut self, size: u64, root: Digest) {
        self.compared = Some((size, root));
    }

    pub(super) fn compact(&mut self, batch: &mut Batch) {
        self.compacted_at = self.applied;
        self.offer_snapshot();
        let position = self.consensus.compact(self.applied);
        let end = (position.index + 1).to_be_bytes();
        batch.push(Write::DeleteRange(Column::Raft, 0u64.to_be_bytes().to_vec(), end.to_vec()));
        batch.put(Column::Meta, META_COMPACTED, position_bytes(position));
    }

    /// Lets replicas that lag too far begin at the log as it is applied now.
    pub(super) fn offer_snapshot(&mut self) {
        let manifest = SnapshotManifest { size: self.log.size(), root: self.log.root() };
        if let Err(error) = self.consensus.set_snapshot(self.applied, codec::encode(&manifest)) {
            tracing::warn!(%error, "no snapshot can be offered to replicas that lag");
        }
    }

    /// Goes on from a snapshot whose leaves are here already.
    pub(super) fn install(&mut self, snapshot: &SnapshotMeta, batch: &mut Batch) -> Result<(), Fault> {
        let manifest = SnapshotManifest::decode(&snapshot.manifest).map_err(|error| Fault::Order(error.to_string()))?;
        let SnapshotManifest { size, root: expected } = manifest;
        let found = match self.compared.take() {
            _ if size == self.log.size() => self.log.root(),
            // Leaves that a peer sent for a later snapshot may be here already; they say nothing about this one.
            Some((compared, root)) if compared == size && size < self.log.size() => root,
            _ => return Err(Fault::SnapshotSize { size, log: self.log.size() }),
        };
        if found != expected {
            return Err(Fault::SnapshotRoot { size, expected, found });
        }
        self.applied = snapshot.position.index;
        self.compacted_at = snapshot.position.index;
        self.last_written = snapshot.position.index;
        batch.push(Write::DeleteRange(Column::Raft, 0u64.to_be_bytes().to_vec(), u64::MAX.to_be_bytes().to_vec()));
        batch.put(Column::Meta, META_COMPACTED, position_bytes(snapshot.position));
        batch.put(Column::Meta, META_APPLIED, self.applied.to_be_bytes());
        self.consensus.applied(self.applied).map_err(|error| Fault::Order(error.to_string()))?;
        self.offer_snapshot();
        Ok(())
    }
}
