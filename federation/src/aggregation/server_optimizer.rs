//! How the server turns the mean update into new weights.
//!
//! FedAvg (McMahan et al. 2017, arXiv 1602.05629) adds it; FedAvgM (Hsu et al. 2019, arXiv 1909.06335) keeps a
//! momentum; FedAdagrad, FedAdam and FedYogi are Algorithm 2 of Reddi et al. 2021 (arXiv 2003.00295), with both moments
//! zero at the start and **without bias correction**, as in the paper. All arithmetic is `f64` in the written order,
//! without fused operations; only new weights are rounded to `f32`.

use crate::tensors::{Dtype, LayoutError, TensorLayout, TensorSpec};

/// Most digits in a decimal string.
pub const DECIMAL_DIGITS_MAX: usize = 20;

/// Prefix of the first moments' tensors in an optimiser state file.
const FIRST_MOMENT_PREFIX: &str = "m.";

/// Prefix of the second moments' tensors in an optimiser state file.
const SECOND_MOMENT_PREFIX: &str = "v.";

/// The server's optimiser and its parameters.
///
/// `server_learning_rate` (eta) is finite and above zero, `momentum`, `beta1` and `beta2` are in [0, 1), `tau`, the
/// degree of adaptivity, is finite and above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the parameters are explained above, once for all rules")]
pub enum Rule {
    /// w + eta * delta.
    FedAvg { server_learning_rate: f64 },
    /// m = momentum * m + delta; w + eta * m.
    FedAvgM { server_learning_rate: f64, momentum: f64 },
    /// v = v + delta^2.
    FedAdagrad { server_learning_rate: f64, beta1: f64, tau: f64 },
    /// v = beta2 * v + (1 - beta2) * delta^2.
    FedAdam { server_learning_rate: f64, beta1: f64, beta2: f64, tau: f64 },
    /// v = v - (1 - beta2) * delta^2 * sign(v - delta^2).
    FedYogi { server_learning_rate: f64, beta1: f64, beta2: f64, tau: f64 },
}

/// A parameter out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{parameter} is out of range: {expected}")]
pub struct RuleError {
    /// The parameter's name.
    pub parameter: &'static str,
    /// What it has to be.
    pub expected: &'static str,
}

/// One block of coordinates. Moments that the rule does not keep are empty.
pub(super) struct Step<'a> {
    pub(super) deltas: &'a [f64],
    pub(super) base: &'a [[u8; 4]],
    pub(super) new: &'a mut [[u8; 4]],
    pub(super) first_moment: &'a mut [[u8; 8]],
    pub(super) second_moment: &'a mut [[u8; 8]],
}

impl Rule {
    /// Checks the parameters' ranges.
    ///
    /// # Errors
    ///
    /// The first [`RuleError`].
    pub fn check(&self) -> Result<(), RuleError> {
        match *self {
            Self::FedAvg { server_learning_rate } => positive("server_learning_rate", server_learning_rate),
            Self::FedAvgM { server_learning_rate, momentum } => {
                positive("server_learning_rate", server_learning_rate)?;
                decay("momentum", momentum)
            }
            Self::FedAdagrad { server_learning_rate, beta1, tau } => {
                positive("server_learning_rate", server_learning_rate)?;
                decay("beta1", beta1)?;
                positive("tau", tau)
            }
            Self::FedAdam { server_learning_rate, beta1, beta2, tau }
            | Self::FedYogi { server_learning_rate, beta1, beta2, tau } => {
                positive("server_learning_rate", server_learning_rate)?;
                decay("beta1", beta1)?;
                decay("beta2", beta2)?;
                positive("tau", tau)
            }
        }
    }

    /// Kinds of moments that the rule keeps: none, first ones, or first and second ones.
    pub const fn moments(&self) -> usize {
        match self {
            Self::FedAvg { .. } => 0,
            Self::FedAvgM { .. } => 1,
            Self::FedAdagrad { .. } | Self::FedAdam { .. } | Self::FedYogi { .. } => 2,
        }
    }

    /// The layout of the rule's state for weights of layout `weights`: tensors `m.<name>` and `v.<name>` in `F64`, or
    /// none for a rule without state.
    ///
    /// # Errors
    ///
    /// A [`LayoutError`] if a prefixed name or the header is too long.
    pub fn state_layout(&self, weights: &TensorLayout) -> Result<Option<TensorLayout>, LayoutError> {
        let prefixes = &[FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX][..self.moments()];
        if prefixes.is_empty() {
            return Ok(None);
        }
        let tensors = prefixes.iter().flat_map(|prefix| {
            let named =
                move |t: &TensorSpec| TensorSpec::new(format!("{prefix}{}", t.name), t.shape.clone(), Dtype::F64);
            weights.tensors().iter().map(named)
        });
        TensorLayout::new(tensors.collect()).map(Some)
    }

