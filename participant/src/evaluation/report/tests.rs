use fedledger_ledger::Digest;
use proptest::prelude::*;

use super::{super::Interval, *};

fn version() -> VersionId {
    VersionId::of_manifest(Digest::of(b"a version"))
}

/// Scores of so many negative and positive rows.
fn scores(negatives: u64, positives: u64) -> Scores {
    Scores {
        examples: negatives + positives,
        class_examples: vec![negatives, positives],
        correct: 0,
        accuracy_millionths: 1,
        loss_millionths: 2,
        auc_millionths: Some(3),
        auc_interval: Some(Interval { low_millionths: 0, high_millionths: 4 }),
        calibration_error_millionths: 5,
        f1_millionths: Some(6),
    }
}

/// An evaluation of groups with so many negative and positive rows.
fn evaluation(groups: &[(&str, u64, u64)]) -> Evaluation {
    let sum = |count: fn(&(&str, u64, u64)) -> u64| groups.iter().map(count).sum();
    let all = scores(sum(|group| group.1), sum(|group| group.2));
    let group = |(name, negatives, positives): &(&str, u64, u64)| ((*name).to_owned(), scores(*negatives, *positives));
    Evaluation { all, groups: groups.iter().map(group).collect() }
}

const BY_ROW: [&str; 1] = ["loss"];
const ALL: [&str; 7] = ["accuracy", "auc", "auc_high", "auc_low", "calibration_error", "f1", "loss"];

fn names(metrics: &Metrics) -> Vec<&str> {
    metrics.keys().map(String::as_str).collect()
}

/// The groups that are reported, and those of them that are reported with what follows from counts by class.
fn reported(groups: &[(&str, u64, u64)], below: u64) -> (Vec<String>, Vec<String>) {
    let report = report(version(), Some(&evaluation(groups)), below);
    let with_classes = report.groups.iter().filter(|(_, group)| {
        assert!(names(&group.metrics) == ALL || names(&group.metrics) == BY_ROW, "{group:?}");
        group.metrics.contains_key("auc")
    });
    (report.groups.keys().cloned().collect(), with_classes.map(|(name, _)| name.clone()).collect())
}

#[test]
fn fewer_rows_than_the_policy_wants_are_nothing_to_report() {
    for (below, examples) in [(0, 9), (9, 9), (10, 0)] {
        let found = report(version(), Some(&evaluation(&[("a", 4, 5)])), below);
        assert_eq!(
            (found.examples, found.metrics.is_empty(), found.groups.is_empty()),
            (examples, examples == 0, examples == 0)
        );
    }
    let none = report(version(), None, 0);
    assert_eq!((none.examples, none.metrics.len(), none.groups.len()), (0, 0, 0));
}

#[test]
fn what_a_program_reports_of_few_rows_stays_at_home() {
    let metrics = Metrics::from([("auc".to_owned(), 900_000)]);
    let enough = report_of_program(version(), 10, &metrics, 10);
    assert_eq!((enough.examples, &enough.metrics), (10, &metrics));
    assert_eq!(report_of_program(version(), 9, &metrics, 10), report(version(), None, 10));
}

#[test]
fn what_follows_from_few_rows_of_a_class_is_left_out() {
    let of = |negatives, positives| {
        let scores = Evaluation { all: scores(negatives, positives), groups: BTreeMap::new() };
        let report = report(version(), Some(&scores), 10);
        names(&report.metrics).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(10, 10), ALL);
    assert_eq!(of(9, 100), BY_ROW);
    assert_eq!(of(100, 9), BY_ROW);
    assert_eq!(of(100, 0), BY_ROW);
}

#[test]
fn a_small_group_is_left_out_and_with_it_the_next_smallest() {
    let (whole, classes) = reported(&[("a", 50, 50), ("b", 20, 20), ("c", 4, 5)], 10);
    assert_eq!((whole, classes), (vec!["a".to_owned()], vec!["a".to_owned()]), "b would tell of c");
    let (whole, _) = reported(&[("a", 50, 50), ("b", 4, 5)], 10);
    assert!(whole.is_empty(), "a would tell of b");
    let (whole, _) = reported(&[("a", 50, 50), ("b", 20, 20), ("c", 4, 5), ("d", 1, 0)], 10);
    assert_eq!(whole, ["a", "b"], "c and d are ten together");
    let (whole, _) = reported(&[("a", 50, 50), ("b", 20, 20), ("c", 4, 4), ("d", 1, 0)], 10);
    assert_eq!(whole, ["a"], "c and d would be nine");
    let (whole, _) = reported(&[("a", 50, 50), ("b", 20, 20)], 10);
    assert_eq!(whole, ["a", "b"]);
    let (whole, _) = reported(&[("a", 1, 0), ("b", 20, 20)], 0);
    assert_eq!(whole, ["a", "b"], "a policy of 0 leaves nothing out");
}

