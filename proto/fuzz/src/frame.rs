//! Streams of frames that arrive in pieces of any size.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use fedledger_proto::wire::frame::{FrameError, FrameReader, write_frame};
use futures::AsyncRead;
use tokio::runtime::{Builder, Runtime};

/// Size of a frame's header.
const HEADER_BYTES: usize = 4;

/// Bytes that arrive a few at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = self.size.min(buffer.len()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(count);
        buffer[..count].copy_from_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(count))
    }
}

/// Reads the bytes as a stream; the first two say how large frames may be and in what pieces they arrive.
pub fn run(data: &[u8]) {
    thread_local! {
        // Frames are read under a timeout, which takes a clock.
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
    }
    let [limit, size, stream @ ..] = data else { return };
    let pieces = Pieces { rest: stream, size: usize::from(*size) + 1 };
    RUNTIME.with(|runtime| runtime.block_on(check(pieces, stream, usize::from(*limit) * 16)));
}

async fn check(mut pieces: Pieces<'_>, stream: &[u8], limit: usize) {
    let (mut reader, mut written) = (FrameReader::default(), Vec::new());
    let end = loop {
        match reader.next(&mut pieces, limit).await {
            Ok(Some(body)) => {
                assert!(body.len() <= limit, "{} bytes were taken where {limit} are allowed", body.len());
                write_frame(&mut written, &body, limit).await.expect("what was read can be written");
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(stream.starts_with(&written), "frames are read as they were written");
    let rest = &stream[written.len()..];
    let announced = rest.first_chunk().map(|header: &[u8; HEADER_BYTES]| u32::from_be_bytes(*header) as usize);
    match end {
        None => assert!(rest.is_empty(), "the stream was left before its end"),
        Some(FrameError::TooLarge { size, limit }) => assert!(announced == Some(size) && size > limit),
        Some(FrameError::Truncated) => {
            assert!(announced.is_none_or(|size| rest.len() < HEADER_BYTES + size), "a whole frame was refused");
        }
        Some(error) => panic!("memory can be read: {error}"),
    }
}
