//! Which tensors a file holds, and where.

use std::{fmt, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use super::header;

/// Most tensors in one file.
pub const TENSORS_MAX: usize = 10_000;

/// Longest name of a tensor, in bytes.
pub const NAME_LENGTH_MAX: usize = 256;

/// Most elements in one file. Every element costs at most eight bytes of file and eight bytes of sum, so byte counts
/// stay far below 2^63.
pub const ELEMENTS_MAX: u64 = 1 << 34;

/// The key that safetensors reserves for free text; a tensor of that name could not be read back.
const RESERVED_NAME: &str = "__metadata__";

/// The type of a tensor's elements, all little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an IEEE 754 binary32.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64; optimiser state only.
    F64,
}

impl Dtype {
    /// Size of one element, in bytes.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Name, shape and element type of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique in its file, at most [`NAME_LENGTH_MAX`] bytes, without control characters.
    pub name: String,
    /// Row-major dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl TensorSpec {
    /// A tensor of this name, shape and type.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<u64>>, dtype: Dtype) -> Self {
        Self { name: name.into(), shape: shape.into(), dtype }
    }

    /// The product of the dimensions, or `None` above [`ELEMENTS_MAX`].
    fn element_count(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
            .filter(|count| *count <= ELEMENTS_MAX)
    }
}

/// The tensors of a file in the order of their names, and the place of each. Cheap to clone.
#[derive(Clone)]
pub struct TensorLayout(Arc<Placement>);

struct Placement {
    tensors: Vec<TensorSpec>,
    /// `extents[i]` is where `tensors[i]` stands.
    extents: Vec<Extent>,
    header: Vec<u8>,
    element_count: usize,
    payload_size_bytes: usize,
}

/// Where one tensor stands among the elements and the payload bytes of its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) first_element: usize,
    pub(crate) element_count: usize,
    pub(crate) first_byte: usize,
}

/// A run of elements inside one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Position of the tensor in the layout.
    pub(crate) tensor: usize,
    /// Index of the run's first element in its tensor.
    pub(crate) first_in_tensor: usize,
    /// The run among all elements of the file.
    pub(crate) elements: Range<usize>,
    /// The run among the payload bytes of the file.
    pub(crate) bytes: Range<usize>,
    /// Type of the run's elements.
    pub(crate) dtype: Dtype,
}

impl TensorLayout {
    /// Sorts `tensors` by name and places them.
    ///
    /// # Errors
    ///
    /// A [`LayoutError`] that names the tensor or the bound.
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        if tensors.len() > TENSORS_MAX {
            return Err(LayoutError::TooManyTensors { found: tensors.len() });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in &tensors {
            check_name(&tensor.name)?;
        }
        if let Some([twin, _]) = tensors.array_windows().find(|[a, b]| a.name == b.name) {
            return Err(LayoutError::DuplicateName { tensor: twin.name.clone() });
        }
        let mut extents = Vec::with_capacity(tensors.len());
        let (mut elements, mut bytes) = (0_usize, 0_usize);
        for tensor in &tensors {
            let too_large = || LayoutError::TooManyElements { tensor: tensor.name.clone() };
            let count = tensor.element_count().ok_or_else(too_large)?;
            let count = usize::try_from(count).map_err(|_| too_large())?;
            extents.push(Extent { first_element: elements, element_count: count, first_byte: bytes });
            // At most 10,000 tensors of 2^34 elements of 8 bytes: below 2^51, so only the total needs a check.
            elements += count;
            bytes += count * tensor.dtype.size_bytes();
            if elements as u64 > ELEMENTS_MAX {
                return Err(too_large());
            }
        }
        let header = header::canonical(&tensors, &extents)?;
        let placement = Placement { tensors, extents, header, element_count: elements, payload_size_bytes: bytes };
        Ok(Self(Arc::new(placement)))
    }

