//! From records to numbers: finds the described columns in the header and converts each record.

use std::{collections::BTreeMap, io};

use fedledger_federation::{
    data_description::{self, Feature, Group, Label, Missing, Normalize, PositiveWhen, SkippedRows, TableDescription},
    decimal::Decimal,
};

use super::{
    error::{Place, Position, TableError, shortened},
    record::{Fields, Records},
    schema::{Schema, nearest},
    skipped::Skipped,
};

/// Most rows of a table.
pub const ROWS_MAX: usize = data_description::ROWS_MAX as usize;

/// Most feature values of a table: 1 GiB of 32-bit floats.
pub const CELLS_MAX: usize = 1 << 28;

/// Records after which it is asked whether reading is to go on.
const RECORDS_AT_A_TIME: u64 = 1024;

/// All rows that count, in the order of the file.
#[derive(Default)]
pub(super) struct Parsed {
    /// Row-major; NaN stands for a missing value, which no field can spell.
    pub(super) features: Vec<f32>,
    pub(super) labels: Vec<f32>,
    /// Position of each row's group; empty where there are no groups.
    pub(super) groups: Vec<u16>,
    /// Number of each row's record in the file, from 0.
    pub(super) records: Vec<u64>,
    pub(super) dropped_rows: u64,
    pub(super) skipped_rows: SkippedRows,
}

/// Reads every record while `goes_on` says so.
pub(super) fn parse(
    records: &mut dyn Records,
    schema: &Schema,
    description: &TableDescription,
    memory_max: Option<u64>,
    goes_on: &dyn Fn() -> bool,
) -> Result<Parsed, TableError> {
    let reader = RowReader::new(schema, description, memory_max, records.header())?;
    let mut skipped = Skipped::up_to(description.bad_rows_max);
    let (mut parsed, mut fields) = (Parsed::default(), Fields::default());
    for number in 0u64.. {
        if number.is_multiple_of(RECORDS_AT_A_TIME) && !goes_on() {
            return Err(TableError::Io(io::ErrorKind::Interrupted.into()));
        }
        let read = match records.next(&mut fields) {
            Ok(false) => break,
            Ok(true) => reader.read(records.position(), &fields, &mut parsed),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            skipped.skip(error)?;
        }
        if parsed.labels.len() > parsed.records.len() {
            parsed.records.push(number);
        }
    }
    parsed.skipped_rows = skipped.counts();
    Ok(parsed)
}

/// What so many values take while they are read, in bytes: the rows in the order of the file grow by doubling, and are copied
/// into those to train and those to test on.
const fn memory_of(values: usize) -> u64 {
    (values as u64).saturating_mul(3 * size_of::<f32>() as u64)
}

