//! Checking receipts, without a network and without the log.

use std::path::Path;

use fedledger_ledger::{
    digest::Digest,
    limits::GENESIS_SIZE_BYTES_MAX,
    receipt::{RECEIPT_SIZE_BYTES_MAX, Receipt},
    state_receipt::{STATE_RECEIPT_SIZE_BYTES_MAX, StateReceipt},
};

use super::view::ProofView;
use crate::{
    context::read_file,
    error::{Exit, Failure},
    trust::Trust,
};

/// Largest entry that is read from a file: the genesis file may be one.
pub(super) const LEAF_SIZE_BYTES_MAX: u64 = GENESIS_SIZE_BYTES_MAX as u64;

/// Checks a receipt of an entry or a record, whichever it is. What does not hold is in the view.
pub(super) fn check_file(path: &Path, leaf: Option<&[u8]>, trust: &Trust) -> Result<ProofView, Failure> {
    let bytes = read_file(path, STATE_RECEIPT_SIZE_BYTES_MAX.max(RECEIPT_SIZE_BYTES_MAX) as u64)?;
    if StateReceipt::is_meant_by(&bytes) {
        return Ok(check_state_receipt(path, &bytes, trust));
    }
    check_receipt(path, &bytes, leaf, trust)
}

/// Checks a receipt of an entry, whose bytes are its extra data unless they are given.
///
/// # Errors
///
/// [`Failure`] if the entry's bytes are nowhere.
pub(crate) fn check_receipt(
    path: &Path,
    bytes: &[u8],
    leaf: Option<&[u8]>,
    trust: &Trust,
) -> Result<ProofView, Failure> {
    let mut view = ProofView::new(path);
    let text = String::from_utf8_lossy(bytes);
    let receipt = match Receipt::parse(&text) {
        Ok(receipt) => receipt,
        Err(error) => return Ok(view.refused(error)),
    };
    let Some(leaf) = leaf.or(receipt.extra()) else {
        return Err(Failure::new(Exit::Failed, format!("{} does not hold the entry", path.display()))
            .next("name the file with the entry's bytes with --leaf FILE"));
    };
    let verified = trust
        .policy_for(receipt.checkpoint())
        .and_then(|policy| receipt.verify(&policy, leaf).map_err(|error| error.to_string()));
    match verified {
        Ok(accepted) => {
            view.accept(&accepted);
            view.show_entry(receipt.index(), leaf, trust);
            Ok(view)
        }
        Err(error) => Ok(view.refused(error)),
    }
}

/// Checks a receipt of a record.
pub(crate) fn check_state_receipt(path: &Path, bytes: &[u8], trust: &Trust) -> ProofView {
    let mut view = ProofView::new(path);
    let receipt = match StateReceipt::from_bytes(bytes) {
        Ok(receipt) => receipt,
        Err(error) => return view.refused(error),
    };
    let policy = trust.policy_for(receipt.receipt.checkpoint());
    match policy.and_then(|policy| receipt.verify(&policy).map_err(|error| error.to_string())) {
        Ok(shown) => {
            view.accept(&shown.accepted);
            view.show_record(&receipt.key, receipt.value.as_deref(), &shown);
            view
        }
        Err(error) => view.refused(error),
    }
}

/// SHA-256 of an entry's bytes, for comparison with other tools.
pub(super) fn digest(leaf: &[u8]) -> Digest {
    Digest::of(leaf)
}
