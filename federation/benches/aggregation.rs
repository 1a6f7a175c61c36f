//! Throughput of aggregation, in bytes of `F32` updates per second, beside what the memory of the same machine gives.
//!
//! `cargo bench -p fedledger-federation --bench aggregation`; it needs about 3 GiB of memory.

#![allow(missing_docs, reason = "criterion_group! generates an undocumented function")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first error")]

use std::{
    hint::black_box,
    io::{self, Cursor},
    time::Duration,
};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use fedledger_federation::{
    aggregation::{
        Aggregation, Base, BaseInputs, Destination, FixedPoint, Rule, RunningSum, Sums, Term, aggregate,
        aggregate_files,
    },
    command::FileRef,
    tensors::{Dtype, Input, TensorLayout, TensorSpec, TensorWriter},
};
use fedledger_ledger::Digest;

const PARAMETERS: usize = 25_000_000;
const UPDATES: usize = 10;

/// The larger cohort, in which every file is used several times; together they are far larger than any cache.
const UPDATES_MANY: usize = 50;
const EXAMPLES: u64 = 731;
const EXAMPLE_SCALE: u64 = 1024;

/// Chunks of a streamed update, in bytes; a usual size of upload chunks.
const CHUNK_SIZE_BYTES: usize = 256 * 1024;

fn layout(dtype: Dtype) -> TensorLayout {
    TensorLayout::new(vec![TensorSpec::new("w", [PARAMETERS as u64], dtype)]).unwrap()
}

fn recipe(rule: Rule, dtype: Dtype) -> Aggregation {
    Aggregation::new(rule, FixedPoint::new(EXAMPLE_SCALE, UPDATES_MANY).unwrap(), layout(dtype)).unwrap()
}

/// A file of values around 1e-3 with random mantissas (an xorshift generator, so that it takes no time).
fn file(seed: u64, dtype: Dtype) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..PARAMETERS).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as i64 as f64 / 2_f64.powi(73)) as f32
    });
    let mut file = Vec::new();
    let mut writer = TensorWriter::new(layout(dtype), &mut file).unwrap();
    writer.push(&values.collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    file
}

/// A file as a reader, with a digest that was computed before.
fn input(file: &[u8], digest: Digest) -> Input<&[u8]> {
    Input { file: FileRef { digest, size: file.len() as u64 }, reader: file }
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
    let fed_avg = recipe(Rule::FedAvg { server_learning_rate: 1.0 }, Dtype::F32);
    let fed_yogi =
        recipe(Rule::FedYogi { server_learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 0.001 }, Dtype::F32);
    for threads in [1, 2] {
        for (name, aggregation) in [("fed_avg", &fed_avg), ("fed_yogi", &fed_yogi)] {
            group.bench_function(format!("in_memory/{name}/{threads}_threads"), |b| {
                b.iter(|| aggregate(aggregation, base, black_box(updates), threads).unwrap());
            });
        }
    }
    let many: Vec<(u64, &[u8])> =
        updates.iter().cycle().take(UPDATES_MANY).map(|(count, update)| (*count, update.as_slice())).collect();
    group.throughput(Throughput::Bytes(4 * (PARAMETERS * many.len()) as u64));
    group.bench_function("in_memory_50/fed_avg/1_threads", |b| {
        b.iter(|| aggregate(&fed_avg, base, black_box(&many), 1).unwrap());
    });
}

/// Hashing, decoding, checking and adding in one pass, and then the new weights, read and written block by block and hashed
/// both ways.
fn streamed(group: &mut BenchmarkGroup<'_, WallTime>, base: &[u8], dtype: Dtype, updates: &[(u64, Vec<u8>)]) {
    group.throughput(Throughput::Bytes((dtype.size_bytes() * PARAMETERS * updates.len()) as u64));
    let fed_avg = recipe(Rule::FedAvg { server_learning_rate: 1.0 }, dtype);
    let terms: Vec<Term> = updates
        .iter()
        .enumerate()
        .map(|(index, (example_count, update))| Term {
            contributor: index.to_string(),
            digest: Digest::of(update),
            example_count: *example_count,
        })
        .collect();
    let base_digest = Digest::of(base);
    let finish = |sums: Sums<'_, &[u8]>, threads: usize| {
        let inputs = BaseInputs { weights: input(base, base_digest), optimizer_state: Vec::new() };
        let destination = Destination { weights: io::sink(), optimizer_state: None::<Cursor<Vec<u8>>> };
        aggregate_files(&fed_avg, inputs, sums, destination, threads).unwrap()
    };
    let kind = if dtype == Dtype::F32 { String::new() } else { format!("_{dtype}").to_lowercase() };
    group.bench_function(format!("streamed_with_sha256{kind}/fed_avg/1_threads"), |b| {
        b.iter(|| {
            let sum = RunningSum::new(fed_avg.clone()).unwrap();
            for ((_, update), term) in updates.iter().zip(&terms) {
                let mut addition = sum.begin(term.clone()).unwrap().unwrap();
                black_box(update).chunks(CHUNK_SIZE_BYTES).for_each(|chunk| addition.push(chunk).unwrap());
                addition.finish().unwrap();
            }
            finish(Sums::Running(&sum), 1)
        });
    });
    for threads in [1, 2] {
        group.bench_function(format!("from_files_with_sha256{kind}/fed_avg/{threads}_threads"), |b| {
            b.iter(|| {
                let files = updates.iter().zip(&terms).map(|((n, update), term)| (*n, input(update, term.digest)));
                finish(Sums::Files(files.collect()), threads)
            });
        });
    }
}

fn aggregation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregation");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    memory(&mut group);
    let base = file(1, Dtype::F32);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let updates: Vec<_> = (0..UPDATES).map(|i| (EXAMPLES, file(2 + i as u64, dtype))).collect();
        if dtype == Dtype::F32 {
            in_memory(&mut group, &base, &updates);
        }
        streamed(&mut group, &base, dtype, &updates);
    }
    group.finish();
}

criterion_group!(benches, aggregation);
criterion_main!(benches);
