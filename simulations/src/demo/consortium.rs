//! The demo's consortium: provisioning it, and its nodes while they run.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use fedledger_coordinator::{ReplicaNode, replica::Handle};
use fedledger_federation::{Command, Federation, command::StartPlan, member::Role, plan::Plan};
use fedledger_ledger::{
    Digest,
    log::Log,
    transaction::{Nonce, Transaction},
};
use fedledger_participant::node::{NodeOptions, ParticipantNode};
use fedledger_proto::{
    api::ApiClient,
    endpoint::Endpoint,
    kit::{
        ConsortiumDescription, Identity, MemberDescription, ParticipantDescription, ReplicaDescription, SitePolicy,
        Surprises, provision, write_kits,
    },
};
use futures::future::join_all;
use tokio::time::timeout;

use super::{
    Chaos, ChaosEvent, DemoError, DemoOptions,
    chaos::{self, RETURNS_AFTER_ROUNDS, SLOWED_BY},
};
use crate::heart::{self, SITES};

/// The member that proposes plans.
const OPERATOR: &str = "operator";

/// How long a replica that was away may take to get what it missed.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How far ahead the operator's transactions expire, in log entries.
const VALIDITY_ENTRIES: u64 = 10_000;

/// The nodes of the demo.
#[derive(Debug)]
pub(super) struct Consortium {
    directory: PathBuf,
    genesis: Vec<u8>,
    operator: Identity,
    replicas: BTreeMap<String, ReplicaNode>,
    participants: BTreeMap<String, ParticipantNode>,
    apis: BTreeMap<String, SocketAddr>,
    /// Participants that run and were cut off.
    cut_off: BTreeMap<String, ParticipantNode>,
    chaos: Vec<Chaos>,
    /// Nodes that were killed or cut off and come back, by the round in which they do.
    returning: Vec<(u64, Node)>,
    /// Endpoints of killed replicas, whose ports may still be taken.
    killed: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Replica(String),
    Participant(String),
    /// The connections of a participant.
    Connections(String),
}

impl Consortium {
    /// Writes keys, genesis, configuration and data below the directory.
    pub(super) fn provision(options: &DemoOptions) -> Result<Self, DemoError> {
        let directory = options.directory.clone();
        let ports = Ports::find(SITES.len()).map_err(DemoError::Port)?;
        let description = describe(&ports);
        let mut failure = None;
        let mut randomness = || {
            let mut bytes = [0; 32];
            if let Err(error) = getrandom::fill(&mut bytes) {
                failure = Some(error.to_string());
            }
            bytes
        };
        let provisioned = provision(&description, &mut randomness)?;
        if let Some(error) = failure {
            return Err(DemoError::Randomness(error));
        }
        write_kits(&provisioned, &directory, options.force)?;
        for site in SITES {
            write_data(&directory.join(site).join("participant"), site)?;
        }
        let operator = Identity::load(&directory.join(OPERATOR).join("identity"))?;
        let apis = SITES.iter().map(|site| (*site).to_owned()).zip(ports.apis);
        Ok(Self {
            genesis: operator.genesis.bytes.clone(),
            directory,
            operator,
            replicas: BTreeMap::new(),
            participants: BTreeMap::new(),
            apis: apis.collect(),
            cut_off: BTreeMap::new(),
            chaos: options.chaos.clone(),
            returning: Vec::new(),
            killed: BTreeMap::new(),
        })
    }

    /// Starts every node.
    pub(super) async fn start(&mut self) -> Result<(), DemoError> {
        for site in SITES {
            self.start_node(&Node::Replica(site.to_owned())).await?;
        }
        for site in SITES {
            self.start_node(&Node::Participant(site.to_owned())).await?;
        }
        Ok(())
    }

