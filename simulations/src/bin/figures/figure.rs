//! A measured figure beside its target, as a table and as JSON.

use std::{
    fmt, fs,
    thread::available_parallelism,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// The form of the output as JSON.
const SCHEMA: &str = "fedledger.figures/1";

/// Something that was measured.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// The row that asks for it.
    pub row: &'static str,
    pub what: String,
    pub measured: f64,
    pub unit: &'static str,
    /// What it must reach, if anything.
    pub must: Option<f64>,
    /// Where it is to be some day.
    pub aim: Option<f64>,
    pub better: Better,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Lower,
    Higher,
}

/// Where and when the figures were taken: they mean little without.
#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    /// Programs that wanted to run in the last minute, on average; nothing where the system does not say.
    load: Option<f64>,
    profile: &'static str,
    /// Seconds since the Unix epoch.
    time_s: u64,
}

impl Figure {
    pub fn lower(row: &'static str, what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { row, what: what.into(), measured, unit, must: None, aim: None, better: Better::Lower }
    }

    pub fn higher(row: &'static str, what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { better: Better::Higher, ..Self::lower(row, what, measured, unit) }
    }

    pub fn target(self, must: f64, aim: f64) -> Self {
        Self { must: Some(must), aim: Some(aim), ..self }
    }

    /// Whether it is not what it must be.
    pub fn misses(&self) -> bool {
        self.must.is_some_and(|must| !self.reaches(must))
    }

    fn reaches(&self, target: f64) -> bool {
        match self.better {
            Better::Lower => self.measured <= target,
            Better::Higher => self.measured >= target,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.must, self.aim) {
            _ if self.misses() => "NOT ok",
            (_, Some(aim)) if self.reaches(aim) => "ok, aim reached",
            (Some(_), _) => "ok",
            (None, _) => "",
        }
    }
}

impl Machine {
    pub fn now() -> Self {
        let load = fs::read_to_string("/proc/loadavg").ok();
        let load = load.as_deref().and_then(|load| load.split_whitespace().next()).and_then(|load| load.parse().ok());
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self { cores: available_parallelism().map_or(1, usize::from), load, profile, time_s }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores, profile {}", self.cores, self.profile)?;
        match self.load {
            Some(load) => write!(f, ", load average before the first measurement {load}"),
            None => Ok(()),
        }
    }
}

/// Prints a table.
pub fn print(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or_default();
    println!("{:<9}  {:<width$}  {:>10}  {:>10}  {:>10}  {:<5}", "row", "figure", "measured", "must", "aim", "unit");
    for figure in figures {
        let Figure { row, what, unit, .. } = figure;
        let (must, aim) = (target(figure.must), target(figure.aim));
        let (measured, verdict) = (number(figure.measured), figure.verdict());
        println!("{row:<9}  {what:<width$}  {measured:>10}  {must:>10}  {aim:>10}  {unit:<5}  {verdict}");
    }
}

/// One JSON value.
pub fn json(machine: &Machine, figures: &[Figure]) -> serde_json::Value {
    let figures: Vec<_> = figures
        .iter()
        .map(|figure| {
            let mut value = serde_json::json!(figure);
            value["ok"] = figure.must.map(|_| !figure.misses()).into();
            value
        })
        .collect();
    serde_json::json!({ "schema": SCHEMA, "machine": machine, "figures": figures })
}

fn target(target: Option<f64>) -> String {
    target.map_or_else(|| "-".to_owned(), number)
}

/// Three significant digits are as much as a measurement is good for.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.1 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
