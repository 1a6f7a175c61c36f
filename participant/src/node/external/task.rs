//! What a trainer is told: `configuration.json`.

use std::{path::Path, sync::Arc, time::Duration};

use fedledger_federation::{
    VersionId,
    architecture::{Architecture, ParameterShape},
    command::{FileRef, RoundKey},
    data_description::{DataDescription, ROWS_MAX, SkipReason},
    member::MemberId,
    plan::{ExternalTraining, Plan},
    seeds,
};
use fedledger_ledger::Digest;
use serde::Serialize;

use super::{
    data::Records,
    program::{Limits, Program},
    results::Allowed,
};

/// Name and version of the form of `configuration.json`.
pub const CONFIGURATION_SCHEMA: &str = "fedledger.trainer/1";

/// The weights that the program begins with, or evaluates.
pub const BASE_FILE: &str = "base.safetensors";
/// What it is told.
pub const CONFIGURATION_FILE: &str = "configuration.json";
/// The weights that it leaves behind.
pub const TRAINED_FILE: &str = "trained.safetensors";
/// The results that it leaves behind.
pub const RESULTS_FILE: &str = "metrics.json";
/// The numbers of the records that it trains and tests on.
pub const ROWS_FILE: &str = "rows.json";
/// The folder for its own local checkpoints.
pub const STATE_FOLDER: &str = "state";

/// Most examples that a version can be evaluated on.
const EVALUATED_MAX: u64 = 1 << 32;

/// What a plan asks of an external trainer, at one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSettings {
    /// The model.
    pub architecture: Architecture,
    /// The trainer's name, the digest that it must have, and what it is given.
    pub training: ExternalTraining,
    /// The plan's seed.
    pub seed: u64,
    /// The member's id.
    pub member: MemberId,
    /// Most examples that the plan can weigh.
    pub examples_max: u64,
    /// Most records that may be skipped because they cannot be read, if the plan says so.
    pub bad_rows_max: Option<u64>,
    /// The data that the plan requires of the member, if it does.
    pub data_manifest: Option<Digest>,
    /// Longest time of a run that the plan allows.
    pub time_max: Duration,
}

impl ExternalSettings {
    /// What `plan` asks of `member`'s trainer; none if it leaves the training to the built-in one.
    pub fn from_plan(plan: &Plan, member: &MemberId) -> Option<Self> {
        let training = plan.external_training.clone()?;
        let round = plan.participation.round_duration_ms;
        Some(Self {
            architecture: plan.architecture.clone(),
            time_max: Duration::from_millis(training.time_max_ms.map_or(round, |time| time.min(round))),
            training,
            seed: plan.seed,
            member: member.clone(),
            examples_max: plan.aggregation.example_scale,
            bad_rows_max: plan.data.as_ref().map(DataDescription::bad_rows_max),
            data_manifest: plan.requirements.data_manifests.get(member).copied(),
        })
    }

    /// Most records that may be skipped, also of a plan that does not say so: then as the ledger has it.
    pub fn bad_rows_allowed(&self) -> u64 {
        self.bad_rows_max.unwrap_or(ROWS_MAX)
    }
}

/// What a trainer is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion<'a> {
    /// An attempt at a round.
    Train {
        /// The attempt.
        key: &'a RoundKey,
        /// The version that is trained on.
        base: &'a VersionId,
    },
    /// A version's evaluation.
    Evaluate {
        /// The version.
        version: &'a VersionId,
    },
}

/// `configuration.json` but for the plan's own configuration.
#[derive(Serialize)]
struct Written<'a> {
    schema: &'static str,
    task: &'static str,
    member: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u64>,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
    data: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<&'static str>,
    schema_file: &'a Path,
    base: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trained: Option<&'static str>,
    metrics: &'static str,
    state: &'static str,
    tensors: Vec<WrittenTensor>,
    examples_max: u64,
    examples_min: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_rows_max: Option<u64>,
    skip_reasons: [&'static str; SkipReason::ALL.len()],
    threads: u32,
    time_max_ms: u64,
    resumption: bool,
}

