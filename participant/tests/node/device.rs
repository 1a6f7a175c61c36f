//! The device that a site computes on: it is the one that `node.toml` names, or none.

use std::fs;

use fedledger_federation::records::Participation;
use fedledger_participant::{
    node::{
        NodeOptions, ParticipantError, ParticipantNode,
        core::{Input, Output, Site, TrainingMethod},
    },
    training::ComputeDevice,
};

use crate::{
    fixture::{Ledger, Running, core, plan, site},
    kit::write_directory,
};

#[test]
fn a_round_is_trained_on_the_device_of_the_site_or_declined() {
    for device in [ComputeDevice::Cpu, ComputeDevice::Cuda] {
        let mut ledger = Ledger::new();
        let plan = ledger.start_plan(plan(), &["alpha", "beta"]);
        let key = ledger.open_round(plan);
        let mut alpha = Running::start(core(Site { device, ..site("alpha") }), &ledger);
        ledger.submit("alpha", &alpha.take());
        alpha.catch_up(&ledger);
        let outputs = alpha.take();
        let methods = outputs.iter().filter_map(|output| match output {
            Output::Train(task) if task.key == key => Some(&task.method),
            _ => None,
        });
        let methods: Vec<&TrainingMethod> = methods.collect();
        assert!(matches!(methods[..], [TrainingMethod::BuiltIn(settings)] if settings.device == device), "{methods:?}");

        let why = "training failed: the CUDA device cannot be used: it is busy";
        alpha.input(Input::TrainingFailed(key, why.to_owned()));
        ledger.submit("alpha", &alpha.take());
        let participation = ledger.state().participation(&key, &"alpha".to_owned());
        let Some(Participation::Declined { reason, .. }) = participation else { panic!("{participation:?}") };
        assert_eq!(reason, why, "it stands on the ledger");
    }
}

#[tokio::test]
async fn a_device_that_this_program_knows_nothing_of_is_no_reason_to_train_on_another() {
    if cfg!(feature = "cuda") {
        println!("skipped: this build knows of CUDA devices");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path(), "alpha", &[("alpha", "127.0.0.1:1".parse().unwrap())]);
    let config = directory.path().join("node.toml");
    let text = fs::read_to_string(&config).unwrap();
    let with_device = |device: &str| {
        let settings = format!("[settings]\ndevice = {device:?}\n[[peers]]");
        fs::write(&config, text.replacen("[[peers]]", &settings, 1)).unwrap();
    };
    with_device("cuda");
    let error = ParticipantNode::start(directory.path(), NodeOptions::default()).await.unwrap_err();
    assert!(matches!(error, ParticipantError::Device(_)), "{error}");
    assert!(error.to_string().contains("set device = \"cpu\" in node.toml"), "{error}");
    with_device("tpu");
    assert!(ParticipantNode::start(directory.path(), NodeOptions::default()).await.is_err());
    with_device("cpu");
    ParticipantNode::start(directory.path(), NodeOptions::default()).await.unwrap().shutdown().await.unwrap();
}
