//! Tables as they come from hospitals: what is understood, and how it is refused.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use fedledger_federation::data_description::DataDescriptionError;
use fedledger_participant::table::{self, Missing, Normalize, Schema, SchemaError, Table, TableError};

const SCHEMA: &str = r#"
    missing = "drop_row"
    normalize = "none"

    [label]
    column = "sick"
    positive_when = { greater_than = "0" }

    [[features]]
    kind = "numeric"
    column = "age"

    [[features]]
    kind = "one_hot"
    column = "pain"
    categories = ["none", "some", "much"]
    drop_first = true
"#;

fn schema(extra: &str) -> Schema {
    Schema::from_toml(&format!("{extra}\n{SCHEMA}")).unwrap()
}

fn read(csv: impl AsRef<[u8]>, schema: &Schema) -> Result<Table, TableError> {
    table::read(csv.as_ref(), schema, None)
}

#[test]
fn columns_become_features_in_the_order_of_the_schema() {
    let csv = "id,pain,sick,age\n1,much,0,61\n2,none,3,40.5\n3,some,1,-7e1\n";
    let table = read(csv, &schema("")).unwrap();
    assert_eq!(table.feature_names, ["age", "pain=some", "pain=much"]);
    assert_eq!(table.train.features(), [61.0, 0.0, 1.0, 40.5, 0.0, 0.0, -70.0, 1.0, 0.0]);
    assert_eq!(table.train.labels(), [0.0, 1.0, 1.0]);
    assert_eq!(table.test.rows(), 0);
    assert_eq!((table.manifest.train_rows, table.manifest.feature_count), (3, 3));
}

#[test]
fn every_category_has_a_value_unless_the_first_is_dropped() {
    let all = SCHEMA.replace("drop_first = true", "");
    let table = read("age,pain,sick\n1,none,1\n", &Schema::from_toml(&all).unwrap()).unwrap();
    assert_eq!(table.train.features(), [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn files_of_spreadsheets_are_understood() {
    let table = read("\u{feff}age;pain;sick\r\n\"1\";\"none\";1\r\n", &schema("delimiter = \";\"")).unwrap();
    assert_eq!(table.train.features(), [1.0, 0.0, 0.0]);
    let table = read("age,pain,sick\n1,none,1", &schema("")).unwrap();
    assert_eq!(table.train.rows(), 1, "the last line needs no end");
}

#[test]
fn every_malformed_table_is_refused_with_its_place() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty file", b"", "the table is empty"),
        ("blank header", b"\n1,none,1\n", "the table is empty"),
        ("missing column", b"age,sick\n1,1\n", "no column \"pain\""),
        ("column named twice", b"age,pain,sick,age\n", "line 1, column 4 (age): the header names this column twice"),
        ("no number", b"age,pain,sick\n1,none,1\nold,none,1\n", "line 3, column 1 (age): \"old\" is not a number"),
        ("space", b"age,pain,sick\n 1,none,1\n", "line 2, column 1 (age): \" 1\" is not a number"),
        ("decimal comma", b"age,pain,sick\n\"1,5\",none,1\n", "line 2, column 1 (age): \"1,5\" is not a number"),
        ("infinity", b"age,pain,sick\ninf,none,1\n", "line 2, column 1 (age): \"inf\" is not a finite"),
        ("NaN", b"age,pain,sick\nNaN,none,1\n", "line 2, column 1 (age): \"NaN\" is not a finite"),
        ("beyond the range", b"age,pain,sick\n1e39,none,1\n", "line 2, column 1 (age): \"1e39\" is not a finite"),
        ("label no number", b"age,pain,sick\n1,none,yes\n", "line 2, column 3 (sick): \"yes\" is not a number"),
        (
            "unknown category",
            b"age,pain,sick\n1,None,1\n",
            "line 2, column 2 (pain): \"None\" is none of the categories",
        ),
        ("too few fields", b"age,pain,sick\n1,none\n", "line 2 has 2 fields, the header has 3"),
        ("too many fields", b"age,pain,sick\n1,none,1,\n", "line 2 has 4 fields, the header has 3"),
        ("blank line", b"age,pain,sick\n1,none,1\n\n", "line 3 has 1 fields, the header has 3"),
        ("not UTF-8", b"age,pain,sick\n1,\xff,1\n", "line 2, column 2: not UTF-8"),
        ("open quote", b"age,pain,sick\n1,\"none,1\n2,none\",1\n", "line 2, column 2: a quoted field does not end"),
        ("stray quote", b"age,pain,sick\n1,no\"ne,1\n", "line 2, column 2: a quote must enclose"),
        ("no rows", b"age,pain,sick\n", "no row is left to train on"),
    ];
    for (what, csv, expected) in cases {
        let message = read(csv, &schema("")).unwrap_err().to_string();
        assert!(message.contains(expected), "{what}: {message}");
    }
}

#[test]
fn every_bound_holds() {
    let header = "age,pain,sick\n";
    let long_field = format!("{header}1,{},1\n", "x".repeat(table::FIELD_BYTES_MAX + 1));
    assert!(matches!(read(long_field, &schema("")), Err(TableError::FieldTooLong { place }) if place.column == 2));
    let long_line = format!("{header}{}", "x".repeat(table::LINE_BYTES_MAX + 1));
    assert!(matches!(read(long_line, &schema("")), Err(TableError::LineTooLong { line: 2 })));
    let wide = ",".repeat(table::COLUMNS_MAX);
    assert!(matches!(read(wide, &schema("")), Err(TableError::TooManyColumns { line: 1 })));
    let quoted = format!("{header}1,\"{}", "\n".repeat(100_000));
    assert!(matches!(read(quoted, &schema("")), Err(TableError::UnclosedQuote { .. })), "lines are never joined");
}

#[test]
fn a_failing_disk_is_an_error() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }
    assert!(matches!(table::read(Failing, &schema(""), None), Err(TableError::Io(_))));
}

