use super::*;
use crate::data_description::DataDescription;

fn table(toml: &str) -> Result<(), String> {
    let text = format!("kind = \"table\"\nmissing = \"error\"\nnormalize = \"none\"\n{toml}");
    let description: DataDescription = toml_of(&text)?;
    description.check().map_err(|error| error.to_string())
}

/// Plans come as TOML; the JSON of a value that was read from it has the same form.
fn toml_of(text: &str) -> Result<DataDescription, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

const FEATURES: &str = r#"
    features = [
        { kind = "numeric", column = "age" },
        { kind = "one_hot", column = "pain", categories = ["none", "some", "much"], drop_first = true },
    ]
"#;

const LABEL: &str = r#"label = { column = "sick", positive_when = { greater_than = "0" } }"#;

/// Images of as many values as a network can take.
const LARGE: &str =
    "kind = \"images\"\nheight = 256\nwidth = 256\nchannels = 4\nmean = \"0.5\"\ndeviation = \"0.25\"\nclasses = 2";

fn images(field: &str, value: &str) -> Result<(), String> {
    let mut text = "kind = \"images\"\n".to_owned();
    let fields = [
        ("height", "28"),
        ("width", "28"),
        ("channels", "1"),
        ("mean", "\"0.5\""),
        ("deviation", "\"0.25\""),
        ("classes", "2"),
    ];
    for (name, default) in fields {
        text += &format!("{name} = {}\n", if name == field { value } else { default });
    }
    if field == "bad_rows_max" {
        text += &format!("bad_rows_max = {value}\n");
    }
    toml_of(&text)?.check().map_err(|error| error.to_string())
}

#[test]
fn a_table_is_described_by_its_features_and_its_label() {
    let text = format!("kind = \"table\"\nmissing = {{ constant = \"0\" }}\nnormalize = \"site\"\n{FEATURES}{LABEL}");
    let description = toml_of(&text.replace("drop_first = true", "")).unwrap();
    assert_eq!(description.check(), Ok(()));
    assert_eq!((description.features(), description.classes(), description.bad_rows_max()), (4, 2, 0));
    let DataDescription::Table(table) = &description else { panic!("a table") };
    assert_eq!(table.feature_names(), ["age", "pain=none", "pain=some", "pain=much"]);
    let shown = toml::to_string(&description).unwrap();
    assert_eq!(toml_of(&shown).unwrap(), description, "as `fedledger plan show` shows it: {shown}");
    let bytes = fedledger_ledger::codec::encode(&description);
    assert_eq!(fedledger_ledger::codec::decode::<DataDescription>(&bytes, 4096), Ok(description));
}

#[test]
fn images_are_described_by_their_size() {
    assert_eq!(images("", ""), Ok(()));
    for (field, value, expected) in [
        ("height", "0", "height is 0: use 1 to 4096"),
        ("width", "4097", "width is 4097: use 1 to 4096"),
        ("channels", "5", "channels is 5: use 1 to 4"),
        ("classes", "1", "classes is 1: use 2 to 1024"),
        ("deviation", "\"0\"", "images: a deviation of 0 is not above 0"),
        ("bad_rows_max", "16777217", "bad_rows_max is 16777217: use 0 to 16777216"),
    ] {
        assert_eq!(images(field, value).unwrap_err(), expected);
    }
    assert_eq!(images("height", "4096"), Ok(()), "more values than columns of a table");
    let DataDescription::Images(mut large) = toml_of(LARGE).unwrap() else { panic!("images") };
    assert_eq!(large.check(), Ok(()));
    large.height += 64;
    assert_eq!(large.check(), Err(DataDescriptionError::ImageValues(5 << 16)));
    let unknown = toml_of("kind = \"images\"\nsize = 28").unwrap_err();
    assert!(unknown.contains("unknown field `size`"), "{unknown}");
}

#[test]
fn every_rule_for_tables_is_checked() {
    assert_eq!(table(&format!("{FEATURES}{LABEL}")), Ok(()));
    let one_hot = |categories: &str| {
        format!("features = [{{ kind = \"one_hot\", column = \"pain\", categories = {categories} }}]\n{LABEL}")
    };
    let label = |label: &str| format!("{FEATURES}label = {{ column = \"sick\"{label} }}");
    let scaled = |columns: &str| {
        format!("kind = \"table\"\nmissing = \"error\"\nnormalize = {{ plan = {{ {columns} }} }}\n{FEATURES}{LABEL}")
    };
    let many = format!("{:?}", (0..=CATEGORIES_MAX).map(|number| number.to_string()).collect::<Vec<_>>());
    let cases = [
        (format!("features = []\n{LABEL}"), "records of 0 features: use 1 to 65536"),
        (one_hot("[\"a\"]"), "column \"pain\" has 1 categories: use 2 to 1024"),
        (one_hot(&many), "column \"pain\" has 1025 categories: use 2 to 1024"),
        (one_hot("[\"a\", \"b\", \"a\"]"), "\"a\" is listed twice for column \"pain\""),
        (label(""), "label \"sick\" needs either `positive_when` or `classes`"),
        (
            label(", classes = [\"a\", \"b\"], positive_when = { equals = [\"a\"] }"),
            "label \"sick\" needs either `positive_when` or `classes`",
        ),
        (label(", classes = [\"a\"]"), "column \"sick\" has 1 classes: use 2 to 1024"),
        (label(", positive_when = { equals = [] }"), "column \"sick\" has 0 positive texts: use 1 to 1024"),
        (format!("{FEATURES}{}", LABEL.replace("sick", "age")), "column \"age\" is used twice"),
        (
            format!("{FEATURES}{LABEL}\ngroup = {{ column = \"sex\", categories = [] }}"),
            "column \"sex\" has 0 groups: use 1 to 64",
        ),
        (
            format!("{FEATURES}{LABEL}\ngroup = {{ column = \"sex\", categories = [\"f\", \"\"] }}"),
            "\"\" cannot be the name of a group: use 1 to 64 bytes without control characters",
        ),
        (format!("{FEATURES}{LABEL}\nbad_rows_max = 16777217"), "bad_rows_max is 16777217: use 0 to 16777216"),
    ];
    for (toml, expected) in cases {
        assert_eq!(table(&toml).unwrap_err(), expected);
    }
    let scaled = |columns: &str| toml_of(&scaled(columns)).unwrap().check().map_err(|error| error.to_string());
    assert_eq!(scaled("age = { mean = \"50\", deviation = \"9.5\" }"), Ok(()));
    assert_eq!(
        scaled("age = { mean = \"50\", deviation = \"-1\" }").unwrap_err(),
        "age: a deviation of -1 is not above 0"
    );
    for columns in ["", "age = { mean = \"0\", deviation = \"1\" }, pain = { mean = \"0\", deviation = \"1\" }"] {
        assert!(scaled(columns).unwrap_err().starts_with("normalize.plan must list the numeric columns"), "{columns}");
    }
}

#[test]
fn a_missing_category_is_not_taken_for_the_first() {
    let text = format!("kind = \"table\"\nmissing = {{ constant = \"0\" }}\nnormalize = \"none\"\n{FEATURES}{LABEL}");
    let error = toml_of(&text).unwrap().check().unwrap_err();
    assert_eq!(error, DataDescriptionError::DroppedAndMissing("pain".to_owned()));
}

#[test]
fn a_group_may_be_a_feature_as_well() {
    let group = "group = { column = \"pain\", categories = [\"none\", \"some\", \"much\"] }";
    assert_eq!(table(&format!("{FEATURES}{LABEL}\n{group}")), Ok(()));
}
