//! Tables as plans describe them: what stands in the plan is the same everywhere, what stands in the schema is the site's.

use std::fs;

use fedledger_ledger::Digest;

use crate::files::{Site, description};

const LABEL: &str = r#"label = { column = "sick", positive_when = { greater_than = "0" } }"#;

fn site(schema: &str) -> Site {
    let site = Site::new("data.csv", schema);
    fs::write(&site.records, "Alter,pain,sick\n40,none,0\n,,1\n60,some,1\n").unwrap();
    site
}

fn table(rest: &str) -> String {
    format!(
        "kind = \"table\"\n{rest}\n{LABEL}\nfeatures = [\n\
         {{ kind = \"numeric\", column = \"age\" }},\n\
         {{ kind = \"one_hot\", column = \"pain\", categories = [\"none\", \"some\"] }},\n]"
    )
}

const SCHEMA: &str = "columns = { age = \"Alter\" }";

#[test]
fn columns_may_be_called_otherwise_at_a_site() {
    let strict = description(&table("missing = \"drop_row\"\nnormalize = \"none\""));
    let found = site(SCHEMA).read(&strict).unwrap();
    assert_eq!(found.train.features(), [40.0, 1.0, 0.0, 60.0, 0.0, 1.0]);
    assert_eq!(found.feature_names, ["age", "pain=none", "pain=some"], "the plan's names are told");
    let error = site("").refusal(&strict);
    assert!(error.contains("the header has no column \"age\""), "{error}");
    let error = site("columns = { age = \"sick\" }").refusal(&strict);
    assert!(error.contains("`columns` gives \"sick\" for two columns"), "{error}");
}

#[test]
fn the_plan_says_how_numbers_are_scaled() {
    let scaled = "normalize = { plan = { age = { mean = \"50\", deviation = \"4\" } } }";
    let found = site(SCHEMA).read(&description(&table(&format!("missing = \"drop_row\"\n{scaled}")))).unwrap();
    assert_eq!(found.train.features(), [-2.5, 1.0, 0.0, 2.5, 0.0, 1.0]);
    // The mean of what is there is the mean of the scaled values as well.
    let found = site(SCHEMA).read(&description(&table(&format!("missing = \"mean\"\n{scaled}")))).unwrap();
    assert_eq!(found.train.features(), [-2.5, 1.0, 0.0, 0.0, 0.5, 0.5, 2.5, 0.0, 1.0]);
    let narrow = scaled.replace("\"4\"", "\"0.0000000000000000000001\"").replace("\"50\"", "\"-99999999999999999999\"");
    let error = site(SCHEMA).refusal(&description(&table(&format!("missing = \"drop_row\"\n{narrow}"))));
    assert!(error.contains("line 2, column 1 (Alter): \"40\" is not a finite 32-bit number"), "{error}");
}

#[test]
fn a_constant_takes_the_place_of_what_is_missing_before_it_is_scaled() {
    let scaled = "normalize = { plan = { age = { mean = \"50\", deviation = \"4\" } } }";
    let text = table(&format!("missing = {{ constant = \"54\" }}\n{scaled}"));
    let found = site(SCHEMA).read(&description(&text)).unwrap();
    assert_eq!(found.train.features(), [-2.5, 1.0, 0.0, 1.0, 0.0, 0.0, 2.5, 0.0, 1.0]);
    let without_label = Site::new("data.csv", SCHEMA);
    fs::write(&without_label.records, "Alter,pain,sick\n40,none,0\n40,none,\n").unwrap();
    let error = without_label.refusal(&description(&text));
    assert!(error.contains("line 3, column 3 (sick): the label is missing"), "{error}");
}

#[test]
fn what_a_site_calls_missing_is_no_category() {
    let error = site(&format!("{SCHEMA}\nmissing_markers = [\"none\"]"))
        .refusal(&description(&table("missing = \"mean\"\nnormalize = \"none\"")));
    assert!(error.contains("\"none\" of column \"pain\" also stands for a missing value"), "{error}");
}

#[test]
fn the_manifest_covers_the_description_and_every_file() {
    let schema = format!("{SCHEMA}\nsplit = {{ kind = \"test_rows\", file = \"rows.json\" }}");
    let site = site(&schema);
    fs::write(site.path("rows.json"), "[0]").unwrap();
    let none = description(&table("missing = \"mean\"\nnormalize = \"none\""));
    let scaled = description(&table("missing = \"mean\"\nnormalize = \"site\""));
    let first = site.read(&none).unwrap().manifest;
    assert_eq!(first.description, Some(none.digest()));
    assert_eq!(first.test_rows_file, Some(Digest::of(b"[0]")));
    assert_ne!(first.digest(), site.read(&scaled).unwrap().manifest.digest());
    fs::write(site.path("rows.json"), "[1]").unwrap();
    let other = site.read(&none).unwrap().manifest;
    assert_eq!((first.train_rows, first.test_rows), (other.train_rows, other.test_rows));
    assert_ne!(first.digest(), other.digest(), "other rows are tested on");
}

#[test]
fn a_plan_for_images_does_not_fit_a_table_nor_the_other_way_round() {
    let images = description(
        "kind = \"images\"\nheight = 2\nwidth = 2\nchannels = 1\nmean = \"0\"\ndeviation = \"1\"\nclasses = 2",
    );
    let error = site(SCHEMA).refusal(&images);
    assert!(error.contains("the plan describes images, this site has a file of format Csv"), "{error}");
    let error = Site::new("data.npz", "").refusal(&description(&table("missing = \"mean\"\nnormalize = \"none\"")));
    assert!(error.contains("the plan describes a table, this site has a file of format Npz"), "{error}");
}
