use fedledger_ledger::Digest;
use proptest::prelude::*;
use safetensors::tensor::{Dtype as TheirDtype, TensorView};

use super::*;

fn tensor(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
    Tensor { name: name.into(), shape: shape.to_vec(), values: values.to_vec() }
}

fn example() -> Vec<Tensor> {
    vec![
        tensor("b.bias", &[], &[0.5]),
        tensor("b.empty", &[0, 3], &[]),
        tensor("a", &[2, 3], &[1., 2., 3., 4., 5., -6.]),
    ]
}

fn layout(specs: &[(&str, &[u64], Dtype)]) -> TensorLayout {
    TensorLayout::new(specs.iter().map(|(name, shape, dtype)| TensorSpec::new(*name, *shape, *dtype)).collect())
        .unwrap()
}

fn example_layout() -> TensorLayout {
    layout(&[("a", &[2, 3], Dtype::F32), ("b.bias", &[], Dtype::F32), ("b.empty", &[0, 3], Dtype::F32)])
}

/// Reads `file` in chunks of the given sizes (the last one repeats) and collects values and digest.
fn read_in_chunks(file: &[u8], layout: &TensorLayout, sizes: &[usize]) -> Result<(Vec<f32>, Digest), ReadError> {
    let mut reader = UpdateReader::new(layout.clone());
    let mut values = Vec::new();
    let mut rest = file;
    let mut sizes = sizes.iter();
    let mut size = 1;
    while !rest.is_empty() {
        size = *sizes.next().unwrap_or(&size);
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        reader.push(chunk, |run| {
            run.append_f32(&mut values);
            Ok::<(), ReadError>(())
        })?;
        rest = later;
    }
    Ok((values, reader.finish()?))
}

/// A file of `layout` with an arbitrary JSON header, padded, and a payload of zeros.
fn with_header(json: &str, payload_size_bytes: usize) -> Vec<u8> {
    let padded = format!("{json:<width$}", width = json.len().next_multiple_of(8));
    let mut file = (padded.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(padded.as_bytes());
    file.resize(file.len() + payload_size_bytes, 0);
    file
}

#[test]
fn the_safetensors_crate_writes_the_same_bytes() {
    let mut tensors = example();
    tensors.push(tensor("quote \" backslash \\ ü", &[1], &[7.0]));
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|(t, bytes)| {
        let shape = t.shape.iter().map(|d| usize::try_from(*d).unwrap()).collect();
        (t.name.clone(), TensorView::new(TheirDtype::F32, shape, bytes).unwrap())
    });
    let theirs = safetensors::serialize(views, None).unwrap();
    assert_eq!(write_tensors(&tensors).unwrap(), theirs);
}

#[test]
fn what_is_written_is_read() {
    let mut tensors = example();
    let file = write_tensors(&tensors).unwrap();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(read_f32(&file, &example_layout()).unwrap(), tensors);
    assert_eq!(layout_of(&file).unwrap(), example_layout());
    assert_eq!(example_layout().file_size_bytes(), file.len());
    assert_eq!(safetensors::SafeTensors::deserialize(&file).unwrap().len(), 3);
}

#[test]
fn the_header_has_one_spelling() {
    let expected = concat!(
        r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#,
        r#""b":{"dtype":"F16","shape":[],"data_offsets":[24,26]}}"#,
    );
    let layout = layout(&[("b", &[], Dtype::F16), ("a", &[2, 3], Dtype::F32)]);
    assert_eq!(layout.header(), &with_header(expected, 0));
}

#[test]
fn an_order_of_tensors_does_not_matter() {
    let mut reversed = example();
    reversed.reverse();
    assert_eq!(write_tensors(&reversed), write_tensors(&example()));
}

#[test]
fn half_precision_is_widened_exactly() {
    let layout = layout(&[("b", &[2], Dtype::BF16), ("d", &[1], Dtype::F64), ("h", &[2], Dtype::F16)]);
    let mut file = layout.header().to_vec();
    for bits in [0x3f80_u16, 0xc049] {
        file.extend_from_slice(&bits.to_le_bytes());
    }
    file.extend_from_slice(&(-0.25_f64).to_le_bytes());
    for bits in [0x3c01_u16, 0x0001] {
        file.extend_from_slice(&bits.to_le_bytes());
    }
    let values: Vec<_> = read_f32(&file, &layout).unwrap().into_iter().flat_map(|t| t.values).collect();
    let smallest_f16 = 2_f32.powi(-24);
    assert_eq!(values, [1.0, -3.140_625, -0.25, 1.0 + 2_f32.powi(-10), smallest_f16]);
}

