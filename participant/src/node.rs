//! The participant's node: the hospital's daemon as a library.
//!
//! It dials out to replicas, replays the ledger that they send and checks every bit of it, takes part in the rounds that
//! the site's policy allows, evaluates new versions, and keeps the last signed head as a witness. [`core::Core`] decides,
//! from the ledger alone; the driver carries out:
//!
//! ```text
//!  replica --leaves--> follower --+                        +--> jobs (train, upload, evaluate)
//!  replica --heads---> driver ----+--> Input | Core | Output +--> submitter --> replicas
//!  jobs, submitter --results------+                        +--> files (blobs, work, witness)
//! ```
//!
//! It can be killed at any instant and started again: what it has done stands on the ledger, and what it was doing is found
//! in the local checkpoints.

mod context;
pub mod core;
mod data;
mod driver;
pub mod environment;
mod error;
mod event;
mod external;
mod files;
mod follower;
mod heads;
mod intent;
mod jobs;
mod peers;
pub mod policy;
mod serve;
mod settings;
mod submitter;
mod trainer_thread;
mod turn;
pub mod witness;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fedledger_federation::{
    history::origin,
    member::{Genesis, MemberId, Members},
};
use fedledger_proto::{
    endpoint::{Endpoint, EndpointConfig, Proxy, Transports},
    kit::{KitError, NODE_FILE, ParticipantKit},
};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use data::DATA_KEPT_MAX;
pub use error::{HistoryError, ParticipantError};
pub use event::{NodeEvent, NodeStatus};
pub use external::{
    DataError, ExternalError, ExternalSettings, GivenWeights, Places as TrainerPlaces, Program as TrainerProgram,
    ProgramError, Records as TrainerRecords, Results as TrainerResults, Trial, TrialOutcome,
};
pub use files::{NodeFiles, OutcomeOf, PartialUpdate, TrainingReport};
pub use intent::Intent;
pub use peers::last_known as last_known_replicas;
pub use trainer_thread::NICENESS as TRAINER_NICENESS;

use self::{
    context::Context,
    core::{Core, DataSummary, Site, SiteTrainer},
    data::DataStore,
    driver::{Channels, Driver, Follow},
    external::{Program, Slots},
    heads::Heads,
    peers::KnownReplicas,
};
use crate::{
    memory,
    table::{OpenError, Schema, SiteData, TableError},
    training::check_device,
};

/// Events that a slow listener may lag behind before it misses some.
const EVENTS_WAITING_MAX: usize = 1024;

/// Why plans for the built-in trainer cannot be carried out where only trainers have data.
const NO_TABLE: &str = "this site has no table, only data for programs of its own";

/// What a node is told beside its directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeOptions {
    /// Transports to dial with.
    pub transports: Transports,
}

/// A running participant. It stops when it is shut down or dropped; only [`Self::shutdown`] waits until it has.
#[derive(Debug)]
pub struct ParticipantNode {
    name: String,
    member: MemberId,
    stop: CancellationToken,
    status: watch::Receiver<NodeStatus>,
    events: broadcast::Sender<NodeEvent>,
    delays: Arc<Mutex<BTreeMap<u64, Duration>>>,
    online: watch::Sender<bool>,
    /// The first listener, who misses nothing.
    first_listener: Mutex<Option<broadcast::Receiver<NodeEvent>>>,
    task: Option<JoinHandle<Result<(), ParticipantError>>>,
}

impl ParticipantNode {
    /// Starts the node of a directory that provisioning has written. To be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ParticipantError`]: a key, file or setting is missing or wrong, or another process uses the directory.
    pub async fn start(directory: &Path, options: NodeOptions) -> Result<Self, ParticipantError> {
        Self::start_kit(ParticipantKit::load(directory)?, options).await
    }

