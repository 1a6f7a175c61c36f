//! Files about a ledger that are no ledger: receipts, chains of epochs, and evidence.

use std::{fs::File, io::Read as _, path::Path};

use fedledger_ledger::{
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EpochChain},
    evidence::Evidence,
    receipt::RECEIPT_SIZE_BYTES_MAX,
    state_receipt::{STATE_RECEIPT_SIZE_BYTES_MAX, StateReceipt},
};
use serde::Serialize;

use crate::{
    commands::{evidence, prove},
    context::{Context, read_file},
    error::{Exit, Failure},
    trust::{Trust, TrustArgs},
};

/// Bytes at the beginning of a file by which it is recognised.
const HEAD_BYTES: u64 = 64;

/// What the text of a receipt begins with, in any version.
const RECEIPT_BEGIN: &[u8] = b"c2sp.org/tlog-proof@";

/// The form of a chain of epochs as JSON.
const EPOCHS_SCHEMA: &str = "fedledger.epochs/1";

/// What a file is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A receipt of an entry.
    Receipt,
    /// A receipt of a record.
    StateReceipt,
    /// A chain of epochs.
    Epochs,
    /// Evidence that somebody has signed two histories.
    Evidence,
}

impl Kind {
    /// What a file begins as; nothing for a bundle, a directory, or a file that cannot be read.
    pub fn of(path: &Path) -> Option<Self> {
        let mut head = Vec::new();
        File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        if head.starts_with(RECEIPT_BEGIN) {
            Some(Self::Receipt)
        } else if StateReceipt::is_meant_by(&head) {
            Some(Self::StateReceipt)
        } else if EpochChain::is_meant_by(&head) {
            Some(Self::Epochs)
        } else if Evidence::is_meant_by(&head) {
            Some(Self::Evidence)
        } else {
            None
        }
    }
}

#[derive(Debug, Serialize)]
struct EpochView {
    number: u64,
    /// The entry that made it.
    index: u64,
    /// Heads of at most so many entries belong to the epoch before.
    after_entries: u64,
    threshold: u64,
    replicas: Vec<String>,
    witnesses: Vec<String>,
}

#[derive(Debug, Serialize)]
struct EpochsView {
    ok: bool,
    file: String,
    origin: String,
    epochs: Vec<EpochView>,
}

/// Checks such a file.
pub(super) fn run(context: &Context, path: &Path, kind: Kind, trust: &TrustArgs) -> Result<(), Failure> {
    match kind {
        Kind::Receipt => {
            let bytes = read_file(path, RECEIPT_SIZE_BYTES_MAX as u64)?;
            prove::report(context, &prove::check_receipt(path, &bytes, None, &Trust::read(trust)?)?)
        }
        Kind::StateReceipt => {
            let bytes = read_file(path, STATE_RECEIPT_SIZE_BYTES_MAX as u64)?;
            prove::report(context, &prove::check_state_receipt(path, &bytes, &Trust::read(trust)?))
        }
        Kind::Epochs => epochs(context, path, trust),
        Kind::Evidence => evidence::check(context, path, &Trust::read(trust)?.signers()),
    }
}

/// Follows a chain of epochs from the genesis file.
fn epochs(context: &Context, path: &Path, trust: &TrustArgs) -> Result<(), Failure> {
    if trust.trust.is_none() {
        return Err(Failure::new(Exit::Usage, "a chain of epochs follows from a genesis file, and none is given")
            .next("name the genesis file that you trust with --trust GENESIS"));
    }
    read_file(path, EPOCH_CHAIN_SIZE_BYTES_MAX as u64)?;
    let args = TrustArgs { policy: None, trust: trust.trust.clone(), epochs: Some(path.to_owned()) };
    let Trust::Epochs { epochs, .. } = Trust::read(&args)? else { return Ok(()) };
    let view = |(after_entries, epoch): (u64, &fedledger_ledger::epoch::Epoch)| EpochView {
        number: epoch.number,
        index: epoch.index,
        after_entries,
        threshold: epoch.threshold,
        replicas: epoch.replicas.keys().cloned().collect(),
        witnesses: epoch.witnesses.keys().cloned().collect(),
    };
    let epochs_view: Vec<EpochView> = epochs.iter().map(view).collect();
    let file = path.display().to_string();
    let view = EpochsView { ok: true, file, origin: epochs.origin().to_owned(), epochs: epochs_view };
    context.output.object(EPOCHS_SCHEMA, &view, || {
        let line = |epoch: &EpochView| {
            let (number, after, threshold) = (epoch.number, epoch.after_entries, epoch.threshold);
            let replicas = epoch.replicas.join(", ");
            format!("epoch {number}, heads of more than {after} entries: {threshold} of {replicas}")
        };
        let mut lines: Vec<String> = view.epochs.iter().map(line).collect();
        lines.push(context.output.good("every epoch is vouched for by the one before"));
        lines.join("\n")
    })
}
