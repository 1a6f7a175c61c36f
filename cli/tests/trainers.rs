//! The walk-through of `docs/trainers.md`, as it stands there.
//!
//! Its files are written and its commands run in one shell, in the order of the document. Only the place of the repository and
//! the ports are other ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is unexpected in a test fails it")]

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/trainers.md");

/// Ports in the document.
const PORTS: [&str; 3] = ["7001", "7101", "7201"];

/// Where interpreters are looked for; the first that has the module is taken.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Longest time of a walk-through, in seconds.
const TIME_MAX_S: &str = "300";

/// The part of the document under a heading of the second level.
fn section(heading: &str) -> &'static str {
    let mut sections = DOCUMENT.split("\n## ");
    let found = sections.find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    found.unwrap_or_else(|| panic!("there is no section {heading:?}"))
}

/// A shell script that does what a section says. A block of commands is run; any other block is the content of the file that
/// the paragraph before it names last, or what is added to it.
fn script(section: &str) -> String {
    let mut script = String::new();
    let mut parts = section.split("```");
    let mut before = parts.next().unwrap_or_default();
    while let (Some(block), Some(after)) = (parts.next(), parts.next()) {
        let (language, content) = block.split_once('\n').unwrap();
        if language == "console" {
            for line in content.lines() {
                let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("> "));
                writeln!(script, "{}", command.unwrap_or_else(|| panic!("no command: {line}"))).unwrap();
            }
        } else {
            let paragraph = before.trim_end().rsplit("\n\n").next().unwrap();
            let file = paragraph.rsplit('`').nth(1).unwrap_or_else(|| panic!("no file is named before {content}"));
            let arrow = if paragraph.contains("Add to `") { ">>" } else { ">" };
            writeln!(script, "cat {arrow} \"{file}\" <<'END OF FILE'\n{content}END OF FILE").unwrap();
        }
        before = after;
    }
    script
}

/// A Python that has a module.
fn python_with(module: &str) -> Option<PathBuf> {
    INTERPRETERS.into_iter().find_map(|interpreter| {
        let find = format!("import sys, {module}; print(sys.executable)");
        let output = Command::new(interpreter).args(["-c", &find]).output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    })
}

/// Runs a script in a folder, with this Python and the binary that is tested; what it has printed.
fn run(folder: &Path, python: &Path, script: &str) -> String {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(python, bin.join("python3")).unwrap();
    symlink(env!("CARGO_BIN_EXE_fedledger"), bin.join("fedledger")).unwrap();
    let file = folder.join("walk-through.sh");
    fs::write(&file, script).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("timeout");
    for variable in
        ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
    {
        command.env_remove(variable);
    }
    command.args(["-k", "10", TIME_MAX_S, "bash", "-eu"]).arg(&file).env("PATH", path).current_dir(folder);
    let output = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// The document's sections with this machine's paths and ports, and an end that leaves nothing behind.
fn walk_through(sections: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let mut text = "trap 'kill $(jobs -p) && wait' EXIT\n".to_owned();
    text += &sections.iter().map(|heading| script(section(heading))).collect::<String>();
    // Bound at the same time, so that they differ.
    let listeners = PORTS.map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    for (port, listener) in PORTS.iter().zip(listeners) {
        text = text.replace(port, &listener.local_addr().unwrap().port().to_string());
    }
    let ours = text.replace("repository=$HOME/fedledger", &format!("repository='{}'", root.display()));
    assert_ne!(ours, text, "the document says where the repository is");
    ours
}

/// The digests that `sha256sum` has printed.
fn digests(printed: &str) -> Vec<&str> {
    let digest = |line: &&str| line.len() > 64 && line[..64].bytes().all(|byte| byte.is_ascii_hexdigit());
    printed.lines().filter(digest).map(|line| &line[..64]).collect()
}

#[test]
fn a_program_trains_as_the_document_says() {
    let Some(python) = python_with("numpy") else {
        println!("skipped: there is no python3 with numpy");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let printed = run(folder.path(), &python, &walk_through(&["Try it alone"]));
    let json = printed.lines().find(|line| line.starts_with('[')).unwrap_or_else(|| panic!("no JSON: {printed}"));
    let rows: Value = serde_json::from_str(json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{printed}");
    for row in rows {
        assert_eq!(row["trainer"], *digests(&printed).last().unwrap(), "{printed}");
        assert_eq!((&row["examples"], &row["metrics"]["rows_skipped"]), (&227.into(), &0.0.into()), "{row}");
    }
    let loss = |row: &Value| row["metrics"]["loss"].as_f64().unwrap();
    assert!((loss(&rows[0]) - 0.555).abs() < 0.05 && loss(&rows[1]) < loss(&rows[0]), "it did not learn: {printed}");
    let work = folder.path().join("kits/basel/participant/work");
    assert!(!fs::read_dir(work).unwrap().any(|entry| entry.unwrap().path().join("trainer").exists()));
}

#[test]
fn a_pytorch_script_trains_as_the_document_says() {
    let Some(python) = python_with("torch, numpy") else {
        println!("skipped: there is no python3 with torch");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut walk = walk_through(&["Try it alone", "With PyTorch"]);
    walk += "fedledger audit contributions --json\n";
    let printed = run(folder.path(), &python, &walk);
    let json = printed.lines().rfind(|line| line.starts_with('[')).unwrap_or_else(|| panic!("no JSON: {printed}"));
    let rows: Value = serde_json::from_str(json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4, "two of each plan: {printed}");
    let last = rows.last().unwrap();
    assert!(last["metrics"]["loss"].as_f64() < last["metrics"]["loss_first"].as_f64(), "it did not learn: {printed}");
}
