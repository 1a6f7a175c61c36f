//! Numbers as they stand on the ledger: integers, of which 1,000,000 are one.

use fedledger_federation::metrics::MILLIONTHS;

/// `part / whole` in millionths, rounded to the nearest, halves up; `part` is at most `whole` and `whole` is not 0.
pub(super) fn ratio(part: u128, whole: u128) -> i64 {
    let scale = MILLIONTHS.unsigned_abs();
    let rounded = (2 * part * u128::from(scale) + whole) / (2 * whole);
    i64::try_from(rounded).unwrap_or(MILLIONTHS)
}

/// A number in millionths, rounded to the nearest; 0 for NaN.
pub(super) fn of(value: f64) -> i64 {
    // A float-to-integer cast saturates.
    (value * MILLIONTHS as f64).round() as i64
}
