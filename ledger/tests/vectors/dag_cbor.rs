//! The strict profile of DAG-CBOR against the examples of RFC 8949, appendix A, and of the IPLD codec fixtures.
//!
//! Strict means that whatever decodes encodes back to the same bytes. Beyond DAG-CBOR, floats are refused.

use fedledger_ledger::{
    codec::{self, CodecError},
    limits::CODEC_DEPTH_MAX,
};
use ipld_core::ipld::Ipld;

/// Examples of RFC 8949, appendix A, that are DAG-CBOR and hold no floats. All are in their shortest form.
const ACCEPTED: [&str; 44] = [
    "00",
    "01",
    "0a",
    "17",
    "1818",
    "1819",
    "1864",
    "1903e8",
    "1a000f4240",
    "1b000000e8d4a51000",
    // The largest and the smallest integer.
    "1bffffffffffffffff",
    "3bffffffffffffffff",
    "20",
    "29",
    "3863",
    "3903e7",
    // False, true, null.
    "f4",
    "f5",
    "f6",
    // Byte strings and texts.
    "40",
    "4401020304",
    "60",
    "6161",
    "6449455446",
    "62225c",
    "62c3bc",
    "63e6b0b4",
    "64f0908591",
    // Lists, of 0, 3 and 25 items and nested.
    "80",
    "83010203",
    "8301820203820405",
    "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
    // Maps, with text keys.
    "a0",
    "a26161016162820203",
    "826161a161626163",
    "a56161614161626142616361436164614461656145",
    // Integers of the codec fixtures on both sides of 2^63, and at the edges of each width.
    "1ba5f702b3a5f702b3",
    "3ba5f702b3a5f702b3",
    "18ff",
    "190100",
    "19ffff",
    "1a00010000",
    "1b0000000100000000",
    // A link is the only tag: CIDv1 of dag-cbor, SHA-256.
    "d82a582500017112206d8a5d2d5e4b8b6c2b1d0b0e1c1a6f7e5d4c3b2a19080706050403020100ffee",
];

/// Examples of RFC 8949, appendix A, and of the codec fixtures, that are CBOR but not canonical, or hold what the ledger
/// does not allow, and what is refused about them.
const REFUSED: &[(&str, &str)] = &[
    // Floats: half, single and double precision, infinities, not a number.
    ("f90000", "0.0"),
    ("f98000", "-0.0"),
    ("f93c00", "1.0"),
    ("fb3ff199999999999a", "1.1"),
    ("f93e00", "1.5"),
    ("f97bff", "65504.0"),
    ("fa47c35000", "100000.0"),
    ("fa7f7fffff", "3.4028234663852886e+38"),
    ("fb7e37e43c8800759c", "1.0e+300"),
    ("f90001", "5.960464477539063e-8"),
    ("f90400", "0.00006103515625"),
    ("f9c400", "-4.0"),
    ("fbc010666666666666", "-4.1"),
    ("f97c00", "half infinity"),
    ("f97e00", "half NaN"),
    ("f9fc00", "half negative infinity"),
    ("fa7f800000", "single infinity"),
    ("fa7fc00000", "single NaN"),
    ("faff800000", "single negative infinity"),
    ("fb7ff0000000000000", "double infinity"),
    ("fb7ff8000000000000", "double NaN"),
    ("fbfff0000000000000", "double negative infinity"),
    ("fb3fe0000000000000", "float-0.5 of the codec fixtures"),
    ("fbbfe0000000000000", "float--0.5 of the codec fixtures"),
    ("fb3e78000000000000", "float-8.940696716308594e-8 of the codec fixtures"),
    // Simple values.
    ("f7", "undefined"),
    ("f0", "simple(16)"),
    ("f818", "simple(24)"),
    ("f8ff", "simple(255)"),
    ("f814", "false in two bytes"),
    // Tags.
    ("c249010000000000000000", "bignum"),
    ("c349010000000000000000", "negative bignum"),
    ("c074323031332d30332d32315432303a30343a30305a", "date as text"),
    ("c11a514b67b0", "date as number"),
    ("d74401020304", "expected conversion to base16"),
    ("d818456449455446", "embedded CBOR"),
    ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "address"),
    ("d82a", "a link without a CID"),
    ("d82a40", "a link with an empty CID"),
    ("d82a4101", "a link without the prefix of CIDs"),
    ("d82a6161", "a link that is text"),
    ("d82ad82a582500017112206d8a5d2d5e4b8b6c2b1d0b0e1c1a6f7e5d4c3b2a19080706050403020100ffee", "a link to a link"),
    ("d9002a582500017112206d8a5d2d5e4b8b6c2b1d0b0e1c1a6f7e5d4c3b2a19080706050403020100ffee", "a long tag"),
    // Keys of maps.
    ("a201020304", "keys that are integers"),
    ("a1416101", "a key that is a byte string"),
    ("a1f501", "a key that is a boolean"),
    ("a3636261720363666f6f0163666f6f02", "duplicate map keys of the codec fixtures"),
    ("a2616101616102", "duplicate keys side by side"),
    ("a2616201616102", "keys that fall"),
    ("a262616101616201", "a longer key before a shorter one"),
    ("8201a2616201616102", "keys that fall, further in"),
    // Indefinite lengths.
    ("5f42010243030405ff", "indefinite bytes"),
    ("7f657374726561646d696e67ff", "indefinite text"),
    ("9fff", "indefinite empty list"),
    ("9f018202039f0405ffff", "indefinite list in list"),
    ("83018202039f0405ff", "indefinite list at the end"),
    ("83019f0203ff820405", "indefinite list in the middle"),
    ("bf61610161629f0203ffff", "indefinite map"),
    ("826161bf61626163ff", "indefinite map in list"),
    ("bf6346756ef563416d7421ff", "indefinite map of two"),
    ("ff", "a break alone"),
    // Numbers and lengths that are longer than needed (RFC 8949, section 4.2.1).
    ("1800", "0 in two bytes"),
    ("1817", "23 in two bytes"),
    ("1900ff", "255 in three bytes"),
    ("1a0000ffff", "65535 in five bytes"),
    ("1b00000000ffffffff", "4294967295 in nine bytes"),
    ("3800", "-1 in two bytes"),
    ("3900ff", "-256 in three bytes"),
    ("580101", "a long length of bytes"),
    ("780161", "a long length of text"),
    ("79000161", "a longer length of text"),
    ("9800", "a long length of a list"),
    ("9900020102", "a longer length of a list"),
    ("b800", "a long length of a map"),
    ("ba0000000161610a", "a longer length of a map"),
    // Not well-formed (RFC 8949, appendix F).
    ("", "nothing"),
    ("18", "a number that is cut"),
    ("1b00000000000000", "a long number that is cut"),
    ("41", "bytes that are cut"),
    ("61", "text that is cut"),
    ("5bffffffffffffffff", "a length beyond everything"),
    ("81", "a list that is cut"),
    ("8201", "a list that lacks an item"),
    ("9bffffffffffffffff", "a count beyond everything"),
    ("a1", "a map that is cut"),
    ("a16161", "a key without a value"),
    ("bbffffffffffffffff", "a count of pairs beyond everything"),
    ("1c", "reserved information 28"),
    ("3d", "reserved information 29"),
    ("5e", "reserved information 30"),
    ("df", "a tag of indefinite length"),
    ("fc", "a reserved simple value"),
    // Texts are UTF-8 (RFC 3629).
    ("61ff", "a byte that no text has"),
    ("62c080", "an overlong zero"),
    ("63eda080", "half of a surrogate pair"),
    ("64f4908080", "a code point beyond the last one"),
    // One value, and nothing else.
    ("0000", "a second value"),
    ("f6f6", "a second null"),
    ("a000", "a byte behind the map"),
];

