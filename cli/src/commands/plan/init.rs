//! `fedledger plan init`: a plan for a table, from the table itself, for people to go on from.
//!
//! The plan says nothing of single records, only how many values a row has and, rounded up to a power of two, how many rows
//! there are: it is put before everybody. The schema stays at the site.

mod text;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fedledger_federation::{limits::NAME_LENGTH_MAX, plan::Plan};
use fedledger_ledger::Digest;
use fedledger_participant::table::{
    DataManifest, Schema, SiteData, SuggestError, Suggestion, Wishes, inspect_file, suggest,
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

/// Endings of files that are no text tables.
const OTHER_FORMATS: [&str; 5] = ["npz", "idx", "parquet", "gz", "zip"];

/// Arguments of `fedledger plan init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A site's table: CSV with the names of the columns in its first line
    #[arg(value_name = "DATA", default_value = "data.csv")]
    data: PathBuf,
    /// What its columns mean, if that is described already [default: guessed, and written beside the plan]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Where to write the plan
    #[arg(long, value_name = "FILE", default_value = "plan.toml")]
    out: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    /// The column to predict [default: the one that is called label or target]
    #[arg(long, value_name = "COLUMN", conflicts_with = "schema")]
    label: Option<String>,
    /// Texts of that column that count as positive [default: the greater of two values]
    #[arg(long, value_name = "TEXT", value_delimiter = ',', conflicts_with = "schema")]
    positive: Vec<String>,
    /// The model
    #[arg(long, value_enum, default_value_t)]
    model: Model,
    /// Name of the plan [default: that of the file]
    #[arg(long)]
    name: Option<String>,
}

/// Models for tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Model {
    /// One linear layer: few records are enough, and it can be read.
    #[default]
    #[value(name = "logistic_regression")]
    LogisticRegression,
    /// A hidden layer, for what is not linear.
    #[value(name = "multilayer_perceptron")]
    MultilayerPerceptron,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    plan: &'a Path,
    /// None if it was there already.
    schema_file: Option<PathBuf>,
    id: Digest,
    name: &'a str,
    label: &'a str,
    features: u64,
    train_rows: u64,
    test_rows: u64,
    dropped_rows: u64,
    left_out: Vec<LeftOutColumn<'a>>,
}

#[derive(Debug, Serialize)]
struct LeftOutColumn<'a> {
    column: &'a str,
    reason: &'static str,
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
    let progress = context.output.progress("reading the table");
    let (suggestion, schema_text) = schema(args)?;
    let manifest = load(&args.data, &suggestion.schema, args.schema.as_deref().and_then(Path::parent))?;
    drop(progress);
    let draft = draft(args, &manifest)?;
    let plan_text = draft.text();
    let plan = checked(&plan_text, &schema_text, &suggestion.schema)?;
    if let Some(file) = &schema_file {
        write_file(file, schema_text.as_bytes())?;
    }
    write_file(&args.out, plan_text.as_bytes())?;
    let left_out = suggestion.left_out.iter();
    let written = Written {
        plan: &args.out,
        schema_file,
        id: plan.id(),
        name: &plan.name,
        label: suggestion.schema.label.as_ref().map_or("", |label| &label.column),
        features: manifest.feature_count,
        train_rows: manifest.train_rows,
        test_rows: manifest.test_rows,
        dropped_rows: manifest.dropped_rows,
        left_out: left_out.map(|(column, why)| LeftOutColumn { column, reason: why.reason() }).collect(),
    };
    context.output.object(INIT_SCHEMA, &written, || written.text())
}

fn check_format(data: &Path) -> Result<(), Failure> {
    let ending = data.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if !OTHER_FORMATS.contains(&ending.as_str()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("{} is no text table", data.display()))
        .next("`plan init` reads CSV tables; for other files write plan and schema.toml by hand (docs/files.md)"))
}

/// The schema that was given, or one that is guessed, and its text.
fn schema(args: &InitArgs) -> Result<(Suggestion, String), Failure> {
    if let Some(file) = &args.schema {
        let text = read_text(file)?;
        let schema = Schema::from_toml(&text).map_err(|error| {
            Failure::because(Exit::Failed, format!("{} is no schema", file.display()), chain(&error))
        })?;
        return Ok((Suggestion { schema, left_out: Vec::new() }, text));
    }
    let table = inspect_file(&args.data).map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let wishes = Wishes { label: args.label.as_deref(), positive: &args.positive };
    let suggestion = suggest(&table, wishes).map_err(|error| unclear(args, &error))?;
    let text = text::schema(&args.data, &table, &suggestion);
    Ok((suggestion, text))
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

/// Reads the table as a node will, so that what is written works.
fn load(data: &Path, schema: &Schema, folder: Option<&Path>) -> Result<DataManifest, Failure> {
    let data = SiteData::with_schema(data, schema.clone(), folder.unwrap_or(Path::new("")));
    let manifest = data.read(None).map(|table| table.manifest);
    manifest.map_err(|error| Failure::because(Exit::Failed, "the table does not fit its schema", chain(&error)))
}

fn draft<'a>(args: &'a InitArgs, manifest: &DataManifest) -> Result<PlanDraft<'a>, Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.data),
    };
    let features = u32::try_from(manifest.feature_count)
        .map_err(|_| Failure::new(Exit::Failed, "the table has more columns than a model can have inputs"))?;
    Ok(PlanDraft { data: &args.data, name, model: args.model, features, rows: manifest.train_rows })
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
fn checked(plan: &str, schema: &str, expected: &Schema) -> Result<Plan, Failure> {
    let wrong = |what: &str, why: String| Failure::because(Exit::Failed, what, why);
    let plan: Plan = toml::from_str(plan).map_err(|error| wrong("the plan is not valid", error.to_string()))?;
    plan.check().map_err(|error| {
        wrong("the plan is not valid", error.to_string()).next("name it otherwise with --name, or change the table")
    })?;
    let schema = Schema::from_toml(schema).map_err(|error| wrong("the schema is not valid", chain(&error)))?;
    if schema == *expected { Ok(plan) } else { Err(Failure::new(Exit::Failed, "the schema cannot be written as text")) }
}

impl Written<'_> {
    fn text(&self) -> String {
        let mut lines = vec![format!("{}  plan {} with {} features", self.plan.display(), self.name, self.features)];
        lines.extend(self.schema_file.iter().map(|file| format!("{}  predicts {}", file.display(), self.label)));
        lines.push(format!(
            "{} rows to train on, {} to test on, {} left out because something is missing",
            self.train_rows, self.test_rows, self.dropped_rows
        ));
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
