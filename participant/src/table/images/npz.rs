//! npz files, as numpy writes them: a ZIP archive with one array per member, in the form of numpy's `format` module, versions
//! 1 to 3.

use std::{
    fs::File,
    io::{self, Read},
};

use fedledger_ledger::Digest;
use zip::{ZipArchive, result::ZipError};

use super::{
    Arrays, ImageError, Of, Part,
    array::{Array, DIMENSIONS_MAX, Element},
};
use crate::table::{hashing::HashedFile, lines::FILE_BYTES_MAX};

/// What the file is called where no array is meant.
const FILE_NAME: &str = "the npz file";

/// What an array begins with.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header of an array, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// An archive of arrays.
pub(in crate::table) struct Npz {
    archive: ZipArchive<io::BufReader<File>>,
    file: HashedFile,
}

impl Npz {
    /// Reads the archive's list of members.
    pub(in crate::table) fn open(file: File) -> Result<Self, ImageError> {
        let too_large = || ImageError::FileTooLarge { name: FILE_NAME.to_owned(), limit: FILE_BYTES_MAX };
        let file = HashedFile::of(file, FILE_BYTES_MAX)?.ok_or_else(too_large)?;
        Ok(Self { archive: ZipArchive::new(io::BufReader::new(file.reader()?))?, file })
    }
}

impl Arrays for Npz {
    fn array(&mut self, name: &str) -> Result<Option<Array<'_>>, ImageError> {
        match self.archive.by_name(&format!("{name}.npy")) {
            Ok(member) => read_header(name, Box::new(member)).map(Some),
            Err(ZipError::FileNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn default_name(&self, part: Part, of: Of) -> &'static str {
        match (part, of) {
            (Part::Train, Of::Images) => "train_images",
            (Part::Train, Of::Labels) => "train_labels",
            (Part::Test, Of::Images) => "test_images",
            (Part::Test, Of::Labels) => "test_labels",
        }
    }

    fn finish(&mut self) -> Result<Digest, ImageError> {
        self.file.unchanged()?.ok_or_else(|| ImageError::Changed { name: FILE_NAME.to_owned() })
    }
}

fn read_header<'a>(name: &str, mut bytes: Box<dyn Read + 'a>) -> Result<Array<'a>, ImageError> {
    let refused = |why: &str| ImageError::Header { name: name.to_owned(), why: why.to_owned() };
    let header = header_text(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => refused("it ends within its header"),
        io::ErrorKind::InvalidData => refused("it does not begin as numpy's arrays do"),
        _ => error.into(),
    })?;
    let header = Header::parse(&header).ok_or_else(|| refused("its header is not understood"))?;
    if header.fortran_order && header.shape.len() > 1 {
        return Err(refused("it is in column-major order; save it with numpy.ascontiguousarray"));
    }
    if header.shape.is_empty() || header.shape.len() > DIMENSIONS_MAX {
        return Err(refused("it has no dimensions, or too many"));
    }
    let element = element(header.kind).ok_or_else(|| ImageError::Element {
        name: name.to_owned(),
        found: format!("numbers of numpy's kind {:?}", header.kind),
        expected: "whole numbers",
    })?;
    Ok(Array { shape: header.shape, element, bytes })
}

/// The header of an array: a Python dictionary as text.
fn header_text(bytes: &mut impl Read) -> io::Result<String> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut start = [0; 8];
    bytes.read_exact(&mut start)?;
    let [magic @ .., major, _] = start;
    let length = match major {
        _ if magic != *MAGIC => return Err(invalid()),
        1 => {
            let mut length = [0; 2];
            bytes.read_exact(&mut length)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            bytes.read_exact(&mut length)?;
            usize::try_from(u32::from_le_bytes(length)).map_err(|_| invalid())?
        }
        _ => return Err(invalid()),
    };
    if length > HEADER_BYTES_MAX {
        return Err(invalid());
    }
    let mut header = vec![0; length];
    bytes.read_exact(&mut header)?;
    String::from_utf8(header).map_err(|_| invalid())
}

/// What the dictionary says.
#[derive(Debug, PartialEq)]
struct Header<'a> {
    kind: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    /// Finds the three entries; the values that numpy writes need no more of Python's syntax.
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let value = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, value)| value.trim_start());
        let (kind, _) = value("descr")?.strip_prefix('\'')?.split_once('\'')?;
        let order = value("fortran_order")?;
        let fortran_order = match order.split_once(',').map_or(order, |(order, _)| order).trim() {
            "True" => true,
            "False" => false,
            _ => return None,
        };
        let (shape, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let dimensions = shape.split(',').map(str::trim).filter(|dimension| !dimension.is_empty());
        let shape = dimensions.map(|dimension| dimension.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(Self { kind, fortran_order, shape })
    }
}

/// The whole number that numpy's text for it means.
fn element(kind: &str) -> Option<Element> {
    let big_endian = kind.starts_with('>');
    let (signed, size) = match kind.strip_prefix(['|', '<', '>', '='])?.split_at_checked(1)? {
        ("u", size) => (false, size),
        ("i", size) => (true, size),
        ("b", "1") => (false, "1"),
        _ => return None,
    };
    let size = size.parse().ok().filter(|size| [1, 2, 4, 8].contains(size))?;
    // Numbers in the machine's own order are not written by any that numpy runs on, except for single bytes.
    (size == 1 || !kind.starts_with(['|', '='])).then_some(Element { size, signed, big_endian })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_numpy_are_understood() {
        let header = Header::parse("{'descr': '|u1', 'fortran_order': False, 'shape': (4708, 28, 28), }      \n");
        assert_eq!(header, Some(Header { kind: "|u1", fortran_order: false, shape: vec![4708, 28, 28] }));
        let header = Header::parse("{'shape': (3,), 'fortran_order': True, 'descr': '<i8'}").unwrap();
        assert_eq!((header.kind, header.fortran_order, header.shape), ("<i8", true, vec![3]));
        for wrong in [
            "",
            "{}",
            "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<i8', 'fortran_order': 0, 'shape': (3,), }",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (-3,), }",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3,",
        ] {
            assert_eq!(Header::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_whole_numbers_can_be_used() {
        let known = |size, signed, big_endian| Some(Element { size, signed, big_endian });
        assert_eq!(element("|u1"), known(1, false, false));
        assert_eq!(element("|b1"), known(1, false, false));
        assert_eq!(element("<i8"), known(8, true, false));
        assert_eq!(element(">i4"), known(4, true, true));
        for kind in ["<f4", "|O", "<U3", "", "u1", "|i2", "<i3", "<u16", "|é1"] {
            assert_eq!(element(kind), None, "{kind}");
        }
    }
}
