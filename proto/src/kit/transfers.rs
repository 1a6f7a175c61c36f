//! `[transfers]` of `node.toml`: what blobs may take of a node's connection.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::sizes;
use crate::endpoint::BandwidthLimits;

/// Slowest rate that can be set, in bytes per second: what many transfers share must leave each of them some progress
/// within the time after which a silent peer is given up.
const RATE_MIN: u64 = 100_000;

/// Caps on the transfers of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// What all transfers to peers together may send, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_max: Option<ByteRate>,
    /// What all transfers from peers together may receive, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_max: Option<ByteRate>,
}

impl TransferConfig {
    /// Whether nothing is capped.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// The caps, for the endpoint.
    pub fn limits(&self) -> BandwidthLimits {
        BandwidthLimits {
            upload_max: self.upload_max.map(ByteRate::bytes_per_second),
            download_max: self.download_max.map(ByteRate::bytes_per_second),
        }
    }
}

/// Bytes per second, written as `"20 MB"`, `"512 KiB"` or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(NonZeroU64);

/// Text or a number that is no [`ByteRate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: write bytes per second such as \"20 MB\" or \"512 KiB\", at least 100 kB")]
pub struct ParseByteRateError(String);

impl ByteRate {
    /// As a number.
    pub const fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }

    fn new(bytes: u64) -> Option<Self> {
        NonZeroU64::new(bytes).filter(|bytes| bytes.get() >= RATE_MIN).map(Self)
    }
}

impl FromStr for ByteRate {
    type Err = ParseByteRateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        sizes::parse(text).and_then(Self::new).ok_or_else(|| ParseByteRateError(text.to_owned()))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sizes::format(self.0.get(), f)
    }
}

impl Serialize for ByteRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl Visitor<'_> for RateVisitor {
    type Value = ByteRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes per second, such as \"20 MB\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteRate, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteRate, E> {
        ByteRate::new(bytes).ok_or_else(|| E::custom(ParseByteRateError(bytes.to_string())))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteRate, E> {
        let rate = u64::try_from(bytes).ok().and_then(ByteRate::new);
        rate.ok_or_else(|| E::custom(ParseByteRateError(bytes.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<TransferConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn rates_are_written_as_people_write_them() {
        for (text, bytes) in [
            ("\"20 MB\"", 20_000_000),
            ("\"20MB\"", 20_000_000),
            ("\"512 KiB\"", 512 << 10),
            ("\"100 kB\"", 100_000),
            ("\"3 GiB\"", 3 << 30),
            ("\"123457 B\"", 123_457),
            ("\"123457\"", 123_457),
            ("123457", 123_457),
        ] {
            let config = config(&format!("upload_max = {text}")).unwrap();
            assert_eq!(config.limits().upload_max, NonZeroU64::new(bytes), "{text}");
            assert_eq!(config.limits().download_max, None);
            let written = toml::to_string(&config).unwrap();
            assert_eq!(super::tests::config(&written).unwrap(), config, "{written}");
        }
        assert!(config("").unwrap().is_unlimited());
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_text() {
        for text in
            ["\"\"", "\"MB\"", "\"20 mb\"", "\"20 MB/s\"", "\"-1 MB\"", "\"1.5 MB\"", "0", "-1", "99999", "true"]
        {
            assert!(config(&format!("download_max = {text}")).is_err(), "{text}");
        }
        let huge = config("upload_max = \"18446744073709551615 GB\"").unwrap_err();
        assert!(huge.to_string().contains("18446744073709551615 GB"), "{huge}");
    }
}
