//! What files of images hold, seen without a description, so that one can be suggested.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use fedledger_federation::{data_description::ImageDescription, decimal::Decimal};

use super::{Arrays, IdxFiles, ImageError, Npz, Of, PIXELS_MAX, Part, name_of};
use crate::table::{CLASSES_MAX, ImageFiles, OpenError, parse::ROWS_MAX};

/// Values that are looked at together.
const VALUES_AT_A_TIME: usize = 4096;

/// Smallest deviation that values are divided by; images with less are all but alike, and only centred.
const DEVIATION_MIN: f64 = 0.001;

/// What stands in files of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInspection {
    /// Images to train on.
    pub images: u64,
    /// Whether there are images to test on.
    pub has_test_images: bool,
    /// What they are. Mean and deviation are those of the values of all images to train on, to three places; the classes
    /// are one more than the largest label.
    pub description: ImageDescription,
}

/// Whether a file's name, or a folder, promises images.
pub fn holds_images(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    path.is_dir() || [".npz", "-ubyte", ".idx"].iter().any(|ending| name.ends_with(ending))
}

/// Looks at the images in an npz file, or in a folder of IDX files or beside one of them, whose arrays or files are called as
/// `files` says.
///
/// # Errors
///
/// [`OpenError`] names the file and what is wrong with it.
pub fn inspect_images(path: &Path, files: &ImageFiles) -> Result<ImageInspection, OpenError> {
    let inspected = || -> Result<ImageInspection, ImageError> {
        let is_npz = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
        let mut arrays: Box<dyn Arrays> =
            if is_npz { Box::new(Npz::open(File::open(path)?)?) } else { Box::new(IdxFiles::of(path)) };
        inspect(arrays.as_mut(), files)
    };
    inspected().map_err(|source| OpenError::Images { path: path.to_owned(), source })
}

fn inspect(arrays: &mut dyn Arrays, files: &ImageFiles) -> Result<ImageInspection, ImageError> {
    let missing = |name: &str| ImageError::MissingArray { name: name.to_owned() };
    let name = name_of(files, arrays, Part::Train, Of::Labels);
    let labels = arrays.array(name)?.ok_or_else(|| missing(name))?.whole_numbers(name)?;
    let largest = labels.iter().copied().max().unwrap_or_default();
    let classes = u32::try_from(largest).ok().and_then(|largest| largest.checked_add(1));
    let classes = classes.filter(|classes| *classes <= CLASSES_MAX);
    let classes = classes.ok_or_else(|| ImageError::Label(format!("{largest} is the largest label")))?.max(2);
    let has_test_images = arrays.array(name_of(files, arrays, Part::Test, Of::Labels))?.is_some();
    let name = name_of(files, arrays, Part::Train, Of::Images);
    let mut images = arrays.array(name)?.ok_or_else(|| missing(name))?;
    let [height, width, channels] = shape(name, &images.shape, labels.len() as u64)?;
    let values =
        [height, width, channels].into_iter().fold(labels.len() as u64, |all, side| all.saturating_mul(side.into()));
    if labels.len() > ROWS_MAX || values > PIXELS_MAX {
        return Err(ImageError::TooLarge);
    }
    let (mean, deviation) = moments(name, &mut *images.bytes, values)?;
    let deviation = if deviation < DEVIATION_MIN { 1.0 } else { deviation };
    let (mean, deviation) = (rounded(mean)?, rounded(deviation)?);
    let description = ImageDescription { height, width, channels, mean, deviation, classes, bad_rows_max: 0 };
    Ok(ImageInspection { images: labels.len() as u64, has_test_images, description })
}

/// Height, width and channels of so many images in an array of this shape.
fn shape(name: &str, found: &[u64], count: u64) -> Result<[u32; 3], ImageError> {
    let sides = match *found {
        [images, height, width] if images == count => Some([height, width, 1]),
        [images, height, width, channels] if images == count => Some([height, width, channels]),
        _ => None,
    };
    let side = |side: u64| u32::try_from(side).ok().filter(|side| *side > 0);
    let sides = sides.and_then(|[height, width, channels]| Some([side(height)?, side(width)?, side(channels)?]));
    sides.ok_or_else(|| ImageError::Shape {
        name: name.to_owned(),
        found: found.to_vec(),
        expected: format!("[{count}, height, width] or [{count}, height, width, channels], as many as labels"),
    })
}

