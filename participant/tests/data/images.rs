//! Images from npz and IDX files.

use std::fs;

use fedledger_federation::data_description::DataDescription;
use fedledger_ledger::{Digest, codec};
use fedledger_participant::table::Dataset;

use crate::files::{Site, description, gzip, idx, npy, write_npz};

/// Grey images of two rows and three columns.
fn grey() -> DataDescription {
    described("height = 2\nwidth = 3\nchannels = 1\nclasses = 3")
}

fn described(size: &str) -> DataDescription {
    description(&format!("kind = \"images\"\nmean = \"0.2\"\ndeviation = \"0.4\"\n{size}"))
}

const TRAIN: [u8; 18] = [0, 51, 102, 153, 204, 255, 1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60];
const TEST: [u8; 6] = [255, 204, 153, 102, 51, 0];

fn rows(data: &Dataset) -> Vec<Vec<f32>> {
    let row = |row| {
        let mut values = Vec::new();
        data.append_row(row, &mut values);
        values
    };
    (0..data.rows()).map(row).collect()
}

/// What bytes become.
fn scaled(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|byte| ((f64::from(*byte) / 255.0 - 0.2) / 0.4) as f32).collect()
}

/// An npz file as MedMNIST publishes them.
fn medmnist(compressed: bool) -> Site {
    let site = Site::new("data.npz", "");
    write_npz(
        &site.records,
        compressed,
        &[
            ("train_images", npy("|u1", &[3, 2, 3], &TRAIN)),
            ("val_images", npy("|u1", &[0, 2, 3], &[])),
            ("test_images", npy("|u1", &[1, 2, 3], &TEST)),
            ("train_labels", npy("|u1", &[3, 1], &[2, 0, 1])),
            ("test_labels", npy("|u1", &[1, 1], &[1])),
        ],
    );
    site
}

/// A folder as MNIST's.
fn mnist(compressed: bool) -> Site {
    let site = Site::new("", "");
    let files = [
        ("train-images-idx3-ubyte", idx(&[3, 2, 3], &TRAIN)),
        ("train-labels-idx1-ubyte", idx(&[3], &[2, 0, 1])),
        ("t10k-images-idx3-ubyte", idx(&[1, 2, 3], &TEST)),
        ("t10k-labels-idx1-ubyte", idx(&[1], &[1])),
    ];
    for (name, bytes) in files {
        if compressed {
            fs::write(site.path(&format!("{name}.gz")), gzip(&bytes)).unwrap();
        } else {
            fs::write(site.path(name), bytes).unwrap();
        }
    }
    site
}

#[test]
fn every_format_gives_the_same_images() {
    for site in [medmnist(false), medmnist(true), mnist(false), mnist(true)] {
        let table = site.read(&grey()).unwrap();
        assert_eq!(rows(&table.train), TRAIN.chunks(6).map(scaled).collect::<Vec<_>>());
        assert_eq!(rows(&table.test), [scaled(&TEST)]);
        assert_eq!((table.train.labels(), table.test.labels()), (&[2.0, 0.0, 1.0][..], &[1.0][..]));
        assert_eq!((table.classes, table.train.columns(), table.feature_names.len()), (3, 6, 0));
        let manifest = &table.manifest;
        assert_eq!((manifest.feature_count, manifest.train_rows, manifest.test_rows), (6, 3, 1));
        assert_eq!(manifest.description, Some(grey().digest()));
    }
}

#[test]
fn the_manifest_covers_every_file_that_was_read() {
    let npz = medmnist(true);
    assert_eq!(npz.read(&grey()).unwrap().manifest.file, Digest::of(&fs::read(&npz.records).unwrap()));
    let folder = mnist(false);
    let first = folder.read(&grey()).unwrap().manifest;
    let digests: std::collections::BTreeMap<String, Digest> = fs::read_dir(folder.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), Digest::of(&fs::read(path).unwrap())))
        .collect();
    assert_eq!(digests.len(), 4);
    assert_eq!(first.file, Digest::of(&codec::encode(&digests)));
    fs::write(folder.path("t10k-labels-idx1-ubyte"), idx(&[1], &[2])).unwrap();
    assert_ne!(first.digest(), folder.read(&grey()).unwrap().manifest.digest());
}

#[test]
fn the_values_of_a_channel_stand_together() {
    let site = Site::new("data.npz", "");
    let pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    write_npz(
        &site.records,
        true,
        &[
            ("train_images", npy("|u1", &[1, 2, 2, 3], &pixels)),
            ("train_labels", npy("<i8", &[1], &1i64.to_le_bytes())),
        ],
    );
    let table = site.read(&described("height = 2\nwidth = 2\nchannels = 3\nclasses = 2")).unwrap();
    assert_eq!(rows(&table.train), [scaled(&[1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12])]);
    assert_eq!(table.test.rows(), 0, "a site need not have test images");
}

