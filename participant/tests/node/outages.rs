//! The whole node over real connections that are lost, and a contribution that comes too late.

use std::collections::BTreeSet;

use fedledger_federation::{
    Federation,
    command::{CloseRound, RoundKey},
};
use fedledger_ledger::Digest;
use fedledger_participant::node::NodeEvent;

use crate::{
    fixture::{Ledger, MEMBERS, Purpose, key, plan},
    live::{directory, start},
    replica::Replica,
};

/// A ledger with a plan to which all three members have consented and that needs two of them.
fn started() -> (Ledger, Digest) {
    let mut ledger = Ledger::new();
    let id = ledger.start_plan(plan(), &MEMBERS);
    (ledger, id)
}

fn others_contribute(ledger: &mut Ledger, round: RoundKey) {
    ledger.contribute("beta", round, 0.25);
    ledger.contribute("gamma", round, 0.75);
}

fn has_contributed(state: &Federation, round: &RoundKey) -> bool {
    state.certificate(round).unwrap().contributed.iter().any(|member| member == "alpha")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_is_missing_and_takes_part_in_the_next_round() {
    let (ledger, id) = started();
    let replica = Replica::start("alpha", ledger);
    let directory = directory(&[("alpha", &replica)]);
    let node = start(directory.path()).await;
    let mut status = node.status();
    status.wait_for(|status| status.current && status.following.is_some()).await.unwrap();

    node.set_online(false);
    replica.until_alone().await;
    status.wait_for(|status| status.following.is_none()).await.unwrap();
    let first = replica.change(|ledger| ledger.open_round(id));
    replica.change(|ledger| others_contribute(ledger, first));
    replica.complete_round(first);
    let second = replica.change(|ledger| ledger.open_round(id));

    node.set_online(true);
    replica.until(|state| has_contributed(state, &second)).await;
    node.shutdown().await.unwrap();
    let certificate = replica.change(|ledger| ledger.state().certificate(&first)).unwrap();
    assert_eq!((certificate.contributed.len(), certificate.missing["alpha"].as_str()), (2, "not_joined"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contribution_that_a_closed_round_overtook_is_refused_on_record_and_the_next_one_is_taken() {
    let (mut ledger, id) = started();
    let first = ledger.open_round(id);
    let replica = Replica::start("alpha", ledger);
    replica.overtake(move |ledger| {
        others_contribute(ledger, first);
        let close = CloseRound { key: first, through: u64::MAX, excluded: Default::default() };
        ledger.apply(&key("gamma", Purpose::Replica), fedledger_federation::Command::CloseRound(close));
    });
    let directory = directory(&[("alpha", &replica)]);
    let node = start(directory.path()).await;
    let mut events = node.events();
    let refused = async {
        loop {
            if let NodeEvent::Rejected { code, intent } = events.recv().await.unwrap() {
                return (code, intent);
            }
        }
    };
    let (code, intent) = refused.await;
    assert_eq!(code, "round_closed");
    assert!(intent.starts_with("contribute to round 1"), "{intent}");
    replica.change(|ledger| ledger.make_version(first));
    let certificate = replica.change(|ledger| ledger.state().certificate(&first)).unwrap();
    assert_eq!(certificate.contributed, MEMBERS[1..]);
    assert_eq!(certificate.missing, [("alpha".to_owned(), "not_contributed".to_owned())].into());

    let second = replica.change(|ledger| ledger.open_round(id));
    replica.until(|state| has_contributed(state, &second)).await;
    node.shutdown().await.unwrap();
    let members: BTreeSet<String> =
        replica.change(|ledger| ledger.state().certificate(&second)).unwrap().contributed.into_iter().collect();
    assert_eq!(members, BTreeSet::from(["alpha".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_falls_silent_is_left_for_another() {
    let ((ledger, _), (same, id)) = (started(), started());
    let replicas = [("alpha", Replica::start("alpha", ledger)), ("beta", Replica::start("beta", same))];
    let directory = directory(&[("alpha", &replicas[0].1), ("beta", &replicas[1].1)]);
    let node = start(directory.path()).await;
    let mut status = node.status();
    let followed = status.wait_for(|status| status.following.is_some()).await.unwrap().following.clone().unwrap();

    // Whichever was there first.
    let (silent, others): (Vec<_>, Vec<_>) =
        replicas.iter().partition(|(name, _)| followed == format!("{name}/replica"));
    let ([(_, silent)], [(_, other)]) = (&silent[..], &others[..]) else { panic!("{followed} is one of the two") };
    silent.fall_silent();
    let round = other.change(|ledger| ledger.open_round(id));
    other.until(|state| has_contributed(state, &round)).await;
    node.shutdown().await.unwrap();
}
