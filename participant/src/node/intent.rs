//! What the node wants to see on the ledger, apart from the transaction that says it.

use std::fmt;

use fedledger_federation::{Command, VersionId, command::RoundKey};
use fedledger_ledger::Digest;

/// One thing that this participant says at most once. It names a transaction over all the times that it is signed or
/// submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Intent {
    /// To consent to a plan.
    Approve(Digest),
    /// To join a round.
    Join(RoundKey),
    /// To decline a round.
    Decline(RoundKey),
    /// To contribute to a round.
    Contribute(RoundKey),
    /// To report metrics of a version.
    Evaluate(VersionId),
}

impl Intent {
    /// The intent behind a command; none for commands that a participant's node does not submit.
    pub const fn of(command: &Command) -> Option<Self> {
        match command {
            Command::ApprovePlan(command) => Some(Self::Approve(command.plan)),
            Command::JoinRound(command) => Some(Self::Join(command.key)),
            Command::DeclineRound(command) => Some(Self::Decline(command.key)),
            Command::Contribute(command) => Some(Self::Contribute(command.key)),
            Command::Evaluate(command) => Some(Self::Evaluate(command.version)),
            _ => None,
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round = |f: &mut fmt::Formatter<'_>, what: &str, key: &RoundKey| {
            write!(f, "{what} round {} (attempt {}) of plan {}", key.round, key.attempt, key.plan)
        };
        match self {
            Self::Approve(plan) => write!(f, "consent to plan {plan}"),
            Self::Join(key) => round(f, "join", key),
            Self::Decline(key) => round(f, "decline", key),
            Self::Contribute(key) => round(f, "contribute to", key),
            Self::Evaluate(version) => write!(f, "report metrics of version {version}"),
        }
    }
}
