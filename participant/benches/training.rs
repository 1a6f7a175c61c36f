//! Optimiser steps per second of local training, data loading included.
//!
//! `cargo bench -p fedledger-participant --bench training`; the figures are per step, so elements per second are steps per
//! second.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run must stop")]

#[path = "shared/cases.rs"]
mod cases;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fedledger_participant::training::train;

fn steps_per_second(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("training");
    for case in cases::cases() {
        let (settings, data, base) = (case.settings(case.steps), case.dataset(), case.base());
        group.throughput(Throughput::Elements(case.steps));
        group.bench_function(case.name, |bencher| bencher.iter(|| train(&settings, &data, &base).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, steps_per_second);
criterion_main!(benches);
