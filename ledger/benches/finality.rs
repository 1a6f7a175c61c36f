//! What it costs a replica, per head, to make it final: its own signatures, and those of the others.
//!
//! `cargo bench --workspace --bench finality`. No network and no disk.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedledger_ledger::{
    Digest, SecretKey,
    checkpoint::Checkpoint,
    epoch::{Epoch, ReplicaKeys, cosigner_name},
    finality::{Cosignature, Finality, Finding, Offered, SealedHead},
    note::{NoteSignature, SignedNote},
};

/// Replicas, and how many must co-sign.
const CASES: [(usize, u64); 2] = [(4, 3), (7, 5)];

/// Heads per measurement.
const HEADS: u64 = 32;

/// Time of the co-signatures, in seconds since the Unix epoch.
const TIME_S: u64 = 1_800_000_000;

const ORIGIN: &str = "fedledger/consortium";

/// The heads of a log, and who signs them.
struct Case {
    epoch: Arc<Epoch>,
    /// The replica that is measured.
    own: Signer,
    heads: Vec<Head>,
}

struct Head {
    sealed: SealedHead,
    text: String,
    /// Notes of the other replicas, each with its own signatures only.
    notes: Vec<String>,
}

struct Signer {
    node: String,
    author: SecretKey,
    log: SecretKey,
    cosign: SecretKey,
}

impl Signer {
    fn new(number: usize) -> Self {
        let key = |purpose| SecretKey::from_seed(*Digest::of(format!("{purpose}/{number}").as_bytes()).as_bytes());
        let node = format!("hospital-{number}/replica");
        Self { node, author: key("author"), log: key("log"), cosign: key("cosign") }
    }

    fn keys(&self) -> ReplicaKeys {
        ReplicaKeys { author: self.author.public(), log: self.log.public(), cosign: self.cosign.public() }
    }

    /// The two lines by which a replica vouches for a head.
    fn sign(&self, text: &str) -> [NoteSignature; 2] {
        let name = cosigner_name(ORIGIN, &self.node);
        let log = NoteSignature::sign(text, ORIGIN, &self.log).unwrap();
        [log, NoteSignature::cosign(text, &name, &self.cosign, TIME_S).unwrap()]
    }
}

impl Case {
    fn new(replicas: usize, threshold: u64) -> Self {
        let (own, others) = (Signer::new(1), (2..=replicas).map(Signer::new).collect::<Vec<_>>());
        let keys = others.iter().chain([&own]).map(|signer| (signer.node.clone(), signer.keys())).collect();
        let epoch = Arc::new(Epoch { number: 0, index: 0, threshold, replicas: keys, witnesses: [].into() });
        let head = |number: u64| {
            let (size, root) = (number * 100, Digest::of(&number.to_be_bytes()));
            let text = Checkpoint::new(ORIGIN, size, root).unwrap().to_note_text();
            let note =
                |signer: &Signer| SignedNote::from_parts(&*text, signer.sign(&text).to_vec()).unwrap().to_string();
            let notes = others.iter().map(note).collect();
            let sealed = SealedHead { size, root, epoch: Arc::clone(&epoch), next_epoch: Arc::clone(&epoch) };
            Head { sealed, text, notes }
        };
        Self { heads: (1..=HEADS).map(head).collect(), own, epoch }
    }

    fn finality(&self) -> Finality {
        Finality::new(ORIGIN.to_owned(), Arc::clone(&self.epoch), Vec::new(), 0, 0)
    }

    /// Seals and signs every head as the replica itself does.
    fn sign(&self, finality: &mut Finality) {
        let key = self.own.cosign.public();
        for head in &self.heads {
            assert!(finality.sealed(&head.sealed).unwrap().is_empty());
            let [log, line] = self.own.sign(&head.text);
            let own = Cosignature { node: self.own.node.clone(), is_replica: true, key, time_s: TIME_S, line };
            assert!(finality.signed(head.sealed.size, log, own).is_empty());
        }
    }

    /// Takes what the others send, and counts the heads that become final by it.
    fn offer(&self, finality: &mut Finality) -> u64 {
        let mut made_final = 0;
        for note in self.heads.iter().flat_map(|head| &head.notes) {
            let Offered::Taken(findings) = finality.offer(black_box(note)).unwrap() else { continue };
            made_final += findings.iter().filter(|finding| matches!(finding, Finding::Final { .. })).count() as u64;
        }
        made_final
    }
}

fn finality(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("heads of a log");
    group.throughput(Throughput::Elements(HEADS));
    for (replicas, threshold) in CASES {
        let case = Case::new(replicas, threshold);
        let signed = || {
            let mut finality = case.finality();
            case.sign(&mut finality);
            finality
        };
        group.bench_function(BenchmarkId::new("signed", replicas), |bencher| bencher.iter(signed));
        group.bench_function(BenchmarkId::new("made final by the others", replicas), |bencher| {
            let offer = |mut finality: Finality| {
                assert_eq!(case.offer(&mut finality), HEADS, "every head becomes final once");
                finality
            };
            bencher.iter_batched(signed, offer, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, finality);
criterion_main!(benches);
