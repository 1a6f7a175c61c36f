//! Every bound of the API's server, with its reason.

use std::time::Duration;

/// Most connections at once: each may hold buffers of [`CONNECTION_WINDOW_SIZE_BYTES`].
pub(super) const CONNECTIONS_MAX: usize = 512;

/// Most connections from one host: room for the people and programs of a site behind one address.
pub(super) const CONNECTIONS_PER_HOST_MAX: usize = 64;

/// Most calls and streams in progress on one connection.
pub(super) const CALLS_PER_CONNECTION_MAX: u32 = 64;

/// Most calls in progress, streams aside: each holds at most one request and one response.
pub(super) const CALLS_MAX: usize = 1024;

/// Most calls in progress of one member, streams aside.
pub(super) const CALLS_PER_MEMBER_MAX: usize = 128;

/// Most streams, of entries and of blobs: each holds at most one entry or chunk.
pub(super) const STREAMS_MAX: usize = 512;

/// Most streams of one member.
pub(super) const STREAMS_PER_MEMBER_MAX: usize = 32;

/// Bytes that a client may send in one call before the server has read them: a whole request.
pub(super) const STREAM_WINDOW_SIZE_BYTES: u32 = 64 * 1024;

/// Bytes that a client may send on one connection before the server has read them.
pub(super) const CONNECTION_WINDOW_SIZE_BYTES: u32 = 512 * 1024;

/// Largest headers of a call, in bytes.
pub(super) const HEADERS_SIZE_BYTES_MAX: u32 = 16 * 1024;

/// After how long a silent connection is probed.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a probe may take.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call may take before it is given up; streams only until they begin.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// How long calls in progress may take when the server is told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How long nothing is accepted after the operating system refused to, for lack of file descriptors, say.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// After how many entries of a stream it is checked again that the client is still a member.
pub(super) const ENTRIES_PER_CHECK: u64 = 256;
