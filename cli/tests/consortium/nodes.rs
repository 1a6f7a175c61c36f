//! Processes of a consortium on this machine, and the command line to look at them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

pub const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

const RECORDS: &str = include_str!("../../../simulations/data/heart_4sites.csv");
const SCHEMA: &str = include_str!("../../../simulations/data/heart.schema.toml");
const TEST_ROWS: &str = include_str!("../../../simulations/data/heart_test_rows.json");

/// How often a condition is looked at before it counts as missed. Each look starts a process.
const LOOKS_MAX: usize = 3000;

/// How long a command that goes on may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A consortium whose nodes run as processes.
pub struct Consortium {
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Consortium {
    /// Provisions four hospitals, gives each its own records, and starts eight processes.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut consortium = Self { folder, nodes: Vec::new() };
        fs::write(consortium.path("consortium.toml"), description()).unwrap();
        consortium.ok(&["provision", "../consortium.toml", "--out", "."]);
        for site in SITES {
            let participant = consortium.kits().join(site).join("participant");
            fs::write(participant.join("data.csv"), records(site)).unwrap();
            fs::write(participant.join("schema.toml"), SCHEMA).unwrap();
            fs::write(participant.join("heart_test_rows.json"), test_rows(site)).unwrap();
        }
        for site in SITES {
            consortium.start_node("coordinator", &format!("{site}/replica"));
            consortium.start_node("participant", &format!("{site}/participant"));
        }
        consortium
    }

    fn start_node(&mut self, command: &str, name: &str) {
        let log = self.path(&format!("{}.log", name.replace('/', "-")));
        let mut process = self::command(&self.kits());
        process.args([command, "--dir", name]);
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        self.nodes.push(Node { name: name.to_owned(), log, child: process.spawn().unwrap() });
    }

    /// Asks every node to stop (SIGTERM) and checks that each did so cleanly.
    pub fn stop(&mut self) {
        for node in &self.nodes {
            let kill = format!("kill -TERM {}", node.child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
        for node in &mut self.nodes {
            let status = node.child.wait().unwrap();
            assert_eq!(status.code(), Some(0), "{} ended with {status}", node.name);
        }
        self.nodes.clear();
    }

    /// A path beside the kits.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder with the kits and their `fedledger.toml`, in which the command line runs.
    pub fn kits(&self) -> PathBuf {
        let kits = self.path("kits");
        fs::create_dir_all(&kits).unwrap();
        kits
    }

    /// Runs the command line in the folder of the kits.
    pub fn run(&self, arguments: &[&str]) -> Output {
        fedledger(&self.kits(), arguments)
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed no JSON ({error}): {text}"))
    }

    /// Runs a command that must end with this exit code; its stderr.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], exit: i32) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {stderr}");
        stderr
    }

    /// Looks at what a command says until it holds, and returns it.
    #[track_caller]
    pub fn wait(&self, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = String::new();
        for _ in 0..LOOKS_MAX {
            let output = self.run(&[arguments, &["--json"]].concat());
            if let Ok(value) = serde_json::from_slice(&output.stdout)
                && holds(&value)
            {
                return value;
            }
            last = format!("{output:?}");
        }
        panic!("{arguments:?} never said what was waited for; last: {last}")
    }

    /// Starts a command that goes on until it is stopped, with `--json`.
    pub fn watch(&self, arguments: &[&str]) -> Watched {
        let mut command = command(&self.kits());
        let process = command.args(arguments).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Watched { child, said }
    }

    /// Proposes a plan, has every hospital consent, and starts it; its id.
    #[track_caller]
    pub fn start_plan(&self, text: &str) -> String {
        let file = self.path("plan.toml");
        fs::write(&file, text).unwrap();
        let proposed = self.json(&["plan", "propose", file.to_str().unwrap()]);
        let plan = proposed["plan"].as_str().unwrap().to_owned();
        for site in SITES {
            let identity = format!("{site}/identity");
            self.json(&["plan", "approve", &plan[..12], "--identity", &identity]);
        }
        self.json(&["plan", "start", &plan]);
        plan
    }

    /// Waits until a plan has this status.
    #[track_caller]
    pub fn wait_for_plan(&self, plan: &str, status: &str) {
        self.wait(&["plan", "show", plan], |view| view["status"] == status);
    }
}

impl Drop for Consortium {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.child.kill();
            let _ = node.child.wait();
            if thread::panicking() {
                eprintln!("--- {}\n{}", node.name, fs::read_to_string(&node.log).unwrap_or_default());
            }
        }
    }
}

/// A command that goes on until it is dropped.
pub struct Watched {
    child: Child,
    said: Receiver<String>,
}

impl Watched {
    /// Waits for a line that holds, and returns it.
    #[track_caller]
    pub fn until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.said.recv_timeout(SILENCE_MAX).unwrap();
            let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
            if holds(&value) {
                return value;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the command line in a folder, without defaults from the environment.
pub fn fedledger(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG"] {
        command.env_remove(variable);
    }
    command.current_dir(folder);
    command
}

fn description() -> String {
    let ports = free_ports(3 * SITES.len());
    let mut text = "name = \"heart\"\n".to_owned();
    for (site, ports) in SITES.iter().zip(ports.chunks(3)) {
        let roles = if *site == "cleveland" { r#"["operator"]"# } else { "[]" };
        let (listen, api, http) = (ports[0], ports[1], ports[2]);
        write!(text, "[[members]]\nid = \"{site}\"\nroles = {roles}\nparticipant = {{}}\n").unwrap();
        let sockets = [("listen", listen), ("api", api), ("http", http)];
        let sockets = sockets.map(|(name, port)| format!("{name} = \"127.0.0.1:{port}\""));
        writeln!(text, "replica = {{ {} }}", sockets.join(", ")).unwrap();
    }
    text
}

/// Ports that are free for TCP and UDP.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, tcp, udp));
        }
    }
    held.into_iter().map(|(port, ..)| port).collect()
}

fn records(site: &str) -> String {
    let mut lines = RECORDS.lines();
    let header = lines.next().unwrap();
    let own = lines.filter(|line| line.split(',').next() == Some(site));
    std::iter::once(header).chain(own).flat_map(|line| [line, "\n"]).collect()
}

fn test_rows(site: &str) -> String {
    let all: BTreeMap<String, Vec<u64>> = serde_json::from_str(TEST_ROWS).unwrap();
    serde_json::to_string(&all[site]).unwrap()
}