    /// Starts the node of a kit that has been loaded. To be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ParticipantError`], as for [`start`](Self::start).
    pub async fn start_kit(kit: ParticipantKit, options: NodeOptions) -> Result<Self, ParticipantError> {
        let directory = kit.directory.clone();
        let opened = tokio::task::spawn_blocking(move || open(kit, &directory)).await;
        let Opened { kit, files, data, trainers, core } = opened.map_err(|_| ParticipantError::Defect)??;

        let KnownReplicas { size: known_size, replicas: known } = known_replicas(&kit, &files)?;
        let dial = peers::addresses(&known, &kit.config.peers);
        let proxy = Proxy::for_addresses(dial.iter().flat_map(|peer| &peer.addresses))?;
        let (endpoint, incoming) = Endpoint::start(EndpointConfig {
            transport_key: kit.transport_key.clone(),
            listen: Vec::new(),
            dial,
            admitted: known.iter().map(|replica| replica.key).collect(),
            transports: options.transports,
            websocket: kit.websocket(proxy),
        })?;
        endpoint.limit_bandwidth(kit.config.transfers.limits());

        let witnessed_note = files.witnessed_note()?;
        let (replicas, replicas_out) = watch::channel(known);
        let (size, size_out) = watch::channel(core.size());
        let (status, status_out) = watch::channel(core.status());
        let (events, first_listener) = broadcast::channel(EVENTS_WAITING_MAX);
        let (online, online_out) = watch::channel(true);
        let (delays, stop) = (Arc::default(), CancellationToken::new());
        let heads = Heads {
            origin: origin(&kit.genesis.genesis),
            node: kit.config.name.clone(),
            key: kit.witness_key,
            patience: Duration::from_millis(kit.config.settings.replica_timeout_ms),
            stored: Mutex::new(witnessed_note),
        };
        let context = Arc::new(Context {
            endpoint,
            files: Arc::new(files),
            data: Arc::new(data),
            transaction_key: kit.transaction_key,
            chain: *core.chain(),
            replicas: replicas_out,
            size: size_out,
            replica_timeout: Duration::from_millis(kit.config.settings.replica_timeout_ms),
            checkpoint_steps_max: kit.config.settings.checkpoint_steps_max,
            heads: Arc::new(heads),
            compute: Arc::new(Semaphore::new(1)),
            trainers,
            external: Slots::default(),
            examples_min: kit.policy.examples_min,
            served: Mutex::default(),
            events: events.clone(),
            delays: Arc::clone(&delays),
        });
        let follow = Follow { replicas, known_size, configured: kit.config.peers };
        let channels = Channels { follow, size, status, online: online_out, stop: stop.clone() };
        let (driver, sources) = Driver::new(core, context, channels, incoming.requests);
        Ok(Self {
            name: kit.config.name,
            member: kit.member,
            stop,
            status: status_out,
            events,
            delays,
            online,
            first_listener: Mutex::new(Some(first_listener)),
            task: Some(tokio::spawn(driver.run(sources))),
        })
    }

    /// Name of the node in the genesis file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The organisation that it works for.
    pub const fn member(&self) -> &MemberId {
        &self.member
    }

    /// What happens from now on; the first listener also gets what has happened since the start. One that lags more than
    /// some hundred events behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        let first = self.first_listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.events.subscribe())
    }

    /// Where the node stands.
    pub fn status(&self) -> watch::Receiver<NodeStatus> {
        self.status.clone()
    }

    /// Cuts the node off from every replica, as a lost network does, or lets it connect again. What it can do without them
    /// goes on. For tests and demonstrations.
    pub fn set_online(&self, online: bool) {
        self.online.send_replace(online);
    }

    /// Lets the training of some rounds, given by their numbers, begin so much later than it could, as on a slow machine. For
    /// tests and demonstrations.
    pub fn delay_training(&self, delays: BTreeMap<u64, Duration>) {
        *self.delays.lock().unwrap_or_else(PoisonError::into_inner) = delays;
    }

    /// Waits until the node has stopped by itself or was told to.
    ///
    /// # Errors
    ///
    /// [`ParticipantError`]: why it stopped by itself.
    pub async fn finished(&mut self) -> Result<(), ParticipantError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let result = task.await;
        self.task = None;
        result.map_err(|_| ParticipantError::Defect)?
    }

    /// Stops the node: work in progress is left at its last local checkpoint, connections are closed, and the directory is
    /// free when this returns.
    ///
    /// # Errors
    ///
    /// [`ParticipantError`]: why it had stopped by itself.
    pub async fn shutdown(mut self) -> Result<(), ParticipantError> {
        self.stop.cancel();
        self.finished().await
    }
}

impl Drop for ParticipantNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Everything that is read before the node starts.
struct Opened {
    kit: ParticipantKit,
    files: NodeFiles,
    data: DataStore,
    trainers: BTreeMap<String, Arc<Program>>,
    core: Core,
}

