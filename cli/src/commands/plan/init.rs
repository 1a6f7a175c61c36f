//! `fedledger plan init`: a plan for a table or for images, from the data themselves, for people to go on from.
//!
//! The plan says nothing of single records, only what form they have and which categories there are, the mean and deviation of
//! all pixels, and, rounded up, how many records there are: it is put before everybody. The schema says how the site's file is
//! written. What stands in the columns is shown on the screen, and written nowhere.

mod images;
mod table;
mod text;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fedledger_federation::{data_description::DataDescription, limits::NAME_LENGTH_MAX, plan::Plan};
use fedledger_ledger::Digest;
use fedledger_participant::table::{
    Column, DataManifest, LeftOut, Schema, SiteData, SuggestError, Suggestion, TableDescription, Wishes, holds_images,
    inspect_file, inspect_images, suggest,
};
use serde::Serialize;

use self::text::PlanDraft;
use crate::{
    context::{Context, read_text},
    error::{Exit, Failure, chain},
    output::write_file,
};

/// The form of the result as JSON.
const INIT_SCHEMA: &str = "fedledger.plan_init/1";

/// Name of the schema, which lies beside the plan.
const SCHEMA_FILE: &str = "schema.toml";

/// Endings of files that cannot be looked at without a schema.
const OTHER_FORMATS: [&str; 3] = ["parquet", "gz", "zip"];

/// How long a round with a table may take, in milliseconds.
const TABLE_ROUND_MS: u64 = 600_000;

/// The same with images.
const IMAGES_ROUND_MS: u64 = 3_600_000;

/// Arguments of `fedledger plan init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A site's data: a CSV file with the names of the columns in its first line; or images, in an npz file with arrays as
    /// those of MedMNIST, or in a folder with IDX files as those of MNIST
    #[arg(value_name = "DATA", default_value = "data.csv")]
    data: PathBuf,
    /// What its columns or arrays are, if that is described already [default: guessed, and written beside the plan]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Where to write the plan
    #[arg(long, value_name = "FILE", default_value = "plan.toml")]
    out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    /// The column of a table to predict [default: the one that is called label or target]
    #[arg(long, value_name = "COLUMN", conflicts_with = "schema")]
    label: Option<String>,
    /// Texts of that column that count as positive [default: the greater of two values]
    #[arg(long, value_name = "TEXT", value_delimiter = ',', conflicts_with = "schema")]
    positive: Vec<String>,
    /// Each text of that column is a class of its own [default: if there are several, and no numbers from 0 on]
    #[arg(long, conflicts_with_all = ["schema", "positive"])]
    classes: bool,
    /// The model [default: logistic_regression for tables, convolutional for images]
    #[arg(long, value_enum)]
    model: Option<Model>,
    /// Name of the plan [default: that of the file]
    #[arg(long)]
    name: Option<String>,
}

/// Models that the built-in trainer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// One linear layer: few records are enough, and it can be read.
    #[value(name = "logistic_regression")]
    LogisticRegression,
    /// A hidden layer, for what is not linear.
    #[value(name = "multilayer_perceptron")]
    MultilayerPerceptron,
    /// Convolutions and linear layers, for images.
    #[value(name = "convolutional")]
    Convolutional,
    /// Convolutions with shortcuts, for images: slower, and often better.
    #[value(name = "residual")]
    Residual,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    plan: &'a Path,
    /// None if it was there already.
    schema_file: Option<PathBuf>,
    id: Digest,
    name: &'a str,
    /// The column that is predicted; none of images, whose labels have no column.
    label: Option<&'a str>,
    classes: u32,
    features: u64,
    train_rows: u64,
    test_rows: u64,
    dropped_rows: u64,
    left_out: Vec<LeftOutColumn>,
    /// What was found in each column of a table; shown here, and written into no file.
    columns: Vec<FoundColumn>,
}

#[derive(Debug, Serialize)]
struct FoundColumn {
    column: String,
    found: String,
}

#[derive(Debug, Serialize)]
struct LeftOutColumn {
    column: String,
    reason: &'static str,
}

/// What is to be written, and what it was made from.
struct Draft {
    plan: String,
    schema_text: String,
    schema: Schema,
    manifest: DataManifest,
    /// The column that is predicted.
    label: Option<String>,
    left_out: Vec<LeftOutColumn>,
    columns: Vec<FoundColumn>,
}

/// What is known of a table before the plan is written.
struct TableDraft {
    schema: Schema,
    schema_text: String,
    description: TableDescription,
    left_out: Vec<(String, LeftOut)>,
    columns: Vec<FoundColumn>,
}

