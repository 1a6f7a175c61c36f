//! The order in which rows are visited: shuffled anew for every pass, and continued from round to round.
//!
//! Batch `s` of a plan is found from `s` alone: pass `s / batches per pass` has its own permutation, so a participant that
//! joins in round 7 or resumes after a crash reads exactly the rows that it would have read otherwise.

use candle_core::{Device, Result, Tensor};
use fedledger_federation::seeds;

use super::settings::TrainingSettings;
use crate::table::Dataset;

/// A position in a member's stream of batches.
pub(super) struct Batches<'a> {
    data: &'a Dataset,
    batch_size: usize,
    seed: [u8; 32],
    position: u64,
    /// The pass that `order` belongs to, none before the first batch.
    epoch: Option<u64>,
    order: Vec<u32>,
}

/// Rows for one optimiser step.
pub(super) struct Batch {
    /// `[rows, columns]`.
    pub(super) features: Tensor,
    /// `[rows]`.
    pub(super) labels: Tensor,
    pub(super) rows: usize,
}

impl<'a> Batches<'a> {
    /// The stream at the first step of the settings' round. `data` has at least one row and at most 2^32 - 1.
    pub(super) fn new(data: &'a Dataset, settings: &TrainingSettings) -> Self {
        Self {
            data,
            batch_size: (settings.batch_size as usize).clamp(1, data.rows().max(1)),
            seed: seeds::loader_seed(settings.seed, &settings.member),
            position: settings.first_step(),
            epoch: None,
            order: Vec::new(),
        }
    }

    /// Batches of one pass through the rows.
    pub(super) fn per_epoch(&self) -> u64 {
        (self.data.rows().div_ceil(self.batch_size) as u64).max(1)
    }

    pub(super) fn rows(&self) -> usize {
        self.data.rows()
    }

    /// Leaves out the next `steps` batches.
    pub(super) fn skip(&mut self, steps: u64) {
        self.position = self.position.saturating_add(steps);
    }

    /// The next batch.
    pub(super) fn next(&mut self, device: &Device) -> Result<Batch> {
        let rows = self.next_rows();
        let columns = self.data.columns();
        let mut features = Vec::with_capacity(rows.len() * columns);
        let mut labels: Vec<f32> = Vec::with_capacity(rows.len());
        for row in rows {
            let row = row as usize;
            // The permutation holds only rows of the data set.
            self.data.append_row(row, &mut features);
            labels.extend(self.data.labels().get(row));
        }
        let rows = labels.len();
        let features = Tensor::from_vec(features, (rows, columns), device)?;
        Ok(Batch { features, labels: Tensor::from_vec(labels, rows, device)?, rows })
    }

    fn next_rows(&mut self) -> Vec<u32> {
        let epoch = self.position / self.per_epoch();
        if self.epoch != Some(epoch) {
            self.order = seeds::permutation(self.seed, epoch, u32::try_from(self.data.rows()).unwrap_or(u32::MAX));
            self.epoch = Some(epoch);
        }
        let batch = (self.position % self.per_epoch()) as usize;
        self.position += 1;
        self.order.chunks(self.batch_size).nth(batch).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use fedledger_federation::architecture::Architecture;

    use super::*;
    use crate::training::{ComputeDevice, Optimizer};

    fn settings(round: u64, steps: u64) -> TrainingSettings {
        TrainingSettings {
            architecture: Architecture::logistic_regression(1),
            optimizer: Optimizer::sgd(0.1),
            steps,
            batch_size: 4,
            seed: 42,
            round,
            member: "cleveland".to_owned(),
            device: ComputeDevice::Cpu,
        }
    }

    fn rows(data: &Dataset, round: u64, steps: u64) -> Vec<Vec<u32>> {
        let mut batches = Batches::new(data, &settings(round, steps));
        (0..steps).map(|_| batches.next_rows()).collect()
    }

    fn data(rows: usize) -> Dataset {
        Dataset::new(vec![0.0; rows], vec![0.0; rows], 1).unwrap()
    }

    #[test]
    fn every_pass_visits_every_row_once_and_the_last_batch_is_short() {
        let data = data(11);
        let visited = rows(&data, 1, 6);
        for pass in visited.chunks(3) {
            assert_eq!(pass.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 3]);
            let mut all = pass.concat();
            all.sort_unstable();
            assert_eq!(all, (0..11).collect::<Vec<_>>());
        }
        assert_ne!(visited[..3], visited[3..], "two passes have the same order");
    }

    #[test]
    fn the_order_continues_from_round_to_round() {
        let data = data(11);
        let whole = rows(&data, 1, 20);
        let in_rounds: Vec<_> = (1..=4).flat_map(|round| rows(&data, round, 5)).collect();
        assert_eq!(whole, in_rounds);
    }

    #[test]
    fn skipping_is_the_same_as_reading() {
        let data = data(11);
        let mut skipped = Batches::new(&data, &settings(1, 9));
        skipped.skip(7);
        assert_eq!(skipped.next_rows(), rows(&data, 1, 9)[7]);
    }

    #[test]
    fn members_visit_their_rows_in_different_orders() {
        let data = data(11);
        let other = TrainingSettings { member: "va".to_owned(), ..settings(1, 3) };
        assert_ne!(Batches::new(&data, &other).next_rows(), rows(&data, 1, 3)[0]);
    }
}
