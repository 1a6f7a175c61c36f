//! Files as other programs write them.

use std::{
    error::Error as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use fedledger_federation::data_description::DataDescription;
use fedledger_participant::table::{OpenError, SiteData, Table};
use parquet::{
    basic::Compression,
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type},
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::parser::parse_message_type,
};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A site's folder with its schema.
pub struct Site {
    pub folder: TempDir,
    /// Its records: a file of the folder, or the folder itself.
    pub records: PathBuf,
}

impl Site {
    pub fn new(records: &str, schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("schema.toml"), schema).unwrap();
        let records = folder.path().join(records);
        Self { folder, records }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn open(&self) -> SiteData {
        SiteData::open(&self.records, &self.path("schema.toml")).unwrap()
    }

    pub fn read(&self, description: &DataDescription) -> Result<Table, OpenError> {
        description.check().unwrap();
        self.open().read(Some(description))
    }

    /// Why the records cannot be read, with all causes.
    pub fn refusal(&self, description: &DataDescription) -> String {
        let error = self.read(description).unwrap_err();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}

/// A plan's description.
pub fn description(toml: &str) -> DataDescription {
    toml::from_str(toml).unwrap()
}

/// A column of a Parquet file; nothing where it is null.
pub enum Column {
    Bools(Vec<Option<bool>>),
    Ints(Vec<Option<i32>>),
    Longs(Vec<Option<i64>>),
    Floats(Vec<Option<f32>>),
    Doubles(Vec<Option<f64>>),
    Texts(Vec<Option<&'static str>>),
}

impl Column {
    fn write(&self, writer: &mut SerializedColumnWriter<'_>) {
        match self {
            Self::Bools(values) => write::<BoolType>(writer, values.clone()),
            Self::Ints(values) => write::<Int32Type>(writer, values.clone()),
            Self::Longs(values) => write::<Int64Type>(writer, values.clone()),
            Self::Floats(values) => write::<FloatType>(writer, values.clone()),
            Self::Doubles(values) => write::<DoubleType>(writer, values.clone()),
            Self::Texts(texts) => {
                let bytes = |text: Option<&str>| text.map(|text| ByteArray::from(text.as_bytes().to_vec()));
                write::<ByteArrayType>(writer, texts.iter().map(|text| bytes(*text)).collect());
            }
        }
    }
}

fn write<T: DataType>(writer: &mut SerializedColumnWriter<'_>, values: Vec<Option<T::T>>) {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&present, Some(&levels), None).unwrap();
}

/// Writes a Parquet file of several row groups; the columns are optional in its message.
pub fn write_parquet(path: &Path, message: &str, compression: Compression, row_groups: &[Vec<Column>]) {
    let message = Arc::new(parse_message_type(message).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file = SerializedFileWriter::new(File::create(path).unwrap(), message, properties).unwrap();
    for columns in row_groups {
        let mut group = file.next_row_group().unwrap();
        for column in columns {
            let mut writer = group.next_column().unwrap().unwrap();
            column.write(&mut writer);
            writer.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

/// An array as numpy writes it, version 1.
pub fn npy(kind: &str, shape: &[u64], bytes: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(bytes);
    array
}

/// Writes an npz file, as `numpy.savez` does, or compressed as `numpy.savez_compressed` does.
pub fn write_npz(path: &Path, compressed: bool, arrays: &[(&str, Vec<u8>)]) {
    let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let options = SimpleFileOptions::default().compression_method(method).large_file(true);
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    for (name, array) in arrays {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(array).unwrap();
    }
    archive.finish().unwrap();
}

/// An IDX file of unsigned bytes.
pub fn idx(shape: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, u8::try_from(shape.len()).unwrap()];
    file.extend(shape.iter().flat_map(|size| size.to_be_bytes()));
    file.extend(bytes);
    file
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