#[test]
fn the_schema_names_other_arrays_and_files() {
    let schema = "[images]\ntrain_images = \"x\"\ntrain_labels = \"y\"\ntest_images = \"a\"\ntest_labels = \"b\"\n";
    let site = Site::new("data.npz", schema);
    let images = |bytes: &[u8]| npy("|u1", &[bytes.len() as u64 / 6, 2, 3], bytes);
    let labels = |labels: &[u8]| npy("|u1", &[labels.len() as u64], labels);
    let arrays = [("x", images(&TRAIN)), ("y", labels(&[2, 0, 1])), ("a", images(&TEST)), ("b", labels(&[1]))];
    write_npz(&site.records, false, &arrays);
    assert_eq!(site.read(&grey()).unwrap().test.rows(), 1);
    write_npz(&site.records, false, &arrays[..3]);
    let error = site.refusal(&grey());
    assert!(error.contains("there is no array \"b\""), "what is named must be there: {error}");

    let site = Site::new("some.idx", "[images]\ntrain_images = \"some.idx\"\ntrain_labels = \"labels.idx.gz\"\n");
    fs::write(&site.records, idx(&[3, 2, 3], &TRAIN)).unwrap();
    fs::write(site.path("labels.idx.gz"), gzip(&idx(&[3], &[2, 0, 1]))).unwrap();
    let table = site.read(&grey()).unwrap();
    assert_eq!((table.train.rows(), table.test.rows()), (3, 0));
}

#[test]
fn a_site_without_test_images_keeps_some_of_its_own() {
    let split = "[split]\nkind = \"test_fraction\"\nfraction = \"0.3\"\nseed = 1\n";
    let site = medmnist(true);
    fs::write(site.path("schema.toml"), split).unwrap();
    let table = site.read(&grey()).unwrap();
    assert_eq!((table.train.rows(), table.test.rows()), (2, 1), "the file's test images are not used");
    assert!(table.test.labels().iter().chain(table.train.labels()).copied().sum::<f32>() == 3.0);
    fs::write(site.path("schema.toml"), "[split]\nkind = \"test_rows\"\nfile = \"rows.json\"\n").unwrap();
    fs::write(site.path("rows.json"), "[2]").unwrap();
    assert_eq!(site.read(&grey()).unwrap().test.labels(), [1.0]);
    fs::write(site.path("rows.json"), "[3]").unwrap();
    assert!(site.refusal(&grey()).contains("test row 3"));
}

#[test]
fn images_whose_label_is_no_class_are_skipped_and_counted() {
    let two = "height = 2\nwidth = 3\nchannels = 1\nclasses = 2";
    let site = medmnist(true);
    let error = site.refusal(&described(two));
    assert!(error.contains("train_labels, label 0: 2 is no class from 0 to 1"), "{error}");
    let table = site.read(&described(&format!("{two}\nbad_rows_max = 1"))).unwrap();
    assert_eq!((table.train.labels(), rows(&table.train)[0].clone()), (&[0.0, 1.0][..], scaled(&TRAIN[6..12])));
    assert_eq!(table.manifest.skipped_rows, [("unknown_label".to_owned(), 1)].into());
    let labels = |train: &[u8]| npy("|u1", &[3], train);
    write_npz(
        &site.records,
        true,
        &[("train_images", npy("|u1", &[3, 2, 3], &TRAIN)), ("train_labels", labels(&[2, 0, 255]))],
    );
    let error = site.refusal(&described(&format!("{two}\nbad_rows_max = 1")));
    assert!(error.contains("more than 1 rows cannot be read"), "{error}");
    assert!(error.contains("train_labels, label 2: 255 is no class"), "{error}");
}

/// The refusal of an npz file with these training images and labels.
fn refused(images: Vec<u8>, labels: Vec<u8>) -> String {
    let site = Site::new("data.npz", "");
    write_npz(&site.records, true, &[("train_images", images), ("train_labels", labels)]);
    site.refusal(&grey())
}

