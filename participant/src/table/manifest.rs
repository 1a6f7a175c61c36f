//! What identifies a participant's data without showing them.

use std::collections::BTreeMap;

use fedledger_federation::data_description::SkippedRows;
use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};

/// Digests and counts of one reading of a site's records. Its digest stands in the contributions that were trained on it, so that an
/// auditor who is shown the file at the hospital can tell whether it is the one that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataManifest {
    /// Digest of the schema's canonical encoding.
    pub schema: Digest,
    /// Digest of the plan's description of the data, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Digest>,
    /// SHA-256 of the file; of several, of the canonical encoding of their digests by name.
    pub file: Digest,
    /// SHA-256 of the file that lists the test rows, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_rows_file: Option<Digest>,
    /// Values of a row after categories were expanded.
    pub feature_count: u64,
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows kept for testing.
    pub test_rows: u64,
    /// Rows left out because a value was missing.
    pub dropped_rows: u64,
    /// Rows left out because they cannot be read, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_rows: SkippedRows,
}

impl DataManifest {
    /// SHA-256 of the canonical encoding.
    pub fn digest(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }
}
