//! Updates that participants upload, with interruptions on either side.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use fedledger_federation::{
    Command, VersionId,
    architecture::Architecture,
    command::{ApprovePlan, Contribute, JoinRound, RoundKey, StartPlan, StopPlan},
    plan::{Aggregation, Optimizer, Participation, Plan, Requirements, Rule, Training, UpdateDtype},
};
use fedledger_ledger::{
    Digest, PublicKey,
    leaf::Leaf,
    transaction::{Nonce, Transaction},
};
use fedledger_proto::{
    blobs::{BlobSource, INCOMING_FOLDER, Marks, MemoryBlob, path_in},
    endpoint::{BlobError, Endpoint, PutOutcome},
    kit::ParticipantKit,
    wire::CHUNK_BYTES,
};
use tokio::time::timeout;

use super::{
    cluster::{Cluster, LONG},
    connected, is_not_permitted,
    rotation::accept,
};

/// A plan whose updates have several chunks.
fn plan() -> Plan {
    Plan {
        name: "large".to_owned(),
        description: String::new(),
        branch: "main".to_owned(),
        architecture: Architecture::MultilayerPerceptron { features: 1024, hidden: vec![512] },
        training: Training {
            optimizer: Optimizer::Sgd { learning_rate: "0.1".parse().unwrap() },
            steps: 1,
            batch_size: 1,
        },
        aggregation: Aggregation {
            rule: Rule::FedAvg { server_learning_rate: "1".parse().unwrap() },
            example_scale: 1024,
            update_dtype: UpdateDtype::F32,
        },
        seed: 1,
        rounds: 1,
        participation: Participation {
            cohort_size: None,
            minimum_participants: 1,
            required_members: Vec::new(),
            minimum_example_share: None,
            round_duration_ms: 3_600_000,
            attempts: 1,
        },
        requirements: Requirements::default(),
        early_stopping: None,
    }
}

/// Has the first sites take part in the plan, and waits until the first replica knows that its round is open. Gives the
/// round's attempt and its base.
async fn open_round(cluster: &Cluster, plan: Plan, sites: u64) -> (RoundKey, VersionId) {
    let id = plan.id();
    accept(cluster, 1, Command::ProposePlan(plan)).await;
    for site in 1..=sites {
        accept(cluster, site, Command::ApprovePlan(ApprovePlan { plan: id, examples: None })).await;
    }
    accept(cluster, 1, Command::StartPlan(StartPlan { plan: id })).await;
    let handle = cluster.node(1).handle();
    let mut size = handle.log_size();
    let opened = async {
        loop {
            size.mark_unchanged();
            let open = handle.query(move |replica| {
                let state = replica.log().machine();
                let key = state.plans().get(&id)?.open?;
                Some((key, state.rounds().get(&key)?.base))
            });
            if let Some(open) = open.await.unwrap() {
                return open;
            }
            size.changed().await.unwrap();
        }
    };
    timeout(LONG, opened).await.unwrap()
}

/// An update of a plan, and the same with other bytes for each seed.
fn update_of(plan: &Plan, seed: u8) -> MemoryBlob {
    let size = plan.update_size_bytes();
    MemoryBlob::new((0..size).map(|index| (index / 251) as u8 ^ index as u8 ^ seed).collect::<Vec<_>>())
}

/// Brings a command of a site's participant onto the ledger, which accepts it.
async fn accept_from_participant(cluster: &Cluster, site: u64, command: Command) {
    let kit = ParticipantKit::load(&cluster.directory().join(format!("site-{site}/participant"))).unwrap();
    let handle = cluster.node(1).handle();
    let payload = command.payload();
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&Digest::of(&payload).as_bytes()[..16]);
    let transaction = Transaction {
        chain: cluster.chain(),
        author: kit.transaction_key.public(),
        nonce: Nonce(nonce),
        not_after_index: *handle.log_size().borrow() + 1000,
        kind: command.kind().to_owned(),
        payload,
    };
    let envelope = transaction.sign(&kit.transaction_key).to_bytes();
    let submitted = timeout(LONG, handle.submit(envelope)).await.unwrap().unwrap();
    let leaf = Leaf::from_bytes(&submitted.leaf).unwrap();
    assert!(leaf.outcome.is_accepted(), "{:?}: {:?}", leaf.outcome, submitted.reason);
}

/// An update that is cut off once the replica has so much of it on its disk.
struct Upload {
    blob: MemoryBlob,
    /// Where it is cut off, if it is.
    cut: Option<u64>,
    /// Where the replica keeps what it has of it.
    partial: PathBuf,
    /// Where it began to be read.
    begun_at: Arc<AtomicU64>,
}

impl BlobSource for Upload {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn marks(&self) -> &Marks {
        self.blob.marks()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.begun_at.fetch_min(offset, Ordering::Relaxed);
        if let Some(cut) = self.cut.filter(|cut| offset >= *cut) {
            while fs::metadata(&self.partial).map_or(0, |file| file.len()) < cut {
                thread::yield_now();
            }
            return Err(io::Error::other("the line is cut"));
        }
        self.blob.read_at(offset, buffer)
    }
}

