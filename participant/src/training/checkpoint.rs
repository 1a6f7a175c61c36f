//! Local checkpoints: a trainer's saved progress within one round.
//!
//! A checkpoint is written and read value by value, so that it takes no memory beside the model. The form is private to this
//! program: eight bytes that name it, the length of the head (four bytes, little-endian), the head in canonical bytes, all
//! parameters and then all moments of the optimiser as little-endian 32-bit floats, and the SHA-256 of all that. One that
//! is damaged in any way is refused, and then the round is trained from its beginning, to the same update.

use std::io::{self, Read, Write};

use fedledger_federation::tensors::HashingWriter;
use fedledger_ledger::{Digest, codec};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    BaseWeights, Run, TrainingError,
    network::Network,
    optimizer::OptimizerState,
    parameter::Parameter,
    settings::TrainingSettings,
    weights::{PIECE_VALUES, digest_of_floats},
};
use crate::table::Dataset;

/// What a checkpoint begins with.
const MAGIC: [u8; 8] = *b"fl-ckpt2";

/// Largest head, in bytes.
const HEAD_SIZE_BYTES_MAX: usize = 1024;

/// Size of a digest, in bytes.
const DIGEST_SIZE_BYTES: usize = 32;

/// How far a run has come, to be saved or not.
pub struct Progress<'a> {
    run: &'a Run<'a>,
    identity: Digest,
}

/// What a checkpoint says before its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Digest of settings, records and base weights.
    identity: Digest,
    /// Steps done.
    step: u64,
    first_loss: SavedSum,
    last_loss: SavedSum,
}

/// Bits of a sum of losses, and the examples in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSum {
    sum: u64,
    examples: u64,
}

/// Losses of the first and of the last pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossSums {
    pub(super) first: LossSum,
    pub(super) last: LossSum,
}

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossSum {
    sum: f64,
    examples: u64,
}

/// What a checkpoint leads back to.
pub(super) struct Restored {
    pub(super) step: u64,
    pub(super) network: Network,
    pub(super) optimizer: OptimizerState,
    pub(super) losses: LossSums,
}

impl LossSum {
    /// Adds a batch with this mean loss.
    pub(super) fn add(&mut self, mean: f64, examples: u64) {
        self.sum += mean * examples as f64;
        self.examples += examples;
    }

    /// Mean per example; 0 if there is none.
    pub(super) fn mean(self) -> f64 {
        if self.examples == 0 { 0.0 } else { self.sum / self.examples as f64 }
    }

    fn save(self) -> SavedSum {
        SavedSum { sum: self.sum.to_bits(), examples: self.examples }
    }

    fn restore(saved: SavedSum) -> Self {
        Self { sum: f64::from_bits(saved.sum), examples: saved.examples }
    }
}

impl<'a> Progress<'a> {
    pub(super) fn new(run: &'a Run<'a>, identity: Digest) -> Self {
        Self { run, identity }
    }

    /// Optimiser steps done.
    pub fn step(&self) -> u64 {
        self.run.step
    }

    /// Whether the run goes on from a local checkpoint now, and has done nothing yet.
    pub fn resumes(&self) -> bool {
        self.run.resumed_at == Some(self.run.step)
    }

    /// Whether a pass through the rows has just ended.
    pub fn ends_pass(&self) -> bool {
        self.run.step.is_multiple_of(self.run.batches.per_epoch())
    }

    /// Writes a local checkpoint.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn write_to(&self, sink: &mut dyn Write) -> io::Result<()> {
        let LossSums { first, last } = self.run.losses;
        let step = self.run.step;
        let head = Head { identity: self.identity, step, first_loss: first.save(), last_loss: last.save() };
        let head = codec::encode(&head);
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut writer = HashingWriter::new(&mut *sink);
        writer.write_all(&MAGIC)?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(&head)?;
        let mut bytes = Vec::new();
        let mut write = |values: &[f32]| {
            values.chunks(PIECE_VALUES).try_for_each(|values| {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                writer.write_all(&bytes)
            })
        };
        for parameter in self.run.network.parameters() {
            parameter.with_values(&mut write).map_err(io::Error::other)??;
        }
        self.run.optimizer.moments().try_for_each(write)?;
        let digest = writer.finish()?.digest;
        sink.write_all(digest.as_bytes())?;
        sink.flush()
    }
}

