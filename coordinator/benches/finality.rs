//! How long it takes until a transaction is final, and what co-signing costs: four replicas on loopback, synced disks.
//!
//! `cargo bench --workspace --bench finality`. Without co-signing means without seals: the replicas seal at a pace that
//! never comes, so the ratio of both throughputs is the whole cost of seals, state roots and co-signatures. Both are
//! measured in turns, and the ratio is printed.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

#[path = "../tests/shared/cluster.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod cluster;
#[path = "../tests/shared/load.rs"]
mod load;

use std::time::Duration;

use cluster::Cluster;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use load::{Pair, median, quantile};
use tokio::runtime::Runtime;

const REPLICAS: u64 = 4;

/// Transactions of which percentiles are printed.
const LATENCIES: u64 = 300;

/// Transactions per turn with and without co-signing.
const TRANSACTIONS: u64 = 2_000;

fn latency(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(REPLICAS));
    runtime.block_on(cluster.leader());
    let envelopes = load::envelopes(&mut cluster, LATENCIES);
    let mut latencies = runtime.block_on(load::finalise_each(&cluster, envelopes));
    for (what, times) in [("committed", &mut latencies.committed), ("final", &mut latencies.finalised)] {
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        println!("submit to {what}, one client, {LATENCIES} transactions: p50 {p50:.1?}, p99 {p99:.1?}");
    }
    let mut group = criterion.benchmark_group("finality");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("submit to final", |bencher| {
        bencher.iter_custom(|iterations| {
            let envelopes = load::envelopes(&mut cluster, iterations);
            runtime.block_on(load::finalise_each(&cluster, envelopes)).finalised.iter().sum()
        });
    });
    group.finish();
    runtime.block_on(cluster.stop());
}

fn co_signing(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut pair = runtime.block_on(Pair::start(REPLICAS));
    let mut ratios = Vec::new();
    let mut group = criterion.benchmark_group("100 clients");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(TRANSACTIONS));
    for sealed in [true, false] {
        let what = if sealed { "co-signed" } else { "not co-signed" };
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                for _ in 0..iterations {
                    let (with, without) = runtime.block_on(pair.turn(TRANSACTIONS));
                    ratios.push(without.as_secs_f64() / with.as_secs_f64());
                    taken += if sealed { with } else { without };
                }
                taken
            });
        });
    }
    group.finish();
    let turns = ratios.len();
    println!("throughput with co-signing / without, median of {turns} turns: {:.3}", median(&mut ratios));
    runtime.block_on(pair.stop());
}

criterion_group!(benches, latency, co_signing);
criterion_main!(benches);
