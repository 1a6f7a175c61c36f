//! Refused calls: a stable code for programs and a message for people.

use std::fmt;

use tonic::{Code, Status, metadata::MetadataValue};

use super::limits::MESSAGE_LENGTH_MAX;

/// Metadata that carries the code of a refused call.
const CODE_KEY: &str = "fedledger-code";

/// Why a replica refused a call. The text of a code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiCode {
    /// The client showed no certificate with an Ed25519 key.
    Unauthenticated,
    /// The key in the client's certificate is no current API key of a member.
    UnknownMember,
    /// The member lacks the role for this.
    NotPermitted,
    /// The request is not what it should be.
    Malformed,
    /// The request is too large.
    TooLarge,
    /// The transaction's signature does not verify.
    BadSignature,
    /// The transaction is for another consortium.
    WrongChain,
    /// The transaction's time, counted in log entries, has passed.
    Expired,
    /// The transaction may expire too late.
    ExpiryTooFar,
    /// No leader is known, or a majority of the replicas cannot be reached. Try again later.
    NoLeader,
    /// Too much is going on. Try again later.
    Busy,
    /// The replica could not do it in time; a submitted transaction may still be committed. Try again.
    TimedOut,
    /// The transaction is committed, but has not reached the level asked for in time. It need not be submitted again.
    NotFinal,
    /// The checkpoint that the caller knows is of another history than this replica's log.
    Contradicts,
    /// There is no such entry, checkpoint or blob here.
    NotFound,
    /// The replica is shutting down, or has stopped taking work. Try another one.
    Stopping,
    /// Something is wrong with the replica; its log says what.
    Internal,
}

/// Every code, for looking them up by text.
pub(super) const CODES: [ApiCode; 17] = [
    ApiCode::Unauthenticated,
    ApiCode::UnknownMember,
    ApiCode::NotPermitted,
    ApiCode::Malformed,
    ApiCode::TooLarge,
    ApiCode::BadSignature,
    ApiCode::WrongChain,
    ApiCode::Expired,
    ApiCode::ExpiryTooFar,
    ApiCode::NoLeader,
    ApiCode::Busy,
    ApiCode::TimedOut,
    ApiCode::NotFinal,
    ApiCode::Contradicts,
    ApiCode::NotFound,
    ApiCode::Stopping,
    ApiCode::Internal,
];

impl ApiCode {
    /// The code as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::UnknownMember => "unknown_member",
            Self::NotPermitted => "not_permitted",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::BadSignature => "bad_signature",
            Self::WrongChain => "wrong_chain",
            Self::Expired => "expired",
            Self::ExpiryTooFar => "expiry_too_far",
            Self::NoLeader => "no_leader",
            Self::Busy => "busy",
            Self::TimedOut => "timed_out",
            Self::NotFinal => "not_final",
            Self::Contradicts => "contradicts",
            Self::NotFound => "not_found",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later or at another replica.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::NoLeader | Self::Busy | Self::TimedOut | Self::Stopping)
    }

    fn parse(text: &str) -> Option<Self> {
        CODES.into_iter().find(|code| code.as_str() == text)
    }

    const fn to_grpc(self) -> Code {
        match self {
            Self::Unauthenticated | Self::UnknownMember => Code::Unauthenticated,
            Self::NotPermitted => Code::PermissionDenied,
            Self::Malformed | Self::BadSignature | Self::WrongChain | Self::ExpiryTooFar => Code::InvalidArgument,
            Self::TooLarge => Code::OutOfRange,
            Self::Expired | Self::Contradicts => Code::FailedPrecondition,
            Self::NoLeader | Self::Stopping => Code::Unavailable,
            Self::Busy => Code::ResourceExhausted,
            Self::TimedOut | Self::NotFinal => Code::DeadlineExceeded,
            Self::NotFound => Code::NotFound,
            Self::Internal => Code::Internal,
        }
    }
}

impl fmt::Display for ApiCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that a replica refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Why, for programs.
    pub code: ApiCode,
    /// Why, and what to do, for people.
    pub message: String,
}

impl Refused {
    /// A refusal with a message for people.
    pub fn new(code: ApiCode, message: impl fmt::Display) -> Self {
        Self { code, message: shortened(message.to_string()) }
    }

    /// What a server refused, if the status comes from one that knows these codes.
    pub(super) fn from_status(status: &Status) -> Option<Self> {
        let text = status.metadata().get(CODE_KEY)?.to_str().ok()?;
        // A code of newer software: its gRPC status still says what kind of refusal it is.
        let code = ApiCode::parse(text).or_else(|| known(status.code()))?;
        Some(Self { code, message: shortened(status.message().to_owned()) })
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let mut status = Self::new(refused.code.to_grpc(), refused.message);
        status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(refused.code.as_str()));
        status
    }
}

/// The code that says the same as a bare gRPC status of a server, as far as there is one.
pub(super) const fn known(code: Code) -> Option<ApiCode> {
    Some(match code {
        Code::Unauthenticated => ApiCode::Unauthenticated,
        Code::PermissionDenied => ApiCode::NotPermitted,
        Code::InvalidArgument => ApiCode::Malformed,
        Code::OutOfRange => ApiCode::TooLarge,
        Code::ResourceExhausted => ApiCode::Busy,
        Code::DeadlineExceeded => ApiCode::TimedOut,
        Code::NotFound => ApiCode::NotFound,
        Code::Internal => ApiCode::Internal,
        _ => return None,
    })
}

/// At most [`MESSAGE_LENGTH_MAX`] bytes of a message.
fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_LENGTH_MAX));
    message
}
