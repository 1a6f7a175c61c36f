//! Bodies of answers: whole, or entries as they are read.

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;

use super::reader::{Chunk, Reader};
use crate::api::ReadError;

/// The body of an answer. A read that fails on the way breaks the connection, so that no client takes half for the whole.
pub(super) type Body = Either<Full<Bytes>, StreamBody<Chunks>>;

type Chunks = BoxStream<'static, Result<Frame<Bytes>, ReadError>>;

/// Bytes that are there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// The entries from `first` on up to `end`, of which one chunk at a time is held.
pub(super) fn entries(reader: Reader, first: Chunk, end: u64) -> Body {
    let Chunk { bytes, next } = first;
    let rest = stream::try_unfold((reader, next), move |(reader, next)| async move {
        if next >= end {
            return Ok(None);
        }
        let read = reader.entries(next..end).await;
        let chunk = read.inspect_err(|error| tracing::error!(%error, next, "entries cannot be read"))?;
        Ok(Some((Frame::data(chunk.bytes), (reader, chunk.next))))
    });
    let all = stream::once(async { Ok(Frame::data(bytes)) }).chain(rest);
    Either::Right(StreamBody::new(all.boxed()))
}
