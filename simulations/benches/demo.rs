//! The whole system: a consortium of four hospitals from provisioning to the verified summary.
//!
//! Real sockets, real Raft with synced disks, real training; one round and fifteen, so that the start can be told
//! from the rounds.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fedledger_simulations::demo::{self, DemoOptions, DemoRule, ROUND_DURATION};
use tokio::runtime::Runtime;

async fn run(rounds: u64) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let options = DemoOptions {
        directory: directory.path().join("demo"),
        force: false,
        rounds,
        seed: 42,
        rule: DemoRule::FedAvg,
        round_duration: ROUND_DURATION,
        chaos: Vec::new(),
        serve: false,
    };
    let begun = Instant::now();
    let finished = demo::run(options, &mut |_| {}).await.unwrap();
    let duration = begun.elapsed();
    assert!(finished.summary.verified.ok);
    finished.stop().await.unwrap();
    duration
}

fn whole_system(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("demo");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    for rounds in [1, 15] {
        group.bench_function(format!("{rounds} rounds"), |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| runtime.block_on(run(rounds))).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, whole_system);
criterion_main!(benches);
