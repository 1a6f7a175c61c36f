//! Receipts of a log of 10^9 entries. What is read from a disk is not measured: the nodes of the tree are computed.

use std::{hint::black_box, time::Instant};

use crate::{billion::BillionLog, figure::Figure, load::quantile};

/// Replicas of the consortium, how many must have co-signed, and how many have: the largest receipt of seven.
const REPLICAS: usize = 7;
const NEEDED: usize = 5;
const COSIGNED: usize = 7;

/// Measurements, of which the median counts.
const MEASUREMENTS: usize = 300;

pub fn measure() -> Vec<Figure> {
    let log = BillionLog::new(REPLICAS, NEEDED, COSIGNED);
    let receipt = log.receipt();
    assert!(log.verify(&receipt), "the receipt does not verify");
    let serve_ms = median_ms(|| {
        black_box(log.receipt());
    });
    let verify_ms = median_ms(|| assert!(log.verify(black_box(&receipt))));
    let what = |what| format!("receipt at 10^9 entries, {COSIGNED} co-signatures, {what}");
    vec![
        Figure::lower("receipt", what("size"), receipt.len() as f64, "bytes").target(4_096.0, 3_072.0),
        Figure::lower("receipt", what("serve"), serve_ms, "ms").target(5.0, 1.0),
        Figure::lower("receipt", what("verify"), verify_ms, "ms").target(5.0, 2.0),
    ]
}

fn median_ms(mut what: impl FnMut()) -> f64 {
    let mut times: Vec<_> = (0..MEASUREMENTS)
        .map(|_| {
            let started = Instant::now();
            what();
            started.elapsed()
        })
        .collect();
    quantile(&mut times, 0.5).as_secs_f64() * 1e3
}
