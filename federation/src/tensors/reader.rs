//! Reading files that came from the network, while they come.

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    header::{self, LENGTH_SIZE_BYTES},
    layout::{Dtype, LayoutError, LayoutMismatch, TensorLayout},
    writer::Tensor,
};

/// How much is hashed and handed out at a time, in bytes: small enough that the sink finds it in the first-level cache.
const PIECE_SIZE_BYTES: usize = 16 * 1024;

/// Size of the largest element, in bytes.
const ELEMENT_SIZE_BYTES_MAX: usize = 8;

/// A file that is not the canonical file of the expected layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file ends early.
    #[error("the file ends after {found} bytes, expected {expected}")]
    Truncated {
        /// Size of the whole file, in bytes.
        expected: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// The file goes on behind its last tensor.
    #[error("the file goes on behind its {expected} bytes")]
    TooLong {
        /// Size of the whole file, in bytes.
        expected: usize,
    },
    /// The header is not spelled canonically.
    #[error(
        "the header is not canonical: list the tensors by name in compact json, without gaps and metadata, padded \
         with spaces to 8 bytes"
    )]
    NotCanonicalHeader,
    /// The header describes tensors beyond a bound.
    #[error("the header is not acceptable: {0}")]
    Layout(#[from] LayoutError),
    /// The tensors are not those of the model.
    #[error("the file does not fit the model: {0}")]
    LayoutMismatch(#[from] LayoutMismatch),
    /// The reader had already reported an error.
    #[error("reading was given up at an earlier error")]
    GivenUp,
}

/// Whole elements that stand next to each other in one tensor.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Position of the tensor in the layout.
    pub tensor: usize,
    /// Index of the first element in its tensor, row-major.
    pub first: usize,
    /// Type of the elements.
    pub dtype: Dtype,
    /// The elements, little-endian.
    pub bytes: &'a [u8],
}

impl Run<'_> {
    /// Appends the elements to `values`. `F64` is rounded to the nearest `f32`, the others are exact.
    pub fn append_f32(&self, values: &mut Vec<f32>) {
        match self.dtype {
            Dtype::F16 => {
                values.extend(self.bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()));
            }
            Dtype::BF16 => {
                values.extend(self.bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()));
            }
            Dtype::F32 => values.extend(self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Dtype::F64 => values.extend(self.bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
        }
    }
}

/// Reads one file of a known layout from chunks of any size, and hashes it on the way.
///
/// It holds at most the header and one element, whatever is pushed.
#[derive(Debug)]
pub struct UpdateReader {
    layout: TensorLayout,
    hasher: Sha256,
    /// Bytes of the file so far.
    received: usize,
    /// Length field and JSON, until the header has been checked.
    header: Vec<u8>,
    header_checked: bool,
    /// Position of the tensor that the next element belongs to, and its index there.
    tensor: usize,
    element: usize,
    /// The beginning of an element whose rest is in the next chunk.
    carry: [u8; ELEMENT_SIZE_BYTES_MAX],
    carried: usize,
    given_up: bool,
}

impl UpdateReader {
    /// A reader for one file of `layout`.
    pub fn new(layout: TensorLayout) -> Self {
        Self {
            layout,
            hasher: Sha256::new(),
            received: 0,
            header: Vec::new(),
            header_checked: false,
            tensor: 0,
            element: 0,
            carry: [0; ELEMENT_SIZE_BYTES_MAX],
            carried: 0,
            given_up: false,
        }
    }

