//! A plan from a table, and a round that is tried without sending anything.

#![expect(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::Value;

/// How long a node that dials may take to be heard of.
const HEARD_MAX: Duration = Duration::from_secs(60);

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in
        ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
    {
        command.env_remove(variable);
    }
    command.current_dir(folder).args(arguments);
    command
}

fn fedledger(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

#[track_caller]
fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = fedledger(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, &[arguments, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], exit: i32) -> String {
    let output = fedledger(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {stderr}");
    stderr
}

/// A hundred records in which the disease follows from age and pain.
fn table() -> String {
    let mut text = "patient_id,age,pain,pressure,disease\n".to_owned();
    for row in 0..100 {
        let (age, pain) = (30 + row * 7 % 50, ["none", "mild", "severe"][row % 3]);
        let pressure = if row % 25 == 3 { String::new() } else { (110 + row * 13 % 40).to_string() };
        let disease = if age + 20 * (row % 3) > 70 { "yes" } else { "no" };
        text += &format!("p{row},{age},{pain},{pressure},{disease}\n");
    }
    text
}

/// A folder with a table.
fn with_table() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Heart 1.csv"), table()).unwrap();
    folder
}

/// A consortium of one hospital, whose replica is said to be at `replica`, with plan, schema and table in the folder of its
/// participant.
fn hospital(replica: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = with_table();
    let description = format!(
        "name = \"heart\"\n[[members]]\nid = \"va\"\nroles = [\"operator\"]\nreplica = {{ listen = \"127.0.0.1:1\", \
         address = \"{replica}\" }}\nparticipant = {{}}\n"
    );
    fs::write(folder.path().join("consortium.toml"), description).unwrap();
    ok(folder.path(), &["provision", "consortium.toml", "--out", "kits"]);
    let kit = folder.path().join("kits/va/participant");
    fs::copy(folder.path().join("Heart 1.csv"), kit.join("data.csv")).unwrap();
    ok(&kit, &["plan", "init", "--label", "disease", "--name", "heart"]);
    (folder, kit)
}

/// Every file below a folder, with what it holds and when it was changed.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let changed = entry.metadata().unwrap().modified().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
            found.insert(entry.path(), (Vec::new(), changed));
        } else {
            found.insert(entry.path(), (fs::read(entry.path()).unwrap(), changed));
        }
    }
    found
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

fn text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

/// The schema of a folder with what its plan says of the data, as a site has it whose plans do not.
fn described_schema(folder: &Path) -> String {
    let (plan, schema) = (text(folder, "plan.toml"), text(folder, "schema.toml"));
    let (_, data) = plan.split_once("[data]").unwrap();
    let (data, _) = data.split_once("[architecture]").unwrap();
    let data = data.replace("kind = \"table\"\n", "").replace("[data.", "[").replace("[[data.", "[[");
    let (_, split) = schema.split_once("[split]").unwrap();
    format!("{}[split]{split}", data.split_once('\n').unwrap().1)
}

