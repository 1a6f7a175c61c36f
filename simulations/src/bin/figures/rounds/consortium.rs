//! A consortium on this machine: every replica is a `fedledger` process, and so is every participant, unless there are many.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use fedledger_federation::{architecture::PARAMETERS_MAX, member::Role};
use fedledger_ledger::transaction::{Nonce, Transaction};
use fedledger_participant::node::{NodeOptions, ParticipantNode};
use fedledger_proto::{
    api::{ApiClient, RaftRole, Submitted},
    kit::{
        ConsortiumDescription, Identity, MemberDescription, ParticipantDescription, ReplicaDescription, SitePolicy,
        Surprises, provision, write_kits,
    },
};
use tempfile::TempDir;
use tokio::{runtime, time::sleep};

use super::plan::{FEATURES, ROWS};
use crate::{cluster::free_port, memory};

/// The option with which this program is started anew, to run many participants.
pub const PARTICIPANTS_OPTION: &str = "--participants";

/// The member that proposes plans.
const OPERATOR: &str = "operator";

/// Entries for which transactions are valid.
const VALIDITY_ENTRIES: u64 = 90_000;

/// Pause before a replica that does not serve yet is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Participants of one process that train at the same time: the memory of all would be more than a machine has.
const TRAINING_AT_ONCE: usize = 6;

const SCHEMA_HEAD: &str = r#"delimiter = ","
missing = "error"
normalize = "none"
[label]
column = "y"
positive_when = { greater_than = "0" }
"#;

/// The processes of a consortium, in a folder that is removed afterwards. They end with this.
pub struct Consortium {
    operator: Identity,
    participants: Vec<Node>,
    replicas: Vec<Node>,
    apis: Vec<String>,
    // Removed when nobody writes to it any more.
    directory: TempDir,
}

struct Node {
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Consortium {
    /// A running consortium. Folders lie where temporary files do, so `TMPDIR` should name a disk.
    pub fn start(replicas: usize, participants: usize) -> Self {
        Self::start_over(replicas, participants, "")
    }

    /// The same, where nodes reach each other in one way only, such as `tcp://`.
    pub fn start_over(replicas: usize, participants: usize, way: &str) -> Self {
        let mut consortium = Self::provision(replicas, participants, way);
        for number in 0..participants {
            let child = fedledger("participant", &consortium.folder(number, "participant"));
            consortium.participants.push(Node { child });
        }
        consortium
    }

    /// The same, with all participants in one process.
    pub fn start_together(replicas: usize, participants: usize) -> Self {
        let mut consortium = Self::provision(replicas, participants, "");
        let folders = (0..participants).map(|number| consortium.folder(number, "participant"));
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg(PARTICIPANTS_OPTION).args(folders);
        let child = start(command, &consortium.directory.path().join("participants.log"));
        consortium.participants.push(Node { child });
        consortium
    }

    fn provision(replicas: usize, participants: usize, way: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..replicas).map(|_| (free_port(), free_port())).collect();
        let members = (0..replicas.max(participants)).map(|number| MemberDescription {
            id: member(number),
            name: None,
            roles: [].into(),
            replica: addresses.get(number).map(|(listen, api)| ReplicaDescription {
                listen: Some(*listen),
                api: Some(*api),
                http: Some(free_port()),
                address: Some(serde_json::from_value(format!("{way}{listen}").into()).unwrap()),
                ..ReplicaDescription::default()
            }),
            participant: (number < participants).then(|| ParticipantDescription {
                // Nobody is asked, however large the models are that are measured.
                policy: Some(SitePolicy {
                    auto_approve: true,
                    surprises: Surprises::Allow,
                    parameters_max: PARAMETERS_MAX,
                    ..SitePolicy::default()
                }),
                ..ParticipantDescription::default()
            }),
        });
        let operator = MemberDescription {
            id: OPERATOR.to_owned(),
            name: None,
            roles: [Role::Operator].into(),
            replica: None,
            participant: None,
        };
        let members = members.chain([operator]).collect();
        let description = ConsortiumDescription { name: "figures".to_owned(), finality_threshold: None, members };
        let mut randomness = random;
        write_kits(&provision(&description, &mut randomness).unwrap(), directory.path(), false).unwrap();
        let operator = Identity::load(&directory.path().join(OPERATOR).join("identity")).unwrap();
        let apis = addresses.iter().map(|(_, api)| format!("https://{api}")).collect();
        let mut consortium = Self { directory, operator, replicas: Vec::new(), participants: Vec::new(), apis };
        for number in 0..participants {
            let folder = consortium.folder(number, "participant");
            fs::write(folder.join("data.csv"), table(number)).unwrap();
            fs::write(folder.join("schema.toml"), schema()).unwrap();
        }
        for number in 0..replicas {
            let child = fedledger("coordinator", &consortium.folder(number, "replica"));
            consortium.replicas.push(Node { child });
        }
        consortium
    }

