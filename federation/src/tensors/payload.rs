//! Reading files that are named by their digest, block by block, without ever holding one whole.
//!
//! What is read early is used before the digest is known. So nothing that was made from a file may be published before
//! [`PayloadReader::finish`] has compared its digest; and where a file does not read as expected, its digest decides whether
//! it was damaged here or was never right.

use std::io::{self, Read};

use fedledger_ledger::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    header::{self, LENGTH_SIZE_BYTES},
    layout::{Extent, TensorLayout, TensorSpec},
    reader::{ReadError, Run},
    writer::Tensor,
};
use crate::command::FileRef;

/// Bytes that are read and then hashed while they are in the cache.
const PIECE_SIZE_BYTES: usize = 128 * 1024;

/// A file that the ledger names, about to be read from its beginning.
#[derive(Debug)]
pub struct Input<R> {
    /// Digest and size on the ledger.
    pub file: FileRef,
    /// The bytes.
    pub reader: R,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system cannot read it.
    #[error("file {file} could not be read: {source}")]
    Io {
        /// SHA-256 of the file.
        file: Digest,
        /// What the system says.
        source: io::Error,
    },
    /// It is not the file that the ledger names.
    #[error("file {file} has the SHA-256 {found}: it is damaged")]
    Damaged {
        /// SHA-256 on the ledger.
        file: Digest,
        /// SHA-256 of what was read.
        found: Digest,
    },
    /// It is the file that the ledger names, but not the canonical file of the expected layout.
    #[error("file {file}: {source}")]
    Content {
        /// SHA-256 of the file.
        file: Digest,
        /// How it differs.
        source: ReadError,
    },
}

/// Reads the payload of one file and hashes the whole file on the way.
#[derive(Debug)]
pub(crate) struct PayloadReader<R> {
    file: FileRef,
    /// One byte more than the ledger says is never read.
    source: io::Take<R>,
    hasher: Sha256,
    /// Bytes read.
    received: u64,
    /// Size of a file of the layout, in bytes.
    expected: usize,
}

impl<R: Read> PayloadReader<R> {
    /// Reads the header, which must be that of `layout`.
    pub(crate) fn open(input: Input<R>, layout: &TensorLayout) -> Result<Self, FileError> {
        let Input { file, reader } = input;
        let source = reader.take(file.size.saturating_add(1));
        let mut reader = Self { file, source, hasher: Sha256::new(), received: 0, expected: layout.file_size_bytes() };
        let mut field = [0; LENGTH_SIZE_BYTES];
        reader.read(&mut field)?;
        let mut header = field.to_vec();
        let length = match header::length(field) {
            Ok(length) => length,
            Err(error) => return Err(reader.judge(error)),
        };
        header.resize(LENGTH_SIZE_BYTES.saturating_add(length), 0);
        reader.read(header.get_mut(LENGTH_SIZE_BYTES..).unwrap_or_default())?;
        match header::check(&header, layout) {
            Ok(()) => Ok(reader),
            Err(error) => Err(reader.judge(error)),
        }
    }

