//! What the core knows of the site's records, as each plan describes them.
//!
//! Reading takes time, so the core asks for it and goes on; it neither consents to a plan nor joins its rounds before it
//! knows what the records amount to. What could not be read is tried again every minute.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_federation::{
    VersionId,
    data_description::{DataDescription, SkippedRows},
    plan::Plan,
};
use fedledger_ledger::Digest;

use super::{Core, Output, Site};
use crate::{node::policy, table::Table};

/// What a site's records amount to as they are described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSummary {
    /// Values of an example.
    pub features: u64,
    /// Bytes of memory that each value takes.
    pub value_bytes: u64,
    /// Classes that a label may be of.
    pub classes: u32,
    /// Examples to train on.
    pub train_examples: u64,
    /// Examples to test on.
    pub test_examples: u64,
    /// Digest of the [`DataManifest`](crate::table::DataManifest); none of data that only a trainer of the site reads, of which
    /// each run takes a digest of its own.
    pub manifest: Option<Digest>,
    /// Records that were skipped because they cannot be read, by reason.
    pub skipped_rows: SkippedRows,
}

/// What is known of records that were read, or why they could not be.
pub type KnownData<'a> = Result<&'a DataSummary, &'a str>;

/// The records that a task needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRef {
    /// How the plan describes them; none if the site's schema does.
    pub description: Option<DataDescription>,
    /// Digest of their manifest when they were read first.
    pub manifest: Digest,
}

impl From<&Table> for DataSummary {
    fn from(table: &Table) -> Self {
        let manifest = &table.manifest;
        Self {
            features: manifest.feature_count,
            value_bytes: table.train.value_bytes(),
            classes: table.classes,
            train_examples: manifest.train_rows,
            test_examples: manifest.test_rows,
            manifest: Some(manifest.digest()),
            skipped_rows: manifest.skipped_rows.clone(),
        }
    }
}

impl DataSummary {
    /// Data of which only a trainer of the site knows more than how many `examples` there are, if even that was said.
    pub const fn of_trainer(examples: Option<u64>) -> Self {
        let train_examples = match examples {
            Some(examples) => examples,
            None => 0,
        };
        let skipped_rows = SkippedRows::new();
        Self { features: 0, classes: 0, train_examples, test_examples: 0, manifest: None, skipped_rows, value_bytes: 4 }
    }
}

impl DataRef {
    /// The records of a plan of which this is known; none if they are a trainer's own.
    pub(super) fn of(plan: &Plan, data: &DataSummary) -> Option<Self> {
        Some(Self { description: plan.data.clone(), manifest: data.manifest? })
    }
}

impl Site {
    /// What is known of the data that a plan's trainer has of its own, if it has some.
    pub fn trainer_data(&self, plan: &Plan) -> Option<&DataSummary> {
        let training = plan.external_training.as_ref()?;
        self.trainers.get(&training.trainer)?.own_data.as_ref()
    }
}

impl Core {
    /// What is known of the records that a plan is about; none while they are being read.
    pub(super) fn data_of(&self, plan: &Plan) -> Option<KnownData<'_>> {
        if let Some(own) = self.site.trainer_data(plan) {
            return Some(Ok(own));
        }
        let known = match &plan.data {
            None => Some(&self.site.own_data),
            Some(description) => self.data.get(&description.digest())?.as_ref(),
        };
        known.map(|data| data.as_ref().map_err(String::as_str))
    }

    /// The same for a version's plan.
    pub(super) fn data_of_version(&self, version: &VersionId) -> Option<KnownData<'_>> {
        let state = self.federation();
        let plan = state.versions().get(version).and_then(|record| state.plans().get(&record.manifest.plan));
        plan.map_or(Some(Err("the version is not known")), |record| self.data_of(&record.plan))
    }

    /// Records of some description were read, or could not be.
    pub(super) fn on_data(&mut self, description: Digest, data: Result<DataSummary, String>) {
        if let Some(known) = self.data.get_mut(&description).filter(|known| !matches!(known, Some(Ok(_)))) {
            *known = Some(data);
        }
    }

    /// Has records read again that could not be: a share of the network may have been away, or somebody has repaired them.
    pub(super) fn read_again(&mut self) {
        let unread: BTreeSet<Digest> =
            self.data.iter().filter(|(_, known)| matches!(known, Some(Err(_)))).map(|(digest, _)| *digest).collect();
        if unread.is_empty() {
            return;
        }
        let plans = self.federation().plans().iter().filter(|(_, record)| !record.status.is_over());
        let wanted: BTreeMap<Digest, DataDescription> = plans
            .filter_map(|(_, record)| record.plan.data.clone())
            .map(|description| (description.digest(), description))
            .filter(|(digest, _)| unread.contains(digest))
            .collect();
        self.outputs.extend(wanted.into_values().map(|description| Output::ReadData(Box::new(description))));
    }

    /// Asks for what is not known of records that plans need: those that this site has consented to, those that it may consent to
    /// by itself, and those whose versions it is to evaluate. For all others nothing is read, whoever proposes them.
    pub(super) fn decide_data(&mut self) {
        let (state, site) = (self.federation(), &self.site);
        let evaluated: BTreeSet<Digest> =
            self.evaluations.iter().filter_map(|version| Some(state.versions().get(version)?.manifest.plan)).collect();
        let needed = state.plans().iter().filter(|(id, record)| {
            let consented = || record.consents.contains_key(&site.member);
            let allowed = || {
                let known = policy::consented(state, &site.member);
                policy::objection_before_reading(site, &record.plan, self.operator(id), known).is_none()
            };
            evaluated.contains(id) || (!record.status.is_over() && (consented() || allowed()))
        });
        let read = needed.filter(|(_, record)| site.trainer_data(&record.plan).is_none());
        let described = read.filter_map(|(_, record)| record.plan.data.clone());
        let unknown: Vec<_> = described
            .map(|description| (description.digest(), description))
            .filter(|(digest, _)| !self.data.contains_key(digest))
            .collect();
        for (digest, description) in unknown {
            if self.data.insert(digest, None).is_none() {
                self.outputs.push(Output::ReadData(Box::new(description)));
            }
        }
    }
}