fn open(kit: ParticipantKit, directory: &Path) -> Result<Opened, ParticipantError> {
    let files = NodeFiles::open(directory)?;
    let device = kit.config.settings.device;
    check_device(device)?;
    tracing::info!(environment = environment::description(device), "updates are computed with this");
    let data = DataStore::new(site_data(&kit)?.within(memory_max_of(&kit)));
    let own = match data.read_own() {
        Ok(own) => own.as_deref().map(DataSummary::from).ok_or_else(|| TableError::Undescribed.to_string()),
        Err(error) if has_other_data(&kit) && is_absent(&error) => Err(NO_TABLE.to_owned()),
        Err(error) => return Err(error.into()),
    };
    let trainers = external::programs(&kit);
    let site = site(&kit, own, site_trainers(&trainers)?);
    let stored = files.witnessed()?;
    let core = Core::new(kit.genesis.bytes.clone(), site, stored).map_err(ParticipantError::Genesis)?;
    Ok(Opened { kit, files, data, trainers, core })
}

/// Where a kit's records come from. Without a schema there are none, if a trainer has data of its own.
///
/// # Errors
///
/// [`OpenError`] names the file.
pub fn site_data(kit: &ParticipantKit) -> Result<SiteData, OpenError> {
    let (table, schema) = (kit.table_path(), kit.schema_path());
    match SiteData::open(&table, &schema) {
        Err(error) if has_other_data(kit) && is_absent(&error) => {
            let empty = Schema::from_toml("").map_err(|source| OpenError::Schema { path: schema, source })?;
            Ok(SiteData::with_schema(&table, empty, &kit.directory))
        }
        opened => opened,
    }
}

/// Whether a trainer has data of its own, so that the node can do without a table.
fn has_other_data(kit: &ParticipantKit) -> bool {
    kit.config.trainers.values().any(|trainer| trainer.data.is_some())
}

fn is_absent(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// What a node decides by: its kit, what its records amount to as its schema describes them, if it does, and its trainers.
pub fn site(
    kit: &ParticipantKit,
    own_data: Result<DataSummary, String>,
    trainers: BTreeMap<String, SiteTrainer>,
) -> Site {
    Site {
        member: kit.member.clone(),
        author: kit.transaction_key.public(),
        policy: kit.policy.clone(),
        own_data,
        environment: environment::digest(kit.config.settings.device),
        device: kit.config.settings.device,
        software: environment::SOFTWARE.to_owned(),
        memory_max: memory_max_of(kit),
        trainers,
    }
}

/// What the site allows; else three quarters of the machine, where the system tells how large it is: more would take down
/// everything else on it.
fn memory_max_of(kit: &ParticipantKit) -> Option<u64> {
    let machine = || memory::machine_bytes().map(|bytes| bytes / 4 * 3);
    kit.config.settings.memory_max.map(|size| size.0).or_else(machine)
}

/// The programs that a kit's `node.toml` names, with their digests.
///
/// # Errors
///
/// [`ProgramError`] names a file that cannot be read.
pub fn trainers_of(kit: &ParticipantKit) -> Result<BTreeMap<String, SiteTrainer>, ProgramError> {
    site_trainers(&external::programs(kit))
}

/// The program that a participant's directory names for the trainer of a plan; none if it names none.
pub fn trainer_of(kit: &ParticipantKit, trainer: &str) -> Option<Arc<Program>> {
    external::programs(kit).remove(trainer)
}

fn site_trainers(trainers: &BTreeMap<String, Arc<Program>>) -> Result<BTreeMap<String, SiteTrainer>, ProgramError> {
    let known = |(name, program): (&String, &Arc<Program>)| {
        let own_data = program.has_own_data.then(|| DataSummary::of_trainer(program.examples));
        Ok((name.clone(), SiteTrainer { program: program.digest()?, evaluates: program.evaluates, own_data }))
    };
    trainers.iter().map(known).collect()
}

/// The replicas with the keys that they had when this node ran last, or else those that the genesis file names.
fn known_replicas(kit: &ParticipantKit, files: &NodeFiles) -> Result<KnownReplicas, KitError> {
    let genesis: &Genesis = &kit.genesis.genesis;
    let members = Members::new(genesis.members.iter().cloned());
    let begun_with = || KnownReplicas { size: 0, replicas: peers::replicas(&members, &kit.member) };
    let known = files.known_replicas().unwrap_or_else(begun_with);
    let is_known = |name: &str| {
        genesis.nodes().any(|(_, node)| node.name == name) || known.replicas.iter().any(|node| node.name == name)
    };
    match kit.config.peers.iter().find(|peer| !is_known(&peer.name)) {
        Some(peer) => Err(KitError::Unknown { file: kit.directory.join(NODE_FILE), name: peer.name.clone() }),
        None => Ok(known),
    }
}
