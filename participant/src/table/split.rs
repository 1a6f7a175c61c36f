//! Which rows are trained on and which are kept for testing; the same rows on every run.

use fedledger_federation::seeds;
use fedledger_ledger::Digest;

use super::{
    Dataset, DatasetError, Groups, TableError,
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
    let mut parts = [Part::default(), Part::default()];
    let [train, test] = &mut parts;
    let rows = parsed.features.chunks_exact(columns.max(1)).zip(&parsed.labels).zip(is_test).enumerate();
    for (row, ((features, &label), is_test)) in rows {
        let part = if is_test { &mut *test } else { &mut *train };
        part.features.extend_from_slice(features);
        part.labels.push(label);
        part.groups.extend(parsed.groups.get(row));
    }
    let [train, test] = parts.map(|part| part.into_dataset(columns, &parsed.group_names));
    match (train, test) {
        (Ok(train), Ok(test)) => Ok((train, test)),
        // Parsed rows all have the same width, labels of 0 or 1 and a group if there are groups, so only the absence of columns
        // can end here, and the schema was checked for that.
        _ => Err(TableError::NoTrainingRows),
    }
}

/// The rows of one of both parts.
#[derive(Default)]
struct Part {
    features: Vec<f32>,
    labels: Vec<f32>,
    groups: Vec<u16>,
}

impl Part {
    fn into_dataset(self, columns: usize, group_names: &[String]) -> Result<Dataset, DatasetError> {
        let data = Dataset::new(self.features, self.labels, columns)?;
        if group_names.is_empty() {
            return Ok(data);
        }
        data.with_groups(Groups { names: group_names.to_vec(), of_row: self.groups })
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
