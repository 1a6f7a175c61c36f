//! Half-precision floats to `f32`, without branches, so that loops over them vectorise on every processor.
//!
//! Both conversions are exact. NaNs stay NaNs, but not always with the same bits; nothing is computed from them.

/// Bits of the exponents' difference of binary16 and binary32, 127 - 15, in place.
const REBIAS_F16: u32 = (127 - 15) << 23;

/// Bits of the exponent of binary16, where binary32 has them after a shift by 13.
const EXPONENT_F16: u32 = 0x7c00 << 13;

/// The value of a binary16.
pub(crate) fn widen_f16(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (bits & 0x7fff) << 13;
    let exponent = magnitude & EXPONENT_F16;
    let rebiased = magnitude + REBIAS_F16;
    // Infinities and NaNs have the largest exponent in both formats.
    let special = rebiased + REBIAS_F16;
    // 2^-14 * (1 + m) - 2^-14 is 2^-14 * m, the value of a subnormal number, and a normal one in binary32.
    let one = 1 << 23;
    let subnormal = (f32::from_bits(rebiased + one) - f32::from_bits(REBIAS_F16 + one)).to_bits();
    let value = if exponent == EXPONENT_F16 { special } else { rebiased };
    let value = if exponent == 0 { subnormal } else { value };
    f32::from_bits(value | ((bits & 0x8000) << 16))
}

/// The value of a bfloat16, the upper half of a binary32.
pub(crate) fn widen_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_widened_to_its_value() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            for (found, expected) in [
                (widen_f16(bytes), half::f16::from_bits(bits).to_f32()),
                (widen_bf16(bytes), half::bf16::from_bits(bits).to_f32()),
            ] {
                assert_eq!(found.is_nan(), expected.is_nan(), "{bits:#06x}");
                assert!(found.is_nan() || found.to_bits() == expected.to_bits(), "{bits:#06x}: {found} {expected}");
            }
        }
    }
}
