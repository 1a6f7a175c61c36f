//! Small images in an npz file.

use std::{fs::File, io::Write as _, path::Path};

use zip::{ZipWriter, write::SimpleFileOptions};

const SIDE: u8 = 12;

/// Images with stripes that stand (class 0) or lie (class 1), and with noise, to train and to test on.
pub fn write(path: &Path, seed: u64) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    for (part, count) in [("train", 120), ("test", 40)] {
        let mut noise = seed + count;
        let pixels = (0..count).flat_map(|image| (0..SIDE).flat_map(move |y| (0..SIDE).map(move |x| (image, y, x))));
        let pixels = pixels.map(|(image, y, x)| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let along = if image % 2 == 0 { x } else { y };
            let bright = (along / 2 + (image / 2 % 2) as u8).is_multiple_of(2);
            (if bright { 150 } else { 50 }) + (noise >> 58) as u8
        });
        let shape = format!("({count}, {SIDE}, {SIDE})");
        array(&mut archive, &format!("{part}_images"), &shape, &pixels.collect::<Vec<u8>>());
        let labels: Vec<u8> = (0..count).map(|image| (image % 2) as u8).collect();
        array(&mut archive, &format!("{part}_labels"), &format!("({count},)"), &labels);
    }
    archive.finish().unwrap();
}

/// Bytes as numpy saves them.
fn array(archive: &mut ZipWriter<File>, name: &str, shape: &str, bytes: &[u8]) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
    archive.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
    archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
    archive.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
    archive.write_all(header.as_bytes()).unwrap();
    archive.write_all(bytes).unwrap();
}
