//! The weights that a round is tried from.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _},
    path::{Path, PathBuf},
};

use fedledger_federation::{
    command::FileRef,
    plan::Plan,
    tensors::{FileError, HashingWriter, Tensor},
};
use fedledger_ledger::Digest;

use super::LocalRoundError;
use crate::training::{BaseWeights, WeightPieces, WeightsFile};

/// Name of the file of initial weights.
const INITIAL_FILE: &str = "initial.safetensors";

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

/// Base weights as a file: the one that was named, or the initial ones in a new file of `folder`.
pub(super) fn as_file(base: Base<'_>, plan: &Plan, folder: &Path) -> Result<(PathBuf, FileRef), LocalRoundError> {
    let (path, written) = match base {
        Base::Initial => {
            let path = folder.join(INITIAL_FILE);
            let created =
                File::create_new(&path).map_err(|source| LocalRoundError::Base { path: path.clone(), source });
            let file = plan.write_initial_weights(BufWriter::new(created?))?;
            (path, Ok(file))
        }
        Base::File(path) => {
            let limit = (plan.architecture.layout()?.file_size_bytes() as u64).saturating_add(1);
            (path.to_owned(), file_ref(path, limit))
        }
    };
    match written {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(LocalRoundError::Base { path, source }),
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
