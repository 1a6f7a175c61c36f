//! The walk-throughs in the documents, run as they stand there.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod document;
mod scans;

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use document::Walkthrough;

/// What a command prints as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    let output = command.current_dir(folder).args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_table_becomes_a_model_of_three_hospitals() {
    let walkthrough = Walkthrough::read("bring-your-csv.md");
    assert!(walkthrough.commands().len() > 15, "{:?}", walkthrough.commands());
    let folder = tempfile::tempdir().unwrap();
    let said = walkthrough.run(folder.path());
    for part in [
        "column patient_id is left out",
        "nothing was sent or kept",
        "layer0.weight",
        "5 parameters; widest layer",
        "consented to plan",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }

    // The nodes have stopped; one of the ledgers tells what they did.
    let ledger = folder.path().join("kits/oslo/replica");
    let versions = json(folder.path(), &["log", "--ledger", ledger.to_str().unwrap()]);
    let versions = versions.as_array().unwrap();
    assert_eq!(versions.len(), 11, "ten rounds after the initial weights");
    let newest = versions.iter().find(|version| version["number"] == 10).unwrap();
    assert_eq!(newest["contributors"], serde_json::json!(["lyon", "oslo", "porto"]));
    let accuracy = |number: u64| {
        let version = versions.iter().find(|version| version["number"] == number).unwrap();
        version["metrics"]["accuracy"].as_f64().unwrap()
    };
    assert!(accuracy(9) > 0.8 && accuracy(9) > accuracy(0), "{} after {}", accuracy(9), accuracy(0));
    assert!(fs::metadata(folder.path().join("model/weights.safetensors")).unwrap().len() > 0);
}

#[test]
fn images_become_a_model_of_three_hospitals() {
    let walkthrough = Walkthrough::read("images.md");
    assert!(walkthrough.commands().len() > 12, "{:?}", walkthrough.commands());
    let folder = tempfile::tempdir().unwrap();
    for (site, seed) in [("oslo", 1), ("lyon", 2), ("porto", 3)] {
        scans::write(&folder.path().join(site).with_extension("npz"), seed);
    }
    let said = walkthrough.run(folder.path());
    for part in [
        "120 images to train on, 40 to test on",
        "convolution0.weight",
        "nothing was sent or kept",
        "consented to plan",
        "everything is in order",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let ledger = folder.path().join("kits/porto/replica");
    let versions = json(folder.path(), &["log", "--ledger", ledger.to_str().unwrap()]);
    let versions = versions.as_array().unwrap();
    assert_eq!((versions.len(), &versions[0]["contributors"]), (11, &serde_json::json!(["lyon", "oslo", "porto"])));
    let metric = |number: u64, name: &str| {
        let version = versions.iter().find(|version| version["number"] == number).unwrap();
        version["metrics"][name].as_f64().unwrap()
    };
    assert!(metric(9, "accuracy") > 0.9 && metric(9, "auc") > 0.9, "{versions:?}");
    assert!(metric(9, "loss") < metric(0, "loss"), "{versions:?}");
    assert!(fs::metadata(folder.path().join("model/weights.safetensors")).unwrap().len() > 0);
}
