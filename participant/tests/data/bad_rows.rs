//! Rows that cannot be read: skipped and counted by reason, up to the limit, and never silently.

use std::fs;

use fedledger_participant::table::{self, Schema, TableError};

use crate::files::{Site, description};

const DESCRIPTION: &str = r#"
    kind = "table"
    missing = "error"
    normalize = "none"
    features = [
        { kind = "numeric", column = "age" },
        { kind = "one_hot", column = "pain", categories = ["none", "some"] },
    ]
    label = { column = "outcome", classes = ["well", "ill", "dead"] }
    group = { column = "sex", categories = ["f", "m"] }
"#;

const HEADER: &str = "age,pain,outcome,sex\n";

/// A row that is wrong for each reason.
const WRONG: [(&str, &str); 9] = [
    ("1,none,well\n", "field_count"),
    ("1,no\"ne,well,f\n", "malformed"),
    ("1,none,,f\n", "missing_label"),
    (",none,well,f\n", "missing_value"),
    ("old,none,well,f\n", "not_a_number"),
    ("1e39,none,well,f\n", "out_of_range"),
    ("1,much,well,f\n", "unknown_category"),
    ("1,none,well,x\n", "unknown_group"),
    ("1,none,better,f\n", "unknown_label"),
];

fn site(csv: &str) -> Site {
    let site = Site::new("data.csv", "");
    fs::write(&site.records, csv).unwrap();
    site
}

fn up_to(limit: u64) -> fedledger_federation::data_description::DataDescription {
    description(&format!("bad_rows_max = {limit}\n{DESCRIPTION}"))
}

#[test]
fn by_default_the_first_row_that_cannot_be_read_is_an_error() {
    for (row, reason) in WRONG {
        let site = site(&format!("{HEADER}1,none,well,f\n{row}"));
        let error = site.refusal(&description(DESCRIPTION));
        assert!(error.contains("line 3"), "{reason}: {error}");
        assert!(!error.contains("more than"), "{reason}: {error}");
    }
}

#[test]
fn rows_are_skipped_and_counted_by_reason() {
    for (row, reason) in WRONG {
        let site = site(&format!("{HEADER}1,none,well,f\n{row}2,some,dead,m\n{row}"));
        let table = site.read(&up_to(2)).unwrap();
        assert_eq!(table.train.features(), [1.0, 1.0, 0.0, 2.0, 0.0, 1.0], "{reason}");
        assert_eq!((table.train.labels(), table.classes), (&[0.0, 2.0][..], 3), "{reason}");
        assert_eq!(table.train.groups().unwrap().of_row, [0, 1], "{reason}");
        assert_eq!(table.manifest.skipped_rows, [(reason.to_owned(), 2)].into());
        let error = site.refusal(&up_to(1));
        assert!(error.contains("more than 1 rows cannot be read"), "{reason}: {error}");
        assert!(error.contains("line 3") && error.contains("; line 5"), "{reason}: {error}");
    }
}

#[test]
fn the_limit_is_for_all_reasons_together_and_the_error_names_the_first_places() {
    let rows: String = WRONG.iter().map(|(row, _)| *row).collect();
    let site = site(&format!("{HEADER}{rows}1,none,well,f\n"));
    let table = site.read(&up_to(9)).unwrap();
    assert_eq!(table.manifest.skipped_rows, WRONG.map(|(_, reason)| (reason.to_owned(), 1)).into());
    let error = site.refusal(&up_to(8));
    for place in ["line 2 has 3 fields", "line 3, column 2", "line 4, column 3 (outcome)"] {
        assert!(error.contains(place), "{error}");
    }
    assert!(!error.contains("line 5"), "the first places are enough: {error}");
}

#[test]
fn what_is_wrong_with_the_whole_table_is_never_skipped() {
    for (csv, expected) in [
        ("age,pain,sex\n1,none,f\n", "no column \"outcome\""),
        ("age,pain,outcome,sex,age\n", "names this column twice"),
        ("", "the table is empty"),
        (&format!("{HEADER}1,{},well,f\n", "x".repeat(table::LINE_BYTES_MAX)), "line 2 is longer than"),
        (&format!("{HEADER}x,none,well,f\n"), "no row is left to train on"),
    ] {
        let error = site(csv).refusal(&up_to(5));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_of_others_are_neither_read_nor_counted() {
    let site = Site::new("data.csv", "row_filter = { column = \"sex\", equals = \"f\" }");
    fs::write(&site.records, format!("{HEADER}1,none,well,f\nold,much,worse,m\n")).unwrap();
    let table = site.read(&up_to(1)).unwrap();
    assert_eq!((table.train.rows(), table.manifest.skipped_rows.len()), (1, 0));
}

#[test]
fn incomplete_rows_are_dropped_and_not_counted_as_bad() {
    let dropping = DESCRIPTION.replace("\"error\"", "\"drop_row\"");
    let site = site(&format!("{HEADER}1,none,well,f\n,none,well,f\n1,,well,f\n1,none,,f\n1,none,well,\n"));
    let table = site.read(&description(&dropping)).unwrap();
    assert_eq!((table.train.rows(), table.manifest.dropped_rows, table.manifest.skipped_rows.len()), (1, 4, 0));
}

#[test]
fn test_rows_are_numbered_without_those_that_are_skipped() {
    let site = Site::new("data.csv", "split = { kind = \"test_rows\", file = \"rows.json\" }");
    fs::write(&site.records, format!("{HEADER}old,none,well,f\n1,none,well,f\n2,none,ill,m\n")).unwrap();
    fs::write(site.path("rows.json"), "[1]").unwrap();
    let table = site.read(&up_to(1)).unwrap();
    assert_eq!((table.train.labels(), table.test.labels()), (&[0.0][..], &[1.0][..]));
}

#[test]
fn a_schema_has_a_limit_of_its_own_for_plans_that_describe_nothing() {
    let text = DESCRIPTION.replace("kind = \"table\"", "bad_rows_max = 1");
    let schema = Schema::from_toml(&text).unwrap();
    let csv = format!("{HEADER}1,none,well,f\nold,none,well,f\n");
    let table = table::read(csv.as_bytes(), &schema, None).unwrap();
    assert_eq!(table.manifest.skipped_rows, [("not_a_number".to_owned(), 1)].into());
    let csv = format!("{csv}older,none,well,f\n");
    let error = table::read(csv.as_bytes(), &schema, None).unwrap_err();
    assert!(matches!(&error, TableError::TooManyBadRows { limit: 1, first } if first.len() == 2), "{error}");
    let strict = Schema::from_toml(&DESCRIPTION.replace("kind = \"table\"", "")).unwrap();
    assert_ne!(schema.digest(), strict.digest());
}

#[test]
fn no_more_memory_is_taken_for_reading_than_the_site_allows() {
    let site = site(&format!("{HEADER}1,none,well,f\n2,some,ill,m\n"));
    let read = |allowed| site.open().within(Some(allowed)).read(Some(&up_to(0)));
    // Two rows of three values, which grow by doubling and are copied once.
    assert!(read(72).is_ok());
    let error = read(71).unwrap_err();
    assert!(error.told().contains("memory_max"), "{}", error.told());
}
