//! Writing weights and updates.

use super::layout::{Dtype, LayoutError, TensorLayout, TensorSpec};

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Unique in its file.
    pub name: String,
    /// Row-major dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// As many values as the product of the dimensions.
    pub values: Vec<f32>,
}

/// Tensors that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// They cannot stand together in one file.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The number of values differs from the product of the dimensions.
    #[error("tensor {tensor:?} has {found} values, its shape needs {expected}")]
    ValueCount {
        /// The tensor's name.
        tensor: String,
        /// What the shape needs.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

/// The canonical `F32` file of `tensors`, whatever their order.
///
/// # Errors
///
/// A [`WriteError`] that names the tensor.
pub fn write_tensors(tensors: &[Tensor]) -> Result<Vec<u8>, WriteError> {
    let mut sorted: Vec<&Tensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let specs = sorted.iter().map(|t| TensorSpec::new(t.name.clone(), t.shape.clone(), Dtype::F32));
    let layout = TensorLayout::new(specs.collect())?;
    for (tensor, extent) in sorted.iter().zip(layout.extents()) {
        if tensor.values.len() != extent.element_count {
            let (expected, found) = (extent.element_count, tensor.values.len());
            return Err(WriteError::ValueCount { tensor: tensor.name.clone(), expected, found });
        }
    }
    let mut file = Vec::with_capacity(layout.file_size_bytes());
    file.extend_from_slice(layout.header());
    for value in sorted.iter().flat_map(|tensor| &tensor.values) {
        file.extend_from_slice(&value.to_le_bytes());
    }
    Ok(file)
}
