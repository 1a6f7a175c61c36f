//! Every bound of the API, with its reason.

use std::time::Duration;

use fedledger_federation::limits::{NAME_LENGTH_MAX, PROGRESS_NAMES_MAX, TEXT_LENGTH_MAX};
use fedledger_ledger::{
    epoch::EPOCH_SIZE_BYTES_MAX,
    limits::{ENVELOPE_SIZE_BYTES_MAX, LEAF_SIZE_BYTES_MAX},
    map::STATE_PROOF_SIZE_BYTES_MAX,
    note::NOTE_SIZE_BYTES_MAX,
    receipt::RECEIPT_SIZE_BYTES_MAX,
};

/// What a message needs beside its largest field, in bytes.
const OVERHEAD_BYTES: usize = 4 * 1024;

/// Most digests in one question about blobs.
pub const HAS_DIGESTS_MAX: usize = 1024;

/// Largest request, in bytes: a signed note; an envelope and [`HAS_DIGESTS_MAX`] digests of 34 encoded bytes are smaller.
pub const REQUEST_SIZE_BYTES_MAX: usize = NOTE_SIZE_BYTES_MAX + OVERHEAD_BYTES;

/// What a peer takes in a status, in bytes: its name and some numbers.
const PEER_SIZE_BYTES: usize = 256;

/// What a plan takes in a status, in bytes: names, two texts, one of which may quote a reason, and some numbers.
const PLAN_SIZE_BYTES: usize = (PROGRESS_NAMES_MAX + 2) * (NAME_LENGTH_MAX * 2) + 2 * TEXT_LENGTH_MAX + 512;

/// Largest response that a client takes, in bytes: a status with [`PEERS_MAX`] peers, [`PLANS_MAX`] plans and a checkpoint.
pub const RESPONSE_SIZE_BYTES_MAX: usize =
    NOTE_SIZE_BYTES_MAX + PEERS_MAX * PEER_SIZE_BYTES + PLANS_MAX * PLAN_SIZE_BYTES + OVERHEAD_BYTES;

/// Bytes of a blob in one message of its stream.
pub const BLOB_CHUNK_SIZE_BYTES: usize = 256 * 1024;

/// Longest message of a refused call, in bytes: it travels in a header.
pub const MESSAGE_LENGTH_MAX: usize = 1024;

/// Longest reason for a rejection that a client takes, in bytes.
pub const REASON_LENGTH_MAX: usize = 4096;

/// Most plans in a status whose progress is told, those that were proposed first.
pub const PLANS_MAX: usize = 64;

/// Most peers in a status.
pub const PEERS_MAX: usize = 1024;

/// Most digests in an inclusion proof: the depth of a tree of 2^64 leaves.
pub const PROOF_LENGTH_MAX: usize = 64;

/// Most digests in a consistency proof: one more than the depth of a tree of 2^64 leaves.
pub const CONSISTENCY_PROOF_LENGTH_MAX: usize = PROOF_LENGTH_MAX + 1;

/// Largest note that an answer carries in its metadata, in bytes: with a proof and in base64 it stays within the 16 KiB of
/// headers that gRPC libraries take.
pub const NOTE_IN_METADATA_SIZE_BYTES_MAX: usize = 8 * 1024;

/// Largest link of the chain of epochs, in bytes.
pub const EPOCH_LINK_SIZE_BYTES_MAX: usize =
    EPOCH_SIZE_BYTES_MAX + LEAF_SIZE_BYTES_MAX + RECEIPT_SIZE_BYTES_MAX + OVERHEAD_BYTES;

/// Longest key of a record of the replicated state that may be asked for, in bytes.
pub const STATE_KEY_SIZE_BYTES_MAX: usize = 1024;

/// Largest value of a record of the replicated state that a client takes, in bytes.
pub const STATE_VALUE_SIZE_BYTES_MAX: usize = 256 * 1024;

/// Most replicas that a client tries.
pub const REPLICAS_MAX: usize = 32;

/// How long a client waits for the answer to a submission before it submits the same bytes to the next replica as well.
pub const SUBMIT_STALL: Duration = Duration::from_secs(3);

/// How long a client waits for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client waits for the answer to a question.
pub const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a client waits for a transaction to be committed, attempts at several leaders included.
pub const SUBMIT_TIMEOUT: Duration = Duration::from_secs(60);

const _: () = assert!(ENVELOPE_SIZE_BYTES_MAX < REQUEST_SIZE_BYTES_MAX);
const _: () =
    assert!(STATE_VALUE_SIZE_BYTES_MAX + STATE_PROOF_SIZE_BYTES_MAX + OVERHEAD_BYTES <= RESPONSE_SIZE_BYTES_MAX);
const _: () = assert!(HAS_DIGESTS_MAX * 34 < REQUEST_SIZE_BYTES_MAX);
const _: () = assert!(LEAF_SIZE_BYTES_MAX < RESPONSE_SIZE_BYTES_MAX);
