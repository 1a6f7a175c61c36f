//! What a participant's node tells its surroundings.

use fedledger_federation::{VersionId, command::RoundKey};
use fedledger_ledger::Digest;

/// Something that happened. Events are for people and progress displays; nothing depends on their being seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// The node follows the ledger at this replica.
    Connected {
        /// Node name of the replica.
        replica: String,
    },
    /// The connection that the node followed has ended; it looks for another.
    Disconnected {
        /// Node name of the replica.
        replica: String,
        /// Why.
        reason: String,
    },
    /// Every entry that the replica had has been replayed.
    CaughtUp {
        /// Entries in the ledger.
        size: u64,
    },
    /// The site's consent to a plan is on the ledger.
    Consented {
        /// The plan.
        plan: Digest,
    },
    /// The site does not consent by itself.
    ConsentWithheld {
        /// The plan.
        plan: Digest,
        /// Why.
        reason: String,
    },
    /// The site has joined a round.
    Joined {
        /// The attempt.
        key: RoundKey,
    },
    /// The site has declined a round.
    Declined {
        /// The attempt.
        key: RoundKey,
        /// Why.
        reason: String,
    },
    /// The round's training was interrupted, and goes on from the last local checkpoint.
    Resumed {
        /// The attempt.
        key: RoundKey,
        /// Optimiser steps that need not be done again.
        step: u64,
    },
    /// A program of the site begins to train a round, or goes on with it.
    TrainerStarted {
        /// The attempt.
        key: RoundKey,
        /// Its name.
        trainer: String,
        /// Its digest, which the contribution will name.
        program: Digest,
        /// Whether it finds what an interrupted run has left.
        resumed: bool,
    },
    /// A program of the site tells how far it has come.
    Progress {
        /// The attempt.
        key: RoundKey,
        /// From 0 to 100.
        percent: u8,
        /// What it says beside; often empty.
        message: String,
    },
    /// The round's training is done.
    Trained {
        /// The attempt.
        key: RoundKey,
        /// Mean loss of the last pass through the examples, in millionths; none if an external trainer reports no loss.
        loss_millionths: Option<i64>,
    },
    /// How much memory there was in use when a round's training was done.
    TrainingMemory {
        /// The attempt.
        key: RoundKey,
        /// The most memory that the process had during the training, in bytes; where the system does not forget, or another
        /// training goes on in the same process, the most since an earlier moment.
        peak_bytes: u64,
        /// What the training was expected to take, in bytes.
        estimated_bytes: u64,
    },
    /// How much memory a program of the site had while it trained a round.
    TrainerMemory {
        /// The attempt.
        key: RoundKey,
        /// The most that all its processes together were seen to have, in bytes.
        peak_bytes: u64,
        /// What they are allowed together, in bytes.
        allowed_bytes: u64,
    },
    /// The site's contribution is on the ledger.
    Contributed {
        /// The attempt.
        key: RoundKey,
        /// Index of the contribution.
        index: u64,
    },
    /// The site's metrics of a version are on the ledger.
    Evaluated {
        /// The version.
        version: VersionId,
        /// Its number.
        number: u64,
        /// Share of test examples predicted correctly, in millionths.
        accuracy_millionths: i64,
    },
    /// A transaction of this node was refused by the ledger.
    Rejected {
        /// What it asked for.
        intent: String,
        /// Code of the reason.
        code: String,
    },
    /// A replica's signed head of the log is the one that this node computed itself.
    Witnessed {
        /// Node name of the replica.
        replica: String,
        /// Entries under the head.
        size: u64,
    },
    /// A replica sent, or signed, a history that contradicts the one this node holds. It is not listened to any more.
    Distrusted {
        /// Node name of the replica.
        replica: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where a node stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Node name of the replica that is followed, if any.
    pub following: Option<String>,
    /// Entries replayed, the genesis file included.
    pub size: u64,
    /// Whether everything that the replica had at the beginning has been replayed, so that the node acts.
    pub current: bool,
    /// Entries under the last signed head that was verified.
    pub witnessed: u64,
}
