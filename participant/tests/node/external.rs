//! Rounds that a program of the site trains: what the core decides of them, and the whole node with little shell scripts.

use std::{fs, path::Path};

use fedledger_federation::{
    Federation,
    architecture::{Architecture, CustomTensor},
    command::{Contribute, RoundKey, WithdrawConsent},
    plan::{ExternalTraining, Plan},
    records::Participation,
    tensors::{self, Tensor},
};
use fedledger_ledger::Digest;
use fedledger_participant::node::{
    NodeEvent,
    core::{DataSummary, Input, Output, Site, SiteTrainer, TrainingMethod},
};
use tempfile::TempDir;

use crate::{
    fixture::{Ledger, Purpose, Running, core, data, key, plan, site, trained},
    live::{directory, lone_plan, start},
    replica::Replica,
};

/// A plan of any model for the trainer that the sites call `script`.
pub fn external(plan: Plan, program: Option<Digest>) -> Plan {
    let tensor = |name: &str, shape: &[u64], constant: &str| CustomTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        bound: None,
        constant: Some(constant.parse().unwrap()),
    };
    let training = ExternalTraining {
        trainer: "script".to_owned(),
        program,
        configuration: r#"{"epochs": 2}"#.to_owned(),
        time_max_ms: None,
    };
    Plan {
        architecture: Architecture::Custom { tensors: vec![tensor("a", &[2], "1"), tensor("b", &[], "0")] },
        training: None,
        external_training: Some(training),
        ..plan
    }
}

/// A site with a trainer of this digest.
pub fn equipped(program: Digest, evaluates: bool) -> Site {
    let trainer = SiteTrainer { program, evaluates, own_data: None };
    Site { trainers: [("script".to_owned(), trainer)].into(), ..site("alpha") }
}

