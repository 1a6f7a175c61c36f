//! Processes of a consortium on this machine, and the command line to look at them.

mod orders;
mod relays;

pub use self::{orders::STOP, relays::Relays};

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

pub const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

/// Two that make their keys on site; the second one encrypts them.
const ON_SITE: [&str; 2] = ["hungarian", "va"];

const RECORDS: &str = include_str!("../../../simulations/data/heart_4sites.csv");
const SCHEMA: &str = include_str!("../../../simulations/data/heart.schema.toml");
const TEST_ROWS: &str = include_str!("../../../simulations/data/heart_test_rows.json");

/// How often a condition is looked at before it counts as missed. Each look starts a process.
const LOOKS_MAX: usize = 3000;

/// How a process ends at a failpoint.
const SIGABRT: i32 = 6;

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
        consortium.make_keys_on_site();
        consortium.ok(&["provision", "../consortium.toml", "--out", ".", "--requests", "../requests"]);
        consortium.install_on_site();
        consortium.give_records();
        for site in SITES {
            consortium.start_node("coordinator", &format!("{site}/replica"), "");
            consortium.start_node("participant", &format!("{site}/participant"), "");
        }
        consortium
    }

    /// The same, with keys that all come from provisioning, and with `FAILPOINTS` for every replica and every participant.
    pub fn start_with_failpoints(replicas: &str, participants: &str) -> Self {
        Self::start_with(|name| if name.ends_with("/replica") { replicas } else { participants }.to_owned())
    }

    /// The same with `FAILPOINTS` for each node, given as `SITE/replica` or `SITE/participant`.
    pub fn start_with(failpoints: impl Fn(&str) -> String) -> Self {
        let mut consortium = Self::provisioned();
        consortium.start_all(failpoints);
        consortium
    }

    /// A consortium whose nodes do not run yet.
    fn provisioned() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let consortium = Self { folder, nodes: Vec::new() };
        fs::write(consortium.path("consortium.toml"), description()).unwrap();
        consortium.ok(&["provision", "../consortium.toml", "--out", "."]);
        consortium.give_records();
        consortium
    }

    fn start_all(&mut self, failpoints: impl Fn(&str) -> String) {
        for site in SITES {
            for (command, kind) in [("coordinator", "replica"), ("participant", "participant")] {
                let name = format!("{site}/{kind}");
                self.start_node(command, &name, &failpoints(&name));
            }
        }
    }

    /// Starts the nodes again that have ended at a failpoint; their names. What has ended otherwise fails the test.
    pub fn revive(&mut self) -> Vec<String> {
        let has_ended = |node: &mut Node| match node.child.try_wait().unwrap() {
            None => false,
            Some(status) => {
                assert_eq!(status.signal(), Some(SIGABRT), "{} ended with {status}", node.name);
                true
            }
        };
        let ended: Vec<String> = self.nodes.extract_if(.., has_ended).map(|node| node.name).collect();
        for name in &ended {
            self.start_again(name);
        }
        ended
    }

    /// Waits until a node has ended at a failpoint, and leaves it so.
    #[track_caller]
    pub fn wait_for_abort(&mut self, name: &str) {
        let position = self.nodes.iter().position(|node| node.name == name).unwrap();
        let mut node = self.nodes.remove(position);
        let status = node.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "{name} ended with {status}");
    }

    /// What a node has logged since the consortium was started.
    pub fn log_of(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{}.log", name.replace('/', "-")))
    }

    /// Asks a node to stop, and waits until it has done so cleanly.
    #[track_caller]
    pub fn stop_node(&mut self, name: &str) {
        self.signal(name, "TERM");
        let position = self.nodes.iter().position(|node| node.name == name).unwrap();
        let status = self.nodes.remove(position).child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{name} ended with {status}");
    }

    /// Starts a node, given as `SITE/replica` or `SITE/participant`.
    pub fn start_again(&mut self, name: &str) {
        let command = if name.ends_with("/replica") { "coordinator" } else { "participant" };
        self.start_node(command, name, "");
    }

    /// Sends a signal, such as `STOP` or `CONT`, to a node.
    pub fn signal(&self, name: &str, signal: &str) {
        let node = self.nodes.iter().find(|node| node.name == name).unwrap();
        let kill = format!("kill -{signal} {}", node.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Each hospital's own records.
    fn give_records(&self) {
        for site in SITES {
            let participant = self.kits().join(site).join("participant");
            fs::write(participant.join("data.csv"), records(site)).unwrap();
            fs::write(participant.join("schema.toml"), SCHEMA).unwrap();
            fs::write(participant.join("heart_test_rows.json"), test_rows(site)).unwrap();
        }
    }

    /// Two hospitals draw their keys and write requests.
    fn make_keys_on_site(&self) {
        let passphrase = self.path("va.passphrase");
        fs::write(&passphrase, "kept in the hospital's safe\n").unwrap();
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(self.path("requests")).unwrap();
        for site in ON_SITE {
            let (directory, request) = (format!("../{site}"), format!("../requests/{site}.toml"));
            let roles = ["--role", "replica,participant"];
            self.ok(&self
                .unlocking(site, &[&["identity", "new", "--member", site, "--dir", &directory], &roles[..]].concat()));
            self.ok(&self.unlocking(site, &["identity", "request", "--dir", &directory, "--out", &request]));
        }
    }

    /// The two hospitals merge what provisioning made for them, none of which is secret.
    fn install_on_site(&self) {
        for site in ON_SITE {
            let (approval, directory) = (self.kits().join(site), self.path(site));
            let secret = walk(&approval).into_iter().find(|file| file.extension().is_some_and(|end| end == "key"));
            assert_eq!(secret, None, "provisioning drew a key of {site}");
            let (from, to) = (approval.to_str().unwrap(), directory.to_str().unwrap());
            self.ok(&self.unlocking(site, &["identity", "install", from, "--dir", to]));
            fs::remove_dir_all(&approval).unwrap();
            fs::rename(directory, approval).unwrap();
        }
    }

    /// Arguments with which a command opens the keys of a site.
    pub fn unlocking(&self, site: &str, arguments: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let passphrase = self.path("va.passphrase");
        if site == "va" && passphrase.exists() {
            all.extend(["--passphrase-file".to_owned(), passphrase.to_str().unwrap().to_owned()]);
        }
        all
    }

    fn start_node(&mut self, command: &str, name: &str, failpoints: &str) {
        let log = self.log_path(name);
        let mut process = self::command(&self.kits());
        process.env("FAILPOINTS", failpoints);
        let (site, _) = name.split_once('/').unwrap();
        process.args(self.unlocking(site, &[command, "--dir", name]));
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(appending(&log));
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
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        fedledger(&self.kits(), arguments)
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}: {stderr}", words(arguments));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--json`.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        let arguments = [words(arguments), vec![OsStr::new("--json")]].concat();
        let text = self.ok(&arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed no JSON ({error}): {text}"))
    }

    /// The same of a command that may fail.
    pub fn json_if_ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Option<Value> {
        let output = self.run(&[words(arguments), vec![OsStr::new("--json")]].concat());
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Runs a command that must end with this exit code; its stderr.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, arguments: &[S], exit: i32) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{:?}: {stderr}", words(arguments));
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
            self.json(&self.unlocking(site, &["plan", "approve", &plan[..12], "--identity", &identity]));
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
pub fn fedledger<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

/// A log that goes on when the node is started again.
fn appending(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

fn words<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<&OsStr> {
    arguments.iter().map(AsRef::as_ref).collect()
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedledger"));
    for variable in
        ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
    {
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

/// Ports that are free for TCP and UDP, each given out once. They lie below those that the system gives to outgoing
/// connections, which could take them before the nodes do.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let offset = std::process::id().wrapping_mul(97);
    let ports = std::iter::repeat_with(|| {
        let number = offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        10_000 + u16::try_from(number % 20_000).unwrap()
    });
    ports.filter(free).take(count).collect()
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