#[test]
fn arrays_that_do_not_fit_are_refused_with_their_name() {
    let images = || npy("|u1", &[3, 2, 3], &TRAIN);
    let labels = || npy("|u1", &[3], &[2, 0, 1]);
    let huge = u64::from(u32::MAX);
    let cases = [
        (npy("|u1", &[3, 3, 2], &TRAIN), labels(), "train_images has the shape [3, 3, 2], expected [3, 2, 3, 1]"),
        (npy("|u1", &[2, 2, 3], &TRAIN[..12]), labels(), "train_images has the shape [2, 2, 3]"),
        (npy("<f4", &[3, 2, 3], &[0; 72]), labels(), "train_images holds numbers of numpy's kind \"<f4\""),
        (npy("<u2", &[3, 2, 3], &[0; 36]), labels(), "train_images holds 2-byte numbers"),
        (npy("|u1", &[3, 2, 3], &TRAIN[..17]), labels(), "train_images ends too early"),
        (npy("|u1", &[3, 2, 3], &[0; 19]), labels(), "train_images goes on behind its end"),
        (images(), npy("|u1", &[3, 2], &[0; 6]), "train_labels has the shape [3, 2]"),
        (images(), npy("|u1", &[4], &[0; 3]), "train_labels ends too early"),
        (images(), npy("|u1", &[huge], &[0; 3]), "more than 16777216 images"),
        (images(), npy("|u1", &[], &[0]), "no dimensions"),
        (
            images(),
            b"\x93NUMPY\x01\x00\xff\xff{}".to_vec(),
            "train_labels is no array that can be used: it ends within",
        ),
        (images(), b"\x93NUMPY\x03\x00\xff\xff\xff\xff{}".to_vec(), "train_labels is no array that can be used"),
        (images(), b"PK\x03\x04".to_vec(), "train_labels is no array that can be used: it ends within"),
        (images(), [0; 100].to_vec(), "it does not begin as numpy's arrays do"),
    ];
    for (images, labels, expected) in cases {
        let error = refused(images, labels);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let columns_first = String::from_utf8_lossy(&images()).contains("'fortran_order': False");
    assert!(columns_first);
    let mut fortran = images();
    let position = fortran.windows(5).position(|bytes| bytes == b"False").unwrap();
    fortran.splice(position..position + 5, *b"True ");
    assert!(refused(fortran, labels()).contains("column-major order"));
}

#[test]
fn no_size_that_a_header_claims_is_believed() {
    // As many labels as can be, each of an image of the largest size: 2^38 bytes, of which none is there.
    let site = Site::new("", "");
    let count = 1u32 << 24;
    fs::write(site.path("train-labels-idx1-ubyte.gz"), gzip(&idx(&[count], &vec![0; count as usize]))).unwrap();
    fs::write(site.path("train-images-idx3-ubyte"), idx(&[count, 128, 128], &[])).unwrap();
    let large = described("height = 128\nwidth = 128\nchannels = 1\nclasses = 2");
    let error = site.refusal(&large);
    assert!(error.contains("or 1073741824 bytes: use fewer"), "{error}");
    // A compressed file that goes on and on is read no further than its header says.
    let site = mnist(true);
    let bomb = gzip(&idx(&[1], &vec![1; 1 << 24]));
    fs::write(site.path("t10k-labels-idx1-ubyte.gz"), bomb).unwrap();
    assert!(site.refusal(&grey()).contains("t10k-labels-idx1-ubyte goes on behind its end"));
}

#[test]
fn damaged_files_are_refused() {
    let site = medmnist(true);
    let whole = fs::read(&site.records).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&site.records, &whole[..length]).unwrap();
        assert!(site.read(&grey()).is_err(), "{length}");
    }
    let stored = medmnist(false);
    let mut flipped = fs::read(&stored.records).unwrap();
    let position = flipped.windows(TRAIN.len()).position(|bytes| bytes == TRAIN).unwrap();
    flipped[position + 7] ^= 1;
    fs::write(&stored.records, &flipped).unwrap();
    let error = stored.refusal(&grey());
    assert!(error.contains("checksum"), "{error}");

    let site = mnist(false);
    for (bytes, expected) in [
        (vec![], "it ends within its header"),
        (vec![0, 0, 8, 3, 0, 0], "it ends within its header"),
        (vec![0, 0, 0x0d, 3], "it holds other numbers than whole ones"),
        (vec![0, 0, 8, 9], "it has no dimensions, or too many"),
        (vec![0, 0, 8, 0], "it has no dimensions, or too many"),
        (vec![1, 0, 8, 1], "it does not begin as IDX files do"),
    ] {
        fs::write(site.path("train-images-idx3-ubyte"), bytes).unwrap();
        let error = site.refusal(&grey());
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(site.path("train-labels-idx1-ubyte")).unwrap();
    assert!(site.refusal(&grey()).contains("there is no array \"train-labels-idx1-ubyte\""));
}

#[test]
fn labels_of_idx_files_may_be_larger_numbers() {
    let site = Site::new("", "");
    let mut labels = vec![0, 0, 0x0c, 1, 0, 0, 0, 2];
    labels.extend([1i32, -1].into_iter().flat_map(i32::to_be_bytes));
    fs::write(site.path("train-labels-idx1-ubyte"), labels).unwrap();
    fs::write(site.path("train-images-idx3-ubyte"), idx(&[2, 2, 3], &TRAIN[..12])).unwrap();
    let error = site.refusal(&grey());
    assert!(error.contains("label 1: -1 is no class"), "{error}");
}