    /// The tensors in the order of their names.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.0.tensors
    }

    /// Elements of all tensors together.
    pub fn element_count(&self) -> usize {
        self.0.element_count
    }

    /// Bytes of all tensors together, without the header.
    pub fn payload_size_bytes(&self) -> usize {
        self.0.payload_size_bytes
    }

    /// Size of a file of this layout, in bytes.
    pub fn file_size_bytes(&self) -> usize {
        self.0.header.len() + self.0.payload_size_bytes
    }

    /// The bytes before the payload: the header's length (eight bytes, little-endian) and the padded JSON.
    pub fn header(&self) -> &[u8] {
        &self.0.header
    }

    /// The same names and shapes with another element type.
    ///
    /// # Errors
    ///
    /// [`LayoutError::HeaderTooLong`] if the other type's longer name takes the header over its bound.
    pub fn with_dtype(&self, dtype: Dtype) -> Result<Self, LayoutError> {
        if self.tensors().iter().all(|tensor| tensor.dtype == dtype) {
            return Ok(self.clone());
        }
        Self::new(self.tensors().iter().map(|t| TensorSpec { dtype, ..t.clone() }).collect())
    }

    /// Checks that `found` is this layout.
    ///
    /// # Errors
    ///
    /// The first [`LayoutMismatch`] in the order of names.
    pub fn check(&self, found: &Self) -> Result<(), LayoutMismatch> {
        let mut expected = self.tensors().iter().peekable();
        let mut found = found.tensors().iter().peekable();
        loop {
            match (expected.peek(), found.peek()) {
                (None, None) => return Ok(()),
                (Some(e), Some(f)) if e.name == f.name => check_tensor(e, f)?,
                (Some(e), Some(f)) if e.name > f.name => {
                    return Err(LayoutMismatch::Unexpected { tensor: f.name.clone() });
                }
                (None, Some(f)) => return Err(LayoutMismatch::Unexpected { tensor: f.name.clone() }),
                (Some(e), _) => return Err(LayoutMismatch::Missing { tensor: e.name.clone() }),
            }
            expected.next();
            found.next();
        }
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        &self.0.extents
    }

    /// Cuts `elements` at tensor boundaries and at every multiple of `block_elements` of the whole file, so that the
    /// blocks do not depend on how a caller splits the file if it splits at such multiples too.
    pub(crate) fn blocks(&self, elements: Range<usize>, block_elements: usize) -> impl Iterator<Item = Block> + '_ {
        let mut next = elements.start;
        let mut tensor = self.extents().partition_point(|e| e.first_element + e.element_count <= next);
        std::iter::from_fn(move || {
            if next >= elements.end {
                return None;
            }
            let mut extent = self.extents().get(tensor)?;
            while next >= extent.first_element + extent.element_count {
                tensor += 1;
                extent = self.extents().get(tensor)?;
            }
            let boundary = (next / block_elements + 1) * block_elements;
            let end = boundary.min(elements.end).min(extent.first_element + extent.element_count);
            let dtype = self.tensors().get(tensor)?.dtype;
            let first_in_tensor = next - extent.first_element;
            let first_byte = extent.first_byte + first_in_tensor * dtype.size_bytes();
            let bytes = first_byte..first_byte + (end - next) * dtype.size_bytes();
            let block = Block { tensor, first_in_tensor, elements: next..end, bytes, dtype };
            next = end;
            Some(block)
        })
    }
}

impl PartialEq for TensorLayout {
    fn eq(&self, other: &Self) -> bool {
        // The header says everything about the tensors.
        Arc::ptr_eq(&self.0, &other.0) || self.0.header == other.0.header
    }
}

impl Eq for TensorLayout {}

impl fmt::Debug for TensorLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tensors()).finish()
    }
}

/// Tensors that cannot stand together in one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More than [`TENSORS_MAX`] tensors.
    #[error("{found} tensors in one file, at most {TENSORS_MAX} are allowed")]
    TooManyTensors {
        /// How many there are.
        found: usize,
    },
    /// A name that is empty, longer than [`NAME_LENGTH_MAX`], reserved or has control characters.
    #[error(
        "tensor name {tensor:?} is not allowed: use 1 to {NAME_LENGTH_MAX} bytes without control characters, \
         not {RESERVED_NAME:?}"
    )]
    Name {
        /// The beginning of the name.
        tensor: String,
    },
    /// Two tensors of one name.
    #[error("two tensors are named {tensor:?}")]
    DuplicateName {
        /// The name.
        tensor: String,
    },
    /// More than [`ELEMENTS_MAX`] elements.
    #[error("tensor {tensor:?} takes the file over {ELEMENTS_MAX} elements")]
    TooManyElements {
        /// The tensor at which the bound was passed.
        tensor: String,
    },
    /// A header above [`HEADER_SIZE_BYTES_MAX`](super::HEADER_SIZE_BYTES_MAX).
    #[error("the header would have {found} bytes, at most {} are allowed", header::HEADER_SIZE_BYTES_MAX)]
    HeaderTooLong {
        /// Its size, in bytes.
        found: u64,
    },
}

/// How a file's tensors differ from the expected ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutMismatch {
    /// An expected tensor is not there.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor is there that the model does not have.
    #[error("tensor {tensor:?} is not part of the model")]
    Unexpected {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape.
    #[error("tensor {tensor:?} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape in the model.
        expected: Vec<u64>,
        /// The shape in the file.
        found: Vec<u64>,
    },
    /// A tensor has another element type.
    #[error("tensor {tensor:?} has dtype {found}, expected {expected}")]
    Dtype {
        /// Its name.
        tensor: String,
        /// The type in the model.
        expected: Dtype,
        /// The type in the file.
        found: Dtype,
    },
}

fn check_name(name: &str) -> Result<(), LayoutError> {
    let length_allowed = (1..=NAME_LENGTH_MAX).contains(&name.len());
    if length_allowed && name != RESERVED_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(LayoutError::Name { tensor: name.chars().take(NAME_LENGTH_MAX).collect() })
}

fn check_tensor(expected: &TensorSpec, found: &TensorSpec) -> Result<(), LayoutMismatch> {
    let tensor = || expected.name.clone();
    if expected.shape != found.shape {
        let (expected, found) = (expected.shape.clone(), found.shape.clone());
        return Err(LayoutMismatch::Shape { tensor: tensor(), expected, found });
    }
    if expected.dtype != found.dtype {
        return Err(LayoutMismatch::Dtype { tensor: tensor(), expected: expected.dtype, found: found.dtype });
    }
    Ok(())
}
