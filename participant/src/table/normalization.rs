//! Values that are missing get the training mean; columns are centred and scaled with the training rows alone.
//!
//! Nothing is learnt from test rows, otherwise the reported accuracy would be too good.

use super::{Dataset, TableError};

/// Added to a standard deviation before dividing by it, as FLamby's Fed-Heart-Disease does.
const DEVIATION_FLOOR: f64 = 1e-9;

/// Mean and standard deviation of each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalization {
    columns: Vec<ColumnStatistics>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct ColumnStatistics {
    mean: f64,
    divisor: f64,
}

impl Normalization {
    /// Mean and sample standard deviation (n - 1 in the denominator) of each column of `data`.
    ///
    /// A column that is constant in `data` is only centred: its deviation says nothing about how far another value is from
    /// it, and dividing by nearly zero would let one such value outweigh everything else.
    pub fn fit(data: &Dataset) -> Self {
        let columns = (0..data.columns()).map(|column| statistics(column_of(data, column))).collect();
        Self { columns }
    }

    /// Replaces every value x by (x - mean) / (deviation + 1e-9).
    pub fn apply(&self, data: &mut Dataset) {
        for row in data.rows_mut() {
            for (value, column) in row.iter_mut().zip(&self.columns) {
                *value = ((f64::from(*value) - column.mean) / column.divisor) as f32;
            }
        }
    }
}

/// Puts each column's mean over the training rows in place of its missing values, which are NaN up to here.
pub(super) fn impute(train: &mut Dataset, test: &mut Dataset, names: &[String]) -> Result<(), TableError> {
    let means = (0..train.columns())
        .zip(names)
        .map(|(column, name)| {
            let present = column_of(train, column).filter(|value| !value.is_nan());
            mean(present).ok_or_else(|| TableError::NoMean { name: name.clone() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for row in train.rows_mut().chain(test.rows_mut()) {
        for (value, &mean) in row.iter_mut().zip(&means) {
            if value.is_nan() {
                *value = mean as f32;
            }
        }
    }
    Ok(())
}

fn column_of(data: &Dataset, column: usize) -> impl Iterator<Item = f64> + Clone {
    data.features().iter().skip(column).step_by(data.columns()).map(|&value| f64::from(value))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn statistics(values: impl Iterator<Item = f64> + Clone) -> ColumnStatistics {
    let mut rest = values.clone();
    let Some(first) = rest.next() else {
        return ColumnStatistics { mean: 0.0, divisor: 1.0 };
    };
    if rest.all(|value| value == first) {
        return ColumnStatistics { mean: first, divisor: 1.0 };
    }
    let mean = mean(values.clone()).unwrap_or(first);
    let (squares, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + (value - mean).powi(2), count + 1));
    // Two different values were found above, so the count is at least two.
    let deviation = (squares / (count.max(2) - 1) as f64).sqrt();
    ColumnStatistics { mean, divisor: deviation + DEVIATION_FLOOR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[f32]) -> Dataset {
        Dataset::new(values.to_vec(), vec![0.0; values.len()], 1).unwrap()
    }

    #[test]
    fn columns_are_centred_and_scaled() {
        let train = column(&[2.0, 4.0, 6.0]);
        let normalization = Normalization::fit(&train);
        let mut test = column(&[4.0, 8.0, 0.0]);
        normalization.apply(&mut test);
        for (found, expected) in test.features().iter().zip([0.0, 2.0, -2.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_constant_column_is_only_centred() {
        let normalization = Normalization::fit(&column(&[0.5, 0.5, 0.5]));
        let mut test = column(&[0.5, 2.5]);
        normalization.apply(&mut test);
        assert_eq!(test.features(), [0.0, 2.0]);
    }

    #[test]
    fn a_single_row_and_no_row_are_no_division_by_zero() {
        for train in [column(&[3.0]), column(&[])] {
            let mut data = train.clone();
            Normalization::fit(&train).apply(&mut data);
            assert!(data.features().iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn missing_values_get_the_mean_of_the_training_rows() {
        let mut train = column(&[1.0, f32::NAN, 3.0]);
        let mut test = column(&[f32::NAN, 100.0]);
        impute(&mut train, &mut test, &["age".to_owned()]).unwrap();
        assert_eq!((train.features(), test.features()), (&[1.0, 2.0, 3.0][..], &[2.0, 100.0][..]));
        let error = impute(&mut column(&[f32::NAN]), &mut column(&[1.0]), &["age".to_owned()]).unwrap_err();
        assert!(matches!(error, TableError::NoMean { name } if name == "age"));
    }
}
