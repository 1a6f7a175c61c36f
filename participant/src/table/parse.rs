//! From lines to numbers: finds the schema's columns in the header and converts each row.

use std::{collections::BTreeMap, io::Read};

use super::{
    error::{Place, TableError, shortened},
    lines::{Fields, Lines},
    schema::{Feature, Missing, PositiveWhen, Schema, SchemaError, nearest},
};

/// Most rows of a table.
pub const ROWS_MAX: usize = 1 << 24;

/// Most feature values of a table: 1 GiB of 32-bit floats.
pub const CELLS_MAX: usize = 1 << 28;

/// All rows that count, in the order of the file.
#[derive(Default)]
pub(super) struct Parsed {
    /// Row-major; NaN stands for a missing value, which no field can spell.
    pub(super) features: Vec<f32>,
    pub(super) labels: Vec<f32>,
    /// Position of each row's group among the schema's; empty where it names none.
    pub(super) groups: Vec<u16>,
    pub(super) feature_names: Vec<String>,
    pub(super) group_names: Vec<String>,
    pub(super) dropped_rows: u64,
}

/// Reads the header and every row.
pub(super) fn parse(source: impl Read, schema: &Schema) -> Result<Parsed, TableError> {
    let delimiter = u8::try_from(schema.delimiter).map_err(|_| SchemaError::Delimiter(schema.delimiter))?;
    let mut lines = Lines::new(source, delimiter);
    let mut fields = Fields::default();
    if !lines.next(&mut fields)? || (fields.len() == 1 && fields.get(0).is_empty()) {
        return Err(TableError::Empty);
    }
    let reader = RowReader::new(schema, &fields)?;
    let group_names = schema.group.as_ref().map(|group| group.categories.clone()).unwrap_or_default();
    let mut parsed = Parsed { feature_names: schema.feature_names(), group_names, ..Parsed::default() };
    while lines.next(&mut fields)? {
        reader.read(lines.number(), &fields, &mut parsed)?;
    }
    Ok(parsed)
}

/// The schema, resolved to column indices.
struct RowReader<'a> {
    schema: &'a Schema,
    header: Vec<String>,
    filter: Option<(usize, &'a str)>,
    label: usize,
    label_threshold: f64,
    features: Vec<Input<'a>>,
    group: Option<(usize, BTreeMap<&'a str, u16>)>,
}

/// One feature and the index of its column.
struct Input<'a> {
    column: usize,
    kind: InputKind<'a>,
}

enum InputKind<'a> {
    Numeric,
    /// Position of each category among the feature's values, none for the one that is left out.
    OneHot {
        categories: BTreeMap<&'a str, Option<usize>>,
        width: usize,
    },
}

impl<'a> RowReader<'a> {
    fn new(schema: &'a Schema, header: &Fields) -> Result<Self, TableError> {
        let mut columns = BTreeMap::new();
        for (index, name) in header.iter().enumerate() {
            if columns.insert(name, index).is_some() {
                let place = Place { line: 1, column: index + 1, name: name.to_owned() };
                return Err(TableError::DuplicateColumn { place });
            }
        }
        let find =
            |name: &str| columns.get(name).copied().ok_or_else(|| TableError::MissingColumn { name: name.to_owned() });
        let filter = match &schema.row_filter {
            Some(filter) => Some((find(&filter.column)?, filter.equals.as_str())),
            None => None,
        };
        let label_threshold = match &schema.label.positive_when {
            PositiveWhen::GreaterThan(threshold) => nearest(threshold),
            PositiveWhen::Equals(_) => 0.0,
        };
        let features = schema
            .features
            .iter()
            .map(|feature| Ok(Input { column: find(feature.column())?, kind: InputKind::of(feature) }))
            .collect::<Result<Vec<_>, TableError>>()?;
        let group = match &schema.group {
            Some(group) => Some((find(&group.column)?, group.categories.iter().map(String::as_str).zip(0..).collect())),
            None => None,
        };
        let header = header.iter().map(str::to_owned).collect();
        Ok(Self { schema, header, filter, label: find(&schema.label.column)?, label_threshold, features, group })
    }

