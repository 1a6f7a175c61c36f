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

use fedledger_federation::tensors::{self, Tensor};
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../docs/trainers.md");

/// Ports in the document.
const PORTS: [&str; 3] = ["7001", "7101", "7201"];

/// Where interpreters are looked for; the first that has the module is taken.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Set to 1, a test that needs Python fails where there is none with the right modules.
const REQUIRE_VARIABLE: &str = "FEDLEDGER_REQUIRE_PYTHON";

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

/// A Python that has modules. Without one the test is skipped, unless [`REQUIRE_VARIABLE`] makes that a failure.
fn python_with(modules: &str) -> Option<PathBuf> {
    let found = python_that_imports(modules);
    if found.is_none() {
        let is_required = std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| value == "1");
        assert!(!is_required, "there is no python3 with {modules}, and {REQUIRE_VARIABLE} asks for it");
        println!("skipped: there is no python3 with {modules}");
    }
    found
}

fn python_that_imports(module: &str) -> Option<PathBuf> {
    INTERPRETERS.into_iter().find_map(|interpreter| {
        let find = format!("import sys, {module}; print(sys.executable)");
        let output = Command::new(interpreter).args(["-c", &find]).output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    })
}

/// Runs a script in a folder, with a Python and the binary that is tested; what it has printed.
fn run(folder: &Path, python: Option<&Path>, script: &str) -> String {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    if let Some(python) = python {
        symlink(python, bin.join("python3")).unwrap();
    }
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

/// The lists that `--json` has printed.
fn lists(printed: &str) -> Vec<Vec<Value>> {
    let list = |(start, _): (usize, &str)| {
        let mut values = serde_json::Deserializer::from_str(&printed[start + 1..]).into_iter::<Vec<Value>>();
        values.next()?.ok()
    };
    printed.match_indices("\n[\n").filter_map(list).collect()
}

/// The digest that `sha256sum` has printed last.
fn digest(printed: &str) -> &str {
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut lines = printed.lines().rev();
    lines.find_map(|line| line.split("  ").next().filter(is_digest)).unwrap_or_else(|| panic!("no digest: {printed}"))
}

/// A metric of a row of `fedledger audit contributions --json`.
fn metric(row: &Value, name: &str) -> f64 {
    row["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {row}"))
}