/// Uploads an update up to a cut, or to its end, as soon as the replica is there; says where it was begun.
async fn upload(
    endpoint: &Endpoint,
    replica: PublicKey,
    directory: &Path,
    (blob, cut): (&MemoryBlob, Option<u64>),
) -> (u64, Result<PutOutcome, BlobError>) {
    let digest = blob.digest();
    let partial = directory.join("blobs").join(INCOMING_FOLDER).join(format!("{digest}.part"));
    let sending = async {
        loop {
            connected(endpoint).await;
            let begun_at = Arc::new(AtomicU64::new(u64::MAX));
            let source = Upload { blob: blob.clone(), cut, partial: partial.clone(), begun_at: Arc::clone(&begun_at) };
            let put = endpoint.put_blob(replica, digest, source).await;
            let begun_at = begun_at.load(Ordering::Relaxed);
            // A connection to the replica as it was before is found dead by this.
            if put.is_ok() || begun_at != u64::MAX {
                return (begun_at, put);
            }
        }
    };
    timeout(LONG, sending).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_goes_on_where_it_stopped_even_after_the_replicas_restart() {
    let mut cluster = Cluster::start(3).await;
    let plan = plan();
    let (size, blob) = (plan.update_size_bytes(), update_of(&plan, 0));
    let chunks = |count: u64| count * CHUNK_BYTES as u64;
    assert!(size > chunks(6), "{size}");
    let (endpoint, replica) = cluster.participant().await;
    let directory = cluster.replica_directory(1);
    // No round waits for it yet.
    let early = endpoint.put_blob(replica, blob.digest(), blob.clone()).await;
    assert!(is_not_permitted(&early.unwrap_err()));
    open_round(&cluster, plan, 1).await;

    let (begun_at, cut) = upload(&endpoint, replica, &directory, (&blob, Some(chunks(2)))).await;
    assert!(begun_at == 0 && cut.is_err(), "{begun_at}: {cut:?}");
    let (begun_at, cut) = upload(&endpoint, replica, &directory, (&blob, Some(chunks(4)))).await;
    assert!(begun_at == chunks(2) && cut.is_err(), "{begun_at}: {cut:?}");
    cluster.kill(1).await;
    // It sweeps its files when it starts, and this one may still become one.
    cluster.restart(1).await;
    let (begun_at, stored) = upload(&endpoint, replica, &directory, (&blob, None)).await;
    assert!(begun_at == chunks(4) && matches!(stored, Ok(PutOutcome::Stored)), "{begun_at}: {stored:?}");
    assert_eq!(fs::metadata(path_in(&directory.join("blobs"), &blob.digest())).unwrap().len(), size);

    // Another site's participant, which has not consented, may store nothing, of whatever size.
    endpoint.shutdown().await;
    let kit = ParticipantKit::load(&cluster.directory().join("site-2/participant")).unwrap();
    let (other, replica) = cluster.dial(kit.transport_key).await;
    connected(&other).await;
    let unasked = MemoryBlob::new(vec![7; usize::try_from(size).unwrap()]);
    let refused = other.put_blob(replica, unasked.digest(), unasked).await;
    assert!(is_not_permitted(&refused.unwrap_err()));
    other.shutdown().await;
    cluster.stop().await;
}

/// As one that would keep the leader from fetching it: it would send it slowly, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_has_contributed_is_taken_from_no_other() {
    let mut cluster = Cluster::start(3).await;
    let mut plan = plan();
    plan.participation.minimum_participants = 2;
    let (contributed, own) = (update_of(&plan, 1), update_of(&plan, 2));
    let (key, base) = open_round(&cluster, plan, 2).await;
    let command = Contribute {
        key,
        base,
        update: contributed.digest(),
        size: contributed.size(),
        examples: 1,
        metrics: BTreeMap::new(),
        data_manifest: Digest::of(b"data"),
        environment: Digest::of(b"environment"),
        software: "software".to_owned(),
    };
    accept_from_participant(&cluster, 1, Command::JoinRound(JoinRound { key })).await;
    accept_from_participant(&cluster, 1, Command::Contribute(command)).await;

    let kit = ParticipantKit::load(&cluster.directory().join("site-2/participant")).unwrap();
    let (other, replica) = cluster.dial(kit.transport_key).await;
    connected(&other).await;
    let refused = other.put_blob(replica, contributed.digest(), contributed).await;
    assert!(is_not_permitted(&refused.unwrap_err()));
    let stored = other.put_blob(replica, own.digest(), own).await;
    assert!(matches!(stored, Ok(PutOutcome::Stored)), "{stored:?}");
    other.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_no_round_waits_for_any_more_is_refused_and_deleted() {
    let mut cluster = Cluster::start(3).await;
    let plan = plan();
    let [uploaded, late] = [1, 2].map(|seed| update_of(&plan, seed));
    let stop = StopPlan { plan: plan.id(), drain: false, reason: "enough".to_owned() };
    open_round(&cluster, plan, 1).await;
    let (endpoint, replica) = cluster.participant().await;
    let digest = uploaded.digest();
    let stored = endpoint.put_blob(replica, digest, uploaded.clone()).await;
    assert!(matches!(stored, Ok(PutOutcome::Stored)), "{stored:?}");
    accept(&cluster, 1, Command::StopPlan(stop)).await;
    let gone = async {
        while cluster.node(1).blobs().has(&digest) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, gone).await.unwrap();
    for blob in [uploaded, late] {
        let refused = endpoint.put_blob(replica, blob.digest(), blob).await;
        assert!(is_not_permitted(&refused.unwrap_err()));
    }
    endpoint.shutdown().await;
    cluster.stop().await;
}
