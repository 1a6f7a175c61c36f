//! Nodes that are suspended or slowed down when they come to a step, at the moment that a test chooses.

use std::{fs, path::PathBuf, sync::mpsc, thread};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

use super::{Consortium, Relays, SILENCE_MAX, SITES};

/// Suspends a node.
pub const STOP: &str = "stop";

impl Consortium {
    /// Starts a consortium whose nodes take orders at these steps. What is on its way when it becomes moot is sent all the
    /// same.
    pub fn start_obedient(steps: &[&str]) -> Self {
        let mut consortium = Self::provisioned();
        consortium.start_taking_orders(steps);
        consortium
    }

    /// The same with relays in between, by which nodes can be cut off.
    pub fn start_obedient_behind_relays(steps: &[&str]) -> (Self, Relays) {
        let mut consortium = Self::provisioned();
        let relays = Relays::start();
        for site in SITES {
            for kind in ["replica", "participant"] {
                let name = format!("{site}/{kind}");
                relays.put_before(&name, &consortium.kits().join(&name).join("node.toml"));
            }
        }
        consortium.start_taking_orders(steps);
        (consortium, relays)
    }

    fn start_taking_orders(&mut self, steps: &[&str]) {
        fs::create_dir(self.path("orders")).unwrap();
        self.start_all(|name| {
            let points = steps.iter().map(|step| format!("{step}=return(../orders/{})", order_name(name, step)));
            points.chain(["withdrawing=return".to_owned()]).collect::<Vec<_>>().join(";")
        });
    }

    /// Orders what a node does when it next comes to a step: to stop, or to wait for so many milliseconds.
    pub fn order(&self, node: &str, step: &str, order: &str) {
        // Nobody sees half of it.
        let written = self.path("order");
        fs::write(&written, order).unwrap();
        fs::rename(&written, self.order_path(node, step)).unwrap();
    }

    /// Takes an order back, if nobody has obeyed it yet.
    pub fn take_back(&self, node: &str, step: &str) {
        fs::remove_file(self.order_path(node, step)).ok();
    }

    /// How many orders nobody has obeyed yet.
    pub fn orders(&self) -> usize {
        fs::read_dir(self.path("orders")).unwrap().count()
    }

    fn order_path(&self, node: &str, step: &str) -> PathBuf {
        self.path("orders").join(order_name(node, step))
    }

    /// Waits until a node has stopped at a step.
    #[track_caller]
    pub fn wait_until_stopped(&self, node: &str) {
        self.wait_until_one_stopped(&[node]);
    }

    /// Waits until one of these nodes has stopped at a step; which.
    #[track_caller]
    pub fn wait_until_one_stopped(&self, names: &[&str]) -> String {
        let (sender, changes) = mpsc::channel();
        for node in self.nodes.iter().filter(|node| names.contains(&node.name.as_str())) {
            let (name, process, sender) = (node.name.clone(), Pid::from_child(&node.child), sender.clone());
            // It ends with the process at the latest, which it leaves to be waited for.
            thread::spawn(move || {
                let awaited = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                let change = waitid(WaitId::Pid(process), awaited).ok().flatten();
                sender.send((name, change.is_some_and(|change| change.stopped()))).ok();
            });
        }
        let change = changes.recv_timeout(SILENCE_MAX);
        let Ok((name, is_stopped)) = change else { panic!("none of {names:?} has come to the step") };
        assert!(is_stopped, "{name} has ended");
        name
    }

    /// Has a suspended node go on.
    pub fn go_on(&self, node: &str) {
        self.signal(node, "CONT");
    }

    /// Looks at what a command says that asks the replica of this site and no other until it holds, and returns it.
    #[track_caller]
    pub fn wait_at(&self, site: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let config = fs::read_to_string(self.kits().join(site).join("replica/node.toml")).unwrap();
        let api = config.lines().find_map(|line| line.strip_prefix("api = \"")?.strip_suffix('"')).unwrap();
        self.wait(&[arguments, &["--connect", &format!("https://{api}")]].concat(), holds)
    }
}

fn order_name(node: &str, step: &str) -> String {
    format!("{}.{step}", node.replace('/', "-"))
}
