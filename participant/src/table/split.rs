//! Which rows are trained on and which are kept for testing; the same rows on every run.

use fedledger_federation::{data_description::TableDescription, seeds};
use fedledger_ledger::Digest;

use super::{
    Dataset, Groups, TableError,
    parse::Parsed,
    schema::{Split, nearest},
};

/// Separates the seeds of splits from all others.
const SPLIT_DOMAIN: &[u8] = b"fedledger/v1/split";

/// Which of so many rows are kept for testing.
pub(super) fn test_rows(rows: usize, split: &Split, listed_rows: Option<&[u64]>) -> Result<Vec<bool>, TableError> {
    match split {
        Split::None => Ok(vec![false; rows]),
        Split::TestRows { .. } => listed(rows, listed_rows.ok_or(TableError::NoTestRows)?),
        Split::TestFraction { fraction, seed } => Ok(drawn(rows, nearest(fraction), *seed)),
    }
}

/// Training rows and test rows, both in the order of the file.
pub(super) fn split(
    parsed: &Parsed,
    description: &TableDescription,
    is_test: &[bool],
) -> Result<(Dataset, Dataset), TableError> {
    let columns = description.feature_count();
    let part = |wanted: bool| {
        let rows = || is_test.iter().zip(0..).filter(move |(is_test, _)| **is_test == wanted).map(|(_, row)| row);
        let mut features = Vec::with_capacity(rows().count() * columns);
        for row in rows() {
            let start = row * columns;
            features.extend_from_slice(parsed.features.get(start..start + columns).unwrap_or_default());
        }
        let labels = rows().filter_map(|row| parsed.labels.get(row)).copied().collect();
        let data = Dataset::new(features, labels, columns)?;
        match &description.group {
            None => Ok(data),
            Some(group) => {
                let of_row = rows().filter_map(|row| parsed.groups.get(row)).copied().collect();
                data.with_groups(Groups { names: group.categories.clone(), of_row })
            }
        }
    };
    Ok((part(false)?, part(true)?))
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
