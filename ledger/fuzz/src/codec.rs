//! Strict DAG-CBOR: what decodes has one encoding, and what is encoded decodes.

use std::collections::BTreeMap;

use fedledger_ledger::{codec, limits::CODEC_DEPTH_MAX};
use ipld_core::ipld::Ipld;

use super::choices::Choices;

/// Most items of a list or map that is built.
const ITEMS_MAX: usize = 6;

/// Largest encoding that is decoded, in bytes.
const SIZE_BYTES_MAX: usize = 1 << 20;

/// Decodes the bytes, and encodes a value that is built from them.
pub fn run(data: &[u8]) {
    if let Ok(value) = codec::decode::<Ipld>(data, SIZE_BYTES_MAX) {
        assert_eq!(codec::encode(&value), data, "a value has one encoding");
        assert!(codec::decode::<Ipld>(&[data, &[0]].concat(), SIZE_BYTES_MAX).is_err(), "a byte too many was accepted");
        if let Some((_, cut)) = data.split_last() {
            assert!(codec::decode::<Ipld>(cut, SIZE_BYTES_MAX).is_err(), "a byte too few was accepted");
        }
    }
    // Types that expect something give errors where they find something else.
    let _ = codec::decode::<u64>(data, SIZE_BYTES_MAX);
    let _ = codec::decode::<BTreeMap<String, Vec<u32>>>(data, SIZE_BYTES_MAX);
    let _ = codec::decode::<(u8, String, Option<bool>)>(data, SIZE_BYTES_MAX);

    let value = build(&mut Choices::new(data), CODEC_DEPTH_MAX);
    let encoded = codec::encode(&value);
    assert_eq!(codec::decode::<Ipld>(&encoded, SIZE_BYTES_MAX).as_ref(), Ok(&value));
}

/// A value that the ledger allows, nested at most `depth` levels deep.
fn build(choices: &mut Choices<'_>, depth: usize) -> Ipld {
    let kinds = if depth == 0 { 6 } else { 8 };
    match choices.below(kinds) {
        0 => Ipld::Null,
        1 => Ipld::Bool(choices.below(2) == 1),
        2 => Ipld::Integer(choices.number().into()),
        3 => Ipld::Integer(-1 - i128::from(choices.number())),
        4 => Ipld::Bytes(small(choices).to_vec()),
        5 => Ipld::String(String::from_utf8_lossy(small(choices)).into_owned()),
        6 => Ipld::List((0..choices.below(ITEMS_MAX)).map(|_| build(choices, depth - 1)).collect()),
        _ => {
            let key = |choices: &mut Choices<'_>| String::from_utf8_lossy(small(choices)).into_owned();
            Ipld::Map((0..choices.below(ITEMS_MAX)).map(|_| (key(choices), build(choices, depth - 1))).collect())
        }
    }
}

fn small<'a>(choices: &mut Choices<'a>) -> &'a [u8] {
    let length = choices.below(40);
    choices.bytes(length)
}
