//! What identifies a participant's data without showing them.

use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

/// Digests and counts of one reading of a table. Its digest stands in the contributions that were trained on it, so that an
/// auditor who is shown the file at the hospital can tell whether it is the one that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataManifest {
    /// Digest of the schema's canonical encoding.
    pub schema: Digest,
    /// SHA-256 of the CSV file.
    pub file: Digest,
    /// Values of a row after categories were expanded.
    pub feature_count: u64,
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows kept for testing.
    pub test_rows: u64,
    /// Rows left out because a value was missing.
    pub dropped_rows: u64,
}

impl DataManifest {
    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }
}
