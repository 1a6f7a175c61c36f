//! What the hospital's node does, decided from the ledger alone.
//!
//! [`Core`] holds the log that it replays from the leaves it is given, so every signature, the order and the state are
//! checked here and no replica is believed. After every input it compares what the ledger says with what this site wants to
//! be there, and asks for the difference. Nothing that it decides depends on what was decided before a crash: a node that
//! is started again replays the ledger and goes on where the ledger says that it stands, so it never contributes twice.
//!
//! It does no IO; [`Output`]s are carried out by the driver, which answers with [`Input`]s.

mod data;
pub(crate) mod decide;
mod follow;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fedledger_federation::{
    Command, Federation, VersionId,
    architecture::Architecture,
    command::{FileRef, Metrics, RoundKey},
    data_description::{DataDescription, SkippedRows},
    member::MemberId,
    plan::UpdateDtype,
};
use fedledger_ledger::{Digest, PublicKey, checkpoint::Checkpoint, log::Log};

pub use data::{DataRef, DataSummary, KnownData};

use super::{
    error::HistoryError,
    event::{NodeEvent, NodeStatus},
    external::{ExternalSettings, Results},
    intent::Intent,
    policy::SitePolicy,
    witness::{SignedHead, Witness},
};
use crate::{
    evaluation::Evaluation,
    training::{ComputeDevice, TrainingSettings},
};

/// Versions that wait to be evaluated; older ones are left out while more come in.
const EVALUATIONS_WAITING_MAX: usize = 64;

/// Rounds for which an own update is kept after they are over, for replicas that still have to compute the version.
const UPDATES_KEPT_ROUNDS: u64 = 4;

/// Heads ahead of a log that does not grow, after which another replica is followed.
const HEADS_AHEAD_MAX: u32 = 5;

/// Ticks without a leaf while the log is not up to date, after which another replica is followed.
const STALLED_TICKS_MAX: u32 = 5;

/// Ticks after which records are read again that could not be.
const READ_AGAIN_TICKS: u32 = 60;

/// What the core must know of the site that it decides for.
#[derive(Debug, Clone)]
pub struct Site {
    /// The organisation.
    pub member: MemberId,
    /// The public half of the key that signs this node's transactions.
    pub author: PublicKey,
    /// What the site lets happen without asking.
    pub policy: SitePolicy,
    /// What its records amount to for plans that do not describe them, or why they cannot be used for such plans.
    pub own_data: Result<DataSummary, String>,
    /// Digest of the description of hardware and libraries, of which `device` is a part.
    pub environment: Digest,
    /// What computes the gradients of built-in training.
    pub device: ComputeDevice,
    /// Name and version of the software.
    pub software: String,
    /// Memory that a training may take, in bytes; without a limit if there is none, where the system tells of no memory.
    pub memory_max: Option<u64>,
    /// Programs that may train here, by the names that plans know them by.
    pub trainers: BTreeMap<String, SiteTrainer>,
}

/// A program of the site, as the core must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTrainer {
    /// Its digest when the node started.
    pub program: Digest,
    /// Whether it can evaluate models.
    pub evaluates: bool,
    /// What is known of data of its own; none if it trains on the node's records.
    pub own_data: Option<DataSummary>,
}

/// An update that was trained and lies on the local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedUpdate {
    /// The update file.
    pub file: FileRef,
    /// Examples behind it.
    pub examples: u64,
    /// Metrics of the training, in millionths: of the built-in trainer `loss_first` and `loss_last`, the mean losses of the
    /// first and of the last pass through the examples.
    pub metrics: Metrics,
    /// Digest of the description of the data that it was trained on, or of a program's own data.
    pub data_manifest: Digest,
    /// Records that were skipped because they cannot be read, by reason.
    pub skipped_rows: SkippedRows,
    /// Digest of the program that trained, if it was not the built-in trainer.
    pub trainer: Option<Digest>,
}

