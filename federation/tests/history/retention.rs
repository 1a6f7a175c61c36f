//! Retention: what the members' rules keep, what they let go, and that everybody can tell what was let go from what is lost.

use std::{collections::BTreeSet, sync::Arc};

use fedledger_federation::{
    Command, Event, Federation, VersionId,
    command::{AbandonRound, MoveBranch, RoundKey, Tag},
    conductor::{Conductor, Duty, Report},
    governance::{Action, Propose, Vote},
    history::{ExportOptions, export, named_files},
    plan::Plan,
    records::VersionRecord,
    retention::{PinVersion, PruneRound, PruneVersion, Pruned, Retention},
    verify::{Options, Report as Verification, verify},
};
use fedledger_ledger::{Digest, codec, log::Log};

use crate::{
    consortium::{Consortium, OFFICE, SITES, open_bundle, plan, update_file},
    world::{World, diligent},
};

const REPLICA: &str = "basel/replica";

/// The members decide what is kept.
#[track_caller]
pub fn decide(consortium: &mut Consortium, updates: impl Into<Option<u64>>, versions: impl Into<Option<u64>>) {
    let action = Action::ChangeRetention(Retention { updates: updates.into(), versions: versions.into() });
    let against = action.target(consortium.state());
    let expires_index = consortium.log.size() + 100;
    let propose = Propose { action, against, expires_index, reason: "disks are finite".to_owned() };
    let Event::Proposed { proposal, .. } = consortium.accept("basel/organisation", Command::Propose(propose)) else {
        panic!("one vote of six decided")
    };
    let votes = ["lyon", "porto", "turin"].map(|member| {
        consortium.accept(&format!("{member}/organisation"), Command::Vote(Vote { proposal, approve: true }))
    });
    assert!(matches!(votes.last(), Some(Event::Executed { .. })), "{votes:?}");
}

fn long_plan() -> Plan {
    Plan { rounds: 6, ..plan("heart") }
}

/// The initial version and five more, on one branch.
fn six_versions() -> (Consortium, Digest) {
    let (mut consortium, plan) = Consortium::ready_for(3, long_plan());
    for _ in 0..5 {
        consortium.run_round(&plan);
    }
    (consortium, plan)
}

fn version(state: &Federation, number: u64) -> VersionId {
    *state.numbers().get(&number).unwrap()
}

fn record(state: &Federation, number: u64) -> &VersionRecord {
    state.versions().get(&version(state, number)).unwrap()
}

fn prune(state: &Federation, number: u64, updates: bool, files: bool) -> Command {
    Command::PruneVersion(PruneVersion { version: version(state, number), updates, files })
}

fn pin(version: VersionId, pinned: bool) -> Command {
    Command::PinVersion(PinVersion { version, pinned, reason: "asked for by the regulator".to_owned() })
}

fn tag(name: &str, version: VersionId) -> Command {
    Command::Tag(Tag { name: name.to_owned(), version })
}

/// What the rejection of a pruning says.
#[track_caller]
fn why_kept(consortium: &mut Consortium, number: u64, updates: bool, files: bool) -> String {
    let command = prune(consortium.state(), number, updates, files);
    let rejection = consortium.submit(REPLICA, &command).expect_err("it was pruned");
    assert!(rejection.to_string().starts_with("these files are to be kept: "), "{rejection}");
    rejection.to_string()
}

/// Numbers of the versions whose files, and of those whose updates, may be pruned.
fn free(consortium: &Consortium) -> (Vec<u64>, Vec<u64>) {
    let state = consortium.state();
    let accepted = |number: &u64, updates, files| {
        let mut log = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
        assert_eq!(log.root(), consortium.log.root());
        let author = crate::consortium::key(REPLICA).public();
        let command = prune(state, *number, updates, files);
        let mut machine = log.machine().clone();
        drop(log.size());
        let _ = &mut log;
        let index = consortium.log.size();
        let mut writes = Default::default();
        fedledger_ledger::machine::StateMachine::apply(
            &mut machine,
            index,
            &author,
            command.kind(),
            &command.payload(),
            &mut writes,
        )
        .is_ok()
    };
    let numbers: Vec<u64> = state.numbers().iter().map(|(number, _)| *number).collect();
    let files = numbers.iter().copied().filter(|number| accepted(number, false, true)).collect();
    let updates = numbers.iter().copied().filter(|number| accepted(number, true, false)).collect();
    (files, updates)
}
