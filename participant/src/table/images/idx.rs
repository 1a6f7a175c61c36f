//! IDX files, as those of MNIST: two zero bytes, the kind of numbers, the number of dimensions, each dimension as four bytes,
//! then the numbers, everything big-endian. A name that ends with `.gz` is decompressed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use fedledger_ledger::{Digest, codec};
use flate2::read::MultiGzDecoder;

use super::{
    Arrays, ImageError, Of, Part,
    array::{Array, DIMENSIONS_MAX, Element},
};
use crate::table::{hashing::HashedFile, lines::FILE_BYTES_MAX};

/// Ending of compressed files.
const GZIP: &str = ".gz";

/// A folder with IDX files.
pub(in crate::table) struct IdxFiles {
    folder: PathBuf,
    /// Those that were opened.
    files: BTreeMap<String, HashedFile>,
}

impl IdxFiles {
    /// The files of a folder, or those beside one of them.
    pub(in crate::table) fn of(path: &Path) -> Self {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        Self { folder: folder.to_owned(), files: BTreeMap::new() }
    }

    /// Opens a file; of two names that differ in `.gz` only, the one that is there.
    fn open(&self, name: &str) -> Result<Option<(String, File)>, ImageError> {
        let names =
            if name.ends_with(GZIP) { vec![name.to_owned()] } else { vec![name.to_owned(), name.to_owned() + GZIP] };
        for name in names {
            match File::open(self.folder.join(&name)) {
                Ok(file) => return Ok(Some((name, file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

impl Arrays for IdxFiles {
    fn array(&mut self, name: &str) -> Result<Option<Array<'_>>, ImageError> {
        let Some((name, file)) = self.open(name)? else { return Ok(None) };
        let too_large = || ImageError::FileTooLarge { name: name.clone(), limit: FILE_BYTES_MAX };
        let hashed = HashedFile::of(file, FILE_BYTES_MAX)?.ok_or_else(too_large)?;
        let file = io::BufReader::new(hashed.reader()?);
        let bytes: Box<dyn Read> =
            if name.ends_with(GZIP) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let array = read_header(&name, bytes)?;
        let digest = hashed.digest();
        // One file may be named for two arrays.
        if self.files.insert(name.clone(), hashed).is_some_and(|before| before.digest() != digest) {
            return Err(ImageError::Changed { name });
        }
        Ok(Some(array))
    }

    fn default_name(&self, part: Part, of: Of) -> &'static str {
        match (part, of) {
            (Part::Train, Of::Images) => "train-images-idx3-ubyte",
            (Part::Train, Of::Labels) => "train-labels-idx1-ubyte",
            (Part::Test, Of::Images) => "t10k-images-idx3-ubyte",
            (Part::Test, Of::Labels) => "t10k-labels-idx1-ubyte",
        }
    }

    fn finish(&mut self) -> Result<Digest, ImageError> {
        let mut digests = BTreeMap::new();
        for (name, file) in &mut self.files {
            let digest = file.unchanged()?.ok_or_else(|| ImageError::Changed { name: name.clone() })?;
            digests.insert(name.as_str(), digest);
        }
        Ok(Digest::of(&codec::encode(&digests)))
    }
}

fn read_header<'a>(name: &str, mut bytes: Box<dyn Read + 'a>) -> Result<Array<'a>, ImageError> {
    let refused = |why: &str| ImageError::Header { name: name.to_owned(), why: why.to_owned() };
    let ended = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("it ends within its header"),
        _ => error.into(),
    };
    let mut magic = [0; 4];
    bytes.read_exact(&mut magic).map_err(ended)?;
    let [0, 0, kind, dimensions] = magic else { return Err(refused("it does not begin as IDX files do")) };
    let (size, signed) = match kind {
        0x08 => (1, false),
        0x09 => (1, true),
        0x0b => (2, true),
        0x0c => (4, true),
        _ => return Err(refused("it holds other numbers than whole ones")),
    };
    if !(1..=DIMENSIONS_MAX).contains(&usize::from(dimensions)) {
        return Err(refused("it has no dimensions, or too many"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let mut dimension = [0; 4];
        bytes.read_exact(&mut dimension).map_err(ended)?;
        shape.push(u32::from_be_bytes(dimension).into());
    }
    Ok(Array { shape, element: Element { size, signed, big_endian: true }, bytes })
}
