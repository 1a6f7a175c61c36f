//! Rows that cannot be read, counted by the reason.

use std::collections::BTreeMap;

/// How many rows were skipped, by the [name](SkipReason::name) of the reason; no reason stands there with none.
pub type SkippedRows = BTreeMap<String, u64>;

/// Why a row or an image cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// Another number of fields than the header has.
    FieldCount,
    /// Quotes out of place, a field that is too long, or bytes that are no text.
    Malformed,
    /// The label is missing.
    MissingLabel,
    /// A feature or the group is missing, and the description allows none to.
    MissingValue,
    /// Text where a number should be.
    NotANumber,
    /// An infinite value, NaN, or one beyond the range of a 32-bit float.
    OutOfRange,
    /// A category that is not listed.
    UnknownCategory,
    /// A group that is not listed.
    UnknownGroup,
    /// A label that is none of the classes.
    UnknownLabel,
}

impl SkipReason {
    /// Every reason, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::FieldCount,
        Self::Malformed,
        Self::MissingLabel,
        Self::MissingValue,
        Self::NotANumber,
        Self::OutOfRange,
        Self::UnknownCategory,
        Self::UnknownGroup,
        Self::UnknownLabel,
    ];

    /// The reason as it stands on the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FieldCount => "field_count",
            Self::Malformed => "malformed",
            Self::MissingLabel => "missing_label",
            Self::MissingValue => "missing_value",
            Self::NotANumber => "not_a_number",
            Self::OutOfRange => "out_of_range",
            Self::UnknownCategory => "unknown_category",
            Self::UnknownGroup => "unknown_group",
            Self::UnknownLabel => "unknown_label",
        }
    }
}

/// Whether these are counts of known reasons, none of them zero, and at most `allowed` together.
pub fn are_skipped_rows(skipped: &SkippedRows, allowed: u64) -> bool {
    let known = |name: &String| SkipReason::ALL.iter().any(|reason| reason.name() == name);
    let all = skipped.values().fold(0u64, |sum, count| sum.saturating_add(*count));
    skipped.iter().all(|(name, count)| known(name) && *count > 0) && all <= allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_reasons_are_counted_and_only_as_often_as_allowed() {
        let skipped = |counts: &[(&str, u64)]| -> SkippedRows {
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        assert!(are_skipped_rows(&skipped(&[]), 0));
        assert!(are_skipped_rows(&skipped(&[("not_a_number", 2), ("unknown_label", 1)]), 3));
        assert!(!are_skipped_rows(&skipped(&[("not_a_number", 2), ("unknown_label", 1)]), 2));
        assert!(!are_skipped_rows(&skipped(&[("too_inconvenient", 1)]), 3));
        assert!(!are_skipped_rows(&skipped(&[("not_a_number", 0)]), 3));
        assert!(!are_skipped_rows(&skipped(&[("not_a_number", u64::MAX), ("malformed", 1)]), 3));
    }

    #[test]
    fn the_names_are_in_order_and_differ() {
        assert!(SkipReason::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name() && pair[0] < pair[1]));
    }
}
