//! Keys that are made on site, through the command line.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const CONSORTIUM: &str = "name = 'heart'\n[[members]]\nid = 'cleveland'\nroles = ['replica', 'operator']\n\
                          [[members]]\nid = 'va'\nroles = ['replica', 'participant']\n";

const PASSPHRASE: &str = "kept in the hospital's safe";

/// Runs the command line in a folder, perhaps with a passphrase in its environment.
fn fedledger(folder: &Path, passphrase: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in
        ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
    {
        command.env_remove(variable);
    }
    command.envs(passphrase.map(|passphrase| ("FEDLEDGER_PASSPHRASE", passphrase)));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn ok(folder: &Path, passphrase: Option<&str>, arguments: &[&str]) -> Value {
    let output = fedledger(folder, passphrase, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(folder: &Path, passphrase: Option<&str>, arguments: &[&str], exit: i32, parts: &[&str]) {
    let output = fedledger(folder, passphrase, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is missing in: {stderr}");
    }
}

/// A folder in which `va` has drawn keys for these roles, perhaps encrypted, and asks for admission.
fn asked(roles: &str, passphrase: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("consortium.toml"), CONSORTIUM).unwrap();
    ok(at, passphrase, &["identity", "new", "--member", "va", "--role", roles, "--dir", "site"]);
    ok(at, passphrase, &["identity", "request", "--dir", "site", "--out", "va.toml"]);
    folder
}

#[test]
fn keys_stay_on_site_from_the_request_to_the_start() {
    let folder = asked("replica,participant", Some(PASSPHRASE));
    let at = folder.path();
    let asked = ok(at, Some(PASSPHRASE), &["identity", "request", "--dir", "site", "--out", "va.toml"]);
    let checked = ok(at, None, &["identity", "approve", "va.toml"]);
    assert_eq!(checked[0]["fingerprint"], asked["fingerprint"], "what is compared over the telephone");

    let made = ok(at, None, &["provision", "consortium.toml", "--requests", "va.toml", "--out", "kits"]);
    assert_eq!(made["members"][1]["keys_on_site"], true);
    assert!(!at.join("kits/va/identity/organisation.key").exists());
    assert!(at.join("kits/cleveland/identity/organisation.key").exists());
    refused(at, None, &["coordinator", "--dir", "kits/va/replica"], 1, &["transaction.key is missing"]);

    refused(at, None, &["identity", "install", "kits/va", "--dir", "site"], 1, &["is encrypted", "--passphrase-file"]);
    let other = ["identity", "install", "kits/cleveland", "--dir", "site"];
    refused(at, Some(PASSPHRASE), &other, 1, &["is for cleveland", "those of va"]);
    ok(at, Some(PASSPHRASE), &["identity", "install", "kits/va", "--dir", "site"]);
    // The keys open with their passphrase: what is wrong next is the port.
    let identity = ["status", "--connect", "https://127.0.0.1:1", "--identity", "site/identity"];
    refused(at, None, &identity, 1, &["organisation.key is encrypted"]);
    refused(at, Some("guessed"), &identity, 1, &["cannot be decrypted with this passphrase"]);
    refused(at, Some(PASSPHRASE), &identity, 1, &["cannot reach https://127.0.0.1:1"]);
}

#[test]
fn a_request_that_was_changed_is_refused() {
    let folder = asked("replica,participant", None);
    let at = folder.path();
    let text = fs::read_to_string(at.join("va.toml")).unwrap();
    fs::write(at.join("va.toml"), text.replace("name = \"va\"", "name = \"Somebody\"")).unwrap();
    refused(at, None, &["identity", "approve", "va.toml"], 4, &["must not be approved", "does not verify"]);
    let provision = ["provision", "consortium.toml", "--requests", "va.toml", "--out", "kits"];
    refused(at, None, &provision, 1, &["va", "does not verify"]);
    assert!(!at.join("kits").exists());
    fs::write(at.join("va.toml"), "schema = 'x'").unwrap();
    refused(at, None, &["identity", "approve", "va.toml"], 1, &["va.toml is no request"]);
}

#[test]
fn a_passphrase_is_changed_and_taken_away() {
    let folder = asked("auditor", Some(PASSPHRASE));
    let at = folder.path();
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(at.join(name), text).unwrap();
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("old", &format!("{PASSPHRASE}\n"), 0o600);
    write("new", "another one\n", 0o600);
    write("open", "another one\n", 0o644);
    let protect = ["identity", "protect", "--dir", "site", "--passphrase-file"];
    refused(at, None, &[&protect[..], &["open"]].concat(), 1, &["open can be used by others", "chmod 600"]);
    refused(at, None, &[&protect[..], &["new"]].concat(), 1, &["was not changed", "--old-passphrase-file"]);
    let wrong = [&protect[..], &["new", "--old-passphrase-file", "new"]].concat();
    refused(at, None, &wrong, 1, &["cannot be decrypted"]);
    let changed = ok(at, None, &[&protect[..], &["new", "--old-passphrase-file", "old"]].concat());
    assert_eq!(changed["files"].as_array().unwrap().len(), 2);
    refused(at, Some(PASSPHRASE), &["identity", "unprotect", "--dir", "site"], 1, &["cannot be decrypted"]);
    ok(at, Some("another one"), &["identity", "unprotect", "--dir", "site"]);
    ok(at, None, &["identity", "request", "--dir", "site", "--out", "again.toml"]);
    assert_eq!(fs::read(at.join("again.toml")).unwrap(), fs::read(at.join("va.toml")).unwrap());
    // Nobody is there to type one.
    refused(at, None, &["identity", "protect", "--dir", "site"], 2, &["no terminal", "--passphrase-file"]);
}

#[test]
fn keys_are_drawn_only_into_a_new_directory() {
    let folder = asked("auditor", None);
    let at = folder.path();
    let new = ["identity", "new", "--member", "va", "--role", "auditor", "--dir", "site"];
    refused(at, None, &new, 1, &["site is not empty"]);
    let malformed = ["identity", "new", "--member", "V A", "--dir", "other"];
    refused(at, None, &malformed, 1, &["V A", "valid id"]);
    refused(at, None, &["identity", "new", "--member", "va", "--role", "janitor", "--dir", "other"], 2, &["janitor"]);
    refused(at, None, &["identity", "request", "--dir", "kits", "--out", "x"], 1, &["fedledger identity new"]);
    refused(
        at,
        None,
        &["identity", "rotate", "--dir", "site", "--node", "replica", "--out", "x"],
        1,
        &["identity install"],
    );
}

#[test]
fn provisioning_encrypts_every_key_it_draws() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("consortium.toml"), CONSORTIUM.split("\n[[members]]\nid = 'va'").next().unwrap()).unwrap();
    ok(at, Some(PASSPHRASE), &["provision", "consortium.toml", "--out", "kits"]);
    for file in ["ca/ca.key", "cleveland/identity/api.key", "cleveland/replica/keys/log.key"] {
        let text = fs::read_to_string(at.join("kits").join(file)).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{file}");
    }
    refused(at, None, &["coordinator", "--dir", "kits/cleveland/replica"], 1, &["is encrypted"]);
}
