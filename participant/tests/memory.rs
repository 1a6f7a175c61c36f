//! The estimate of a training's memory is not below what training and evaluation take, and not far above it. Every case has a
//! process of its own, because a process has one peak.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
};

use fedledger_federation::{
    architecture::Architecture, command::FileRef, data_description::DataDescription, tensors::TensorWriter,
};
use fedledger_participant::{
    evaluation::evaluate_from,
    memory::{MemoryEstimate, Records, estimate, peak_bytes},
    table::{Dataset, SiteData},
    training::{ComputeDevice, Optimizer, Resumption, TrainingSettings, WeightsFile, train_to_file},
};

/// Says in the process of a case that it is to be measured there.
const IN_OWN_PROCESS: &str = "FEDLEDGER_MEMORY_CASE";

/// What the estimate may be too high by, beside this factor in percent: its constant part.
const FIXED_BYTES: u64 = 16 * 1024 * 1024;
const FACTOR_PERCENT: u64 = 150;

/// Memory of this process now, in bytes.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Runs a case, the test of this name, in a process of its own, and holds what it takes against what it says.
fn measure(name: &str, case: impl FnOnce() -> MemoryEstimate) {
    if env::var_os(IN_OWN_PROCESS).is_none() {
        let arguments = [name, "--exact", "--nocapture"];
        let output = Command::new(env::current_exe().unwrap()).args(arguments).env(IN_OWN_PROCESS, name).output();
        let output = output.unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let Some(before) = resident_bytes() else {
        println!("skipped: this system does not tell how much memory a process has");
        return;
    };
    let estimate = case();
    let taken = peak_bytes().unwrap().saturating_sub(before);
    let told = format!("{name}: {taken} bytes taken, {estimate:?}");
    println!("{told}");
    assert!(taken <= estimate.total_bytes, "too low: {told}");
    assert!(estimate.total_bytes <= taken * FACTOR_PERCENT / 100 + FIXED_BYTES, "too high: {told}");
}

fn settings(architecture: &Architecture, optimizer: Optimizer, batch_size: u32) -> TrainingSettings {
    TrainingSettings {
        architecture: architecture.clone(),
        optimizer,
        steps: 2,
        batch_size,
        seed: 1,
        round: 1,
        member: "va".to_owned(),
        device: ComputeDevice::Cpu,
    }
}

/// Writes weights of a model piece by piece, so that nothing of them stays in memory.
fn weights(architecture: &Architecture, folder: &Path) -> WeightsFile {
    let (path, layout) = (folder.join("weights"), architecture.layout().unwrap());
    let mut writer = TensorWriter::new(layout.clone(), BufWriter::new(File::create(&path).unwrap())).unwrap();
    let piece: Vec<f32> = (0..1001).map(|index| (index % 7 - 3) as f32 / 1000.0).collect();
    for (_, shape) in architecture.parameters() {
        let count = usize::try_from(shape.iter().product::<u64>()).unwrap();
        for start in (0..count).step_by(piece.len()) {
            writer.push(&piece[..piece.len().min(count - start)]).unwrap();
        }
    }
    let file: FileRef = writer.finish().unwrap();
    WeightsFile::new(&path, file, layout)
}

/// Trains, and evaluates if there are test rows.
fn train(settings: &TrainingSettings, data: &Dataset, test: &Dataset) {
    let (folder, architecture) = (tempfile::tempdir().unwrap(), &settings.architecture);
    let base = weights(architecture, folder.path());
    let resumption = Resumption { resume_from: None, every_steps: 0, report: &mut |_| Ok(()) };
    let layout = architecture.layout().unwrap();
    train_to_file(settings, data, &base, resumption, layout, std::io::sink()).unwrap();
    if test.rows() > 0 {
        evaluate_from(architecture, &base, test).unwrap();
    }
}

fn table(rows: usize, columns: usize, classes: usize) -> Dataset {
    let features = (0..rows * columns).map(|index| (index % 97) as f32 / 97.0);
    Dataset::new(features.collect(), (0..rows).map(|row| (row % classes) as f32).collect(), columns).unwrap()
}

/// Trains on a table of so many rows, and evaluates on another one.
fn of_table(architecture: &Architecture, optimizer: Optimizer, train_rows: usize, test_rows: usize) -> MemoryEstimate {
    let (columns, classes) = (architecture.inputs().unwrap(), architecture.classes() as usize);
    let settings = settings(architecture, optimizer, 256);
    let [data, test] = [train_rows, test_rows].map(|rows| table(rows, columns as usize, classes));
    // A table of a site has the numbers of its records as well.
    let numbers = [train_rows, test_rows].map(|rows| (0..rows as u64).collect::<Vec<_>>());
    train(&settings, &data, &test);
    std::hint::black_box(&numbers);
    let [train_rows, test_rows] = [train_rows, test_rows].map(|rows| rows as u64);
    estimate(&settings, &Records { train_rows, test_rows, columns: columns.into(), value_bytes: 4 })
}

/// Reads so many images, trains on them, and evaluates on a few others.
fn of_images(architecture: &Architecture, optimizer: Optimizer, batch_size: u32, rows: u32) -> MemoryEstimate {
    let (site, image) = (tempfile::tempdir().unwrap(), architecture.image().unwrap());
    let (channels, height, width, classes) = (image.channels, image.height, image.width, architecture.classes());
    for (name, count) in [("train", rows), ("t10k", rows / 10)] {
        let shape = [count, height, width, channels];
        let images = (0..shape.iter().product::<u32>()).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
        write_idx(&site.path().join(format!("{name}-images-idx3-ubyte")), &shape, images);
        let labels = (0..count).map(|row| (row % classes) as u8);
        write_idx(&site.path().join(format!("{name}-labels-idx1-ubyte")), &[count], labels);
    }
    fs::write(site.path().join("schema.toml"), "").unwrap();
    let size = format!("height = {height}\nwidth = {width}\nchannels = {channels}\nclasses = {classes}");
    let description = format!("kind = \"images\"\nmean = \"0.5\"\ndeviation = \"0.5\"\n{size}");
    let description: DataDescription = toml::from_str(&description).unwrap();
    let table =
        SiteData::open(site.path(), &site.path().join("schema.toml")).unwrap().read(Some(&description)).unwrap();
    let settings = settings(architecture, optimizer, batch_size);
    train(&settings, &table.train, &table.test);
    estimate(&settings, &Records::from(&table))
}

fn write_idx(path: &Path, shape: &[u32], bytes: impl Iterator<Item = u8>) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&[0, 0, 8, shape.len() as u8]).unwrap();
    shape.iter().for_each(|size| file.write_all(&size.to_be_bytes()).unwrap());
    bytes.for_each(|byte| file.write_all(&[byte]).unwrap());
    file.flush().unwrap();
}