/// Reads a checkpoint of the run that `identity` names.
///
/// # Errors
///
/// [`TrainingError::ForeignCheckpoint`] for any other, and for a damaged one.
pub(super) fn read(
    reader: impl Read,
    identity: Digest,
    settings: &TrainingSettings,
) -> Result<Restored, TrainingError> {
    let mut reader = HashingReader { reader, hasher: Sha256::new() };
    let foreign = |_| TrainingError::ForeignCheckpoint;
    let head = reader.head().map_err(foreign)?;
    if head.identity != identity || head.step > settings.steps {
        return Err(TrainingError::ForeignCheckpoint);
    }
    let mut parameters = Vec::new();
    for (_, shape) in settings.architecture.parameters() {
        let count = shape.iter().product::<u64>();
        let values = reader.values(usize::try_from(count).unwrap_or(usize::MAX)).map_err(foreign)?;
        parameters.push(Parameter::new(values, &shape)?);
    }
    let network = Network::of_parameters(&settings.architecture, parameters)?;
    let mut optimizer = OptimizerState::new(&settings.optimizer, &network);
    for moments in optimizer.moments_mut() {
        moments.copy_from_slice(&reader.values(moments.len()).map_err(foreign)?);
    }
    reader.end().map_err(foreign)?;
    let losses = LossSums { first: LossSum::restore(head.first_loss), last: LossSum::restore(head.last_loss) };
    Ok(Restored { step: head.step, network, optimizer, losses })
}

/// Hashes what is read.
struct HashingReader<R> {
    reader: R,
    hasher: Sha256,
}

impl<R: Read> HashingReader<R> {
    fn head(&mut self) -> io::Result<Head> {
        let refused = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        if self.array()? != MAGIC {
            return Err(refused("not a local checkpoint"));
        }
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length > HEAD_SIZE_BYTES_MAX {
            return Err(refused("the head is too long"));
        }
        let mut head = vec![0; length];
        self.fill(&mut head)?;
        codec::decode(&head, HEAD_SIZE_BYTES_MAX).map_err(io::Error::other)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn values(&mut self, count: usize) -> io::Result<Vec<f32>> {
        let mut values = Vec::with_capacity(count);
        let mut bytes = vec![0; PIECE_VALUES.min(count) * size_of::<f32>()];
        while values.len() < count {
            let now = (count - values.len()).min(PIECE_VALUES);
            let bytes = bytes.get_mut(..now * size_of::<f32>()).unwrap_or_default();
            self.fill(bytes)?;
            values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Compares the digest, behind which nothing may follow.
    fn end(mut self) -> io::Result<()> {
        let found: [u8; DIGEST_SIZE_BYTES] = self.hasher.finalize().into();
        let mut expected = [0; DIGEST_SIZE_BYTES];
        self.reader.read_exact(&mut expected)?;
        let whole = self.reader.read(&mut [0])? == 0;
        if whole && found == expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Digest of everything that the outcome of a run depends on.
pub(super) fn identity<B: BaseWeights + ?Sized>(settings: &TrainingSettings, data: &Dataset, base: &B) -> Digest {
    let TrainingSettings { architecture, optimizer, steps, batch_size, seed, round, member, device } = settings;
    let numbers = optimizer.hyperparameters().into_iter();
    let optimizer: Vec<(&str, u64)> = numbers.map(|(name, value, _)| (name, value.to_bits())).collect();
    let settings = codec::encode(&(architecture, optimizer, steps, batch_size, seed, round, member, device.name()));
    let data = [digest_of_rows(data), digest_of_floats(data.labels())];
    Digest::of(&codec::encode(&(data, base.identity(), Digest::of(&settings))))
}

/// SHA-256 of all values of all rows as little-endian 32-bit floats.
fn digest_of_rows(data: &Dataset) -> Digest {
    let (mut hasher, mut values, mut bytes) = (Sha256::new(), Vec::new(), Vec::new());
    for row in 0..data.rows() {
        values.clear();
        data.append_row(row, &mut values);
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
    Digest::from_bytes(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_survive_saving() {
        let mut sum = LossSum::default();
        sum.add(0.1, 3);
        sum.add(0.2, 4);
        let restored = LossSum::restore(sum.save());
        assert_eq!(restored.mean().to_bits(), sum.mean().to_bits());
        assert_eq!(LossSum::default().mean(), 0.0);
    }
}