impl TrainedUpdate {
    /// Loss at the end of the training, in millionths, if it was reported.
    pub fn loss_millionths(&self) -> Option<i64> {
        self.metrics.get(LOSS_LAST).or_else(|| self.metrics.get("loss")).copied()
    }
}

/// Name of the mean loss of the first pass through the examples.
pub const LOSS_FIRST: &str = "loss_first";

/// Name of the mean loss of the last pass.
pub const LOSS_LAST: &str = "loss_last";

/// What the core is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// A replica will send the leaves from the core's size on; those below `next` are there already.
    Following {
        /// Node name of the replica.
        replica: String,
        /// Index of the leaf that will be committed next.
        next: u64,
    },
    /// The replica that was followed sends nothing more.
    Lost {
        /// Why.
        reason: String,
    },
    /// The next leaf.
    Leaf(Vec<u8>),
    /// A note with a signed head, as a replica sent it.
    Note {
        /// Node name of the replica.
        replica: String,
        /// The note.
        text: String,
    },
    /// The site's records were read as the description of this digest says, or why they cannot be.
    DataRead(Digest, Result<DataSummary, String>),
    /// A round's update lies on the local disk.
    Trained(RoundKey, TrainedUpdate),
    /// A round cannot be trained.
    TrainingFailed(RoundKey, String),
    /// A round's update lies at a replica.
    Uploaded(RoundKey),
    /// A round's update is gone from the local disk, or damaged there.
    UpdateLost(RoundKey),
    /// A version was evaluated on the local test examples; none if it cannot be.
    Evaluated(VersionId, Option<Evaluation>),
    /// The same by the plan's external trainer.
    EvaluatedExternally(VersionId, Option<Results>),
    /// A replica says that a transaction stands on the ledger.
    Committed {
        /// What it says.
        intent: Intent,
        /// Its index.
        index: u64,
    },
    /// A transaction expired before it got onto the ledger; it may be signed anew.
    Expired(Intent),
    /// Some time has passed, as the driver measures it.
    Tick,
}

/// What the core asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Sign a transaction and submit it until it is on the ledger, expired or withdrawn.
    Submit(Intent, Box<Command>),
    /// Stop submitting: the ledger has it, or it has become moot.
    Withdraw(Intent),
    /// Read the site's records as they are described, and say what they amount to.
    ReadData(Box<DataDescription>),
    /// Train a round's update, or find the one that is on disk.
    Train(Box<TrainingTask>),
    /// Give a round's update to a replica.
    Upload(RoundKey, FileRef),
    /// Stop training or uploading: the attempt is over.
    Stop(RoundKey),
    /// Evaluate a version.
    Evaluate(Box<EvaluationTask>),
    /// Stop evaluating: the weights are no longer kept by anybody.
    StopEvaluating,
    /// Keep these files and delete the others.
    Keep(Kept),
    /// Store a head durably.
    Witness(SignedHead),
    /// Follow a replica that is not excluded, from the core's size on.
    Refollow,
    /// Tell whoever is interested.
    Report(NodeEvent),
    /// Stop the node.
    Fail(HistoryError),
}

/// What to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingTask {
    /// The attempt.
    pub key: RoundKey,
    /// The version that is trained on.
    pub base: VersionId,
    /// Its weights.
    pub weights: FileRef,
    /// By which trainer, and how.
    pub method: TrainingMethod,
    /// The numbers in which the update travels.
    pub update_dtype: UpdateDtype,
    /// The records to train on; none if the program has data of its own.
    pub data: Option<DataRef>,
}

impl TrainingTask {
    /// The model.
    pub const fn architecture(&self) -> &Architecture {
        match &self.method {
            TrainingMethod::BuiltIn(settings) => &settings.architecture,
            TrainingMethod::External(settings) => &settings.architecture,
        }
    }
}

