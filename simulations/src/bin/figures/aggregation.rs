//! A version of the largest model, made from files on disk, in a process of its own whose memory is measured.

use std::{
    env,
    fs::{self, File},
    io::{Cursor, Read},
    path::Path,
    process::Command,
    thread::available_parallelism,
    time::Instant,
};

use fedledger_federation::{
    aggregation::{Aggregation, BaseInputs, Destination, FixedPoint, Rule, RunningSum, Sums, Term, aggregate_files},
    command::FileRef,
    tensors::{Dtype, Input, TensorLayout, TensorSpec, TensorWriter},
};
use serde::{Deserialize, Serialize};

use crate::{figure::Figure, memory::own_peak_kib};

/// The option with which this program is started anew.
pub const CHILD_OPTION: &str = "--aggregate";

/// 1 GiB of 32-bit floats.
const PARAMETERS: u64 = 1 << 28;

const PARTICIPANTS: u64 = 4;

const EXAMPLES: u64 = 731;

/// Values that are made up at a time.
const PATTERN_VALUES: usize = 1 << 20;

/// Bytes that arrive at a time.
const CHUNK_SIZE_BYTES: usize = 256 * 1024;

/// Which way the sum is formed.
const WAYS: [(&str, &str); 2] = [("arriving", "while updates arrive"), ("files", "from the updates' files")];

/// What the parent tells the child: base and updates.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    arriving: bool,
    base: FileRef,
    updates: Vec<FileRef>,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    version: FileRef,
    /// Seconds of checking and adding, for all updates together.
    arriving_s: f64,
    /// Seconds from the last update to the new version, written and hashed.
    closing_s: f64,
    /// The most memory that the process had; nothing where the system does not say.
    peak_kib: Option<u64>,
}

pub fn measure() -> Vec<Figure> {
    let directory = tempfile::tempdir().unwrap();
    let base = write(directory.path(), 0);
    let updates: Vec<FileRef> = (1..=PARTICIPANTS).map(|seed| write(directory.path(), seed)).collect();
    let mut figures = Vec::new();
    let mut versions = Vec::new();
    for (way, words) in WAYS {
        let task = Task { arriving: way == "arriving", base, updates: updates.clone() };
        let path = directory.path().join("task");
        fs::write(&path, serde_json::to_vec(&task).unwrap()).unwrap();
        let child = Command::new(env::current_exe().unwrap()).arg(CHILD_OPTION).arg(&path).output().unwrap();
        assert!(child.status.success(), "aggregation failed: {}", String::from_utf8_lossy(&child.stderr));
        let made: Made = serde_json::from_slice(&child.stdout).unwrap();
        versions.push(made.version);
        if task.arriving {
            let what = format!("1 GiB x {PARTICIPANTS}, sum formed {words}: checking and adding, one thread");
            let bytes = updates.iter().map(|file| file.size).sum::<u64>();
            let speed = bytes as f64 / made.arriving_s / 1e9;
            figures.push(Figure::higher("aggregate", what, speed, "GB/s").target(1.2, 1.6));
        }
        let what = format!("1 GiB x {PARTICIPANTS}, sum formed {words}: from the last update to the version");
        figures.push(Figure::lower("aggregate", what, made.closing_s, "s"));
        if let Some(peak_kib) = made.peak_kib {
            let what = format!("1 GiB x {PARTICIPANTS}, sum formed {words}: peak memory of the process");
            let peak = Figure::lower("aggregate", what, peak_kib as f64 / 1024.0, "MiB");
            figures.push(peak.target(3.2 * 1024.0, 2.2 * 1024.0));
        }
    }
    assert_eq!(versions.first(), versions.last(), "both ways lead to the same bytes");
    figures
}

/// Makes the version that a task file asks for, and says how it went.
pub fn run_child(path: &Path) {
    let directory = path.parent().unwrap();
    let task: Task = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let rule = Rule::FedAvg { server_learning_rate: 1.0 };
    let fixed_point = FixedPoint::new(EXAMPLES.next_power_of_two(), task.updates.len()).unwrap();
    let aggregation = Aggregation::new(rule, fixed_point, layout()).unwrap();
    let input = |file: FileRef| Input { file, reader: open(directory, &file) };

    let started = Instant::now();
    let sum = task.arriving.then(|| RunningSum::new(aggregation.clone()).unwrap());
    if let Some(sum) = &sum {
        for (site, file) in task.updates.iter().enumerate() {
            add(sum, site, file, open(directory, file));
        }
    }
    let arriving_s = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let sums = match &sum {
        Some(sum) => Sums::Running(sum),
        None => Sums::Files(task.updates.iter().map(|file| (EXAMPLES, input(*file))).collect()),
    };
    let weights = File::create(directory.join("version")).unwrap();
    let destination = Destination { weights, optimizer_state: None::<Cursor<Vec<u8>>> };
    let base = BaseInputs { weights: input(task.base), optimizer_state: Vec::new() };
    let threads = available_parallelism().map_or(1, usize::from);
    let outputs = aggregate_files(&aggregation, base, sums, destination, threads).unwrap();
    let closing_s = started.elapsed().as_secs_f64();
    let made = Made { version: outputs.weights, arriving_s, closing_s, peak_kib: own_peak_kib() };
    println!("{}", serde_json::json!(made));
}

fn add(sum: &RunningSum, site: usize, file: &FileRef, mut update: File) {
    let term = Term { contributor: site.to_string(), digest: file.digest, example_count: EXAMPLES };
    let mut addition = sum.begin(term).unwrap().unwrap();
    let mut chunk = vec![0; CHUNK_SIZE_BYTES];
    loop {
        let count = update.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        addition.push(&chunk[..count]).unwrap();
    }
    addition.finish().unwrap();
}

fn layout() -> TensorLayout {
    TensorLayout::new(vec![TensorSpec::new("w", [PARAMETERS], Dtype::F32)]).unwrap()
}

/// A file of small values, others for each seed.
fn write(directory: &Path, seed: u64) -> FileRef {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let pattern: Vec<f32> = (0..PATTERN_VALUES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state as i64 as f64 / 2_f64.powi(73)) as f32
        })
        .collect();
    let path = directory.join("written");
    let mut writer = TensorWriter::new(layout(), File::create(&path).unwrap()).unwrap();
    for _ in 0..PARAMETERS / PATTERN_VALUES as u64 {
        writer.push(&pattern).unwrap();
    }
    let file = writer.finish().unwrap();
    fs::rename(path, directory.join(file.digest.to_string())).unwrap();
    file
}

fn open(directory: &Path, file: &FileRef) -> File {
    File::open(directory.join(file.digest.to_string())).unwrap()
}
