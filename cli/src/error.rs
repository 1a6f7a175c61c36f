//! What a command that fails tells people, and the exit code that it tells programs.

use std::{error::Error, fmt, io, path::Path, process::ExitCode};

use fedledger_federation::{
    audit::AuditError,
    history::{ExportError, HistoryError, SourceError, TilesError},
};
use fedledger_ledger::bundle::BundleWriteError;
use fedledger_proto::{
    api::{ApiCode, ApiError, Conflict},
    kit::{KitError, SiteError},
};

use crate::source::OpenError;

/// What to do about a damaged ledger.
pub(crate) const DAMAGE_ADVICE: &str =
    "`fedledger verify` names every place that is damaged; read another replica's ledger meanwhile";

/// What to do about two histories of one ledger.
const FORK_ADVICE: &str = "keep both as evidence, and ask other members for the checkpoints that they have kept";

/// What to do about a replica that does not answer in time.
const TIMED_OUT_ADVICE: &str = "look at `fedledger status`: a majority of the replicas must reach each other; \
                                the transaction may still be committed, see `fedledger events`";

/// Why a command does not succeed. The numbers are the exit codes, which never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// It was called in the wrong way.
    Usage = 2,
    /// Verification found tampering or a mismatch.
    Mismatch = 3,
    /// Policy or governance refused.
    Refused = 4,
    /// Nothing happened in time, or there is no quorum.
    TimedOut = 5,
}

/// A command that does not succeed: what happened, why, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    why: Option<String>,
    next: Option<String>,
    /// Whether the reader of the output has gone away, about which nobody needs to be told.
    output_closed: bool,
}

impl Failure {
    /// A failure of which `what` says everything.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: None, next: None, output_closed: false }
    }

    /// A failure with its cause.
    pub fn because(exit: Exit, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { why: Some(why.to_string()), ..Self::new(exit, what) }
    }

    /// A file or directory that the system does not let us use.
    pub fn io(doing: &str, path: &Path, source: &io::Error) -> Self {
        Self::because(Exit::Failed, format!("cannot {doing} {}", path.display()), source)
    }

    /// Adds what to do next.
    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// Puts what was being done before what happened.
    pub fn while_doing(self, doing: &str) -> Self {
        let why = match self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what,
        };
        Self { what: doing.to_owned(), why: Some(why), ..self }
    }

    /// Tells people on stderr, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if self.output_closed {
            return ExitCode::SUCCESS;
        }
        // Line by line, as there is nothing left to do if stderr is gone, too.
        let mut lines = vec![format!("error: {}", self.what)];
        lines.extend(self.why.as_ref().map(|why| format!("  why: {why}")));
        lines.extend(self.next.as_ref().map(|next| format!("  next: {next}")));
        let _ = io::Write::write_all(&mut io::stderr(), (lines.join("\n") + "\n").as_bytes());
        ExitCode::from(self.exit as u8)
    }

    /// Output that cannot be written.
    pub fn output(source: &io::Error) -> Self {
        Self {
            output_closed: source.kind() == io::ErrorKind::BrokenPipe,
            ..Self::because(Exit::Failed, "cannot write the output", source)
        }
    }
}

