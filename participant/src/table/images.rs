//! Images with labels, from arrays of bytes.
//!
//! The labels are read first: they tell which images count, and which of these are kept for testing. Then the images are
//! read one after the other, and only those that count are kept.

mod array;
mod error;
mod idx;
mod inspect;
mod npz;

use std::io;

use fedledger_federation::data_description::{ImageDescription, SkipReason, SkippedRows};
use fedledger_ledger::Digest;

use self::array::Array;
pub use self::{
    error::ImageError,
    inspect::{ImageInspection, holds_images, inspect_images},
};
pub(super) use self::{idx::IdxFiles, npz::Npz};
use super::{
    Dataset, PixelScale, RecordNumbers, TableError,
    schema::{ImageFiles, Split, nearest},
    skipped::Skipped,
    split,
};

/// Most bytes of all images to train on, or of all to test on.
pub const PIXELS_MAX: u64 = 1 << 30;

/// Images after which it is asked whether reading is to go on.
const IMAGES_AT_A_TIME: usize = 256;

/// Where arrays come from.
pub(super) trait Arrays {
    /// The array of a name; none if there is none.
    fn array(&mut self, name: &str) -> Result<Option<Array<'_>>, ImageError>;

    /// What MNIST or MedMNIST call a part.
    fn default_name(&self, part: Part, of: Of) -> &'static str;

    /// SHA-256 of the one file, or of the names and digests of all files that were read, if they are still what they were
    /// before.
    fn finish(&mut self) -> Result<Digest, ImageError>;
}

/// What images are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Test,
}

/// What an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Images,
    Labels,
}

/// Images to train and to test on.
pub(super) struct Images {
    pub(super) train: Dataset,
    pub(super) test: Dataset,
    pub(super) records: RecordNumbers,
    pub(super) skipped_rows: SkippedRows,
    pub(super) file: Digest,
}

/// How arrays become images.
pub(super) struct Reading<'a> {
    pub(super) description: &'a ImageDescription,
    pub(super) files: &'a ImageFiles,
    pub(super) split: &'a Split,
    pub(super) test_rows: Option<&'a [u64]>,
    /// Memory that the images may take while they are read, in bytes.
    pub(super) memory_max: Option<u64>,
    /// Whether reading is to go on.
    pub(super) goes_on: &'a dyn Fn() -> bool,
}

/// Images and labels in the making.
#[derive(Default)]
struct Collected {
    pixels: Vec<u8>,
    labels: Vec<f32>,
}