    /// Fills `bytes` with the next ones.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        for piece in bytes.chunks_mut(PIECE_SIZE_BYTES) {
            let mut filled = 0;
            while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match self.source.read(rest) {
                    Ok(0) => {
                        self.update(piece.get(..filled).unwrap_or_default());
                        let found = usize::try_from(self.received).unwrap_or(usize::MAX);
                        return Err(self.judge(ReadError::Truncated { expected: self.expected, found }));
                    }
                    Ok(count) => filled = filled.saturating_add(count),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.failed(error)),
                }
            }
            self.update(piece);
        }
        Ok(())
    }

    /// Reads and hashes `count` bytes that nobody needs.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), FileError> {
        let mut piece = vec![0; PIECE_SIZE_BYTES.min(count)];
        let mut left = count;
        while left > 0 {
            let now = left.min(piece.len());
            self.read(piece.get_mut(..now).unwrap_or_default())?;
            left = left.saturating_sub(now);
        }
        Ok(())
    }

    /// SHA-256 of what was read so far.
    pub(crate) fn prefix(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Checks that the file ends here, and that it is the one that the ledger names.
    pub(crate) fn finish(mut self) -> Result<(), FileError> {
        let received = self.received;
        self.drain()?;
        if self.received == received {
            Ok(())
        } else {
            Err(self.content(ReadError::TooLong { expected: self.expected }))
        }
    }

    /// Reads to the end and compares the digest.
    pub(crate) fn drain(&mut self) -> Result<(), FileError> {
        let mut piece = vec![0; PIECE_SIZE_BYTES];
        loop {
            match self.source.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.update(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        let (file, found) = (self.file.digest, self.prefix());
        if found == file { Ok(()) } else { Err(FileError::Damaged { file, found }) }
    }

    /// What `error` means, by the digest of the whole file.
    fn judge(&mut self, error: ReadError) -> FileError {
        match self.drain() {
            Ok(()) => self.content(error),
            Err(damage) => damage,
        }
    }

    fn content(&self, source: ReadError) -> FileError {
        FileError::Content { file: self.file.digest, source }
    }

    fn failed(&self, source: io::Error) -> FileError {
        FileError::Io { file: self.file.digest, source }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.received = self.received.saturating_add(bytes.len() as u64);
    }
}

/// Reads the values of one file, piece by piece. Beside a piece, nothing of the file is in memory.
#[derive(Debug)]
pub struct TensorReader<R> {
    /// None once the end has been checked.
    reader: Option<PayloadReader<R>>,
    layout: TensorLayout,
    /// Position of the tensor that the next value belongs to, and its index there.
    tensor: usize,
    element: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl<R: Read> TensorReader<R> {
    /// Reads the header, which must be that of `layout`.
    ///
    /// # Errors
    ///
    /// A [`FileError`].
    pub fn open(input: Input<R>, layout: TensorLayout) -> Result<Self, FileError> {
        let reader = Some(PayloadReader::open(input, &layout)?);
        Ok(Self { reader, layout, tensor: 0, element: 0, bytes: Vec::new(), values: Vec::new() })
    }

    /// The position of a tensor and its next values, in the order of the file; none at the end, after the digest has been
    /// compared.
    ///
    /// # Errors
    ///
    /// A [`FileError`]; what was read before is of no use then.
    pub fn next_piece(&mut self) -> Result<Option<(usize, &[f32])>, FileError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        while let (Some(spec), Some(extent)) =
            (self.layout.tensors().get(self.tensor), self.layout.extents().get(self.tensor))
        {
            let size_bytes = spec.dtype.size_bytes();
            let count = extent.element_count.saturating_sub(self.element).min(PIECE_SIZE_BYTES / size_bytes);
            if count == 0 {
                (self.tensor, self.element) = (self.tensor + 1, 0);
                continue;
            }
            self.bytes.resize(count * size_bytes, 0);
            reader.read(&mut self.bytes)?;
            self.values.clear();
            let run = Run { tensor: self.tensor, first: self.element, dtype: spec.dtype, bytes: &self.bytes };
            run.append_f32(&mut self.values);
            self.element += count;
            return Ok(Some((self.tensor, &self.values)));
        }
        self.reader.take().map_or(Ok(()), PayloadReader::finish)?;
        Ok(None)
    }
}

/// The tensors of a file, which must be the canonical file of `layout`, in the order of their names.
///
/// # Errors
///
/// A [`FileError`]; nothing of a damaged file is returned.
pub fn read_tensors<R: Read>(input: Input<R>, layout: &TensorLayout) -> Result<Vec<Tensor>, FileError> {
    let mut reader = TensorReader::open(input, layout.clone())?;
    let empty = |(spec, extent): (&TensorSpec, &Extent)| {
        let values = Vec::with_capacity(extent.element_count);
        Tensor { name: spec.name.clone(), shape: spec.shape.clone(), values }
    };
    let mut tensors: Vec<Tensor> = layout.tensors().iter().zip(layout.extents()).map(empty).collect();
    while let Some((tensor, values)) = reader.next_piece()? {
        if let Some(tensor) = tensors.get_mut(tensor) {
            tensor.values.extend_from_slice(values);
        }
    }
    Ok(tensors)
}
