//! Writing a file of tensors while their values are computed.

use std::io::{self, Write};

use super::{
    hashing::HashingWriter,
    layout::{Dtype, TensorLayout},
};
use crate::command::FileRef;

/// Values that are converted at a time.
const PIECE_VALUES: usize = 16 * 1024;

/// Why a file of tensors could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamWriteError {
    /// A value that the element type cannot hold: a NaN, an infinity, or one that would be rounded to an infinity.
    #[error("tensor {tensor:?} holds {value} at element {element}, which is no finite number in {dtype}")]
    NotRepresentable {
        /// The tensor's name.
        tensor: String,
        /// Row-major index in the tensor.
        element: usize,
        /// The value.
        value: f32,
        /// The file's element type.
        dtype: Dtype,
    },
    /// Other tensors than the layout has.
    #[error("{found} values where the file holds {expected}")]
    ValueCount {
        /// Elements of the layout.
        expected: usize,
        /// Values given so far.
        found: usize,
    },
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the canonical file of a layout from its values, tensor by tensor in the order of the names, each rounded to the
/// nearest, ties to even. Nothing but a small piece of it is in memory.
#[derive(Debug)]
pub struct TensorWriter<W> {
    layout: TensorLayout,
    sink: HashingWriter<W>,
    /// Position of the tensor that the next value belongs to, and its index there.
    tensor: usize,
    element: usize,
    /// Values given so far.
    found: usize,
    piece: Vec<u8>,
}

impl<W: Write> TensorWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(layout: TensorLayout, sink: W) -> io::Result<Self> {
        let mut sink = HashingWriter::new(sink);
        sink.write_all(layout.header())?;
        Ok(Self { layout, sink, tensor: 0, element: 0, found: 0, piece: Vec::new() })
    }

    /// Writes the next values; they may belong to several tensors, and a tensor's may come in parts.
    ///
    /// # Errors
    ///
    /// [`StreamWriteError`]; the file is of no further use.
    pub fn push(&mut self, mut values: &[f32]) -> Result<(), StreamWriteError> {
        while !values.is_empty() {
            let (Some(spec), Some(extent)) =
                (self.layout.tensors().get(self.tensor), self.layout.extents().get(self.tensor))
            else {
                let found = self.found.saturating_add(values.len());
                return Err(StreamWriteError::ValueCount { expected: self.layout.element_count(), found });
            };
            let left = extent.element_count.saturating_sub(self.element);
            if left == 0 {
                self.tensor += 1;
                self.element = 0;
                continue;
            }
            let dtype = spec.dtype;
            let (now, later) = values.split_at(values.len().min(left).min(PIECE_VALUES));
            if let Some(index) = fill_rounded(dtype, now, &mut self.piece) {
                let (tensor, element) = (spec.name.clone(), self.element + index);
                let value = now.get(index).copied().unwrap_or(f32::NAN);
                return Err(StreamWriteError::NotRepresentable { tensor, element, value, dtype });
            }
            self.sink.write_all(&self.piece)?;
            self.element += now.len();
            self.found += now.len();
            values = later;
        }
        Ok(())
    }

    /// Digest and size of the file.
    ///
    /// # Errors
    ///
    /// [`StreamWriteError::ValueCount`] if values are missing.
    pub fn finish(self) -> Result<FileRef, StreamWriteError> {
        let (expected, found) = (self.layout.element_count(), self.found);
        if found < expected {
            return Err(StreamWriteError::ValueCount { expected, found });
        }
        Ok(self.sink.finish()?)
    }
}

/// Replaces the bytes by rounded values. Index of the first that is not finite after rounding, if there is one.
fn fill_rounded(dtype: Dtype, values: &[f32], bytes: &mut Vec<u8>) -> Option<usize> {
    match dtype {
        Dtype::F32 => fill(values, bytes, |value| (value.is_finite(), value.to_le_bytes())),
        Dtype::F64 => fill(values, bytes, |value| (value.is_finite(), f64::from(value).to_le_bytes())),
        Dtype::F16 => fill(values, bytes, |value| {
            let rounded = half::f16::from_f32(value);
            (rounded.is_finite(), rounded.to_le_bytes())
        }),
        Dtype::BF16 => fill(values, bytes, |value| {
            let rounded = half::bf16::from_f32(value);
            (rounded.is_finite(), rounded.to_le_bytes())
        }),
    }
}

fn fill<const N: usize>(values: &[f32], bytes: &mut Vec<u8>, round: impl Fn(f32) -> (bool, [u8; N])) -> Option<usize> {
    bytes.resize(values.len() * N, 0);
    let mut finite = true;
    for (rounded, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        let is_finite;
        (is_finite, *rounded) = round(*value);
        finite &= is_finite;
    }
    if finite { None } else { values.iter().position(|value| !round(*value).0) }
}