    /// Stops every node that runs, the participants first.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let participants = std::mem::take(&mut self.participants).into_iter().chain(std::mem::take(&mut self.cut_off));
        let participants = participants.map(|(name, node)| async {
            node.shutdown().await.map_err(|source| DemoError::Participant { name, source })
        });
        let participants = join_all(participants).await;
        let replicas = std::mem::take(&mut self.replicas)
            .into_iter()
            .map(|(name, node)| async { node.shutdown().await.map_err(|source| DemoError::Replica { name, source }) });
        let replicas = join_all(replicas).await;
        participants.into_iter().chain(replicas).collect()
    }

    /// Waits until every replica has all entries of this log and knows them to be final, and has all files that its
    /// versions name.
    pub(super) async fn settle(&self, log: &Log<Federation>) -> Result<(), DemoError> {
        let files: Vec<Digest> = log
            .machine()
            .attested()
            .flat_map(|(_, _, record)| {
                let artifacts = record.manifest.artifacts.values().map(|artifact| *artifact.cid.digest());
                let updates = record.manifest.contributions.iter().map(|contribution| *contribution.update.digest());
                artifacts.chain(updates).collect::<Vec<_>>()
            })
            .collect();
        for (name, replica) in &self.replicas {
            let mut size = replica.handle().log_size();
            let mut added = replica.blobs().added();
            let mut finalized = replica.handle().finalized();
            let complete = async {
                let _ = size.wait_for(|size| *size >= log.size()).await;
                let _ = finalized.wait_for(|finalized| finalized.final_size >= log.size()).await;
                while !files.iter().all(|digest| replica.blobs().has(digest)) {
                    let _ = added.changed().await;
                }
            };
            if timeout(SETTLED_AFTER, complete).await.is_err() {
                let what = format!("the replica of {name} to have everything, and enough co-signatures");
                return Err(DemoError::Stalled { what, seconds: SETTLED_AFTER.as_secs() });
            }
        }
        Ok(())
    }

    /// The genesis file.
    pub(super) fn genesis(&self) -> &[u8] {
        &self.genesis
    }

    /// Replicas that run.
    pub(super) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Participants that run.
    pub(super) fn participants(&self) -> usize {
        self.participants.len()
    }

    /// Hospitals whose participants run and are connected.
    pub(super) fn training(&self) -> impl Iterator<Item = &String> {
        self.participants.keys()
    }

    /// To a replica that runs.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.replicas.values().next().map(|replica| replica.handle().clone())
    }

    /// Proposes the plan as the operator, over the API.
    pub(super) async fn propose(&self, plan: &Plan) -> Result<(), DemoError> {
        self.submit(&Command::ProposePlan(plan.clone())).await
    }

    /// Starts the plan as the operator, over the API.
    pub(super) async fn start_plan(&self, plan: &Digest) -> Result<(), DemoError> {
        self.submit(&Command::StartPlan(StartPlan { plan: *plan })).await
    }

    /// Does what is asked for in this round; returns it in words.
    pub(super) async fn disturb(&mut self, round: u64) -> Result<Vec<String>, DemoError> {
        let mut done = Vec::new();
        let (back, away): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.returning).into_iter().partition(|(at, _)| *at <= round);
        self.returning = away;
        for (_, node) in back {
            self.start_node(&node).await?;
            done.push(format!("{node} is back"));
        }
        let now: Vec<ChaosEvent> =
            self.chaos.iter().filter(|chaos| chaos.round == round).map(|chaos| chaos.event.clone()).collect();
        for event in now {
            let node = match event {
                ChaosEvent::KillLeader => self.leader().map(Node::Replica),
                ChaosEvent::KillReplica(site) => Some(Node::Replica(site)),
                ChaosEvent::KillParticipant(site) => Some(Node::Participant(site)),
                ChaosEvent::Partition(site) => Some(Node::Connections(site)),
                // Its participant has known so since it was started.
                ChaosEvent::Slow(site) => {
                    done.push(format!("{site} trains {} s longer", SLOWED_BY.as_secs()));
                    None
                }
            };
            if let Some(node) = node {
                done.push(self.take_away(&node).await);
                self.returning.push((round + RETURNS_AFTER_ROUNDS, node));
            }
        }
        Ok(done)
    }

    /// Brings everything back that would come back later than the last round.
    pub(super) async fn restore(&mut self) -> Result<(), DemoError> {
        for (_, node) in std::mem::take(&mut self.returning) {
            self.start_node(&node).await?;
        }
        Ok(())
    }

    fn leader(&self) -> Option<String> {
        let leads = |node: &ReplicaNode| {
            let status = node.handle().status().borrow().clone();
            status.leader == Some(status.id)
        };
        self.replicas.iter().find(|(_, node)| leads(node)).map(|(site, _)| site.clone())
    }

    /// Kills a node or cuts it off; returns what was done in words.
    async fn take_away(&mut self, node: &Node) -> String {
        match node {
            Node::Replica(site) => {
                if let Some(replica) = self.replicas.remove(site) {
                    let endpoint = replica.kill().await;
                    self.killed.insert(site.clone(), endpoint);
                }
            }
            Node::Participant(site) => {
                if let Some(participant) = self.participants.remove(site) {
                    // A participant acts on nothing but the ledger, so an orderly end is no different from a crash.
                    let _ = participant.shutdown().await;
                }
            }
            Node::Connections(site) => {
                if let Some(participant) = self.participants.remove(site) {
                    participant.set_online(false);
                    self.cut_off.insert(site.clone(), participant);
                }
                return format!("{node} was cut off");
            }
        }
        format!("{node} was killed")
    }

    async fn start_node(&mut self, node: &Node) -> Result<(), DemoError> {
        match node {
            Node::Replica(site) => {
                if let Some(endpoint) = self.killed.remove(site) {
                    endpoint.shutdown().await;
                }
                let directory = self.directory.join(site).join("replica");
                let started = ReplicaNode::start(&directory).await;
                let replica = started.map_err(|source| DemoError::Replica { name: site.clone(), source })?;
                self.replicas.insert(site.clone(), replica);
            }
            Node::Participant(site) => {
                let directory = self.directory.join(site).join("participant");
                let started = ParticipantNode::start(&directory, NodeOptions::default()).await;
                let participant = started.map_err(|source| DemoError::Participant { name: site.clone(), source })?;
                participant.delay_training(chaos::delays(&self.chaos, site));
                self.participants.insert(site.clone(), participant);
            }
            Node::Connections(site) => {
                if let Some(participant) = self.cut_off.remove(site) {
                    participant.set_online(true);
                    self.participants.insert(site.clone(), participant);
                }
            }
        }
        Ok(())
    }

    async fn submit(&self, command: &Command) -> Result<(), DemoError> {
        let site = self.replicas.keys().next().and_then(|site| self.apis.get(site));
        let Some(address) = site else {
            return Err(DemoError::Follow("no replica runs".to_owned()));
        };
        let client = ApiClient::connect(&format!("https://{address}"), &self.operator).await?;
        let size = client.status().await?.log_size;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| DemoError::Randomness(error.to_string()))?;
        let transaction = Transaction {
            chain: self.operator.genesis.chain,
            author: self.operator.organisation_key.public(),
            nonce: Nonce(nonce),
            not_after_index: size + VALIDITY_ENTRIES,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        let envelope = transaction.sign(&self.operator.organisation_key).to_bytes();
        let submitted = client.submit(&envelope).await?;
        match submitted.reason {
            Some(reason) => Err(DemoError::Rejected(reason)),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replica(site) => write!(f, "the replica of {site}"),
            Self::Participant(site) | Self::Connections(site) => write!(f, "the participant of {site}"),
        }
    }
}

