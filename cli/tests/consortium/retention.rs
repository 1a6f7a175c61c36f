//! Files that the members do not keep: pruned on record, deleted by every replica, and told from files that are lost.

use std::{fs, path::Path};

use crate::{
    PLAN,
    nodes::{Consortium, SITES},
};

/// Rounds of the plan.
const ROUNDS: usize = 6;

#[test]
fn only_what_the_members_keep_stays_on_the_replicas() {
    let mut consortium = Consortium::start();
    consortium.wait(&["status"], |status| status["leader"].is_string());
    the_members_decide_what_is_kept(&consortium);
    let plan = consortium.start_plan(&PLAN.replace("rounds = 3", &format!("rounds = {ROUNDS}")));
    consortium.wait(&["branch"], |branches| branches.as_array().is_some_and(|all| !all.is_empty()));
    consortium.json(&["pin", "main", "--reason", "the first one"]);
    let pinned = consortium.json(&["log"]);
    let pinned = pinned.as_array().unwrap().iter().find(|row| row["pinned"] == true).unwrap()["number"].as_u64();
    consortium.json(&["pin", &pinned.unwrap().to_string(), "--off", "--reason", "it was only a trial"]);
    consortium.wait_for_plan(&plan, "finished");
    // Weights of the last two versions, and the updates of the last one.
    for site in SITES {
        let blobs = consortium.kits().join(site).join("replica/blobs");
        consortium.wait(&["status"], |_| files_in(&blobs) == 2 + SITES.len());
    }
    let status = consortium.json(&["status"]);
    let kept = ["attested", "with_files", "with_updates"].map(|field| status["retention"][field].as_u64());
    assert_eq!(kept, [Some(ROUNDS as u64 + 1), Some(2), Some(1)], "{status}");
    assert!(consortium.ok(&["status"]).contains("the weights of the newest 2 and the updates of the newest 1"));
    what_was_pruned_is_told(&consortium);
    consortium.stop();
    let report = consortium.json(&["verify", "va/replica", "--trust", "genesis.cbor"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &2.into()), "{report}");
}

fn the_members_decide_what_is_kept(consortium: &Consortium) {
    let change = ["proposal", "new", "change-retention", "--updates", "1", "--versions"];
    let refused = consortium.fails(&[&change[..], &["1", "--reason", "little room"]].concat(), 4);
    assert!(refused.contains("retention_too_short"), "{refused}");
    let proposed = consortium.json(&[&change[..], &["2", "--reason", "little room"]].concat());
    let id = proposed["proposal"].as_str().unwrap();
    assert!(consortium.ok(&["proposal", "show", id]).contains("the weights of the newest 2"));
    for (site, status) in [("hungarian", "open"), ("switzerland", "executed")] {
        let identity = format!("{site}/identity");
        let voted = consortium.json(&["proposal", "vote", id, "--approve", "--identity", &identity]);
        assert_eq!(voted["status"], status, "{site}");
    }
}

fn what_was_pruned_is_told(consortium: &Consortium) {
    let shown = consortium.json(&["show", "v1"]);
    let (files, updates) = (&shown["pruned"]["files"], &shown["pruned"]["updates"]);
    assert!(files.is_u64() && updates.is_u64() && shown["pinned"] == false, "{shown}");
    let refused = consortium.fails(&["checkout", "v1", "--out", "../v1"], 1);
    assert!(refused.contains(&format!("pruned at entry {files}")), "{refused}");
    consortium.json(&["checkout", "main", "--out", "../main"]);
    for arguments in [&["rollback", "--to", "v1"][..], &["pin", "v1"], &["branch", "move", "production", "v1"]] {
        let refused = consortium.fails(&[arguments, &["--reason", "back"]].concat(), 4);
        assert!(refused.contains("files_pruned"), "{refused}");
    }

    let report = consortium.json(&["verify"]);
    assert_eq!((&report["ok"], &report["problems"]), (&true.into(), &serde_json::json!([])));
    let skipped = report["versions_skipped"].as_array().unwrap();
    // The initial version needs no files, and the last one has its updates and its base.
    assert_eq!(skipped.len(), ROUNDS - 1, "{report}");
    for version in skipped {
        let reason = version["reason"].as_str().unwrap();
        assert!(reason.contains("pruned by policy at entry") && reason.contains("by attestation only ("), "{reason}");
    }
    let rows = consortium.json(&["audit", "contributions", "--round", "1"]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["pruned"] == *updates && row["norm"].is_null()), "{rows}");

    let exported = consortium.json(&["export", "--with-blobs", "--out", "../pruned.bundle"]);
    assert_eq!(exported["missing"], serde_json::json!([]));
    assert_eq!(exported["blobs"], 2 + SITES.len());
    assert_eq!(exported["pruned"], (ROUNDS - 1) * (SITES.len() + 1), "{exported}");
    let report = consortium.json(&["verify", "../pruned.bundle", "--trust", "genesis.cbor"]);
    assert_eq!((&report["ok"], &report["versions_skipped"]), (&true.into(), &serde_json::json!(skipped)));
}

/// Whole files in a blob folder.
fn files_in(blobs: &Path) -> usize {
    let folders = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| !path.ends_with("incoming"));
    folders.map(|folder| fs::read_dir(folder).unwrap().count()).sum()
}