#[test]
fn a_plan_and_a_schema_are_written_for_a_table() {
    let folder = with_table();
    let folder = folder.path();
    let init = ["plan", "init", "Heart 1.csv", "--label", "disease"];
    let written = json(folder, &init);
    assert_eq!(written["schema"], "fedledger.plan_init/1");
    assert_eq!(
        (&written["name"], &written["label"], &written["features"]),
        (&"heart-1".into(), &"disease".into(), &5.into())
    );
    assert_eq!(
        (&written["train_rows"], &written["test_rows"], &written["dropped_rows"]),
        (&76.into(), &20.into(), &4.into())
    );
    assert_eq!(written["left_out"][0]["column"], "patient_id");

    let plan: toml::Table = toml::from_str(&fs::read_to_string(folder.join("plan.toml")).unwrap()).unwrap();
    assert_eq!(plan["architecture"]["features"].as_integer(), Some(5));
    let (batch, steps) = (plan["training"]["batch_size"].as_integer(), plan["training"]["steps"].as_integer());
    assert_eq!((batch, steps), (Some(9), Some(20)), "two passes through 76 records, rounded up");
    assert_eq!(plan["aggregation"]["example_scale"].as_integer(), Some(512), "four times as many, rounded up");
    let (shared, schema) = (text(folder, "plan.toml"), text(folder, "schema.toml"));
    for part in ["\"mild\", \"none\", \"severe\"", "equals = [\"yes\"]", "missing = \"drop_row\""] {
        assert!(shared.contains(part) && !schema.contains(part), "{part} belongs to what all sites do alike: {shared}");
    }
    let age = written["columns"].as_array().unwrap().iter().find(|column| column["column"] == "pain").unwrap();
    let found = age["found"].as_str().unwrap();
    assert!(found.contains("severe: "), "{found}");
    assert!(!shared.contains("severe: ") && !schema.contains("severe: "), "counts stand in no file");
    assert!(!shared.contains("patient") && !shared.contains("76") && !schema.contains("76"), "{shared}");

    // Nothing is overwritten unasked.
    assert!(fails(folder, &init, 1).contains("plan.toml exists already"));
    fs::remove_file(folder.join("plan.toml")).unwrap();
    assert!(fails(folder, &init, 1).contains("schema.toml exists already"));
    ok(folder, &[&init[..], &["--force"]].concat());

    // A schema that is there is used as it is, if it says what the columns mean.
    let given = ["plan", "init", "Heart 1.csv", "--schema", "schema.toml", "--out", "other.toml"];
    assert!(fails(folder, &given, 1).contains("describes no features"));
    let own = described_schema(folder).replace("drop_first = false", "drop_first = true");
    fs::write(folder.join("schema.toml"), own).unwrap();
    let kept = fs::read(folder.join("schema.toml")).unwrap();
    let again = json(folder, &[&given[..], &["--model", "multilayer_perceptron"]].concat());
    assert_eq!((&again["schema_file"], &again["features"]), (&Value::Null, &4.into()));
    assert_eq!(fs::read(folder.join("schema.toml")).unwrap(), kept);
    let plan: toml::Table = toml::from_str(&fs::read_to_string(folder.join("other.toml")).unwrap()).unwrap();
    assert_eq!(plan["architecture"]["hidden"], toml::Value::from(vec![4]), "not wider than a batch");
}

#[test]
fn what_cannot_be_guessed_is_asked_for() {
    let folder = with_table();
    let folder = folder.path();
    let stderr = fails(folder, &["plan", "init", "Heart 1.csv"], 1);
    for part in ["patient_id, age, pain, pressure, disease", "--label COLUMN"] {
        assert!(stderr.contains(part), "{part} is missing in {stderr}");
    }
    ok(folder, &["plan", "init", "Heart 1.csv", "--label", "pain", "--positive", "mild,severe"]);
    assert!(text(folder, "plan.toml").contains("equals = [\"mild\", \"severe\"]"));
    assert!(fails(folder, &["plan", "init", "--force"], 1).contains("data.csv"), "the default is named");
    assert!(fails(folder, &["plan", "init", "scans.parquet"], 1).contains("neither a text table nor images"));
    assert!(fails(folder, &["plan", "init", "scans.npz", "--force"], 1).contains("scans.npz"));
    assert!(fails(folder, &["plan", "init", "scans.npz", "--force", "--label", "sick"], 2).contains("are for tables"));
    let label = ["plan", "init", "Heart 1.csv", "--label", "disease", "--force"];
    assert!(fails(folder, &[&label[..], &["--name", "Not A Name"]].concat(), 1).contains("no valid name"));
    fs::write(folder.join("bad.csv"), "a,label\n1,0\n1,2,3\n").unwrap();
    assert!(
        fails(folder, &["plan", "init", "bad.csv", "--force"], 1).contains("line 3 has 3 fields, the header has 2")
    );
}

