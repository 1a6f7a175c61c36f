//! Contributions: who sent what, how it compares with the others', and what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read},
};

use fedledger_ledger::Digest;
use serde::{Serialize, Serializer};

use super::{AuditError, as_numbers};
use crate::{
    Federation, VersionId,
    command::{Contribute, RoundKey},
    data_description::SkippedRows,
    history::{Source, SourceError},
    member::MemberId,
    records::{Participation, Phase, RoundRecord},
    tensors::{ReadError, Run, TensorLayout, UpdateReader},
};

/// Bytes of an update that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A contribution as `fedledger audit contributions` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContributionRow {
    /// Index of its entry.
    pub index: u64,
    /// The plan.
    pub plan: Digest,
    /// The round of the plan.
    pub round: u64,
    /// The attempt at the round.
    pub attempt: u64,
    /// Who contributed.
    pub member: MemberId,
    /// The version that was trained on.
    pub base: VersionId,
    /// Training examples behind it.
    pub examples: u64,
    /// SHA-256 of the update file.
    pub update: Digest,
    /// Size of the update file, in bytes.
    pub size: u64,
    /// Euclidean norm of the update; none where the file is not there or not readable.
    pub norm: Option<f64>,
    /// Cosine of the angle to the sum of the round's other aggregated updates, not weighted; none where one of both is
    /// not there or zero.
    pub cosine: Option<f64>,
    /// What became of it.
    pub verdict: Verdict,
    /// Digest of the program that trained, if it was not the built-in trainer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Digest>,
    /// The participant's own metrics of its training.
    pub metrics: BTreeMap<String, f64>,
    /// Records that the participant skipped because they cannot be read, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_rows: SkippedRows,
    /// Entries between the round's opening and the contribution. The ledger holds no time.
    pub lateness: u64,
    /// Index of the entry that let the update go, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<u64>,
    /// Always `valid`: an entry whose signature does not verify is never replayed.
    pub signature: &'static str,
}

/// What became of a contribution. Written as `aggregated`, `excluded:<code>`, `pending` or `not_used`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in a version.
    Aggregated,
    /// It was left out, for the reason of this code.
    Excluded(String),
    /// The round is still in progress.
    Pending,
    /// The round was given up.
    NotUsed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregated => f.write_str("aggregated"),
            Self::Excluded(code) => write!(f, "excluded:{code}"),
            Self::Pending => f.write_str("pending"),
            Self::NotUsed => f.write_str("not_used"),
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Verdict {
    fn of(round: &RoundRecord, member: &MemberId) -> Self {
        match &round.phase {
            Phase::Collecting => Self::Pending,
            Phase::Abandoned { .. } => Self::NotUsed,
            Phase::Closed { excluded, .. } | Phase::Completed { excluded, .. } if excluded.contains_key(member) => {
                Self::Excluded(excluded.get(member).cloned().unwrap_or_default())
            }
            Phase::Closed { .. } => Self::Pending,
            Phase::Completed { .. } => Self::Aggregated,
        }
    }

    /// Whether the update counts when others are compared with it.
    const fn counts(&self) -> bool {
        !matches!(self, Self::Excluded(_))
    }
}

/// Every contribution, in the order of the ledger.
///
/// Memory: the sum of one round's updates (two model sizes), whatever the number of contributions.
///
/// # Errors
///
/// [`AuditError::Source`] where a file cannot be read. Files that are missing or damaged only leave fields empty.
pub fn contributions<S: Source + ?Sized>(source: &S, state: &Federation) -> Result<Vec<ContributionRow>, AuditError> {
    let mut rows = Vec::new();
    for (key, round) in state.rounds().iter() {
        let Some(plan) = state.plans().get(&key.plan) else { continue };
        let mut round_rows: Vec<ContributionRow> = state
            .participations(key)
            .filter_map(|(member, participation)| match participation {
                Participation::Contributed { index, contribution, .. } => {
                    Some(row(key, round, member, *index, contribution))
                }
                Participation::Joined { .. } | Participation::Declined { .. } | Participation::Revoked { .. } => None,
            })
            .collect();
        compare(source, &plan.plan.update_layout()?, &mut round_rows)?;
        rows.append(&mut round_rows);
    }
    rows.sort_by_key(|row| row.index);
    Ok(rows)
}

