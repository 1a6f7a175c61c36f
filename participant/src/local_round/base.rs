//! The weights that a round is tried from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use fedledger_federation::{
    command::FileRef,
    plan::Plan,
    tensors::{FileError, HashingWriter, Tensor},
};
use fedledger_ledger::Digest;

use super::LocalRoundError;
use crate::training::{BaseWeights, WeightPieces, WeightsFile};

/// Which weights a round is tried from.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// Those that the plan's seed draws.
    Initial,
    /// Those of a safetensors file in its canonical form, such as `fedledger checkout` writes.
    File(&'a Path),
}

/// Base weights that are there.
pub(super) enum Held {
    Memory(Vec<Tensor>),
    File(WeightsFile),
}

impl Held {
    /// Draws the weights, or finds the file and its digest. The file's contents are checked when it is read.
    pub(super) fn open(base: Base<'_>, plan: &Plan) -> Result<Self, LocalRoundError> {
        match base {
            Base::Initial => {
                let drawn = plan.architecture.initial_weights(plan.seed)?.into_iter();
                Ok(Self::Memory(drawn.map(|(name, shape, values)| Tensor { name, shape, values }).collect()))
            }
            Base::File(path) => {
                plan.architecture.validate()?;
                let layout = plan.architecture.layout()?;
                let failed = |source| LocalRoundError::Base { path: path.to_owned(), source };
                // What is longer than the model's file is refused when it is read, whatever comes after this byte.
                let limit = (layout.file_size_bytes() as u64).saturating_add(1);
                let file = file_ref(path, limit).map_err(failed)?;
                Ok(Self::File(WeightsFile::new(path, file, layout)))
            }
        }
    }
}

/// Digest and size of the first `limit` bytes of a file.
fn file_ref(path: &Path, limit: u64) -> io::Result<FileRef> {
    let mut hasher = HashingWriter::new(io::sink());
    io::copy(&mut File::open(path)?.take(limit), &mut hasher)?;
    hasher.finish()
}

impl BaseWeights for Held {
    fn identity(&self) -> Digest {
        match self {
            Self::Memory(tensors) => tensors.as_slice().identity(),
            Self::File(file) => file.identity(),
        }
    }

    fn read(&self) -> Result<Box<dyn WeightPieces + '_>, FileError> {
        match self {
            Self::Memory(tensors) => tensors.as_slice().read(),
            Self::File(file) => file.read(),
        }
    }
}
