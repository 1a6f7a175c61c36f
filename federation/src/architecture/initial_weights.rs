//! Initial weights: the same bytes on every machine, from the plan's seed and the architecture alone.
//!
//! Weight and bias of a linear layer or a convolution are uniform in ±1/√inputs, PyTorch's default for `nn.Linear` and
//! `nn.Conv2d` (the bound that He et al., arXiv 1502.01852, gives with a = √5), where the inputs of a convolution are the
//! values under a filter. A normalisation begins with ones and zeros, for which nothing is drawn. The arithmetic is limited to IEEE 754 basic operations and square root in
//! double precision, which round alike everywhere. A custom architecture says itself how its tensors begin. This is one of the few files of the crate with floats: version 0 of a
//! model begins here, nothing here is replicated state.

use fedledger_ledger::{Digest, codec};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::{Architecture, ArchitectureError, ParameterValues, parameters::Initial};

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
        let pieces = self.parameter_list().into_iter().flat_map(|parameter| {
            let (count, initial) = (parameter.count(), parameter.initial);
            let starts = (0..count).step_by(DRAWN_TOGETHER);
            starts.map(move |start| (initial, (count - start).min(DRAWN_TOGETHER as u64)))
        });
        Ok(pieces.map(move |(initial, count)| match initial {
            Initial::Uniform { bound } => (0..count).map(|_| uniform(rng.next_u32(), bound)).collect(),
            Initial::Constant(value) => (0..count).map(|_| value).collect(),
        }))
    }
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
        let architecture = Architecture::multilayer_perceptron(13, &[32]);
        let weights = architecture.initial_weights(42).unwrap();
        assert_eq!(
            Digest::of(&bytes_of(&weights)).to_string(),
            "35687b40f994a208d2321d5061c57cf3a7b3ddcb094a4103502c8f589134bcbf"
        );
    }

    #[test]
    fn shapes_are_those_of_the_architecture() {
        let architecture = Architecture::multilayer_perceptron(5, &[4, 3]);
        let weights = architecture.initial_weights(1).unwrap();
        for ((name, shape, values), expected) in weights.iter().zip(architecture.parameters()) {
            assert_eq!((name, shape), (&expected.0, &expected.1));
            assert_eq!(values.len() as u64, shape.iter().product::<u64>(), "{name}");
        }
        assert_eq!(weights.len(), 6);
    }

    #[test]
    fn values_are_uniform_within_the_layers_bound() {
        let weights = Architecture::logistic_regression(4096).initial_weights(7).unwrap();
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
    fn normalisations_begin_with_ones_and_zeros_and_draw_nothing() {
        let residual = |widths: &[u32]| Architecture::Residual {
            channels: 1,
            height: 8,
            width: 8,
            widths: widths.to_vec(),
            blocks: 1,
            classes: Some(3),
        };
        let weights = residual(&[4, 8]).initial_weights(1).unwrap();
        for (name, _, values) in &weights {
            let expected = match name {
                name if name.contains("normalization") && name.ends_with("bias") => Some(0.0),
                name if name.contains("normalization") => Some(1.0),
                _ => None,
            };
            match expected {
                Some(expected) => assert!(values.iter().all(|value| *value == expected), "{name}"),
                None => assert!(values.windows(2).any(|pair| pair[0] != pair[1]), "{name}"),
            }
        }
        // One stream for all parameters, normalisations left out.
        let mut rng = ChaCha20Rng::from_seed(initialization_seed(&residual(&[4, 8]), 1));
        for (name, shape, values) in weights.iter().filter(|(name, ..)| !name.contains("normalization")) {
            let inputs: u64 = if name == "output.bias" { 8 } else { shape[1..].iter().product() };
            for value in values {
                assert_eq!(*value, uniform(rng.next_u32(), 1.0 / (inputs as f64).sqrt()), "{name}");
            }
        }
    }

    #[test]
    fn seed_and_architecture_both_matter() {
        let wide = Architecture::logistic_regression(13);
        let narrow = Architecture::logistic_regression(12);
        let seeds = [(&wide, 1), (&wide, 2), (&narrow, 1)].map(|(of, seed)| initialization_seed(of, seed));
        assert!(seeds[0] != seeds[1] && seeds[0] != seeds[2]);
        assert_ne!(wide.initial_weights(1).unwrap()[0].2, wide.initial_weights(2).unwrap()[0].2);
    }

    #[test]
    fn a_refused_architecture_has_no_weights() {
        let huge = Architecture::multilayer_perceptron(u32::MAX, &[u32::MAX]);
        assert!(matches!(huge.initial_weights(1), Err(ArchitectureError::Features { .. })));
    }
}
