//! How errors of the replica are told to clients.

use fedledger_ledger::{codec::CodecError, log::Refusal, transaction::EnvelopeError};
use fedledger_proto::api::{ApiCode, Refused};

use super::backend::{ReadError, SubmitError};
use crate::checkpoints::CheckpointFailure;

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        let code = match &error {
            SubmitError::Refusal(refusal) => code_of(refusal),
            SubmitError::Seal => ApiCode::Malformed,
            SubmitError::NoLeader => ApiCode::NoLeader,
            SubmitError::Busy => ApiCode::Busy,
            SubmitError::TimedOut => ApiCode::TimedOut,
            SubmitError::ExpiresTooSoon { .. } => ApiCode::Expired,
            SubmitError::NotFinal { .. } => ApiCode::NotFinal,
            SubmitError::Stopping => ApiCode::Stopping,
        };
        Self::new(code, error)
    }
}

const fn code_of(refusal: &Refusal) -> ApiCode {
    match refusal {
        Refusal::Envelope(EnvelopeError::Signature(_)) => ApiCode::BadSignature,
        Refusal::Envelope(EnvelopeError::Chain { .. }) => ApiCode::WrongChain,
        Refusal::Envelope(EnvelopeError::Envelope(CodecError::TooLarge { .. })) => ApiCode::TooLarge,
        Refusal::Envelope(_) => ApiCode::Malformed,
        Refusal::Expired { .. } => ApiCode::Expired,
        Refusal::ExpiryTooFar { .. } => ApiCode::ExpiryTooFar,
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::NoProof { .. } | ReadError::NoConsistency { .. } | ReadError::NoFinalState => {
                Self::new(ApiCode::NotFound, error)
            }
            ReadError::RecordTooLarge { .. } => Self::new(ApiCode::TooLarge, error),
            ReadError::Busy | ReadError::RecordChanges => Self::new(ApiCode::Busy, error),
            ReadError::Stopping => Self::new(ApiCode::Stopping, error),
            // What is wrong with its disk is the business of the replica's own people.
            ReadError::Storage(_) | ReadError::Blob(_) => {
                tracing::error!(%error, "a question of a client cannot be answered");
                Self::new(ApiCode::Internal, "this replica cannot read its storage, its log says why: ask another one")
            }
        }
    }
}

impl From<CheckpointFailure> for Refused {
    fn from(failure: CheckpointFailure) -> Self {
        match failure {
            CheckpointFailure::Storage(error) => ReadError::Storage(error).into(),
            CheckpointFailure::Stopping => ReadError::Stopping.into(),
            CheckpointFailure::Offer(error) => Self::new(ApiCode::Malformed, error),
            CheckpointFailure::Contradicts { .. } => Self::new(ApiCode::Contradicts, failure),
        }
    }
}
