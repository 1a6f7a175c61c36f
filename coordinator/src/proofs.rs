//! Proofs of what is recorded, from the state that the last final seal fixes.

use std::time::Duration;

use bytes::Bytes;
use fedledger_ledger::{Digest, storage::Column};
use fedledger_proto::api::limits::STATE_VALUE_SIZE_BYTES_MAX;
use tokio::time::timeout;

use crate::{
    api::{ReadError, StateAnswer},
    replica::Handle,
};

/// Final seals that are waited for while a record changes faster than they come.
const ATTEMPTS: usize = 4;

/// How long the next final seal is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The proof of what is recorded under `key`, and the value.
///
/// The map keeps digests of values only; the value comes from the storage, which may be ahead of the last final seal. Then
/// the next one is waited for.
///
/// # Errors
///
/// [`ReadError`]; [`ReadError::NoFinalState`] until a head becomes final.
pub async fn prove(handle: &Handle, key: Bytes) -> Result<StateAnswer, ReadError> {
    let mut finalized = handle.finalized();
    for _ in 0..ATTEMPTS {
        finalized.mark_unchanged();
        let asked = key.clone();
        let proven = handle.query(move |replica| {
            let (size, state) = replica.final_state()?;
            Some((size, state.value_digest(&asked), state.prove(&asked)))
        });
        let proven = proven.await.ok_or(ReadError::Stopping)?;
        let (size, digest, proof) = proven.ok_or(ReadError::NoFinalState)?;
        let value = handle.storage().get(Column::State, &key)?;
        let answer = |value| StateAnswer { seal_index: size.saturating_sub(1), proof: proof.to_bytes().into(), value };
        match (digest, value) {
            (None, _) => return Ok(answer(None)),
            (Some(digest), Some(value)) if Digest::of(&value) == digest => {
                if value.len() > STATE_VALUE_SIZE_BYTES_MAX {
                    return Err(ReadError::RecordTooLarge { size: value.len() });
                }
                return Ok(answer(Some(value.into())));
            }
            // The record has changed since the seal.
            (Some(_), _) => drop(timeout(PATIENCE, finalized.changed()).await),
        }
    }
    Err(ReadError::RecordChanges)
}
