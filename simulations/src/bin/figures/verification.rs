//! Offline verification of a bundle, in a process of its own whose memory is measured.

use std::{env, fs, hint::black_box, path::Path, process::Command, thread::available_parallelism, time::Instant};

use fedledger_federation::{
    history::BundleSource,
    verify::{Options, verify},
};
use fedledger_ledger::SecretKey;
use serde::{Deserialize, Serialize};

use crate::{consortium::Consortium, figure::Figure, memory::own_peak_kib};

/// The option with which this program is started anew.
pub const CHILD_OPTION: &str = "--verify-bundle";

/// Signatures that are verified to know how fast this machine is now.
const SIGNATURES: u32 = 4_000;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
struct Verified {
    entries: u64,
    seconds: f64,
    /// The most memory that the process had; nothing where the system does not say.
    peak_kib: Option<u64>,
}

pub fn measure(history: &Consortium) -> Vec<Figure> {
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("history.flb");
    fs::write(&bundle, history.bundle()).unwrap();
    let bound_s = signature_s() * history.log.size() as f64 / threads() as f64;
    let child = Command::new(env::current_exe().unwrap()).arg(CHILD_OPTION).arg(&bundle).output().unwrap();
    assert!(child.status.success(), "verification failed: {}", String::from_utf8_lossy(&child.stderr));
    let verified: Verified = serde_json::from_slice(&child.stdout).unwrap();
    assert_eq!(verified.entries, history.log.size());
    let (entries, threads) = (verified.entries, threads());
    let what = format!("verify {entries} entries, {threads} threads (signatures alone {bound_s:.1} s)");
    // The aim: four fifths of what the signatures alone allow on this machine now.
    let mut figures = vec![Figure::lower("verify", what, verified.seconds, "s").target(6.0, bound_s / 0.8)];
    if let Some(peak_kib) = verified.peak_kib {
        let peak = Figure::lower("verify", "the same, peak memory of the process", peak_kib as f64 / 1024.0, "MiB");
        figures.push(Figure { must: Some(256.0), ..peak });
    }
    figures
}

/// Verifies the bundle as an auditor does, versions computed anew included, and says how it went.
pub fn run_child(bundle: &Path) {
    let started = Instant::now();
    let bundle = bundle.to_owned();
    let source = BundleSource::new(move || fs::File::open(&bundle)).unwrap();
    let report = verify(&source, &Options { threads: threads(), ..Options::default() }).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(report.ok, "{:?}", report.problems);
    let verified = Verified { entries: report.entries, seconds, peak_kib: own_peak_kib() };
    println!("{}", serde_json::json!(verified));
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Seconds for the strict verification of one signature on one core.
fn signature_s() -> f64 {
    let (key, message) = (SecretKey::from_seed([7; 32]), [7; 400]);
    let (public, signature) = (key.public(), key.sign(b"figures", &message));
    let started = Instant::now();
    for _ in 0..SIGNATURES {
        assert!(public.verify(b"figures", black_box(&message), &signature).is_ok());
    }
    started.elapsed().as_secs_f64() / f64::from(SIGNATURES)
}
