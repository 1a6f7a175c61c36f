//! The demo as people run it, with nodes that are killed.

use serde_json::{Value, json};

use crate::{nodes::fedledger, sites, strings};

#[test]
fn the_demo_kills_a_replica_and_a_participant_and_names_who_was_missing() {
    let folder = tempfile::tempdir().unwrap();
    // Who trains for long is killed before it contributes.
    let chaos = ["kill-replica:hungarian@1", "slow:va@1", "kill-participant:va@1"];
    let chaos = chaos.iter().flat_map(|event| ["--chaos", event]);
    let demo = ["demo", "--rounds", "4", "--round-duration", "3", "--dir", "demo", "--json"];
    let output = fedledger(folder.path(), &demo.into_iter().chain(chaos).collect::<Vec<_>>());
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["verified"]["ok"], &summary["verified"]["versions_recomputed"]),
        (&true.into(), &5.into()),
        "{summary}"
    );

    let directory = folder.path().join("demo");
    let ask = |arguments: &[&str]| -> Value {
        let output = fedledger(&directory, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for (number, away) in [(1, true), (2, true), (3, false), (4, false)] {
        let told = &summary["rounds"][number - 1];
        let certificate = ask(&["round", "show", &number.to_string()]);
        assert_eq!((&certificate["phase"], &certificate["attempt"]), (&"completed".into(), &1.into()), "{certificate}");
        assert_eq!(told["contributed"], certificate["contributed"]);
        if away {
            let reason = certificate["missing"]["va"].as_str();
            assert!(reason.is_some_and(|reason| number == 1 || reason == "not_joined"), "{certificate}");
            assert_eq!(certificate["contributed"], json!(["cleveland", "hungarian", "switzerland"]));
            assert_eq!(told["missing"], json!([{ "member": "va", "reason": reason }]));
        } else {
            assert_eq!(strings(&certificate["contributed"]), sites(), "{certificate}");
        }
    }
    // The one that was killed has come back and lacks nothing.
    let report = ask(&["verify", "hungarian/replica"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &5.into()), "{report}");
}