impl Reading<'_> {
    /// Reads the images of a site.
    pub(super) fn read(&self, arrays: &mut dyn Arrays) -> Result<Images, ImageError> {
        let mut skipped = Skipped::up_to(self.description.bad_rows_max);
        let labels = self.labels(arrays, Part::Train, &mut skipped)?.unwrap_or_default();
        let counted = labels.iter().flatten().count();
        let is_test = split::test_rows(counted, self.split, self.test_rows)?;
        let mut records = RecordNumbers::split(counting(&labels).zip(is_test.iter().copied()));
        let mut is_test = is_test.into_iter();
        let (mut train, mut test) = (Collected::default(), Collected::default());
        self.images(arrays, Part::Train, &labels, |label, image| {
            let kept = if is_test.next().unwrap_or_default() { &mut test } else { &mut train };
            kept.push(label, image)
        })?;
        if *self.split == Split::None
            && let Some(labels) = self.labels(arrays, Part::Test, &mut skipped)?
        {
            self.images(arrays, Part::Test, &labels, |label, image| test.push(label, image))?;
            records.test = counting(&labels).collect();
        }
        if train.labels.is_empty() {
            return Err(ImageError::NoTrainingImages);
        }
        let (train, test) = (self.dataset(train)?, self.dataset(test)?);
        Ok(Images { train, test, records, skipped_rows: skipped.counts(), file: arrays.finish()? })
    }

    /// The classes of a part's images, none for one that is skipped; nothing if test labels are neither there nor named.
    fn labels(
        &self,
        arrays: &mut dyn Arrays,
        part: Part,
        skipped: &mut Skipped,
    ) -> Result<Option<Vec<Option<f32>>>, ImageError> {
        let name = name_of(self.files, arrays, part, Of::Labels).to_owned();
        let is_optional = part == Part::Test && given_name(self.files, part, Of::Labels).is_none();
        let Some(array) = arrays.array(&name)? else {
            return if is_optional { Ok(None) } else { Err(ImageError::MissingArray { name }) };
        };
        let classes = i64::from(self.description.classes);
        let mut labels = Vec::new();
        for (index, label) in (0u64..).zip(array.whole_numbers(&name)?) {
            let class = Some(label).filter(|label| (0..classes).contains(label));
            if class.is_none() {
                let what = || format!("{name}, label {index}: {label} is no class from 0 to {}", classes - 1);
                if self.description.bad_rows_max == 0 {
                    return Err(ImageError::Label(what()));
                }
                skipped.note(SkipReason::UnknownLabel, what)?;
            }
            labels.push(class.map(|class| class as f32));
        }
        Ok(Some(labels))
    }

    /// Shows every image that counts, with the values of each channel together.
    fn images(
        &self,
        arrays: &mut dyn Arrays,
        part: Part,
        labels: &[Option<f32>],
        mut show: impl FnMut(f32, &[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let name = name_of(self.files, arrays, part, Of::Images).to_owned();
        let array = arrays.array(&name)?.ok_or_else(|| ImageError::MissingArray { name: name.clone() })?;
        // The bytes grow by doubling.
        let memory = (labels.len() as u64).saturating_mul(self.description.value_count()).saturating_mul(2);
        if let Some(allowed) = self.memory_max.filter(|allowed| memory > *allowed) {
            return Err(TableError::MemoryMax { allowed }.into());
        }
        let channels = self.description.channels as usize;
        let size = usize::try_from(self.description.value_count()).unwrap_or(usize::MAX);
        let mut bytes = array.images(&name, labels.len() as u64, self.description)?;
        let (mut image, mut by_channel) = (vec![0; size], Vec::with_capacity(size));
        for (number, label) in labels.iter().enumerate() {
            if number.is_multiple_of(IMAGES_AT_A_TIME) && !(self.goes_on)() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            bytes.read_exact(&mut image)?;
            let Some(label) = label else { continue };
            by_channel.clear();
            for channel in 0..channels {
                by_channel.extend(image.iter().skip(channel).step_by(channels));
            }
            show(*label, &by_channel)?;
        }
        bytes.end()
    }

    fn dataset(&self, collected: Collected) -> Result<Dataset, ImageError> {
        let ImageDescription { mean, deviation, .. } = self.description;
        let scale = PixelScale { mean: nearest(mean), deviation: nearest(deviation) };
        if scale.numbers().iter().any(|number| !number.is_finite()) {
            return Err(ImageError::Scale);
        }
        let columns = usize::try_from(self.description.value_count()).unwrap_or(usize::MAX);
        Ok(Dataset::of_images(collected.pixels, scale, collected.labels, columns)?)
    }
}

/// Positions of the labels that count.
fn counting(labels: &[Option<f32>]) -> impl Iterator<Item = u64> {
    (0u64..).zip(labels).filter_map(|(position, label)| label.is_some().then_some(position))
}

/// What an array is called.
fn name_of<'a>(files: &'a ImageFiles, arrays: &dyn Arrays, part: Part, of: Of) -> &'a str {
    given_name(files, part, of).unwrap_or_else(|| arrays.default_name(part, of))
}

fn given_name(files: &ImageFiles, part: Part, of: Of) -> Option<&str> {
    let ImageFiles { train_images, train_labels, test_images, test_labels } = files;
    match (part, of) {
        (Part::Train, Of::Images) => train_images.as_deref(),
        (Part::Train, Of::Labels) => train_labels.as_deref(),
        (Part::Test, Of::Images) => test_images.as_deref(),
        (Part::Test, Of::Labels) => test_labels.as_deref(),
    }
}

impl Collected {
    fn push(&mut self, label: f32, image: &[u8]) -> Result<(), ImageError> {
        if (self.pixels.len() as u64).saturating_add(image.len() as u64) > PIXELS_MAX {
            return Err(ImageError::TooLarge);
        }
        self.pixels.extend_from_slice(image);
        self.labels.push(label);
        Ok(())
    }
}
