//! Heads of the log between this node and the replicas: asking for them, and co-signing them as a witness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::{Checkpoint, CheckpointNoteError},
    epoch::cosigner_name,
    merkle::verify_consistency,
    note::{NoteError, NoteSignature, SignedNote},
};
use fedledger_proto::{
    endpoint::Endpoint,
    wire::{CheckpointRequest, CheckpointResponse},
};

use super::{peers::Replica, witness::parse_unverified};

/// Replicas that are given each co-signature: one of them is honest more often than not, and passes it on.
const REPLICAS_TOLD: usize = 2;

/// The node as a witness.
#[derive(Debug)]
pub struct Heads {
    /// Origin of the log's heads.
    pub origin: String,
    /// Name of the node.
    pub node: String,
    /// Co-signs heads.
    pub key: SecretKey,
    /// How long a replica may take to answer.
    pub patience: Duration,
    /// The last head that is on the disk, with the replica's signature.
    pub stored: Mutex<Option<String>>,
}

impl Heads {
    /// The newest head that a replica has, if it extends the one that this node has stored. Its signatures are not checked
    /// here.
    pub async fn of(&self, endpoint: &Endpoint, replica: &Replica) -> Option<String> {
        let known = self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let request = CheckpointRequest::Latest { known: known.clone() };
        let (note, proof) = match endpoint.call(replica.key, &request, self.patience).await {
            Ok(CheckpointResponse::Latest { note, consistency }) => (note?, consistency),
            Ok(CheckpointResponse::Taken { .. }) => return None,
            Err(error) => {
                tracing::debug!(replica = replica.name, %error, "a replica did not give its head");
                return None;
            }
        };
        match extends(known.as_deref(), &note, proof.as_deref()) {
            Ok(()) => Some(note),
            Err(reason) => {
                tracing::error!(replica = replica.name, reason, "a replica's head does not extend the one stored here");
                // The own log will tell which of the two is wrong, and what to do.
                Some(note)
            }
        }
    }

    /// Remembers what is on the disk now.
    pub fn store(&self, note: String) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }

    /// Co-signs a head that is on the disk, and gives the co-signature to replicas.
    pub async fn cosign(self: Arc<Self>, endpoint: Endpoint, replicas: Vec<Replica>, note: String) {
        let cosigned = match self.cosigned(&note) {
            Ok(cosigned) => cosigned.to_string(),
            Err(error) => {
                tracing::error!(%error, "a head cannot be co-signed");
                return;
            }
        };
        for replica in replicas.into_iter().take(REPLICAS_TOLD) {
            let offer = CheckpointRequest::Offer { note: cosigned.clone() };
            if let Err(error) = endpoint.call(replica.key, &offer, self.patience).await {
                tracing::debug!(replica = replica.name, %error, "a replica did not take a co-signature");
            }
        }
    }

    /// The text of a head with this node's co-signature.
    fn cosigned(&self, note: &str) -> Result<SignedNote, NoteError> {
        let note = SignedNote::parse(note)?;
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let name = cosigner_name(&self.origin, &self.node);
        let line = NoteSignature::cosign(note.text(), &name, &self.key, time_s)?;
        SignedNote::from_parts(note.text(), vec![line])
    }
}

/// Whether the proof shows that `note` extends `known`. A shorter head extends nothing, but contradicts nothing either.
fn extends(known: Option<&str>, note: &str, proof: Option<&[Digest]>) -> Result<(), String> {
    let Some(known) = known else { return Ok(()) };
    let words = |error: CheckpointNoteError| error.to_string();
    let (old, new): (Checkpoint, Checkpoint) =
        (parse_unverified(known).map_err(words)?, parse_unverified(note).map_err(words)?);
    if new.size() < old.size() {
        return Ok(());
    }
    let proof = proof.ok_or("it came without a proof")?;
    verify_consistency(old.size(), old.root(), new.size(), new.root(), proof).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use fedledger_ledger::{
        merkle::{Frontier, NodeId, consistency_proof, leaf_hash},
        note::sign_note,
    };

    /// Notes of a log at every size up to 8, and its nodes.
    fn log() -> (Vec<String>, BTreeMap<NodeId, Digest>) {
        let (mut frontier, mut nodes, mut notes) = (Frontier::new(), BTreeMap::new(), Vec::new());
        for entry in 0..=8u8 {
            let checkpoint = Checkpoint::new("log", frontier.size(), frontier.root()).unwrap();
            notes.push(
                sign_note(&checkpoint.to_note_text(), "log", &SecretKey::from_seed([1; 32])).unwrap().to_string(),
            );
            nodes.extend(frontier.append(leaf_hash(&[entry])));
        }
        (notes, nodes)
    }

    #[test]
    fn a_head_must_be_proven_to_extend_the_stored_one() {
        let (notes, nodes) = log();
        let proof = |old, new| consistency_proof(old, new, |node| nodes.get(&node).copied().ok_or(())).unwrap();
        assert_eq!(extends(None, &notes[5], None), Ok(()));
        assert_eq!(extends(Some(&notes[3]), &notes[5], Some(&proof(3, 5))), Ok(()));
        assert_eq!(extends(Some(&notes[5]), &notes[5], Some(&[])), Ok(()));
        assert_eq!(extends(Some(&notes[5]), &notes[3], None), Ok(()), "an older head is no contradiction");
        assert!(extends(Some(&notes[3]), &notes[5], None).unwrap_err().contains("without a proof"));
        assert!(extends(Some(&notes[3]), &notes[5], Some(&proof(2, 5))).is_err());
        assert!(extends(Some(&notes[3]), &notes[6], Some(&proof(3, 5))).is_err());
    }
}
