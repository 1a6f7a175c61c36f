//! What can go wrong for a client.

use std::{error::Error, time::Duration};

use fedledger_ledger::Digest;
use tonic::{Code, Status};

use super::{
    code::{ApiCode, Refused, known},
    heads::Conflict,
};
use crate::kit::KitError;

/// A call that failed. [`ApiError::code`] is stable, for programs.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The URL is none, or not one of an API.
    #[error(
        "{url:?} is no API address, expected https://host:port as in `fedledger.toml` or the replica's `node.toml`"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// Key or certificate of the identity cannot be used for TLS.
    #[error("the identity cannot be used for TLS: {source}")]
    Identity {
        /// Why.
        source: tonic::transport::Error,
    },
    /// Nobody answers there, or the TLS connection is refused.
    #[error("cannot reach {url}: {reason}; check that the replica runs and that the identity is of its consortium")]
    Unreachable {
        /// URL of the replica.
        url: String,
        /// What the network or TLS said.
        reason: String,
    },
    /// None of several replicas can be used now.
    #[error("none of {} replicas can be used: {}", tried.len(), list(tried))]
    NoReplica {
        /// What each of them said, in the order in which they were tried.
        tried: Vec<ApiError>,
    },
    /// No answer in time.
    #[error("{url} did not answer within {} s: try again, or another replica", after.as_secs())]
    TimedOut {
        /// URL of the replica.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The replica refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The transaction is on the ledger, but rejected.
    #[error("the ledger rejected the transaction (entry {index}): {}", reason.as_deref().unwrap_or(code))]
    Rejected {
        /// Index of the entry.
        index: u64,
        /// Code of the rejection, as recorded.
        code: String,
        /// What it means, for people, if the replica said so.
        reason: Option<String>,
    },
    /// The replica belongs to another consortium than the identity.
    #[error(
        "{url} serves chain {found}, the identity is of chain {expected}: \
         use the address of a replica of the same consortium"
    )]
    WrongChain {
        /// URL of the replica.
        url: String,
        /// Chain of the identity.
        expected: Digest,
        /// Chain of the replica.
        found: Digest,
    },
    /// An answer that no honest, working replica gives.
    #[error("{url} gave an invalid answer: {what}; ask another replica")]
    InvalidAnswer {
        /// URL of the replica.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A head of the log that is none, or not signed as it should be.
    #[error("{url} shows a head that is none of this log: {reason}; ask another replica")]
    Head {
        /// URL of the replica.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A head that does not go on from one that was seen before, from this replica or another one.
    #[error(transparent)]
    Conflict(Box<Conflict>),
    /// What was seen of the log before cannot be read.
    #[error(transparent)]
    Seen(#[from] KitError),
    /// What was received cannot be stored.
    #[error("cannot store what {url} sent: {source}")]
    Store {
        /// URL of the replica.
        url: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl ApiError {
    /// A stable code: that of the refusal or rejection, or `unreachable`, `timed_out`, `invalid_answer`, ...
    pub fn code(&self) -> &str {
        match self {
            Self::Url { .. } => "invalid_url",
            Self::Identity { .. } => "invalid_identity",
            Self::Unreachable { .. } => "unreachable",
            Self::NoReplica { tried } => tried.first().map_or("unreachable", Self::code),
            Self::TimedOut { .. } => ApiCode::TimedOut.as_str(),
            Self::Refused(refused) => refused.code.as_str(),
            Self::Rejected { .. } => "rejected",
            Self::WrongChain { .. } => ApiCode::WrongChain.as_str(),
            Self::InvalidAnswer { .. } => "invalid_answer",
            Self::Head { .. } => "invalid_head",
            Self::Conflict(_) => "conflicting_heads",
            Self::Seen(_) => "seen",
            Self::Store { .. } => "store",
        }
    }

    /// Whether the same call may succeed later or at another replica.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoReplica { .. } | Self::TimedOut { .. } => true,
            Self::Refused(refused) => refused.code.is_transient(),
            _ => false,
        }
    }

    /// Whether nobody has answered, neither yes nor no.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::NoReplica { tried } => tried.iter().all(Self::is_silence),
            _ => false,
        }
    }

    /// What a status means to a client that waited for at most `after`.
    pub(super) fn from_status(status: &Status, url: &str, after: Duration) -> Self {
        if let Some(refused) = Refused::from_status(status) {
            return Self::Refused(refused);
        }
        let url = url.to_owned();
        match status.code() {
            // The client's own deadline shows as a cancellation.
            Code::Cancelled | Code::DeadlineExceeded => Self::TimedOut { url, after },
            Code::Unimplemented => Self::InvalidAnswer { url, what: "it does not know this call" },
            _ if status.source().is_some() => Self::Unreachable { url, reason: reason(status) },
            Code::Unavailable | Code::Unknown => Self::Unreachable { url, reason: status.message().to_owned() },
            // Made by the gRPC library of either side, such as a message beyond the size limit.
            code => Self::Refused(Refused::new(known(code).unwrap_or(ApiCode::Internal), status.message())),
        }
    }
}

/// Every error, which names its replica.
/// What each replica said. What to do where one cannot be reached is said once for all of them.
fn list(tried: &[ApiError]) -> String {
    let said = tried.iter().map(|error| match error {
        ApiError::Unreachable { url, reason } => format!("cannot reach {url}: {reason}"),
        error => error.to_string(),
    });
    let said = said.collect::<Vec<_>>().join("; ");
    let is_unreachable = tried.iter().any(|error| matches!(error, ApiError::Unreachable { .. }));
    let advice = if is_unreachable { "; check that they run and that the identity is of their consortium" } else { "" };
    said + advice
}

/// The innermost cause: the outer ones say "transport error".
pub(super) fn reason(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