/// Who trains, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainingMethod {
    /// The built-in trainer.
    BuiltIn(TrainingSettings),
    /// A program of the site.
    External(ExternalSettings),
}

/// What to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationTask {
    /// The version.
    pub version: VersionId,
    /// The model.
    pub architecture: Architecture,
    /// The version's weights.
    pub weights: FileRef,
    /// The records to test on; none if the program has data of its own.
    pub data: Option<DataRef>,
    /// The program that evaluates it, if the built-in evaluation does not.
    pub external: Option<ExternalSettings>,
}

/// What was found out about a version, and by whom.
#[derive(Debug, Clone, PartialEq)]
enum Finding {
    BuiltIn(Evaluation),
    External(Results),
}

/// Files that are still of use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Own updates, which replicas may ask for.
    pub updates: BTreeSet<Digest>,
    /// Weights of versions.
    pub weights: BTreeSet<Digest>,
    /// Rounds whose local checkpoints may be needed: plan and round.
    pub work: BTreeSet<(Digest, u64)>,
}

/// How far an attempt has come that this site has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    Training,
    Uploading(TrainedUpdate),
    Uploaded(TrainedUpdate),
    Failed(String),
}

/// The deciding part of a participant's node. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    genesis: Vec<u8>,
    site: Site,
    log: Log<Federation>,
    witness: Witness,
    /// The replica whose leaves are replayed.
    following: Option<String>,
    /// Log size from which on the node acts; none before a replica has answered.
    target: Option<u64>,
    /// Whether the node has acted since it last began to catch up.
    acted: bool,
    /// Replicas that showed a history which is invalid or not this one.
    excluded: BTreeSet<String>,
    /// The head on disk that did not occur in a history.
    rewritten: Option<HistoryError>,
    /// Own log size at which signed heads lay ahead of it, and how often.
    ahead: (u64, u32),
    /// Own log size when time was last seen to pass without being up to date, and how often.
    stalled: (u64, u32),
    /// Ticks so far.
    ticks: u32,
    /// Who proposed each plan.
    operators: BTreeMap<Digest, MemberId>,
    /// Plans from which consent was taken back, so that it is not given again without a person.
    withdrawn: BTreeSet<Digest>,
    /// What the ledger has refused.
    rejected: BTreeSet<Intent>,
    /// What is being submitted, and at which index a replica says that it stands.
    submitting: BTreeMap<Intent, Option<u64>>,
    /// Plans whose withheld consent was reported.
    withheld: BTreeSet<Digest>,
    /// What is known of the records by the digest of their description; nothing while they are being read.
    data: BTreeMap<Digest, Option<Result<DataSummary, String>>>,
    work: BTreeMap<RoundKey, Work>,
    evaluations: VecDeque<VersionId>,
    evaluating: Option<VersionId>,
    /// Results that are not on the ledger yet.
    evaluated: BTreeMap<VersionId, Option<Finding>>,
    kept: Kept,
    outputs: Vec<Output>,
}

impl Core {
    /// A core that knows the genesis file only, and the head that it has stored before.
    ///
    /// # Errors
    ///
    /// What is wrong with the genesis file.
    pub fn new(genesis: Vec<u8>, site: Site, stored: Option<Checkpoint>) -> Result<Self, String> {
        let (log, _) = Log::genesis(&genesis)?;
        let mut core = Self {
            genesis,
            site,
            log,
            witness: Witness::new(stored),
            following: None,
            target: None,
            acted: false,
            excluded: BTreeSet::new(),
            rewritten: None,
            ahead: (0, 0),
            stalled: (0, 0),
            ticks: 0,
            operators: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            rejected: BTreeSet::new(),
            submitting: BTreeMap::new(),
            withheld: BTreeSet::new(),
            data: BTreeMap::new(),
            work: BTreeMap::new(),
            evaluations: VecDeque::new(),
            evaluating: None,
            evaluated: BTreeMap::new(),
            kept: Kept::default(),
            outputs: Vec::new(),
        };
        core.witness.extend(core.log.size(), core.log.root());
        Ok(core)
    }

