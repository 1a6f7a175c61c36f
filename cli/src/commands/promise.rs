//! `fedledger promise`: whether a replica has kept its word that a transaction would be on the ledger.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use fedledger_federation::{
    Federation,
    history::{History, Keep, Source as _},
};
use fedledger_ledger::{
    Digest, PublicKey,
    intake::{INTAKE_RECEIPT_SIZE_BYTES_MAX, IntakeReceipt},
    leaf::Leaf,
};
use serde::Serialize;

use crate::{
    context::{Context, read_file},
    error::{DAMAGE_ADVICE, Exit, Failure},
    finality::Sizes,
    source::Source,
};

/// The form of the result as JSON.
const PROMISE_SCHEMA: &str = "fedledger.promise/1";

/// Largest file: a promise in hexadecimal digits, and a newline.
const FILE_SIZE_BYTES_MAX: u64 = 2 * INTAKE_RECEIPT_SIZE_BYTES_MAX as u64 + 2;

/// What to do with promises.
#[derive(Debug, Subcommand)]
pub(crate) enum PromiseCommand {
    /// Hold a promise against a ledger: exit code 0 if it is kept, 3 if it is broken or none, 5 if it is still open
    Check {
        /// The promise, as `--promise FILE` has kept it, or in hexadecimal digits
        file: PathBuf,
    },
}

/// What has become of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The transaction is on the ledger, in time and final.
    Kept,
    /// It is not final, and its time has not passed under a final head.
    Open,
    /// Its time has passed under a final head, and it is not there, or was too late.
    Broken,
}

#[derive(Debug, Serialize)]
struct PromiseView {
    verdict: Verdict,
    file: String,
    /// SHA-256 of the transaction's envelope.
    transaction: Digest,
    by_index: u64,
    /// The key that has signed the promise.
    key: PublicKey,
    /// The replica whose key it is or was.
    replica: String,
    /// Where the transaction stands.
    index: Option<u64>,
    /// Whether it is final there.
    is_final: bool,
    /// Entries that are final.
    final_entries: u64,
}

/// Checks a promise.
pub(crate) fn run(context: &Context, command: &PromiseCommand) -> Result<(), Failure> {
    let PromiseCommand::Check { file } = command;
    let receipt = read(file)?;
    let (source, history) = context.history(Keep::State)?;
    let replica = verify(file, &receipt, &history)?;
    let final_entries = Sizes::of(&source, &history)?.final_size.min(history.log.size());
    let index = find(context, &source, &receipt.transaction)?;
    let verdict = match index {
        Some(index) if index <= receipt.by_index && index < final_entries => Verdict::Kept,
        _ if final_entries > receipt.by_index => Verdict::Broken,
        _ => Verdict::Open,
    };
    let view = PromiseView {
        verdict,
        file: file.display().to_string(),
        transaction: receipt.transaction,
        by_index: receipt.by_index,
        key: receipt.replica,
        replica,
        index,
        is_final: index.is_some_and(|index| index < final_entries),
        final_entries,
    };
    context.output.object(PROMISE_SCHEMA, &view, || view.text(context))?;
    view.outcome()
}

impl PromiseView {
    fn text(&self, context: &Context) -> String {
        let found = match self.index {
            Some(index) if self.is_final => format!("entry {index}, final"),
            Some(index) => format!("entry {index}, not final yet"),
            None => format!("not among the entries; {} of them are final", self.final_entries),
        };
        let output = &context.output;
        let verdict = match self.verdict {
            Verdict::Kept => output.good("the promise is kept"),
            Verdict::Open => "the promise is open".to_owned(),
            Verdict::Broken => output.bad("the promise is BROKEN"),
        };
        let Self { transaction, replica, by_index, .. } = self;
        format!(
            "transaction  {transaction}\npromised by  {replica}, by entry {by_index}\nfound        {found}\n{verdict}"
        )
    }

    fn outcome(&self) -> Result<(), Failure> {
        let Self { replica, by_index, .. } = self;
        match self.verdict {
            Verdict::Kept => Ok(()),
            Verdict::Open => Err(Failure::new(Exit::TimedOut, format!("entry {by_index} is not final yet"))
                .next("check again later; submitting the same transaction to another replica is safe")),
            Verdict::Broken => Err(Failure::because(
                Exit::Mismatch,
                format!("{replica} has broken its word"),
                format!("entry {by_index} is final, and the transaction is not at it or before"),
            )
            .next(
                "keep the promise and a bundle of this ledger (`fedledger export`): together they show it to anybody",
            )),
        }
    }
}

fn read(path: &Path) -> Result<IntakeReceipt, Failure> {
    let bytes = read_file(path, FILE_SIZE_BYTES_MAX)?;
    let digits = std::str::from_utf8(&bytes).ok().and_then(|text| hex::decode(text.trim_end()).ok());
    let receipt = IntakeReceipt::from_bytes(&digits.unwrap_or(bytes));
    receipt.map_err(|error| Failure::because(Exit::Mismatch, format!("{} is no promise", path.display()), error))
}

/// The replica that has given the promise.
fn verify(path: &Path, receipt: &IntakeReceipt, history: &History) -> Result<String, Failure> {
    let worthless = || format!("{} promises nothing", path.display());
    receipt
        .verify_signature(history.log.chain())
        .map_err(|error| Failure::because(Exit::Mismatch, worthless(), error))?;
    replica_of(history.state(), &receipt.replica).ok_or_else(|| {
        let why = format!("the key {} was never a replica's", receipt.replica);
        Failure::because(Exit::Mismatch, worthless(), why)
    })
}

/// The replica that signs transactions with this key, or did so in an earlier epoch.
fn replica_of(state: &Federation, key: &PublicKey) -> Option<String> {
    state.epochs().iter().find_map(|(_, epoch)| epoch.replica_of_author(key).map(str::to_owned))
}

/// Where a transaction stands.
fn find(context: &Context, source: &Source, transaction: &Digest) -> Result<Option<u64>, Failure> {
    let _progress = context.output.progress("looking for the transaction");
    for leaf in source.leaves()? {
        let leaf = Leaf::from_bytes(&leaf?)
            .map_err(|error| Failure::because(Exit::Mismatch, "an entry cannot be read", error).next(DAMAGE_ADVICE))?;
        if Digest::of(&leaf.envelope) == *transaction {
            return Ok(Some(leaf.index));
        }
    }
    Ok(None)
}