const SGD: Optimizer = Optimizer::sgd(0.001);

#[test]
fn a_small_model_on_a_large_table() {
    measure("a_small_model_on_a_large_table", || {
        of_table(&Architecture::multilayer_perceptron(200, &[64]), SGD, 100_000, 20_000)
    });
}

#[test]
fn a_wide_perceptron() {
    measure("a_wide_perceptron", || {
        of_table(&Architecture::multilayer_perceptron(200, &[4096, 2048]), SGD, 20_000, 100)
    });
}

#[test]
fn a_wide_perceptron_with_moments() {
    measure("a_wide_perceptron_with_moments", || {
        let adam = Optimizer::adam(0.001);
        of_table(&Architecture::multilayer_perceptron(200, &[4096, 2048]), adam, 20_000, 100)
    });
}

#[test]
fn outputs_for_many_classes() {
    measure("outputs_for_many_classes", || {
        of_table(&Architecture::LogisticRegression { features: 10, classes: Some(1000) }, SGD, 1000, 30_000)
    });
}

#[test]
fn scores_of_many_rows() {
    measure("scores_of_many_rows", || of_table(&Architecture::logistic_regression(1), SGD, 1000, 2_000_000));
}

fn convolutional(side: u32, hidden: &[u32]) -> Architecture {
    let (channels, convolutions, classes) = (1, vec![16, 32], Some(10));
    let (height, width, hidden) = (side, side, hidden.to_vec());
    Architecture::Convolutional { channels, height, width, convolutions, kernel: 5, hidden, classes }
}

fn residual(channels: u32, [height, width]: [u32; 2], widths: &[u32]) -> Architecture {
    Architecture::Residual { channels, height, width, widths: widths.to_vec(), blocks: 2, classes: Some(3) }
}

#[test]
fn a_convolutional_network_on_many_small_images() {
    measure("a_convolutional_network_on_many_small_images", || of_images(&convolutional(28, &[128]), SGD, 32, 60_000));
}

#[test]
fn a_convolutional_network_with_wide_layers_behind_it() {
    measure("a_convolutional_network_with_wide_layers_behind_it", || {
        of_images(&convolutional(64, &[4096]), Optimizer::adamw(0.001, 0.01), 64, 200)
    });
}

#[test]
fn a_residual_network_on_colour_images() {
    measure("a_residual_network_on_colour_images", || of_images(&residual(3, [64, 48], &[16, 32, 64]), SGD, 16, 4000));
}

#[test]
fn a_residual_network_on_large_images() {
    measure("a_residual_network_on_large_images", || of_images(&residual(1, [512, 400], &[8, 16]), SGD, 4, 20));
}

#[test]
fn a_residual_network_with_many_filters() {
    measure("a_residual_network_with_many_filters", || of_images(&residual(3, [16, 16], &[256, 512]), SGD, 4, 20));
}
