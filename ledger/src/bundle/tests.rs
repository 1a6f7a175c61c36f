use std::io::{Cursor, Read};

use super::*;

const GENESIS: &[u8] = b"genesis";
const EPOCHS: &[u8] = b"epochs";

fn files() -> Vec<Vec<u8>> {
    let mut files = vec![b"weights".to_vec(), Vec::new(), vec![7; 200_000]];
    files.sort_by_key(|file| Digest::of(file));
    files
}

fn bundle() -> Vec<u8> {
    let mut writer = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap();
    writer.add_note("note\n").unwrap();
    writer.add_leaf(b"first").unwrap();
    writer.add_leaf(b"").unwrap();
    writer.add_policy(b"policy\n").unwrap();
    for file in files() {
        writer.add_blob(&Digest::of(&file), file.len() as u64, file.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn small_bundle() -> Vec<u8> {
    let mut writer = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap();
    writer.add_note("note\n").unwrap();
    writer.add_leaf(b"first").unwrap();
    writer.add_policy(b"policy\n").unwrap();
    writer.add_blob(&Digest::of(b"file"), 4, &b"file"[..]).unwrap();
    writer.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> Result<Vec<Item>, BundleError> {
    let mut reader = BundleReader::new(bytes)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    Ok(items)
}

fn defect(bytes: &[u8]) -> Malformed {
    match read_all(bytes) {
        Err(BundleError::Malformed(malformed)) => malformed,
        other => panic!("expected a malformed bundle, found {other:?}"),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let bytes = bundle();
    let mut reader = BundleReader::new(bytes.as_slice()).unwrap();
    assert_eq!(reader.next_item().unwrap(), Some(Item::Genesis(GENESIS.to_vec())));
    let item = reader.next_item().unwrap();
    assert!(matches!(item, Some(Item::Epochs { offset: 36, ref bytes }) if bytes == EPOCHS), "{item:?}");
    assert!(matches!(reader.next_item().unwrap(), Some(Item::Note { text, .. }) if text == "note\n"));
    assert_eq!(reader.next_item().unwrap(), Some(Item::Leaf(b"first".to_vec())));
    assert_eq!(reader.next_item().unwrap(), Some(Item::Leaf(Vec::new())));
    assert!(matches!(reader.next_item().unwrap(), Some(Item::Policy { bytes, .. }) if bytes == b"policy\n"));
    for file in files() {
        let Some(Item::Blob { offset, digest, size }) = reader.next_item().unwrap() else {
            panic!("a file is missing")
        };
        assert_eq!((digest, size), (Digest::of(&file), file.len() as u64));
        let mut content = vec![0; file.len() + 1];
        let mut count = 0;
        loop {
            match reader.read_blob(&mut content[count..]).unwrap() {
                0 => break,
                read => count += read,
            }
        }
        assert_eq!(content[..count], file);
        let offset = usize::try_from(offset).unwrap();
        assert_eq!(bytes[offset..offset + file.len()], file);
    }
    assert_eq!(reader.next_item().unwrap(), None);
    assert_eq!(reader.offset(), bytes.len() as u64);
}

#[test]
fn the_format_is_pinned() {
    // Changing these bytes changes the format and needs another version in the magic.
    let mut writer = BundleWriter::new(Vec::new(), b"g", b"e").unwrap();
    writer.add_note("n").unwrap();
    writer.add_leaf(b"l").unwrap();
    writer.add_policy(b"p").unwrap();
    writer.add_blob(&Digest::of(b"b"), 1, &b"b"[..]).unwrap();
    let expected = [
        b"fedledger bundle 2\n\x01\0\0\0\x01g\x02\0\0\0\x01e\x03\0\0\0\x01n\x04\0\0\0\x01l\x05\0\0\0\x01p\x06"
            .as_slice(),
        Digest::of(b"b").as_bytes(),
        b"\0\0\0\0\0\0\0\x01b\0",
    ]
    .concat();
    let end = Digest::of(&expected);
    assert_eq!(writer.finish().unwrap(), [expected.as_slice(), end.as_bytes()].concat());
}

#[test]
fn every_truncation_is_noticed_at_the_end_that_is_left() {
    let bytes = small_bundle();
    for length in 0..bytes.len() {
        let expected = Malformed { offset: length as u64, defect: Defect::Truncated };
        assert_eq!(defect(&bytes[..length]), expected, "cut at {length}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = small_bundle();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read_all(&flipped).is_err(), "bit {bit} was not noticed");
    }
}

#[test]
fn each_defect_is_named_with_its_place() {
    let item = |kind: u8, bytes: &[u8]| {
        [&[kind], u32::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
    };
    let blob = |digest: u8, size: u64| [&[6], [digest; 32].as_slice(), &size.to_be_bytes()].concat();
    // Genesis file and epochs, of a byte each.
    let begin = || [item(1, b"g"), item(2, b"e")].concat();
    let after_genesis = (BUNDLE_MAGIC.len() + 6) as u64;
    let after_epochs = after_genesis + 6;
    let large = GENESIS_SIZE_BYTES_MAX as u64 + 1;
    let (leaf_max, leaf_size) = (Leaf::size_bytes_max(1) as u64, u64::from(u32::MAX));
    let blob_size = BUNDLE_BLOB_SIZE_BYTES_MAX + 1;
    let magic = BUNDLE_MAGIC.len() as u64;
    let cases: Vec<(Vec<u8>, u64, Defect)> = vec![
        (item(2, b"leaf"), magic, Defect::OutOfPlace),
        (vec![END], magic, Defect::OutOfPlace),
        (vec![9], magic, Defect::UnknownKind(9)),
        (
            [&[1], u32::try_from(large).unwrap().to_be_bytes().as_slice()].concat(),
            magic + 1,
            Defect::TooLarge { size: large, limit: large - 1 },
        ),
        ([item(1, b"g"), item(1, b"g")].concat(), after_genesis, Defect::OutOfPlace),
        ([item(1, b"g"), item(3, b"n")].concat(), after_genesis, Defect::OutOfPlace),
        ([item(1, b"g"), vec![END]].concat(), after_genesis, Defect::OutOfPlace),
        ([begin(), item(2, b"e")].concat(), after_epochs, Defect::OutOfPlace),
        ([begin(), item(4, b"l"), item(3, b"n")].concat(), after_epochs + 6, Defect::OutOfPlace),
        ([begin(), item(5, b"p"), item(5, b"p")].concat(), after_epochs + 6, Defect::OutOfPlace),
        ([begin(), item(5, b"p"), item(4, b"l")].concat(), after_epochs + 6, Defect::OutOfPlace),
        ([begin(), item(3, &[0xff])].concat(), after_epochs + 5, Defect::NotText),
        (
            [begin(), [4, 0xff, 0xff, 0xff, 0xff].to_vec()].concat(),
            after_epochs + 1,
            Defect::TooLarge { size: leaf_size, limit: leaf_max },
        ),
        ([begin(), blob(2, 0), blob(2, 0)].concat(), after_epochs + 42, Defect::BlobOrder(Digest::from_bytes([2; 32]))),
        ([begin(), blob(2, 0), blob(1, 0)].concat(), after_epochs + 42, Defect::BlobOrder(Digest::from_bytes([1; 32]))),
        (
            [begin(), blob(2, blob_size)].concat(),
            after_epochs + 33,
            Defect::TooLarge { size: blob_size, limit: blob_size - 1 },
        ),
    ];
    for (body, offset, expected) in cases {
        let bytes = [BUNDLE_MAGIC, &body].concat();
        assert_eq!(defect(&bytes), Malformed { offset, defect: expected });
    }
    let mut longer = bundle();
    longer.push(0);
    let offset = longer.len() as u64 - 1;
    assert_eq!(defect(&longer), Malformed { offset, defect: Defect::TrailingBytes });
    assert_eq!(defect(b"PK\x03\x04 and so on, a zip file"), Malformed { offset: 0, defect: Defect::NotABundle });
    let offset = MAGIC_STEM.len() as u64;
    assert_eq!(defect(b"fedledger bundle 1\n and so on"), Malformed { offset, defect: Defect::UnknownVersion });
}

#[test]
fn the_number_of_notes_is_bounded() {
    let mut writer = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap();
    for _ in 0..BUNDLE_NOTES_MAX {
        writer.add_note("").unwrap();
    }
    let too_many = writer.add_note("");
    assert!(matches!(too_many, Err(BundleWriteError::TooMany { limit: BUNDLE_NOTES_MAX })));
    let one_more = [3, 0, 0, 0, 0].repeat(BUNDLE_NOTES_MAX + 1);
    let bytes = [BUNDLE_MAGIC, b"\x01\0\0\0\0\x02\0\0\0\0", &one_more].concat();
    assert_eq!(defect(&bytes).defect, Defect::TooMany { limit: BUNDLE_NOTES_MAX });
    let note = "n".repeat(NOTE_SIZE_BYTES_MAX);
    let fit = BUNDLE_NOTES_SIZE_BYTES_MAX / NOTE_SIZE_BYTES_MAX as u64;
    let mut writer = BundleWriter::new(std::io::sink(), GENESIS, EPOCHS).unwrap();
    (0..fit).for_each(|_| writer.add_note(&note).unwrap());
    assert!(matches!(writer.add_note(&note), Err(BundleWriteError::TooLarge { .. })));
}

#[test]
fn the_writer_refuses_what_no_bundle_holds() {
    let mut writer = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap();
    let too_large = writer.add_leaf(&vec![0; Leaf::size_bytes_max(1) + 1]);
    assert!(matches!(too_large, Err(BundleWriteError::TooLarge { .. })), "{too_large:?}");
    let (low, high) = (files().remove(0), files().remove(2));
    writer.add_blob(&Digest::of(&high), high.len() as u64, high.as_slice()).unwrap();
    for result in [
        writer.add_leaf(b"late"),
        writer.add_note("late"),
        writer.add_policy(b"late"),
        writer.add_blob(&Digest::of(&low), low.len() as u64, low.as_slice()),
        writer.add_blob(&Digest::of(&high), high.len() as u64, high.as_slice()),
    ] {
        assert!(matches!(result, Err(BundleWriteError::OutOfPlace)), "{result:?}");
    }
    let last = Digest::from_bytes([0xff; 32]);
    for (digest, size) in [(last, 4), (Digest::of(b"file"), 3), (Digest::of(b"file"), 5)] {
        let mut writer = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap();
        let damaged = writer.add_blob(&digest, size, &b"file"[..]);
        assert!(matches!(damaged, Err(BundleWriteError::Blob { .. })), "{damaged:?}");
    }
}

#[test]
fn a_file_is_never_held_whatever_size_it_claims() {
    // A reader that allocated what is claimed would fail here.
    let mut head = BundleWriter::new(Vec::new(), GENESIS, EPOCHS).unwrap().finish().unwrap();
    head.truncate(head.len() - 33);
    head.extend([6]);
    head.extend([0; 32]);
    head.extend(BUNDLE_BLOB_SIZE_BYTES_MAX.to_be_bytes());
    let served = 64 * 1024 * 1024;
    let input = Cursor::new(head.clone()).chain(std::io::repeat(0).take(served));
    let mut reader = BundleReader::new(input).unwrap();
    assert!(matches!(reader.next_item(), Ok(Some(Item::Genesis(_)))));
    assert!(matches!(reader.next_item(), Ok(Some(Item::Epochs { .. }))));
    assert!(matches!(reader.next_item(), Ok(Some(Item::Blob { .. }))));
    let error = reader.next_item().unwrap_err();
    let offset = head.len() as u64 + served;
    assert!(matches!(error, BundleError::Malformed(at) if at == Malformed { offset, defect: Defect::Truncated }));
}

#[test]
fn an_index_says_where_everything_is() {
    let bytes = bundle();
    let index = BundleIndex::scan(bytes.as_slice()).unwrap();
    assert_eq!((index.genesis.as_deref(), index.leaf_count, &index.defect), (Some(GENESIS), 2, &None));
    for (part, expected) in [(&index.epochs, EPOCHS), (&index.policy, b"policy\n".as_slice())] {
        let part = part.as_ref().unwrap();
        let offset = usize::try_from(part.offset).unwrap();
        assert_eq!((part.bytes.as_slice(), &bytes[offset..offset + part.bytes.len()]), (expected, expected));
    }
    assert_eq!(index.notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>(), ["note\n"]);
    let leaves: Result<Vec<_>, _> = index.leaves(bytes.as_slice()).unwrap().collect();
    assert_eq!(leaves.unwrap(), [b"first".to_vec(), Vec::new()]);
    for (digest, extent) in &index.blobs {
        let offset = usize::try_from(extent.offset).unwrap();
        assert_eq!(Digest::of(&bytes[offset..offset + usize::try_from(extent.size).unwrap()]), *digest);
    }
    assert_eq!(index.blobs.len(), 3);
}

#[test]
fn a_damaged_bundle_is_indexed_up_to_the_damage() {
    let bytes = bundle();
    let whole = BundleIndex::scan(bytes.as_slice()).unwrap();
    let last = whole.blobs.values().filter(|extent| extent.size > 0).map(|extent| extent.offset).max().unwrap();
    let cut = &bytes[..usize::try_from(last).unwrap()];
    let index = BundleIndex::scan(cut).unwrap();
    let expected =
        whole.blobs.iter().filter(|(_, extent)| extent.offset + extent.size <= last).map(|(digest, _)| *digest);
    assert!(index.blobs.keys().copied().eq(expected), "a file that is cut off was listed, or another one was not");
    assert_eq!((index.leaf_count, index.defect.map(|at| at.offset)), (2, Some(last)));
}
