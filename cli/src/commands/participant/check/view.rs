//! The result of a check, for people.

use fedledger_participant::{
    evaluation::MILLIONTHS,
    local_round::{LeavingTensor, Trained},
    memory::Megabytes,
};
use serde_json::Value;

use super::Check;
use crate::{
    names::short_digest,
    output::{Output, Table, list},
};

impl Check<'_> {
    /// What people read.
    pub fn text(&self, output: &Output) -> String {
        let round = self.round;
        let mut lines = vec![
            output.heading(&format!("round {} of plan {} ({}) at {}", round.round, self.name, round.plan, self.node)),
        ];
        lines.extend(self.training());
        lines.extend([
            String::new(),
            self.metrics(output),
            output.heading("would leave the building"),
            format!("update    {} bytes, SHA-256 {}", round.leaving.update.size, round.leaving.update.digest),
            tensors(output, &round.leaving.tensors),
        ]);
        lines.extend(round.leaving.consent_examples.map(|count| format!("consent   with {count} examples declared")));
        lines.push(format!("contribution\n{}", fields(&round.leaving.contribution)));
        lines.extend(
            round.leaving.evaluation.as_ref().map(|report| format!("report of every version\n{}", fields(report))),
        );
        lines.push(String::new());
        lines.extend(self.verdict(output));
        lines.push("nothing was sent or kept".to_owned());
        lines.join("\n")
    }

    /// What trained, what it says, and its memory.
    fn training(&self) -> Vec<String> {
        let round = self.round;
        let peak = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| Megabytes(bytes).to_string());
        let trained = |what: &str| {
            let (examples, ms, base) = (round.examples, round.duration_ms, short_digest(&round.base));
            format!("trained   {what} over {examples} records in {ms} ms, from the weights {base}")
        };
        match &round.training {
            Trained::BuiltIn(training) => vec![
                trained(&format!("{} steps", training.steps)),
                format!(
                    "loss      {:.6} in the first pass, {:.6} in the last",
                    training.loss_first, training.loss_last
                ),
                format!(
                    "memory    at most {} of this process, {} before the training; estimated {}, allowed {}",
                    peak(training.memory_peak_bytes),
                    peak(training.memory_before_bytes),
                    Megabytes(training.memory_estimate.total_bytes),
                    self.memory_max.map_or_else(|| "without limit".to_owned(), |max| Megabytes(max).to_string())
                ),
            ],
            Trained::External(training) => {
                let told = training.training_metrics.iter();
                let told = told.map(|(name, value)| format!("{name} {}", decimal(Some(value))));
                vec![
                    trained(&format!("by {:?}, program SHA-256 {},", training.trainer, training.program)),
                    format!("it says   {}", list(told)),
                    format!(
                        "memory    at most {} of all its processes, as far as it was seen; allowed {}",
                        peak(training.memory_peak_bytes),
                        Megabytes(training.memory_max_bytes)
                    ),
                ]
            }
        }
    }

    fn metrics(&self, output: &Output) -> String {
        let (Some(before), Some(after)) = (&self.round.before, &self.round.after) else {
            return match self.round.training {
                Trained::BuiltIn(_) => "no metrics: the schema keeps no records for testing\n".to_owned(),
                Trained::External(_) => "no metrics: the trainer does not evaluate\n".to_owned(),
            };
        };
        let mut table = Table::new(&["metric", "before", "after"]);
        for (name, value) in before {
            table.row(vec![name.clone(), decimal(Some(value)), decimal(after.get(name))]);
        }
        format!("{}(on {} records that are not trained on)\n", output.table(&table), self.round.test_examples)
    }

    fn verdict(&self, output: &Output) -> Vec<String> {
        let policy = &self.policy;
        let mut lines = Vec::new();
        match (&policy.declines, &policy.withholds_consent) {
            (Some(why), _) => lines.push(output.bad(&format!("the node would decline: {why}"))),
            (None, Some(why)) => lines.push(format!("the node would not consent by itself: {why}")),
            (None, None) => lines.push(output.good("the node would consent by itself")),
        }
        if !policy.ledger_read {
            lines.push("(no ledger was read: every model counts as one that the site has not consented to)".to_owned());
        }
        lines
    }
}

fn decimal(millionths: Option<&i64>) -> String {
    millionths.map_or_else(|| "-".to_owned(), |value| format!("{:.6}", *value as f64 / MILLIONTHS as f64))
}

fn tensors(output: &Output, tensors: &[LeavingTensor]) -> String {
    let mut table = Table::new(&["tensor", "shape", "type", "bytes", "norm", "largest"]);
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        table.row(vec![
            tensor.name.clone(),
            shape.join("x"),
            tensor.dtype.clone(),
            tensor.bytes.to_string(),
            format!("{:.6}", tensor.norm),
            format!("{:.6}", tensor.largest),
        ]);
    }
    output.table(&table)
}

/// The fields of a command, each on a line.
fn fields(command: &Value) -> String {
    let Value::Object(fields) = command else { return command.to_string() };
    let shown = fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("  {name:<14} {text}"),
        other => format!("  {name:<14} {other}"),
    });
    shown.collect::<Vec<_>>().join("\n")
}
