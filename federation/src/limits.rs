//! Every bound of the federation, with its reason.

/// Longest id of a member, plan name, branch or tag, in bytes: they stand in every record that refers to them.
pub const NAME_LENGTH_MAX: usize = 64;

/// Longest reason or message written by a person, in bytes.
pub const TEXT_LENGTH_MAX: usize = 1024;

/// Most members of a consortium.
pub const MEMBERS_MAX: usize = 10_000;

/// Most nodes of one member.
pub const NODES_PER_MEMBER_MAX: usize = 16;

/// Most metrics in one report; they are ledger payload.
pub const METRICS_MAX: usize = 64;

/// Most groups in one report, whose metrics are ledger payload too.
pub const GROUPS_MAX: usize = 64;

/// Largest loss in a report, in millionths: a million nats. A model that is as wrong gives what happens a probability of
/// e^-1,000,000, and is of no use however much worse it is; but one such report must not decide every mean.
pub const LOSS_MILLIONTHS_MAX: i64 = 1_000_000 * 1_000_000;

/// Most rounds of one plan.
pub const ROUNDS_MAX: u64 = 1_000_000;

/// Most attempts at one round.
pub const ATTEMPTS_MAX: u64 = 1_000;

/// Longest time for collecting contributions, in milliseconds: thirty days.
pub const ROUND_DURATION_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// Largest example scale (the power of two that example counts are weighted against): above it, a 64-bit ring leaves too few
/// bits for the fraction.
pub const EXAMPLE_SCALE_MAX: u64 = 1 << 29;

/// Largest payload of a transaction, in bytes; it must fit into the ledger's envelope.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 54 * 1024;

/// Largest record of replicated state, in bytes. Manifests list every contribution.
pub const RECORD_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most proposals that can be voted on at a time: each is looked at whenever one is carried out.
pub const OPEN_PROPOSALS_MAX: usize = 256;

/// Most proposals of one member that can be voted on at a time, so that no member uses up all room.
pub const OPEN_PROPOSALS_PER_MEMBER_MAX: usize = 8;

/// Longest time for voting, in log entries.
pub const PROPOSAL_VALIDITY_ENTRIES_MAX: u64 = 1_000_000;

/// Most names of members or replicas that the progress of a plan gives; it says how many there are.
pub const PROGRESS_NAMES_MAX: usize = 32;
