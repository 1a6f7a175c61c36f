//! A little consortium whose history is made by the tests: deterministic keys, real updates, versions that are really
//! computed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Cursor},
    sync::Arc,
};

use fedledger_federation::{
    Command, Event, Federation, Rejection, VersionId,
    architecture::Architecture,
    cohort,
    command::{
        ApprovePlan, AttestVersion, CloseRound, CommitVersion, Contribute, Evaluate, FileRef, JoinRound, Metrics,
        MoveBranch, OpenRound, OutputFiles, RoundKey, StartPlan,
    },
    history::{BundleSource, ExportOptions, Source, StorageSource, export, origin},
    member::{GENESIS_SCHEMA, Genesis, Member, Node, NodeKind, Role, default_finality_threshold},
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, Training, UpdateDtype},
    recipe::Recipe,
    tensors::{Tensor, write_tensors},
};
use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    leaf::Leaf,
    log::{Applied, Log, Refusal},
    machine::{RejectionCode as _, WriteSet},
    note::{NoteSignature, SignedNote, sign_note},
    seal::{SEAL_KIND, SealProposal},
    storage::{Batch, Column, LogStorage as _, memory::MemoryStorage, notes::put_note, scan_all},
    transaction::{Nonce, Transaction},
};

/// The hospitals; each runs a replica, the first ones also a participant.
pub const SITES: [&str; 4] = ["basel", "lyon", "porto", "turin"];

/// The member that proposes plans and moves branches.
pub const OFFICE: &str = "office/organisation";

/// The member that only evaluates.
pub const INSURER: &str = "insurer/organisation";

/// Time of the first entry of a log that never passes, in seconds since the Unix epoch.
const BEGIN_S: u64 = 1_700_000_000;

/// Entries for which a transaction of the tests is valid.
const VALIDITY: u64 = 1000;

/// A consortium, its log and its files.
pub struct Consortium {
    pub genesis: Vec<u8>,
    pub log: Log<Federation>,
    pub storage: MemoryStorage,
    /// Encoded leaves; the first has index 1.
    pub leaves: Vec<Vec<u8>>,
    pub notes: Vec<SignedNote>,
    pub blobs: Arc<BTreeMap<Digest, Vec<u8>>>,
    participants: usize,
    nonce: u64,
}

/// The key that is known under a label, such as `basel/replica`.
pub fn key(label: &str) -> SecretKey {
    SecretKey::from_seed(*Digest::of(label.as_bytes()).as_bytes())
}

fn node(site: &str, purpose: &str, kind: NodeKind) -> Node {
    let name = format!("{site}/{purpose}");
    let transport_key = key(&format!("{name}/transport")).public();
    Node { transaction_key: key(&name).public(), transport_key, kind, name }
}

fn member(id: &str, roles: &[Role], nodes: Vec<Node>) -> Member {
    Member {
        id: id.to_owned(),
        name: id.to_uppercase(),
        roles: roles.iter().copied().collect(),
        organisation_key: key(&format!("{id}/organisation")).public(),
        api_key: key(&format!("{id}/api")).public(),
        nodes,
    }
}

/// The genesis file of four replicas, of which the first ones also take part.
pub fn genesis(participants: usize) -> Genesis {
    let mut members: Vec<Member> = (1..)
        .zip(SITES)
        .map(|(number, site)| {
            let log_key = key(&format!("{site}/replica/log")).public();
            let cosign_key = key(&format!("{site}/replica/cosign")).public();
            let mut nodes = vec![node(site, "replica", NodeKind::Replica { number, log_key, cosign_key })];
            let mut roles = vec![Role::Replica];
            if number <= participants as u64 {
                let witness_key = key(&format!("{site}/participant/witness")).public();
                nodes.push(node(site, "participant", NodeKind::Participant { witness_key }));
                roles.push(Role::Participant);
            }
            member(site, &roles, nodes)
        })
        .collect();
    members.push(member("office", &[Role::Operator], Vec::new()));
    members.push(member("insurer", &[Role::Evaluator], Vec::new()));
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Genesis {
        schema: GENESIS_SCHEMA.to_owned(),
        consortium: "hearts".to_owned(),
        salt: Digest::of(b"salt"),
        finality_threshold: default_finality_threshold(SITES.len() as u64),
        members,
    }
}

