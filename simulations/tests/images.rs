//! A short simulation of the plans in `examples/plans`, on the data sets that they are for, where these are on the machine.

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test fails it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fedledger_federation::{architecture::Architecture, data_description::DataDescription, plan::Plan};
use fedledger_simulations::images::{ImagesError, Report, Simulation, read_plan};

/// Where Debian's package `dataset-fashion-mnist` puts its files.
const FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// Says where MedMNIST's `pneumoniamnist.npz` lies.
const PNEUMONIA_VARIABLE: &str = "PNEUMONIAMNIST";

fn plans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plans")
}

/// So many rounds of a plan.
fn simulated(plan: &str, data: PathBuf, rounds: u64) -> Report {
    let plan = read_plan(plans().join(plan)).unwrap();
    let simulation = Simulation { plan, data, schema: None, hospitals: 5, rounds: Some(rounds), seed: 1, threads: 2 };
    simulation.run(&|_| (), &mut |_| ()).unwrap()
}

#[test]
fn the_plans_can_be_carried_out() {
    let plans: Vec<PathBuf> = fs::read_dir(plans()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(plans.len() >= 3, "{plans:?}");
    for plan in plans {
        assert!(read_plan(plan.clone()).is_ok_and(|plan| plan.data.is_some()), "{}", plan.display());
    }
}

#[test]
fn a_linear_model_of_five_hospitals_comes_near_the_published_one() {
    let Some(data) = env::var_os(PNEUMONIA_VARIABLE).map(PathBuf::from) else {
        eprintln!("skipped: {PNEUMONIA_VARIABLE} does not say where pneumoniamnist.npz lies (https://medmnist.com)");
        return;
    };
    let report = simulated("pneumonia-logistic.toml", data, 10);
    let last = report.rounds.last().unwrap();
    assert_eq!((report.hospitals.iter().sum::<u64>(), report.test_images, last.round), (4708, 624, 10));
    let area = last.auc.unwrap();
    assert!(area.value > 0.9 && area.low.unwrap() < area.value && area.value < area.high.unwrap(), "{report}");
    assert!(last.accuracy.value > 0.8, "{report}");
}

#[test]
fn a_convolutional_network_of_five_hospitals_learns_clothes() {
    if !Path::new(FASHION).is_dir() {
        eprintln!("skipped: {FASHION} is not there (Debian's package dataset-fashion-mnist)");
        return;
    }
    let report = simulated("fashion-convolutional.toml", PathBuf::from(FASHION), 1);
    let [initial, first] = report.rounds.as_slice() else { unreachable!("one round was asked for") };
    assert_eq!((report.hospitals.as_slice(), report.test_images), (&[12_000; 5][..], 10_000));
    assert!(initial.accuracy.value < 0.3 && first.accuracy.value > 0.7, "{report}");
    assert!(first.auc.unwrap().value > 0.9, "{report}");
}

fn images(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_images")).args(arguments).output().unwrap()
}

#[test]
fn wrong_arguments_are_told_with_what_is_right() {
    for (arguments, said) in [
        (&[][..], "--plan FILE with --data PATH is needed"),
        (&["--plan"], "--plan needs a value"),
        (&["--plan", "a", "--data", "b", "--rounds", "many"], "--rounds needs a whole number"),
        (&["--fast"], "unknown option --fast"),
    ] {
        let output = images(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said) && stderr.contains("usage: images"), "{stderr}");
    }
    assert!(String::from_utf8(images(&["--help"]).stdout).unwrap().contains("--hospitals N"));
    let output = images(&["--plan", "none.toml", "--data", "none.npz"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("none.toml cannot be read"));
}

#[test]
fn small_files_are_simulated_the_same_way_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let idx = |shape: &[u32], bytes: Vec<u8>| {
        let mut file = vec![0, 0, 8, shape.len() as u8];
        file.extend(shape.iter().flat_map(|side| side.to_be_bytes()));
        file.extend(bytes);
        file
    };
    // The upper half is bright, or the lower one.
    let image =
        |row: usize| (0..16).map(move |pixel| if (pixel < 8) == row.is_multiple_of(2) { 200 } else { 40 + row as u8 });
    let write = |name: &str, file: Vec<u8>| fs::write(folder.path().join(name), file).unwrap();
    for (images, labels, count) in [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 40),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10),
    ] {
        write(images, idx(&[count, 4, 4], (0..count as usize).flat_map(image).collect()));
        write(labels, idx(&[count], (0..count).map(|row| (row % 2) as u8).collect()));
    }
    let mut plan = read_plan(plans().join("pneumonia-logistic.toml")).unwrap();
    let DataDescription::Images(described) = plan.data.as_mut().unwrap() else {
        unreachable!("the plan is for images")
    };
    (described.height, described.width) = (4, 4);
    plan.architecture = Architecture::logistic_regression(16);
    let simulation = |threads, hospitals| Simulation {
        plan: plan.clone(),
        data: folder.path().to_owned(),
        schema: None,
        hospitals,
        rounds: Some(3),
        seed: 1,
        threads,
    };
    let run = |threads, hospitals| simulation(threads, hospitals).run(&|_| (), &mut |_| ());
    let report = run(1, 3).unwrap();
    assert_eq!(report.hospitals, [14, 13, 13]);
    assert_eq!(report.rounds.last().unwrap().accuracy.value, 1.0, "{report}");
    assert_eq!(run(3, 3).unwrap().weights, report.weights, "threads change nothing");
    assert_ne!(run(1, 2).unwrap().weights, report.weights);
    assert!(matches!(run(1, 41), Err(ImagesError::Hospitals { found: 41, images: 40 })));
    fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
    assert!(matches!(run(1, 2), Err(ImagesError::NoTestImages)));
    let without = Simulation { plan: Plan { data: None, ..plan.clone() }, ..simulation(1, 2) };
    assert!(matches!(without.run(&|_| (), &mut |_| ()), Err(ImagesError::NoImages)));
}
