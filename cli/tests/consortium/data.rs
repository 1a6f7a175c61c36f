//! Plans that describe their data: rows that cannot be read are skipped, and everybody is told of it.

use std::{fs, io::Write as _};

use serde_json::{Value, json};

use crate::{
    PLAN,
    nodes::{Consortium, SITES},
};

/// How the hospitals describe their records for plans that do not.
const SCHEMA: &str = include_str!("../../../simulations/data/heart.schema.toml");

/// What a site says that leaves it to plans what is done to its records: which are kept for testing, and what a column is
/// called.
const SPLIT: &str =
    "columns = { years = \"age\" }\nsplit = { kind = \"test_rows\", file = \"heart_test_rows.json\" }\n";

/// The plan of the other tests, which describes its data and lets a site skip so many rows.
fn described_plan(bad_rows_max: u64) -> String {
    let (description, _) = SCHEMA.split_once("[split]").unwrap();
    let named = description.replace("column = \"age\"", "column = \"years\"");
    let nested = |text: String, name: &str| text.replace(&format!("[{name}]"), &format!("[data.{name}]"));
    let part = ["label", "group"].into_iter().fold(named.replace("[[features]]", "[[data.features]]"), nested);
    format!("{PLAN}\n[data]\nkind = \"table\"\nbad_rows_max = {bad_rows_max}\n{part}")
}

/// Gives va two rows that cannot be read, and every site a schema that knows the plans' columns.
fn change_records(consortium: &mut Consortium) {
    for site in SITES {
        let name = format!("{site}/participant");
        consortium.stop_node(&name);
        let directory = consortium.kits().join(&name);
        let schema = if site == "va" { SPLIT.to_owned() } else { format!("columns = {{ years = \"age\" }}\n{SCHEMA}") };
        fs::write(directory.join("schema.toml"), schema).unwrap();
        if site == "va" {
            let mut records = fs::File::options().append(true).open(directory.join("data.csv")).unwrap();
            records.write_all(b"va,old,1,1,145,233,1,2,150,0,2.3,3,0,6,0\nva,1,1\n").unwrap();
        }
        consortium.start_again(&name);
    }
}

#[test]
fn rows_that_cannot_be_read_are_skipped_and_shown_to_everybody() {
    let mut consortium = Consortium::start_with(|_| String::new());
    consortium.wait(&["status"], |status| status["leader"].is_string());
    change_records(&mut consortium);
    doctor_reads_records_as_plans_describe_them(&consortium);

    let plan = consortium.start_plan(&described_plan(2));
    consortium.wait_for_plan(&plan, "finished");
    let skipped = json!({"field_count": 1, "not_a_number": 1});
    let round = consortium.json(&["round", "show", "1"]);
    assert_eq!(round["skipped_rows"], json!({"va": skipped}));
    let shown = consortium.ok(&["round", "show", "1"]);
    assert!(shown.contains("skipped      rows of va: field_count=1,not_a_number=1"), "{shown}");
    let rows = consortium.json(&["audit", "contributions", "--round", "1"]);
    for row in rows.as_array().unwrap() {
        let expected = if row["member"] == "va" { &skipped } else { &Value::Null };
        assert_eq!(&row["skipped_rows"], expected, "{row}");
    }
    assert!(consortium.ok(&["audit", "contributions"]).contains("field_count=1,not_a_number=1"));
    assert!(consortium.log_of("va/participant").contains("records were skipped because they cannot be read"));
    consortium.stop();
}

fn doctor_reads_records_as_plans_describe_them(consortium: &Consortium) {
    for (name, bad_rows_max) in [("strict", 1), ("lenient", 2)] {
        let file = consortium.path(&format!("{name}.toml"));
        fs::write(&file, described_plan(bad_rows_max).replacen("\"heart\"", &format!("\"{name}\""), 1)).unwrap();
        consortium.json(&["plan", "propose", file.to_str().unwrap()]);
    }
    let report: Value =
        serde_json::from_slice(&consortium.run(&["doctor", "--dir", "va/participant", "--json"]).stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let found = |subject: &str| {
        let check = checks.iter().find(|check| check["topic"] == "data" && check["subject"] == subject);
        let check = check.unwrap_or_else(|| panic!("{subject} is missing in {report}"));
        (check["state"].as_str().unwrap(), check["found"].as_str().unwrap())
    };
    let own = checks.iter().find(|check| check["topic"] == "data").unwrap();
    assert_eq!(own["state"], "ok", "{own}");
    let (state, strict) = found("as strict describes them");
    assert_eq!(state, "warn");
    assert!(strict.contains("more than 1 rows cannot be read") && strict.contains("has 3 fields"), "{strict}");
    let (state, lenient) = found("as lenient describes them");
    assert_eq!(state, "warn");
    assert!(lenient.contains("skipped because they cannot be read: field_count=1,not_a_number=1"), "{lenient}");
}