impl From<KitError> for Failure {
    fn from(error: KitError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<SiteError> for Failure {
    fn from(error: SiteError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let damage = error.is_damage();
        let exit = if damage { Exit::Mismatch } else { Exit::Failed };
        let failure = Self::because(exit, "cannot open the ledger", &error);
        if damage { failure.next(DAMAGE_ADVICE) } else { failure }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::from(&error)
    }
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        if let ApiError::Conflict(conflict) = error {
            return Self::from(&**conflict);
        }
        let exit = match error {
            ApiError::Head { .. } => Exit::Mismatch,
            ApiError::Rejected { .. } => Exit::Refused,
            ApiError::TimedOut { .. } => Exit::TimedOut,
            ApiError::NoReplica { tried } => tried.first().map_or(Exit::Failed, |first| Self::from(first).exit),
            ApiError::Refused(refused) => match refused.code {
                ApiCode::Unauthenticated | ApiCode::UnknownMember | ApiCode::NotPermitted => Exit::Refused,
                ApiCode::NoLeader | ApiCode::Busy | ApiCode::TimedOut | ApiCode::NotFinal | ApiCode::Stopping => {
                    Exit::TimedOut
                }
                ApiCode::Contradicts => Exit::Mismatch,
                _ => Exit::Failed,
            },
            ApiError::Url { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        let failure = Self::because(exit, "the replica did not do it", format!("{error} ({})", error.code()));
        match error {
            ApiError::Unreachable { .. } | ApiError::NoReplica { .. } => {
                failure.next("start the replica, name another one with --connect, or read offline with --ledger")
            }
            ApiError::TimedOut { .. } => failure.next(TIMED_OUT_ADVICE),
            ApiError::Refused(refused) if refused.code == ApiCode::NoLeader => {
                failure.next("check with `fedledger status` that a majority of the replicas runs, then try again")
            }
            _ => failure,
        }
    }
}

impl From<&Conflict> for Failure {
    fn from(conflict: &Conflict) -> Self {
        let failure = Self::because(Exit::Mismatch, "the ledger has two histories", conflict);
        let files: Vec<String> = conflict.kept.iter().map(|file| file.display().to_string()).collect();
        let what = match (files.is_empty(), conflict.evidence.is_some()) {
            (true, _) => "keep what this says: the two heads could not be kept as files".to_owned(),
            (false, false) => format!("both signed heads are kept in {}", files.join(" and ")),
            (false, true) => {
                format!("both signed heads and the evidence against who signed them are kept in {}", files.join(", "))
            }
        };
        failure.next(format!(
            "{what}; show them to the other members, and ask another replica (--connect) which history it has"
        ))
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        if let SourceError::Io(io) = &error
            && let Some(api) = io.get_ref().and_then(|inner| inner.downcast_ref::<ApiError>())
        {
            return Self::from(api);
        }
        let damage = error.is_damage();
        let exit = if damage { Exit::Mismatch } else { Exit::Failed };
        let failure = Self::because(exit, "the ledger cannot be read", &error);
        if damage { failure.next(DAMAGE_ADVICE) } else { failure }
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Source(error) => error.into(),
            error => Self::because(Exit::Mismatch, "the history is not in order", error).next(DAMAGE_ADVICE),
        }
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Source(error) => error.into(),
            AuditError::Damaged { .. } | AuditError::Weights { .. } => {
                Self::new(Exit::Mismatch, error.to_string()).next("fetch the file from another replica")
            }
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::History(error) => error.into(),
            ExportError::Prove(error) => {
                Self::because(Exit::Mismatch, "the history cannot be exported", error).next(DAMAGE_ADVICE)
            }
            ExportError::Changed { .. } => Self::because(Exit::Failed, "the history cannot be exported", error),
            ExportError::Write(error) => error.into(),
        }
    }
}

impl From<TilesError> for Failure {
    fn from(error: TilesError) -> Self {
        let what = "the tiles cannot be written";
        match error {
            TilesError::Source(error) => error.into(),
            TilesError::Fork { .. } => Self::because(Exit::Mismatch, what, error).next(FORK_ADVICE),
            TilesError::Missing { .. } | TilesError::Root { .. } | TilesError::Genesis(_) => {
                Self::because(Exit::Mismatch, what, error).next(DAMAGE_ADVICE)
            }
            TilesError::OtherLog { .. } | TilesError::Shorter { .. } => {
                Self::because(Exit::Failed, what, error).next("name another directory")
            }
            TilesError::NoCheckpoint | TilesError::Tile(_) => Self::because(Exit::Failed, what, error),
        }
    }
}

impl From<BundleWriteError> for Failure {
    fn from(error: BundleWriteError) -> Self {
        Self::because(Exit::Failed, "the bundle cannot be written", error)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Many errors repeat their cause.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
