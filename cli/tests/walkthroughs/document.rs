//! A document whose console blocks are a program for a shell.

use std::{
    env, fs,
    io::Read as _,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// What begins a command, and what goes on with it.
const PROMPTS: [&str; 2] = ["$ ", ">"];

/// How long all commands together may take, on a machine that does much else.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Sockets in the documents: this, then one of a few ports.
const SOCKET: &str = "127.0.0.1:7";

/// The commands of a document.
pub struct Walkthrough {
    commands: Vec<String>,
}

impl Walkthrough {
    /// Reads a document of the folder `docs`.
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap();
        let blocks = text.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
        let mut commands: Vec<String> = Vec::new();
        for line in blocks.flat_map(str::lines) {
            if let Some(command) = line.strip_prefix(PROMPTS[0]) {
                commands.push(command.to_owned());
            } else if let (Some(rest), Some(command)) = (line.strip_prefix(PROMPTS[1]), commands.last_mut()) {
                *command += "\n";
                *command += rest.strip_prefix(' ').unwrap_or(rest);
            }
        }
        Self { commands }
    }

    pub fn commands(&self) -> &[String] {
        &self.commands
    }

    /// Runs every command in one shell, which begins in `folder` and stops at the first that fails. What they print.
    pub fn run(&self, folder: &Path) -> String {
        let script = with_free_ports(&self.commands.join("\n"));
        let mut command = Command::new("sh");
        // Every command is shown before it is run, so that the last one is the one that failed.
        command.args(["-e", "-c", &format!("set -x\n{script}")]);
        for variable in
            ["FEDLEDGER_LEDGER", "FEDLEDGER_CONNECT", "FEDLEDGER_IDENTITY", "FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE"]
        {
            command.env_remove(variable);
        }
        let log = folder.join("walkthrough.log");
        command.env("PATH", path()).current_dir(folder).process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
        let mut shell = Shell(command.spawn().unwrap());
        let mut stdout = shell.0.stdout.take().unwrap();
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| sender.send(text))
        });
        // The nodes hold the pipe until they have stopped.
        let said = said.recv_timeout(TIME_MAX);
        let stderr = || fs::read_to_string(&log).unwrap();
        let said = said.unwrap_or_else(|_| panic!("the commands did not end: {}\n{}", stderr(), logs(folder)));
        let status = shell.0.wait().unwrap();
        assert!(status.success(), "{status}: {said}\n{}\n{}", stderr(), logs(folder));
        said
    }
}

/// A shell and all that it has started.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &format!("kill -KILL -{}", self.0.id())]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// The logs that the commands leave in a folder.
fn logs(folder: &Path) -> String {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|file| file.extension().is_some_and(|ending| ending == "log"));
    logs.map(|file| format!("--- {}\n{}", file.display(), fs::read_to_string(&file).unwrap_or_default())).collect()
}

/// The search path with the program before everything else.
fn path() -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fedledger"));
    let folders = [program.parent().unwrap().to_owned()];
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths(folders.into_iter().chain(env::split_paths(&others))).unwrap().into_string().unwrap()
}

/// The commands with other ports than those of the document, which may be in use.
fn with_free_ports(script: &str) -> String {
    let mut text = String::new();
    let mut pieces = script.split(SOCKET);
    text += pieces.next().unwrap();
    for piece in pieces {
        let rest = piece.trim_start_matches(|letter: char| letter.is_ascii_digit());
        text += &format!("127.0.0.1:{}{rest}", free_port());
    }
    text
}

/// A port that nobody uses, and that was not given to another document of this process, which may not listen yet.
fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let mut ports = std::iter::repeat_with(|| first + GIVEN.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| is_free(*port)).unwrap()
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}