#[derive(Serialize)]
struct WrittenTensor {
    name: String,
    shape: Vec<u64>,
}

/// A program, what it is asked to do, and with which records.
#[derive(Debug, Clone)]
pub struct Work {
    /// The program.
    pub program: Arc<Program>,
    /// What the plan asks of it.
    pub settings: ExternalSettings,
    /// What it may use: the site's limits, or the plan's where it allows less time.
    pub limits: Limits,
    /// The records.
    pub records: Records,
    /// Fewest examples of which the site lets an update leave.
    pub examples_min: u64,
}

impl Work {
    /// Of one run.
    pub fn new(program: &Arc<Program>, settings: &ExternalSettings, records: Records, examples_min: u64) -> Self {
        let limits = Limits { time: program.limits.time.min(settings.time_max), ..program.limits };
        let (program, settings) = (Arc::clone(program), settings.clone());
        Self { program, settings, limits, records, examples_min }
    }

    /// What may be reported of a training.
    pub fn allowed_of_training(&self) -> Allowed {
        let Self { program, settings, records, .. } = self;
        let rows = records.table.as_ref().map(|(table, _)| table.manifest.train_rows).or(program.examples);
        Allowed {
            examples_max: settings.examples_max,
            examples_min: self.examples_min,
            rows,
            bad_rows_max: settings.bad_rows_allowed(),
        }
    }

    /// What may be reported of an evaluation.
    pub fn allowed_of_evaluation(&self) -> Allowed {
        let rows = self.records.table.as_ref().map(|(table, _)| table.manifest.test_rows);
        let bad_rows_max = self.settings.bad_rows_allowed();
        // Without any, the program may still know examples of its own.
        Allowed { examples_max: EVALUATED_MAX, examples_min: 1, rows: rows.filter(|rows| *rows > 0), bad_rows_max }
    }
}

/// The text of `configuration.json`: whether the run goes on from an interrupted one, and the plan's configuration as the plan
/// spells it.
pub fn configuration(work: &Work, occasion: Occasion<'_>, resumption: bool) -> String {
    let Work { program, settings, limits, records, examples_min } = work;
    let tensor = |(name, shape): ParameterShape| WrittenTensor { name, shape };
    let (task, key, version) = match occasion {
        Occasion::Train { key, base } => ("train", Some(key), base),
        Occasion::Evaluate { version } => ("evaluate", None, version),
    };
    let seed = |key: &RoundKey| {
        Digest::from_bytes(seeds::training_seed(settings.seed, key.round, &settings.member)).to_string()
    };
    let written = Written {
        schema: CONFIGURATION_SCHEMA,
        task,
        member: &settings.member,
        plan: key.map(|key| key.plan.to_string()),
        round: key.map(|key| key.round),
        version: version.to_string(),
        seed: key.map(seed),
        data: &program.data,
        rows: records.table.as_ref().map(|_| ROWS_FILE),
        schema_file: &program.schema,
        base: BASE_FILE,
        trained: key.map(|_| TRAINED_FILE),
        metrics: RESULTS_FILE,
        state: STATE_FOLDER,
        tensors: settings.architecture.parameters().into_iter().map(tensor).collect(),
        examples_max: settings.examples_max,
        examples_min: *examples_min,
        bad_rows_max: settings.bad_rows_max,
        skip_reasons: SkipReason::ALL.map(SkipReason::name),
        threads: limits.threads,
        time_max_ms: u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX),
        resumption,
    };
    // Strings, numbers and paths of UTF-8, which `node.toml` makes sure of: nothing that cannot be written.
    let mut text = serde_json::to_string(&written).unwrap_or_else(|_| "{}".to_owned());
    // The plan's text is one JSON value, which was checked when the plan was proposed. Parsing it would change its numbers.
    text.pop();
    text.push_str(",\"configuration\":");
    text.push_str(&settings.training.configuration);
    text.push_str("}\n");
    text
}