/// To three places, of which none is superfluous.
fn rounded(number: f64) -> Result<Decimal, ImageError> {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').parse().map_err(|_| ImageError::Scale)
}

/// Mean and standard deviation of so many bytes, of which 255 is 1. The sums are whole numbers, and so exact.
fn moments(name: &str, bytes: &mut dyn Read, values: u64) -> Result<(f64, f64), ImageError> {
    let (mut sum, mut squares, mut left) = (0_u64, 0_u64, values);
    let mut buffer = [0; VALUES_AT_A_TIME];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(VALUES_AT_A_TIME);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        bytes.read_exact(piece).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImageError::Length { name: name.to_owned(), what: "ends too early" },
            _ => error.into(),
        })?;
        for byte in piece {
            sum += u64::from(*byte);
            squares += u64::from(*byte) * u64::from(*byte);
        }
        left -= wanted as u64;
    }
    let count = values.max(1) as f64;
    let mean = sum as f64 / count / 255.0;
    let variance = squares as f64 / count / (255.0 * 255.0) - mean * mean;
    Ok((mean, variance.max(0.0).sqrt()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// An IDX file of bytes.
    fn idx(shape: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, u8::try_from(shape.len()).unwrap()];
        file.extend(shape.iter().flat_map(|side| side.to_be_bytes()));
        file.extend(bytes);
        file
    }

    #[test]
    fn images_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| fs::write(folder.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte", idx(&[2, 1, 2], &[0, 255, 0, 255]));
        write("train-labels-idx1-ubyte", idx(&[2], &[4, 0]));
        let inspect = |path: &Path| inspect_images(path, &ImageFiles::default());
        let description = ImageDescription {
            height: 1,
            width: 2,
            channels: 1,
            mean: "0.5".parse().unwrap(),
            deviation: "0.5".parse().unwrap(),
            classes: 5,
            bad_rows_max: 0,
        };
        let expected = ImageInspection { images: 2, has_test_images: false, description };
        assert_eq!(inspect(folder.path()).unwrap(), expected);
        fs::rename(folder.path().join("train-labels-idx1-ubyte"), folder.path().join("classes.idx")).unwrap();
        assert!(inspect(folder.path()).is_err());
        let named = ImageFiles { train_labels: Some("classes.idx".to_owned()), ..ImageFiles::default() };
        assert_eq!(inspect_images(folder.path(), &named).unwrap(), expected);
        fs::rename(folder.path().join("classes.idx"), folder.path().join("train-labels-idx1-ubyte")).unwrap();

        write("train-images-idx3-ubyte", idx(&[2, 1, 2], &[7; 4]));
        let alike = inspect(folder.path()).unwrap().description;
        assert_eq!((alike.mean.as_str(), alike.deviation.as_str()), ("0.027", "1"), "they are only centred");
        write("train-images-idx3-ubyte", idx(&[2, 1, 2], &[0, 255, 0, 255]));
        assert!(holds_images(folder.path()) && holds_images(Path::new("a/t10k-images-idx3-ubyte.gz")));
        assert!(holds_images(Path::new("scans.NPZ")) && !holds_images(Path::new("a.csv")));

        for (name, wrong) in [
            ("train-images-idx3-ubyte", idx(&[2, 1, 2], &[0, 255, 0])),
            ("train-images-idx3-ubyte", idx(&[3, 1, 2], &[0; 6])),
            ("train-images-idx3-ubyte", idx(&[2, 0, 2], &[])),
            ("train-images-idx3-ubyte", idx(&[2, u32::MAX, u32::MAX], &[0])),
            ("train-labels-idx1-ubyte", idx(&[3], &[0, 1, 2])),
            ("train-labels-idx1-ubyte", vec![0, 0, 12, 1, 0, 0, 0, 1, 127, 0, 0, 0]),
        ] {
            let path = folder.path().join(name);
            let right = fs::read(&path).unwrap();
            fs::write(&path, wrong).unwrap();
            assert!(matches!(inspect(&path), Err(OpenError::Images { .. })), "{name}");
            fs::write(&path, right).unwrap();
        }
    }
}