fn decode(text: &str) -> Result<Ipld, CodecError> {
    codec::decode(&hex::decode(text).unwrap(), 1024)
}

#[test]
fn canonical_values_are_read_and_written_back() {
    for text in ACCEPTED {
        let value = decode(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(hex::encode(codec::encode(&value)), text);
    }
}

#[test]
fn everything_else_is_refused() {
    for (text, what) in REFUSED {
        assert!(decode(text).is_err(), "{what} ({text}) was accepted");
    }
}

#[test]
fn canonical_values_are_refused_when_cut_or_continued() {
    for text in ACCEPTED {
        for cut in (0..text.len()).step_by(2) {
            assert!(decode(&text[..cut]).is_err(), "{text} was accepted when cut to {cut} digits");
        }
        assert!(decode(&format!("{text}00")).is_err(), "{text} was accepted with a byte behind it");
    }
}

#[test]
fn keys_are_ordered_by_length_and_then_by_bytes() {
    // DAG-CBOR and RFC 8949, section 4.2.1, order alike: the length stands in the first byte of a short key.
    for text in ["a2616201626161f6", "a2616101626161f6", "a262616101626162f6", "a3616101626161026262620a"] {
        assert!(decode(text).is_ok(), "{text}");
    }
}

#[test]
fn nesting_is_accepted_up_to_its_bound() {
    let nested = |depth| format!("{}00", "81".repeat(depth));
    assert!(decode(&nested(CODEC_DEPTH_MAX)).is_ok());
    assert_eq!(decode(&nested(CODEC_DEPTH_MAX + 1)), Err(CodecError::TooDeep));
    let maps = |depth| format!("{}00", "a16161".repeat(depth));
    assert!(decode(&maps(CODEC_DEPTH_MAX)).is_ok());
    assert_eq!(decode(&maps(CODEC_DEPTH_MAX + 1)), Err(CodecError::TooDeep));
    let tags = format!("{}00", "d82a".repeat(CODEC_DEPTH_MAX + 1));
    assert_eq!(decode(&tags), Err(CodecError::TooDeep));
}
