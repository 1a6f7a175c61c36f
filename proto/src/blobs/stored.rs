//! A stored file that is sent.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use super::{BlobSource, Marks};

/// A file of the store with the marks of its chunks.
#[derive(Debug)]
pub struct StoredBlob {
    file: File,
    size: u64,
    marks: Marks,
    /// Where the file is read next.
    position: u64,
}

impl StoredBlob {
    pub(super) const fn new(file: File, size: u64, marks: Marks) -> Self {
        // Elsewhere than at any offset, so that the first read seeks.
        Self { file, size, marks, position: u64::MAX }
    }
}

impl BlobSource for StoredBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn marks(&self) -> &Marks {
        &self.marks
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.position != offset {
            self.file.seek(SeekFrom::Start(offset))?;
        }
        self.position = u64::MAX;
        self.file.read_exact(buffer)?;
        self.position = offset.saturating_add(buffer.len() as u64);
        Ok(())
    }
}