/// A plan for three rounds of a model with two features.
pub fn plan(name: &str) -> Plan {
    let one = || "1".parse().unwrap();
    Plan {
        name: name.to_owned(),
        description: String::new(),
        branch: "main".to_owned(),
        architecture: Architecture::logistic_regression(2),
        training: Some(Training { optimizer: Optimizer::sgd(one()), steps: 1, batch_size: 1 }),
        external_training: None,
        data: None,
        aggregation: Aggregation {
            rule: Rule::FedAvg { server_learning_rate: one() },
            example_scale: 1024,
            update_dtype: UpdateDtype::F32,
        },
        seed: 7,
        rounds: 3,
        participation: Participation {
            cohort_size: None,
            minimum_participants: 2,
            required_members: Vec::new(),
            minimum_example_share: None,
            round_duration_ms: 30_000,
            attempts: 3,
        },
        requirements: Requirements::default(),
        early_stopping: None,
    }
}

/// An update file for the architecture of [`plan`]; `scale` tells updates apart.
pub fn update_file(scale: f32) -> Vec<u8> {
    let tensor = |name: &str, shape: &[u64], values: &[f32]| Tensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        values: values.iter().map(|value| value * scale).collect(),
    };
    write_tensors(&[tensor("layer0.bias", &[1], &[0.5]), tensor("layer0.weight", &[1, 2], &[1.0, -2.0])]).unwrap()
}

/// What every participant of the tests reports.
pub fn metrics() -> Metrics {
    Metrics::from([("accuracy".to_owned(), 800_000), ("loss".to_owned(), 412_345)])
}

impl Consortium {
    /// A consortium of which the first `participants` hospitals take part, before anything has happened.
    pub fn new(participants: usize) -> Self {
        let genesis = genesis(participants).to_bytes();
        let (log, batch) = Log::genesis(&genesis).unwrap();
        let storage = MemoryStorage::default();
        storage.write(&batch, true).unwrap();
        let blobs = Arc::default();
        Self { genesis, log, storage, leaves: Vec::new(), notes: Vec::new(), blobs, participants, nonce: 0 }
    }

    /// A consortium with a plan that is running and has an initial version, on which a round can be opened.
    pub fn ready(participants: usize) -> (Self, Digest) {
        Self::ready_for(participants, plan("heart"))
    }

    /// The same for a plan of the test's own.
    pub fn ready_for(participants: usize, plan: Plan) -> (Self, Digest) {
        let mut consortium = Self::new(participants);
        let id = consortium.start(plan);
        consortium.commit_and_attest(&RoundKey { plan: id, round: 0, attempt: 0 });
        (consortium, id)
    }

    /// A history of three rounds with evaluations, a promotion and a rollback, about 70 entries for four participants.
    pub fn with_history(participants: usize) -> Self {
        let (mut consortium, plan) = Self::ready(participants);
        let initial = consortium.head("main");
        for _ in 0..3 {
            let version = consortium.run_round(&plan);
            consortium.evaluate(&version);
            consortium.seal();
        }
        let head = consortium.head("main");
        let branch = |branch: &str, from, to, revoke| {
            let reason = "as the board decided".to_owned();
            Command::MoveBranch(MoveBranch { branch: branch.to_owned(), from, to, revoke, reason })
        };
        let parent = consortium.state().versions().get(&head).unwrap().manifest.parents[0];
        consortium.accept(OFFICE, branch("production", None, parent, false));
        consortium.accept(OFFICE, branch("main", Some(head), parent, true));
        // Something that is refused belongs to every history.
        consortium.refused(OFFICE, branch("main", Some(head), initial, false));
        consortium.sign_checkpoints(4);
        consortium
    }

    pub fn state(&self) -> &Federation {
        self.log.machine()
    }

    pub fn head(&self, branch: &str) -> VersionId {
        *self.state().head(branch).unwrap().0
    }