    /// Computes new weights and moments of one block.
    pub(super) fn step(&self, block: Step<'_>) {
        match *self {
            Self::FedAvg { server_learning_rate } => fed_avg(block, server_learning_rate),
            Self::FedAvgM { server_learning_rate, momentum } => fed_avg_m(block, server_learning_rate, momentum),
            Self::FedAdagrad { server_learning_rate, beta1, tau } => {
                adaptive(block, server_learning_rate, beta1, tau, |v, square| v + square);
            }
            Self::FedAdam { server_learning_rate, beta1, beta2, tau } => {
                adaptive(block, server_learning_rate, beta1, tau, |v, square| beta2 * v + (1.0 - beta2) * square);
            }
            Self::FedYogi { server_learning_rate, beta1, beta2, tau } => {
                adaptive(block, server_learning_rate, beta1, tau, |v, square| {
                    v - (1.0 - beta2) * square * sign(v - square)
                });
            }
        }
    }
}

fn fed_avg(block: Step<'_>, eta: f64) {
    for ((new, base), delta) in block.new.iter_mut().zip(block.base).zip(block.deltas) {
        *new = weight(*base, eta * delta);
    }
}

fn fed_avg_m(block: Step<'_>, eta: f64, momentum: f64) {
    let weights = block.new.iter_mut().zip(block.base);
    for (((new, base), delta), first) in weights.zip(block.deltas).zip(block.first_moment) {
        let m = momentum * f64::from_le_bytes(*first) + delta;
        *first = m.to_le_bytes();
        *new = weight(*base, eta * m);
    }
}

fn adaptive(block: Step<'_>, eta: f64, beta1: f64, tau: f64, second_moment: impl Fn(f64, f64) -> f64) {
    let moments = block.first_moment.iter_mut().zip(block.second_moment);
    let weights = block.new.iter_mut().zip(block.base);
    for (((new, base), delta), (first, second)) in weights.zip(block.deltas).zip(moments) {
        let m = beta1 * f64::from_le_bytes(*first) + (1.0 - beta1) * delta;
        let v = second_moment(f64::from_le_bytes(*second), delta * delta);
        *first = m.to_le_bytes();
        *second = v.to_le_bytes();
        *new = weight(*base, eta * m / (v.sqrt() + tau));
    }
}

/// The base weight moved by `step`.
fn weight(base: [u8; 4], step: f64) -> [u8; 4] {
    ((f64::from(f32::from_le_bytes(base)) + step) as f32).to_le_bytes()
}

/// The mathematical sign, zero for zero (`f64::signum` gives one).
fn sign(value: f64) -> f64 {
    f64::from(i8::from(value > 0.0) - i8::from(value < 0.0))
}

fn positive(parameter: &'static str, value: f64) -> Result<(), RuleError> {
    let expected = "expected a number above zero";
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(RuleError { parameter, expected }) }
}

fn decay(parameter: &'static str, value: f64) -> Result<(), RuleError> {
    let expected = "expected a number from zero to below one";
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(RuleError { parameter, expected }) }
}

/// Text that is not a plain decimal number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a plain decimal number: use an optional minus, digits and at most one point with digits \
         behind it, {DECIMAL_DIGITS_MAX} digits together"
)]
pub struct DecimalError {
    /// The beginning of the text.
    pub found: String,
}

/// The `f64` nearest to a plain decimal number, `[-]digits[.digits]` with at most [`DECIMAL_DIGITS_MAX`] digits. The
/// ledger holds parameters in this form because it holds no floats.
///
/// # Errors
///
/// [`DecimalError`] for anything else: exponents, `inf`, `nan`, a plus sign, spaces, a leading or trailing point.
pub fn parse_decimal(text: &str) -> Result<f64, DecimalError> {
    let refused = || DecimalError { found: text.chars().take(2 * DECIMAL_DIGITS_MAX).collect() };
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let digit_count = unsigned.bytes().filter(u8::is_ascii_digit).count();
    if !digits(whole) || !digits(fraction) || digit_count > DECIMAL_DIGITS_MAX {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}