/// Ports that were free a moment ago.
struct Ports {
    listens: Vec<SocketAddr>,
    apis: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
}

impl Ports {
    /// Ports for `count` replicas: one for TCP and UDP alike, one for the API, one for HTTP.
    fn find(count: usize) -> io::Result<Self> {
        // All are held until all are found, so that none is given twice.
        let (mut held, mut listens) = (Vec::new(), Vec::new());
        while listens.len() < count {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = tcp.local_addr()?;
            if let Ok(udp) = UdpSocket::bind(address) {
                listens.push(address);
                held.push((tcp, Some(udp)));
            }
        }
        let mut find = || {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = tcp.local_addr()?;
            held.push((tcp, None));
            Ok::<_, io::Error>(address)
        };
        let apis = (0..count).map(|_| find()).collect::<Result<_, _>>()?;
        let https = (0..count).map(|_| find()).collect::<Result<_, _>>()?;
        Ok(Self { listens, apis, https })
    }
}

fn describe(ports: &Ports) -> ConsortiumDescription {
    let mut members: Vec<MemberDescription> = SITES
        .iter()
        .zip(ports.listens.iter().zip(&ports.apis).zip(&ports.https))
        .map(|(site, ((listen, api), http))| MemberDescription {
            id: (*site).to_owned(),
            name: None,
            roles: [Role::Replica, Role::Participant].into(),
            replica: Some(ReplicaDescription {
                listen: Some(*listen),
                api: Some(*api),
                http: Some(*http),
                ..ReplicaDescription::default()
            }),
            participant: Some(ParticipantDescription {
                // Nobody is asked, since the demo's hospitals know its plan; and its records are public, so that everything
                // may be told of them.
                policy: Some(SitePolicy {
                    auto_approve: true,
                    surprises: Surprises::Allow,
                    suppress_below: 0,
                    ..SitePolicy::default()
                }),
                ..ParticipantDescription::default()
            }),
        })
        .collect();
    members.push(MemberDescription {
        id: OPERATOR.to_owned(),
        name: Some("Operator of the consortium".to_owned()),
        roles: [Role::Operator, Role::Auditor].into(),
        replica: None,
        participant: None,
    });
    ConsortiumDescription { name: "heart-demo".to_owned(), finality_threshold: None, members }
}

/// The hospital's own table, its schema and the rows that it tests on.
fn write_data(directory: &Path, site: &str) -> Result<(), DemoError> {
    let rows = serde_json::to_vec(&heart::test_rows(site)?).map_err(heart::HeartError::TestRows)?;
    let files = [
        ("data.csv", heart::csv(site)?.into_bytes()),
        ("schema.toml", heart::SCHEMA.as_bytes().to_vec()),
        (heart::TEST_ROWS_FILE, rows),
    ];
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|source| DemoError::Io { path, source })?;
    }
    Ok(())
}