    /// The hospitals that take part.
    pub fn participants(&self) -> impl Iterator<Item = &'static str> + use<> {
        SITES.into_iter().take(self.participants)
    }

    /// A signed transaction with a fresh nonce.
    pub fn envelope(&mut self, signer: &str, kind: &str, payload: Vec<u8>) -> Vec<u8> {
        self.nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_le_bytes());
        let key = key(signer);
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: key.public(),
            nonce: Nonce(nonce),
            not_after_index: self.log.size() + VALIDITY,
            kind: kind.to_owned(),
            payload,
        };
        transaction.sign(&key).to_bytes()
    }

    /// Applies a transaction as the next one that Raft committed.
    pub fn apply(&mut self, envelope: &[u8]) -> Result<Option<Result<Event, Rejection>>, Refusal> {
        // Raft's own entries take indexes, too.
        let raft_index = self.log.size() * 2 + 5;
        match self.log.apply(raft_index, envelope) {
            Applied::Entry(entry) => {
                self.leaves.push(entry.leaf.to_bytes());
                self.storage.write(&entry.batch, true).unwrap();
                Ok(entry.result)
            }
            Applied::Refused(refusal) => Err(refusal),
            Applied::Duplicate(index) => panic!("the transaction already stands at {index}"),
            Applied::Known => panic!("Raft index {raft_index} was used"),
        }
    }

    pub fn submit(&mut self, signer: &str, command: &Command) -> Result<Event, Rejection> {
        let envelope = self.envelope(signer, command.kind(), command.payload());
        self.apply(&envelope).unwrap().unwrap()
    }

    /// Submits what must be accepted.
    #[track_caller]
    pub fn accept(&mut self, signer: &str, command: Command) -> Event {
        self.submit(signer, &command).unwrap_or_else(|rejection| panic!("{command:?} was rejected: {rejection}"))
    }

    /// Submits what must be rejected, checks that it changed nothing, and returns the code.
    #[track_caller]
    pub fn refused(&mut self, signer: &str, command: Command) -> &'static str {
        let before = self.state().digest();
        let rejection = self.submit(signer, &command).expect_err("it was accepted");
        assert_eq!(self.state().digest(), before, "{command:?} was rejected and changed the state");
        let leaf = Leaf::from_bytes(self.leaves.last().unwrap()).unwrap();
        assert_eq!(leaf.write_set, WriteSet::default().digest(), "{command:?} was rejected and wrote something");
        assert_eq!(leaf.outcome.code(), rejection.code());
        rejection.code()
    }

    /// Keeps a file as a replica would.
    pub fn store(&mut self, file: Vec<u8>) -> FileRef {
        let file_ref = FileRef { digest: Digest::of(&file), size: file.len() as u64 };
        Arc::make_mut(&mut self.blobs).insert(file_ref.digest, file);
        file_ref
    }

    /// Proposes a plan, has every participant consent, and starts it.
    pub fn start(&mut self, plan: Plan) -> Digest {
        let id = plan.id();
        self.accept(OFFICE, Command::ProposePlan(plan));
        for site in self.participants() {
            self.accept(&format!("{site}/participant"), Command::ApprovePlan(ApprovePlan { plan: id, examples: None }));
        }
        self.accept(OFFICE, Command::StartPlan(StartPlan { plan: id }));
        id
    }

    /// The next round as its coordinator must open it.
    pub fn next_round(&self, plan: &Digest) -> OpenRound {
        let record = self.state().plans().get(plan).unwrap();
        let key = Federation::next_key(*plan, record);
        let (base, base_record) = self.state().head(&record.plan.branch).unwrap();
        OpenRound {
            key,
            base: *base,
            cohort: cohort::digest(&self.state().next_cohort(&key, record, base_record)),
            duration_ms: record.plan.participation.round_duration_ms,
        }
    }

    pub fn open_round(&mut self, plan: &Digest) -> RoundKey {
        let open = self.next_round(plan);
        let key = open.key;
        self.accept("basel/replica", Command::OpenRound(open));
        key
    }

    /// A contribution to an open round, with the update stored.
    pub fn contribution(&mut self, key: &RoundKey, site: &str) -> Contribute {
        // Each site and round has an update of its own.
        let scale = f32::from(site.as_bytes()[0]) / 64.0 + key.round as f32;
        let file = self.store(update_file(scale));
        self.contribution_of(key, site, file)
    }

    pub fn contribution_of(&self, key: &RoundKey, site: &str, file: FileRef) -> Contribute {
        let base = self.state().rounds().get(key).map_or_else(|| self.head("main"), |round| round.base);
        Contribute {
            key: *key,
            base,
            update: file.digest,
            size: file.size,
            examples: 100 + u64::from(site.as_bytes()[0]),
            metrics: metrics(),
            data_manifest: Digest::of(site.as_bytes()),
            environment: Digest::of(b"environment"),
            software: "tests/1".to_owned(),
            skipped_rows: BTreeMap::new(),
            trainer: None,
        }
    }

    pub fn join_and_contribute(&mut self, key: &RoundKey, site: &str) {
        let contribution = self.contribution(key, site);
        self.join_and_send(key, site, contribution);
    }

    pub fn join_and_send(&mut self, key: &RoundKey, site: &str, contribution: Contribute) {
        let participant = format!("{site}/participant");
        self.accept(&participant, Command::JoinRound(JoinRound { key: *key }));
        self.accept(&participant, Command::Contribute(contribution));
    }

    pub fn close(&mut self, key: &RoundKey, excluded: &[(&str, &str)]) -> Event {
        let excluded = excluded.iter().map(|(site, code)| ((*site).to_owned(), (*code).to_owned())).collect();
        self.accept("basel/replica", Command::CloseRound(CloseRound { key: *key, through: u64::MAX, excluded }))
    }

    /// Computes what an attempt leads to and keeps the files.
    pub fn compute(&mut self, key: &RoundKey) -> OutputFiles {
        let recipe = Recipe::of(self.state(), key).unwrap();
        let blobs = Arc::clone(&self.blobs);
        let open = |file: &FileRef| blobs.get(&file.digest).map(Vec::as_slice).ok_or(io::ErrorKind::NotFound.into());
        let outputs = recipe.compute(open, 1).unwrap();
        drop(blobs);
        let files = OutputFiles::of(&outputs);
        self.store(outputs.weights);
        if let Some(state) = outputs.optimizer_state {
            self.store(state);
        }
        files
    }

    pub fn commit(&self, key: &RoundKey, outputs: OutputFiles) -> CommitVersion {
        let (_, version) = Recipe::of(self.state(), key).unwrap().manifest(self.state(), &outputs).unwrap();
        CommitVersion { key: *key, version, outputs }
    }

    /// Proposes a version with these files and has two more replicas attest it, which makes three of four.
    pub fn settle(&mut self, key: &RoundKey, outputs: OutputFiles) -> VersionId {
        let commit = self.commit(key, outputs);
        let version = commit.version;
        self.accept("basel/replica", Command::CommitVersion(commit));
        for site in ["lyon", "porto"] {
            let attest = AttestVersion { version, outputs };
            self.accept(&format!("{site}/replica"), Command::AttestVersion(attest));
        }
        version
    }

    pub fn commit_and_attest(&mut self, key: &RoundKey) -> VersionId {
        let outputs = self.compute(key);
        self.settle(key, outputs)
    }

    /// The same with these replicas only, of which the first one proposes.
    pub fn commit_and_attest_by(&mut self, key: &RoundKey, sites: &[&str]) -> VersionId {
        let outputs = self.compute(key);
        let commit = self.commit(key, outputs);
        let version = commit.version;
        let mut commands = vec![Command::CommitVersion(commit)];
        commands.resize(sites.len(), Command::AttestVersion(AttestVersion { version, outputs }));
        for (site, command) in sites.iter().zip(commands) {
            self.accept(&format!("{site}/replica"), command);
        }
        version
    }

    /// Carries the plan's next round out, with everybody.
    pub fn run_round(&mut self, plan: &Digest) -> VersionId {
        let key = self.open_round(plan);
        for site in self.participants() {
            self.join_and_contribute(&key, site);
        }
        self.close(&key, &[]);
        self.commit_and_attest(&key)
    }

    pub fn evaluate(&mut self, version: &VersionId) {
        for site in self.participants() {
            let evaluate = Evaluate { version: *version, examples: 50, metrics: metrics(), groups: BTreeMap::new() };
            self.accept(&format!("{site}/participant"), Command::Evaluate(evaluate));
        }
    }

    /// A checkpoint of the whole log.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(origin(self.state().consortium()), self.log.size(), self.log.root()).unwrap()
    }

    /// Time of the newest entry, in seconds since the Unix epoch: one passes for each.
    pub fn time_s(&self) -> u64 {
        BEGIN_S + self.log.size()
    }

    /// Has the first replica seal the log, and returns the index of the seal.
    pub fn seal(&mut self) -> u64 {
        let proposal = SealProposal { time_ms: self.time_s() * 1000, term: 1, cosigned: Vec::new() };
        let envelope = self.envelope("basel/replica", SEAL_KIND, proposal.to_bytes());
        assert!(self.apply(&envelope).unwrap().is_none(), "a seal is no matter of the state machine");
        let leaf = Leaf::from_bytes(self.leaves.last().unwrap()).unwrap();
        assert!(leaf.seal.is_some(), "the seal was rejected: {:?}", leaf.outcome);
        leaf.index
    }

    /// The head of the log, signed in its name by the first of the replicas and co-signed by them and by the witnesses.
    pub fn cosigned(&self, replicas: &[&str], witnesses: &[&str]) -> SignedNote {
        cosign(&self.checkpoint(), self.time_s(), replicas, witnesses)
    }

    /// Seals the log and has the first `count` replicas co-sign its head, and the participants as witnesses.
    pub fn sign_checkpoints(&mut self, count: usize) {
        self.seal();
        self.notes.clear();
        if count > 0 {
            let witnesses: Vec<&str> = self.participants().collect();
            self.notes.push(self.cosigned(&SITES[..count], &witnesses));
        }
        let mut batch = Batch::default();
        for note in &self.notes {
            put_note(&mut batch, "final", &note.to_string());
        }
        self.storage.write(&batch, true).unwrap();
    }

    /// The head of the log as the last replica signs it in its name, whether there is a seal or not.
    pub fn covering_note(&self) -> SignedNote {
        let checkpoint = self.checkpoint();
        sign_note(&checkpoint.to_note_text(), checkpoint.origin(), &key("turin/replica/log")).unwrap()
    }

    /// What a replica has on its disk. Unless the test has signed checkpoints itself, there is one of the whole log.
    pub fn stored(&self) -> MemoryStorage {
        let mut batch = Batch::default();
        if self.notes.is_empty() {
            put_note(&mut batch, "head", &self.covering_note().to_string());
        }
        for column in Column::ALL {
            for record in scan_all(&self.storage, column, Vec::new()) {
                let (key, value) = record.unwrap();
                batch.put(column, key, value);
            }
        }
        let copy = MemoryStorage::default();
        copy.write(&batch, true).unwrap();
        copy
    }

    /// A replica's directory, as a source.
    pub fn source(&self) -> impl Source + use<> {
        self.source_over(self.stored())
    }

    /// The same over a storage that a test has tampered with.
    pub fn source_over(&self, storage: MemoryStorage) -> impl Source + use<> {
        let blobs = Arc::clone(&self.blobs);
        StorageSource::new(storage, move |digest: &Digest| Ok(blobs.get(digest).cloned().map(Cursor::new)))
    }

    /// The whole history as a bundle.
    pub fn bundle(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        export(&self.source(), &mut bytes, ExportOptions { files_until: None, blobs: true }).unwrap();
        bytes
    }
}

