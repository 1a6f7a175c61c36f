//! Base weights, read piece by piece, so that no copy of a whole model is made on the way.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use fedledger_federation::{
    command::FileRef,
    tensors::{FileError, Input, Tensor, TensorLayout, TensorReader},
};
use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

/// The parameters that a run begins with and that its update is relative to. They are read twice: at the beginning and at
/// the end.
pub trait BaseWeights: Sync {
    /// A digest of names, shapes and values. It decides which local checkpoint belongs to a run.
    fn identity(&self) -> Digest;

    /// Begins to read them.
    ///
    /// # Errors
    ///
    /// A [`FileError`].
    fn read(&self) -> Result<Box<dyn WeightPieces + '_>, FileError>;
}

/// Weights on their way, in the order of the tensors' names and then of the elements.
pub trait WeightPieces {
    /// The position of a tensor and its next values; none after the last ones, and only if all were right.
    ///
    /// # Errors
    ///
    /// A [`FileError`]; then nothing that was read before is to be used.
    fn next_piece(&mut self) -> Result<Option<(usize, &[f32])>, FileError>;
}

/// Base weights in a file.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    file: FileRef,
    layout: TensorLayout,
}

impl WeightsFile {
    /// The file at `path`, which must be the one of this digest, of a model with this layout.
    pub fn new(path: &Path, file: FileRef, layout: TensorLayout) -> Self {
        Self { path: path.to_owned(), file, layout }
    }
}

impl BaseWeights for WeightsFile {
    fn identity(&self) -> Digest {
        self.file.digest
    }

    fn read(&self) -> Result<Box<dyn WeightPieces + '_>, FileError> {
        let failed = |source| FileError::Io { file: self.file.digest, source };
        let reader = File::open(&self.path).map_err(failed)?;
        Ok(Box::new(TensorReader::open(Input { file: self.file, reader }, self.layout.clone())?))
    }
}

impl<R: io::Read> WeightPieces for TensorReader<R> {
    fn next_piece(&mut self) -> Result<Option<(usize, &[f32])>, FileError> {
        Self::next_piece(self)
    }
}

/// Base weights in memory: the parameters of the architecture in the order of their names.
impl BaseWeights for [Tensor] {
    fn identity(&self) -> Digest {
        let mut hasher = Sha256::new();
        for tensor in self {
            hasher.update(digest_of_floats(&tensor.values).as_bytes());
        }
        Digest::from_bytes(hasher.finalize().into())
    }

    fn read(&self) -> Result<Box<dyn WeightPieces + '_>, FileError> {
        Ok(Box::new(Shown { tensors: self.iter().enumerate() }))
    }
}

/// Tensors that are shown one after the other.
struct Shown<'a> {
    tensors: std::iter::Enumerate<std::slice::Iter<'a, Tensor>>,
}

impl WeightPieces for Shown<'_> {
    fn next_piece(&mut self) -> Result<Option<(usize, &[f32])>, FileError> {
        Ok(self.tensors.next().map(|(position, tensor)| (position, tensor.values.as_slice())))
    }
}

/// SHA-256 of the values' bytes, little-endian.
pub(super) fn digest_of_floats(values: &[f32]) -> Digest {
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    for values in values.chunks(PIECE_VALUES) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
    Digest::from_bytes(hasher.finalize().into())
}

/// Values that are converted at a time.
pub(super) const PIECE_VALUES: usize = 16 * 1024;