/// Why a core does not take part in the first round of a plan; none if it trains.
pub fn objection(plan: Plan, site: Site) -> Option<String> {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(plan, &["alpha", "beta"]);
    let key_of = ledger.open_round(id);
    ledger.join("alpha", key_of);
    let running = Running::start(core(site), &ledger);
    running.outputs.iter().find_map(|output| match output {
        Output::Submit(_, command) => match &**command {
            fedledger_federation::Command::DeclineRound(declined) => Some(declined.reason.clone()),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn only_programs_that_the_site_has_named_are_run() {
    let (mine, other) = (Digest::of(b"train.py"), Digest::of(b"other.py"));
    assert_eq!(objection(external(plan(), None), equipped(mine, false)), None);
    assert_eq!(objection(external(plan(), Some(mine)), equipped(mine, false)), None);
    let reason = objection(external(plan(), None), site("alpha")).unwrap();
    assert!(reason.contains("\"script\"") && reason.contains("node.toml"), "{reason}");
    let reason = objection(external(plan(), Some(other)), equipped(mine, false)).unwrap();
    assert!(reason.contains(&other.to_string()) && reason.contains(&mine.to_string()), "{reason}");
}

#[test]
fn the_contribution_names_the_program() {
    let mine = Digest::of(b"train.py");
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(external(plan(), None), &["alpha", "beta"]);
    let key_of = ledger.open_round(id);
    ledger.join("alpha", key_of);
    let mut alpha = Running::start(core(equipped(mine, false)), &ledger);
    let task = alpha.outputs.iter().find_map(|output| match output {
        Output::Train(task) => Some(task.clone()),
        _ => None,
    });
    let task = task.unwrap();
    let TrainingMethod::External(settings) = &task.method else { panic!("{task:?}") };
    assert_eq!((settings.training.configuration.as_str(), settings.examples_max), (r#"{"epochs": 2}"#, 1024));
    assert!(!alpha.outputs.iter().any(|output| matches!(output, Output::Evaluate(_))), "nobody here can");

    let mut update = trained(0.5);
    update.trainer = Some(mine);
    update.file.size = external(plan(), None).update_size_bytes();
    update.metrics = [("loss".to_owned(), 250_000)].into();
    alpha.input(Input::Trained(key_of, update));
    let told = NodeEvent::Trained { key: key_of, loss_millionths: Some(250_000) };
    assert!(alpha.take().contains(&Output::Report(told)));
    alpha.input(Input::Uploaded(key_of));
    assert_eq!(ledger.submit("alpha", &alpha.take()), ["accepted"]);
    let contribution = contribution_of(ledger.state(), &key_of).unwrap();
    assert_eq!((contribution.trainer, &contribution.metrics["loss"]), (Some(mine), &250_000));
}

#[test]
fn a_trainer_that_can_evaluates_what_nobody_else_understands() {
    let mut ledger = Ledger::new();
    ledger.start_plan(external(plan(), None), &["alpha", "beta"]);
    let initial = *ledger.state().head("main").unwrap().0;
    let alpha =
        Site { own_data: Ok(DataSummary { test_examples: 0, ..data() }), ..equipped(Digest::of(b"train.py"), true) };
    let running = Running::start(core(alpha), &ledger);
    let evaluated = running.outputs.iter().any(|output| match output {
        Output::Evaluate(task) => task.version == initial && task.external.is_some(),
        _ => false,
    });
    assert!(evaluated, "{:?}", running.outputs);
}

pub fn contribution_of(state: &Federation, key: &RoundKey) -> Option<Contribute> {
    state.participations(key).find_map(|(member, participation)| match participation {
        Participation::Contributed { contribution, .. } if member == "alpha" => Some((**contribution).clone()),
        _ => None,
    })
}

pub fn reason_of(state: &Federation, key: &RoundKey) -> Option<String> {
    state.participations(key).find_map(|(_, participation)| match participation {
        Participation::Declined { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

/// A round of a replica, and the directory of a node whose trainer is a shell script.
pub struct Bench {
    pub replica: Replica,
    pub directory: TempDir,
    pub key: RoundKey,
}

/// Weights of the model: what the initial ones are, plus `step`.
fn weights(step: f32) -> Vec<u8> {
    let tensor = |name: &str, shape, values| Tensor { name: name.to_owned(), shape, values };
    tensors::write_tensors(&[tensor("a", vec![2], vec![1.0 + step; 2]), tensor("b", vec![], vec![step])]).unwrap()
}

impl Bench {
    /// One whose trainer has the trained weights as data of its own.
    pub fn new(script: &str, settings: &str) -> Self {
        let bench = Self::with_table(script, settings);
        bench.add(&format!("data = {:?}\n", bench.at("trained")));
        bench
    }

    /// One whose trainer has the node's table.
    pub fn with_table(script: &str, settings: &str) -> Self {
        let mut ledger = Ledger::new();
        let id = ledger.start_plan(external(lone_plan(), None), &["alpha"]);
        let key = ledger.open_round(id);
        let replica = Replica::start("alpha", ledger);
        let directory = directory(&[("alpha", &replica)]);
        let bench = Self { replica, directory, key };
        let section = "[trainers.script]\nprogram = \"/bin/sh\"\narguments = [\"train.sh\"]\nfiles = [\"train.sh\"]";
        let config = fs::read_to_string(bench.at("node.toml")).unwrap();
        fs::write(bench.at("node.toml"), format!("{config}\n{section}\n{settings}\n")).unwrap();
        fs::write(bench.at("train.sh"), script).unwrap();
        fs::write(bench.at("trained"), weights(0.5)).unwrap();
        bench
    }

    /// Adds settings of the trainer.
    pub fn add(&self, settings: &str) {
        let config = fs::read_to_string(self.at("node.toml")).unwrap();
        fs::write(self.at("node.toml"), config + settings).unwrap();
    }

    pub fn at(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Where the program works.
    pub fn folder(&self) -> std::path::PathBuf {
        self.at(&format!("work/{}-1/trainer", self.key.plan))
    }

    pub async fn contribution(&self) -> Contribute {
        self.replica.until(|state| contribution_of(state, &self.key).is_some()).await;
        self.replica.change(|ledger| contribution_of(ledger.state(), &self.key)).unwrap()
    }

    pub async fn reason(&self) -> String {
        self.replica.until(|state| reason_of(state, &self.key).is_some()).await;
        self.replica.change(|ledger| reason_of(ledger.state(), &self.key)).unwrap()
    }
}

/// Takes the weights that lie where the data are for the trained ones.
pub const TAKE: &str = r#"
    data=$(sed 's/.*"data":"\([^"]*\)".*/\1/' configuration.json)
    take() { cp "$data" trained.safetensors; echo '{"examples": 10, "metrics": {"loss": 0.25}}' > metrics.json; }
"#;

pub async fn until(holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), looking).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_trains_a_round_and_evaluates_the_version() {
    let script = TAKE.to_owned()
        + r#"
        if grep -q '"task":"evaluate"' configuration.json; then
            echo '{"examples": 4, "metrics": {"accuracy": 0.75}}' > metrics.json
        else
            cmp base.safetensors trained.safetensors 2> /dev/null && exit 1
            mkfifo gate
            echo '{"progress": 0.5, "message": "half"}'
            read -r line < gate
            echo loading
            take
            grep -o '"configuration":.*' configuration.json > state/seen
            test -z "$(ls state | grep -v seen)"
        fi
    "#;
    let bench = Bench::new(&script, "evaluates = true");
    let node = start(bench.directory.path()).await;
    let mut events = node.events();
    let mut seen = Vec::new();
    let half = NodeEvent::Progress { key: bench.key, percent: 50, message: "half".to_owned() };
    while seen.last() != Some(&half) {
        seen.push(events.recv().await.unwrap());
    }
    // The program waits for this, so its memory could be looked at.
    fs::write(bench.folder().join("gate"), "go on\n").unwrap();
    let contribution = bench.contribution().await;
    let of = |path: &Path| Digest::of(&fs::read(path).unwrap());
    let listed = format!("{}  /bin/sh\n{}  train.sh\n", of(Path::new("/bin/sh")), of(&bench.at("train.sh")));
    assert_eq!(contribution.trainer, Some(Digest::of(listed.as_bytes())), "as `sha256sum` prints it");
    assert_eq!((contribution.examples, &contribution.metrics), (10, &[("loss".to_owned(), 250_000)].into()));
    let update = bench.replica.change(|ledger| ledger.blobs[&contribution.update].clone());
    let tensor = |name: &str, shape, values| Tensor { name: name.to_owned(), shape, values };
    let expected = [tensor("a", vec![2], vec![0.5; 2]), tensor("b", vec![], vec![0.5])];
    assert_eq!(update, tensors::write_tensors(&expected).unwrap());

    let version = bench.replica.complete_round(bench.key);
    bench.replica.until(|state| state.evaluations(&version).count() == 1).await;
    let evaluation = bench.replica.change(|ledger| ledger.state().evaluations(&version).next().unwrap().1.clone());
    assert_eq!((evaluation.examples, evaluation.metrics), (4, [("accuracy".to_owned(), 750_000)].into()));
    assert!(!bench.folder().exists(), "the folder is of no use after the training");
    node.shutdown().await.unwrap();
    while let Ok(event) = events.recv().await {
        seen.push(event);
    }
    let memory = |event: &NodeEvent| match event {
        NodeEvent::TrainerMemory { key, peak_bytes, allowed_bytes } => {
            *key == bench.key && *peak_bytes > 0 && *allowed_bytes == 4_000_000_000
        }
        _ => false,
    };
    assert_eq!(seen.iter().filter(|event| memory(event)).count(), usize::from(cfg!(target_os = "linux")));
    let started = |event: &NodeEvent| matches!(event, NodeEvent::TrainerStarted { resumed: false, .. });
    assert_eq!(seen.iter().filter(|event| started(event)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_declines_the_round_with_a_code() {
    let garbage = TAKE.to_owned() + "take; echo '{\"examples\": 10}' > trained.safetensors";
    let link = TAKE.to_owned() + "take; rm trained.safetensors; ln -s \"$data\" trained.safetensors";
    let cases = [
        ("exit 3", "", "trainer_failed, exit status: 3"),
        ("kill -KILL $$", "", "trainer_failed, signal: 9 (SIGKILL)"),
        ("exit 0", "", "trainer_left_no_file, metrics.json"),
        ("echo '{\"examples\": 0}' > metrics.json", "", "trainer_results_refused, wrong_examples"),
        ("echo nonsense > metrics.json", "", "trainer_results_refused, malformed_metrics"),
        (garbage.as_str(), "", "trainer_weights_refused"),
        (link.as_str(), "", "trainer_left_no_file, trained.safetensors"),
        ("while :; do :; done", "time_max_s = 1", "trainer_time_up, 1 s"),
    ];
    for (script, settings, expected) in cases {
        let bench = Bench::new(script, settings);
        let node = start(bench.directory.path()).await;
        let reason = bench.reason().await;
        assert_eq!(reason, format!("training failed: {expected}"), "{script}");
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_the_node_interrupted_is_gone_on_with() {
    let script = TAKE.to_owned()
        + r#"
        if grep -q '"resumption":true' configuration.json; then
            test "$(cat state/epoch)" = 7 && take
        else
            echo 7 > state/epoch
            trap 'exit 1' TERM
            while :; do :; done
        fi
    "#;
    let bench = Bench::new(&script, "");
    let node = start(bench.directory.path()).await;
    until(|| bench.folder().join("state/epoch").exists()).await;
    node.shutdown().await.unwrap();
    assert_eq!(
        bench.replica.change(|ledger| reason_of(ledger.state(), &bench.key)),
        None,
        "it would have been declined"
    );
    let node = start(bench.directory.path()).await;
    let mut events = node.events();
    assert_eq!(bench.contribution().await.examples, 10);
    node.shutdown().await.unwrap();
    let mut resumed = false;
    while let Ok(event) = events.recv().await {
        resumed |= matches!(event, NodeEvent::TrainerStarted { resumed: true, .. });
    }
    assert!(resumed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_ended_when_its_round_is_over() {
    let script = "trap 'echo > \"$TMPDIR/ended\"; exit 0' TERM; echo > state/begun; while :; do :; done";
    let bench = Bench::new(script, "");
    let elsewhere = format!("environment = {{ TMPDIR = {:?} }}", bench.directory.path());
    let config = fs::read_to_string(bench.at("node.toml")).unwrap();
    fs::write(bench.at("node.toml"), config + &elsewhere).unwrap();
    let node = start(bench.directory.path()).await;
    until(|| bench.folder().join("state/begun").exists()).await;
    let withdraw = WithdrawConsent { plan: bench.key.plan, reason: "audit".to_owned() };
    let office = key("alpha", Purpose::Organisation);
    bench.replica.change(|ledger| ledger.apply(&office, fedledger_federation::Command::WithdrawConsent(withdraw)));
    until(|| bench.at("ended").exists() && !bench.folder().exists()).await;
    node.shutdown().await.unwrap();
}
