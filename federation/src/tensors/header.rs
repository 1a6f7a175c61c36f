//! The canonical header: its one spelling, and how a stranger's header is understood well enough to say what is wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    layout::{Dtype, Extent, LayoutError, TensorLayout, TensorSpec},
    reader::ReadError,
};

/// Largest header, in bytes, without the eight bytes of its length.
pub const HEADER_SIZE_BYTES_MAX: u64 = 1024 * 1024;

/// Size of the header's length field, in bytes.
pub(super) const LENGTH_SIZE_BYTES: usize = 8;

/// The header's size is a multiple of this, in bytes, so that the payload is aligned for every dtype.
const ALIGNMENT_BYTES: usize = 8;

/// One tensor in the header; the order of the fields is the order of the keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Length field and padded JSON for `tensors`, which are sorted and placed at `extents`.
pub(super) fn canonical(tensors: &[TensorSpec], extents: &[Extent]) -> Result<Vec<u8>, LayoutError> {
    let entries: BTreeMap<&str, Entry> = tensors
        .iter()
        .zip(extents)
        .map(|(tensor, extent)| {
            let end = extent.first_byte + extent.element_count * tensor.dtype.size_bytes();
            let data_offsets = (extent.first_byte as u64, end as u64);
            (tensor.name.as_str(), Entry { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets })
        })
        .collect();
    let mut header = vec![0; LENGTH_SIZE_BYTES];
    // Writing strings and integers to memory cannot fail; a bound that is exceeded is the only error to tell.
    serde_json::to_writer(&mut header, &entries).map_err(|_| LayoutError::HeaderTooLong { found: u64::MAX })?;
    header.resize(header.len().next_multiple_of(ALIGNMENT_BYTES), b' ');
    let length = (header.len() - LENGTH_SIZE_BYTES) as u64;
    if length > HEADER_SIZE_BYTES_MAX {
        return Err(LayoutError::HeaderTooLong { found: length });
    }
    header[..LENGTH_SIZE_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// The header's length as its first eight bytes give it, if it is within the bound.
pub(super) fn length(field: [u8; LENGTH_SIZE_BYTES]) -> Result<usize, ReadError> {
    let found = u64::from_le_bytes(field);
    if found > HEADER_SIZE_BYTES_MAX {
        return Err(LayoutError::HeaderTooLong { found }.into());
    }
    usize::try_from(found).map_err(|_| LayoutError::HeaderTooLong { found }.into())
}

/// The layout that `header` (length field and JSON) describes in the canonical spelling.
///
/// Parsing is lenient because the spelling is checked afterwards, by writing it anew.
fn parse(header: &[u8]) -> Result<TensorLayout, ReadError> {
    let json = header.get(LENGTH_SIZE_BYTES..).ok_or(ReadError::NotCanonicalHeader)?;
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(json).map_err(|_| ReadError::NotCanonicalHeader)?;
    let tensors = entries.into_iter().map(|(name, entry)| TensorSpec::new(name, entry.shape, entry.dtype));
    Ok(TensorLayout::new(tensors.collect())?)
}

/// Checks that `header` (length field and JSON) is the canonical header of `expected`.
pub(super) fn check(header: &[u8], expected: &TensorLayout) -> Result<(), ReadError> {
    if header == expected.header() {
        return Ok(());
    }
    expected.check(&parse(header)?)?;
    Err(ReadError::NotCanonicalHeader)
}

/// The layout of a canonical file.
///
/// # Errors
///
/// [`ReadError::NotCanonicalHeader`], [`ReadError::Layout`] for a header beyond a bound, and
/// [`ReadError::Truncated`] or [`ReadError::TooLong`] for a payload of another size than the header says.
pub fn layout_of(file: &[u8]) -> Result<TensorLayout, ReadError> {
    let short = |expected| ReadError::Truncated { expected, found: file.len() };
    let field = file.first_chunk::<LENGTH_SIZE_BYTES>().ok_or(short(LENGTH_SIZE_BYTES))?;
    let header_end = LENGTH_SIZE_BYTES + length(*field)?;
    let header = file.get(..header_end).ok_or(short(header_end))?;
    let layout = parse(header)?;
    if header != layout.header() {
        return Err(ReadError::NotCanonicalHeader);
    }
    match file.len().cmp(&layout.file_size_bytes()) {
        std::cmp::Ordering::Less => Err(short(layout.file_size_bytes())),
        std::cmp::Ordering::Equal => Ok(layout),
        std::cmp::Ordering::Greater => Err(ReadError::TooLong { expected: layout.file_size_bytes() }),
    }
}
