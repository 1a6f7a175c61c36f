//! A file that is written to while it is read gives no data set: its digest would be that of other records.

use std::{
    error::Error as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use fedledger_federation::data_description::DataDescription;
use parquet::basic::Compression;

use crate::files::{Column, Site, description, idx, npy, write_npz, write_parquet};

/// Why records cannot be read while somebody does `write` to them.
fn refusal(site: &Site, description: &DataDescription, write: impl Fn()) -> String {
    site.read(description).unwrap();
    // Called when the file has been opened, and before its records are read.
    let goes_on = || {
        write();
        true
    };
    let error = site.open().read_while(Some(description), &goes_on).unwrap_err();
    error.source().unwrap().to_string()
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap();
}

fn images() -> DataDescription {
    description("kind = \"images\"\nmean = \"0\"\ndeviation = \"1\"\nheight = 2\nwidth = 2\nchannels = 1\nclasses = 2")
}

#[test]
fn a_parquet_file_that_changes_is_refused() {
    let site = Site::new("data.parquet", "");
    let message = "message records { optional double age; optional int32 sick; }";
    let columns = vec![Column::Doubles(vec![Some(50.0), Some(60.0)]), Column::Ints(vec![Some(1), Some(0)])];
    write_parquet(&site.records, message, Compression::UNCOMPRESSED, &[columns]);
    let description = description(
        "kind = \"table\"\nmissing = \"error\"\nnormalize = \"none\"\n\
         label = { column = \"sick\", positive_when = { equals = [\"1\"] } }\n\
         features = [{ kind = \"numeric\", column = \"age\" }]",
    );
    let refusal = refusal(&site, &description, || append(&site.records));
    assert!(refusal.contains("the table was changed while it was read"), "{refusal}");
}

#[test]
fn an_npz_file_that_changes_is_refused() {
    let site = Site::new("data.npz", "");
    let arrays = [("train_images", npy("|u1", &[2, 2, 2], &[7; 8])), ("train_labels", npy("|u1", &[2], &[0, 1]))];
    write_npz(&site.records, false, &arrays);
    let refusal = refusal(&site, &images(), || append(&site.records));
    assert!(refusal.contains("the npz file was changed while it was read"), "{refusal}");
}

#[test]
fn idx_files_that_change_are_refused() {
    let site = Site::new("", "");
    let (images_file, labels_file) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    let files = [(images_file, idx(&[2, 2, 2], &[7; 8])), (labels_file, idx(&[2], &[0, 1]))];
    // The labels have been read by then, and are others now.
    for (changed, bytes) in [(images_file, idx(&[2, 2, 2], &[8; 8])), (labels_file, idx(&[2], &[1, 0]))] {
        files.iter().for_each(|(name, bytes)| fs::write(site.path(name), bytes).unwrap());
        let refusal = refusal(&site, &images(), || fs::write(site.path(changed), &bytes).unwrap());
        assert!(refusal.contains(&format!("{changed} was changed while it was read")), "{refusal}");
    }
}
