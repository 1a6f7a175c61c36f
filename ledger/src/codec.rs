//! Canonical bytes: DAG-CBOR (the IPLD profile of RFC 8949, section 4.2.1), decoded strictly.
//!
//! Whatever decodes here encodes back to the same bytes: definite lengths, shortest integers, sorted keys, no duplicate
//! or unknown keys, no floats, nothing after the value. So a value has exactly one encoding, and a digest or signature
//! over the received bytes covers everything that was understood from them.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_ipld_dagcbor::DecodeError;

use crate::limits::CODEC_DEPTH_MAX;

/// Bytes that are not the canonical encoding of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Larger than the caller allows; nothing was decoded.
    #[error("{size} bytes, at most {limit} are allowed here")]
    TooLarge {
        /// Size found, in bytes.
        size: usize,
        /// Largest size allowed, in bytes.
        limit: usize,
    },
    /// Nested more deeply than [`CODEC_DEPTH_MAX`].
    #[error("nested deeper than {CODEC_DEPTH_MAX} levels")]
    TooDeep,
    /// Not DAG-CBOR, or not a value of the expected type.
    #[error("not a valid encoding: {0}")]
    Malformed(String),
    /// Decodes, but a canonical encoder would have written other bytes.
    #[error("not the canonical encoding of its value")]
    NotCanonical,
}

/// The canonical encoding of `value`.
///
/// # Panics
///
/// Only if the type cannot be expressed in DAG-CBOR (a map with other than string keys, say), which is a defect of the type
/// and shows in its first test.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "ledger types are encodable by construction; see the doc comment")]
    serde_ipld_dagcbor::to_vec(value).expect("ledger types can be encoded")
}

/// Decodes exactly one value of at most `limit` bytes.
///
/// # Errors
///
/// [`CodecError`]; nothing larger than the input is allocated.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { size: bytes.len(), limit });
    }
    check_shape(bytes)?;
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| malformed(&error))?;
    if encode(&value) == bytes { Ok(value) } else { Err(CodecError::NotCanonical) }
}

/// Decodes one value of at most `limit` bytes for being shown to people, by a type that need not encode back to the same
/// bytes. Whether the bytes are canonical is not checked.
///
/// # Errors
///
/// [`CodecError`]; nothing larger than the input is allocated.
pub fn decode_view<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { size: bytes.len(), limit });
    }
    check_shape(bytes)?;
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| malformed(&error))
}

/// What the decoder says, in words: its own are those of a debugger.
fn malformed<E: Debug>(error: &DecodeError<E>) -> CodecError {
    CodecError::Malformed(match error {
        DecodeError::Msg(message) => message.clone(),
        DecodeError::Mismatch { name, found } => {
            format!("expected {name}, found an item that begins with {found:#04x}")
        }
        DecodeError::Eof { name, .. } => format!("it ends within {name}"),
        error => error.to_string(),
    })
}

/// Whether `bytes` begin as a list does whose first item is the text `domain`.
///
/// Files that go from hand to hand are told apart by this; whether they can be decoded is another question.
pub fn begins_with_domain(bytes: &[u8], domain: &str) -> bool {
    let Ok((4, 1.., items)) = header(bytes) else { return false };
    matches!(header(items), Ok((3, length, text)) if length == domain.len() as u64 && text.starts_with(domain.as_bytes()))
}

