//! The command line by itself: usage, files that are missing or wrong, and what is printed.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const CONSORTIUM: &str = r#"
name = "heart"

[[members]]
id = "cleveland"
roles = ["replica", "participant", "operator"]
"#;

/// Runs the command line in a folder, without defaults from outside.
fn fedledger(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in
        ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
    {
        command.env_remove(variable);
    }
    command.current_dir(folder).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What stands on stderr, after the exit code has been checked.
fn failure(output: &Output, exit: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    assert!(output.stdout.is_empty(), "a failure printed a result: {}", stdout(output));
    stderr
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// A folder with a provisioned consortium in `kits`.
fn provisioned() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("consortium.toml"), CONSORTIUM).unwrap();
    let output = fedledger(folder.path(), &["provision", "consortium.toml", "--out", "kits"]);
    assert!(output.status.success(), "{output:?}");
    folder
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &["log", "--no-such-option"],
        &["show"],
        &["audit", "replay"],
        &["audit", "replay", "v1", "--all"],
        &["rollback", "--to", "v1"],
        &["tag", "best"],
        &["completions", "teletype"],
        &["plan", "start", "heart", "--wait-for", "certain"],
        &["events", "--level", "certain"],
    ] {
        assert_says(&failure(&fedledger(folder.path(), arguments), 2), &["error: ", "--help"]);
    }
}

#[test]
fn a_command_without_a_ledger_or_replica_says_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    let reading = failure(&fedledger(folder.path(), &["log"]), 2);
    assert_says(&reading, &["error: no ledger is given", "next:", "--ledger PATH", "--connect URL", "fedledger.toml"]);
    let writing = failure(&fedledger(folder.path(), &["plan", "start", "heart"]), 2);
    assert_says(&writing, &["needs a running replica", "--connect URL"]);
    let nameless = failure(&fedledger(folder.path(), &["log", "--connect", "https://127.0.0.1:1"]), 2);
    assert_says(&nameless, &["no identity is given", "--identity DIR"]);
}

#[test]
fn a_ledger_that_is_not_there_is_named() {
    let folder = provisioned();
    let output = fedledger(folder.path(), &["log", "--ledger", "elsewhere"]);
    assert_says(&failure(&output, 1), &["cannot open the ledger", "nothing at elsewhere"]);
    // A participant's directory holds none, and neither does a replica's that was never started.
    for node in ["kits/cleveland/participant", "kits/cleveland/replica"] {
        let output = fedledger(folder.path(), &["log", "--ledger", node]);
        assert_says(&failure(&output, 1), &[node, "holds no ledger"]);
    }
}

#[test]
fn version_and_manual_and_completions_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let output = fedledger(folder.path(), &["version", "--json"]);
    let version: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(version["schema"], "fedledger.program/1");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_says(&stdout(&fedledger(folder.path(), &["man"])), &[".TH fedledger", "rollback"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = fedledger(folder.path(), &["completions", shell]);
        assert!(output.status.success());
        assert_says(&stdout(&output), &["rollback", "with-blobs"]);
    }
}

#[test]
fn provisioning_tells_what_it_made_and_never_writes_over_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("consortium.toml"), CONSORTIUM).unwrap();
    let output = fedledger(folder.path(), &["provision", "consortium.toml", "--out", "kits", "--json"]);
    let made: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(made["schema"], "fedledger.provision/1");
    assert_eq!(made["members"][0]["nodes"][0]["name"], "cleveland/replica");
    assert_eq!(made["chain"].as_str().unwrap().len(), 64);

    let genesis = folder.path().join("kits/genesis.cbor");
    let before = fs::read(&genesis).unwrap();
    let again = fedledger(folder.path(), &["provision", "consortium.toml", "--out", "kits"]);
    assert_says(&failure(&again, 1), &["kits is not empty", "--force"]);
    assert_eq!(fs::read(&genesis).unwrap(), before);

    fs::create_dir(folder.path().join("foreign")).unwrap();
    fs::write(folder.path().join("foreign/thesis.tex"), "years of work").unwrap();
    let foreign = fedledger(folder.path(), &["provision", "consortium.toml", "--out", "foreign", "--force"]);
    assert_says(&failure(&foreign, 1), &["foreign", "not replaced even with --force"]);
}

#[test]
fn a_description_with_a_mistake_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("consortium.toml"), "name = \"heart\"\n[[members]]\nidd = \"x\"\n").unwrap();
    let output = fedledger(folder.path(), &["provision", "consortium.toml", "--out", "kits"]);
    assert_says(&failure(&output, 1), &["consortium.toml", "line 3", "idd"]);
    assert!(!folder.path().join("kits").exists());
    let output = fedledger(folder.path(), &["provision", "missing.toml", "--out", "kits"]);
    assert_says(&failure(&output, 1), &["cannot read missing.toml"]);
}