#[test]
fn layouts_beyond_a_bound_are_refused() {
    let one = |name: &str, shape: &[u64]| TensorLayout::new(vec![TensorSpec::new(name, shape, Dtype::F32)]);
    for name in ["", "__metadata__", "line\nbreak", &"x".repeat(NAME_LENGTH_MAX + 1)] {
        assert!(matches!(one(name, &[1]), Err(LayoutError::Name { .. })), "{name:?}");
    }
    assert!(one(&"x".repeat(NAME_LENGTH_MAX), &[1]).is_ok());
    for shape in [vec![ELEMENTS_MAX + 1], vec![1 << 33, 4], vec![u64::MAX, u64::MAX]] {
        assert_eq!(one("w", &shape), Err(LayoutError::TooManyElements { tensor: "w".into() }));
    }
    assert!(one("w", &[u64::MAX, 0, u64::MAX]).is_ok());
    let twice = vec![TensorSpec::new("w", [ELEMENTS_MAX], Dtype::F32), TensorSpec::new("x", [1], Dtype::F32)];
    assert_eq!(TensorLayout::new(twice), Err(LayoutError::TooManyElements { tensor: "x".into() }));
    let twins = vec![TensorSpec::new("w", [1], Dtype::F32), TensorSpec::new("w", [2], Dtype::F32)];
    assert_eq!(TensorLayout::new(twins), Err(LayoutError::DuplicateName { tensor: "w".into() }));
    let many = |count: usize, length: usize| {
        TensorLayout::new((0..count).map(|i| TensorSpec::new(format!("{i:0length$}"), [1], Dtype::F32)).collect())
    };
    assert_eq!(many(TENSORS_MAX + 1, 5), Err(LayoutError::TooManyTensors { found: TENSORS_MAX + 1 }));
    assert!(many(TENSORS_MAX, 5).is_ok());
    assert!(matches!(many(TENSORS_MAX, 250), Err(LayoutError::HeaderTooLong { .. })));
}

#[test]
fn writing_checks_the_number_of_values() {
    let error = write_tensors(&[tensor("w", &[2, 2], &[1.0; 3])]).unwrap_err();
    assert_eq!(error, WriteError::ValueCount { tensor: "w".into(), expected: 4, found: 3 });
}

#[test]
fn every_truncation_and_every_surplus_is_refused() {
    let (file, layout) = (write_tensors(&example()).unwrap(), example_layout());
    let expected = file.len();
    for found in 0..expected {
        let truncated = ReadError::Truncated { expected, found };
        assert_eq!(read_in_chunks(&file[..found], &layout, &[7]), Err(truncated.clone()));
        assert_eq!(payload_of(&file[..found], &layout), Err(truncated));
        assert!(matches!(layout_of(&file[..found]), Err(ReadError::Truncated { .. })));
    }
    let mut longer = file;
    longer.push(0);
    for sizes in [&[expected, 1][..], &[expected + 1], &[1], &[expected - 3, 4]] {
        assert_eq!(read_in_chunks(&longer, &layout, sizes), Err(ReadError::TooLong { expected }));
    }
    assert_eq!(payload_of(&longer, &layout), Err(ReadError::TooLong { expected }));
    assert_eq!(layout_of(&longer), Err(ReadError::TooLong { expected }));
}

#[test]
fn every_flipped_bit_of_the_header_is_refused() {
    let (file, layout) = (write_tensors(&example()).unwrap(), example_layout());
    for bit in 0..8 * layout.header().len() {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_in_chunks(&flipped, &layout, &[13]).is_err(), "bit {bit}");
        assert!(payload_of(&flipped, &layout).is_err(), "bit {bit}");
    }
}

#[test]
fn a_wrong_layout_is_named() {
    let expected = layout(&[("a", &[2], Dtype::F32), ("c", &[1], Dtype::F32)]);
    let found = |specs: &[(&str, &[u64], Dtype)]| {
        let found = layout(specs);
        let mut file = found.header().to_vec();
        file.resize(found.file_size_bytes(), 0);
        let streamed = read_in_chunks(&file, &expected, &[5]).unwrap_err();
        assert_eq!(payload_of(&file, &expected).unwrap_err(), streamed);
        let ReadError::LayoutMismatch(mismatch) = streamed else { panic!("{streamed}") };
        mismatch
    };
    let missing = |tensor: &str| LayoutMismatch::Missing { tensor: tensor.into() };
    let unexpected = |tensor: &str| LayoutMismatch::Unexpected { tensor: tensor.into() };
    assert_eq!(found(&[("a", &[2], Dtype::F32)]), missing("c"));
    assert_eq!(found(&[("c", &[1], Dtype::F32)]), missing("a"));
    assert_eq!(found(&[("a", &[2], Dtype::F32), ("b", &[2], Dtype::F32), ("c", &[1], Dtype::F32)]), unexpected("b"));
    assert_eq!(found(&[("a", &[2], Dtype::F32), ("c", &[1], Dtype::F32), ("d", &[], Dtype::F32)]), unexpected("d"));
    let shape = LayoutMismatch::Shape { tensor: "a".into(), expected: vec![2], found: vec![2, 1] };
    assert_eq!(found(&[("a", &[2, 1], Dtype::F32), ("c", &[1], Dtype::F32)]), shape);
    let dtype = LayoutMismatch::Dtype { tensor: "c".into(), expected: Dtype::F32, found: Dtype::BF16 };
    assert_eq!(found(&[("a", &[2], Dtype::F32), ("c", &[1], Dtype::BF16)]), dtype);
}

