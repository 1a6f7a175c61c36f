//! Frames: a big-endian `u32` length and that many bytes.
//!
//! The limit is checked before anything is allocated, and the buffer grows with what has arrived, so that announcing a
//! large frame costs its sender as many bytes as it costs the receiver. Whoever stops in the middle of a frame is given
//! up after [`STALL_TIMEOUT`].

use std::{future::Future, io, time::Duration};

use fedledger_ledger::codec::{self, CodecError};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

/// How long a transfer may make no progress at all.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes by which the buffer of an arriving frame grows.
const GROWTH_BYTES: usize = 64 * 1024;

/// Size of a frame's header.
const HEADER_BYTES: usize = size_of::<u32>();

/// A frame that could not be read or written. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than the protocol allows; nothing was allocated or sent.
    #[error("frame of {size} bytes, at most {limit} are allowed here")]
    TooLarge {
        /// Size of the frame, in bytes.
        size: usize,
        /// Largest size allowed, in bytes.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// No byte could be read or written for [`STALL_TIMEOUT`].
    #[error("no progress for {} seconds", STALL_TIMEOUT.as_secs())]
    Stalled,
    /// The frame holds something else than the expected message.
    #[error("unexpected message: {0}")]
    Message(#[from] CodecError),
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames one after the other. What has arrived of a frame stays here, so a read may be abandoned and taken up
/// again.
#[derive(Debug, Default)]
pub struct FrameReader {
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body: Vec<u8>,
    body_filled: usize,
}

impl FrameReader {
    /// Reads one frame of at most `limit` bytes; `None` if the stream ended before its first byte.
    ///
    /// Waits without limit for the first byte, since the other side may have nothing to say. Cancellation safe.
    ///
    /// # Errors
    ///
    /// [`FrameError`].
    pub async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, FrameError> {
        while self.header_filled < HEADER_BYTES {
            let room = self.header.get_mut(self.header_filled..).unwrap_or_default();
            let first = self.header_filled == 0;
            let read = if first { reader.read(room).await? } else { read_some(reader, room).await? };
            if read == 0 {
                return if first { Ok(None) } else { Err(FrameError::Truncated) };
            }
            self.header_filled += read;
        }
        let size = usize::try_from(u32::from_be_bytes(self.header)).unwrap_or(usize::MAX);
        if size > limit {
            return Err(FrameError::TooLarge { size, limit });
        }
        while self.body_filled < size {
            if self.body_filled == self.body.len() {
                self.body.resize(size.min(self.body_filled + GROWTH_BYTES), 0);
            }
            let read = read_some(reader, self.body.get_mut(self.body_filled..).unwrap_or_default()).await?;
            if read == 0 {
                return Err(FrameError::Truncated);
            }
            self.body_filled += read;
        }
        Ok(Some(std::mem::take(self).body))
    }
}

/// Reads one frame, as [`FrameReader::next`], if it is not to be abandoned halfway.
///
/// # Errors
///
/// [`FrameError`].
pub async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R, limit: usize) -> Result<Option<Vec<u8>>, FrameError> {
    FrameReader::default().next(reader, limit).await
}

/// Writes one frame and flushes it.
///
/// # Errors
///
/// [`FrameError`]; nothing is written if the frame is too large.
pub async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, body: &[u8], limit: usize) -> Result<(), FrameError> {
    feed_frame(writer, body, limit).await?;
    flush(writer).await
}

/// Writes one frame without flushing it, so that several can travel together.
///
/// # Errors
///
/// [`FrameError`]; nothing is written if the frame is too large.
pub async fn feed_frame<W: AsyncWrite + Unpin>(writer: &mut W, body: &[u8], limit: usize) -> Result<(), FrameError> {
    let too_large = FrameError::TooLarge { size: body.len(), limit };
    let Some(size) = u32::try_from(body.len()).ok().filter(|_| body.len() <= limit) else {
        return Err(too_large);
    };
    // One buffer, so that header and body share a packet.
    let frame = [size.to_be_bytes().as_slice(), body].concat();
    write_all(writer, &frame).await
}

/// Reads one frame and decodes its message.
///
/// # Errors
///
/// [`FrameError`].
pub async fn read_message<T, R>(reader: &mut R, limit: usize) -> Result<Option<T>, FrameError>
where
    T: Serialize + DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let Some(body) = read_frame(reader, limit).await? else { return Ok(None) };
    Ok(Some(codec::decode(&body, limit)?))
}

/// Encodes a message and writes it as one frame.
///
/// # Errors
///
/// [`FrameError`].
pub async fn write_message<T, W>(writer: &mut W, message: &T, limit: usize) -> Result<(), FrameError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    write_frame(writer, &codec::encode(message), limit).await
}

