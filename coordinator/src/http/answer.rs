//! Requests and their answers.

use std::sync::Arc;

use bytes::Bytes;
use fedledger_ledger::tiles::{Content, Tile};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    backend::{Condition, TileBackend},
    body::{self, Body},
    head::Heads,
    limits::ANSWER_TIMEOUT,
    reader::Reader,
    route::Route,
};
use crate::api::ReadError;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The head changes all the time, so it is asked for anew each time.
const FRESH: HeaderValue = HeaderValue::from_static("no-cache");
/// Tiles never change.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// What is not there now may be there in a moment.
const NEVER: HeaderValue = HeaderValue::from_static("no-store");

/// What requests are answered from.
pub(super) struct Site<B> {
    backend: Arc<B>,
    heads: Heads,
    reader: Reader,
}

/// A request that is answered with an error.
enum Refusal {
    /// There is nothing at that path, or not yet.
    NotFound,
    /// The replica cannot answer now.
    Read(ReadError),
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl<B: TileBackend> Site<B> {
    /// Answers for a replica. Reads are tracked by `open`.
    pub fn new(backend: Arc<B>, open: TaskTracker) -> Self {
        let reader = Reader::new(backend.storage(), open);
        Self { backend, heads: Heads::default(), reader }
    }

    /// The answer to a request, whose body is not read.
    pub async fn answer<T>(&self, request: &Request<T>) -> Response<Body> {
        let head_only = request.method() == Method::HEAD;
        if !head_only && request.method() != Method::GET {
            let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are understood\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let Some(route) = Route::of(request.uri().path()) else { return not_found() };
        let answered = async {
            match route {
                Route::Health => Ok(health(self.backend.condition())),
                Route::Readiness => Ok(readiness(self.backend.condition())),
                Route::Checkpoint => self.checkpoint().await,
                Route::Tile(tile) => self.tile(tile, head_only).await,
            }
        };
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(Refusal::NotFound)) => not_found(),
            Ok(Err(Refusal::Read(error))) => unreadable(&error),
            Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "this replica has too much to do: try again later\n"),
        }
    }

    async fn checkpoint(&self) -> Result<Response<Body>, Refusal> {
        let head = self.heads.get(&*self.backend).await?.ok_or(Refusal::NotFound)?;
        Ok(response(StatusCode::OK, TEXT, FRESH, body::whole(head.note)))
    }

    async fn tile(&self, tile: Tile, head_only: bool) -> Result<Response<Body>, Refusal> {
        let head = self.heads.get(&*self.backend).await?;
        if !head.is_some_and(|head| tile.is_within(head.size)) {
            return Err(Refusal::NotFound);
        }
        let immutable = |body| response(StatusCode::OK, BYTES, FOR_EVER, body);
        match tile.content() {
            Content::Hashes { .. } => Ok(immutable(body::whole(self.reader.hashes(tile).await?))),
            // Its length is known only when it has been read.
            Content::Entries if head_only => Ok(immutable(body::whole(Bytes::new()))),
            Content::Entries => {
                let range = tile.rows();
                let first = self.reader.entries(range.clone()).await?;
                if first.next >= range.end {
                    return Ok(immutable(body::whole(first.bytes)));
                }
                Ok(immutable(body::entries(self.reader.clone(), first, range.end)))
            }
        }
    }
}

fn response(status: StatusCode, kind: HeaderValue, caching: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, caching);
    // Entries hold bytes that members have chosen; no browser is to take them for anything else.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn error(status: StatusCode, text: &'static str) -> Response<Body> {
    response(status, TEXT, NEVER, body::whole(text))
}

fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "there is nothing here, or the last checkpoint does not cover it yet\n")
}

/// The error is the business of the replica's own people.
fn unreadable(cause: &ReadError) -> Response<Body> {
    match cause {
        ReadError::Busy
        | ReadError::Stopping
        | ReadError::NoProof { .. }
        | ReadError::NoConsistency { .. }
        | ReadError::NoFinalState
        | ReadError::RecordChanges
        | ReadError::RecordTooLarge { .. } => {
            error(StatusCode::SERVICE_UNAVAILABLE, "this replica cannot answer now: ask another one\n")
        }
        ReadError::Storage(_) | ReadError::Blob(_) => {
            tracing::error!(error = %cause, "a request over HTTP cannot be answered");
            error(StatusCode::INTERNAL_SERVER_ERROR, "this replica cannot read its storage: ask another one\n")
        }
    }
}

fn health(condition: Condition) -> Response<Body> {
    match condition {
        Condition::Ready | Condition::Leaderless => fine(),
        Condition::Stopped => stopped(),
    }
}

fn readiness(condition: Condition) -> Response<Body> {
    match condition {
        Condition::Ready => fine(),
        Condition::Leaderless => error(StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n"),
        Condition::Stopped => stopped(),
    }
}

fn fine() -> Response<Body> {
    response(StatusCode::OK, TEXT, NEVER, body::whole("ok\n"))
}

fn stopped() -> Response<Body> {
    error(StatusCode::SERVICE_UNAVAILABLE, "the replica has stopped\n")
}
