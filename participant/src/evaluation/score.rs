//! From a model's outputs and the rows' labels to numbers.

use std::collections::BTreeMap;

use fedledger_federation::limits::LOSS_MILLIONTHS_MAX;
use serde::{Deserialize, Serialize};

use super::{
    EvaluationError, Outputs, area::Area, calibration::Calibration, confusion::Confusion, judged::Judged, millionths,
};
use crate::table::Groups;

/// A model's results on a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// On all rows.
    #[serde(flatten)]
    pub all: Scores,
    /// On the rows of each group that has any, by its name.
    pub groups: BTreeMap<String, Scores>,
}

/// Results on some rows. One is 1,000,000 millionths; all are rounded to the nearest.
///
/// Of two classes a row is predicted positive if the probability is above one half. Of several, the class with the highest
/// probability is predicted, and of equal ones the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scores {
    /// Rows evaluated.
    pub examples: u64,
    /// Rows of each class.
    pub class_examples: Vec<u64>,
    /// Rows predicted correctly.
    pub correct: u64,
    /// Share of rows predicted correctly, in millionths.
    pub accuracy_millionths: i64,
    /// Mean cross-entropy in nats, in millionths, at most
    /// [`LOSS_MILLIONTHS_MAX`](fedledger_federation::limits::LOSS_MILLIONTHS_MAX).
    pub loss_millionths: i64,
    /// Area under the receiver operating characteristic, in millionths: of two classes the share of pairs of a positive and a
    /// negative row in which the positive one is held more likely to be so, ties counting one half (Mann and Whitney 1947); of
    /// several the mean over classes of the area between the one and all others, by its probability. None unless there are rows
    /// of every class.
    pub auc_millionths: Option<i64>,
    /// The area's 95 % confidence interval, by the variance of DeLong, DeLong and Clarke-Pearson (1988) on the scale of the
    /// logit. Only of two classes, with two rows of each, and where neither the area nor its variance is at an end.
    pub auc_interval: Option<Interval>,
    /// Expected calibration error in 15 bins, in millionths: of two classes, of the probability to be positive (Naeini and
    /// others 2015); of several, of the probability of the predicted class (Guo and others 2017).
    pub calibration_error_millionths: i64,
    /// F1 score, in millionths: of the positive one of two classes; of several, the mean over those that rows are of or are
    /// taken for. None where no row is positive and none is taken for it.
    pub f1_millionths: Option<i64>,
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end, in millionths.
    pub low_millionths: i64,
    /// Its upper end, in millionths.
    pub high_millionths: i64,
}

/// Holds outputs against the labels of the same rows, on the whole and for each group.
///
/// Memory: 16 bytes for each row, and 8 more where there are several classes.
///
/// # Errors
///
/// [`EvaluationError`] if there is no row, the outputs are not those of these rows or not finite, or a label is no class of the
/// model.
pub fn score(outputs: &Outputs, labels: &[f32], groups: Option<&Groups>) -> Result<Evaluation, EvaluationError> {
    let judged = Judged::new(outputs, labels)?;
    let mut by_group = BTreeMap::new();
    if let Some(Groups { names, of_row }) = groups {
        for (group, name) in names.iter().enumerate() {
            let members = of_row.iter().take(labels.len()).enumerate();
            let members = members.filter(|(_, of_row)| usize::from(**of_row) == group).map(|(row, _)| row);
            if members.clone().next().is_some() {
                by_group.insert(name.clone(), scores(&judged, members));
            }
        }
    }
    Ok(Evaluation { all: scores(&judged, 0..labels.len()), groups: by_group })
}

/// Results on these rows, of which there is at least one.
fn scores(judged: &Judged<'_>, rows: impl Iterator<Item = usize> + Clone) -> Scores {
    let classes = judged.classes();
    let (mut confusion, mut calibration) = (Confusion::new(classes), Calibration::default());
    let (mut examples, mut loss) = (0u64, 0.0);
    for row in rows.clone() {
        let prediction = judged.predict(row);
        confusion.add(judged.label(row), prediction.class);
        calibration.add(prediction.probability, prediction.came_true);
        loss += prediction.loss;
        examples += 1;
    }
    let class_examples = confusion.labelled();
    let area = if classes == 2 { Area::of(rows_against(judged, rows.clone(), 1)) } else { None };
    let is_complete = class_examples.iter().all(|&examples| examples > 0);
    let auc_millionths = match &area {
        None if classes > 2 && is_complete => mean_area(judged, &rows),
        area => area.as_ref().map(Area::millionths),
    };
    let interval = area.and_then(|area| area.interval());
    Scores {
        examples,
        class_examples,
        correct: confusion.correct(),
        accuracy_millionths: millionths::ratio(confusion.correct().into(), examples.max(1).into()),
        loss_millionths: millionths::of(loss / examples as f64).min(LOSS_MILLIONTHS_MAX),
        auc_millionths,
        auc_interval: interval.map(|(low_millionths, high_millionths)| Interval { low_millionths, high_millionths }),
        calibration_error_millionths: millionths::of(calibration.error(examples)),
        f1_millionths: confusion.f1_millionths(),
    }
}

/// The mean over classes of the area between a class and all others.
fn mean_area(judged: &Judged<'_>, rows: &(impl Iterator<Item = usize> + Clone)) -> Option<i64> {
    let mut sum = 0.0;
    for class in 0..judged.classes() {
        sum += Area::of(rows_against(judged, rows.clone(), class))?.value();
    }
    Some(millionths::of(sum / judged.classes() as f64))
}

/// How likely each row is held to be of a class, on a scale of its own, and whether it is.
fn rows_against(judged: &Judged<'_>, rows: impl Iterator<Item = usize>, class: usize) -> Vec<(f64, bool)> {
    rows.map(|row| (judged.likelihood(row, class), judged.label(row) == class)).collect()
}

#[cfg(test)]
mod tests;