fn row(
    key: &RoundKey,
    round: &RoundRecord,
    member: &MemberId,
    index: u64,
    contribution: &Contribute,
) -> ContributionRow {
    ContributionRow {
        index,
        plan: key.plan,
        round: key.round,
        attempt: key.attempt,
        member: member.clone(),
        base: contribution.base,
        examples: contribution.examples,
        update: contribution.update,
        size: contribution.size,
        norm: None,
        cosine: None,
        verdict: Verdict::of(round, member),
        trainer: contribution.trainer,
        metrics: as_numbers(&contribution.metrics),
        skipped_rows: contribution.skipped_rows.clone(),
        lateness: index.saturating_sub(round.opened_index),
        pruned: round.pruned_index,
        signature: "valid",
    }
}

/// Fills in norms and cosines of the contributions of one round.
fn compare<S: Source + ?Sized>(
    source: &S,
    layout: &TensorLayout,
    rows: &mut [ContributionRow],
) -> Result<(), SourceError> {
    // Two passes: whether an update is sound shows only at its end, and only sound ones may enter the sum.
    let mut sound = BTreeSet::new();
    for row in rows.iter_mut() {
        let mut square = 0.0;
        let complete = for_each_value(source, layout, &row.update, |_, value| square += value * value)?;
        if complete && square.is_finite() {
            row.norm = Some(square.sqrt());
            sound.insert(row.index);
        }
    }
    let counted: Vec<(u64, Digest)> = rows
        .iter()
        .filter(|row| row.verdict.counts() && sound.contains(&row.index))
        .map(|row| (row.index, row.update))
        .collect();
    if counted.is_empty() {
        return Ok(());
    }
    let mut sum = vec![0.0; layout.element_count()];
    for (_, update) in &counted {
        for_each_value(source, layout, update, |element, value| {
            if let Some(sum) = sum.get_mut(element) {
                *sum += value;
            }
        })?;
    }
    for row in rows.iter_mut().filter(|row| sound.contains(&row.index)) {
        let own = counted.iter().any(|(index, _)| *index == row.index);
        row.cosine = cosine(source, layout, row, &sum, own)?;
    }
    Ok(())
}

/// The cosine of the angle between an update and the sum of the others, of which `sum` is one with the update itself if
/// `own`.
fn cosine<S: Source + ?Sized>(
    source: &S,
    layout: &TensorLayout,
    row: &ContributionRow,
    sum: &[f64],
    own: bool,
) -> Result<Option<f64>, SourceError> {
    let (mut product, mut others_square) = (0.0, 0.0);
    for_each_value(source, layout, &row.update, |element, value| {
        let sum = sum.get(element).copied().unwrap_or_default();
        let others = if own { sum - value } else { sum };
        product += value * others;
        others_square += others * others;
    })?;
    let scale = row.norm.unwrap_or_default() * f64::sqrt(others_square);
    Ok((scale > 0.0 && scale.is_finite()).then(|| (product / scale).clamp(-1.0, 1.0)))
}

/// Shows every value of an update with its position; `false` where the file is missing, damaged or not of this layout.
fn for_each_value<S: Source + ?Sized>(
    source: &S,
    layout: &TensorLayout,
    update: &Digest,
    mut visit: impl FnMut(usize, f64),
) -> Result<bool, SourceError> {
    let Some(mut content) = source.blob(update)? else { return Ok(false) };
    let mut reader = UpdateReader::new(layout.clone());
    let mut values = Vec::new();
    let mut element = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let pushed = reader.push(chunk.get(..count).unwrap_or_default(), |run: Run<'_>| -> Result<(), ReadError> {
            values.clear();
            run.append_f32(&mut values);
            for value in &values {
                visit(element, f64::from(*value));
                element += 1;
            }
            Ok(())
        });
        if pushed.is_err() {
            return Ok(false);
        }
    }
    Ok(reader.finish().is_ok_and(|digest| digest == *update))
}
