//! Rates of the log: appending, proving and verifying at a million entries, and strict signature verification.

#![expect(clippy::disallowed_types, reason = "nothing depends on the order of the nodes here")]

use std::{collections::HashMap, convert::Infallible, hint::black_box};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fedledger_ledger::{
    Digest, SecretKey,
    merkle::{Frontier, NodeId, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion},
};

/// Entries in the log that is measured.
const LOG_SIZE: u64 = 1_000_000;

/// Entries appended per measurement, so that the cost of completing subtrees is averaged.
const APPENDS: u64 = 1024;

/// Step between the entries whose proofs are measured; odd, so that all shapes of path occur.
const STRIDE: u64 = 7919;

/// An entry of the size of a typical contribution.
const ENTRY: [u8; 512] = [7; 512];

/// A log in memory.
struct Log {
    frontier: Frontier,
    nodes: HashMap<NodeId, Digest>,
}

impl Log {
    fn of_size(size: u64) -> Self {
        let mut log = Self { frontier: Frontier::new(), nodes: HashMap::new() };
        for index in 0..size {
            log.nodes.extend(log.frontier.append(leaf(index)));
        }
        log
    }

    fn fetch(&self, node: NodeId) -> Result<Digest, Infallible> {
        // Only complete nodes are asked for, and all of them are there; a missing one would fail verification below.
        Ok(self.nodes.get(&node).copied().unwrap_or_default())
    }
}

fn leaf(index: u64) -> Digest {
    leaf_hash(&index.to_be_bytes())
}

fn append(criterion: &mut Criterion) {
    let frontier = Log::of_size(LOG_SIZE).frontier;
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(APPENDS));
    group.bench_function("512-byte entries at 1M", |bencher| {
        let append_all = |mut frontier: Frontier| {
            for _ in 0..APPENDS {
                black_box(frontier.append(leaf_hash(black_box(&ENTRY))));
            }
            frontier
        };
        bencher.iter_batched(|| frontier.clone(), append_all, BatchSize::SmallInput);
    });
    group.finish();
}

fn inclusion(criterion: &mut Criterion) {
    let log = Log::of_size(LOG_SIZE);
    let root = log.frontier.root();
    let mut group = criterion.benchmark_group("inclusion at 1M");
    group.throughput(Throughput::Elements(1));
    let mut index = 0;
    group.bench_function("prove", |bencher| {
        bencher.iter(|| {
            index = (index + STRIDE) % LOG_SIZE;
            inclusion_proof(index, LOG_SIZE, |node| log.fetch(node))
        });
    });
    let proofs: Vec<_> = (0..LOG_SIZE)
        .step_by(STRIDE as usize)
        .filter_map(|index| Some((index, inclusion_proof(index, LOG_SIZE, |node| log.fetch(node)).ok()?)))
        .collect();
    let verified = |(index, proof): &(u64, Vec<Digest>)| {
        verify_inclusion(*index, LOG_SIZE, &leaf(*index), black_box(proof), &root).is_ok()
    };
    assert!(proofs.iter().all(verified), "the proofs to be measured do not verify");
    let mut cycle = proofs.iter().cycle();
    group.bench_function("verify", |bencher| bencher.iter(|| cycle.next().map(verified)));
    group.finish();
}

fn consistency(criterion: &mut Criterion) {
    let log = Log::of_size(LOG_SIZE);
    let old_size = LOG_SIZE - STRIDE;
    let (old_root, new_root) = (Log::of_size(old_size).frontier.root(), log.frontier.root());
    let prove = || consistency_proof(old_size, LOG_SIZE, |node| log.fetch(node));
    let proof = prove().unwrap_or_default();
    let verify = || verify_consistency(old_size, &old_root, LOG_SIZE, &new_root, black_box(&proof));
    assert_eq!(verify(), Ok(()), "the proof to be measured does not verify");
    let mut group = criterion.benchmark_group("consistency at 1M");
    group.throughput(Throughput::Elements(1));
    group.bench_function("prove", |bencher| bencher.iter(prove));
    group.bench_function("verify", |bencher| bencher.iter(verify));
    group.finish();
}

fn signatures(criterion: &mut Criterion) {
    let key = SecretKey::from_seed([1; 32]);
    let public = key.public();
    let signature = key.sign(b"domain", &ENTRY);
    let verify = || public.verify(b"domain", black_box(&ENTRY), &signature);
    assert_eq!(verify(), Ok(()), "the signature to be measured does not verify");
    let mut group = criterion.benchmark_group("ed25519");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sign 512 bytes", |bencher| bencher.iter(|| key.sign(b"domain", black_box(&ENTRY))));
    group.bench_function("verify strictly 512 bytes", |bencher| bencher.iter(verify));
    group.finish();
}

criterion_group!(benches, append, inclusion, consistency, signatures);
criterion_main!(benches);
