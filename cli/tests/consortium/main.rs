//! A consortium of real processes, from its description to the audit of what it did, through the command line only.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

mod data;
mod demo;
mod failover;
mod faults;
mod flow;
mod leaders;
mod metrics;
mod nodes;
mod participants;
mod plans;
mod retention;
mod traces;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use fedledger_ledger::tiles::{Tile, root_from_tiles};
use serde_json::Value;

use nodes::{Consortium, SITES, fedledger};

const PLAN: &str = include_str!("plan.toml");

/// Bytes between two that are damaged, so that every part of a bundle is hit.
const DAMAGE_STEP: usize = 1499;

#[test]
fn four_hospitals_train_and_everything_can_be_looked_at_verified_and_taken_back() {
    let mut consortium = Consortium::start();
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let plan = consortium.start_plan(PLAN);
    consortium.wait_for_plan(&plan, "finished");
    consortium.wait(&["show", "v3"], |version| version["evaluations"].as_object().is_some_and(|all| all.len() == 4));

    the_consortium_tells_where_it_stands(&consortium, &plan);
    versions_are_read_compared_and_checked_out(&consortium);
    metrics::metrics_are_shown_with_intervals_and_groups_and_small_counts_are_not(&consortium);
    the_history_is_audited(&consortium);
    the_bundle_alone_tells_the_same(&consortium);
    the_log_is_there_as_static_files(&consortium);
    what_is_not_permitted_is_refused(&consortium);
    training_goes_on_from_where_it_was_rolled_back_to(&consortium);
    a_running_plan_follows_a_rollback(&consortium);

    consortium.stop();
    the_stopped_ledger_is_still_read(&consortium);
}

#[test]
fn the_members_decide_together() {
    let mut consortium = Consortium::start();
    consortium.wait(&["status"], |status| status["leader"].is_string());
    let change = ["proposal", "new", "change-policy", "--finality-threshold", "4", "--reason", "all co-sign"];
    let proposed = consortium.json(&[&change[..], &["--identity", "switzerland/identity"]].concat());
    assert_eq!((&proposed["status"], &proposed["action"]), (&"open".into(), &"change_policy".into()));
    let id = proposed["proposal"].as_str().unwrap().to_owned();
    let again = ["proposal", "vote", &id[..10], "--reject", "--identity", "switzerland/identity"];
    assert!(consortium.fails(&again, 4).contains("already_voted"));

    let shown = consortium.json(&["proposal", "show", &id[..10]]);
    assert_eq!((&shown["schema"], &shown["proposal"]), (&"fedledger.proposal/1".into(), &id.as_str().into()));
    assert_eq!(shown["tally"]["needed"], 3);
    assert_eq!(shown["changes"]["finality_threshold"], serde_json::json!([3, 4]));
    assert!(consortium.ok(&["proposal", "show", &id]).contains("4 of 4 replicas make a head final"));
    for (site, status) in [("hungarian", "open"), ("cleveland", "executed")] {
        let identity = format!("{site}/identity");
        let voted = consortium.json(&["proposal", "vote", &id, "--approve", "--identity", &identity]);
        assert_eq!(voted["status"], status, "{site}");
    }
    let listed = consortium.json(&["proposal", "list"]);
    assert_eq!((&listed[0]["status"], &listed[0]["changes"]), (&"executed".into(), &Value::Null));
    assert_eq!(consortium.json(&["proposal", "list", "--open"]), serde_json::json!([]));

    let late = consortium.unlocking("va", &["proposal", "vote", &id, "--approve", "--identity", "va/identity"]);
    let late: Vec<&str> = late.iter().map(String::as_str).collect();
    assert!(consortium.fails(&late, 4).contains("proposal_closed"));
    let revoke = ["member", "revoke", "va", "--reason", "left"];
    assert!(
        consortium.fails(&revoke, 4).contains("threshold_impossible"),
        "three replicas cannot give four signatures"
    );
    consortium.fails(&["proposal", "vote", &id], 2);
    consortium.fails(&["proposal", "show", "ffff"], 1);
    assert_eq!(consortium.json(&["member", "show", "va"])["revoked_index"], Value::Null);
    traces::evidence_is_recorded_and_a_promise_is_kept(&consortium);
    consortium.stop();
}

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn sites() -> BTreeSet<String> {
    SITES.iter().map(|site| (*site).to_owned()).collect()
}

