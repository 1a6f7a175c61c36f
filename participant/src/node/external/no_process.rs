//! Where processes cannot be supervised, none are started.

use std::{io, path::Path, process::ExitStatus};

use tokio_util::sync::CancellationToken;

use super::{
    output::Output,
    program::{Excess, Limits, Program},
    results::Progress,
};

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ended: Ended,
    /// The most memory that its processes were seen to have, in bytes.
    pub peak_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Its time was up.
    TimeUp,
    /// It used too much.
    Exceeded(Excess),
    /// The node has no use for it any more.
    Cancelled,
}

/// Refuses.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`], always.
pub async fn run(
    _program: &Program,
    _folder: &Path,
    _limits: Limits,
    _processors: &[usize],
    _stop: &CancellationToken,
    _output: &mut Output,
    _tell: impl FnMut(Progress),
) -> io::Result<Run> {
    Err(io::ErrorKind::Unsupported.into())
}
