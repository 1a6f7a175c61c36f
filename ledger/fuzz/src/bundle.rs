//! Bundles: as they are, and with the digest at their end put right, which no random change would get past.

use fedledger_ledger::{
    Digest,
    bundle::{BundleError, BundleIndex, BundleReader, BundleWriter, Item},
};

/// The kind byte of a bundle's end.
const END: u8 = 0;

/// Reads the bytes as a bundle, and again as what stands before the end of one.
pub fn run(data: &[u8]) {
    check(data);
    let mut ended = [data, &[END]].concat();
    let digest = Digest::of(&ended);
    ended.extend(digest.as_bytes());
    check(&ended);
}

fn check(bundle: &[u8]) {
    let index = BundleIndex::scan(bundle).expect("memory can be read");
    match read(bundle) {
        Ok(Contents { leaves, canonical }) => {
            assert_eq!(index.defect, None);
            assert_eq!(index.leaf_count, leaves.len() as u64);
            let again: Result<Vec<_>, _> = index.leaves(bundle).expect("the beginning is right").collect();
            assert_eq!(again.expect("the leaves are there"), leaves);
            assert!(canonical.is_none_or(|canonical| canonical == bundle), "a history has one bundle");
        }
        Err(BundleError::Malformed(defect)) => assert_eq!(index.defect, Some(defect)),
        Err(BundleError::Io(error)) => panic!("memory can be read: {error}"),
    }
}

struct Contents {
    leaves: Vec<Vec<u8>>,
    /// The bundle that is written for the same contents; `None` where a file is not the one that it is said to be.
    canonical: Option<Vec<u8>>,
}

fn read(bundle: &[u8]) -> Result<Contents, BundleError> {
    let mut reader = BundleReader::new(bundle)?;
    let (mut genesis, mut writer, mut leaves) = (None, None, Vec::new());
    let mut files_are_right = true;
    while let Some(item) = reader.next_item()? {
        let written = match (item, &mut writer) {
            (Item::Genesis(bytes), None) => {
                assert_eq!(genesis.replace(bytes), None, "there are two genesis files");
                continue;
            }
            (Item::Epochs { bytes, .. }, None) => {
                let genesis = genesis.as_ref().expect("the genesis file stands first");
                writer = Some(BundleWriter::new(Vec::new(), genesis, &bytes).expect("memory takes everything"));
                continue;
            }
            (Item::Leaf(leaf), Some(writer)) => {
                leaves.push(leaf);
                writer.add_leaf(leaves.last().expect("just pushed"))
            }
            (Item::Note { text, .. }, Some(writer)) => writer.add_note(&text),
            (Item::Blob { digest, size, .. }, Some(writer)) => {
                let mut content = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let count = reader.read_blob(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    content.extend(&buffer[..count]);
                }
                assert_eq!(content.len() as u64, size, "a file is read to its end");
                files_are_right &= Digest::of(&content) == digest;
                if !files_are_right {
                    continue;
                }
                writer.add_blob(&digest, size, content.as_slice())
            }
            (Item::Policy { bytes, .. }, Some(writer)) => writer.add_policy(&bytes),
            (_, None) => panic!("something stands before the genesis file and the chain of epochs"),
            (Item::Genesis(_) | Item::Epochs { .. }, Some(_)) => panic!("a genesis file or a chain stands twice"),
        };
        written.expect("what was read can be written");
    }
    let canonical = writer.filter(|_| files_are_right).map(|writer| writer.finish().expect("memory takes everything"));
    Ok(Contents { leaves, canonical })
}
