//! How much memory a training has taken, in a process of its own: the peak of a process never falls by itself.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use fedledger_participant::memory::{PeakMeasurement, peak_bytes};

const MIB: u64 = 1024 * 1024;

/// Has so many bytes for a while.
fn take(bytes: u64) {
    let taken: Vec<u64> = (0..bytes / 8).collect();
    assert_eq!(std::hint::black_box(&taken).len() as u64, bytes / 8);
}

#[test]
fn the_peak_falls_where_a_measurement_begins_and_only_there() {
    let Some(before) = peak_bytes() else {
        println!("skipped: this system does not tell how much memory a process has");
        return;
    };
    take(200 * MIB);
    let large = peak_bytes().unwrap();
    assert!(large >= before + 150 * MIB);
    take(20 * MIB);
    assert!(peak_bytes().unwrap() >= large);
    let measurement = PeakMeasurement::begin();
    take(20 * MIB);
    let small = measurement.peak_bytes().unwrap();
    assert!(small < large - 100 * MIB, "what takes little was told the {large} bytes of what took much: {small}");
    take(100 * MIB);
    let peak = peak_bytes().unwrap();
    drop(PeakMeasurement::begin());
    assert!(measurement.peak_bytes().unwrap() >= peak, "a measurement was spoilt by another one that began later");
}
