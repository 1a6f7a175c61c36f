//! Receipts of a log of 10^9 entries, and proofs of a state of 100,000 records: size, making and verifying.
//!
//! `cargo bench --workspace --bench receipts`. No disk is read: the nodes of the tree are computed.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

#[path = "synthetic/billion.rs"]
mod billion;

use std::hint::black_box;

use billion::BillionLog;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fedledger_ledger::map::{StateMap, StateProof};

/// Replicas, co-signatures that are needed, and co-signatures that are there.
const CASES: [(usize, usize, usize); 4] = [(4, 3, 3), (4, 3, 4), (7, 5, 5), (7, 5, 7)];

/// Records in the state.
const RECORDS: u64 = 100_000;

/// The record that is proved.
const RECORD: u64 = 77_777;

fn receipts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receipt at 10^9 entries");
    for (replicas, needed, cosigned) in CASES {
        let log = BillionLog::new(replicas, needed, cosigned);
        let receipt = log.receipt();
        assert!(log.verify(&receipt), "the receipt to be measured does not verify");
        let case = format!("{cosigned} co-signatures of {replicas} replicas");
        println!("receipt at 10^9 entries, {case}: {} bytes", receipt.len());
        group.bench_function(BenchmarkId::new("serve", &case), |bencher| bencher.iter(|| black_box(&log).receipt()));
        group.bench_function(BenchmarkId::new("verify", &case), |bencher| {
            bencher.iter(|| assert!(log.verify(black_box(&receipt))));
        });
    }
    group.finish();
}

fn state_proofs(criterion: &mut Criterion) {
    let record = |number: u64| (format!("contribution/{number:020}"), number.to_be_bytes().repeat(16));
    let mut map = StateMap::default();
    map.apply((0..RECORDS).map(record).map(|(key, value)| (key, Some(value))));
    let root = map.root();
    let (key, value) = record(RECORD);
    let prove = || map.prove(black_box(key.as_bytes())).to_bytes();
    let verify = |bytes: &[u8]| StateProof::from_bytes(bytes).unwrap().verify(&root, key.as_bytes(), Some(&value));
    let bytes = prove();
    assert_eq!(verify(&bytes), Ok(()));
    println!("state proof at {RECORDS} records: {} bytes", bytes.len());
    let mut group = criterion.benchmark_group("state proof at 100k");
    group.bench_function("serve", |bencher| bencher.iter(prove));
    group.bench_function("verify", |bencher| bencher.iter(|| verify(black_box(&bytes)).unwrap()));
    group.finish();
}

criterion_group!(benches, receipts, state_proofs);
criterion_main!(benches);
