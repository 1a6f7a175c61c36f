//! Copying a blob's chunks to or from a stream.
//!
//! Disks and hashing block, so they have threads of their own; a chunk that is being written when a transfer is given up
//! is still written, and only then is the file left to the next one.

use std::{io, time::Duration};

use fedledger_ledger::Digest;
use tokio::time::Instant;

use super::{BlobError, pace::Pace};
use crate::{
    blobs::{BlobSink, BlobSource, Progress},
    endpoint::{
        bandwidth::{Bandwidth, Direction},
        slots::Slot,
    },
    wire::{CHUNK_BYTES, FrameError, frame},
};

/// Size of the mark before each chunk.
const MARK_BYTES: usize = 32;

/// How often a long transfer tells how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// One blob that travels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub bandwidth: &'a Bandwidth,
    pub digest: Digest,
    /// Size of the whole blob, in bytes.
    pub size: u64,
}

/// The part of a transfer that is behind it.
struct Course {
    digest: Digest,
    size: u64,
    done: u64,
    tell_at: Instant,
    verb: &'static str,
    pace: Pace,
    slot: Slot,
}

impl Course {
    fn new(transfer: &Transfer<'_>, offset: u64, verb: &'static str, slot: Slot) -> Self {
        if offset > 0 {
            transfer.bandwidth.count_resumed();
            tracing::info!(digest = %transfer.digest, offset, size = transfer.size, "{verb} the rest of a file");
        }
        let tell_at = Instant::now() + TELL_INTERVAL;
        let Transfer { digest, size, .. } = *transfer;
        Self { digest, size, done: offset, tell_at, verb, pace: Pace::default(), slot }
    }

    /// Bytes of the next chunk; 0 at the end.
    fn chunk_bytes(&self) -> usize {
        usize::try_from(self.size.saturating_sub(self.done)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
    }

    fn advance(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes as u64);
        self.pace.complete_chunk();
        self.slot.complete_chunk();
        let now = Instant::now();
        if now >= self.tell_at {
            self.tell_at = now + TELL_INTERVAL;
            let percent = self.done.saturating_mul(100).checked_div(self.size).unwrap_or(100);
            tracing::info!(digest = %self.digest, done = self.done, size = self.size, percent, "{} a file", self.verb);
        }
    }

    /// Waits for the peer to take or give some bytes, and returns how many; fails if it does not keep up.
    async fn wait(&mut self, some: impl Future<Output = Result<usize, FrameError>>) -> Result<usize, BlobError> {
        let begun = Instant::now();
        let bytes = self.slot.hold_while(some).await?;
        if self.pace.keeps_up(begun.elapsed(), bytes) {
            Ok(bytes)
        } else {
            Err(BlobError::TooSlow { done: self.done, size: self.size })
        }
    }
}

/// Takes the chunks that are missing from the stream, and verifies them one by one.
pub(super) async fn receive<R, S>(
    transfer: Transfer<'_>,
    stream: &mut R,
    mut sink: S,
    slot: Slot,
) -> Result<S, BlobError>
where
    R: futures::AsyncRead + Unpin,
    S: BlobSink,
{
    let offset = sink.progress().bytes();
    let mut course = Course::new(&transfer, offset, "receiving", slot);
    let mut chunk = Vec::new();
    while course.chunk_bytes() > 0 {
        let bytes = course.chunk_bytes();
        chunk.resize(bytes, 0);
        let mark = match read_chunk(transfer.bandwidth, stream, &mut course, &mut chunk).await? {
            Read::Whole(mark) => mark,
            Read::Part(read) => {
                let received = course.done.saturating_add(read);
                return Err(BlobError::Truncated { received, size: transfer.size });
            }
        };
        let is_last = bytes as u64 == transfer.size.saturating_sub(course.done);
        let announced = Announced { mark, digest: is_last.then_some(transfer.digest), is_alone: offset == 0 };
        let stored = blocking(move || {
            let stored = store(&mut sink, &chunk, announced);
            (sink, chunk, stored)
        });
        let stored = stored.await?;
        (sink, chunk) = (stored.0, stored.1);
        stored.2?;
        course.advance(bytes);
    }
    if transfer.size == 0 && transfer.digest != Digest::of(b"") {
        return Err(BlobError::WrongContent { expected: transfer.digest, found: Digest::of(b"") });
    }
    Ok(sink)
}

/// What came of a chunk.
enum Read {
    Whole(Digest),
    /// The stream ended after so many of its bytes.
    Part(u64),
}

