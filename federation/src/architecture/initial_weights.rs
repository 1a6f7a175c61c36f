//! Initial weights: the same bytes on every machine, from the plan's seed and the architecture alone.
//!
//! Weight and bias of a linear layer are uniform in ±1/√inputs, PyTorch's default for `nn.Linear` (the bound that He et
//! al., arXiv 1502.01852, gives with a = √5). The arithmetic is limited to IEEE 754 basic operations and square root in
//! double precision, which round alike everywhere. A custom architecture says itself how its tensors begin. This is one of the few files of the crate with floats: version 0 of a
//! model begins here, nothing here is replicated state.

use fedledger_ledger::{Digest, codec};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::{Architecture, ArchitectureError, CustomTensor, LinearLayer, ParameterValues};

/// Separates these seeds from all others.
const INITIALIZATION_DOMAIN: &[u8] = b"fedledger/v1/init";

/// 2^24: a 32-bit float represents every integer below it, so 24 random bits give evenly spaced values.
const UNIFORM_STEPS: f64 = 16_777_216.0;

/// Values that are drawn at a time.
const DRAWN_TOGETHER: usize = 16 * 1024;

/// Seed of the initial weights: SHA-256("fedledger/v1/init" || plan seed, little-endian || canonical encoding of the
/// architecture).
pub fn initialization_seed(architecture: &Architecture, plan_seed: u64) -> [u8; 32] {
    let encoding = codec::encode(architecture);
    *Digest::of_parts(&[INITIALIZATION_DOMAIN, &plan_seed.to_le_bytes(), &encoding]).as_bytes()
}

impl Architecture {
    /// The parameters that training begins with, sorted by name, each value drawn in row-major order from one ChaCha20
    /// stream seeded with [`initialization_seed`].
    ///
    /// # Errors
    ///
    /// [`ArchitectureError`] if the architecture breaks a bound; nothing is allocated then.
    pub fn initial_weights(&self, plan_seed: u64) -> Result<Vec<ParameterValues>, ArchitectureError> {
        let mut drawn = self.draw_initial_weights(plan_seed)?.flatten();
        let parameters = self.parameters().into_iter().map(|(name, shape)| {
            let count: u64 = shape.iter().product();
            let values = drawn.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
            (name, shape, values)
        });
        Ok(parameters.collect())
    }

    /// The same values in the same order, at most [`DRAWN_TOGETHER`] at a time.
    ///
    /// # Errors
    ///
    /// [`ArchitectureError`] if the architecture breaks a bound.
    pub(crate) fn draw_initial_weights(
        &self,
        plan_seed: u64,
    ) -> Result<impl Iterator<Item = Vec<f32>> + use<>, ArchitectureError> {
        self.validate()?;
        let mut rng = ChaCha20Rng::from_seed(initialization_seed(self, plan_seed));
        let pieces = self.parameters().into_iter().zip(self.beginnings()).flat_map(|((_, shape), beginning)| {
            let count: u64 = shape.iter().product();
            let starts = (0..count).step_by(DRAWN_TOGETHER);
            starts.map(move |start| (beginning, (count - start).min(DRAWN_TOGETHER as u64)))
        });
        Ok(pieces.map(move |(beginning, count)| {
            let value = |_| match beginning {
                Beginning::Uniform(bound) => uniform(rng.next_u32(), bound),
                Beginning::Constant(value) => value,
            };
            (0..count).map(value).collect()
        }))
    }

    /// How each parameter begins, in the order of the names.
    fn beginnings(&self) -> Vec<Beginning> {
        if let Self::Custom { tensors } = self {
            return tensors.iter().map(CustomTensor::beginning).collect();
        }
        // Bias and weight of a layer share their bound, and both stand under the layer in the order of the names.
        let bound = |layer: LinearLayer| Beginning::Uniform(1.0 / f64::from(layer.inputs).sqrt());
        self.layers().into_iter().flat_map(|layer| [bound(layer); 2]).collect()
    }
}

/// How the values of a parameter begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Beginning {
    /// Uniform between minus this and this.
    Uniform(f64),
    /// All alike; nothing is drawn for them.
    Constant(f32),
}

/// Maps 32 random bits to one of 2^24 evenly spaced values in [-bound, bound).
fn uniform(random: u32, bound: f64) -> f32 {
    let unit = f64::from(random >> 8) / UNIFORM_STEPS;
    ((2.0 * unit - 1.0) * bound) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(weights: &[ParameterValues]) -> Vec<u8> {
        weights.iter().flat_map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes())).collect()
    }

    #[test]
    fn initial_weights_never_change() {
        // Golden, computed with another implementation: if this fails, version 0 of every model has changed.
        let architecture = Architecture::MultilayerPerceptron { features: 13, hidden: vec![32] };
        let weights = architecture.initial_weights(42).unwrap();
        assert_eq!(
            Digest::of(&bytes_of(&weights)).to_string(),
            "35687b40f994a208d2321d5061c57cf3a7b3ddcb094a4103502c8f589134bcbf"
        );
    }

    #[test]
    fn shapes_are_those_of_the_architecture() {
        let architecture = Architecture::MultilayerPerceptron { features: 5, hidden: vec![4, 3] };
        let weights = architecture.initial_weights(1).unwrap();
        for ((name, shape, values), expected) in weights.iter().zip(architecture.parameters()) {
            assert_eq!((name, shape), (&expected.0, &expected.1));
            assert_eq!(values.len() as u64, shape.iter().product::<u64>(), "{name}");
        }
        assert_eq!(weights.len(), 6);
    }

    #[test]
    fn values_are_uniform_within_the_layers_bound() {
        let weights = Architecture::LogisticRegression { features: 4096 }.initial_weights(7).unwrap();
        let bound = 1.0 / 64.0;
        let values = &weights[1].2;
        assert!(values.iter().all(|value| (-bound..=bound).contains(value)));
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / 4096.0;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / 4095.0;
        // Five standard errors of the mean and of the variance of 4,096 uniform values.
        let expected = f64::from(bound * bound) / 3.0;
        assert!(mean.abs() < 5.0 * (expected / 4096.0).sqrt(), "mean {mean}");
        assert!((variance / expected - 1.0).abs() < 5.0 * (0.8f64 / 4096.0).sqrt(), "variance {variance}");
    }

    #[test]
    fn seed_and_architecture_both_matter() {
        let wide = Architecture::LogisticRegression { features: 13 };
        let narrow = Architecture::LogisticRegression { features: 12 };
        let seeds = [(&wide, 1), (&wide, 2), (&narrow, 1)].map(|(of, seed)| initialization_seed(of, seed));
        assert!(seeds[0] != seeds[1] && seeds[0] != seeds[2]);
        assert_ne!(wide.initial_weights(1).unwrap()[0].2, wide.initial_weights(2).unwrap()[0].2);
    }

    #[test]
    fn a_refused_architecture_has_no_weights() {
        let huge = Architecture::MultilayerPerceptron { features: u32::MAX, hidden: vec![u32::MAX] };
        assert!(matches!(huge.initial_weights(1), Err(ArchitectureError::Features { .. })));
    }
}