/// Walks the headers of the encoding without allocating, so that a hostile length or nesting is refused before the decoder
/// sees it.
fn check_shape(bytes: &[u8]) -> Result<(), CodecError> {
    let mut rest = bytes;
    // Remaining items of each open array or map.
    let mut open = [0u64; CODEC_DEPTH_MAX];
    let mut depth = 0;
    loop {
        let (major, argument, after) = header(rest)?;
        rest = after;
        let children = match major {
            0 | 1 => 0,
            2 | 3 => {
                let length = usize::try_from(argument).unwrap_or(usize::MAX);
                rest = rest.get(length..).ok_or_else(|| truncated("a string"))?;
                0
            }
            4 => bounded_count(argument, rest)?,
            5 => bounded_count(argument, rest)?.checked_mul(2).ok_or(CodecError::TooDeep)?,
            6 => 1,
            // Booleans and null; floats are forbidden on the ledger.
            _ if matches!(argument, 20..=22) => 0,
            _ => return Err(CodecError::Malformed("floats and simple values are not allowed".into())),
        };
        if children > 0 {
            *open.get_mut(depth).ok_or(CodecError::TooDeep)? = children;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(CodecError::Malformed(format!("{} bytes after the value", rest.len())))
            };
        }
    }
}

/// Major type, argument and the bytes that follow.
fn header(bytes: &[u8]) -> Result<(u8, u64, &[u8]), CodecError> {
    let (&first, rest) = bytes.split_first().ok_or_else(|| truncated("a header"))?;
    let (major, info) = (first >> 5, first & 31);
    let width = match info {
        0..=23 => return Ok((major, u64::from(info), rest)),
        24..=27 => 1usize << (info - 24),
        _ => return Err(CodecError::Malformed("indefinite or reserved length".into())),
    };
    if major == 7 {
        return Err(CodecError::Malformed("floats and simple values are not allowed".into()));
    }
    let (argument, rest) = rest.split_at_checked(width).ok_or_else(|| truncated("a length"))?;
    Ok((major, argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// A count of items that could fit into the bytes that are left.
fn bounded_count(count: u64, rest: &[u8]) -> Result<u64, CodecError> {
    if count > rest.len() as u64 { Err(truncated("a list or map")) } else { Ok(count) }
}

fn truncated(what: &str) -> CodecError {
    CodecError::Malformed(format!("ends within {what}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn decode_map(bytes: &[u8]) -> Result<BTreeMap<String, u64>, CodecError> {
        decode(bytes, 1024)
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let map = BTreeMap::from([("a".to_owned(), 1u64), ("bb".to_owned(), 500)]);
        assert_eq!(decode_map(&encode(&map)), Ok(map));
    }

    #[test]
    fn every_deviation_from_the_canonical_form_is_refused() {
        // RFC 8949 appendix A and section 4.2.1: {"a": 1} in ways that a canonical encoder does not write.
        let cases: &[(&str, &[u8])] = &[
            ("long integer", &[0xa1, 0x61, 0x61, 0x18, 0x01]),
            ("long map length", &[0xb8, 0x01, 0x61, 0x61, 0x01]),
            ("indefinite map", &[0xbf, 0x61, 0x61, 0x01, 0xff]),
            ("duplicate key", &[0xa2, 0x61, 0x61, 0x01, 0x61, 0x61, 0x01]),
            ("unsorted keys", &[0xa2, 0x61, 0x62, 0x01, 0x61, 0x61, 0x01]),
            ("trailing byte", &[0xa1, 0x61, 0x61, 0x01, 0x00]),
            ("float", &[0xa1, 0x61, 0x61, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("truncated", &[0xa1, 0x61]),
            ("empty", &[]),
            ("huge count", &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("tag", &[0xa1, 0x61, 0x61, 0xc1, 0x01]),
        ];
        for (what, bytes) in cases {
            assert!(decode_map(bytes).is_err(), "{what} was accepted");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let bytes = [[0x81; 40].as_slice(), &[0x00]].concat();
        assert_eq!(decode::<u64>(&bytes, 1024), Err(CodecError::TooDeep));
    }

    #[test]
    fn size_is_bounded_before_decoding() {
        assert_eq!(decode::<u64>(&[0; 9], 8), Err(CodecError::TooLarge { size: 9, limit: 8 }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_have_two_encodings(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(map) = decode_map(&bytes) {
                prop_assert_eq!(encode(&map), bytes);
            }
        }
    }
}
