//! Rows of Apache Parquet files.
//!
//! Only the columns that are used are read, page by page. Numbers are turned into the shortest text that reads as the same
//! number, so that a table gives the same data set in either format. Pages may be uncompressed or compressed with Snappy,
//! which tells in advance how large they become: at most 2 GiB, by the format of their headers.

use std::{collections::BTreeSet, fmt::Write as _, fs::File, sync::Arc};

use parquet::{
    basic::{Compression, ConvertedType, Type as Physical},
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        reader::FileReader,
        serialized_reader::SerializedFileReader,
    },
    record::{Field, reader::RowIter},
    schema::types::{Type, TypePtr},
};

use super::{
    TableError,
    error::{Place, Position},
    lines::{COLUMNS_MAX, FIELD_BYTES_MAX},
    parse::ROWS_MAX,
    record::{Fields, Records},
};

/// Most bytes of a column in a row group.
const COLUMN_BYTES_MAX: i64 = 1 << 30;

/// The rows of a file, as text.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    header: Vec<String>,
    row: u64,
}

impl ParquetRows {
    /// Reads what the file says of its columns. Those that are not `wanted` are not looked at.
    pub(super) fn open(file: File, wanted: &BTreeSet<&str>) -> Result<Self, TableError> {
        let reader = SerializedFileReader::new(file)?;
        let metadata = reader.metadata().file_metadata();
        let columns = metadata.schema_descr().root_schema().get_fields();
        if columns.len() > COLUMNS_MAX {
            return Err(TableError::TooManyColumns { line: 1 });
        }
        if usize::try_from(metadata.num_rows()).map_or(true, |rows| rows > ROWS_MAX) {
            return Err(TableError::TooManyRows);
        }
        let used: Vec<TypePtr> =
            columns.iter().filter(|column| wanted.contains(column.name())).map(Arc::clone).collect();
        used.iter().try_for_each(check)?;
        for chunk in reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let column = chunk.column_path().parts().first();
            if column.is_some_and(|column| wanted.contains(column.as_str())) {
                check_chunk(chunk)?;
            }
        }
        let header = used.iter().map(|column| column.name().to_owned()).collect();
        let projection = Type::group_type_builder(metadata.schema_descr().name()).with_fields(used).build()?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection))?;
        Ok(Self { rows, header, row: 0 })
    }
}

impl Records for ParquetRows {
    fn header(&self) -> &[String] {
        &self.header
    }

    fn next(&mut self, fields: &mut Fields) -> Result<bool, TableError> {
        fields.clear();
        self.row += 1;
        let Some(row) = self.rows.next() else { return Ok(false) };
        let row = row?;
        for (name, field) in row.get_column_iter() {
            if let Field::Str(text) = field
                && text.len() > FIELD_BYTES_MAX
            {
                let place = Place { at: self.position(), column: fields.len() + 1, name: name.clone() };
                return Err(TableError::FieldTooLong { place });
            }
            push(fields, field);
        }
        Ok(true)
    }

    fn position(&self) -> Position {
        Position::Row(self.row)
    }
}

/// Whether a column holds what can be told as a number or a text.
fn check(column: &TypePtr) -> Result<(), TableError> {
    let refused = |found: String| Err(TableError::ColumnType { name: column.name().to_owned(), found });
    if !column.is_primitive() {
        return refused("lists or records".to_owned());
    }
    let (physical, converted) = (column.get_physical_type(), column.get_basic_info().converted_type());
    let info = column.get_basic_info();
    if info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED {
        return refused("lists".to_owned());
    }
    let is_plain = match physical {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => converted == ConvertedType::NONE,
        Physical::INT32 => matches!(
            converted,
            ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
        ),
        Physical::INT64 => {
            matches!(converted, ConvertedType::NONE | ConvertedType::INT_64 | ConvertedType::UINT_64)
        }
        Physical::BYTE_ARRAY => matches!(converted, ConvertedType::UTF8 | ConvertedType::ENUM),
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => false,
    };
    if is_plain { Ok(()) } else { refused(format!("{physical} ({converted})")) }
}

/// Whether a column of a row group can be read in bounded memory.
fn check_chunk(chunk: &ColumnChunkMetaData) -> Result<(), TableError> {
    let name = || chunk.column_path().string();
    match chunk.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY => {}
        found => return Err(TableError::Compression { name: name(), found: found.to_string() }),
    }
    if chunk.uncompressed_size() > COLUMN_BYTES_MAX {
        return Err(TableError::RowGroupTooLarge { name: name(), limit: COLUMN_BYTES_MAX });
    }
    Ok(())
}

/// Appends a field as text. Writing to a text cannot fail.
fn push(fields: &mut Fields, field: &Field) {
    match field {
        Field::Null => fields.push_absent(),
        Field::Str(text) => fields.push_with(|field| field.push_str(text)),
        number => fields.push_with(|field| {
            let written = match number {
                Field::Byte(value) => write!(field, "{value}"),
                Field::Short(value) => write!(field, "{value}"),
                Field::Int(value) => write!(field, "{value}"),
                Field::Long(value) => write!(field, "{value}"),
                Field::UByte(value) => write!(field, "{value}"),
                Field::UShort(value) => write!(field, "{value}"),
                Field::UInt(value) => write!(field, "{value}"),
                Field::ULong(value) => write!(field, "{value}"),
                Field::Float(value) => write!(field, "{value}"),
                Field::Double(value) => write!(field, "{value}"),
                // Truth values, and what was refused when the file was opened.
                other => write!(field, "{other}"),
            };
            written.ok();
        }),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{basic::GzipLevel, schema::types::SchemaDescriptor};

    use super::*;

    #[test]
    fn what_cannot_be_read_in_bounded_memory_is_refused() {
        let age = Type::primitive_type_builder("age", Physical::DOUBLE).build().unwrap();
        let root = Type::group_type_builder("records").with_fields(vec![Arc::new(age)]).build().unwrap();
        let column = SchemaDescriptor::new(Arc::new(root)).column(0);
        let chunk = |compression, bytes| {
            let builder = ColumnChunkMetaData::builder(Arc::clone(&column));
            let chunk = builder.set_compression(compression).set_total_uncompressed_size(bytes).build().unwrap();
            check_chunk(&chunk)
        };
        assert!(chunk(Compression::SNAPPY, COLUMN_BYTES_MAX).is_ok() && chunk(Compression::UNCOMPRESSED, 1).is_ok());
        let too_large = chunk(Compression::SNAPPY, COLUMN_BYTES_MAX + 1);
        assert!(matches!(too_large, Err(TableError::RowGroupTooLarge { name, .. }) if name == "age"));
        let packed = chunk(Compression::GZIP(GzipLevel::default()), 1).unwrap_err().to_string();
        assert!(packed.contains("GZIP") && packed.contains("save it with Snappy"), "{packed}");
    }
}