#[test]
fn a_node_is_started_only_from_its_own_kind_of_directory() {
    let folder = provisioned();
    let output = fedledger(folder.path(), &["--quiet", "coordinator", "--dir", "kits/cleveland/participant"]);
    assert_says(&failure(&output, 1), &["kits/cleveland/participant", "fedledger participant"]);
    let output = fedledger(folder.path(), &["--quiet", "participant", "--dir", "kits/cleveland/replica"]);
    assert_says(&failure(&output, 1), &["kits/cleveland/replica", "fedledger coordinator"]);
    let output = fedledger(folder.path(), &["--quiet", "coordinator", "--dir", "kits"]);
    assert_says(&failure(&output, 1), &["no node's directory"]);
    fs::remove_file(folder.path().join("kits/cleveland/replica/keys/log.key")).unwrap();
    let output = fedledger(folder.path(), &["--quiet", "coordinator", "--dir", "kits/cleveland/replica"]);
    assert_says(&failure(&output, 1), &["log.key is missing", "backup"]);
}

#[test]
fn a_replica_that_does_not_answer_is_named() {
    let folder = provisioned();
    let identity = "kits/cleveland/identity";
    // Nothing listens on port 1.
    let arguments = ["status", "--connect", "https://127.0.0.1:1", "--identity", identity];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 1), &["cannot reach https://127.0.0.1:1", "next:"]);
    let arguments = ["status", "--connect", "ftp://127.0.0.1:1", "--identity", identity];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 2), &["no API address"]);
    let arguments = ["status", "--connect", "https://127.0.0.1:1", "--identity", "kits/cleveland"];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 1), &["kits/cleveland is no identity"]);
}

#[test]
fn a_promise_is_for_what_is_not_waited_for() {
    let folder = provisioned();
    let arguments = ["plan", "approve", "x", "--promise", "kept", "--connect", "https://127.0.0.1:1"];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 2), &["not waited for", "--wait-for accepted"]);
}

#[test]
fn what_is_no_evidence_is_said_to_be_none_in_words() {
    let folder = provisioned();
    let genesis = "kits/genesis.cbor";
    let genesis = if folder.path().join(genesis).exists() { genesis } else { "kits/cleveland/identity/genesis.cbor" };
    let output = fedledger(folder.path(), &["evidence", "check", genesis, "--trust", genesis]);
    assert_eq!(output.status.code(), Some(3));
    assert_says(&stdout(&output), &["convicts nobody"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_says(&said, &["expected array, found an item that begins with 0x", "evidence make"]);
}

#[test]
fn of_several_replicas_each_is_tried() {
    let folder = provisioned();
    let identity = "kits/cleveland/identity";
    // Nothing listens on these ports.
    let urls = "https://127.0.0.1:1,https://127.0.0.1:2";
    let arguments = ["status", "--connect", urls, "--identity", identity];
    let said = failure(&fedledger(folder.path(), &arguments), 1);
    assert_says(&said, &["cannot reach https://127.0.0.1:1", "cannot reach https://127.0.0.1:2"]);
    assert_eq!(said.matches("of their consortium").count(), 1, "{said}");
    let arguments = ["status", "--connect", "https://127.0.0.1:1", "--connect", "ftp://b", "--identity", identity];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 2), &["no API address"]);
    // The defaults name every replica.
    let defaults = fs::read_to_string(folder.path().join("kits/fedledger.toml")).unwrap();
    assert_says(&defaults, &["connect = [\"https://127.0.0.1:7101\"]"]);
}

#[test]
fn a_rollback_that_waits_needs_an_entry_to_wait_for() {
    let folder = provisioned();
    let arguments = ["rollback", "--to", "v1", "--reason", "late", "--wait", "--wait-for", "accepted"];
    assert_says(&failure(&fedledger(folder.path(), &arguments), 2), &["--wait-for accepted", "next:", "committed"]);
}

#[test]
fn rounds_that_are_waited_for_are_numbered_from_one() {
    let folder = provisioned();
    assert_says(
        &failure(&fedledger(folder.path(), &["round", "watch", "--until", "0"]), 2),
        &["'0'", "--until <ROUND>"],
    );
}

#[test]
fn a_file_that_is_no_bundle_fails_verification_at_its_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "no bundle").unwrap();
    let output = fedledger(folder.path(), &["verify", "notes.txt", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["kind"], "malformed");
    assert_eq!(report["problems"][0]["offset"], 0);
    assert_says(&failure(&fedledger(folder.path(), &["verify", "missing.bundle"]), 1), &["nothing at missing.bundle"]);
}

#[test]
fn a_plan_with_a_mistake_is_refused_before_anything_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let propose = |text: &str| {
        fs::write(folder.path().join("plan.toml"), text).unwrap();
        failure(&fedledger(folder.path(), &["plan", "propose", "plan.toml"]), 1)
    };
    assert_says(&propose("name = \"heart\"\nrounds = \"many\"\n"), &["plan.toml is no plan", "line 2", "rounds"]);
    let plan = include_str!("consortium/plan.toml");
    assert_says(&propose(&plan.replace("rounds = 3", "rounds = 0")), &["plan.toml is no plan", "rounds is 0"]);
    assert_says(&propose(&plan.replace("\"0.001\"", "\"1e-3\"")), &["plain decimal number"]);
}
