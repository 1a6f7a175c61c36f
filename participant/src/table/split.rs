//! Which rows are trained on and which are kept for testing; the same rows on every run.

use fedledger_federation::seeds;
use fedledger_ledger::Digest;

use super::{
    Dataset, TableError,
    parse::Parsed,
    schema::{Split, nearest},
};

/// Separates the seeds of splits from all others.
const SPLIT_DOMAIN: &[u8] = b"fedledger/v1/split";

/// Training rows and test rows, both in the order of the file.
pub(super) fn split(
    parsed: Parsed,
    split: &Split,
    test_rows: Option<&[u64]>,
) -> Result<(Dataset, Dataset), TableError> {
    let rows = parsed.labels.len();
    let is_test = match split {
        Split::None => vec![false; rows],
        Split::TestRows { .. } => listed(rows, test_rows.ok_or(TableError::NoTestRows)?)?,
        Split::TestFraction { fraction, seed } => drawn(rows, nearest(fraction), *seed),
    };
    let columns = parsed.feature_names.len();
    let mut parts = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let [train, test] = &mut parts;
    for ((row, &label), is_test) in parsed.features.chunks_exact(columns.max(1)).zip(&parsed.labels).zip(is_test) {
        let (features, labels) = if is_test { &mut *test } else { &mut *train };
        features.extend_from_slice(row);
        labels.push(label);
    }
    let [train, test] = parts.map(|(features, labels)| Dataset::new(features, labels, columns));
    match (train, test) {
        (Ok(train), Ok(test)) => Ok((train, test)),
        // Parsed rows all have the same width and labels of 0 or 1, so only the absence of columns can end here, and the
        // schema was checked for that.
        _ => Err(TableError::NoTrainingRows),
    }
}

fn listed(rows: usize, test_rows: &[u64]) -> Result<Vec<bool>, TableError> {
    let mut is_test = vec![false; rows];
    for &row in test_rows {
        match usize::try_from(row).ok().and_then(|row| is_test.get_mut(row)) {
            Some(flag) if !*flag => *flag = true,
            _ => return Err(TableError::TestRow { row, rows: rows as u64 }),
        }
    }
    Ok(is_test)
}

fn drawn(rows: usize, fraction: f64, seed: u64) -> Vec<bool> {
    let mut is_test = vec![false; rows];
    let seed = *Digest::of_parts(&[SPLIT_DOMAIN, &seed.to_le_bytes()]).as_bytes();
    let wanted = (rows as f64 * fraction).ceil() as usize;
    // `ROWS_MAX` keeps the number of rows far below 2^32.
    let order = seeds::permutation(seed, 0, u32::try_from(rows).unwrap_or(u32::MAX));
    for row in order.into_iter().take(wanted) {
        if let Some(flag) = is_test.get_mut(row as usize) {
            *flag = true;
        }
    }
    is_test
}