/// The version with this number in what `log` says.
fn numbered(log: &Value, number: u64) -> &Value {
    let rows = log.as_array().unwrap();
    rows.iter().find(|row| row["number"] == number).unwrap_or_else(|| panic!("v{number} is missing in {log}"))
}

fn the_consortium_tells_where_it_stands(consortium: &Consortium, plan: &str) {
    let status = consortium.json(&["status"]);
    assert_eq!((&status["schema"], &status["live"]), (&"fedledger.status/1".into(), &true.into()));
    assert_eq!(status["replicas"].as_array().unwrap().len(), 4);
    let (size, last) = (status["log"]["size"].as_u64().unwrap(), status["log"]["final"].as_u64().unwrap());
    assert!(0 < last && last <= size, "{last} of {size} entries are final");
    assert_eq!(status["branches"][0]["number"], 3);
    assert_eq!(status["plans"][0]["status"], "finished");

    let rounds = consortium.json(&["round", "list", "--plan", plan]);
    let completed: Vec<&Value> = rounds.as_array().unwrap().iter().filter(|row| row["phase"] == "completed").collect();
    assert_eq!(completed.len(), 3, "{rounds}");
    for row in completed {
        assert_eq!(strings(&row["contributed"]), sites());
    }
    let round = consortium.json(&["round", "show", "2"]);
    assert_eq!((&round["schema"], &round["round"]), (&"fedledger.round/1".into(), &2.into()));
    assert_eq!(strings(&round["cohort"]), sites());

    let members = consortium.json(&["member", "list"]);
    assert_eq!(members.as_array().unwrap().len(), 4);
    assert_eq!(consortium.json(&["member", "show", "va"])["id"], "va");

    let events = consortium.json(&["events", "--from", "1"]);
    let events = events.as_array().unwrap();
    assert_eq!(events.first().unwrap()["kind"], "Seal", "the genesis file is sealed first");
    assert!(events.iter().any(|event| event["kind"] == "ProposePlan"));
    assert!(events.iter().zip(1..).all(|(event, index): (&Value, u64)| event["index"] == index));
    assert!(events.iter().filter(|event| event["kind"] == "Contribute").count() >= 12);
}

