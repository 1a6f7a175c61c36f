//! Evidence from two heads that contradict each other.
//!
//! Of heads of one size the two notes are enough. Otherwise it takes the root that the larger tree has at the smaller size,
//! and the proof of it. A replica that shows a rewritten history cannot but have such proofs, and is asked for them; if it
//! does not give them, both notes are still kept.

use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    evidence::{Evidence, Prefix},
    merkle::{ProofMismatch, verify_consistency},
    note::SignedNote,
};

use super::watch::Known;
use crate::api::{ApiClient, ApiError, limits::READ_TIMEOUT, v1};

impl ApiClient {
    /// Evidence against whoever has signed the known head as well as the one that this replica shows.
    pub(super) async fn evidence(
        &self,
        known: &Known,
        served: &Checkpoint,
        note: &SignedNote,
        proof: Option<&[Digest]>,
    ) -> Option<Evidence> {
        let (old, new) = (known.head.size(), served.size());
        let evidence = if old == new {
            Evidence::new(known.note.clone(), note.clone(), None).ok()
        } else if old < new {
            let prefixes = self.prefixes(&known.head, served, proof).await;
            let of = |prefix| Evidence::new(known.note.clone(), note.clone(), Some(prefix)).ok();
            prefixes.into_iter().find_map(of)
        } else {
            None
        };
        evidence.filter(|evidence| evidence.verify(&self.heads.keys()).is_ok())
    }

    /// What the larger tree may begin with.
    async fn prefixes(&self, known: &Checkpoint, served: &Checkpoint, proof: Option<&[Digest]>) -> Vec<Prefix> {
        let (old, new) = (known.size(), served.size());
        let mut prefixes = Vec::new();
        let mut proofs = Vec::from_iter(proof.map(<[_]>::to_vec));
        proofs.extend(self.ask_consistency(old, new).await.ok());
        for proof in proofs {
            let verified = verify_consistency(old, known.root(), new, served.root(), &proof);
            if let Err(ProofMismatch::OldRoot { computed, .. }) = verified {
                prefixes.push(Prefix { root: computed, proof });
            } else if old.is_power_of_two() {
                // Then the proof does not hold the root of the beginning: it is the one hash on the left of the path of
                // the entry behind it.
                let path = self.ask_inclusion(old, new).await.unwrap_or_default();
                prefixes.extend(path.into_iter().map(|root| Prefix { root, proof: proof.clone() }));
            }
        }
        prefixes
    }

    /// A consistency proof; whether the answer goes on from the known head is not asked here.
    async fn ask_consistency(&self, old_size: u64, new_size: u64) -> Result<Vec<Digest>, ApiError> {
        let request = self.request(v1::ConsistencyProofRequest { old_size, new_size }, READ_TIMEOUT);
        let response = self.answer(self.ledger().consistency_proof(request).await, READ_TIMEOUT)?;
        self.valid(response.digests())
    }

    /// An inclusion proof, likewise.
    async fn ask_inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, ApiError> {
        let request = self.request(v1::InclusionProofRequest { index, size }, READ_TIMEOUT);
        let response = self.answer(self.ledger().inclusion_proof(request).await, READ_TIMEOUT)?;
        self.valid(response.digests())
    }
}
