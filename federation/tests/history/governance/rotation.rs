//! Replacing keys.

use fedledger_federation::{
    Command,
    command::{ApprovePlan, JoinRound},
    governance::{Action, NodeKeys, RotateKeys},
    history::{EntryView, History, Keep},
};

use super::*;
use crate::consortium::plan;

fn rotate(organisation: Option<&str>, api: Option<&str>, node: Option<NodeKeys>) -> Action {
    let public = |label: &str| key(label).public();
    let (organisation_key, api_key) = (organisation.map(public), api.map(public));
    Action::RotateKeys(RotateKeys { member: "porto".to_owned(), organisation_key, api_key, node })
}

fn node_keys(name: &str) -> NodeKeys {
    NodeKeys { name: name.to_owned(), ..NodeKeys::default() }
}

#[test]
fn the_new_key_signs_and_the_old_one_is_refused() {
    let mut consortium = Consortium::new(3);
    consortium.accept("office/organisation", Command::ProposePlan(plan("heart")));
    let approve = Command::ApprovePlan(ApprovePlan { plan: plan("heart").id(), examples: None });
    carry_out(&mut consortium, rotate(Some("porto/organisation/2"), None, None));
    assert_eq!(consortium.state().epoch().number, 0, "no replica or witness has changed");
    assert_eq!(consortium.refused("porto/organisation", approve.clone()), "revoked_key");
    consortium.accept("porto/organisation/2", approve);
    assert_eq!(impossible(&mut consortium, rotate(Some("porto/organisation"), None, None)), "key_used");
}

#[test]
fn a_node_goes_on_in_a_round_with_its_new_keys() {
    let (mut consortium, plan) = Consortium::ready(3);
    let round = consortium.open_round(&plan);
    let join = Command::JoinRound(JoinRound { key: round });
    let keys = NodeKeys {
        transaction_key: Some(key("porto/participant/2").public()),
        witness_key: Some(key("porto/participant/witness/2").public()),
        ..node_keys("porto/participant")
    };
    carry_out(&mut consortium, rotate(None, None, Some(keys)));
    let epoch = consortium.state().epoch();
    assert_eq!(epoch.number, 1);
    assert_eq!(epoch.witnesses.get("porto/participant"), Some(&key("porto/participant/witness/2").public()));
    assert_eq!(consortium.refused("porto/participant", join.clone()), "revoked_key");
    consortium.accept("porto/participant/2", join);
    assert!(consortium.state().plans().get(&plan).unwrap().consents.contains_key("porto"), "consent is the member's");
}

#[test]
fn keys_fit_the_node_and_are_new() {
    let mut consortium = Consortium::new(3);
    let new = || Some(key("new").public());
    let mut refused = |keys: NodeKeys| impossible(&mut consortium, rotate(None, None, Some(keys)));
    let replica = || node_keys("porto/replica");
    let participant = || node_keys("porto/participant");
    assert_eq!(refused(NodeKeys { witness_key: new(), ..replica() }), "no_such_key");
    assert_eq!(refused(NodeKeys { cosign_key: new(), ..participant() }), "no_such_key");
    assert_eq!(refused(NodeKeys { log_key: new(), ..participant() }), "no_such_key");
    assert_eq!(refused(NodeKeys { log_key: new(), ..node_keys("porto/other") }), "unknown_node");
    assert_eq!(refused(NodeKeys { log_key: new(), ..node_keys("lyon/replica") }), "unknown_node");
    assert_eq!(refused(replica()), "nothing_to_change");
    assert_eq!(refused(NodeKeys { log_key: new(), cosign_key: new(), ..replica() }), "key_used");
    let own = Some(key("porto/replica/log").public());
    assert_eq!(refused(NodeKeys { cosign_key: own, ..replica() }), "key_used", "it served another purpose");
    let (log_key, cosign_key) = (Some(key("porto/replica/cosign").public()), own);
    assert_eq!(refused(NodeKeys { log_key, cosign_key, ..replica() }), "key_used", "keys do not swap purposes");
    let theirs = Some(key("lyon/replica/log").public());
    assert_eq!(refused(NodeKeys { log_key: theirs, ..replica() }), "key_used");
    assert_eq!(impossible(&mut consortium, rotate(None, None, None)), "nothing_to_change");
}

#[test]
fn an_entry_tells_who_signed_it_even_if_it_revoked_the_key() {
    let mut consortium = Consortium::new(2);
    for member in ["turin", "office", "insurer", "lyon"] {
        carry_out(&mut consortium, exclude(member));
    }
    let proposal = open(&mut consortium, rotate(Some("porto/organisation/2"), None, None));
    consortium.accept("porto/organisation", vote(proposal, true));
    let late = vote(proposal, true);
    assert_eq!(consortium.refused("porto/organisation", late), "revoked_key");
    let history = History::read(&consortium.source(), Keep::Entries, 1).unwrap();
    for EntryView { author, outcome, .. } in history.entries.iter().rev().take(2) {
        assert_eq!(author.member.as_deref(), Some("porto"), "{outcome}");
        assert_eq!(author.capacity, Some("organisation"), "{outcome}");
    }
}