/// The description, resolved to column indices.
struct RowReader<'a> {
    schema: &'a Schema,
    missing: &'a Missing,
    header: Vec<String>,
    filter: Option<(usize, &'a str)>,
    label: (usize, LabelKind<'a>),
    group: Option<(usize, BTreeMap<&'a str, u16>)>,
    features: Vec<Input<'a>>,
    memory_max: Option<u64>,
}

/// What the label's texts mean.
enum LabelKind<'a> {
    GreaterThan(f64),
    Equals(&'a [String]),
    Classes(BTreeMap<&'a str, f32>),
}

/// One feature and the index of its column.
struct Input<'a> {
    column: usize,
    kind: InputKind<'a>,
}

enum InputKind<'a> {
    Numeric {
        scale: Scale,
        /// What stands in for a missing value, before it is scaled.
        constant: Option<f64>,
    },
    /// Position of each category among the feature's values, none for the one that is left out.
    OneHot { categories: BTreeMap<&'a str, Option<usize>>, width: usize },
}

/// `(value - mean) / deviation`.
#[derive(Debug, Clone, Copy)]
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Scale {
    /// The scaled value; none if it is beyond the range of a 32-bit float.
    fn of(self, value: f64) -> Option<f32> {
        Some(((value - self.mean) / self.deviation) as f32).filter(|scaled| scaled.is_finite())
    }
}

impl<'a> RowReader<'a> {
    fn new(
        schema: &'a Schema,
        description: &'a TableDescription,
        memory_max: Option<u64>,
        header: &[String],
    ) -> Result<Self, TableError> {
        let columns = Columns::new(schema, header)?;
        let filter = match &schema.row_filter {
            Some(filter) => Some((columns.own(&filter.column)?, filter.equals.as_str())),
            None => None,
        };
        let group = match &description.group {
            Some(Group { column, categories }) => {
                Some((columns.described(column)?, categories.iter().map(String::as_str).zip(0..).collect()))
            }
            None => None,
        };
        let label = (columns.described(&description.label.column)?, LabelKind::of(&description.label));
        let input = |feature: &'a Feature| -> Result<_, TableError> {
            Ok(Input { column: columns.described(feature.column())?, kind: InputKind::of(feature, description) })
        };
        let features = description.features.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let missing = &description.missing;
        Ok(Self { schema, missing, header: header.to_vec(), filter, label, group, features, memory_max })
    }

    /// Appends one row to `parsed`, or leaves it out as the description says.
    fn read(&self, at: Position, fields: &Fields, parsed: &mut Parsed) -> Result<(), TableError> {
        if self.filter.is_some_and(|(column, text)| fields.get(column) != text) {
            return Ok(());
        }
        let row_start = parsed.features.len();
        let read = self.read_row(at, fields, &mut parsed.features);
        if let Ok(Some((label, group))) = read {
            parsed.labels.push(label);
            parsed.groups.extend(group);
        } else {
            parsed.features.truncate(row_start);
        }
        parsed.dropped_rows += u64::from(read?.is_none());
        if parsed.labels.len() > ROWS_MAX || parsed.features.len() > CELLS_MAX {
            return Err(TableError::TooManyRows);
        }
        match self.memory_max {
            Some(allowed) if memory_of(parsed.features.len()) > allowed => Err(TableError::MemoryMax { allowed }),
            _ => Ok(()),
        }
    }

    /// Appends the values of a row; returns its label and group, or none if the row is incomplete and dropped.
    fn read_row(
        &self,
        at: Position,
        fields: &Fields,
        values: &mut Vec<f32>,
    ) -> Result<Option<(f32, Option<u16>)>, TableError> {
        let mut complete = true;
        for input in &self.features {
            complete &= self.read_input(input, at, fields, values)?;
        }
        let drops = *self.missing == Missing::DropRow;
        let label = self.read_label(at, fields)?;
        let group = match &self.group {
            Some((column, _)) if self.is_missing(fields, *column) => {
                let missing = || TableError::MissingValue { place: self.place(at, *column) };
                return if drops { Ok(None) } else { Err(missing()) };
            }
            Some((column, groups)) => {
                let text = fields.get(*column);
                let unknown = || TableError::UnknownGroup { place: self.place(at, *column), text: shortened(text) };
                Some(groups.get(text).copied().ok_or_else(unknown)?)
            }
            None => None,
        };
        Ok(label.filter(|_| complete || !drops).map(|label| (label, group)))
    }

    /// Appends the values of one feature; `false` if they are missing.
    fn read_input(
        &self,
        input: &Input<'_>,
        at: Position,
        fields: &Fields,
        values: &mut Vec<f32>,
    ) -> Result<bool, TableError> {
        let (column, text) = (input.column, fields.get(input.column));
        let missing = self.is_missing(fields, column);
        match &input.kind {
            _ if missing && *self.missing == Missing::Error => {
                return Err(TableError::MissingValue { place: self.place(at, column) });
            }
            InputKind::Numeric { scale, constant } => {
                let number = match (missing, constant) {
                    (true, Some(constant)) => *constant,
                    (true, None) => {
                        values.push(f32::NAN);
                        return Ok(false);
                    }
                    (false, _) => self.number(text, at, column)?.into(),
                };
                let out_of_range = || TableError::NotFinite { place: self.place(at, column), text: shortened(text) };
                values.push(scale.of(number).ok_or_else(out_of_range)?);
            }
            InputKind::OneHot { width, .. } if missing => {
                let told = matches!(self.missing, Missing::Constant(_));
                values.extend(std::iter::repeat_n(if told { 0.0 } else { f32::NAN }, *width));
                return Ok(told);
            }
            InputKind::OneHot { categories, width } => {
                let Some(position) = categories.get(text) else {
                    let place = self.place(at, column);
                    return Err(TableError::UnknownCategory { place, text: shortened(text) });
                };
                values.extend((0..*width).map(|index| if Some(index) == *position { 1.0 } else { 0.0 }));
            }
        }
        Ok(true)
    }

    /// The label, none if it is missing and its row is to be left out.
    fn read_label(&self, at: Position, fields: &Fields) -> Result<Option<f32>, TableError> {
        let (column, kind) = &self.label;
        let (column, text) = (*column, fields.get(*column));
        if self.is_missing(fields, column) {
            return match self.missing {
                Missing::DropRow => Ok(None),
                Missing::Mean | Missing::Error | Missing::Constant(_) => {
                    Err(TableError::MissingLabel { place: self.place(at, column) })
                }
            };
        }
        let positive = match kind {
            LabelKind::GreaterThan(threshold) => f64::from(self.number(text, at, column)?) > *threshold,
            LabelKind::Equals(texts) => texts.iter().any(|positive| positive == text),
            LabelKind::Classes(classes) => {
                let unknown = || TableError::UnknownLabel { place: self.place(at, column), text: shortened(text) };
                return classes.get(text).copied().ok_or_else(unknown).map(Some);
            }
        };
        Ok(Some(if positive { 1.0 } else { 0.0 }))
    }

    fn number(&self, text: &str, at: Position, column: usize) -> Result<f32, TableError> {
        match text.parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(TableError::NotFinite { place: self.place(at, column), text: shortened(text) }),
            Err(_) => Err(TableError::NotANumber { place: self.place(at, column), text: shortened(text) }),
        }
    }

    fn is_missing(&self, fields: &Fields, column: usize) -> bool {
        let text = fields.get(column);
        fields.is_absent(column) || self.schema.missing_markers.iter().any(|marker| marker == text)
    }

    fn place(&self, at: Position, column: usize) -> Place {
        Place { at, column: column + 1, name: self.header.get(column).cloned().unwrap_or_default() }
    }
}