    /// Takes an input; returns what is to be done, in this order.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        match input {
            Input::Following { replica, next } => self.on_following(replica, next),
            Input::Lost { reason } => self.on_lost(reason),
            Input::Leaf(bytes) => self.on_leaf(&bytes),
            Input::Note { replica, text } => self.on_note(&replica, &text),
            Input::DataRead(description, data) => self.on_data(description, data),
            Input::Trained(key, update) => self.on_trained(key, update),
            Input::TrainingFailed(key, reason) => self.on_training_failed(&key, reason),
            Input::Uploaded(key) => self.on_uploaded(&key),
            Input::UpdateLost(key) => self.on_update_lost(&key),
            Input::Evaluated(version, found) => self.on_evaluated(version, found.map(Finding::BuiltIn)),
            Input::EvaluatedExternally(version, found) => self.on_evaluated(version, found.map(Finding::External)),
            Input::Committed { intent, index } => self.on_committed(&intent, index),
            Input::Expired(intent) => {
                self.submitting.remove(&intent);
            }
            Input::Tick => self.on_tick(),
        }
        self.decide();
        std::mem::take(&mut self.outputs)
    }

    /// The state of the federation as far as it was replayed.
    pub const fn federation(&self) -> &Federation {
        self.log.machine()
    }

    /// The organisation that the node decides for.
    pub const fn member(&self) -> &MemberId {
        &self.site.member
    }

    /// The chain that transactions are signed for.
    pub const fn chain(&self) -> &Digest {
        self.log.chain()
    }

    /// Entries replayed, the genesis file included.
    pub const fn size(&self) -> u64 {
        self.log.size()
    }

    /// Replicas that must not be followed.
    pub const fn excluded(&self) -> &BTreeSet<String> {
        &self.excluded
    }

    /// Where the node stands.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            following: self.following.clone(),
            size: self.size(),
            current: self.is_current(),
            witnessed: self.witness.stored_size(),
        }
    }

    fn on_trained(&mut self, key: RoundKey, update: TrainedUpdate) {
        if let Some(work @ Work::Training) = self.work.get_mut(&key) {
            let (file, loss_millionths) = (update.file, update.loss_millionths());
            *work = Work::Uploading(update);
            self.report(NodeEvent::Trained { key, loss_millionths });
            self.outputs.push(Output::Upload(key, file));
        }
    }

    fn on_training_failed(&mut self, key: &RoundKey, reason: String) {
        if let Some(work @ Work::Training) = self.work.get_mut(key) {
            *work = Work::Failed(reason);
        }
    }

    fn on_uploaded(&mut self, key: &RoundKey) {
        if let Some(work) = self.work.get_mut(key)
            && let Work::Uploading(update) = work
        {
            *work = Work::Uploaded(update.clone());
        }
    }

    /// What is not known as work in progress is trained, if it still matters.
    fn on_update_lost(&mut self, key: &RoundKey) {
        if let Some(Work::Uploading(_)) = self.work.get(key) {
            self.work.remove(key);
        }
    }

    fn on_evaluated(&mut self, version: VersionId, found: Option<Finding>) {
        if self.evaluating == Some(version) {
            self.evaluating = None;
            self.evaluated.insert(version, found);
        }
    }

    fn on_committed(&mut self, intent: &Intent, index: u64) {
        if let Some(claimed) = self.submitting.get_mut(intent) {
            *claimed = Some(index);
        }
    }

    fn report(&mut self, event: NodeEvent) {
        self.outputs.push(Output::Report(event));
    }

    /// Whether everything has been replayed that makes it safe to act.
    pub fn is_current(&self) -> bool {
        self.target.is_some_and(|target| self.size() >= target) && self.size() >= self.witness.stored_size()
    }
}
