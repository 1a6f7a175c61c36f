//! Parameters and the gradients that are summed for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Layout, Result, Storage, Tensor, Var};

/// A parameter of a network, and the sum of its gradients over the parts of a batch.
///
/// Layers add gradients here themselves: what they hand to the numeric library is added to zeros first, in memory of its
/// own, and above 65,536 values by threads that wait for each other.
#[derive(Clone)]
pub(super) struct Parameter {
    variable: Var,
    gradient: Gradient,
}

/// A sum of gradients that a layer and the optimiser share.
#[derive(Clone)]
pub(super) struct Gradient(Arc<Mutex<Vec<f32>>>);

impl Parameter {
    /// A parameter of these values, which are not copied.
    pub(super) fn new(values: Vec<f32>, shape: &[u64]) -> Result<Self> {
        let dimensions: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        let variable = Var::from_vec(values, dimensions, &Device::Cpu)?;
        Ok(Self { variable, gradient: Gradient(Arc::default()) })
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.variable
    }

    pub(super) fn count(&self) -> usize {
        self.variable.elem_count()
    }

    /// The sum, for a layer to add to.
    pub(super) fn gradient(&self) -> Gradient {
        self.gradient.clone()
    }

    /// Shows the values where they lie.
    pub(super) fn with_values<T>(&self, show: impl FnOnce(&[f32]) -> T) -> Result<T> {
        with_values(&self.variable, show)
    }
}

impl Gradient {
    /// The sum so far, of `count` values; zeros before anything was added.
    pub(super) fn sums(&self, count: usize) -> MutexGuard<'_, Vec<f32>> {
        // One thread adds; what a panic left behind is dropped with the run.
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.resize(count, 0.0);
        sums
    }
}

/// Shows the values of a tensor where they lie.
pub(super) fn with_values<T>(tensor: &Tensor, show: impl FnOnce(&[f32]) -> T) -> Result<T> {
    with_all_values([tensor], |[values]| show(values))
}

/// Shows the values of several tensors where they lie.
pub(super) fn with_all_values<T, const N: usize>(
    tensors: [&Tensor; N],
    show: impl FnOnce([&[f32]; N]) -> T,
) -> Result<T> {
    let storages = tensors.map(Tensor::storage_and_layout);
    let mut values = [&[][..]; N];
    for (values, (storage, layout)) in values.iter_mut().zip(&storages) {
        let Storage::Cpu(storage) = &**storage else { candle_core::bail!("tensors lie in main memory") };
        *values = contiguous(storage.as_slice::<f32>()?, layout)?;
    }
    Ok(show(values))
}

/// The values of a tensor that lie one after the other.
pub(super) fn contiguous<'a>(values: &'a [f32], layout: &Layout) -> Result<&'a [f32]> {
    let range = layout.contiguous_offsets().and_then(|(start, end)| values.get(start..end));
    range.ok_or_else(|| candle_core::Error::RequiresContiguous { op: "training" }.bt())
}
