//! Throughput of aggregation, in bytes of `F32` updates per second, beside what the memory of the same machine gives.
//!
//! `cargo bench -p fedledger-federation --bench aggregation`; it needs about 2 GiB of memory.

#![allow(missing_docs, reason = "criterion_group! generates an undocumented function")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first error")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use fedledger_federation::{
    aggregation::{Aggregation, Aggregator, Base, FixedPoint, Rule, aggregate},
    tensors::{Dtype, Tensor, TensorLayout, TensorSpec, write_tensors},
};

const PARAMETERS: usize = 25_000_000;
const UPDATES: usize = 10;
const EXAMPLES: u64 = 731;
const EXAMPLE_SCALE: u64 = 1024;

/// Chunks of a streamed update, in bytes; a usual size of upload chunks.
const CHUNK_SIZE_BYTES: usize = 256 * 1024;

fn recipe(rule: Rule) -> Aggregation {
    let layout = TensorLayout::new(vec![TensorSpec::new("w", [PARAMETERS as u64], Dtype::F32)]).unwrap();
    Aggregation::new(rule, FixedPoint::new(EXAMPLE_SCALE, UPDATES).unwrap(), layout).unwrap()
}

/// A file of values around 1e-3 with random mantissas (an xorshift generator, so that it takes no time).
fn file(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..PARAMETERS).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as i64 as f64 / 2_f64.powi(73)) as f32
    });
    write_tensors(&[Tensor { name: "w".into(), shape: vec![PARAMETERS as u64], values: values.collect() }]).unwrap()
}

/// What any pass over this much memory costs here.
fn memory(group: &mut BenchmarkGroup<'_, WallTime>) {
    let source = vec![1_f32; PARAMETERS];
    let mut target = vec![0_f32; PARAMETERS];
    group.throughput(Throughput::Bytes(4 * PARAMETERS as u64));
    group.bench_function("memory/copy", |b| b.iter(|| black_box(&mut target).copy_from_slice(black_box(&source))));
    group.bench_function("memory/axpy_f32", |b| {
        b.iter(|| {
            for (y, x) in black_box(&mut target).iter_mut().zip(black_box(&source)) {
                *y += 0.1 * x;
            }
        });
    });
}

fn in_memory(group: &mut BenchmarkGroup<'_, WallTime>, base: &[u8], updates: &[(u64, Vec<u8>)]) {
    group.throughput(Throughput::Bytes(4 * (PARAMETERS * updates.len()) as u64));
    let base = Base { weights: base, optimizer_state: None };
    let fed_avg = recipe(Rule::FedAvg { server_learning_rate: 1.0 });
    let fed_yogi = recipe(Rule::FedYogi { server_learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 0.001 });
    for threads in [1, 2] {
        for (name, aggregation) in [("fed_avg", &fed_avg), ("fed_yogi", &fed_yogi)] {
            group.bench_function(format!("in_memory/{name}/{threads}_threads"), |b| {
                b.iter(|| aggregate(aggregation, base, black_box(updates), threads).unwrap());
            });
        }
    }
}

fn streamed(group: &mut BenchmarkGroup<'_, WallTime>, base: &[u8], updates: &[(u64, Vec<u8>)]) {
    group.throughput(Throughput::Bytes(4 * (PARAMETERS * updates.len()) as u64));
    let base = Base { weights: base, optimizer_state: None };
    let fed_avg = recipe(Rule::FedAvg { server_learning_rate: 1.0 });
    group.bench_function("streamed_with_sha256/fed_avg/1_threads", |b| {
        b.iter(|| {
            let mut aggregator = Aggregator::new(fed_avg.clone());
            for (example_count, update) in updates {
                let mut stream = aggregator.begin(*example_count).unwrap();
                for chunk in black_box(update).chunks(CHUNK_SIZE_BYTES) {
                    stream.push(chunk).unwrap();
                }
                aggregator.add(stream.finish().unwrap()).unwrap();
            }
            aggregator.finish(base, 1).unwrap()
        });
    });
}

fn aggregation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregation");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    memory(&mut group);
    let base = file(1);
    let updates: Vec<_> = (0..UPDATES).map(|i| (EXAMPLES, file(2 + i as u64))).collect();
    in_memory(&mut group, &base, &updates);
    streamed(&mut group, &base, &updates);
    group.finish();
}

criterion_group!(benches, aggregation);
criterion_main!(benches);
