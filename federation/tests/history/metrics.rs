//! What hospitals report of versions: what is refused, and what becomes of the reports.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, VersionId,
    audit::{diff, version_rows},
    command::{Evaluate, GroupMetrics, JoinRound, Metrics},
    history::{History, Keep},
    limits::{GROUPS_MAX, LOSS_MILLIONTHS_MAX, METRICS_MAX, NAME_LENGTH_MAX},
};

use crate::{
    audit::without_finality,
    consortium::{Consortium, INSURER},
    retention::restored_state_keeps_the_same,
};

const BASEL: &str = "basel/participant";

fn metrics(values: &[(&str, i64)]) -> Metrics {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// A group's name, its examples and its metrics.
type Group<'a> = (&'a str, u64, &'a [(&'a str, i64)]);

fn groups(groups: &[Group<'_>]) -> BTreeMap<String, GroupMetrics> {
    let group = |examples, values| GroupMetrics { examples, metrics: metrics(values) };
    groups.iter().map(|(name, examples, values)| ((*name).to_owned(), group(*examples, values))).collect()
}

fn report(version: VersionId, examples: u64, values: &[(&str, i64)]) -> Evaluate {
    Evaluate { version, examples, metrics: metrics(values), groups: BTreeMap::new() }
}

/// A consortium with a version, and a report of it that is refused for its content.
fn refused(consortium: &mut Consortium, report: Evaluate) {
    let what = format!("{report:?}");
    assert_eq!(consortium.refused(BASEL, Command::Evaluate(report)), "invalid_metrics", "{what}");
}

#[test]
fn values_that_a_metric_cannot_have_are_refused() {
    let (mut consortium, id) = Consortium::ready(2);
    let version = consortium.run_round(&id);
    for name in ["accuracy", "auc", "f1", "calibration_error"] {
        for value in [-1, 1_000_001, i64::MIN, i64::MAX] {
            refused(&mut consortium, report(version, 10, &[(name, value)]));
        }
    }
    for value in [-1, LOSS_MILLIONTHS_MAX + 1, i64::MAX] {
        refused(&mut consortium, report(version, 10, &[("loss", value)]));
    }
    refused(&mut consortium, report(version, 0, &[("accuracy", 500_000)]));
    refused(&mut consortium, report(version, 10, &[("Not a name", 0)]));
    let many: Vec<String> = (0..=METRICS_MAX).map(|number| format!("metric_{number}")).collect();
    let many: Vec<(&str, i64)> = many.iter().map(|name| (name.as_str(), 0)).collect();
    refused(&mut consortium, report(version, 10, &many));

    let key = consortium.open_round(&id);
    consortium.accept(BASEL, Command::JoinRound(JoinRound { key }));
    for (name, value) in [("accuracy", 2_000_000), ("loss_first", -1), ("loss_last", LOSS_MILLIONTHS_MAX + 1)] {
        let mut contribution = consortium.contribution(&key, "basel");
        contribution.metrics.insert(name.to_owned(), value);
        assert_eq!(consortium.refused(BASEL, Command::Contribute(contribution)), "invalid_metrics", "{name}");
    }

    let extremes = [("accuracy", 1_000_000), ("auc", 0), ("loss", LOSS_MILLIONTHS_MAX), ("own_metric", i64::MIN)];
    consortium.accept(BASEL, Command::Evaluate(report(version, 1, &extremes)));
}

#[test]
fn an_interval_encloses_its_area() {
    let (mut consortium, id) = Consortium::ready(2);
    let version = consortium.run_round(&id);
    let cases: [&[(&str, i64)]; 6] = [
        &[("auc_low", 1)],
        &[("auc_low", 1), ("auc_high", 3)],
        &[("auc", 2), ("auc_high", 3)],
        &[("auc", 2), ("auc_low", 3), ("auc_high", 4)],
        &[("auc", 2), ("auc_low", 0), ("auc_high", 1)],
        &[("auc", 2), ("auc_low", 2), ("auc_high", 1_000_001)],
    ];
    for values in cases {
        refused(&mut consortium, report(version, 10, values));
        let parts = groups(&[("women", 5, values)]);
        refused(&mut consortium, Evaluate { groups: parts, ..report(version, 10, &[]) });
    }
    let closed = [("auc", 2), ("auc_low", 2), ("auc_high", 2)];
    consortium.accept(BASEL, Command::Evaluate(report(version, 10, &closed)));
}

#[test]
fn groups_are_parts_of_the_examples() {
    let (mut consortium, id) = Consortium::ready(2);
    let version = consortium.run_round(&id);
    let mut refused = |parts| refused(&mut consortium, Evaluate { groups: parts, ..report(version, 10, &[]) });
    let (long, accuracy) = ("x".repeat(NAME_LENGTH_MAX + 1), [("accuracy", 500_000)]);
    for parts in [
        groups(&[("women", 6, &accuracy), ("men", 5, &accuracy)]),
        groups(&[("women", u64::MAX, &[]), ("men", u64::MAX, &[])]),
        groups(&[("women", 0, &[])]),
        groups(&[("women", 5, &[("accuracy", 1_000_001)])]),
        groups(&[("", 5, &accuracy)]),
        groups(&[("a\tb", 5, &accuracy)]),
        groups(&[(&long, 5, &accuracy)]),
    ] {
        refused(parts);
    }
    let names: Vec<String> = (0..=GROUPS_MAX).map(|number| number.to_string()).collect();
    let parts = |count| names.iter().take(count).map(|name| (name.as_str(), 1, &accuracy[..])).collect::<Vec<_>>();
    let most = Evaluate { groups: groups(&parts(GROUPS_MAX)), ..report(version, GROUPS_MAX as u64, &accuracy) };
    let more = Evaluate { groups: groups(&parts(GROUPS_MAX + 1)), ..report(version, 1000, &accuracy) };
    refused(more.groups);
    consortium.accept(BASEL, Command::Evaluate(most.clone()));
    let record = consortium.state().evaluation(&version, &"basel".to_owned()).unwrap();
    assert_eq!((record.examples, &record.groups), (most.examples, &most.groups));
}

#[test]
fn a_report_without_groups_is_what_it_was_before_there_were_any() {
    let command = Command::Evaluate(report(VersionId::of_manifest(fedledger_ledger::Digest::of(b"v")), 1, &[]));
    let payload = String::from_utf8_lossy(&command.payload()).into_owned();
    assert!(payload.contains("metrics") && !payload.contains("groups"), "{payload}");
}

#[test]
fn reports_of_groups_are_averaged_by_group_and_survive_a_restart() {
    let (mut consortium, id) = Consortium::ready(2);
    let versions = [consortium.run_round(&id), consortium.run_round(&id)];
    for (version, gain) in versions.iter().zip([0, 100_000]) {
        let reported = |women, men: Option<(u64, i64)>| {
            let men = men.map(|(examples, accuracy)| ("men", examples, [("accuracy", accuracy + gain)]));
            let women = ("women", 30, [("accuracy", women + gain)]);
            let parts: Vec<_> = [Some(women), men].into_iter().flatten().collect();
            let parts: Vec<Group<'_>> =
                parts.iter().map(|(name, examples, values)| (*name, *examples, &values[..])).collect();
            Evaluate { groups: groups(&parts), ..report(*version, 100, &[("accuracy", 500_000 + gain)]) }
        };
        consortium.accept(BASEL, Command::Evaluate(reported(600_000, Some((40, 800_000)))));
        consortium.accept(INSURER, Command::Evaluate(reported(500_000, None)));
    }
    restored_state_keeps_the_same(&consortium);

    let history = History::read(&consortium.source(), Keep::State, 1).unwrap();
    let rows = version_rows(history.state(), without_finality(&history.attested));
    let row = rows.iter().find(|row| row.version == versions[0]).unwrap();
    let of = |name: &str| (row.groups[name].examples, row.groups[name].metrics["accuracy"]);
    assert_eq!((of("women"), of("men"), row.groups.len()), ((60, 0.55), (40, 0.8), 2));
    let initial = rows.iter().find(|row| row.round == 0).unwrap();
    assert!(serde_json::to_value(initial).unwrap().get("groups").is_none(), "nothing is said where there are none");

    let change = diff(&consortium.source(), history.state(), &versions[0], &versions[1]).unwrap();
    let women = change.groups["women"]["accuracy"];
    assert_eq!((women.from, women.to), (Some(0.55), Some(0.65)));
    assert!((change.groups["men"]["accuracy"].change.unwrap() - 0.1).abs() < 1e-12);
}