fn versions_are_read_compared_and_checked_out(consortium: &Consortium) {
    let log = consortium.wait(&["log"], |log| log.as_array().unwrap().iter().all(|row| row["final"] == true));
    assert_eq!(log.as_array().unwrap().len(), 4);
    for number in 1..4 {
        let row = numbered(&log, number);
        assert_eq!(row["parents"][0], numbered(&log, number - 1)["version"]);
        assert_eq!(strings(&row["contributors"]), sites());
    }
    assert_eq!(numbered(&log, 3)["branch_heads"][0], "main");
    assert_eq!(consortium.json(&["log", "main", "-n", "2"]).as_array().unwrap().len(), 2);

    // Every way to name a version.
    let id = numbered(&log, 2)["version"].as_str().unwrap();
    for name in ["v2", "2", id, &id[..20]] {
        assert_eq!(consortium.json(&["show", name])["version"], id);
    }
    assert_eq!(consortium.json(&["show", "main"])["number"], 3);
    assert!(consortium.fails(&["show", "bafy"], 1).contains("ambiguous"));
    let stderr = consortium.fails(&["show", "v9"], 1);
    assert!(stderr.contains("there is no version") && stderr.contains("fedledger log"), "{stderr}");

    let diff = consortium.json(&["diff", "v0", "v3"]);
    assert!(diff["tensors"][0]["norm"].as_f64().unwrap() > 0.0);
    assert_eq!(strings(&diff["contributors"]["added"]), sites());

    let checkout = consortium.json(&["checkout", "v3", "--out", "../v3"]);
    let manifest: Value = serde_json::from_slice(&fs::read(consortium.path("v3/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["parents"][0], numbered(&log, 2)["version"]);
    assert!(checkout["files"]["weights.safetensors"].is_string());
    assert!(fs::metadata(consortium.path("v3/weights.safetensors")).unwrap().len() > 0);
    assert!(consortium.fails(&["checkout", "v3", "--out", "../v3"], 1).contains("not empty"));
}

fn the_history_is_audited(consortium: &Consortium) {
    let rows = consortium.json(&["audit", "contributions"]);
    assert_eq!(rows.as_array().unwrap().len(), 12);
    for row in rows.as_array().unwrap() {
        assert_eq!((&row["verdict"], &row["signature"]), (&"aggregated".into(), &"valid".into()));
        assert!(row["norm"].as_f64().unwrap() > 0.0, "the update was not read: {row}");
    }
    let of_va = consortium.json(&["audit", "contributions", "--member", "va", "--round", "2"]);
    assert_eq!(of_va.as_array().unwrap().len(), 1);
    let stderr = consortium.fails(&["audit", "contributions", "--member", "vaa"], 1);
    assert!(stderr.contains("there is no member") && stderr.contains("cleveland"), "{stderr}");
    let stderr = consortium.fails(&["audit", "contributions", "--round", "4"], 1);
    assert!(stderr.contains("there is no round 4") && stderr.contains("so far: 3"), "{stderr}");
    let replayed = consortium.json(&["audit", "replay", "--all"]);
    assert_eq!(replayed.as_array().unwrap().len(), 4);
    assert!(replayed.as_array().unwrap().iter().all(|row| row["result"] == "match"), "{replayed}");

    // The running replica, and what lies on its disk.
    for arguments in [&["verify"][..], &["verify", "hungarian/replica", "--trust", "genesis.cbor"]] {
        let report = consortium.json(arguments);
        assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &4.into()), "{report}");
    }
    // Another consortium's genesis file is not trusted.
    consortium.ok(&["provision", "../consortium.toml", "--out", "../other"]);
    let stderr = consortium.fails(&["verify", "va/replica", "--trust", "../other/genesis.cbor"], 3);
    assert!(stderr.contains("genesis_mismatch"), "{stderr}");
}

fn the_bundle_alone_tells_the_same(consortium: &Consortium) {
    let exported = consortium.json(&["export", "--with-blobs", "--out", "../heart.bundle"]);
    assert_eq!(exported["missing"].as_array().unwrap().len(), 0);
    assert!(consortium.fails(&["export", "--out", "../heart.bundle"], 1).contains("exists already"));

    // A folder in which nothing is known of the consortium.
    let elsewhere = tempfile::tempdir().unwrap();
    let bundle = elsewhere.path().join("heart.bundle");
    fs::copy(consortium.path("heart.bundle"), &bundle).unwrap();
    let alone = |arguments: &[&str]| -> Value {
        let output = fedledger(elsewhere.path(), &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let report = alone(&["verify", "heart.bundle"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &4.into()), "{report}");
    assert_eq!(report["genesis_trusted"], false);
    let from_bundle = ["--ledger", "heart.bundle"];
    for arguments in [&["log"][..], &["show", "v2"], &["audit", "replay", "--all"], &["audit", "contributions"]] {
        assert_eq!(alone(&[arguments, &from_bundle].concat()), consortium.json(arguments), "{arguments:?}");
    }

    let to_v1 = consortium.json(&["export", "--to", "v1", "--with-blobs", "--out", "../v1.bundle"]);
    assert!(to_v1["blobs"].as_u64() < exported["blobs"].as_u64(), "later files are left out");
    assert_eq!(to_v1["entries"], exported["entries"], "entries never are: a checkpoint covers all of them");
    let report = consortium.json(&["verify", "../v1.bundle"]);
    assert_eq!((&report["ok"], &report["versions_recomputed"]), (&true.into(), &2.into()), "{report}");

    let sound = fs::read(&bundle).unwrap();
    for position in (0..sound.len()).step_by(DAMAGE_STEP) {
        let mut damaged = sound.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&bundle, damaged).unwrap();
        let output = fedledger(elsewhere.path(), &["verify", "heart.bundle", "--json"]);
        assert_eq!(output.status.code(), Some(3), "byte {position}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let named = |problem: &Value| problem["index"].is_u64() || problem["offset"].is_u64();
        assert!(report["problems"].as_array().unwrap().iter().any(named), "byte {position}: {report}");
    }
}

fn the_log_is_there_as_static_files(consortium: &Consortium) {
    let exported = consortium.json(&["export", "--tiles", "../tiles"]);
    let size = exported["entries"].as_u64().unwrap();
    let read = |tile: &Tile| fs::read(consortium.path("tiles").join(tile.to_string()));
    assert_eq!(root_from_tiles(size, read).unwrap().to_string(), exported["root"]);

    // The same from the web server of another replica.
    let config = fs::read_to_string(consortium.kits().join("va/replica/node.toml")).unwrap();
    let address = config.lines().find_map(|line| line.strip_prefix("http = \"")?.strip_suffix('"')).unwrap();
    let get = |path: &str| {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let headers = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.0 200 "), "{path}: {}", String::from_utf8_lossy(&answer[..headers]));
        Ok::<_, std::convert::Infallible>(answer[headers + 4..].to_vec())
    };
    assert!(get("checkpoint").unwrap().starts_with(b"fedledger/heart\n"));
    assert_eq!(get("readyz").unwrap(), b"ok\n");
    let root = root_from_tiles(size, |tile: &Tile| get(&tile.to_string())).unwrap();
    assert_eq!(root.to_string(), exported["root"]);
}

fn what_is_not_permitted_is_refused(consortium: &Consortium) {
    // Only the operator starts plans and moves branches; the refusal stands on the ledger.
    let arguments = ["rollback", "--to", "v1", "--reason", "mine", "--identity", "va/identity"];
    let stderr = consortium.fails(&consortium.unlocking("va", &arguments), 4);
    assert!(stderr.contains("not_permitted") && stderr.contains("operator"), "{stderr}");
    let events = consortium.json(&["events"]);
    let mut events = events.as_array().unwrap().iter();
    let refused = events.rfind(|event| event["kind"] == "MoveBranch").unwrap();
    assert_eq!(refused["outcome"], "not_permitted");
    assert_eq!(refused["author"]["member"], "va");

    let stderr = consortium.fails(&["plan", "approve", "heart"], 4);
    assert!(stderr.contains("already_consented"), "{stderr}");

    // A directory serves one process.
    for (command, node) in [("coordinator", "va/replica"), ("participant", "va/participant")] {
        let stderr = consortium.fails(&consortium.unlocking("va", &["--quiet", command, "--dir", node]), 1);
        assert!(stderr.contains(node) && stderr.contains("in use"), "{stderr}");
    }

    // People of another consortium do not even get an answer.
    let stderr = consortium.fails(&["status", "--connect", &url(consortium), "--identity", "../other/va/identity"], 1);
    assert!(stderr.contains("cannot reach") && stderr.contains("identity"), "{stderr}");
}

/// The API that the defaults name.
fn url(consortium: &Consortium) -> String {
    let defaults = fs::read_to_string(consortium.kits().join("fedledger.toml")).unwrap();
    let line = defaults.lines().find(|line| line.starts_with("connect")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

fn training_goes_on_from_where_it_was_rolled_back_to(consortium: &Consortium) {
    let before = consortium.json(&["log"]);
    let arguments = ["rollback", "--to", "v1", "--reason", "site data were wrong", "--revoke", "--wait"];
    let moved = consortium.json(&arguments);
    assert_eq!((&moved["outcome"], &moved["to"]), (&"accepted".into(), &numbered(&before, 1)["version"]));
    let stderr = consortium.fails(&["rollback", "--to", "v1", "--reason", "once more"], 1);
    assert!(stderr.contains("main is at v1 already"), "{stderr}");
    let stderr = consortium.fails(&["rollback", "--to", "v3", "--reason", "forwards"], 1);
    assert!(stderr.contains("v3 does not lie behind the head of main"), "{stderr}");
    let after = consortium.json(&["log"]);
    assert_eq!(after.as_array().unwrap().len(), 4, "nothing disappears: {after}");
    assert_eq!(numbered(&after, 1)["branch_heads"][0], "main");
    assert_eq!(numbered(&after, 3)["state"], "revoked");
    assert_eq!(numbered(&after, 3)["revocation"], "site data were wrong");
    assert!(consortium.ok(&["log"]).contains("main moved from v3 to v1 by cleveland"));
    assert!(consortium.fails(&["checkout", "v3", "--out", "../revoked"], 4).contains("site data were wrong"));

    let again = PLAN.replace("name = \"heart\"", "name = \"heart-again\"").replace("rounds = 3", "rounds = 2");
    let plan = consortium.start_plan(&again);
    consortium.wait_for_plan(&plan, "finished");
    consortium.json(&["tag", "best", "v5"]);
    consortium.json(&["branch", "move", "production", "best", "--reason", "approved by the board"]);
    assert_eq!(consortium.json(&["show", "production"])["tags"][0], "best");
    assert_eq!(consortium.json(&["show", "best"])["state"], "production");
    let log = consortium.json(&["log"]);
    let first = numbered(&log, 4);
    assert_eq!((&first["plan"], &first["round"]), (&plan.as_str().into(), &1.into()));
    assert_eq!(first["parents"][0], numbered(&log, 1)["version"], "the participants did not train on v1");
    assert_eq!(consortium.json(&["log", "main"]).as_array().unwrap().len(), 4, "v5, v4, v1, v0");
    let replayed = consortium.json(&["audit", "replay", "v4"]);
    assert_eq!(replayed[0]["result"], "match");
}

/// Participants turn to the restored version while a plan runs, without being told.
fn a_running_plan_follows_a_rollback(consortium: &Consortium) {
    let long = PLAN.replace("name = \"heart\"", "name = \"heart-long\"").replace("rounds = 3", "rounds = 100000");
    let rounds = consortium.watch(&["round", "watch"]);
    let entries = consortium.watch(&["events", "--follow", "--from", "2"]);
    assert_eq!(entries.until(|_| true)["index"], 2);
    let plan = consortium.start_plan(&long);
    let of_plan = |row: &Value| row["plan"] == plan.as_str() && row["round"].as_u64() >= Some(2);
    let completed = rounds.until(|row| of_plan(row) && row["phase"] == "completed");
    assert_eq!(strings(&completed["contributed"]), sites());
    entries.until(|entry| entry["kind"] == "Evaluate" && entry["payload"]["version"] == completed["version"]);
    let status = consortium.watch(&["status", "--watch"]);
    status.until(|status| status["plans"][2]["round"]["phase"] == "collecting");
    let moved = consortium.json(&["rollback", "--to", "v4", "--reason", "overfitted", "--wait"]);
    let opened = moved["next_round_index"].as_u64().unwrap();
    consortium.json(&["plan", "stop", "heart-long", "--reason", "enough"]);
    consortium.wait_for_plan(&plan, "stopped");
    let events = consortium.json(&["events", "--from", &opened.to_string()]);
    assert_eq!(events[0]["kind"], "OpenRound");
    assert_eq!(events[0]["payload"]["base"], moved["to"]);
}

fn the_stopped_ledger_is_still_read(consortium: &Consortium) {
    // The defaults name the replica, which is gone, and its directory.
    let output = consortium.run(&["log", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"));
    let logs: Vec<Value> =
        SITES.iter().map(|site| consortium.json(&["log", "--ledger", &format!("{site}/replica")])).collect();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), logs[0]);
    let report = consortium.json(&["verify", "cleveland/replica"]);
    assert_eq!(report["ok"], true, "{report}");
    // A candidate on the table when the plan was stopped was withdrawn; every other version is computed again.
    let skipped = report["versions_skipped"].as_array().unwrap();
    assert!(
        skipped.iter().all(|version| version["reason"] == "it was withdrawn before a majority of replicas attested it"),
        "{report}"
    );
    assert_eq!(consortium.json(&["status"])["live"], false);
    assert!(consortium.run(&["--quiet", "log"]).stderr.is_empty(), "a quiet command made a remark");

    // The same for people.
    for (arguments, part) in [
        (&["status"][..], "no replica was asked"),
        (&["log", "--graph"], "| * v3"),
        (&["show", "v1"], "attested by"),
        (&["diff", "v0", "v1"], "layer0.weight"),
        (&["plan", "list"], "heart-again"),
        (&["plan", "show", "heart"], "learning_rate"),
        (&["round", "list"], "completed"),
        (&["round", "show", "1"], "enrolled"),
        (&["member", "show", "cleveland"], "operator"),
        (&["branch"], "main"),
        (&["tag"], "best"),
        (&["events"], "Contribute"),
        (&["audit", "contributions"], "aggregated"),
        (&["audit", "replay", "v1"], "match"),
        (&["verify"], "everything is in order"),
    ] {
        let text = consortium.ok(arguments);
        assert!(text.contains(part), "{part:?} is missing in what {arguments:?} says: {text}");
        assert!(!text.contains('\u{1b}'), "colours without a terminal: {text}");
    }
}
