//! Why a participant's node does not start, or stops by itself.

use std::{io, path::PathBuf};

use fedledger_ledger::{Digest, checkpoint::CheckpointNoteError};
use fedledger_proto::endpoint::EndpointError;

use crate::{table::OpenError, training::DeviceError};

/// Why a participant's node does not start, or stops by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParticipantError {
    /// Keys, genesis file or configuration are missing or wrong.
    #[error("the node's directory cannot be used: {0}")]
    Kit(#[from] fedledger_proto::kit::KitError),
    /// Another process works in the directory.
    #[error("{} is in use by another process: stop it first, or use another directory", .0.display())]
    InUse(PathBuf),
    /// A file of the node could not be read or written.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The environment names a proxy in a way that is not understood.
    #[error(transparent)]
    Proxy(#[from] fedledger_proto::endpoint::ProxyVariableError),
    /// The site's records cannot be used.
    #[error("the site's data cannot be used: {0}")]
    Data(#[from] OpenError),
    /// A program that `node.toml` names cannot be read.
    #[error(transparent)]
    Trainer(#[from] super::external::ProgramError),
    /// The device that `node.toml` names cannot be trained on by this program.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The genesis file cannot be replayed.
    #[error("the genesis file is wrong: {0}")]
    Genesis(String),
    /// The head of the log that the node stored itself is damaged.
    #[error("{} is damaged ({source}): restore it from a backup; without it a rewritten history would go unnoticed", path.display())]
    Witness {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CheckpointNoteError,
    },
    /// The connections could not be set up.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The history that the replicas show is not to be trusted.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The node's own task did not end as it should.
    #[error("the node stopped unexpectedly: this is a defect of the software, please report it")]
    Defect,
}

/// Why the replicas' history is not to be trusted. The node contributes nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Replicas show a history in which a head that this site has seen signed does not occur.
    #[error(
        "the history was rewritten: at {size} entries this site has witnessed root {witnessed}, the replicas now show \
         {found}; keep witness.note as evidence and ask the other members before going on"
    )]
    Rewritten {
        /// Entries under the head.
        size: u64,
        /// Root that was signed.
        witnessed: Digest,
        /// Root of what is shown now.
        found: Digest,
    },
    /// So many replicas contradict each other that no majority is left.
    #[error("no majority of replicas is left that shows one valid history; last: {replica}: {reason}")]
    NoMajority {
        /// Node name of the last replica that was found wrong.
        replica: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An error with its causes, on one line.
pub(super) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
