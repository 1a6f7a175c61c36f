//! Rates of the authenticated map at 100,000 records: building, updating, proving and verifying.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fedledger_ledger::{Digest, map::StateMap};

/// Records in the map that is measured.
const RECORDS: u64 = 100_000;

/// Keys changed between two roots: those of a full seal.
const CHANGES: u64 = 1_000;

/// Step between the records whose proofs are measured.
const STRIDE: u64 = 7919;

/// Changes of the records, keys and values, of the size of typical ones.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn key(number: u64) -> Vec<u8> {
    format!("contribution/{number:020}/member").into_bytes()
}

fn value(number: u64, version: u64) -> Vec<u8> {
    [number.to_be_bytes(), version.to_be_bytes()].concat().repeat(12)
}

fn records() -> Changes {
    (0..RECORDS).map(|number| (key(number), Some(value(number, 0)))).collect()
}

fn changes(version: u64) -> Changes {
    let numbers = (0..CHANGES).map(|number| (version * CHANGES + number) * STRIDE % RECORDS);
    numbers.map(|number| (key(number), Some(value(number, version)))).collect()
}

fn apply(map: &mut StateMap, changes: &Changes) -> Digest {
    map.apply(changes.iter().map(|(key, value)| (key, value.as_ref())));
    map.root()
}

fn full_map() -> StateMap {
    let mut map = StateMap::default();
    apply(&mut map, &records());
    assert_eq!(map.len() as u64, RECORDS);
    map
}

fn build(criterion: &mut Criterion) {
    let records = records();
    let mut group = criterion.benchmark_group("build");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10);
    group.bench_function("100k records", |bencher| {
        bencher.iter_batched(StateMap::default, |mut map| (apply(&mut map, &records), map), BatchSize::LargeInput);
    });
    group.finish();
}

fn update(criterion: &mut Criterion) {
    let mut map = full_map();
    let mut version = 0;
    let mut next_changes = || {
        version += 1;
        changes(version)
    };
    let mut group = criterion.benchmark_group("update of 1,000 keys at 100k");
    group.throughput(Throughput::Elements(CHANGES));
    group.bench_function("in place", |bencher| {
        bencher.iter_batched(&mut next_changes, |changes| apply(&mut map, &changes), BatchSize::SmallInput);
    });
    let mut snapshot = map.clone();
    group.bench_function("with a snapshot of every state", |bencher| {
        bencher.iter_batched(
            &mut next_changes,
            |changes| {
                let root = apply(&mut map, &changes);
                snapshot = map.clone();
                root
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    assert_eq!(snapshot.root(), map.root());
}

fn proofs(criterion: &mut Criterion) {
    let map = full_map();
    let root = map.root();
    let cases: Vec<_> = (0..RECORDS).step_by(STRIDE as usize).map(|number| (key(number), value(number, 0))).collect();
    let proofs: Vec<_> = cases.iter().map(|(key, value)| (key, value, map.prove(key))).collect();
    let verified = |(key, value, proof): &(&Vec<u8>, &Vec<u8>, fedledger_ledger::map::StateProof)| {
        proof.verify(&root, black_box(key), Some(value)).is_ok()
    };
    assert!(proofs.iter().all(verified), "the proofs to be measured do not verify");
    let mut group = criterion.benchmark_group("proof at 100k");
    group.throughput(Throughput::Elements(1));
    let mut cycle = cases.iter().cycle();
    group.bench_function("prove", |bencher| bencher.iter(|| cycle.next().map(|(key, _)| map.prove(black_box(key)))));
    let mut cycle = proofs.iter().cycle();
    group.bench_function("verify", |bencher| bencher.iter(|| cycle.next().map(verified)));
    group.finish();
}

criterion_group!(benches, build, update, proofs);
criterion_main!(benches);
