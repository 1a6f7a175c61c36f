//! Parquet files give the data sets that CSV files of the same records give.

use std::fs;

use parquet::basic::Compression;

use crate::files::{Column, Site, description, write_parquet};

const DESCRIPTION: &str = r#"
    kind = "table"
    missing = "drop_row"
    normalize = "site"
    label = { column = "sick", positive_when = { equals = ["true"] } }
    features = [
        { kind = "numeric", column = "age" },
        { kind = "numeric", column = "weight" },
        { kind = "numeric", column = "visits" },
        { kind = "one_hot", column = "pain", categories = ["1", "2", "3"] },
        { kind = "one_hot", column = "sex", categories = ["f", "m"], drop_first = true },
    ]
    group = { column = "sex", categories = ["f", "m"] }
    bad_rows_max = 1
"#;

const SCHEMA: &str = r#"
    missing_markers = ["", "?"]
    columns = { sick = "ill" }
    row_filter = { column = "site", equals = "va" }
    [split]
    kind = "test_rows"
    file = "rows.json"
"#;

const MESSAGE: &str = "message records {
    optional double age;
    optional binary note (UTF8);
    optional float weight;
    optional int64 visits;
    optional int32 pain;
    optional binary sex (UTF8);
    optional boolean ill;
    optional binary site (UTF8);
}";

const CSV: &str = "age,note,weight,visits,pain,sex,ill,site\n\
    61.5,,80.25,3,1,f,true,va\n\
    40,x,70,0,2,m,false,va\n\
    33,,,1,3,m,true,va\n\
    0.1,,1e-3,9007199254740993,3,m,true,va\n\
    50,,60,2,2,?,true,va\n\
    20,,1,1,9,f,true,va\n\
    1,,1,1,1,f,true,other\n\
    70,,90.5,12,3,f,false,va\n";

