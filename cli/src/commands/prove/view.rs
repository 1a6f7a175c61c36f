//! What a receipt shows, for people and as JSON.

use std::{fmt, path::Path};

use fedledger_federation::{
    history::SealView,
    subject::{Subject, record_as_json},
};
use fedledger_ledger::{
    Digest, PublicKey, leaf::Leaf, policy::Accepted, state_receipt::ShownAt, transaction::Envelope,
};
use serde::Serialize;
use serde_json::Value;

use super::check::digest;
use crate::{
    context::Context,
    error::{Exit, Failure},
    output::list,
    trust::Trust,
    utc::utc,
};

/// The form of the result as JSON.
const PROVE_SCHEMA: &str = "fedledger.prove/1";

/// What a receipt shows.
#[derive(Debug, Serialize)]
pub(crate) struct ProofView {
    ok: bool,
    file: String,
    /// What does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<ProvenEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<ProvenRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<ProvenHead>,
}

/// An entry that is in the log.
#[derive(Debug, Serialize)]
struct ProvenEntry {
    index: u64,
    /// SHA-256 of its bytes.
    digest: Digest,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<PublicKey>,
    /// Whose key it is, as the genesis file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// `accepted`, or the code of the rejection: then it changed nothing.
    outcome: String,
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<SealView>,
}

/// A record as a seal has fixed it.
#[derive(Debug, Serialize)]
struct ProvenRecord {
    /// What it is about, in words.
    statement: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Subject>,
    /// The record's key in hexadecimal digits.
    key: String,
    present: bool,
    /// The value, readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// SHA-256 of the value's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_digest: Option<Digest>,
    /// Index of the seal: the state is that after the entries before it.
    seal_index: u64,
    seal: SealView,
}

/// The head under which it stands.
#[derive(Debug, Serialize)]
struct ProvenHead {
    origin: String,
    size: u64,
    root: Digest,
    /// Median of the co-signatures' times: by then it was in the log.
    time_s: Option<u64>,
    cosigned_by: Vec<String>,
}

impl ProofView {
    /// The view of a file of which nothing is known yet.
    pub fn new(path: &Path) -> Self {
        Self { ok: false, file: path.display().to_string(), problem: None, entry: None, record: None, head: None }
    }

    /// The view of a file that does not hold.
    pub fn refused(self, problem: impl fmt::Display) -> Self {
        Self { ok: false, problem: Some(problem.to_string()), ..self }
    }

    /// Takes note of the head that was accepted.
    pub fn accept(&mut self, accepted: &Accepted) {
        self.ok = true;
        let checkpoint = &accepted.checkpoint;
        self.head = Some(ProvenHead {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.size(),
            root: *checkpoint.root(),
            time_s: accepted.time_s,
            cosigned_by: accepted.witnesses.iter().map(|witness| witness.name.to_string()).collect(),
        });
    }

    /// Shows an entry that was proven.
    pub fn show_entry(&mut self, index: u64, bytes: &[u8], trust: &Trust) {
        let (digest, leaf) = (digest(bytes), if index == 0 { None } else { Leaf::from_bytes(bytes).ok() });
        let transaction = leaf.as_ref().and_then(|leaf| Envelope::open_unverified(&leaf.envelope).ok());
        let author = transaction.as_ref().map(|transaction| transaction.author);
        let (member, node) = author.and_then(|author| trust.author(&author)).unzip();
        let kind = match &transaction {
            Some(transaction) => transaction.kind.clone(),
            None if index == 0 => "genesis".to_owned(),
            None => "unknown".to_owned(),
        };
        let outcome = leaf.as_ref().map(|leaf| leaf.outcome.clone());
        self.entry = Some(ProvenEntry {
            index,
            digest,
            kind,
            author,
            member,
            node: node.flatten(),
            outcome: outcome.as_ref().map_or("accepted", |outcome| outcome.code()).to_owned(),
            accepted: outcome.is_none_or(|outcome| outcome.is_accepted()),
            seal: leaf.and_then(|leaf| leaf.seal).map(SealView::of),
        });
    }

    /// Shows a record that was proven.
    pub fn show_record(&mut self, key: &[u8], value: Option<&[u8]>, shown: &ShownAt) {
        let subject = Subject::of_record_key(key);
        let present = value.is_some();
        let unknown = || format!("the record {}", if present { "is there" } else { "does not exist" });
        self.record = Some(ProvenRecord {
            statement: subject.as_ref().map_or_else(unknown, |subject| subject.statement(value)),
            subject,
            key: hex(key),
            present,
            value: value.and_then(record_as_json),
            value_digest: value.map(Digest::of),
            seal_index: shown.index,
            seal: SealView::of(shown.seal),
        });
    }

    fn text(&self, context: &Context) -> String {
        let output = &context.output;
        let mut lines = Vec::new();
        if let Some(entry) = &self.entry {
            lines.push(format!("entry       {}", entry.index));
            lines.push(format!("kind        {}", entry.kind));
            if let Some(author) = &entry.author {
                let who =
                    entry.node.as_ref().or(entry.member.as_ref()).map_or_else(String::new, |who| format!("{who}, "));
                lines.push(format!("author      {who}key {author}"));
            }
            lines.push(if entry.accepted {
                format!("outcome     {}", entry.outcome)
            } else {
                output.bad(&format!("outcome     REJECTED ({}): it changed nothing", entry.outcome))
            });
            lines.push(format!("sha256      {}", entry.digest));
        }
        if let Some(record) = &self.record {
            lines.push(format!("record      {}", record.statement));
            lines.extend(record.value.as_ref().map(|value| format!("value       {value}")));
            lines.push(format!("as of       seal {} at entry {}", record.seal.number, record.seal_index));
        }
        if let Some(head) = &self.head {
            lines.push(format!("log         {}, {} entries", head.origin, head.size));
            lines.push(format!("co-signed   {}", list(&head.cosigned_by)));
            lines.extend(head.time_s.map(|time_s| format!("in the log  by {}", utc(time_s))));
        }
        lines.push(match &self.problem {
            None => output.good("the proof holds"),
            Some(problem) => output.bad(&format!("the proof does NOT hold: {problem}")),
        });
        lines.join("\n")
    }
}

/// Prints what a receipt shows; a failure if it does not hold.
pub(crate) fn report(context: &Context, view: &ProofView) -> Result<(), Failure> {
    context.output.object(PROVE_SCHEMA, view, || view.text(context))?;
    match &view.problem {
        None => Ok(()),
        Some(problem) => Err(Failure::because(Exit::Mismatch, format!("{} proves nothing", view.file), problem)
            .next("ask whoever made it for another one, and keep this one as evidence")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