async fn read_chunk<R>(
    bandwidth: &Bandwidth,
    stream: &mut R,
    course: &mut Course,
    chunk: &mut [u8],
) -> Result<Read, BlobError>
where
    R: futures::AsyncRead + Unpin,
{
    let mut mark = [0; MARK_BYTES];
    let direction = &bandwidth.download;
    if fill(direction, stream, course, &mut mark).await? < MARK_BYTES {
        return Ok(Read::Part(0));
    }
    let filled = fill(direction, stream, course, chunk).await?;
    let is_whole = filled == chunk.len();
    Ok(if is_whole { Read::Whole(Digest::from_bytes(mark)) } else { Read::Part(filled as u64) })
}

/// Reads until the buffer is full or the stream has ended.
async fn fill<R>(
    direction: &Direction,
    stream: &mut R,
    course: &mut Course,
    buffer: &mut [u8],
) -> Result<usize, BlobError>
where
    R: futures::AsyncRead + Unpin,
{
    let mut filled = 0usize;
    while filled < buffer.len() {
        let end = filled.saturating_add(direction.piece(buffer.len().saturating_sub(filled)));
        let read = course.wait(frame::read_some(stream, buffer.get_mut(filled..end).unwrap_or_default())).await?;
        if read == 0 {
            break;
        }
        filled = filled.saturating_add(read);
        direction.take(read).await;
    }
    Ok(filled)
}

/// What is known of a chunk before it is verified.
struct Announced {
    /// What the peer has recorded of it.
    mark: Digest,
    /// The digest of the whole blob, if this is the last chunk.
    digest: Option<Digest>,
    /// Whether all the chunks before it came from the same peer.
    is_alone: bool,
}

/// Verifies a chunk, then keeps it. The last one must lead to the digest of the whole blob.
fn store<S: BlobSink>(sink: &mut S, chunk: &[u8], announced: Announced) -> Result<(), BlobError> {
    let Announced { mark, digest, is_alone } = announced;
    let step = sink.progress().step(chunk);
    if step.mark() != mark {
        return Err(BlobError::WrongChunk { offset: sink.progress().bytes(), expected: mark, found: step.mark() });
    }
    if let Some(expected) = digest.filter(|digest| *digest != mark) {
        // Every chunk was what the peer had announced: these are the chunks of another file. Those before it may still be
        // right if another peer sent them; whoever has the file will say.
        if is_alone {
            *sink.progress() = Progress::default();
            sink.clear().map_err(BlobError::Local)?;
        }
        return Err(BlobError::WrongContent { expected, found: mark });
    }
    sink.write(chunk).map_err(BlobError::Local)?;
    sink.progress().take(step);
    Ok(())
}

/// Sends the chunks from `offset` on, each with its mark. The slot comes back, unless the peer was too slow for one.
pub(super) async fn send<W, S>(
    transfer: Transfer<'_>,
    stream: &mut W,
    mut source: S,
    offset: u64,
    slot: Slot,
) -> Result<Slot, BlobError>
where
    W: futures::AsyncWrite + Unpin,
    S: BlobSource,
{
    let mut course = Course::new(&transfer, offset, "sending", slot);
    let mut framed = Vec::new();
    while course.chunk_bytes() > 0 {
        let (bytes, offset) = (course.chunk_bytes(), course.done);
        framed.resize(MARK_BYTES.saturating_add(bytes), 0);
        let read = blocking(move || {
            let read = read_marked(&mut source, offset, &mut framed);
            (source, framed, read)
        });
        let read = read.await?;
        (source, framed) = (read.0, read.1);
        match read.2 {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BlobError::SourceTooShort { read: course.done, size: transfer.size });
            }
            Err(error) => return Err(BlobError::Local(error)),
        }
        write_pieces(&transfer.bandwidth.upload, stream, &mut course, &framed).await?;
        course.advance(bytes);
    }
    frame::flush(stream).await?;
    Ok(course.slot)
}

/// A mark and the chunk after it.
fn read_marked<S: BlobSource>(source: &mut S, offset: u64, framed: &mut [u8]) -> io::Result<()> {
    let no_mark = || io::Error::new(io::ErrorKind::InvalidInput, "the blob has no mark for this chunk");
    let mark = source.marks().at(offset).ok_or_else(no_mark)?;
    let Some((head, chunk)) = framed.split_first_chunk_mut::<MARK_BYTES>() else { return Err(no_mark()) };
    head.copy_from_slice(mark.as_bytes());
    source.read_at(offset, chunk)
}

async fn write_pieces<W>(
    direction: &Direction,
    stream: &mut W,
    course: &mut Course,
    bytes: &[u8],
) -> Result<(), BlobError>
where
    W: futures::AsyncWrite + Unpin,
{
    let mut rest = bytes;
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at_checked(direction.piece(rest.len())).unwrap_or((rest, &[]));
        direction.take(piece.len()).await;
        while !piece.is_empty() {
            let written = course.wait(frame::write_some(stream, piece)).await?;
            piece = piece.get(written..).unwrap_or_default();
        }
        rest = later;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BlobError::Local(io::Error::other(error)))
}