/// Writes all of `bytes`, however long it takes, as long as it goes on.
///
/// # Errors
///
/// [`FrameError::Stalled`] or [`FrameError::Io`].
pub async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> Result<(), FrameError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write_some(writer, rest).await?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Writes some of `bytes`, at least one unless there is none, and returns how many.
///
/// # Errors
///
/// [`FrameError::Stalled`] or [`FrameError::Io`].
pub async fn write_some<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> Result<usize, FrameError> {
    match progress(writer.write(bytes)).await? {
        0 if !bytes.is_empty() => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
        written => Ok(written),
    }
}

/// Flushes what was written.
///
/// # Errors
///
/// [`FrameError::Stalled`] or [`FrameError::Io`].
pub async fn flush<W: AsyncWrite + Unpin>(writer: &mut W) -> Result<(), FrameError> {
    progress(writer.flush()).await
}

/// Reads some bytes, at least one unless the stream has ended or `buffer` is empty.
///
/// # Errors
///
/// [`FrameError::Stalled`] or [`FrameError::Io`].
pub async fn read_some<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut [u8]) -> Result<usize, FrameError> {
    progress(reader.read(buffer)).await
}

async fn progress<T>(operation: impl Future<Output = io::Result<T>>) -> Result<T, FrameError> {
    within(STALL_TIMEOUT, operation).await
}

async fn within<T>(patience: Duration, operation: impl Future<Output = io::Result<T>>) -> Result<T, FrameError> {
    timeout(patience, operation).await.map_err(|_| FrameError::Stalled)?.map_err(FrameError::Io)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::{FutureExt as _, io::Cursor};
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 300;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        runtime().block_on(read_frame(&mut Cursor::new(bytes), LIMIT))
    }

    fn written(body: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
        let mut bytes = Vec::new();
        runtime().block_on(write_frame(&mut bytes, body, limit))?;
        Ok(bytes)
    }

    #[test]
    fn a_frame_is_a_big_endian_length_and_the_bytes() {
        assert_eq!(written(b"abc", LIMIT).unwrap(), b"\0\0\0\x03abc");
        assert_eq!(read(b"\0\0\0\x03abcd").unwrap().unwrap(), b"abc");
        assert_eq!(read(b"\0\0\0\0").unwrap().unwrap(), b"");
    }

    #[test]
    fn the_end_of_the_stream_is_clean_only_between_frames() {
        assert!(matches!(read(b""), Ok(None)));
        assert!(matches!(read(b"\0\0"), Err(FrameError::Truncated)));
        assert!(matches!(read(b"\0\0\0\x02a"), Err(FrameError::Truncated)));
    }

    #[test]
    fn an_oversized_frame_is_refused_by_both_sides() {
        assert!(matches!(read(b"\xff\xff\xff\xff"), Err(FrameError::TooLarge { limit: LIMIT, .. })));
        assert!(matches!(written(&[0; 5], 4), Err(FrameError::TooLarge { size: 5, limit: 4 })));
    }

    #[test]
    fn an_abandoned_read_is_taken_up_where_it_was() {
        /// Gives one byte at a time, and nothing in between.
        struct Hesitant<'a>(&'a [u8], bool);
        impl AsyncRead for Hesitant<'_> {
            fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
                self.1 = !self.1;
                if self.1 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let room = &mut room[..1];
                Pin::new(&mut self.0).poll_read(cx, room)
            }
        }
        let bytes = written(b"abc", LIMIT).unwrap().repeat(2);
        let mut stream = Hesitant(&bytes, false);
        let mut frames = FrameReader::default();
        let mut found = Vec::new();
        runtime().block_on(async {
            while found.len() < 2 {
                // Polled once and dropped, over and over.
                if let Some(frame) = frames.next(&mut stream, LIMIT).now_or_never() {
                    found.push(frame.unwrap().unwrap());
                }
            }
        });
        assert_eq!(found, [b"abc", b"abc"]);
    }

    #[test]
    fn an_operation_without_progress_is_given_up() {
        let result = runtime().block_on(within(Duration::ZERO, std::future::pending::<io::Result<()>>()));
        assert!(matches!(result, Err(FrameError::Stalled)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_yield_more_than_was_sent(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            small_length in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if small_length {
                bytes.iter_mut().take(2).for_each(|byte| *byte = 0);
            }
            match read(&bytes) {
                Ok(None) => prop_assert!(bytes.is_empty()),
                Ok(Some(body)) => {
                    prop_assert!(body.len() <= LIMIT);
                    prop_assert_eq!(&written(&body, LIMIT).unwrap(), &bytes[..HEADER_BYTES + body.len()]);
                }
                Err(error) => {
                    let expected = matches!(error, FrameError::TooLarge { .. } | FrameError::Truncated);
                    prop_assert!(expected, "{}", error);
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(body in prop::collection::vec(any::<u8>(), 0..LIMIT)) {
            prop_assert_eq!(read(&written(&body, LIMIT).unwrap()).unwrap(), Some(body));
        }
    }
}
