//! Where processes cannot be supervised, none are started.

use std::{io, path::Path, process::ExitStatus};

use tokio_util::sync::CancellationToken;

use super::{
    output::Output,
    program::{Limits, Program},
    results::Progress,
};

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Its time was up.
    TimeUp,
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
    _stop: &CancellationToken,
    _output: &mut Output,
    _tell: impl FnMut(Progress),
) -> io::Result<Ended> {
    Err(io::ErrorKind::Unsupported.into())
}
