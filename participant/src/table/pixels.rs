//! Pixels as bytes, and the numbers that stand for them.

use std::ops::Range;

/// How a byte `b` becomes a number: `(b / 255 - mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelScale {
    /// Subtracted from values of 0 to 1.
    pub mean: f64,
    /// What the difference is divided by.
    pub deviation: f64,
}

/// Bytes and the number that each stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pixels {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl PixelScale {
    /// The number of every byte, computed in 64 bits and rounded to 32.
    pub(super) fn numbers(self) -> Vec<f32> {
        let number = |byte| ((f64::from(byte) / 255.0 - self.mean) / self.deviation) as f32;
        (0..=u8::MAX).map(number).collect()
    }
}

impl Pixels {
    pub(super) fn new(bytes: Vec<u8>, scale: PixelScale) -> Self {
        Self { bytes, numbers: scale.numbers() }
    }

    /// Other bytes, which stand for the same numbers.
    pub(super) fn with_bytes(&self, choose: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        Self { bytes: choose(&self.bytes), numbers: self.numbers.clone() }
    }

    /// Appends the numbers of the bytes at `range`; nothing for a range that is not there.
    pub(super) fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let bytes = self.bytes.get(range).unwrap_or_default();
        values.extend(bytes.iter().filter_map(|byte| self.numbers.get(usize::from(*byte))));
    }
}