#[test]
fn other_spellings_of_the_same_tensors_are_refused() {
    let layout = layout(&[("a", &[1], Dtype::F32), ("b", &[1], Dtype::F32)]);
    let a = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let b = r#""b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#;
    assert_eq!(payload_of(&with_header(&format!("{{{a},{b}}}"), 8), &layout), Ok(&[0; 8][..]));
    let spellings = [
        format!("{{{b},{a}}}"),
        format!("{{{a}, {b}}}"),
        format!("{{{a},{a},{b}}}"),
        format!("{{{a},{b}}}        "),
        format!(r#"{{"__metadata__":{{"format":"pt"}},{a},{b}}}"#),
        format!("{{{a},{}}}", b.replace("[4,8]", "[8,12]")),
        format!("{{{a},{}}}", b.replace(r#""b""#, r#""\u0062""#)),
        format!("{{{a},{}}}", b.replace("F32\",", "F32\",\"extra\":0,")),
        "not json".into(),
        "[".repeat(4096),
    ];
    for spelling in spellings {
        let file = with_header(&spelling, 8);
        assert_eq!(payload_of(&file, &layout), Err(ReadError::NotCanonicalHeader), "{spelling}");
        assert_eq!(read_in_chunks(&file, &layout, &[9]), Err(ReadError::NotCanonicalHeader), "{spelling}");
        assert_eq!(layout_of(&file), Err(ReadError::NotCanonicalHeader), "{spelling}");
    }
}

#[test]
fn a_huge_header_is_refused_before_it_comes() {
    for found in [HEADER_SIZE_BYTES_MAX + 1, u64::MAX] {
        let too_long = ReadError::Layout(LayoutError::HeaderTooLong { found });
        let field = found.to_le_bytes();
        let mut reader = UpdateReader::new(example_layout());
        assert_eq!(reader.push(&field, |_| Ok(())), Err(too_long.clone()));
        assert_eq!(layout_of(&field), Err(too_long.clone()));
        assert_eq!(payload_of(&field, &example_layout()), Err(too_long));
    }
}

#[test]
fn a_reader_that_failed_stays_failed() {
    let file = write_tensors(&example()).unwrap();
    let mut reader = UpdateReader::new(example_layout());
    let refusal = ReadError::TooLong { expected: 0 };
    assert_eq!(reader.push(&file, |_| Err(refusal.clone())), Err(refusal.clone()));
    assert_eq!(reader.push(&[], |_| Ok(())), Err(ReadError::GivenUp));
    assert_eq!(reader.finish(), Err(ReadError::GivenUp));
}

#[test]
fn blocks_cover_every_element_once_and_do_not_depend_on_the_split() {
    let layout = layout(&[
        ("a", &[10], Dtype::F32),
        ("b", &[0], Dtype::F32),
        ("c", &[1], Dtype::F16),
        ("d", &[0], Dtype::F16),
        ("e", &[23], Dtype::F64),
    ]);
    let whole: Vec<_> = layout.blocks(0..34, 8).collect();
    let mut split: Vec<_> = layout.blocks(0..16, 8).collect();
    split.extend(layout.blocks(16..34, 8));
    assert_eq!(whole, split);
    let elements: Vec<_> = whole.iter().map(|b| (b.tensor, b.first_in_tensor, b.elements.clone())).collect();
    let expected =
        [(0, 0, 0..8), (0, 8, 8..10), (2, 0, 10..11), (4, 0, 11..16), (4, 5, 16..24), (4, 13, 24..32), (4, 21, 32..34)];
    assert_eq!(elements, expected);
    let bytes: Vec<_> = whole.iter().flat_map(|b| b.bytes.clone()).collect();
    assert_eq!(bytes, (0..layout.payload_size_bytes()).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn chunks_of_any_size_read_the_same(sizes in prop::collection::vec(1_usize..60, 1..80)) {
        let layout = layout(&[
            ("a", &[17], Dtype::F32), ("b", &[5], Dtype::F16), ("c", &[], Dtype::F64), ("d", &[3], Dtype::BF16),
        ]);
        let mut file = layout.header().to_vec();
        file.extend((0..layout.payload_size_bytes()).map(|i| (i * 29) as u8 & 0x3f));
        let expected: Vec<f32> = read_f32(&file, &layout).unwrap().into_iter().flat_map(|t| t.values).collect();
        let (values, digest) = read_in_chunks(&file, &layout, &sizes).unwrap();
        prop_assert_eq!(values, expected);
        prop_assert_eq!(digest, Digest::of(&file));
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_u64..200) {
        let mut file = length.to_le_bytes().to_vec();
        file.extend(bytes);
        prop_assert!(layout_of(&file).is_err() || file.starts_with(layout_of(&file).unwrap().header()));
        prop_assert!(read_in_chunks(&file, &example_layout(), &[11]).is_err());
    }
}
