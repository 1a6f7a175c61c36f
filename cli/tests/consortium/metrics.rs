//! What the hospitals report of a version, as people and programs see it.

use serde_json::Value;

use crate::nodes::Consortium;

/// Names of a JSON object's fields.
fn names(value: &Value) -> Vec<&str> {
    value.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// The records have few women: of Cleveland's 34 in the test rows 9 are ill, of Hungary's 19 four, in Zurich and Basel there is
/// none, and three in Long Beach.
pub fn metrics_are_shown_with_intervals_and_groups_and_small_counts_are_not(consortium: &Consortium) {
    let version = consortium.json(&["show", "v3"]);
    let of = |site: &str| &version["evaluations"][site];
    // Whatever a model says, no number of the ill or the healthy can be computed from the loss alone.
    let by_row = ["loss"];
    for (site, examples, has_area) in
        [("cleveland", 104, true), ("hungarian", 89, true), ("switzerland", 16, false), ("va", 45, true)]
    {
        let report = of(site);
        assert_eq!(report["examples"], examples, "{site}");
        let metrics = &report["metrics"];
        if has_area {
            let end = |name: &str| metrics[name].as_i64().unwrap();
            assert!(end("auc_low") < end("auc") && end("auc") < end("auc_high"), "{site}: {metrics}");
            assert!((0..=1_000_000).contains(&end("f1")), "{site}: {metrics}");
        } else {
            assert_eq!(names(metrics), by_row, "one of {site}'s patients is healthy");
        }
    }
    assert_eq!(names(&of("cleveland")["groups"]), ["0", "1"]);
    assert_eq!(of("cleveland")["groups"]["0"]["examples"], 34);
    for site in ["cleveland", "hungarian"] {
        for group in ["0", "1"] {
            assert_eq!(names(&of(site)["groups"][group]["metrics"]), by_row, "few women are ill: {site}");
        }
    }
    assert_eq!(of("switzerland")["groups"]["1"]["examples"], 16, "all are men");
    assert_eq!(of("va").get("groups"), None, "three women: the men would tell of them");
    assert_eq!(version["groups"]["0"]["examples"], 34 + 19);
    assert!(version["metrics"]["auc_low"].as_f64() < version["metrics"]["auc"].as_f64());

    let round = consortium.json(&["round", "show", &version["round"].to_string()]);
    assert_eq!(round["evaluations"], version["evaluations"]);
    let diff = consortium.json(&["diff", "v1", "v3"]);
    assert!(diff["groups"]["0"]["loss"]["change"].is_f64() && diff["metrics"]["auc_high"]["to"].is_f64());

    let (show, round) = (consortium.ok(&["show", "v3"]), consortium.ok(&["round", "show", "3"]));
    for text in [&show, &round] {
        let line = text.lines().find(|line| line.starts_with("evaluated    cleveland: 104 examples")).unwrap();
        assert!(line.contains("auc=0.") && line.contains('[') && !line.contains("auc_low"), "{line}");
        let heading: Vec<&str> = "member group examples accuracy auc calibration_error f1 loss".split(' ').collect();
        assert!(text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == heading), "{text}");
        assert!(text.lines().any(|line| line.split_whitespace().take(3).eq(["cleveland", "0", "34"])), "{text}");
    }
    assert!(consortium.ok(&["log", "-n", "1"]).contains("calibration_error="));
    let diff = consortium.ok(&["diff", "v1", "v3"]);
    assert!(diff.lines().any(|line| line.split_whitespace().take(2).eq(["0", "loss"])), "{diff}");
    let area = diff.lines().find(|line| line.starts_with("auc ")).unwrap();
    assert_eq!(area.matches("..").count(), 2, "both with their intervals: {area}");
    let events = consortium.ok(&["events"]);
    let report = events.lines().find(|line| line.contains("cleveland") && line.contains("examples=104")).unwrap();
    assert!(report.contains("accuracy=") && report.contains("groups=0,1"), "{report}");
}