/// Writes a plan, and a schema where there is none.
pub(crate) fn run(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    check_format(&args.data)?;
    let folder = args.out.parent().unwrap_or(Path::new(""));
    let schema_file = args.schema.is_none().then(|| folder.join(SCHEMA_FILE));
    for file in [Some(&args.out), schema_file.as_ref()].into_iter().flatten() {
        if !args.force && file.exists() {
            let failure = Failure::new(Exit::Failed, format!("{} exists already", file.display()));
            return Err(failure.next("name another file with --out, or replace it with --force"));
        }
    }
    let progress = context.output.progress("reading the data");
    let draft = if holds_images(&args.data) { draft_for_images(args)? } else { draft_for_table(args)? };
    drop(progress);
    let plan = checked(&draft)?;
    if let Some(file) = &schema_file {
        write_file(file, draft.schema_text.as_bytes())?;
    }
    write_file(&args.out, draft.plan.as_bytes())?;
    let Draft { manifest, label, left_out, columns, .. } = draft;
    let written = Written {
        plan: &args.out,
        schema_file,
        id: plan.id(),
        name: &plan.name,
        label: label.as_deref(),
        classes: plan.architecture.classes(),
        features: manifest.feature_count,
        train_rows: manifest.train_rows,
        test_rows: manifest.test_rows,
        dropped_rows: manifest.dropped_rows,
        left_out,
        columns,
    };
    context.output.object(INIT_SCHEMA, &written, || written.text())
}

fn check_format(data: &Path) -> Result<(), Failure> {
    let ending = data.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if !OTHER_FORMATS.contains(&ending.as_str()) || holds_images(data) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{} is neither a text table nor images", data.display())).next(
        "`plan init` reads CSV tables, npz and IDX files; for other files write plan and schema.toml by hand (docs/files.md)",
    ))
}

fn draft_for_table(args: &InitArgs) -> Result<Draft, Failure> {
    let TableDraft { schema, schema_text, description, left_out, columns } = table_draft(args)?;
    let manifest = load(args, &schema, Some(&DataDescription::Table(description.clone())))?;
    let model = args.model.unwrap_or(Model::LogisticRegression);
    let label = &description.label;
    let classes = label.classes.is_some().then(|| label.class_count());
    let architecture = table::architecture(model, manifest.feature_count, classes, manifest.train_rows);
    let architecture = architecture.ok_or_else(|| {
        let failure = Failure::new(Exit::Usage, "this model is for images, and the data are a table");
        failure.next("choose logistic_regression or multilayer_perceptron")
    })?;
    let plan = PlanDraft {
        source: &args.data,
        name: &args.name(),
        records: "records",
        data: table::data(&description),
        architecture,
        optimizer: table::optimizer(model),
        rows: manifest.train_rows,
        round_duration_ms: TABLE_ROUND_MS,
    };
    let left_out = left_out.into_iter().map(|(column, why)| LeftOutColumn { column, reason: why.reason() });
    let (left_out, label) = (left_out.collect(), Some(label.column.clone()));
    Ok(Draft { plan: plan.text(), schema_text, schema, manifest, label, left_out, columns })
}

fn draft_for_images(args: &InitArgs) -> Result<Draft, Failure> {
    if args.label.is_some() || args.classes || !args.positive.is_empty() {
        let failure =
            Failure::new(Exit::Usage, "--label, --positive and --classes are for tables, and the data are images");
        return Err(failure.next("leave them out: the labels of images are numbers"));
    }
    let given = args.schema.as_deref().map(given_schema).transpose()?;
    let files = given.as_ref().and_then(|(schema, _)| schema.images.clone()).unwrap_or_default();
    let found = inspect_images(&args.data, &files).map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let (schema, schema_text) = match given {
        Some(given) => given,
        None => {
            let text = images::schema(&args.data, &found);
            (parsed(&text)?, text)
        }
    };
    let description = DataDescription::Images(found.description.clone());
    let manifest = load(args, &schema, Some(&description))?;
    let plan = PlanDraft {
        source: &args.data,
        name: &args.name(),
        records: "images",
        data: images::data(&found.description),
        architecture: images::architecture(
            args.model.unwrap_or(Model::Convolutional),
            &found.description,
            manifest.train_rows,
        ),
        optimizer: images::optimizer(),
        rows: manifest.train_rows,
        round_duration_ms: IMAGES_ROUND_MS,
    };
    let (left_out, columns) = (Vec::new(), Vec::new());
    Ok(Draft { plan: plan.text(), schema_text, schema, manifest, label: None, left_out, columns })
}

/// What the schema that was given says of the table, or what is guessed.
fn table_draft(args: &InitArgs) -> Result<TableDraft, Failure> {
    if let Some(file) = &args.schema {
        let (schema, schema_text) = given_schema(file)?;
        let description = schema.description().ok_or_else(|| {
            let failure = Failure::new(Exit::Failed, format!("{} describes no features and no label", file.display()));
            failure.next("leave --schema out to have them guessed, or describe them (docs/files.md)")
        })?;
        return Ok(TableDraft { schema, schema_text, description, left_out: Vec::new(), columns: Vec::new() });
    }
    let table = inspect_file(&args.data).map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let wishes = Wishes { label: args.label.as_deref(), positive: &args.positive, classes: args.classes };
    let Suggestion { schema, left_out } = suggest(&table, wishes).map_err(|error| unclear(args, &error))?;
    let schema_text = table::schema(&args.data, &schema);
    let description = schema.description().ok_or_else(|| Failure::new(Exit::Failed, "no features can be guessed"))?;
    let found = |column: &Column| FoundColumn { column: column.name.clone(), found: table::described(column) };
    let columns = table.columns.iter().map(found).collect();
    Ok(TableDraft { schema: parsed(&schema_text)?, schema_text, description, left_out, columns })
}

