//! `fedledger evidence`: files that convict whoever has signed two histories: making, checking, recording and listing them.

mod check;
mod make;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fedledger_federation::{
    Command,
    governance::{EvidenceRecord, RecordEvidence},
    history::Keep,
};
use fedledger_ledger::{
    Digest,
    evidence::{EVIDENCE_SIZE_BYTES_MAX, Evidence},
    note::VerifierKey,
};
use serde::Serialize;
use serde_json::json;

pub(crate) use self::check::check;
use crate::{
    context::{Context, read_file},
    error::{Exit, Failure},
    names::short_digest,
    output::{Table, list},
    trust::{Trust, TrustArgs},
    writing::Writer,
};

/// What to do with evidence.
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Say who has signed two histories, offline
    Check(CheckArgs),
    /// Make evidence of two signed heads that contradict each other
    Make(make::MakeArgs),
    /// Put evidence on the ledger
    Submit {
        /// The evidence
        file: PathBuf,
    },
    /// List the evidence on the ledger
    List,
}

/// Arguments of `fedledger evidence check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The evidence
    file: PathBuf,
    /// A key that you trust to be somebody's, as it stands in a policy (may be repeated)
    #[arg(long, value_name = "VKEY")]
    key: Vec<VerifierKey>,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(Debug, Serialize)]
struct EvidenceRow<'a> {
    evidence: Digest,
    #[serde(flatten)]
    record: &'a EvidenceRecord,
}

/// Makes, checks, records or lists evidence.
pub(crate) fn run(context: &Context, command: EvidenceCommand) -> Result<(), Failure> {
    match command {
        EvidenceCommand::Check(args) => {
            let is_by_hand = !args.key.is_empty() && args.trust.policy.is_none() && args.trust.trust.is_none();
            let mut signers = if is_by_hand { Default::default() } else { Trust::read(&args.trust)?.signers() };
            args.key.into_iter().for_each(|key| signers.add_key(key));
            check(context, &args.file, &signers)
        }
        EvidenceCommand::Make(args) => make::run(context, &args),
        EvidenceCommand::Submit { file } => submit(context, &file),
        EvidenceCommand::List => list_evidence(context),
    }
}

fn submit(context: &Context, file: &Path) -> Result<(), Failure> {
    let evidence = read_file(file, EVIDENCE_SIZE_BYTES_MAX as u64)?;
    // What is none is told here, and not by a rejection that stands on the ledger.
    if let Err(error) = Evidence::from_bytes(&evidence) {
        return Err(Failure::because(Exit::Mismatch, format!("{} is no evidence", file.display()), error));
    }
    let writer = Writer::connect(context)?;
    let about = json!({ "file": file.display().to_string(), "sha256": Digest::of(&evidence) });
    let command = Command::RecordEvidence(RecordEvidence { evidence });
    let submitted = writer.submit(context, &command)?;
    writer.show(context, &command, &submitted, about, || format!("recorded {}", file.display()))
}

fn list_evidence(context: &Context) -> Result<(), Failure> {
    let (_, history) = context.history(Keep::State)?;
    let rows = history.state().evidence().iter().map(|(id, record)| EvidenceRow { evidence: *id, record });
    let mut rows: Vec<EvidenceRow<'_>> = rows.collect();
    rows.sort_by_key(|row| row.record.index);
    context.output.array(&rows, || {
        if rows.is_empty() {
            return "nobody is recorded to have signed two histories".to_owned();
        }
        let mut table = Table::new(&["evidence", "entry", "signed two histories"]);
        for row in &rows {
            let (index, culprits) = (row.record.index.to_string(), list(&row.record.culprits));
            table.row(vec![short_digest(&row.evidence), index, culprits]);
        }
        context.output.table(&table)
    })
}
