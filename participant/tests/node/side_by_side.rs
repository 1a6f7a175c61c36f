//! Several participants on one machine: everybody gets on while the others compute, by whichever trainer.

use std::{fs, path::Path};

use fedledger_federation::{Federation, command::RoundKey, plan::Plan, records::Participation};
use tempfile::TempDir;

use crate::{
    external::{external, until},
    fixture::{Ledger, plan},
    kit::write_directory,
    live::start,
    replica::Replica,
};

/// The directory of a member's node with a shell script as its trainer.
fn directory(member: &str, replica: &Replica, script: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_directory(directory.path(), member, &[("alpha", replica.address())]);
    let section = "\n[trainers.script]\nprogram = \"/bin/sh\"\narguments = [\"train.sh\"]\nfiles = [\"train.sh\"]\n";
    let config = fs::read_to_string(directory.path().join("node.toml")).unwrap();
    fs::write(directory.path().join("node.toml"), config + section).unwrap();
    fs::write(directory.path().join("train.sh"), script).unwrap();
    directory
}

fn has_contributed(state: &Federation, key: &RoundKey, wanted: &str) -> bool {
    state
        .participations(key)
        .any(|(member, found)| member == wanted && matches!(found, Participation::Contributed { .. }))
}

/// A program that computes without pause until somebody has made a file, and then leaves what it was given.
fn busy_until(file: &Path) -> String {
    format!(
        "ps -o ni= -p $$ | tr -d ' ' > niceness
        mv niceness {file:?}.niceness
        while ! test -e {file:?}; do :; done
        cp base.safetensors trained.safetensors; echo '{{\"examples\": 9}}' > metrics.json"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_and_two_built_in_trainers_get_on_side_by_side() {
    let done = tempfile::tempdir().unwrap();
    let (go, members) = (done.path().join("go"), ["alpha", "beta"]);
    let mut ledger = Ledger::new();
    let by_program = ledger.start_plan(external(plan(), None), &members);
    let built_in = Plan { name: "second".to_owned(), branch: "second".to_owned(), ..plan() };
    let built_in = ledger.start_plan(built_in, &members);
    let [by_program, built_in] = [by_program, built_in].map(|plan| ledger.open_round(plan));
    let replica = Replica::start("alpha", ledger);
    let directories = members.map(|member| {
        let go = go.with_extension(member);
        directory(member, &replica, &busy_until(&go))
    });
    let [alpha, beta] = [start(directories[0].path()).await, start(directories[1].path()).await];
    let niceness_of =
        |member: &str| std::path::PathBuf::from(format!("{}.niceness", go.with_extension(member).display()));
    until(|| members.iter().all(|member| niceness_of(member).exists())).await;
    // While both programs are busy, and nothing but this test ends them, both built-in trainings come to their end.
    for member in members {
        replica.until(|state| has_contributed(state, &built_in, member)).await;
    }
    assert!(members.iter().all(|member| !replica.change(|ledger| has_contributed(
        ledger.state(),
        &by_program,
        member
    ))));
    // One program still computes while the other one gets on.
    for member in members {
        fs::write(go.with_extension(member), "").unwrap();
        replica.until(|state| has_contributed(state, &by_program, member)).await;
    }
    let niceness = |member: &str| fs::read_to_string(niceness_of(member)).unwrap().trim().parse::<i32>().unwrap();
    let own = rustix::process::getpriority_process(None).unwrap();
    let lowered = (own + fedledger_participant::node::TRAINER_NICENESS).min(19);
    assert_eq!(members.map(niceness), [lowered; 2], "programs give way as the built-in trainer does");
    alpha.shutdown().await.unwrap();
    beta.shutdown().await.unwrap();
}