/// Where the columns of a file stand.
struct Columns<'a> {
    schema: &'a Schema,
    by_name: BTreeMap<&'a str, usize>,
}

impl<'a> Columns<'a> {
    fn new(schema: &'a Schema, header: &'a [String]) -> Result<Self, TableError> {
        let mut by_name = BTreeMap::new();
        for (index, name) in header.iter().enumerate() {
            if by_name.insert(name.as_str(), index).is_some() {
                let place = Place { at: Position::Line(1), column: index + 1, name: name.to_owned() };
                return Err(TableError::DuplicateColumn { place });
            }
        }
        Ok(Self { schema, by_name })
    }

    /// A column as the file calls it.
    fn own(&self, name: &str) -> Result<usize, TableError> {
        self.by_name.get(name).copied().ok_or_else(|| TableError::MissingColumn { name: name.to_owned() })
    }

    /// A column as the description calls it.
    fn described(&self, name: &str) -> Result<usize, TableError> {
        self.own(self.schema.own_name(name))
    }
}

impl<'a> LabelKind<'a> {
    /// A label that was checked has one of both; the classes of one that has neither are none.
    fn of(label: &'a Label) -> Self {
        match &label.positive_when {
            Some(PositiveWhen::GreaterThan(threshold)) => Self::GreaterThan(nearest(threshold)),
            Some(PositiveWhen::Equals(texts)) => Self::Equals(texts),
            None => {
                let classes = label.classes.iter().flatten().enumerate();
                Self::Classes(classes.map(|(number, text)| (text.as_str(), number as f32)).collect())
            }
        }
    }
}

impl<'a> InputKind<'a> {
    fn of(feature: &'a Feature, description: &TableDescription) -> Self {
        match feature {
            Feature::Numeric { column } => {
                let scaling = match &description.normalize {
                    Normalize::Plan(scalings) => scalings.get(column),
                    Normalize::Site | Normalize::None => None,
                };
                let value = |decimal: &Decimal| nearest(decimal);
                let scale = scaling.map_or(Scale { mean: 0.0, deviation: 1.0 }, |scaling| Scale {
                    mean: value(&scaling.mean),
                    deviation: value(&scaling.deviation),
                });
                let constant = match &description.missing {
                    Missing::Constant(constant) => Some(value(constant)),
                    Missing::DropRow | Missing::Mean | Missing::Error => None,
                };
                Self::Numeric { scale, constant }
            }
            Feature::OneHot { categories, drop_first, .. } => {
                let left_out = usize::from(*drop_first);
                let positions = (0..categories.len()).map(|index| index.checked_sub(left_out));
                let categories = categories.iter().map(String::as_str).zip(positions).collect();
                Self::OneHot { categories, width: feature.width() }
            }
        }
    }
}