    /// Appends one row to `parsed`, or leaves it out as the schema says.
    fn read(&self, line: u64, fields: &Fields, parsed: &mut Parsed) -> Result<(), TableError> {
        let (expected, found) = (self.header.len(), fields.len());
        if found != expected {
            return Err(TableError::FieldCount { line, expected, found });
        }
        if self.filter.is_some_and(|(column, text)| fields.get(column) != text) {
            return Ok(());
        }
        let row_start = parsed.features.len();
        let mut complete = true;
        for input in &self.features {
            complete &= self.read_input(input, line, fields, &mut parsed.features)?;
        }
        let label = self.read_label(line, fields)?;
        let group = self.read_group(line, fields)?;
        match label {
            Some(label) if group != RowGroup::Missing && (complete || self.schema.missing == Missing::Mean) => {
                parsed.labels.push(label);
                parsed.groups.extend(group.position());
            }
            _ => {
                parsed.features.truncate(row_start);
                parsed.dropped_rows += 1;
            }
        }
        if parsed.labels.len() > ROWS_MAX || parsed.features.len() > CELLS_MAX {
            return Err(TableError::TooManyRows);
        }
        Ok(())
    }

    /// Appends the values of one feature; `false` if they are missing.
    fn read_input(
        &self,
        input: &Input<'_>,
        line: u64,
        fields: &Fields,
        values: &mut Vec<f32>,
    ) -> Result<bool, TableError> {
        let text = fields.get(input.column);
        if self.is_missing(text) {
            if self.schema.missing == Missing::Error {
                return Err(TableError::MissingValue { place: self.place(line, input.column) });
            }
            values.extend(std::iter::repeat_n(f32::NAN, input.kind.width()));
            return Ok(false);
        }
        match &input.kind {
            InputKind::Numeric => values.push(self.number(text, line, input.column)?),
            InputKind::OneHot { categories, width } => {
                let Some(position) = categories.get(text) else {
                    let place = self.place(line, input.column);
                    return Err(TableError::UnknownCategory { place, text: shortened(text) });
                };
                values.extend((0..*width).map(|index| if Some(index) == *position { 1.0 } else { 0.0 }));
            }
        }
        Ok(true)
    }

    /// The label, none if it is missing and its row may be left out.
    fn read_label(&self, line: u64, fields: &Fields) -> Result<Option<f32>, TableError> {
        let text = fields.get(self.label);
        if self.is_missing(text) {
            return match self.schema.missing {
                Missing::DropRow => Ok(None),
                Missing::Mean | Missing::Error => Err(TableError::MissingValue { place: self.place(line, self.label) }),
            };
        }
        let positive = match &self.schema.label.positive_when {
            PositiveWhen::GreaterThan(_) => f64::from(self.number(text, line, self.label)?) > self.label_threshold,
            PositiveWhen::Equals(texts) => texts.iter().any(|positive| positive == text),
        };
        Ok(Some(if positive { 1.0 } else { 0.0 }))
    }

    /// The group, which may be missing where a label may.
    fn read_group(&self, line: u64, fields: &Fields) -> Result<RowGroup, TableError> {
        let Some((column, positions)) = &self.group else { return Ok(RowGroup::None) };
        let text = fields.get(*column);
        match positions.get(text) {
            Some(position) => Ok(RowGroup::At(*position)),
            None if !self.is_missing(text) => {
                Err(TableError::UnknownCategory { place: self.place(line, *column), text: shortened(text) })
            }
            None if self.schema.missing == Missing::DropRow => Ok(RowGroup::Missing),
            None => Err(TableError::MissingValue { place: self.place(line, *column) }),
        }
    }

    fn number(&self, text: &str, line: u64, column: usize) -> Result<f32, TableError> {
        match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(TableError::NotFinite { place: self.place(line, column), text: shortened(text) }),
            Err(_) => Err(TableError::NotANumber { place: self.place(line, column), text: shortened(text) }),
        }
    }

    fn is_missing(&self, text: &str) -> bool {
        self.schema.missing_markers.iter().any(|marker| marker == text)
    }

    fn place(&self, line: u64, column: usize) -> Place {
        Place { line, column: column + 1, name: self.header.get(column).cloned().unwrap_or_default() }
    }
}

/// The group of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowGroup {
    /// The schema names no groups.
    None,
    /// The field says nothing.
    Missing,
    /// The group at this position among the schema's.
    At(u16),
}

impl RowGroup {
    const fn position(self) -> Option<u16> {
        match self {
            Self::At(position) => Some(position),
            Self::None | Self::Missing => None,
        }
    }
}

impl<'a> InputKind<'a> {
    fn of(feature: &'a Feature) -> Self {
        match feature {
            Feature::Numeric { .. } => Self::Numeric,
            Feature::OneHot { categories, drop_first, .. } => {
                let left_out = usize::from(*drop_first);
                let positions = (0..categories.len()).map(|index| index.checked_sub(left_out));
                let categories = categories.iter().map(String::as_str).zip(positions).collect();
                Self::OneHot { categories, width: feature.width() }
            }
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Numeric => 1,
            Self::OneHot { width, .. } => *width,
        }
    }
}
