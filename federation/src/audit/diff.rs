//! How two versions differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{AuditError, GroupMeans, mean_groups, mean_metrics};
use crate::{
    Federation, Rejection, VersionId,
    history::{Source, SourceError},
    member::MemberId,
    records::VersionRecord,
    tensors::{FileError, Input, Tensor, read_tensors},
};

/// The change from one version to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VersionDiff {
    /// The version that is changed.
    pub from: VersionId,
    /// What it becomes.
    pub to: VersionId,
    /// The tensors of both, by name.
    pub tensors: Vec<TensorChange>,
    /// The metrics of both, by name.
    pub metrics: BTreeMap<String, MetricChange>,
    /// The same for the groups that hospitals report of both, or of one of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, BTreeMap<String, MetricChange>>,
    /// The contributors of both.
    pub contributors: ContributorChange,
}

/// How one tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorChange {
    /// Its name.
    pub tensor: String,
    /// Its shape; that of the newer version where they differ.
    pub shape: Vec<u64>,
    /// In which version it is.
    pub presence: TensorPresence,
    /// Euclidean norm of the difference; none unless both versions have it in the same shape.
    pub norm: Option<f64>,
    /// Largest absolute difference of one value.
    pub max_abs: Option<f64>,
    /// Norm of the difference over the norm of the older tensor; none where that is zero.
    pub relative: Option<f64>,
}

/// In which version a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorPresence {
    /// In both, with the same shape.
    Both,
    /// In both, with another shape.
    Reshaped,
    /// Only in the newer version.
    Added,
    /// Only in the older version.
    Removed,
}

/// How a metric differs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MetricChange {
    /// Mean in the older version, if it was reported.
    pub from: Option<f64>,
    /// Mean in the newer version, if it was reported.
    pub to: Option<f64>,
    /// Newer minus older.
    pub change: Option<f64>,
}

/// How the contributors differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContributorChange {
    /// In both.
    pub both: Vec<MemberId>,
    /// Only in the newer version.
    pub added: Vec<MemberId>,
    /// Only in the older version.
    pub removed: Vec<MemberId>,
}

/// Compares two versions. Memory: the weights of both, twice.
///
/// # Errors
///
/// [`AuditError`] where a version is unknown or its weights are missing or damaged.
pub fn diff<S: Source + ?Sized>(
    source: &S,
    state: &Federation,
    from: &VersionId,
    to: &VersionId,
) -> Result<VersionDiff, AuditError> {
    let (older, newer) = (weights(source, state, from)?, weights(source, state, to)?);
    let contributors = |id| -> Result<BTreeSet<MemberId>, AuditError> {
        Ok(record(state, id)?.manifest.contributions.iter().map(|entry| entry.member.clone()).collect())
    };
    let (before, after) = (contributors(from)?, contributors(to)?);
    Ok(VersionDiff {
        from: *from,
        to: *to,
        tensors: compare_tensors(older, newer),
        metrics: compare_metrics(state, from, to),
        groups: compare_groups(state, from, to),
        contributors: ContributorChange {
            both: before.intersection(&after).cloned().collect(),
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
        },
    })
}

fn record<'a>(state: &'a Federation, id: &VersionId) -> Result<&'a VersionRecord, Rejection> {
    state.versions().get(id).ok_or(Rejection::UnknownVersion(*id))
}

/// The weights of a version, checked against the ledger.
fn weights<S: Source + ?Sized>(source: &S, state: &Federation, id: &VersionId) -> Result<Vec<Tensor>, AuditError> {
    let VersionRecord { manifest, pruned, .. } = record(state, id)?;
    let file = manifest.weights().ok_or(AuditError::NoWeights(*id))?;
    let plan = state.plans().get(&manifest.plan).ok_or(Rejection::UnknownPlan(manifest.plan))?;
    let layout = plan.plan.architecture.layout()?;
    let content = source.blob(&file.digest)?;
    let content = content.ok_or(match pruned.files {
        Some(index) => AuditError::Pruned { version: *id, index },
        None => AuditError::MissingFile { version: *id, digest: file.digest },
    })?;
    // The plan's layout bounds what is read, whatever the ledger or the file says.
    read_tensors(Input { file, reader: content }, &layout).map_err(|error| match error {
        FileError::Io { source, .. } => SourceError::Io(source).into(),
        FileError::Damaged { file, found } => AuditError::Damaged { version: *id, expected: file, found },
        FileError::Content { source, .. } => AuditError::Weights { version: *id, source },
    })
}

fn compare_tensors(older: Vec<Tensor>, newer: Vec<Tensor>) -> Vec<TensorChange> {
    let by_name = |tensors: Vec<Tensor>| -> BTreeMap<String, Tensor> {
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect()
    };
    let (older, newer) = (by_name(older), by_name(newer));
    let names: BTreeSet<&String> = older.keys().chain(newer.keys()).collect();
    names.into_iter().filter_map(|name| compare_tensor(older.get(name), newer.get(name))).collect()
}

fn compare_tensor(older: Option<&Tensor>, newer: Option<&Tensor>) -> Option<TensorChange> {
    let presence = match (older, newer) {
        (Some(a), Some(b)) if a.shape == b.shape => TensorPresence::Both,
        (Some(_), Some(_)) => TensorPresence::Reshaped,
        (None, _) => TensorPresence::Added,
        (_, None) => TensorPresence::Removed,
    };
    let shown = newer.or(older)?;
    let mut change = TensorChange {
        tensor: shown.name.clone(),
        shape: shown.shape.clone(),
        presence,
        norm: None,
        max_abs: None,
        relative: None,
    };
    if let (TensorPresence::Both, Some(older), Some(newer)) = (presence, older, newer) {
        let (mut square, mut older_square, mut max_abs) = (0.0, 0.0, 0.0_f64);
        for (a, b) in older.values.iter().zip(&newer.values) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            square += (b - a) * (b - a);
            older_square += a * a;
            max_abs = max_abs.max((b - a).abs());
        }
        let norm = square.sqrt();
        change.norm = Some(norm);
        change.max_abs = Some(max_abs);
        change.relative = (older_square > 0.0).then(|| norm / older_square.sqrt());
    }
    Some(change)
}

fn compare_metrics(state: &Federation, from: &VersionId, to: &VersionId) -> BTreeMap<String, MetricChange> {
    let means = |id| mean_metrics(state.evaluations(id).map(|(_, evaluation)| evaluation));
    compare(&means(from), &means(to))
}

fn compare_groups(
    state: &Federation,
    from: &VersionId,
    to: &VersionId,
) -> BTreeMap<String, BTreeMap<String, MetricChange>> {
    let means = |id| mean_groups(state.evaluations(id).map(|(_, evaluation)| evaluation));
    let (older, newer) = (means(from), means(to));
    let names: BTreeSet<&String> = older.keys().chain(newer.keys()).collect();
    let metrics = |group: Option<&GroupMeans>| group.map(|group| group.metrics.clone()).unwrap_or_default();
    let change = |name: &String| (name.clone(), compare(&metrics(older.get(name)), &metrics(newer.get(name))));
    names.into_iter().map(change).collect()
}

fn compare(older: &BTreeMap<String, f64>, newer: &BTreeMap<String, f64>) -> BTreeMap<String, MetricChange> {
    let names: BTreeSet<&String> = older.keys().chain(newer.keys()).collect();
    let change = |name: &String| {
        let (from, to) = (older.get(name).copied(), newer.get(name).copied());
        let change = from.zip(to).map(|(from, to)| to - from);
        (name.clone(), MetricChange { from, to, change })
    };
    names.into_iter().map(change).collect()
}
