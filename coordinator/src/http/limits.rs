//! Every bound of the HTTP server, with its reason.

use std::time::Duration;

/// Most connections at once: each holds little more than [`BUFFER_SIZE_BYTES`] and [`CHUNK_SIZE_BYTES`].
pub(super) const CONNECTIONS_MAX: usize = 256;

/// Most connections from one host: room for a proxy, behind which everybody has the same address.
pub(super) const CONNECTIONS_PER_HOST_MAX: usize = 128;

/// Largest head of a request, and buffer for what is sent, in bytes. No path here is longer than 64.
pub(super) const BUFFER_SIZE_BYTES: usize = 16 * 1024;

/// Most headers of a request.
pub(super) const HEADERS_MAX: usize = 64;

/// How long a client may take for the headers of a request, and how long a connection may be idle.
pub(super) const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an answer may take to begin.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be used before it is closed behind the answer in progress.
pub(super) const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);

/// How long the last answer of a connection may take: a client that reads slower loses it.
pub(super) const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long answers in progress may take when the server is told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Most reads of the storage at once, so that the replica's own work finds the disk free.
pub(super) const READS_MAX: usize = 4;

/// Bytes of entries that are read at a time; one entry more may come on top.
pub(super) const CHUNK_SIZE_BYTES: usize = 64 * 1024;

/// How old the head may be that answers are given from. It bounds how often the replica's task is asked.
pub(super) const HEAD_AGE_MAX: Duration = Duration::from_millis(200);
