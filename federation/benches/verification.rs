//! Offline verification of a long history: entries per second, every signature checked and every version recomputed.
//!
//! `cargo bench -p fedledger-federation --bench verification`.

#![allow(missing_docs, reason = "criterion_group! generates an undocumented function")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark may stop at the first error")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedledger_federation::{
    plan::Plan,
    verify::{Options, verify},
};

#[path = "../tests/history/consortium.rs"]
#[expect(dead_code, reason = "the tests of histories use the rest of it")]
mod consortium;

/// Rounds of the history; each makes 18 entries, a seal among them.
const ROUNDS: u64 = 600;

fn verification(criterion: &mut Criterion) {
    let plan = Plan { rounds: ROUNDS, ..consortium::plan("heart") };
    let (mut consortium, plan) = consortium::Consortium::ready_for(4, plan);
    for _ in 0..ROUNDS {
        let version = consortium.run_round(&plan);
        consortium.evaluate(&version);
        consortium.seal();
    }
    consortium.sign_checkpoints(4);
    let bundle = consortium.bundle();
    let mut group = criterion.benchmark_group("verification");
    group.sample_size(10).throughput(Throughput::Elements(consortium.log.size()));
    for (threads, recompute) in [(1, true), (2, true), (2, false)] {
        let options = Options { trust: Some(consortium.genesis.clone()), recompute, threads, ..Options::default() };
        let what = if recompute { "with_versions" } else { "entries_only" };
        group.bench_function(BenchmarkId::new(what, threads), |bencher| {
            let source = consortium::open_bundle(&bundle);
            bencher.iter(|| {
                let report = verify(&source, black_box(&options)).unwrap();
                assert!(report.ok, "{:?}", report.problems);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, verification);
criterion_main!(benches);
