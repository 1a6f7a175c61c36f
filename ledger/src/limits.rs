//! Every bound of the ledger, with its reason.

/// Largest encoded transaction envelope, in bytes. C2SP tlog-tiles carries an entry's length in 16 bits, and the leaf
/// adds its outcome to the envelope, so the envelope must stay well below 65,535.
pub const ENVELOPE_SIZE_BYTES_MAX: usize = 56 * 1024;

/// Largest encoded leaf, in bytes (C2SP tlog-tiles: `uint16` length).
pub const LEAF_SIZE_BYTES_MAX: usize = 65_535;

/// How far beyond the log's size a transaction may set its expiry, in entries. It bounds the memory of deduplication:
/// a nonce is remembered until its transaction could no longer be applied.
pub const VALIDITY_ENTRIES_MAX: u64 = 100_000;

/// Largest genesis file, in bytes: it is entry 0 of the log and must fit where every other leaf fits. That is room for more
/// than a hundred members; further ones are admitted by governance.
pub const GENESIS_SIZE_BYTES_MAX: usize = LEAF_SIZE_BYTES_MAX;

/// Deepest nesting of a decoded value.
pub const CODEC_DEPTH_MAX: usize = 16;

/// Longest name of a transaction kind, in bytes.
pub const KIND_LENGTH_MAX: usize = 64;