#[test]
fn incomplete_rows_are_dropped_only_for_columns_that_are_used() {
    let csv = "age,pain,sick,note\n,none,1,\n1,none,,\n2,,1,\n3,none,1,\n4,?,1,\n";
    let table = read(csv, &schema(r#"missing_markers = ["", "?"]"#)).unwrap();
    assert_eq!((table.train.features(), table.manifest.dropped_rows), (&[3.0, 0.0, 0.0][..], 4));
}

#[test]
fn missing_values_are_imputed_from_training_rows() {
    let mut schema = schema("");
    schema.missing = Missing::Mean;
    schema.split = table::Split::TestRows { file: "unused".to_owned() };
    let csv = "age,pain,sick\n10,some,1\n20,much,0\n,,1\n600,none,1\n,some,0\n";
    let table = table::read(csv.as_bytes(), &schema, Some(&[3, 4])).unwrap();
    assert_eq!(table.train.features(), [10.0, 1.0, 0.0, 20.0, 0.0, 1.0, 15.0, 0.5, 0.5]);
    assert_eq!(table.test.features(), [600.0, 0.0, 0.0, 15.0, 1.0, 0.0]);
    let error = read("age,pain,sick\n1,none,\n", &schema).unwrap_err();
    assert!(error.to_string().contains("line 2, column 3 (sick): the label is missing"), "{error}");
}

#[test]
fn missing_values_can_be_refused() {
    let mut schema = schema("");
    schema.missing = Missing::Error;
    let error = read("age,pain,sick\n1,none,1\n1,,1\n", &schema).unwrap_err();
    assert!(error.to_string().contains("line 3, column 2 (pain): the value is missing"), "{error}");
}

#[test]
fn the_row_filter_hides_other_rows_even_if_they_are_malformed() {
    let schema = schema(r#"row_filter = { column = "site", equals = "va" }"#);
    let csv = "site,age,pain,sick\nx,old,none,1\nva,1,none,1\n";
    assert_eq!(read(csv, &schema).unwrap().train.features(), [1.0, 0.0, 0.0]);
}

#[test]
fn labels_can_be_words() {
    let words = SCHEMA.replace(r#"{ greater_than = "0" }"#, r#"{ equals = ["yes", "maybe"] }"#);
    let table = read("age,pain,sick\n1,none,yes\n1,none,no\n1,none,maybe\n", &Schema::from_toml(&words).unwrap());
    assert_eq!(table.unwrap().train.labels(), [1.0, 0.0, 1.0]);
}

#[test]
fn a_listed_split_must_fit_the_table() {
    let mut schema = schema("");
    schema.split = table::Split::TestRows { file: "unused".to_owned() };
    let csv = "age,pain,sick\n1,none,1\n2,none,0\n".as_bytes();
    let table = table::read(csv, &schema, Some(&[0])).unwrap();
    assert_eq!((table.train.features()[0], table.test.features()[0]), (2.0, 1.0));
    assert!(matches!(table::read(csv, &schema, None), Err(TableError::NoTestRows)));
    assert!(matches!(table::read(csv, &schema, Some(&[2])), Err(TableError::TestRow { row: 2, rows: 2 })));
    assert!(matches!(table::read(csv, &schema, Some(&[1, 1])), Err(TableError::TestRow { row: 1, .. })));
    assert!(matches!(table::read(csv, &schema, Some(&[u64::MAX])), Err(TableError::TestRow { .. })));
    assert!(matches!(table::read(csv, &schema, Some(&[0, 1])), Err(TableError::NoTrainingRows)));
}

#[test]
fn a_random_split_has_the_size_asked_for_and_depends_on_the_seed_alone() {
    let rows: String = (0..50).map(|row| format!("{row},none,{}\n", row % 2)).collect();
    let csv = format!("age,pain,sick\n{rows}");
    let split = |seed: u64| {
        let mut schema = schema("");
        schema.split = table::Split::TestFraction { fraction: "0.25".parse().unwrap(), seed };
        read(&csv, &schema).unwrap()
    };
    assert_eq!((split(1).train.rows(), split(1).test.rows()), (37, 13));
    assert_eq!(split(1), split(1));
    assert_ne!(split(1).test, split(2).test);
}

#[test]
fn normalisation_uses_training_rows_only() {
    let mut schema = schema("");
    schema.normalize = Normalize::Site;
    schema.split = table::Split::TestRows { file: "unused".to_owned() };
    let csv = "age,pain,sick\n2,none,1\n4,none,0\n6,none,1\n1000,none,1\n";
    let table = table::read(csv.as_bytes(), &schema, Some(&[3])).unwrap();
    let ages: Vec<f32> = table.train.features().iter().chain(table.test.features()).step_by(3).copied().collect();
    for (found, expected) in ages.iter().zip([-1.0, 0.0, 1.0, 498.0]) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
}

#[test]
fn the_manifest_tells_different_data_and_schemas_apart() {
    let manifest = |csv: &str, schema: &Schema| read(csv, schema).unwrap().manifest;
    let first = manifest("age,pain,sick\n1,none,1\n", &schema(""));
    assert_eq!(first.digest(), manifest("age,pain,sick\n1,none,1\n", &schema("")).digest());
    assert_eq!(first.file, fedledger_ledger::Digest::of(b"age,pain,sick\n1,none,1\n"));
    assert_ne!(first.digest(), manifest("age,pain,sick\n2,none,1\n", &schema("")).digest());
    let other = schema(r#"missing_markers = ["", "?"]"#);
    assert_ne!(first.digest(), manifest("age,pain,sick\n1,none,1\n", &other).digest());
}

#[test]
fn schemas_that_make_no_sense_are_refused() {
    use DataDescriptionError as Described;
    use SchemaError::Description;

    type Check = fn(&SchemaError) -> bool;
    let cases: &[(&str, &str, Check)] = &[
        ("missing = \"drop_row\"", "missing = \"ignore\"", |e| matches!(e, SchemaError::Toml(_))),
        ("normalize =", "scale = 1\nnormalize =", |e| matches!(e, SchemaError::Toml(_))),
        ("greater_than = \"0\"", "greater_than = \"1e3\"", |e| matches!(e, SchemaError::Toml(_))),
        ("column = \"pain\"", "column = \"age\"", |e| matches!(e, Description(Described::ColumnUsedTwice(_)))),
        ("column = \"age\"", "column = \"sick\"", |e| matches!(e, Description(Described::ColumnUsedTwice(_)))),
        ("\"some\", \"much\"]", "]", |e| matches!(e, Description(Described::CategoryCount { found: 1, .. }))),
        ("\"some\", \"much\"", "\"some\", \"some\"", |e| matches!(e, Description(Described::AmbiguousCategory { .. }))),
        ("\"some\", \"much\"", "\"some\", \"\"", |e| matches!(e, SchemaError::MissingMarker { .. })),
        ("missing =", "columns = { age = \"pain\" }\nmissing =", |e| matches!(e, SchemaError::ColumnUsedTwice(_))),
        ("missing =", "images = {}\nmissing =", |e| matches!(e, SchemaError::ForTables("features"))),
        ("missing =", "delimiter = \"a\"\nmissing =", |e| matches!(e, SchemaError::Delimiter('a'))),
        ("missing =", "delimiter = \"\\n\"\nmissing =", |e| matches!(e, SchemaError::Delimiter('\n'))),
        ("missing =", "missing_markers = []\nmissing =", |e| matches!(e, SchemaError::TextCount { .. })),
        ("{ greater_than = \"0\" }", "{ equals = [] }", |e| matches!(e, Description(Described::CategoryCount { .. }))),
    ];
    for (part, replacement, check) in cases {
        assert!(SCHEMA.contains(part), "{part} is not in the schema");
        let error = Schema::from_toml(&SCHEMA.replacen(part, replacement, 1)).unwrap_err();
        assert!(check(&error), "{replacement}: {error:?}");
    }
    let fraction = format!("{SCHEMA}\n[split]\nkind = \"test_fraction\"\nfraction = \"1.5\"\nseed = 1\n");
    assert!(matches!(Schema::from_toml(&fraction), Err(SchemaError::Fraction(_))));
}

#[test]
fn files_are_found_beside_the_schema_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let schema = format!("{SCHEMA}\n[split]\nkind = \"test_rows\"\nfile = \"rows.json\"\n");
    std::fs::write(path("schema.toml"), schema).unwrap();
    std::fs::write(path("data.csv"), "age,pain,sick\n1,none,1\n2,none,0\n").unwrap();
    let load = || table::load(&path("data.csv"), &path("schema.toml"));

    let error = load().unwrap_err();
    assert!(error.to_string().contains("rows.json"), "{error}");
    std::fs::write(path("rows.json"), "[0, \"1\"]").unwrap();
    assert!(matches!(load(), Err(table::OpenError::TestRows { .. })));
    std::fs::write(path("rows.json"), "[1]").unwrap();
    assert_eq!(load().unwrap().test.features(), [2.0, 0.0, 0.0]);
    std::fs::write(path("data.csv"), "age,pain\n").unwrap();
    assert!(load().unwrap_err().to_string().contains("data.csv"));
}

const GROUP: &str = "[group]\ncolumn = \"sex\"\ncategories = [\"f\", \"m\"]\n";

fn grouped(missing: &str) -> Schema {
    Schema::from_toml(&format!("{}\n{GROUP}", SCHEMA.replace("drop_row", missing))).unwrap()
}

#[test]
fn rows_keep_their_groups_in_both_parts() {
    let mut schema = grouped("drop_row");
    schema.split = table::Split::TestRows { file: "unused".to_owned() };
    let csv = "age,pain,sick,sex\n1,none,1,m\n2,none,0,f\n3,none,0,\n,none,0,f\n4,none,1,f\n5,none,1,m\n";
    let table = table::read(csv.as_bytes(), &schema, Some(&[1, 3])).unwrap();
    let of_row = |data: &table::Dataset| data.groups().unwrap().of_row.clone();
    assert_eq!((of_row(&table.train), of_row(&table.test)), (vec![1, 0], vec![0, 1]));
    assert_eq!(table.test.groups().unwrap().names, ["f", "m"]);
    assert_eq!(table.manifest.dropped_rows, 2, "a row without a group is left out like one without a label");
}

#[test]
fn a_group_may_be_a_feature_as_well_and_is_none_otherwise() {
    let csv = "age,pain,sick,sex\n1,some,1,m\n";
    let with_feature = GROUP.replace("sex", "pain").replace("[\"f\", \"m\"]", "[\"none\", \"some\"]");
    let schema = Schema::from_toml(&format!("{SCHEMA}\n{with_feature}")).unwrap();
    let table = read(csv, &schema).unwrap();
    assert_eq!(
        (table.train.features(), table.train.groups().unwrap().of_row.as_slice()),
        (&[1.0, 1.0, 0.0][..], &[1][..])
    );
    assert_eq!(read(csv, &grouped("error")).unwrap().train.columns(), 3, "the group is no feature by itself");
    assert!(read(csv, &self::schema("")).unwrap().train.groups().is_none());
}

#[test]
fn groups_that_the_schema_does_not_list_are_refused_with_their_place() {
    let unknown = read("age,pain,sick,sex\n1,none,1,x\n", &grouped("drop_row")).unwrap_err().to_string();
    assert!(unknown.contains("line 2, column 4 (sex): \"x\" is none of the categories"), "{unknown}");
    for missing in ["error", "mean"] {
        let error = read("age,pain,sick,sex\n1,none,1,\n", &grouped(missing)).unwrap_err().to_string();
        assert!(error.contains("line 2, column 4 (sex): the value is missing"), "{error}");
    }
    let error = read("age,pain,sick\n1,none,1\n", &grouped("drop_row")).unwrap_err().to_string();
    assert!(error.contains("no column \"sex\""), "{error}");
}

#[test]
fn groups_that_cannot_be_reported_are_refused_before_any_row_is_read() {
    let refused = |categories: &str| {
        let text =
            format!("missing_markers = [\"\", \"?\"]\n{SCHEMA}\n{}", GROUP.replace("[\"f\", \"m\"]", categories));
        Schema::from_toml(&text).unwrap_err()
    };
    for categories in ["[\"f\", \"f\"]", "[\"a\\tb\"]", "[]", &format!("[\"{}\"]", "x".repeat(65))] {
        assert!(matches!(refused(categories), SchemaError::Description(_)), "{categories}");
    }
    let many: Vec<String> = (0..65).map(|number| format!("\"{number}\"")).collect();
    assert!(matches!(refused(&format!("[{}]", many.join(","))), SchemaError::Description(_)));
}

#[test]
fn a_schema_without_groups_has_the_digest_that_it_had_before_there_were_any() {
    let encoded = fedledger_ledger::codec::encode(&schema(""));
    assert!(!encoded.windows(5).any(|bytes| bytes == b"group"));
}

#[test]
fn a_schema_may_leave_the_description_to_the_plans() {
    let schema = Schema::from_toml("missing_markers = [\"\", \"?\"]").unwrap();
    assert_eq!(schema.description(), None);
    assert!(matches!(read("age\n1\n", &schema), Err(TableError::Undescribed)));
    assert!(matches!(Schema::from_toml("label = { column = \"sick\" }"), Err(SchemaError::HalfDescribed)));
    let features = "features = [{ kind = \"numeric\", column = \"age\" }]";
    assert!(matches!(Schema::from_toml(features), Err(SchemaError::HalfDescribed)));
}