#[test]
fn a_program_trains_as_the_document_says() {
    let Some(python) = python_with("numpy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let printed = run(folder.path(), Some(&python), &walk_through(&["Try it alone"]));
    let rows = lists(&printed).pop().unwrap_or_else(|| panic!("no rows: {printed}"));
    assert_eq!(rows.len(), 2, "{printed}");
    for row in &rows {
        assert_eq!(row["trainer"], digest(&printed), "{printed}");
        assert_eq!((&row["examples"], row.get("skipped_rows")), (&227.into(), None));
    }
    // Seeds decide everything, so these are always the numbers.
    assert!((metric(&rows[0], "loss") - 0.571).abs() < 0.01, "{printed}");
    assert!(metric(&rows[1], "loss") < metric(&rows[1], "loss_first"), "it did not learn: {printed}");
    let work = folder.path().join("kits/basel/participant/work");
    assert!(!fs::read_dir(work).unwrap().any(|entry| entry.unwrap().path().join("trainer").exists()));
}

#[test]
fn a_pytorch_script_trains_as_the_document_says() {
    let Some(python) = python_with("torch, numpy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let walk = walk_through(&["Try it alone", "With PyTorch"]) + "fedledger audit contributions --json\n";
    let printed = run(folder.path(), Some(&python), &walk);
    let rows = lists(&printed).pop().unwrap_or_else(|| panic!("no rows: {printed}"));
    assert_eq!(rows.len(), 4, "two of each plan: {printed}");
    for row in &rows {
        assert!(metric(row, "loss") < metric(row, "loss_first"), "it did not learn: {printed}");
    }
}

/// Trains at once when it goes on with a run, and otherwise waits until it is killed: nothing else ends it.
const STUBBORN: &str = r#"#!/bin/sh
if grep -q '"round":1,' configuration.json && grep -q '"resumption":false' configuration.json; then
    trap '' TERM
    echo $$ > state/partial && mv state/partial state/pid
    while :; do sleep 1; done
fi
cp base.safetensors trained.safetensors
echo '{"examples": 1, "metrics": {"loss": 0.5}}' > metrics.json
"#;

/// What is done after the plan was started: the node is killed, and nothing else.
const MURDER: &str = "
until pid=$(cat basel/participant/*/*/trainer/state/pid 2> /dev/null); do sleep 0.1; done
kill -KILL %2
while kill -0 $pid 2> /dev/null && ! ps -o stat= -p $pid | grep -q Z; do sleep 0.1; done
fedledger participant --dir basel/participant &
fedledger round watch --until 1
fedledger audit contributions --round 1 --json
";

#[test]
fn a_trainer_dies_with_its_node_and_is_started_again_where_it_was() {
    let walk = walk_through(&["Try it alone"]);
    let (begin, _) = walk.split_once("fedledger round watch").unwrap();
    let copied = "cp $repository/examples/trainers/logistic_numpy.py kits/basel/participant/\n";
    let program = "kits/basel/participant/logistic_numpy.py";
    let written = format!("cat > {program} <<'END OF FILE'\n{STUBBORN}END OF FILE\nchmod +x {program}\n");
    let begin = begin.replace(copied, &written);
    assert!(begin.contains(STUBBORN), "the document copies the program in another way");
    // It would wait in a trial as well.
    let (before, tried) = begin.split_once("fedledger participant --check").unwrap();
    let begin = before.to_owned() + tried.split_once('\n').unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let printed = run(folder.path(), None, &(begin + MURDER));
    let rows = lists(&printed).pop().unwrap_or_else(|| panic!("no rows: {printed}"));
    assert_eq!((rows.len(), &rows[0]["examples"]), (1, &1.into()), "{printed}");
}

/// A folder in which an example trains alone, as the node would let it.
struct Alone {
    folder: tempfile::TempDir,
    python: PathBuf,
    script: PathBuf,
    /// Names of bias and weights of a model with two features.
    tensors: [&'static str; 2],
}

impl Alone {
    fn new(python: PathBuf, script: &str, tensors: [&'static str; 2]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/trainers");
        let alone = Self {
            folder: tempfile::tempdir().unwrap(),
            python,
            script: root.join(script).canonicalize().unwrap(),
            tensors,
        };
        fs::create_dir(alone.folder.path().join("state")).unwrap();
        alone
    }

    /// Rows of which every fifth is kept for testing, where `shift` is added to all values.
    fn write_table(&self, shift: f64, bad_row: &str) {
        let mut text = "a,b,sick\n".to_owned();
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for row in 0..40 {
            let (sick, is_test) = (row % 2, row % 5 == 0);
            let shift = if is_test { shift } else { 0.0 };
            writeln!(text, "{},{},{sick}", f64::from(row % 7) + shift, f64::from(row % 3 + 2 * sick) + shift).unwrap();
            if is_test { test.push(row) } else { train.push(row) }
        }
        if !bad_row.is_empty() {
            train.push(40);
            writeln!(text, "{bad_row}").unwrap();
        }
        fs::write(self.folder.path().join("data.csv"), text).unwrap();
        fs::write(self.folder.path().join("rows.json"), json!({ "train": train, "test": test }).to_string()).unwrap();
    }

    /// Trains so many epochs; what it reports and the weights that it leaves, or what it prints when it fails.
    fn train(&self, epochs: u32, resumption: bool, bad_rows_max: u64) -> Result<(Value, Vec<u8>), String> {
        let [bias, weight] = self.tensors;
        // Weights of a linear layer in PyTorch have a row per output.
        let shape = if weight.contains('.') { vec![1, 2] } else { vec![2] };
        let tensor = |name: &str, shape: Vec<u64>, values| Tensor { name: name.to_owned(), shape, values };
        let base = [tensor(bias, vec![1], vec![0.0]), tensor(weight, shape, vec![0.1, -0.1])];
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("base.safetensors"), tensors::write_tensors(&base).unwrap()).unwrap();
        let told = json!({
            "task": "train", "seed": "7".repeat(64), "resumption": resumption, "threads": 1,
            "data": "data.csv", "rows": "rows.json", "bad_rows_max": bad_rows_max,
            "base": "base.safetensors", "trained": "trained.safetensors", "metrics": "metrics.json",
            "configuration": { "label": "sick", "features": ["a", "b"], "hidden": [], "epochs": epochs },
        });
        fs::write(at("configuration.json"), told.to_string()).unwrap();
        let output = Command::new(&self.python).arg(&self.script).current_dir(self.folder.path()).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let metrics = serde_json::from_slice(&fs::read(at("metrics.json")).unwrap()).unwrap();
        Ok((metrics, fs::read(at("trained.safetensors")).unwrap()))
    }
}

/// Both examples, as far as there is a Python for them.
fn examples() -> Vec<Alone> {
    let numpy = python_with("numpy").map(|python| Alone::new(python, "logistic_numpy.py", ["bias", "weight"]));
    let torch =
        python_with("torch, numpy").map(|python| Alone::new(python, "perceptron_torch.py", ["0.bias", "0.weight"]));
    numpy.into_iter().chain(torch).collect()
}

#[test]
fn what_an_example_reports_does_not_depend_on_interruptions() {
    for example in examples() {
        example.write_table(0.0, "");
        let whole = example.train(5, false, 0).unwrap();
        assert_eq!((&whole.0["examples"], &whole.0["skipped_rows"]), (&32.into(), &json!({})));
        example.train(2, false, 0).unwrap();
        let resumed = example.train(5, true, 0).unwrap();
        assert_eq!(resumed, whole, "{}", example.script.display());
    }
}

#[test]
fn an_example_learns_nothing_from_records_to_test_on() {
    for example in examples() {
        example.write_table(0.0, "");
        let whole = example.train(2, false, 0).unwrap();
        example.write_table(1000.0, "");
        assert_eq!(example.train(2, false, 0).unwrap(), whole, "{}", example.script.display());
    }
}

#[test]
fn an_example_skips_records_by_reason_up_to_the_limit() {
    for example in examples() {
        for (row, reason) in [("Jane Doe,1,0", "not_a_number"), ("inf,1,0", "out_of_range")] {
            example.write_table(0.0, row);
            let (metrics, _) = example.train(1, false, 1).unwrap();
            assert_eq!((&metrics["examples"], &metrics["skipped_rows"]), (&32.into(), &json!({ reason: 1 })));
            let printed = example.train(1, false, 0).unwrap_err();
            assert!(printed.contains("more than 0 records cannot be read") && printed.contains("line 42"), "{printed}");
        }
    }
}
