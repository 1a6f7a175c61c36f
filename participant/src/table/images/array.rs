//! Arrays of numbers: a shape, the kind of numbers, and the numbers one after the other.

use std::io::{self, Read};

use fedledger_federation::data_description::ImageDescription;

use super::{ImageError, PIXELS_MAX};
use crate::table::parse::ROWS_MAX;

/// Most dimensions of an array: images, rows, columns, channels.
pub(super) const DIMENSIONS_MAX: usize = 4;

/// An array whose header was read.
pub(in crate::table) struct Array<'a> {
    pub(super) shape: Vec<u64>,
    pub(super) element: Element,
    pub(super) bytes: Box<dyn Read + 'a>,
}

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// Bytes of a number: 1, 2, 4 or 8.
    pub(super) size: usize,
    pub(super) signed: bool,
    pub(super) big_endian: bool,
}

/// The bytes of an array, which must be neither more nor less than its header says.
pub(super) struct Bytes<'a> {
    name: String,
    source: Box<dyn Read + 'a>,
}

impl Element {
    /// The number; one beyond the largest 64-bit number becomes that.
    fn number(self, bytes: &[u8]) -> i64 {
        let append = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        let number = if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) };
        if !self.signed {
            return i64::try_from(number).unwrap_or(i64::MAX);
        }
        let unused = 64 - 8 * u32::try_from(self.size.clamp(1, 8)).unwrap_or(8);
        number.wrapping_shl(unused).cast_signed() >> unused
    }
}

impl<'a> Array<'a> {
    /// All numbers of an array of labels, `[n]` or `[n, 1]`.
    pub(super) fn whole_numbers(self, name: &str) -> Result<Vec<i64>, ImageError> {
        let &([count] | [count, 1]) = self.shape.as_slice() else {
            let expected = "[labels] or [labels, 1]".to_owned();
            return Err(ImageError::Shape { name: name.to_owned(), found: self.shape, expected });
        };
        if count > ROWS_MAX as u64 {
            return Err(ImageError::TooLarge);
        }
        let element = self.element;
        let mut bytes = Bytes { name: name.to_owned(), source: Box::new(io::BufReader::new(self.bytes)) };
        let mut numbers = Vec::new();
        let mut number = [0; 8];
        let number = number.get_mut(..element.size).unwrap_or_default();
        for _ in 0..count {
            bytes.read_exact(number)?;
            numbers.push(element.number(number));
        }
        bytes.end()?;
        Ok(numbers)
    }

    /// The bytes of `count` images: `[count, height, width]`, for one channel, or `[count, height, width, channels]`.
    pub(super) fn images(
        self,
        name: &str,
        count: u64,
        description: &ImageDescription,
    ) -> Result<Bytes<'a>, ImageError> {
        let ImageDescription { height, width, channels, .. } = *description;
        let [height, width, channels] = [height, width, channels].map(u64::from);
        let fits = match *self.shape.as_slice() {
            [images, rows, columns] => (images, rows, columns, 1) == (count, height, width, channels),
            [images, rows, columns, values] => (images, rows, columns, values) == (count, height, width, channels),
            _ => false,
        };
        if !fits {
            let expected = format!("[{count}, {height}, {width}, {channels}], as many as labels and as the plan says");
            return Err(ImageError::Shape { name: name.to_owned(), found: self.shape, expected });
        }
        if self.element.size != 1 || self.element.signed {
            let found = format!("{}-byte numbers", self.element.size);
            return Err(ImageError::Element { name: name.to_owned(), found, expected: "unsigned bytes" });
        }
        if count.saturating_mul(description.value_count()) > PIXELS_MAX {
            return Err(ImageError::TooLarge);
        }
        Ok(Bytes { name: name.to_owned(), source: Box::new(io::BufReader::new(self.bytes)) })
    }
}

impl Bytes<'_> {
    /// Fills `bytes`.
    pub(super) fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), ImageError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ImageError::Length { name: self.name.clone(), what: "ends too early" },
            _ => error.into(),
        })
    }

    /// Checks that nothing follows. At the end of a compressed file, its checksum is compared as well.
    pub(super) fn end(mut self) -> Result<(), ImageError> {
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(ImageError::Length { name: self.name, what: "goes on behind its end" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_are_read() {
        let number = |size, signed, big_endian, bytes: &[u8]| Element { size, signed, big_endian }.number(bytes);
        assert_eq!(number(1, false, false, &[255]), 255);
        assert_eq!(number(1, true, false, &[255]), -1);
        assert_eq!(number(2, false, false, &[1, 2]), 513);
        assert_eq!(number(2, false, true, &[1, 2]), 258);
        assert_eq!(number(4, true, true, &[0xff, 0xff, 0xff, 0xfe]), -2);
        assert_eq!(number(8, true, false, &[0xfd, 255, 255, 255, 255, 255, 255, 255]), -3);
        assert_eq!(number(8, false, false, &[255; 8]), i64::MAX);
    }
}
