//! The weights that a trainer has written, and the update that follows from them.
//!
//! Trainers write safetensors with whatever library they have, so any order of the tensors and any metadata will do. Names,
//! shapes and types must be the model's, and nothing that the file says decides how much is allocated.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
};

use fedledger_federation::{
    command::FileRef,
    tensors::{
        Dtype, FileError, HEADER_SIZE_BYTES_MAX, LayoutError, LayoutMismatch, StreamWriteError, TensorLayout,
        TensorSpec, TensorWriter,
    },
};
use serde::Deserialize;

use super::text::plain;
use crate::training::BaseWeights;

/// Size of the field with the header's length, in bytes.
const LENGTH_SIZE_BYTES: usize = 8;

/// Size of a 32-bit float.
const FLOAT_SIZE_BYTES: usize = 4;

/// The key of free text, which is no tensor.
const METADATA_KEY: &str = "__metadata__";

/// Longest part of a message about somebody else's header, in characters.
const MESSAGE_LENGTH_MAX: usize = 200;

/// Why there is no update of trained weights.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The file is no safetensors file.
    #[error("trained.safetensors is no safetensors file: {0}")]
    Malformed(String),
    /// The header describes tensors beyond a bound.
    #[error("trained.safetensors is not acceptable: {0}")]
    Layout(#[from] LayoutError),
    /// The tensors are not those of the model.
    #[error("trained.safetensors does not fit the model, whose tensors have dtype F32: {0}")]
    Mismatch(#[from] LayoutMismatch),
    /// A tensor's place in the file is not as large as its shape says, or lies outside the file.
    #[error("tensor {0:?} of trained.safetensors does not lie where its header says")]
    Place(String),
    /// An infinite value or NaN.
    #[error("tensor {tensor:?} of trained.safetensors is not finite at element {element}: the training diverged")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Row-major index in the tensor.
        element: usize,
    },
    /// The file cannot be read.
    #[error("trained.safetensors cannot be read: {0}")]
    Read(io::Error),
    /// The base weights cannot be read.
    #[error("the base weights cannot be read: {0}")]
    Base(#[from] FileError),
    /// The update cannot be written, or a value of it does not fit the plan's element type.
    #[error("the update cannot be written: {0}")]
    Update(#[from] StreamWriteError),
}

/// Where and what a tensor is, as its header says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A file of trained weights whose header fits the model.
struct Trained<R> {
    file: R,
    layout: TensorLayout,
    /// Where each tensor of the layout begins, in bytes from the beginning of the file.
    starts: Vec<u64>,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl<R: Read + Seek> Trained<R> {
    /// Reads the header, which must describe the tensors of `layout`.
    fn open(mut file: R, layout: &TensorLayout) -> Result<Self, UpdateError> {
        let size = file.seek(SeekFrom::End(0)).map_err(UpdateError::Read)?;
        file.rewind().map_err(UpdateError::Read)?;
        let mut field = [0; LENGTH_SIZE_BYTES];
        let malformed = |text: &str| UpdateError::Malformed(plain(text, MESSAGE_LENGTH_MAX));
        file.read_exact(&mut field).map_err(|_| malformed("it is shorter than eight bytes"))?;
        let length = u64::from_le_bytes(field);
        let payload = length.saturating_add(LENGTH_SIZE_BYTES as u64);
        if length > HEADER_SIZE_BYTES_MAX || payload > size {
            return Err(malformed("its header is longer than the file, or than a mebibyte"));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(UpdateError::Read)?;
        let parsed = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&header);
        let mut entries = parsed.map_err(|error| malformed(&error.to_string()))?;
        entries.remove(METADATA_KEY);

        let (mut specs, mut places) = (Vec::new(), BTreeMap::new());
        for (name, value) in entries {
            let entry: Entry =
                serde_json::from_value(value).map_err(|error| malformed(&format!("tensor {name:?}: {error}")))?;
            places.insert(name.clone(), entry.data_offsets);
            specs.push(TensorSpec::new(name, entry.shape, entry.dtype));
        }
        layout.check(&TensorLayout::new(specs)?)?;
        let mut starts = Vec::new();
        for spec in layout.tensors() {
            let count: u64 = spec.shape.iter().product();
            let place = places.get(&spec.name).and_then(|&(begin, end)| {
                let whole = end.checked_sub(begin)? == count.checked_mul(FLOAT_SIZE_BYTES as u64)?;
                (whole && payload.checked_add(end)? <= size).then(|| payload.saturating_add(begin))
            });
            starts.push(place.ok_or_else(|| UpdateError::Place(spec.name.clone()))?);
        }
        Ok(Self { file, layout: layout.clone(), starts, bytes: Vec::new(), values: Vec::new() })
    }

    /// Values of a tensor from `element` on, all of which must be finite. Whoever calls takes care that the tensor has them.
    fn read(&mut self, tensor: usize, element: usize, count: usize) -> Result<&[f32], UpdateError> {
        let name = || self.layout.tensors().get(tensor).map(|spec| spec.name.clone()).unwrap_or_default();
        let start = self.starts.get(tensor).copied().ok_or_else(|| UpdateError::Place(name()))?;
        let offset = start.saturating_add((element as u64).saturating_mul(FLOAT_SIZE_BYTES as u64));
        self.file.seek(SeekFrom::Start(offset)).map_err(UpdateError::Read)?;
        self.bytes.resize(count.saturating_mul(FLOAT_SIZE_BYTES), 0);
        self.file.read_exact(&mut self.bytes).map_err(UpdateError::Read)?;
        self.values.clear();
        self.values.extend(self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        match self.values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(UpdateError::NotFinite { tensor: name(), element: element.saturating_add(index) }),
            None => Ok(&self.values),
        }
    }
}

/// Writes trained minus base weights as a file of `update`'s layout, each value rounded to the nearest of its type: its
/// digest and size. `model` is the layout of weights. Neither file is ever whole in memory.
///
/// # Errors
///
/// [`UpdateError`]; what was written is of no use then.
pub fn write_update<B: BaseWeights + ?Sized>(
    base: &B,
    trained: impl Read + Seek,
    model: &TensorLayout,
    update: TensorLayout,
    sink: impl Write,
) -> Result<FileRef, UpdateError> {
    let mut trained = Trained::open(trained, model)?;
    let mut writer = TensorWriter::new(update, sink).map_err(StreamWriteError::Io)?;
    let mut pieces = base.read()?;
    let (mut tensor, mut element, mut delta) = (0, 0, Vec::new());
    while let Some((position, base)) = pieces.next_piece()? {
        if position != tensor {
            (tensor, element) = (position, 0);
        }
        let trained = trained.read(tensor, element, base.len())?;
        delta.clear();
        delta.extend(trained.iter().zip(base).map(|(trained, base)| trained - base));
        writer.push(&delta)?;
        element = element.saturating_add(base.len());
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use fedledger_federation::tensors::{Tensor, write_tensors};

    use super::*;

    fn layout() -> TensorLayout {
        let specs =
            vec![TensorSpec::new("bias", vec![1], Dtype::F32), TensorSpec::new("weight", vec![2, 2], Dtype::F32)];
        TensorLayout::new(specs).unwrap()
    }

    fn tensors(bias: f32, weight: [f32; 4]) -> [Tensor; 2] {
        let tensor = |name: &str, shape, values| Tensor { name: name.to_owned(), shape, values };
        [tensor("bias", vec![1], vec![bias]), tensor("weight", vec![2, 2], weight.to_vec())]
    }

    /// The file of a header and values.
    fn file(header: &str, values: &[f32]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        file
    }

    fn update_of(trained: &[u8], dtype: Dtype) -> Result<Vec<u8>, UpdateError> {
        let mut update = Vec::new();
        let base = tensors(1.0, [0.5, 0.25, -1.0, 2.0]);
        let layout = layout();
        write_update(&base[..], Cursor::new(trained), &layout, layout.with_dtype(dtype).unwrap(), &mut update)?;
        Ok(update)
    }

    #[test]
    fn the_update_is_trained_minus_base() {
        let trained = write_tensors(&tensors(1.5, [0.0, 0.25, 1.0, 2.5])).unwrap();
        let expected = write_tensors(&tensors(0.5, [-0.5, 0.0, 2.0, 0.5])).unwrap();
        assert_eq!(update_of(&trained, Dtype::F32).unwrap(), expected);
        let half = update_of(&trained, Dtype::F16).unwrap();
        assert_eq!(half.len(), layout().with_dtype(Dtype::F16).unwrap().file_size_bytes());
    }

    #[test]
    fn any_order_spaces_and_metadata_will_do() {
        let header = r#"{"__metadata__": {"format": "pt"}, "weight": {"dtype": "F32", "shape": [2, 2],
            "data_offsets": [0, 16]}, "bias": {"data_offsets": [20, 24], "dtype": "F32", "shape": [1]}}"#;
        let trained = file(header, &[0.0, 0.25, 1.0, 2.5, 77.0, 1.5]);
        let expected = write_tensors(&tensors(0.5, [-0.5, 0.0, 2.0, 0.5])).unwrap();
        assert_eq!(update_of(&trained, Dtype::F32).unwrap(), expected);
    }

    #[test]
    fn another_model_is_refused() {
        let bias = r#""bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let weight = r#""weight":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]}"#;
        let values = [1.0; 5];
        assert!(update_of(&file(&format!("{{{bias},{weight}}}"), &values), Dtype::F32).is_ok());
        let refused = |bias: &str, weight: &str| {
            update_of(&file(&format!("{{{bias},{weight}}}"), &values), Dtype::F32).unwrap_err()
        };
        use UpdateError::{Layout, Malformed, Mismatch, Place};
        let renamed = weight.replace("weight", "weights");
        assert!(matches!(
            refused(bias, &renamed),
            Mismatch(LayoutMismatch::Missing { .. } | LayoutMismatch::Unexpected { .. })
        ));
        assert!(matches!(refused(bias, &weight.replace("[2,2]", "[4]")), Mismatch(LayoutMismatch::Shape { .. })));
        assert!(matches!(refused(bias, &weight.replace("F32", "F64")), Mismatch(LayoutMismatch::Dtype { .. })));
        assert!(matches!(refused(bias, &weight.replace("F32", "I64")), Malformed(_)));
        assert!(matches!(refused(bias, &format!("{weight},{}", renamed)), Mismatch(LayoutMismatch::Unexpected { .. })));
        for place in ["[4,21]", "[5,20]", "[8,24]", "[20,4]", "[18446744073709551600,18446744073709551615]"] {
            assert!(matches!(refused(bias, &weight.replace("[4,20]", place)), Place(_)), "{place}");
        }
        let huge = weight.replace("[2,2]", "[18446744073709551615,2]");
        assert!(matches!(refused(bias, &huge), Layout(LayoutError::TooManyElements { .. })));
    }

    #[test]
    fn garbage_is_refused_before_it_takes_memory() {
        let sound = write_tensors(&tensors(1.5, [0.0; 4])).unwrap();
        for cut in 0..sound.len() {
            assert!(update_of(&sound[..cut], Dtype::F32).is_err(), "{cut} bytes were accepted");
        }
        for garbage in [&b""[..], b"PK\x03\x04", &[0xff; 64], &u64::MAX.to_le_bytes(), &file("[1, 2]", &[])] {
            assert!(matches!(update_of(garbage, Dtype::F32), Err(UpdateError::Malformed(_))), "{garbage:?}");
        }
    }

    #[test]
    fn what_is_not_finite_is_found() {
        for value in [f32::NAN, f32::INFINITY] {
            let header = layout().header().to_vec();
            let mut trained = header;
            trained.extend([1.0, 1.0, 1.0, value, 1.0].iter().flat_map(|value: &f32| value.to_le_bytes()));
            let error = update_of(&trained, Dtype::F32).unwrap_err();
            assert!(matches!(&error, UpdateError::NotFinite { tensor, element: 2 } if tensor == "weight"), "{error}");
        }
        let trained = write_tensors(&tensors(1.0, [1e5; 4])).unwrap();
        assert!(matches!(update_of(&trained, Dtype::F16), Err(UpdateError::Update(_))), "no half is as large");
    }
}