fn row_groups() -> Vec<Vec<Column>> {
    let some = |texts: [&'static str; 4]| Column::Texts(texts.map(Some).to_vec());
    vec![
        vec![
            Column::Doubles([61.5, 40.0, 33.0, 0.1].map(Some).to_vec()),
            Column::Texts(vec![None, Some("x"), None, None]),
            Column::Floats(vec![Some(80.25), Some(70.0), None, Some(1e-3)]),
            Column::Longs([3, 0, 1, 9_007_199_254_740_993].map(Some).to_vec()),
            Column::Ints([1, 2, 3, 3].map(Some).to_vec()),
            some(["f", "m", "m", "m"]),
            Column::Bools([true, false, true, true].map(Some).to_vec()),
            some(["va"; 4]),
        ],
        vec![
            Column::Doubles([50.0, 20.0, 1.0, 70.0].map(Some).to_vec()),
            Column::Texts(vec![None; 4]),
            Column::Floats([60.0, 1.0, 1.0, 90.5].map(Some).to_vec()),
            Column::Longs([2, 1, 1, 12].map(Some).to_vec()),
            Column::Ints([2, 9, 1, 3].map(Some).to_vec()),
            some(["?", "f", "f", "f"]),
            Column::Bools([true, true, true, false].map(Some).to_vec()),
            some(["va", "va", "other", "va"]),
        ],
    ]
}

#[test]
fn the_same_records_give_the_same_data_set_in_either_format() {
    let csv = Site::new("data.csv", SCHEMA);
    fs::write(&csv.records, CSV).unwrap();
    fs::write(csv.path("rows.json"), "[1]").unwrap();
    let expected = csv.read(&description(DESCRIPTION)).unwrap();
    assert_eq!((expected.train.rows(), expected.test.rows()), (3, 1));
    assert_eq!(expected.manifest.dropped_rows, 2);
    assert_eq!(expected.manifest.skipped_rows, [("unknown_category".to_owned(), 1)].into());
    assert_eq!(expected.train.groups().unwrap().of_row, [0, 1, 0]);
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let site = Site::new("data.parquet", SCHEMA);
        fs::write(site.path("rows.json"), "[1]").unwrap();
        write_parquet(&site.records, MESSAGE, compression, &row_groups());
        let found = site.read(&description(DESCRIPTION)).unwrap();
        assert_eq!((&found.train, &found.test), (&expected.train, &expected.test));
        assert_eq!(found.feature_names, expected.feature_names);
        assert_eq!(found.manifest.skipped_rows, expected.manifest.skipped_rows);
        assert_eq!(found.manifest.dropped_rows, expected.manifest.dropped_rows);
        let file = fs::read(&site.records).unwrap();
        assert_eq!(found.manifest.file, fedledger_ledger::Digest::of(&file));
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_row() {
    let site = Site::new("data.parquet", SCHEMA);
    fs::write(site.path("rows.json"), "[]").unwrap();
    write_parquet(&site.records, MESSAGE, Compression::SNAPPY, &row_groups());
    let strict = DESCRIPTION.replace("bad_rows_max = 1", "");
    let error = site.refusal(&description(&strict));
    assert!(error.contains("data.parquet") && error.contains("row 6, column 4 (pain): \"9\""), "{error}");
    let other = description(&DESCRIPTION.replace("column = \"age\"", "column = \"height\""));
    let error = site.refusal(&other);
    assert!(error.contains("no column \"height\""), "{error}");
}

#[test]
fn numbers_that_are_none_are_out_of_range() {
    let site = Site::new("data.parquet", "");
    let message = "message records { optional double age; optional boolean sick; }";
    let ages = [1.0, f64::NAN, f64::INFINITY, 1e300, 2.0].map(Some).to_vec();
    let columns = vec![Column::Doubles(ages), Column::Bools(vec![Some(true); 5])];
    write_parquet(&site.records, message, Compression::UNCOMPRESSED, &[columns]);
    let table = |limit: u64| {
        description(&format!(
            "kind = \"table\"\nmissing = \"error\"\nnormalize = \"none\"\nbad_rows_max = {limit}\n\
             features = [{{ kind = \"numeric\", column = \"age\" }}]\n\
             label = {{ column = \"sick\", positive_when = {{ equals = [\"true\"] }} }}"
        ))
    };
    let found = site.read(&table(3)).unwrap();
    assert_eq!(found.train.features(), [1.0, 2.0]);
    assert_eq!(found.manifest.skipped_rows, [("out_of_range".to_owned(), 3)].into());
    let error = site.refusal(&table(2));
    assert!(error.contains("more than 2 rows cannot be read"), "{error}");
    assert!(error.contains("row 2, column 1 (age): \"NaN\" is not a finite"), "{error}");
    // A site whose programs write NaN for a missing value says so.
    fs::write(site.path("schema.toml"), "missing_markers = [\"\", \"NaN\"]").unwrap();
    let lenient = "kind = \"table\"\nmissing = \"drop_row\"\nnormalize = \"none\"\nbad_rows_max = 2\n\
         features = [{ kind = \"numeric\", column = \"age\" }]\n\
         label = { column = \"sick\", positive_when = { equals = [\"true\"] } }";
    assert_eq!(site.read(&description(lenient)).unwrap().manifest.dropped_rows, 1);
}

#[test]
fn columns_of_other_kinds_are_refused_only_if_they_are_used() {
    let table = |column: &str| {
        description(&format!(
            "kind = \"table\"\nmissing = \"error\"\nnormalize = \"none\"\n\
             features = [{{ kind = \"numeric\", column = \"{column}\" }}]\n\
             label = {{ column = \"sick\", positive_when = {{ equals = [\"true\"] }} }}"
        ))
    };
    let cases = [
        ("int64 seen (TIMESTAMP_MILLIS)", Column::Longs(vec![Some(1)])),
        ("int32 seen (DATE)", Column::Ints(vec![Some(1)])),
        ("int32 seen (DECIMAL(9, 2))", Column::Ints(vec![Some(1)])),
        ("binary seen", Column::Texts(vec![Some("1")])),
    ];
    for (column, values) in cases {
        let site = Site::new("data.parquet", "");
        let message = format!("message records {{ optional {column}; optional boolean sick; optional double age; }}");
        let columns = vec![values, Column::Bools(vec![Some(true)]), Column::Doubles(vec![Some(61.5)])];
        write_parquet(&site.records, &message, Compression::UNCOMPRESSED, &[columns]);
        let error = site.refusal(&table("seen"));
        assert!(error.contains("column \"seen\" holds"), "{column}: {error}");
        assert_eq!(site.read(&table("age")).unwrap().train.features(), [61.5], "{column}");
    }
}

#[test]
fn files_that_are_cut_off_or_no_parquet_are_refused() {
    let site = Site::new("data.parquet", SCHEMA);
    fs::write(site.path("rows.json"), "[]").unwrap();
    write_parquet(&site.records, MESSAGE, Compression::SNAPPY, &row_groups());
    let whole = fs::read(&site.records).unwrap();
    for length in [0, 1, 8, whole.len() / 2, whole.len() - 1] {
        fs::write(&site.records, &whole[..length]).unwrap();
        let error = site.refusal(&description(DESCRIPTION));
        assert!(error.contains("the Parquet file cannot be read"), "{length}: {error}");
    }
}

#[test]
fn the_schema_says_the_format_where_the_name_does_not() {
    let schema = format!("format = \"parquet\"\n{SCHEMA}");
    let site = Site::new("records.bin", &schema);
    fs::write(site.path("rows.json"), "[]").unwrap();
    write_parquet(&site.records, MESSAGE, Compression::SNAPPY, &row_groups());
    assert_eq!(site.read(&description(DESCRIPTION)).unwrap().train.rows(), 4);
}