/// What decides whether a folder belongs to a run: with anything else, the run begins anew.
pub fn identity(settings: &ExternalSettings, program: &Digest, base: &FileRef, data_manifest: &Digest) -> Digest {
    let configuration = Digest::of(settings.training.configuration.as_bytes());
    let parts = [program, &base.digest, data_manifest, &configuration];
    Digest::of_parts(&parts.map(|digest| digest.as_bytes().as_slice()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::node::external::program::tests::program;

    fn settings(configuration: &str) -> ExternalSettings {
        ExternalSettings {
            architecture: Architecture::logistic_regression(2),
            training: ExternalTraining {
                trainer: "test".to_owned(),
                program: None,
                configuration: configuration.to_owned(),
                time_max_ms: None,
            },
            seed: 42,
            member: "cleveland".to_owned(),
            examples_max: 1024,
            bad_rows_max: Some(7),
            data_manifest: None,
            time_max: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_trainer_is_told_what_it_needs() {
        let program = program(Path::new("/srv/heart"), "program = \"train.py\"\ncpus = 2");
        let settings = settings("{\"rate\": 0.100000000000000000001, \"epochs\": 3}");
        let key = RoundKey { plan: Digest::of(b"plan"), round: 3, attempt: 2 };
        let version = VersionId::of_manifest(Digest::of(b"base"));
        let records = Records { table: None, manifest: Digest::of(b"data") };
        let work = Work::new(&Arc::new(program), &settings, records, 50);
        let text = configuration(&work, Occasion::Train { key: &key, base: &version }, true);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&told["schema"], &told["task"]), (&CONFIGURATION_SCHEMA.into(), &"train".into()));
        assert_eq!(
            (&told["round"], &told["resumption"], &told["time_max_ms"]),
            (&3.into(), &true.into(), &60_000.into())
        );
        // The golden seed of the federation's own tests.
        assert_eq!(told["seed"], "e9051059390d9bb0048a22979c02a53308871652b2cc0f5bc5f69ea6972e50f4");
        assert_eq!((&told["bad_rows_max"], &told["examples_min"]), (&7.into(), &50.into()));
        assert!(told["skip_reasons"].as_array().unwrap().contains(&"not_a_number".into()), "{text}");
        assert!(told.get("rows").is_none(), "nobody knows the rows of its own data");
        assert_eq!((&told["data"], &told["threads"]), (&"/srv/heart/data.csv".into(), &2.into()));
        let tensors = r#"[{"name":"layer0.bias","shape":[1]},{"name":"layer0.weight","shape":[1,2]}]"#;
        assert_eq!(told["tensors"], serde_json::from_str::<Value>(tensors).unwrap());
        assert!(text.contains("0.100000000000000000001"), "the plan's numbers are given as they are: {text}");

        let text = configuration(&work, Occasion::Evaluate { version: &version }, false);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&told["task"], &told["configuration"]["epochs"]), (&"evaluate".into(), &3.into()));
        assert!(["seed", "trained", "round"].iter().all(|field| told.get(field).is_none()), "{text}");
    }

    #[test]
    fn a_run_is_another_one_with_other_inputs() {
        let file = |bytes: &[u8]| FileRef { digest: Digest::of(bytes), size: 1 };
        let of = |configuration: &str, program: &[u8], base: &[u8], data: &[u8]| {
            identity(&settings(configuration), &Digest::of(program), &file(base), &Digest::of(data))
        };
        let run = of("{}", b"program", b"base", b"data");
        assert_eq!(of("{}", b"program", b"base", b"data"), run);
        let others = [
            of("[]", b"program", b"base", b"data"),
            of("{}", b"other", b"base", b"data"),
            of("{}", b"program", b"other", b"data"),
            of("{}", b"program", b"base", b"other"),
        ];
        assert!(others.iter().all(|other| *other != run));
    }
}
