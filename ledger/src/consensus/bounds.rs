//! Every bound of the consensus core, with its reason.

/// Largest payload of one log entry, in bytes. A payload is a batch of small transactions; bulk never enters the log.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// How many bytes of entries one append message carries, unless a single entry is larger.
pub const APPEND_SIZE_BYTES_MAX: u64 = 1024 * 1024;

/// Largest encoded message. An append message of the smallest entries exceeds [`APPEND_SIZE_BYTES_MAX`] by the tag and
/// length of every entry, less than a third.
pub const MESSAGE_SIZE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most nested parts (entries above all) of one message: as many entries as fit into [`APPEND_SIZE_BYTES_MAX`] when
/// each has the smallest size that can be proposed, 7 bytes. It bounds what decoding allocates.
pub const MESSAGE_PARTS_MAX: usize = 150_000;

/// Largest manifest of a snapshot, in bytes. It names the bulk data and does not contain it.
pub const MANIFEST_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// How many append messages may be under way to one replica; with [`APPEND_SIZE_BYTES_MAX`] it bounds the memory that a
/// slow replica costs the leader.
pub const APPENDS_IN_FLIGHT_MAX: usize = 32;

/// How many bytes of payload a leader accepts beyond what is committed.
pub const UNCOMMITTED_SIZE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many bytes of committed entries one [`Ready`](super::Ready) hands out, unless a single entry is larger.
pub const COMMITTED_SIZE_BYTES_PER_READY_MAX: u64 = 16 * 1024 * 1024;

/// How many synced writes may be under way. When the disk is further behind, messages are refused, so that answers that
/// wait for the disk cannot pile up.
pub const WRITES_IN_FLIGHT_MAX: usize = 4096;

/// Largest term, index or other number in a message or on the disk. Arithmetic below it cannot overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// How far a message may raise the term at once. Terms rise by one per election, so no honest replica falls so far
/// behind, and no dishonest one can exhaust the terms.
pub const TERM_JUMP_MAX: u64 = 1 << 20;

/// Most voters of a cluster.
pub const VOTERS_MAX: usize = 31;

/// How many reads may wait for their index at once, per replica that asks.
pub const READS_PENDING_MAX: usize = 128;

/// After how many ticks a read without an answer is given up: four times the shortest default election, so that it
/// outlives a change of leader but not a partition.
pub const READ_EXPIRY_TICKS: u32 = 40;

/// After how many ticks in which a replica made no progress with a snapshot the leader tries again.
pub const SNAPSHOT_STALL_TICKS: u32 = 600;

/// Default of [`Config::catch_up_entries`](super::Config::catch_up_entries).
pub const CATCH_UP_ENTRIES_DEFAULT: u64 = 4096;

/// How many bytes of applied entries stay in memory for replicas that lag, at most.
pub const CATCH_UP_SIZE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Default of [`Config::log_size_bytes_max`](super::Config::log_size_bytes_max).
pub const LOG_SIZE_BYTES_MAX_DEFAULT: u64 = 1024 * 1024 * 1024;