fn given_schema(file: &Path) -> Result<(Schema, String), Failure> {
    let text = read_text(file)?;
    let schema = Schema::from_toml(&text)
        .map_err(|error| Failure::because(Exit::Failed, format!("{} is no schema", file.display()), chain(&error)))?;
    Ok((schema, text))
}

/// Why no schema can be guessed, and what to say.
fn unclear(args: &InitArgs, error: &SuggestError) -> Failure {
    let what = format!("no schema can be guessed for {}", args.data.display());
    let failure = Failure::because(Exit::Failed, what, error);
    match error {
        SuggestError::NoLabel { .. } | SuggestError::UnknownLabel { .. } | SuggestError::OneClass { .. } => {
            failure.next("name the column to predict with --label COLUMN")
        }
        SuggestError::Classes { .. } | SuggestError::NotThere { .. } => {
            failure.next("name the texts that count as positive with --positive TEXT,TEXT")
        }
        SuggestError::NoRows | SuggestError::NoFeatures => {
            failure.next("write schema.toml by hand (docs/files.md) and name it with --schema FILE")
        }
    }
}

/// Reads the data as a node will, so that what is written works.
fn load(args: &InitArgs, schema: &Schema, description: Option<&DataDescription>) -> Result<DataManifest, Failure> {
    let folder = args.schema.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let data = SiteData::with_schema(&args.data, schema.clone(), folder);
    let manifest = data.read(description).map(|table| table.manifest);
    manifest.map_err(|error| Failure::because(Exit::Failed, "the data do not fit their schema", chain(&error)))
}

/// A plan's name from that of a file: small letters, digits and inner hyphens.
fn name_of(data: &Path) -> String {
    let stem = data.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_lowercase();
    let words = stem.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = words.collect::<Vec<_>>().join("-");
    name.truncate(NAME_LENGTH_MAX);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "plan".to_owned() } else { name.to_owned() }
}

/// The plan, if both texts are what `plan propose` and a node accept.
fn checked(draft: &Draft) -> Result<Plan, Failure> {
    let wrong = |why: String| Failure::because(Exit::Failed, "the plan is not valid", why);
    let plan: Plan = toml::from_str(&draft.plan).map_err(|error| wrong(error.to_string()))?;
    let next = "name it otherwise with --name, choose another --model, or change the data";
    plan.check().map_err(|error| wrong(error.to_string()).next(next))?;
    if parsed(&draft.schema_text)? == draft.schema {
        Ok(plan)
    } else {
        Err(Failure::new(Exit::Failed, "the schema cannot be written as text"))
    }
}

fn parsed(schema: &str) -> Result<Schema, Failure> {
    let schema = Schema::from_toml(schema);
    schema.map_err(|error| Failure::because(Exit::Failed, "the schema is not valid", chain(&error)))
}

impl InitArgs {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| name_of(&self.data))
    }
}

impl Written<'_> {
    fn text(&self) -> String {
        let mut lines = vec![format!("{}  plan {} with {} features", self.plan.display(), self.name, self.features)];
        let predicted = match self.label {
            Some(label) if self.classes == 2 => label.to_owned(),
            Some(label) => format!("{label}, of {} classes", self.classes),
            None => format!("{} classes", self.classes),
        };
        lines.extend(self.schema_file.iter().map(|file| format!("{}  predicts {predicted}", file.display())));
        lines.push(match self.label {
            Some(_) => format!(
                "{} rows to train on, {} to test on, {} left out because something is missing",
                self.train_rows, self.test_rows, self.dropped_rows
            ),
            None => format!("{} images to train on, {} to test on", self.train_rows, self.test_rows),
        });
        lines.extend(self.columns.iter().map(|column| format!("column {}: {}", column.column, column.found)));
        lines.extend(
            self.left_out.iter().map(|left_out| format!("column {} is left out: {}", left_out.column, left_out.reason)),
        );
        lines.push(
            "read both files, then try a round with `fedledger participant --check --dir DIR --plan FILE`".to_owned(),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_of_plans() {
        for (file, name) in [
            ("Heart Disease (2024).csv", "heart-disease-2024"),
            ("data/a.b.csv", "a-b"),
            ("___.csv", "plan"),
            ("", "plan"),
            ("é.csv", "plan"),
        ] {
            assert_eq!(name_of(Path::new(file)), name, "{file}");
        }
        let long = format!("{}-{}", "a".repeat(NAME_LENGTH_MAX - 1), "b".repeat(9));
        assert_eq!(name_of(Path::new(&long)), "a".repeat(NAME_LENGTH_MAX - 1));
    }
}
