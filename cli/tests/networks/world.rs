//! Three network namespaces in a row: the hospital, its firewall, and the world with the replicas.
//!
//! The firewall forwards, and drops by policy routing rules, which need no packet filter in the kernel. It keeps no state,
//! so what may come back is told by the port that it comes from.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, Command, Output, Stdio},
};

/// Set to 1 where namespaces can be made, so that a test that is skipped by mistake fails.
const REQUIRE_VARIABLE: &str = "FEDLEDGER_REQUIRE_NETNS";

/// Longest time until TCP sends again what was not acknowledged, in milliseconds; the shortest that the kernel takes.
const RETRANSMISSION_MAX_MS: u32 = 1000;

/// Between the hospital and its firewall.
const INSIDE: [&str; 2] = ["10.98.0.2", "10.98.0.1"];

/// Between the firewall and the world.
const OUTSIDE: [&str; 2] = ["10.97.0.1", "10.97.0.2"];

/// Three namespaces, each kept by a process that waits.
pub struct World {
    hospital: Child,
    firewall: Child,
    outside: Child,
}

impl World {
    /// Builds it with these addresses in the world; none where that is not possible, and then says why. With
    /// [`REQUIRE_VARIABLE`] set to 1 that is a failure.
    pub fn build(addresses: &[String]) -> Option<Self> {
        match Self::try_build(addresses) {
            Ok(world) => Some(world),
            Err(why) if env::var(REQUIRE_VARIABLE).is_ok_and(|value| value == "1") => {
                panic!("network namespaces cannot be made here, and {REQUIRE_VARIABLE} asks for them: {why}")
            }
            Err(why) => {
                let skipped = format!("skipped: network namespaces cannot be made here: {why}\n");
                // Not by a macro, whose output is not shown for tests that pass.
                io::stderr().write_all(skipped.as_bytes()).unwrap();
                None
            }
        }
    }

    fn try_build(addresses: &[String]) -> Result<Self, String> {
        let world = Self { hospital: namespace()?, firewall: namespace()?, outside: namespace()? };
        let [hospital, firewall, outside] = [&world.hospital, &world.firewall, &world.outside].map(Child::id);
        for id in [hospital, firewall, outside] {
            ip(id, "link set lo up")?;
        }
        ip(firewall, &format!("link add inside type veth peer name eth0 netns {hospital}"))?;
        ip(firewall, &format!("link add outside type veth peer name eth0 netns {outside}"))?;
        for (id, link, address) in [
            (hospital, "eth0", INSIDE[0]),
            (firewall, "inside", INSIDE[1]),
            (firewall, "outside", OUTSIDE[0]),
            (outside, "eth0", OUTSIDE[1]),
        ] {
            ip(id, &format!("address add {address}/24 dev {link}"))?;
            ip(id, &format!("link set {link} up"))?;
        }
        for address in addresses {
            ip(outside, &format!("address add {address}/32 dev lo"))?;
            ip(firewall, &format!("route add {address}/32 via {}", OUTSIDE[1]))?;
        }
        ip(hospital, &format!("route add default via {}", INSIDE[1]))?;
        ip(outside, &format!("route add default via {}", OUTSIDE[0]))?;
        let forward = inside(firewall).args(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).output();
        succeeded(forward, "forwarding")?;
        // TCP takes as long to go on after a cut as the cut was, up to two minutes; what is tested needs no such waits.
        // Kernels before 6.15 have no such setting, and the test takes longer there.
        for id in [hospital, outside] {
            let limit = format!("echo {RETRANSMISSION_MAX_MS} > /proc/sys/net/ipv4/tcp_rto_max_ms");
            let _ = inside(id).args(["sh", "-c", &limit]).output();
        }
        // What the firewall does is tried once, so that a kernel without it skips the test instead of failing it.
        ip(firewall, "rule add pref 100 iif inside ipproto udp dport 9 blackhole")?;
        world.open();
        Ok(world)
    }

    /// Lets everything through.
    pub fn open(&self) {
        // It fails when the last rule is gone.
        while ip(self.firewall.id(), "rule delete iif inside").is_ok() {}
        while ip(self.firewall.id(), "rule delete iif outside").is_ok() {}
    }

    /// Lets nothing through in either direction.
    pub fn close(&self) {
        self.open();
        for side in ["inside", "outside"] {
            ip(self.firewall.id(), &format!("rule add pref 1000 iif {side} blackhole")).unwrap();
        }
    }

    /// Lets TCP out to a port and the answers back. Packets from other ports still do not come in.
    pub fn allow_tcp(&self, port: u16) {
        ip(self.firewall.id(), &format!("rule add pref 500 iif inside ipproto tcp dport {port} lookup main")).unwrap();
        ip(self.firewall.id(), &format!("rule add pref 500 iif outside ipproto tcp sport {port} lookup main")).unwrap();
    }

    /// Drops what goes to an address, without a word.
    pub fn cut_off(&self, address: &str) {
        ip(self.firewall.id(), &format!("rule add pref 200 iif inside to {address} blackhole")).unwrap();
    }

    /// A command in the hospital.
    pub fn in_hospital(&self) -> Command {
        inside(self.hospital.id())
    }

    /// A command in the world.
    pub fn outside(&self) -> Command {
        inside(self.outside.id())
    }

    /// The lines about sockets in the hospital that wait for TCP connections.
    pub fn listening_sockets(&self) -> Vec<String> {
        /// How the kernel writes `TCP_LISTEN`.
        const LISTEN: &str = "0A";
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", self.hospital.id()));
        let text: String = tables.iter().map(|table| fs::read_to_string(table).unwrap()).collect();
        text.lines().filter(|line| line.split_whitespace().nth(3) == Some(LISTEN)).map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [&mut self.hospital, &mut self.firewall, &mut self.outside] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process in a network namespace of its own, which ends when its input does.
fn namespace() -> Result<Child, String> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "echo ready; cat"]);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("unshare: {error}"))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
    if line.trim() == "ready" {
        return Ok(child);
    }
    let ended = child.wait_with_output();
    Err(format!("unshare: {read:?}, {}", ended.map(|output| stderr(&output)).unwrap_or_default()))
}

fn inside(namespace: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &namespace.to_string(), "--net", "--"]);
    command
}

/// Runs `ip` in a namespace.
fn ip(namespace: u32, arguments: &str) -> Result<(), String> {
    let output = inside(namespace).arg("ip").args(arguments.split(' ')).output();
    succeeded(output, arguments)
}

fn succeeded(output: std::io::Result<Output>, what: &str) -> Result<(), String> {
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {what}: {}", stderr(&output))) }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