    /// Takes the next bytes of the file and hands complete elements to `sink`, in order.
    ///
    /// # Errors
    ///
    /// A [`ReadError`], or what `sink` returned. Afterwards the reader only repeats that it has given up.
    pub fn push<E: From<ReadError>>(
        &mut self,
        chunk: &[u8],
        sink: impl FnMut(Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.given_up {
            return Err(ReadError::GivenUp.into());
        }
        let result = self.take(chunk, sink);
        self.given_up = result.is_err();
        result
    }

    /// The digest of the file, if it is complete.
    ///
    /// # Errors
    ///
    /// [`ReadError::Truncated`] if bytes are missing, [`ReadError::NotCanonicalHeader`] if the header claims the whole
    /// file, [`ReadError::GivenUp`] after an earlier error.
    pub fn finish(self) -> Result<Digest, ReadError> {
        self.check_complete()
    }

    /// Bytes taken so far, and their SHA-256.
    pub(crate) fn prefix(&self) -> (usize, Digest) {
        (self.received, Digest::from_bytes(self.hasher.clone().finalize().into()))
    }

    /// See [`finish`](Self::finish).
    pub(crate) fn check_complete(&self) -> Result<Digest, ReadError> {
        if self.given_up {
            return Err(ReadError::GivenUp);
        }
        let expected = self.layout.file_size_bytes();
        if self.received < expected {
            return Err(ReadError::Truncated { expected, found: self.received });
        }
        if !self.header_checked {
            // There were bytes enough, but the length field took the payload for header.
            return Err(ReadError::NotCanonicalHeader);
        }
        Ok(self.prefix().1)
    }

    fn take<E: From<ReadError>>(
        &mut self,
        chunk: &[u8],
        mut sink: impl FnMut(Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let payload = self.take_header(chunk)?;
        let expected = self.layout.file_size_bytes();
        if payload.len() > expected.saturating_sub(self.received) && self.header_checked {
            return Err(ReadError::TooLong { expected }.into());
        }
        for piece in payload.chunks(PIECE_SIZE_BYTES) {
            self.hasher.update(piece);
            self.received += piece.len();
            self.hand_out(piece, &mut sink)?;
        }
        Ok(())
    }

    /// Takes what belongs to the header from the front of `chunk` and returns the rest.
    fn take_header<'c>(&mut self, mut chunk: &'c [u8]) -> Result<&'c [u8], ReadError> {
        while !self.header_checked && !chunk.is_empty() {
            let end = match self.header.first_chunk::<LENGTH_SIZE_BYTES>() {
                None => LENGTH_SIZE_BYTES,
                Some(field) => LENGTH_SIZE_BYTES + header::length(*field)?,
            };
            let (now, later) = chunk.split_at(chunk.len().min(end - self.header.len()));
            self.header.extend_from_slice(now);
            self.hasher.update(now);
            self.received += now.len();
            chunk = later;
            if let Some(field) = self.header.first_chunk::<LENGTH_SIZE_BYTES>()
                && self.header.len() == LENGTH_SIZE_BYTES + header::length(*field)?
            {
                header::check(&self.header, &self.layout)?;
                self.header_checked = true;
                self.header = Vec::new();
            }
        }
        Ok(chunk)
    }

    /// Hands the complete elements of carry and `piece` to `sink` and carries the rest.
    fn hand_out<E>(&mut self, mut piece: &[u8], sink: &mut impl FnMut(Run<'_>) -> Result<(), E>) -> Result<(), E> {
        while !piece.is_empty() {
            let (Some(spec), Some(extent)) =
                (self.layout.tensors().get(self.tensor), self.layout.extents().get(self.tensor))
            else {
                return Ok(());
            };
            let dtype = spec.dtype;
            let size = dtype.size_bytes();
            let left = extent.element_count - self.element;
            if left == 0 {
                self.tensor += 1;
                self.element = 0;
            } else if self.carried > 0 || piece.len() < size {
                let (now, later) = piece.split_at(piece.len().min(size - self.carried));
                self.carry[self.carried..self.carried + now.len()].copy_from_slice(now);
                self.carried += now.len();
                piece = later;
                if self.carried == size {
                    sink(Run { tensor: self.tensor, first: self.element, dtype, bytes: &self.carry[..size] })?;
                    self.carried = 0;
                    self.element += 1;
                }
            } else {
                let count = left.min(piece.len() / size);
                let (now, later) = piece.split_at(count * size);
                sink(Run { tensor: self.tensor, first: self.element, dtype, bytes: now })?;
                self.element += count;
                piece = later;
            }
        }
        Ok(())
    }
}

/// The payload of `file`, which must be the canonical file of `layout`.
///
/// # Errors
///
/// A [`ReadError`] that says how the file differs.
pub fn payload_of<'a>(file: &'a [u8], layout: &TensorLayout) -> Result<&'a [u8], ReadError> {
    let expected = layout.file_size_bytes();
    let short = ReadError::Truncated { expected, found: file.len() };
    let field = file.first_chunk::<LENGTH_SIZE_BYTES>().ok_or(short.clone())?;
    let header = file.get(..LENGTH_SIZE_BYTES + header::length(*field)?).ok_or(short.clone())?;
    header::check(header, layout)?;
    match file.len().cmp(&expected) {
        std::cmp::Ordering::Less => Err(short),
        std::cmp::Ordering::Equal => Ok(&file[header.len()..]),
        std::cmp::Ordering::Greater => Err(ReadError::TooLong { expected }),
    }
}

/// The tensors of `file`, which must be the canonical file of `layout`, in the order of their names.
///
/// # Errors
///
/// A [`ReadError`] that says how the file differs.
pub fn read_f32(file: &[u8], layout: &TensorLayout) -> Result<Vec<Tensor>, ReadError> {
    let payload = payload_of(file, layout)?;
    let tensors = layout.tensors().iter().zip(layout.extents()).enumerate().map(|(tensor, (spec, extent))| {
        let size_bytes = extent.element_count * spec.dtype.size_bytes();
        let bytes = &payload[extent.first_byte..extent.first_byte + size_bytes];
        let mut values = Vec::with_capacity(extent.element_count);
        Run { tensor, first: 0, dtype: spec.dtype, bytes }.append_f32(&mut values);
        Tensor { name: spec.name.clone(), shape: spec.shape.clone(), values }
    });
    Ok(tensors.collect())
}