#[test]
fn groups_are_complemented_by_class_as_well() {
    // c has few positive rows: b, with the next fewest rows of a class, goes without AUC and F1 too.
    let (whole, classes) = reported(&[("a", 50, 50), ("b", 20, 30), ("c", 40, 5)], 10);
    assert_eq!((whole.len(), classes), (3, vec!["a".to_owned()]));
    // a and c have no positive row between them, so b goes without as well, although there are two others.
    let (whole, classes) = reported(&[("a", 50, 0), ("b", 20, 30), ("c", 40, 0), ("d", 90, 90)], 10);
    assert_eq!((whole.len(), classes), (4, vec!["d".to_owned()]));
    // All rows together have few positive ones.
    let (whole, classes) = reported(&[("a", 50, 5), ("b", 20, 3)], 10);
    assert_eq!((whole.len(), classes.len()), (2, 0));
}

#[test]
fn what_is_left_out_does_not_depend_on_the_model() {
    let mut other = evaluation(&[("a", 50, 50), ("b", 20, 30), ("c", 40, 5), ("d", 3, 4)]);
    let first = report(version(), Some(&other), 10);
    for scores in other.groups.values_mut() {
        (scores.accuracy_millionths, scores.loss_millionths) = (999_999, 1);
    }
    let second = report(version(), Some(&other), 10);
    let shape = |report: &Evaluate| -> Vec<(String, Vec<String>)> {
        report.groups.iter().map(|(name, group)| (name.clone(), group.metrics.keys().cloned().collect())).collect()
    };
    assert_eq!(shape(&first), shape(&second));
    assert_ne!(first, second);
}

proptest! {
    /// Whatever the groups are: what is reported, taken from the whole, leaves nothing or enough.
    #[test]
    fn no_small_count_can_be_computed_by_subtraction(
        sizes in prop::collection::vec((0u64..30, 0u64..30), 1..8),
        below in 0u64..15,
    ) {
        let names: Vec<String> = (0..sizes.len()).map(|group| group.to_string()).collect();
        let groups: Vec<(&str, u64, u64)> = names
            .iter()
            .zip(&sizes)
            .filter(|(_, size)| size.0 + size.1 > 0)
            .map(|(name, size)| (name.as_str(), size.0, size.1))
            .collect();
        let evaluation = evaluation(&groups);
        let report = report(version(), Some(&evaluation), below);
        let whole: Vec<&str> = report.groups.keys().map(String::as_str).collect();
        let by_class: Vec<&str> =
            report.groups.iter().filter(|(_, group)| group.metrics.contains_key("f1")).map(|(name, _)| name.as_str()).collect();
        let hidden = |shown: &[&str]| -> Vec<(u64, u64)> {
            groups.iter().filter(|group| !shown.contains(&group.0)).map(|group| (group.1, group.2)).collect()
        };
        let rest = hidden(&whole);
        if report.examples == 0 {
            prop_assert!(whole.is_empty() && report.metrics.is_empty());
            return Ok(());
        }
        let rows: u64 = rest.iter().map(|size| size.0 + size.1).sum();
        prop_assert!(rest.is_empty() || (rest.len() > 1 && rows >= below), "{:?}", rest);
        prop_assert!(report.groups.values().all(|group| group.examples >= below));
        if report.metrics.contains_key("f1") {
            let rest = hidden(&by_class);
            let negatives: u64 = rest.iter().map(|size| size.0).sum();
            let positives: u64 = rest.iter().map(|size| size.1).sum();
            let enough = rest.len() > 1 && negatives.min(positives) >= below;
            prop_assert!(rest.is_empty() || enough, "{:?}", rest);
        } else {
            prop_assert!(by_class.is_empty());
        }
    }
}
