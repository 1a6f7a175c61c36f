//! Committed transactions per second, and the latency of one, of three replicas on loopback with synced disks.
//!
//! `cargo bench --workspace --bench commit`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

#[path = "../tests/shared/cluster.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod cluster;
#[path = "../tests/shared/load.rs"]
#[expect(dead_code, reason = "other benchmarks use the rest of it")]
mod load;

use std::time::Duration;

use cluster::Cluster;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use load::CLIENTS;
use tokio::runtime::Runtime;

/// Transactions per measurement of the throughput.
const TRANSACTIONS: u64 = 2_000;

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(3));
    runtime.block_on(cluster.leader());

    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(1));
    group.bench_function("one client", |bencher| {
        bencher.iter_custom(|iterations| {
            let envelopes = load::envelopes(&mut cluster, iterations);
            runtime.block_on(load::commit_all(&cluster, envelopes, 1))
        });
    });
    group.throughput(Throughput::Elements(TRANSACTIONS));
    group.bench_function("100 clients", |bencher| {
        bencher.iter_custom(|iterations| {
            let envelopes = load::envelopes(&mut cluster, iterations * TRANSACTIONS);
            runtime.block_on(load::commit_all(&cluster, envelopes, CLIENTS))
        });
    });
    group.finish();
    runtime.block_on(cluster.stop());
}

criterion_group!(benches, commit);
criterion_main!(benches);
