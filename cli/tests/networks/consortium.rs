//! A consortium of three replicas in the world and one clinic in the hospital.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::world::World;

/// Members with a replica, in the order in which a participant without one asks them.
pub const REPLICAS: [&str; 3] = ["east", "north", "west"];

/// Where replicas listen for QUIC and TCP.
pub const NODE_PORT: u16 = 7001;

/// Where they listen for WebSocket.
pub const WEB_PORT: u16 = 443;

const API_PORT: u16 = 7101;

/// The clinic's records are those of this site.
const SITE: &str = "cleveland";

/// How often a condition is looked at before it counts as missed. Each look starts a process.
const LOOKS_MAX: usize = 3000;

const RECORDS: &str = include_str!("../../../simulations/data/heart_4sites.csv");
const SCHEMA: &str = include_str!("../../../simulations/data/heart.schema.toml");
const TEST_ROWS: &str = include_str!("../../../simulations/data/heart_test_rows.json");
const PLAN: &str = include_str!("plan.toml");

/// The address of a member's replica.
pub fn address(replica: &str) -> String {
    let number = REPLICAS.iter().position(|name| *name == replica).unwrap();
    format!("10.99.0.{}", number + 1)
}

/// The consortium's processes.
pub struct Consortium<'a> {
    world: &'a World,
    folder: tempfile::TempDir,
    replicas: Vec<Child>,
    participant: Option<Child>,
}

impl<'a> Consortium<'a> {
    /// Provisions it and starts the replicas.
    pub fn start(world: &'a World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut consortium = Self { world, folder, replicas: Vec::new(), participant: None };
        fs::create_dir(consortium.kits()).unwrap();
        fs::write(consortium.path("consortium.toml"), description()).unwrap();
        consortium.json(&["provision", "../consortium.toml", "--out", "."]);
        let participant = consortium.kits().join("clinic/participant");
        fs::write(participant.join("data.csv"), records()).unwrap();
        fs::write(participant.join("schema.toml"), SCHEMA).unwrap();
        fs::write(participant.join("heart_test_rows.json"), test_rows()).unwrap();
        // Another replica is asked sooner than by default.
        let config = participant.join("node.toml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("replica_timeout_ms = 10000"), "{text}");
        fs::write(&config, text.replace("replica_timeout_ms = 10000", "replica_timeout_ms = 1500")).unwrap();
        for replica in REPLICAS {
            let node = format!("{replica}/replica");
            let process = consortium.node(world.outside(), &["coordinator", "--dir", &node], replica);
            consortium.replicas.push(process);
        }
        consortium.wait(&["status"], |status| status["leader"].is_string());
        consortium
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn kits(&self) -> PathBuf {
        self.path("kits")
    }

    fn node(&self, mut command: Command, arguments: &[&str], log: &str) -> Child {
        let log = File::create(self.path(&format!("{log}.log"))).unwrap();
        let command = quiet(&mut command, &self.kits()).args(arguments).arg("-v");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts the clinic's participant behind the firewall.
    pub fn start_participant(&mut self) {
        let arguments = ["participant", "--dir", "clinic/participant"];
        self.participant = Some(self.node(self.world.in_hospital(), &arguments, "clinic"));
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop_participant(&mut self) {
        stop(self.participant.take().unwrap());
    }

    /// Stops all that runs.
    pub fn stop(&mut self) {
        self.participant.take().into_iter().chain(self.replicas.drain(..)).for_each(stop);
    }

    /// Has a plan of this name carried out to its end, in which the clinic contributes.
    #[track_caller]
    pub fn carry_out_plan(&self, name: &str) {
        fs::write(self.path("plan.toml"), PLAN.replace("PLAN_NAME", name)).unwrap();
        let proposed = self.json(&["plan", "propose", "../plan.toml"]);
        let plan = proposed["plan"].as_str().unwrap();
        self.json(&["plan", "approve", plan, "--identity", "clinic/identity"]);
        self.json(&["plan", "start", plan]);
        self.wait(&["plan", "show", plan], |view| view["status"] == "finished");
        let rounds = self.json(&["round", "list", "--plan", plan]);
        let contributed = |row: &Value| row["contributed"].as_array().unwrap().contains(&"clinic".into());
        assert!(rounds.as_array().unwrap().iter().any(contributed), "{rounds}");
    }

    /// What `doctor` says in the hospital.
    #[track_caller]
    pub fn doctor(&self, arguments: &[&str], exit: i32) -> Value {
        let mut command = self.world.in_hospital();
        let command = quiet(&mut command, &self.kits());
        let output = command.arg("doctor").args(arguments).args(["--json", "--patience", "1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Runs a command in the world that must succeed; what it says.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let mut command = self.world.outside();
        let output = quiet(&mut command, &self.kits()).args(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Looks at what a command says until it holds.
    #[track_caller]
    fn wait(&self, arguments: &[&str], holds: impl Fn(&Value) -> bool) {
        let mut last = String::new();
        for _ in 0..LOOKS_MAX {
            let mut command = self.world.outside();
            let output = quiet(&mut command, &self.kits()).args(arguments).arg("--json").output().unwrap();
            if serde_json::from_slice(&output.stdout).is_ok_and(|value| holds(&value)) {
                return;
            }
            last = format!("{output:?}");
        }
        panic!("{arguments:?} never said what was waited for; last: {last}");
    }
}

impl Drop for Consortium<'_> {
    fn drop(&mut self) {
        for child in self.replicas.iter_mut().chain(&mut self.participant) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            for log in REPLICAS.iter().chain(&["clinic"]) {
                let text = fs::read_to_string(self.path(&format!("{log}.log"))).unwrap_or_default();
                eprintln!("--- {log}\n{text}");
            }
        }
    }
}

/// The command line in a folder, without defaults from the environment.
fn quiet<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    for variable in ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_PASSPHRASE"] {
        command.env_remove(variable);
    }
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    command.arg(env!("CARGO_BIN_EXE_fedledger")).current_dir(folder)
}

fn stop(mut child: Child) {
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "a node ended with {status}");
}

fn description() -> String {
    let mut text = "name = \"heart\"\n[[members]]\nid = \"clinic\"\nparticipant = {}\n".to_owned();
    for replica in REPLICAS {
        let at = address(replica);
        let roles = if replica == REPLICAS[1] { r#"["operator"]"# } else { "[]" };
        write!(
            text,
            "[[members]]\nid = \"{replica}\"\nroles = {roles}\n[members.replica]\nlisten = \"{at}:{NODE_PORT}\"\n\
             websocket = \"wss://{at}:{WEB_PORT}\"\napi = \"{at}:{API_PORT}\"\n"
        )
        .unwrap();
    }
    text
}

fn records() -> String {
    let mut lines = RECORDS.lines();
    let header = lines.next().unwrap();
    let own = lines.filter(|line| line.split(',').next() == Some(SITE));
    std::iter::once(header).chain(own).flat_map(|line| [line, "\n"]).collect()
}

fn test_rows() -> String {
    let all: BTreeMap<String, Vec<u64>> = serde_json::from_str(TEST_ROWS).unwrap();
    serde_json::to_string(&all[SITE]).unwrap()
}
