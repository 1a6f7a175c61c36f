//! A little consortium and its ledger, made by hand with deterministic keys.

use std::collections::{BTreeMap, BTreeSet};

use fedledger_federation::{
    Command, Federation, VersionId,
    aggregation::Outputs,
    architecture::Architecture,
    cohort,
    command::{
        ApprovePlan, AttestVersion, CloseRound, CommitVersion, Contribute, FileRef, JoinRound, OpenRound, OutputFiles,
        RoundKey, StartPlan,
    },
    data_description::{DataDescription, Feature, Label, Missing, Normalize, PositiveWhen, TableDescription},
    decimal::Decimal,
    governance::{Action, NodeKeys, Propose, RotateKeys, Vote},
    member::{GENESIS_SCHEMA, Genesis, Member, Node, NodeKind, Role},
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, Training, UpdateDtype},
    recipe::Recipe,
    tensors::{self, Tensor},
};
use fedledger_ledger::{
    Digest, PublicKey, SecretKey,
    checkpoint::Checkpoint,
    epoch::cosigner_name,
    leaf::Leaf,
    log::{Applied, Log},
    note::{NoteSignature, sign_note},
    transaction::{Nonce, Transaction},
};
use fedledger_participant::{
    node::{
        core::{Core, DataSummary, Input, LOSS_FIRST, LOSS_LAST, Output, Site, TrainedUpdate},
        policy::SitePolicy,
    },
    training::ComputeDevice,
};
use fedledger_proto::kit::Surprises;

pub const CONSORTIUM: &str = "hearts";
pub const MEMBERS: [&str; 3] = ["alpha", "beta", "gamma"];
const EXAMPLES: u64 = 10;

/// Purposes of a member's keys.
#[derive(Clone, Copy)]
pub enum Purpose {
    Organisation,
    Api,
    Transport,
    Participant,
    ParticipantTransport,
    Replica,
    Log,
    Cosign,
    Witness,
}

/// The key of a member for a purpose.
pub fn key(member: &str, purpose: Purpose) -> SecretKey {
    SecretKey::from_seed(*Digest::of_parts(&[member.as_bytes(), &[purpose as u8]]).as_bytes())
}

fn member(id: &str, number: u64) -> Member {
    let public = |purpose| key(id, purpose).public();
    let node = |name: &str, kind, transport, transaction| Node {
        name: format!("{id}/{name}"),
        kind,
        transport_key: public(transport),
        transaction_key: public(transaction),
    };
    let replica = NodeKind::Replica { number, log_key: public(Purpose::Log), cosign_key: public(Purpose::Cosign) };
    let mut roles = BTreeSet::from([Role::Participant, Role::Replica]);
    if id == "alpha" {
        roles.insert(Role::Operator);
    }
    Member {
        id: id.to_owned(),
        name: id.to_owned(),
        roles,
        organisation_key: public(Purpose::Organisation),
        api_key: public(Purpose::Api),
        nodes: vec![
            node(
                "participant",
                NodeKind::Participant { witness_key: public(Purpose::Witness) },
                Purpose::ParticipantTransport,
                Purpose::Participant,
            ),
            node("replica", replica, Purpose::Transport, Purpose::Replica),
        ],
    }
}

/// The genesis file: three members with a participant and a replica each; alpha is the operator.
pub fn genesis() -> Vec<u8> {
    let genesis = Genesis {
        schema: GENESIS_SCHEMA.to_owned(),
        consortium: CONSORTIUM.to_owned(),
        salt: Digest::of(b"salt"),
        finality_threshold: 2,
        members: MEMBERS.iter().zip(1..).map(|(id, number)| member(id, number)).collect(),
    };
    genesis.check().unwrap();
    genesis.to_bytes()
}

