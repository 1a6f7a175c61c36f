//! Decimal numbers as text, for the real-valued settings of a plan.
//!
//! The text is what is agreed on, signed and hashed; everybody turns it into the same nearest 64-bit float when it is used.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most characters of a decimal.
const LENGTH_MAX: usize = 24;

/// Plain decimal notation: an optional minus sign, digits, and optionally a point and digits. No exponent, no plus sign,
/// no superfluous leading zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal(String);

/// Text that is not plain decimal notation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a plain decimal number such as \"0.001\"")]
pub struct DecimalError(String);

impl Decimal {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number as numerator and denominator, a power of ten. Neither has more digits than a decimal has characters.
    pub fn ratio(&self) -> (i128, i128) {
        let (mut numerator, mut denominator, mut after_point) = (0_i128, 1_i128, false);
        for byte in self.0.bytes() {
            match byte {
                b'.' => after_point = true,
                b'0'..=b'9' => {
                    numerator = numerator * 10 + i128::from(byte - b'0');
                    denominator *= if after_point { 10 } else { 1 };
                }
                _ => {}
            }
        }
        (if self.0.starts_with('-') { -numerator } else { numerator }, denominator)
    }

    /// The number in millionths, as metrics are recorded; none where it is no whole number of them or too large.
    pub fn millionths(&self) -> Option<i64> {
        let (numerator, denominator) = self.ratio();
        let scaled = numerator * 1_000_000;
        if scaled % denominator == 0 { i64::try_from(scaled / denominator).ok() } else { None }
    }

    /// Whether the number is above zero.
    pub fn is_positive(&self) -> bool {
        !self.0.starts_with('-') && self.0.bytes().any(|b| matches!(b, b'1'..=b'9'))
    }

    /// Whether the number is at least zero and below one.
    pub fn is_fraction(&self) -> bool {
        self.0 == "0" || self.0.starts_with("0.")
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(w, f)| (w, Some(f)));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if text.len() <= LENGTH_MAX && digits(whole) && fraction.is_none_or(digits) && !leading_zero {
            Ok(Self(text.to_owned()))
        } else {
            Err(DecimalError(text.chars().take(40).collect()))
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_notation_is_a_decimal() {
        for text in ["0", "1", "0.001", "-2.5", "10", "0.00316227766"] {
            assert_eq!(text.parse::<Decimal>().unwrap().as_str(), text);
        }
        for text in ["", "-", ".5", "1.", "1e-3", "+1", "01", "NaN", "inf", " 1", "1 ", "0x1", "1.2.3", "--1"] {
            assert!(text.parse::<Decimal>().is_err(), "{text:?} was accepted");
        }
        assert!("1".repeat(LENGTH_MAX + 1).parse::<Decimal>().is_err());
    }

    #[test]
    fn integers_stand_for_decimals_exactly() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        for (text, ratio) in [("0.75", (75, 100)), ("-2.5", (-25, 10)), ("10", (10, 1)), ("-0", (0, 1))] {
            assert_eq!(decimal(text).ratio(), ratio);
        }
        assert_eq!(decimal("0.812345").millionths(), Some(812_345));
        assert_eq!(decimal("-0.1000000000").millionths(), Some(-100_000));
        assert_eq!(decimal("0.0000001").millionths(), None);
        // As long as decimals can be.
        for text in ["9".repeat(LENGTH_MAX), format!("0.{}", "9".repeat(LENGTH_MAX - 2))] {
            assert_eq!(decimal(&text).millionths(), None);
            assert!(decimal(&text).ratio().0 > 0);
        }
    }

    #[test]
    fn signs_and_fractions_are_told_without_floats() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert!(decimal("0.001").is_positive() && decimal("12").is_positive());
        assert!(!decimal("0.00").is_positive() && !decimal("-1").is_positive());
        assert!(decimal("0.999").is_fraction() && decimal("0").is_fraction());
        assert!(!decimal("1").is_fraction() && !decimal("-0.5").is_fraction());
    }
}