    /// Kills a replica, as a power failure does.
    pub fn kill_replica(&mut self, number: usize) {
        let node = &mut self.replicas[number];
        node.child.kill().unwrap();
        node.child.wait().unwrap();
    }

    /// Starts a killed replica again.
    pub fn start_replica(&mut self, number: usize) {
        self.replicas[number] = Node { child: fedledger("coordinator", &self.folder(number, "replica")) };
    }

    /// A connection to a replica, as soon as it knows who leads.
    pub async fn client(&self, number: usize) -> ApiClient {
        loop {
            if let Ok(client) = ApiClient::connect(&self.apis[number], &self.operator).await
                && client.status().await.is_ok_and(|status| status.leader.is_some())
            {
                return client;
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// The number of the replica that leads.
    pub async fn leader(&self) -> usize {
        loop {
            for number in 0..self.apis.len() {
                if self.client(number).await.status().await.is_ok_and(|status| status.role == RaftRole::Leader) {
                    return number;
                }
            }
        }
    }

    /// Brings a command of the operator onto the ledger.
    pub async fn submit(&self, client: &ApiClient, command: &fedledger_federation::Command) -> Submitted {
        let nonce: [u8; 32] = random();
        let transaction = Transaction {
            chain: self.operator.genesis.chain,
            author: self.operator.organisation_key.public(),
            nonce: Nonce(nonce[..16].try_into().unwrap()),
            not_after_index: client.status().await.unwrap().log_size + VALIDITY_ENTRIES,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        let envelope = transaction.sign(&self.operator.organisation_key).to_bytes();
        client.submit(&envelope).await.unwrap()
    }

    /// The genesis file.
    pub fn genesis(&self) -> &[u8] {
        &self.operator.genesis.bytes
    }

    /// The memory of all processes now, in MiB (PSS).
    pub fn memory_mib(&self) -> f64 {
        self.replicas.iter().chain(&self.participants).map(|node| memory::share_mib(node.child.id())).sum()
    }

    /// The most memory that a replica had, in MiB.
    pub fn coordinator_peak_mib(&self) -> f64 {
        self.replicas.iter().map(|node| memory::peak_mib(node.child.id())).fold(0.0, f64::max)
    }

    fn folder(&self, number: usize, node: &str) -> PathBuf {
        self.directory.path().join(member(number)).join(node)
    }
}

/// Runs participants in this process until its standard input ends, which it does with the parent.
pub fn run_participants(folders: &[String]) {
    let runtime =
        runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(TRAINING_AT_ONCE).build().unwrap();
    runtime.block_on(async {
        let mut nodes = Vec::new();
        for folder in folders {
            nodes.push(ParticipantNode::start(Path::new(folder), NodeOptions::default()).await.unwrap());
        }
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
        let _ = end.await;
    });
}

fn member(number: usize) -> String {
    format!("site-{number}")
}

/// A node of the program beside this one.
fn fedledger(node: &str, folder: &Path) -> Child {
    let program = env::current_exe().unwrap().with_file_name("fedledger");
    assert!(program.exists(), "{} is missing: build it with `cargo build -p fedledger-cli`", program.display());
    let mut command = Command::new(program);
    command.args([node, "--dir"]).arg(folder);
    start(command, &folder.join("node.log"))
}

fn start(mut command: Command, log: &Path) -> Child {
    for variable in ["FEDLEDGER_LOG", "FEDLEDGER_PASSPHRASE", "FAILPOINTS"] {
        command.env_remove(variable);
    }
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Records in which the first feature decides.
fn table(site: usize) -> String {
    let mut text: String = (0..FEATURES).map(|feature| format!("x{feature},")).collect();
    text.push_str("y\n");
    for row in 0..ROWS {
        let value = |feature: u32| (row * 37 + feature * 11 + site as u32 * 5) % 19;
        for feature in 0..FEATURES {
            write!(text, "{}.{},", value(feature) / 10, value(feature) % 10).unwrap();
        }
        writeln!(text, "{}", u32::from(value(0) > 9)).unwrap();
    }
    text
}

fn schema() -> String {
    let features = (0..FEATURES).map(|feature| format!("[[features]]\nkind = \"numeric\"\ncolumn = \"x{feature}\"\n"));
    std::iter::once(SCHEMA_HEAD.to_owned()).chain(features).collect()
}