/// A plan for two features that needs two contributions.
pub fn plan() -> Plan {
    let decimal = |text: &str| text.parse::<Decimal>().unwrap();
    Plan {
        name: "heart".to_owned(),
        description: String::new(),
        branch: "main".to_owned(),
        architecture: Architecture::logistic_regression(2),
        training: Some(Training { optimizer: Optimizer::sgd(decimal("0.1")), steps: 3, batch_size: 4 }),
        external_training: None,
        data: None,
        aggregation: Aggregation {
            rule: Rule::FedAvg { server_learning_rate: decimal("1") },
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

/// What the records of every site amount to.
pub fn data() -> DataSummary {
    DataSummary {
        features: 2,
        value_bytes: 4,
        classes: 2,
        train_examples: EXAMPLES,
        test_examples: 4,
        manifest: Some(Digest::of(b"data")),
        skipped_rows: BTreeMap::new(),
    }
}

/// The same plan, which says itself that records have the numbers in `columns` and whether somebody is sick.
pub fn described_plan(columns: [&str; 2], bad_rows_max: u64) -> Plan {
    let numeric = |column: &str| Feature::Numeric { column: column.to_owned() };
    let positive_when = Some(PositiveWhen::GreaterThan("0".parse().unwrap()));
    let description = DataDescription::Table(TableDescription {
        missing: Missing::DropRow,
        normalize: Normalize::Site,
        label: Label { column: "sick".to_owned(), positive_when, classes: None },
        features: columns.map(numeric).to_vec(),
        group: None,
        bad_rows_max,
    });
    Plan { data: Some(description), ..plan() }
}

/// The site of a member, which consents by itself to everything that it can train.
pub fn site(member: &str) -> Site {
    Site {
        member: member.to_owned(),
        author: key(member, Purpose::Participant).public(),
        policy: SitePolicy {
            auto_approve: true,
            surprises: Surprises::Allow,
            suppress_below: 0,
            ..SitePolicy::default()
        },
        own_data: Ok(data()),
        environment: Digest::of(b"environment"),
        device: ComputeDevice::Cpu,
        software: "fedledger/test".to_owned(),
        memory_max: None,
        trainers: BTreeMap::new(),
    }
}

/// A core of a site that has witnessed nothing.
pub fn core(site: Site) -> Core {
    Core::new(genesis(), site, None).unwrap()
}

/// An update of a member: all values alike.
pub fn update(value: f32) -> Vec<u8> {
    let tensor = |name: &str, shape: Vec<u64>, values| Tensor { name: name.to_owned(), shape, values };
    tensors::write_tensors(&[
        tensor("layer0.bias", vec![1], vec![value]),
        tensor("layer0.weight", vec![1, 2], vec![value; 2]),
    ])
    .unwrap()
}

/// What a core is told about an update.
pub fn trained(value: f32) -> TrainedUpdate {
    let bytes = update(value);
    TrainedUpdate {
        file: FileRef { digest: Digest::of(&bytes), size: bytes.len() as u64 },
        examples: EXAMPLES,
        metrics: [(LOSS_FIRST, 700_000), (LOSS_LAST, 600_000)].map(|(name, loss)| (name.to_owned(), loss)).into(),
        data_manifest: Digest::of(b"data"),
        skipped_rows: BTreeMap::new(),
        trainer: None,
    }
}

/// The ledger as honest replicas have it.
pub struct Ledger {
    pub log: Log<Federation>,
    /// Leaves from index 1 on.
    pub leaves: Vec<Vec<u8>>,
    /// Roots by size, from size 1 on.
    roots: Vec<Digest>,
    /// Weights and updates.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    raft_index: u64,
    /// Heads that participants have co-signed.
    pub cosigned: Vec<String>,
}

impl Ledger {
    pub fn new() -> Self {
        let (log, _) = Log::genesis(&genesis()).unwrap();
        let roots = vec![log.root()];
        Self { log, leaves: Vec::new(), roots, blobs: BTreeMap::new(), raft_index: 0, cosigned: Vec::new() }
    }

    pub fn state(&self) -> &Federation {
        self.log.machine()
    }

    /// Applies what a node has submitted; returns its place and its leaf.
    pub fn take_envelope(&mut self, envelope: &[u8]) -> (u64, Vec<u8>) {
        self.raft_index += 1;
        match self.log.apply(self.raft_index, envelope) {
            Applied::Entry(entry) => {
                self.leaves.push(entry.leaf.to_bytes());
                self.roots.push(self.log.root());
                (entry.leaf.index, entry.leaf.to_bytes())
            }
            Applied::Duplicate(index) => (index, self.leaves[index as usize - 1].clone()),
            other => panic!("{other:?}"),
        }
    }

    /// Applies a command; returns its outcome's code.
    pub fn try_apply(&mut self, key: &SecretKey, command: &Command) -> String {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.log.size().to_be_bytes());
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: key.public(),
            nonce: Nonce(nonce),
            not_after_index: self.log.size() + 100,
            kind: command.kind().to_owned(),
            payload: command.payload(),
        };
        let (_, leaf) = self.take_envelope(&transaction.sign(key).to_bytes());
        Leaf::from_bytes(&leaf).unwrap().outcome.code().to_owned()
    }

    /// Applies a command that must be accepted.
    pub fn apply(&mut self, key: &SecretKey, command: Command) {
        let kind = command.kind();
        assert_eq!(self.try_apply(key, &command), "accepted", "{kind}");
    }

    /// Lets the members agree on another transport key of a member's replica.
    pub fn rotate_transport_key(&mut self, member: &str, transport_key: PublicKey) {
        let name = format!("{member}/replica");
        let node = Some(NodeKeys { name, transport_key: Some(transport_key), ..NodeKeys::default() });
        let member = member.to_owned();
        self.decide(Action::RotateKeys(RotateKeys { member, organisation_key: None, api_key: None, node }));
    }

    /// Lets the members agree on something.
    pub fn decide(&mut self, action: Action) {
        let against = action.target(self.state());
        let content = Propose { action, against, expires_index: 1000, reason: "as discussed".to_owned() };
        let proposal = content.id(&"alpha".to_owned());
        self.apply(&key("alpha", Purpose::Organisation), Command::Propose(content));
        self.apply(&key("beta", Purpose::Organisation), Command::Vote(Vote { proposal, approve: true }));
    }

    /// Proposes a plan, lets these members consent, and starts it with its initial version.
    pub fn start_plan(&mut self, plan: Plan, consenting: &[&str]) -> Digest {
        let id = self.propose(plan);
        for member in consenting {
            self.consent(member, id);
        }
        self.start(id);
        id
    }

    pub fn propose(&mut self, plan: Plan) -> Digest {
        let id = plan.id();
        self.apply(&key("alpha", Purpose::Organisation), Command::ProposePlan(plan));
        id
    }

    pub fn consent(&mut self, member: &str, plan: Digest) {
        self.apply(&key(member, Purpose::Organisation), Command::ApprovePlan(ApprovePlan { plan, examples: None }));
    }

    /// Starts a plan; its initial version becomes the head.
    pub fn start(&mut self, plan: Digest) {
        self.apply(&key("alpha", Purpose::Organisation), Command::StartPlan(StartPlan { plan }));
        self.make_version(RoundKey { plan, round: 0, attempt: 0 });
    }

    /// Computes, proposes and attests the version of an attempt.
    pub fn make_version(&mut self, key_of: RoundKey) -> VersionId {
        let recipe = Recipe::of(self.state(), &key_of).unwrap();
        let outputs: Outputs = recipe.compute(|file| Ok(&self.blobs[&file.digest][..]), 1).unwrap();
        let files = OutputFiles::of(&outputs);
        self.blobs.insert(files.weights.digest, outputs.weights);
        let (_, version) = recipe.manifest(self.state(), &files).unwrap();
        let commit = CommitVersion { key: key_of, version, outputs: files };
        self.apply(&key("alpha", Purpose::Replica), Command::CommitVersion(commit));
        let attest = AttestVersion { version, outputs: files };
        self.apply(&key("beta", Purpose::Replica), Command::AttestVersion(attest));
        version
    }

    /// Opens the next attempt at a round of a plan.
    pub fn open_round(&mut self, plan: Digest) -> RoundKey {
        let record = self.state().plans().get(&plan).unwrap();
        let key_of = Federation::next_key(plan, record);
        let (base, head) = self.state().head(&record.plan.branch).unwrap();
        let open = OpenRound {
            key: key_of,
            base: *base,
            cohort: cohort::digest(&self.state().next_cohort(&key_of, record, head)),
            duration_ms: record.plan.participation.round_duration_ms,
        };
        self.apply(&key("beta", Purpose::Replica), Command::OpenRound(open));
        key_of
    }

    pub fn join(&mut self, member: &str, key_of: RoundKey) {
        self.apply(&key(member, Purpose::Participant), Command::JoinRound(JoinRound { key: key_of }));
    }

    /// Joins and contributes.
    pub fn contribute(&mut self, member: &str, key_of: RoundKey, value: f32) {
        self.join(member, key_of);
        let bytes = update(value);
        let contribution = Contribute {
            key: key_of,
            base: self.state().rounds().get(&key_of).unwrap().base,
            update: Digest::of(&bytes),
            size: bytes.len() as u64,
            examples: EXAMPLES,
            metrics: BTreeMap::new(),
            data_manifest: Digest::of(b"data"),
            environment: Digest::of(b"environment"),
            software: "fedledger/test".to_owned(),
            skipped_rows: BTreeMap::new(),
            trainer: None,
        };
        self.blobs.insert(contribution.update, bytes);
        self.apply(&key(member, Purpose::Participant), Command::Contribute(contribution));
    }

    /// Closes a round and makes its version.
    pub fn complete_round(&mut self, key_of: RoundKey) -> VersionId {
        let close = CloseRound { key: key_of, through: u64::MAX, excluded: BTreeMap::new() };
        self.apply(&key("gamma", Purpose::Replica), Command::CloseRound(close));
        self.make_version(key_of)
    }

    /// Submits what a core asked for, with the key of the member's participant; returns the outcomes' codes.
    pub fn submit(&mut self, member: &str, outputs: &[Output]) -> Vec<String> {
        let commands = outputs.iter().filter_map(|output| match output {
            Output::Submit(_, command) => Some(command),
            _ => None,
        });
        commands.map(|command| self.try_apply(&key(member, Purpose::Participant), command)).collect()
    }

    /// The head at a size, as a member's replica signs it.
    pub fn head(&self, replica: &str, size: u64) -> String {
        signed_head(replica, size, self.roots[size as usize - 1])
    }
}

/// A head signed in the name of the log by a member's replica, and co-signed by all.
pub fn signed_head(replica: &str, size: u64, root: Digest) -> String {
    let origin = format!("fedledger/{CONSORTIUM}");
    let text = Checkpoint::new(origin.clone(), size, root).unwrap().to_note_text();
    let mut note = sign_note(&text, &origin, &key(replica, Purpose::Log)).unwrap();
    for member in MEMBERS {
        let name = cosigner_name(&origin, &format!("{member}/replica"));
        note.add(NoteSignature::cosign(&text, &name, &key(member, Purpose::Cosign), 1).unwrap()).unwrap();
    }
    note.to_string()
}

/// A head that only one member's replica has signed.
pub fn lone_head(replica: &str, size: u64, root: Digest) -> String {
    let origin = format!("fedledger/{CONSORTIUM}");
    let text = Checkpoint::new(origin.clone(), size, root).unwrap().to_note_text();
    sign_note(&text, &origin, &key(replica, Purpose::Log)).unwrap().to_string()
}

/// A core and the ledger entries that it has been given.
pub struct Running {
    pub core: Core,
    /// Everything that it asked for since it was last looked at.
    pub outputs: Vec<Output>,
}

impl Running {
    /// Starts a core and lets it follow alpha's replica, which has the ledger as it is now.
    pub fn start(core: Core, ledger: &Ledger) -> Self {
        let mut site = Self { core, outputs: Vec::new() };
        site.follow("alpha", ledger);
        site
    }

    pub fn follow(&mut self, replica: &str, ledger: &Ledger) {
        self.input(Input::Following { replica: format!("{replica}/replica"), next: ledger.log.size() });
        self.catch_up(ledger);
    }

    /// Gives it every leaf that it does not have yet, from the replica that it follows.
    pub fn catch_up(&mut self, ledger: &Ledger) {
        let first = self.core.size() as usize - 1;
        for leaf in &ledger.leaves[first..] {
            self.input(Input::Leaf(leaf.clone()));
        }
    }

    pub fn input(&mut self, input: Input) {
        let outputs = self.core.step(input);
        self.outputs.extend(outputs);
    }

    /// What it asked for since the last call.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }
}