#[test]
fn a_round_is_tried_and_all_that_would_leave_is_shown() {
    let (_folder, kit) = hospital("127.0.0.1:1");
    let before = files(&kit);
    let check = json(&kit, &["participant", "--check", "--dir", "."]);
    assert_eq!((&check["schema"], &check["node"]), (&"fedledger.participant_check/1".into(), &"va/participant".into()));
    assert_eq!((&check["name"], &check["examples"], &check["steps"]), (&"heart".into(), &76.into(), &20.into()));
    assert!(check["loss_last"].as_f64() < check["loss_first"].as_f64() && check["loss_first"].as_f64() > Some(0.0));
    let accuracy = |when: &str| check[when]["accuracy"].as_i64().unwrap();
    assert!(accuracy("after") > accuracy("before"), "{check}");
    if cfg!(target_os = "linux") {
        let memory = |name: &str| check[name].as_u64().unwrap();
        assert!(memory("memory_peak_bytes") >= memory("memory_before_bytes") && memory("memory_before_bytes") > 0);
    }

    let leaving = &check["leaving"];
    let tensors: Vec<(&str, &Value, u64)> = leaving["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| (tensor["name"].as_str().unwrap(), &tensor["shape"], tensor["bytes"].as_u64().unwrap()))
        .collect();
    let (bias, weight) = (serde_json::json!([1]), serde_json::json!([1, 5]));
    assert_eq!(tensors, [("layer0.bias", &bias, 4), ("layer0.weight", &weight, 20)]);
    for tensor in leaving["tensors"].as_array().unwrap() {
        assert!(tensor["norm"].as_f64() >= tensor["largest"].as_f64() && tensor["largest"].as_f64() > Some(0.0));
    }
    assert_eq!(leaving["contribution"]["examples"], 76);
    assert_eq!(leaving["contribution"]["update"], leaving["update"]["digest"]);
    assert_eq!(leaving["evaluation"]["examples"], 20);
    assert_eq!(check["policy"]["surprises"][0]["kind"], "shapes");
    assert!(check["policy"]["withholds_consent"].as_str().unwrap().contains("needs a person"));
    assert_eq!(check["policy"]["declines"], Value::Null);

    let text = ok(&kit, &["participant", "--check", "--dir", ".", "--plan", "plan.toml"]);
    for part in ["layer0.weight", "would leave the building", "nothing was sent or kept", "data_manifest", "accuracy"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(files(&kit), before, "it leaves nothing behind");

    // The same training gives the same update, and it goes on from any weights.
    assert_eq!(json(&kit, &["participant", "--check", "--dir", "."])["leaving"], *leaving);
    assert!(fails(&kit, &["participant", "--check", "--dir", ".", "--base", "data.csv"], 1).contains("damaged"));
}

#[test]
fn what_keeps_a_round_from_being_tried_is_said() {
    let (_folder, kit) = hospital("127.0.0.1:1");
    let check = ["participant", "--check", "--dir", "."];
    replace(&kit.join("node.toml"), "replica_timeout_ms = 10000", "replica_timeout_ms = 10000\nmemory_max = \"5 MB\"");
    let stderr = fails(&kit, &check, 4);
    assert!(stderr.contains("would take about 17 MB") && stderr.contains("memory_max"), "{stderr}");
    replace(&kit.join("node.toml"), "5 MB", "1 GB");
    assert_eq!(json(&kit, &check)["memory_max"], 1_000_000_000);

    replace(&kit.join("policy.toml"), "auto_approve = false", "auto_approve = true");
    let why = json(&kit, &check)["policy"]["withholds_consent"].as_str().unwrap().to_owned();
    assert!(why.contains("looks at the plan and approves it"), "{why}");
    replace(&kit.join("policy.toml"), "surprises = \"ask\"", "surprises = \"allow\"");
    assert_eq!(json(&kit, &check)["policy"]["withholds_consent"], Value::Null);
    replace(&kit.join("policy.toml"), "parameters_max = 10000000", "parameters_max = 5");
    assert_eq!(json(&kit, &check)["policy"]["surprises"][0]["found"], 6);
    replace(&kit.join("policy.toml"), "rounds_max = 1000000", "rounds_max = 9");
    assert!(json(&kit, &check)["policy"]["declines"].as_str().unwrap().contains("10 rounds"));

    fs::remove_file(kit.join("plan.toml")).unwrap();
    let stderr = fails(&kit, &check, 2);
    assert!(stderr.contains("plan.toml") && stderr.contains("--plan FILE"), "{stderr}");
    let stderr = fails(&kit, &[&check[..], &["--plan", "heart"]].concat(), 1);
    assert!(stderr.contains("heart is no file") && stderr.contains("holds no ledger"), "{stderr}");
    fails(&kit, &["participant", "--dir", ".", "--plan", "heart"], 2);
}

#[test]
fn a_label_of_several_texts_has_as_many_classes() {
    let (_folder, kit) = hospital("127.0.0.1:1");
    let init = ["plan", "init", "--force", "--name", "pain", "--label"];
    let written = json(&kit, &[&init[..], &["pain"]].concat());
    assert_eq!((&written["label"], &written["classes"]), (&"pain".into(), &3.into()));
    assert!(text(&kit, "plan.toml").contains(r#"classes = ["mild", "none", "severe"]"#));
    let check = json(&kit, &["participant", "--check", "--dir", "."]);
    assert_eq!(check["leaving"]["tensors"][1]["shape"], serde_json::json!([3, 3]), "{check}");
    assert_eq!(check["policy"]["declines"], Value::Null);

    let two = json(&kit, &[&init[..], &["disease", "--classes", "--model", "multilayer_perceptron"]].concat());
    assert_eq!(two["classes"], 2);
    assert!(fs::read_to_string(kit.join("plan.toml")).unwrap().contains("classes = 2"));
    json(&kit, &["participant", "--check", "--dir", "."]);
    let model = [&init[..], &["disease", "--model", "residual"]].concat();
    assert!(fails(&kit, &model, 2).contains("this model is for images"));
}

/// Reports what it is asked for: of a training the weights in the file that it is given, of an evaluation always the same.
#[cfg(unix)]
const TRAINER: &str = r#"#!/bin/sh
echo "loading records"
if grep -q '"task":"train"' configuration.json; then
    echo '{"progress": 0.5}'
    cp "$1" trained.safetensors
    echo '{"examples": 60, "metrics": {"loss": 0.25}}' > metrics.json
else
    echo '{"examples": 20, "metrics": {"accuracy": 0.75}}' > metrics.json
fi
"#;

#[cfg(unix)]
const EXTERNAL_PLAN: &str = r#"
name = "outside"
seed = 1
rounds = 1
[architecture]
kind = "custom"
tensors = [{ name = "a", shape = [2], constant = "1" }, { name = "b", shape = [], bound = "0" }]
[external_training]
trainer = "script"
[aggregation]
example_scale = 1024
rule = { kind = "fed_avg", server_learning_rate = "1" }
[participation]
minimum_participants = 1
round_duration_ms = 60000
"#;

#[cfg(unix)]
fn executable(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_program_of_the_site_is_tried_as_well() {
    use std::io::Write as _;

    use fedledger_federation::tensors::{Tensor, write_tensors};

    let (_folder, kit) = hospital("127.0.0.1:1");
    let temporary = tempfile::tempdir().unwrap();
    fs::write(kit.join("schema.toml"), described_schema(&kit)).unwrap();
    fs::write(kit.join("plan.toml"), EXTERNAL_PLAN).unwrap();
    let tried = |arguments: &[&str]| {
        let arguments = [&["participant", "--check", "--dir", "."], arguments].concat();
        command(&kit, &arguments).env("TMPDIR", temporary.path()).output().unwrap()
    };
    let refused = |exit: i32| {
        let output = tried(&[]);
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(4).contains("\"script\" is not among those that node.toml of this site names"));

    let section = "\n[trainers.script]\nprogram = \"train.sh\"\nfiles = [\"result\"]\narguments = [\"result\"]\n";
    let mut node = fs::File::options().append(true).open(kit.join("node.toml")).unwrap();
    node.write_all(section.as_bytes()).unwrap();
    let program = |text: &str| executable(&kit.join("train.sh"), text);
    program(TRAINER);
    let tensor = |name: &str, shape, values| Tensor { name: name.to_owned(), shape, values };
    let weights = write_tensors(&[tensor("a", vec![2], vec![4.0, 5.0]), tensor("b", vec![], vec![-2.0])]).unwrap();
    fs::write(kit.join("result"), weights).unwrap();
    let before = files(&kit);
    let shown = |arguments: &[&str]| {
        let output = tried(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let check: Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    assert_eq!((&check["trainer"], &check["examples"]), (&"script".into(), &60.into()));
    assert_eq!((&check["training_metrics"]["loss"], &check["before"]), (&250_000.into(), &Value::Null));
    let leaving = &check["leaving"];
    assert_eq!((&leaving["contribution"]["trainer"], &leaving["evaluation"]), (&check["program"], &Value::Null));
    let norms: Vec<f64> =
        leaving["tensors"].as_array().unwrap().iter().map(|tensor| tensor["norm"].as_f64().unwrap()).collect();
    assert_eq!(norms, [5.0, 2.0], "three and four beyond the ones, and two");
    assert!(check.get("memory_peak_bytes").is_some() && check["memory_max_bytes"] == 4_000_000_000_u64);
    assert_eq!(files(&kit), before, "it leaves nothing behind");

    node.write_all(b"evaluates = true\n").unwrap();
    let check: Value = serde_json::from_str(&shown(&["--json"])).unwrap();
    assert_eq!((&check["before"]["accuracy"], &check["after"]["accuracy"]), (&750_000.into(), &750_000.into()));
    assert_eq!((&check["test_examples"], &check["leaving"]["evaluation"]["examples"]), (&20.into(), &20.into()));
    let text = shown(&[]);
    for part in ["by \"script\"", "loss 0.250000", "accuracy", "of all its processes", "nothing was sent or kept"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }

    program("#!/bin/sh\necho 'ValueError: no such column' >&2\nexit 3\n");
    assert!(refused(1).contains("ValueError: no such column"));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "its folder is removed");
}

/// Tells its process, and then waits for somebody who never writes.
#[cfg(unix)]
const WAITING: &str =
    "#!/bin/sh\ntrap '' TERM\nmkfifo gate\necho $$ > partial\nmv partial \"$1\"\nread -r line < gate\n";

#[cfg(unix)]
#[test]
fn an_interrupted_trial_leaves_nothing_behind() {
    use std::time::Instant;

    use rustix::process::{Pid, Signal, kill_process};

    let (_folder, kit) = hospital("127.0.0.1:1");
    let (temporary, told) = (tempfile::tempdir().unwrap(), kit.join("process"));
    fs::write(kit.join("schema.toml"), described_schema(&kit)).unwrap();
    fs::write(kit.join("plan.toml"), EXTERNAL_PLAN).unwrap();
    executable(&kit.join("train.sh"), WAITING);
    let node = fs::read_to_string(kit.join("node.toml")).unwrap();
    let section = format!("\n[trainers.script]\nprogram = \"train.sh\"\narguments = [\"{}\"]\n", told.display());
    fs::write(kit.join("node.toml"), node + &section).unwrap();
    let mut trial = command(&kit, &["participant", "--check", "--dir", "."]);
    let trial = trial.env("TMPDIR", temporary.path()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + HEARD_MAX;
    let wait = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "it takes too long");
            std::thread::yield_now();
        }
    };
    wait(&|| told.exists());
    kill_process(Pid::from_child(&trial), Signal::INT).unwrap();
    let output = trial.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("the trial was interrupted"), "{stderr}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "its folder is removed");
    // The program is killed a moment later, though it does not listen.
    let process = fs::read_to_string(&told).unwrap();
    let state = || Command::new("ps").args(["-o", "stat=", "-p", process.trim()]).output().unwrap().stdout;
    wait(&|| state().iter().all(u8::is_ascii_whitespace) || state().starts_with(b"Z"));
}

/// A node that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_connection_is_opened() {
    // Whoever dials the replica is heard here.
    let heard = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = heard.local_addr().unwrap();
    let Ok(datagrams) = UdpSocket::bind(address) else { panic!("the port is taken for UDP: run the test again") };
    let (_folder, kit) = hospital(&address.to_string());
    ok(&kit, &["participant", "--check", "--dir", "."]);
    heard.set_nonblocking(true).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    assert_eq!(datagrams.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "a datagram was sent");
    assert_eq!(heard.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "a connection was opened");

    // The node itself is heard at once, so the check would have been.
    let mut node = command(&kit, &["participant", "--dir", "."]);
    let _node = Running(node.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    datagrams.set_nonblocking(false).unwrap();
    datagrams.set_read_timeout(Some(HEARD_MAX)).unwrap();
    assert!(datagrams.recv(&mut buffer).unwrap() > 0);
}