/// A checkpoint signed in the log's name by the first of the replicas, and co-signed by them and by the witnesses.
///
/// The first one's clock shows `time_s`, and each next one's two seconds more.
pub fn cosign(checkpoint: &Checkpoint, time_s: u64, replicas: &[&str], witnesses: &[&str]) -> SignedNote {
    let (text, origin) = (checkpoint.to_note_text(), checkpoint.origin());
    let mut lines = Vec::new();
    if let Some(first) = replicas.first() {
        lines.push(NoteSignature::sign(&text, origin, &key(&format!("{first}/replica/log"))).unwrap());
    }
    let replicas = replicas.iter().map(|site| (format!("{site}/replica"), "cosign"));
    let witnesses = witnesses.iter().map(|site| (format!("{site}/participant"), "witness"));
    for ((node, purpose), time_s) in replicas.chain(witnesses).zip((time_s..).step_by(2)) {
        let key = key(&format!("{node}/{purpose}"));
        lines.push(NoteSignature::cosign(&text, &cosigner_name(origin, &node), &key, time_s).unwrap());
    }
    SignedNote::from_parts(text, lines).unwrap()
}

/// A bundle in memory, as a source.
pub fn open_bundle(bytes: &[u8]) -> BundleSource<impl Fn() -> io::Result<Cursor<Arc<[u8]>>> + use<>> {
    let bytes: Arc<[u8]> = bytes.into();
    BundleSource::new(move || Ok(Cursor::new(Arc::clone(&bytes)))).unwrap()
}

/// The members of a set, for comparison with literals.
pub fn set(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(|member| (*member).to_owned()).collect()
}
