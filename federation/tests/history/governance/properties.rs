//! Whatever the members decide, in whatever order: members, keys and epochs fit together.

use std::collections::BTreeSet;

use fedledger_federation::{
    Rejection,
    governance::{Action, NodeKeys, RotateKeys},
    member::{Members, is_finality_threshold},
    retention::Retention,
};
use fedledger_ledger::{epoch::Epoch, machine::StateMachine};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::*;

/// One random choice: what to do, by whom, and two numbers that vary it.
type Choice = (u8, u8, u8, u8);

const IDS: [&str; 8] = ["basel", "insurer", "lyon", "office", "porto", "turin", "oslo", "rome"];

fn action(kind: u8, a: u8, b: u8) -> Action {
    let id = IDS[usize::from(a) % IDS.len()];
    let label = |purpose: &str| key(&format!("{id}/{purpose}/{}", b % 4)).public();
    match kind % 9 {
        0 => {
            let mut member = oslo();
            member.id = IDS[6 + usize::from(a) % 2].to_owned();
            for (node, purpose) in member.nodes.iter_mut().zip(["replica", "participant"]) {
                node.name = format!("{}/{purpose}", member.id);
            }
            if a % 16 > 7 {
                member.organisation_key = label("organisation");
            }
            admit(member)
        }
        1 => exclude(id),
        2 | 3 => {
            let name = format!("{id}/{}", ["first", "second"][usize::from(b) % 2]);
            let node = if a > 127 { replica(&name) } else { participant(&name) };
            Action::AdmitNode { member: id.to_owned(), node }
        }
        4 => Action::RevokeNode {
            node: format!("{id}/{}", ["replica", "participant", "first", "second"][usize::from(b) % 4]),
        },
        5 | 6 => {
            let node = NodeKeys {
                name: format!("{id}/{}", ["replica", "participant"][usize::from(a > 127)]),
                transaction_key: (b > 99).then(|| label("transaction")),
                cosign_key: (b < 100).then(|| label("cosign")),
                ..NodeKeys::default()
            };
            Action::RotateKeys(RotateKeys {
                member: id.to_owned(),
                organisation_key: b.is_multiple_of(8).then(|| label("organisation")),
                api_key: (b % 16 == 1).then(|| label("api")),
                node: (!b.is_multiple_of(8)).then_some(node),
            })
        }
        7 => policy((b < 128).then_some(u64::from(b % 8))),
        _ => Action::ChangeRetention(Retention { updates: (a < 128).then_some(u64::from(b % 8)), versions: None }),
    }
}

fn command(state: &Federation, size: u64, (kind, _, a, b): Choice) -> Command {
    if kind % 4 > 0 {
        let proposals: Vec<Digest> = state.open_proposals(size).map(|(id, _)| *id).collect();
        let proposal = proposals.get(usize::from(a) % proposals.len().max(1)).copied().unwrap_or_default();
        return vote(proposal, b < 220);
    }
    let action = action(kind / 4, a, b);
    let against = action.target(state);
    propose_against(action, against, size + u64::from(a))
}

fn submit(consortium: &mut Consortium, choice: Choice) -> Result<Event, Rejection> {
    let command = command(consortium.state(), consortium.log.size(), choice);
    let signer = match choice.1 {
        0..240 => organisation(IDS[usize::from(choice.1) % IDS.len()]),
        _ => "porto/replica".to_owned(),
    };
    consortium.submit(&signer, &command)
}

/// The property below would hold if nothing was ever decided.
#[test]
fn random_votes_carry_every_kind_of_action_out() {
    let mut runner = TestRunner::deterministic();
    let choices = proptest::collection::vec(any::<Choice>(), 300);
    let mut executed = BTreeSet::new();
    for _ in 0..30 {
        let mut consortium = Consortium::new(3);
        for choice in choices.new_tree(&mut runner).unwrap().current() {
            if let Ok(Event::Executed { proposal, .. }) = submit(&mut consortium, choice) {
                executed.insert(consortium.state().proposals().get(&proposal).unwrap().content.action.name());
            }
        }
    }
    let all = [
        "admit_member",
        "admit_node",
        "change_policy",
        "change_retention",
        "revoke_member",
        "revoke_node",
        "rotate_keys",
    ];
    assert_eq!(executed, BTreeSet::from(all));
}

fn check(state: &Federation, before: &Epoch) {
    let records: Vec<_> = state.member_records().iter().map(|(_, record)| record).collect();
    let current = records.iter().filter(|record| record.revoked_index.is_none());
    assert_eq!(&Members::new(current.map(|record| record.member.clone())), state.members());
    assert!(!state.members().is_empty());
    let keys: Vec<_> = state.members().iter().flat_map(|member| member.keys().map(|used| used.key)).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "a key is used twice");
    assert!(keys.iter().all(|key| !state.revoked_keys().contains(key)), "a revoked key is in use");

    let epoch = state.epoch();
    assert!(is_finality_threshold(epoch.threshold, epoch.replicas.len() as u64), "{epoch:?}");
    assert_eq!(epoch.replicas.len(), state.members().replica_count());
    for (_, node) in state.members().nodes() {
        match node.kind {
            NodeKind::Replica { log_key, cosign_key, .. } => {
                let keys = epoch.replicas.get(&node.name).unwrap();
                assert_eq!((keys.author, keys.log, keys.cosign), (node.transaction_key, log_key, cosign_key));
            }
            NodeKind::Participant { witness_key } => assert_eq!(epoch.witnesses.get(&node.name), Some(&witness_key)),
        }
    }
    let participants = state.members().nodes().filter(|(_, node)| node.replica_number().is_none()).count();
    assert_eq!(epoch.witnesses.len(), participants);
    assert_eq!(epoch == before, epoch.number == before.number, "an epoch changed without a new number");
    assert!(epoch.number - before.number <= 1 && epoch.index >= before.index);
    assert_eq!(state.epochs().len() as u64, epoch.number + 1);
    let numbers: Vec<u64> = state.members().nodes().filter_map(|(_, node)| node.replica_number()).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
    assert!(numbers.iter().all(|number| (1..=state.policy().last_replica_number).contains(number)));
    for (_, record) in state.plans().iter() {
        assert!(record.consents.keys().all(|member| state.members().has_role(member, Role::Participant)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn members_keys_and_epochs_fit_together(choices in proptest::collection::vec(any::<Choice>(), 1..150)) {
        let (mut consortium, _) = Consortium::ready(3);
        for choice in choices {
            let (epoch, digest) = (consortium.state().epoch().clone(), consortium.state().digest());
            let outcome = submit(&mut consortium, choice);
            prop_assert!(outcome.is_ok() || consortium.state().digest() == digest, "{:?} left a trace", outcome);
            check(consortium.state(), &epoch);
        }
        let restored = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
        prop_assert_eq!(restored.machine().digest(), consortium.state().digest());
        prop_assert_eq!(restored.machine().members(), consortium.state().members());
        prop_assert_eq!(StateMachine::epoch(restored.machine()), consortium.state().epoch());
        let (mut replayed, _) = Log::<Federation>::genesis(&consortium.genesis).unwrap();
        for leaf in &consortium.leaves {
            replayed.replay(leaf).unwrap();
        }
        prop_assert_eq!(replayed.machine().digest(), consortium.state().digest());
    }
}
