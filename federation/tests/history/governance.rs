//! Governance: who may propose and vote, when a proposal is decided, and what no attack achieves.

mod evidence;
mod membership;
mod properties;
mod rotation;

use fedledger_federation::{
    Command, Event, Federation,
    governance::{Action, NodeKeys, ProposalStatus, Propose, RotateKeys, Vote},
    limits::{OPEN_PROPOSALS_PER_MEMBER_MAX, PROPOSAL_VALIDITY_ENTRIES_MAX, TEXT_LENGTH_MAX},
    member::{Member, Node, NodeKind, Role, UNNUMBERED},
};
use fedledger_ledger::{Digest, log::Log};

use crate::consortium::{Consortium, key};

/// All members, by id. Four of the six must approve.
const MEMBERS: [&str; 6] = ["basel", "insurer", "lyon", "office", "porto", "turin"];

const BASEL: &str = "basel/organisation";

fn propose_against(action: Action, against: Option<Digest>, expires_index: u64) -> Command {
    Command::Propose(Propose { action, against, expires_index, reason: "because".to_owned() })
}

/// The proposal as somebody makes it who knows the state.
fn propose(state: &Federation, action: Action) -> Command {
    let against = action.target(state);
    propose_against(action, against, 500)
}

fn vote(proposal: Digest, approve: bool) -> Command {
    Command::Vote(Vote { proposal, approve })
}

fn organisation(member: &str) -> String {
    format!("{member}/organisation")
}

fn replica(name: &str) -> Node {
    let public = |purpose: &str| key(&format!("{name}/{purpose}")).public();
    let (log_key, cosign_key) = (public("log"), public("cosign"));
    Node {
        name: name.to_owned(),
        kind: NodeKind::Replica { number: UNNUMBERED, log_key, cosign_key },
        transport_key: public("transport"),
        transaction_key: key(name).public(),
    }
}

fn participant(name: &str) -> Node {
    let public = |purpose: &str| key(&format!("{name}/{purpose}")).public();
    Node {
        name: name.to_owned(),
        kind: NodeKind::Participant { witness_key: public("witness") },
        transport_key: public("transport"),
        transaction_key: key(name).public(),
    }
}

fn newcomer(id: &str, roles: &[Role], nodes: Vec<Node>) -> Member {
    Member {
        id: id.to_owned(),
        name: id.to_uppercase(),
        roles: roles.iter().copied().collect(),
        organisation_key: key(&organisation(id)).public(),
        api_key: key(&format!("{id}/api")).public(),
        nodes,
    }
}

/// A hospital with a replica and a participant that asks to be admitted.
fn oslo() -> Member {
    let nodes = vec![replica("oslo/replica"), participant("oslo/participant")];
    newcomer("oslo", &[Role::Replica, Role::Participant], nodes)
}

fn admit(member: Member) -> Action {
    Action::AdmitMember { member }
}

fn exclude(member: &str) -> Action {
    Action::RevokeMember { member: member.to_owned() }
}

fn policy(finality_threshold: Option<u64>) -> Action {
    Action::ChangePolicy { finality_threshold }
}

/// Proposes in basel's name and returns the id.
#[track_caller]
fn open(consortium: &mut Consortium, action: Action) -> Digest {
    let command = propose(consortium.state(), action);
    match consortium.accept(BASEL, command) {
        Event::Proposed { proposal, .. } => proposal,
        event => panic!("{event:?}"),
    }
}

/// Has the members vote one after the other until the proposal is decided, and returns the event that decided it.
#[track_caller]
fn decide(consortium: &mut Consortium, action: Action) -> Event {
    let proposal = open(consortium, action);
    for member in MEMBERS.into_iter().skip(1) {
        if consortium.state().members().get(member).is_none() {
            continue;
        }
        match consortium.accept(&organisation(member), vote(proposal, true)) {
            Event::Voted { .. } => {}
            event => return event,
        }
    }
    panic!("all have voted, and nothing is decided")
}

/// Has an action carried out.
#[track_caller]
fn carry_out(consortium: &mut Consortium, action: Action) {
    let event = decide(consortium, action);
    assert!(matches!(event, Event::Executed { .. }), "{event:?}");
}

/// Proposes what must be refused, and returns the code.
#[track_caller]
fn impossible(consortium: &mut Consortium, action: Action) -> &'static str {
    let command = propose(consortium.state(), action);
    consortium.refused(BASEL, command)
}

fn status(consortium: &Consortium, proposal: &Digest) -> ProposalStatus {
    consortium.state().proposals().get(proposal).unwrap().status.clone()
}

#[test]
fn two_thirds_carry_an_action_out_with_the_vote_that_decides() {
    let mut consortium = Consortium::new(2);
    let proposal = open(&mut consortium, policy(Some(4)));
    let tally = consortium.state().tally(&proposal);
    assert_eq!((tally.members, tally.approvals, tally.needed), (6, 1, 4), "the proposer's proposal is its vote");
    consortium.accept("lyon/organisation", vote(proposal, true));
    consortium.accept("porto/organisation", vote(proposal, false));
    consortium.accept("turin/organisation", vote(proposal, true));
    assert_eq!(consortium.state().epoch().threshold, 3, "three of six decided");
    let event = consortium.accept("insurer/organisation", vote(proposal, true));
    let Event::Executed { member, consequences, .. } = event else { panic!("{event:?}") };
    assert_eq!((member.as_str(), consequences.epoch), ("insurer", 1));
    let (index, epoch) = (consortium.log.size() - 1, consortium.state().epoch());
    assert_eq!((epoch.number, epoch.index, epoch.threshold), (1, index, 4));
    assert_eq!(status(&consortium, &proposal), ProposalStatus::Executed { index });
    assert_eq!(consortium.refused("office/organisation", vote(proposal, true)), "proposal_closed");
}

#[test]
fn a_proposal_is_rejected_when_two_thirds_are_out_of_reach() {
    let mut consortium = Consortium::new(2);
    let proposal = open(&mut consortium, exclude("porto"));
    consortium.accept("porto/organisation", vote(proposal, false));
    consortium.accept("turin/organisation", vote(proposal, false));
    let event = consortium.accept("lyon/organisation", vote(proposal, false));
    assert!(matches!(event, Event::ProposalRejected { .. }), "{event:?}");
    assert!(consortium.state().members().get("porto").is_some());
    assert_eq!(consortium.refused("insurer/organisation", vote(proposal, true)), "proposal_closed");
}

#[test]
fn every_member_votes_once_whatever_its_keys() {
    let mut consortium = Consortium::new(2);
    let proposal = open(&mut consortium, policy(Some(4)));
    for approve in [true, false] {
        assert_eq!(consortium.refused(BASEL, vote(proposal, approve)), "already_voted");
    }
    consortium.accept("lyon/organisation", vote(proposal, false));
    assert_eq!(consortium.refused("lyon/organisation", vote(proposal, true)), "already_voted");
    let other = vote(Digest::of(b"other"), true);
    let action = policy(Some(4));
    for signer in ["basel/replica", "lyon/participant", "turin/replica"] {
        assert_eq!(consortium.refused(signer, vote(proposal, true)), "not_permitted", "{signer}");
        let command = propose(consortium.state(), action.clone());
        assert_eq!(consortium.refused(signer, command), "not_permitted", "{signer}");
    }
    for stranger in ["mallory", "turin/api", "turin/replica/cosign"] {
        assert_eq!(consortium.refused(stranger, vote(proposal, true)), "unknown_author", "{stranger}");
    }
    assert_eq!(consortium.refused("turin/organisation", other), "unknown_proposal");
    let tally = consortium.state().tally(&proposal);
    assert_eq!((tally.approvals, tally.rejections), (1, 1));
}

#[test]
fn nobody_votes_after_the_expiry() {
    let mut consortium = Consortium::new(2);
    let action = policy(Some(4));
    let (against, next) = (action.target(consortium.state()), consortium.log.size());
    for expires in [0, next - 1, next + PROPOSAL_VALIDITY_ENTRIES_MAX + 10] {
        let command = propose_against(action.clone(), against, expires);
        assert_eq!(consortium.refused(BASEL, command), "invalid_expiry", "{expires}");
    }
    let expires = consortium.log.size() + 2;
    consortium.accept(BASEL, propose_against(action.clone(), against, expires));
    let proposal = *consortium.state().proposals().iter().next().unwrap().0;
    consortium.accept("lyon/organisation", vote(proposal, true));
    consortium.accept("porto/organisation", vote(proposal, true));
    assert_eq!(consortium.log.size(), expires + 1);
    assert_eq!(consortium.refused("turin/organisation", vote(proposal, true)), "proposal_expired");
    let record = consortium.state().proposals().get(&proposal).unwrap();
    assert_eq!((record.status_at(expires), record.status_at(expires + 1)), ("open", "expired"));
    assert_eq!(consortium.state().epoch().number, 0);
}

#[test]
fn a_ballot_is_for_exactly_what_was_looked_at() {
    let mut consortium = Consortium::new(2);
    let stale = policy(Some(4)).target(consortium.state());
    carry_out(&mut consortium, admit(newcomer("oslo", &[], Vec::new())));
    // Nothing about replicas has changed, so the epoch is the same.
    consortium.accept(BASEL, propose_against(policy(Some(4)), stale, 500));
    carry_out(&mut consortium, Action::AdmitNode { member: "oslo".to_owned(), node: replica("oslo/replica") });
    let five_replicas = consortium.state().epoch().replicas.len();
    assert_eq!(five_replicas, 5);
    let superseded = consortium.state().proposals().iter().filter(|(_, record)| record.content.against == stale);
    let statuses: Vec<_> = superseded.map(|(_, record)| record.status.clone()).collect();
    assert_eq!(statuses, [ProposalStatus::Superseded { index: consortium.log.size() - 1 }]);
    let late = propose_against(policy(Some(4)), stale, 501);
    assert_eq!(consortium.refused(BASEL, late), "target_changed");
    let unbound = propose_against(exclude("porto"), None, 500);
    assert_eq!(consortium.refused(BASEL, unbound), "target_changed");
}

#[test]
fn what_has_become_impossible_fails_on_record() {
    let mut consortium = Consortium::new(2);
    // Two newcomers with the same key: each could be admitted, but not both.
    let oslo = newcomer("oslo", &[], Vec::new());
    let rome = Member { api_key: oslo.api_key, ..newcomer("rome", &[], Vec::new()) };
    let first = open(&mut consortium, admit(rome));
    carry_out(&mut consortium, admit(oslo));
    for member in ["lyon", "porto", "turin"] {
        consortium.accept(&organisation(member), vote(first, true));
    }
    // Seven members, so five must approve.
    let before = consortium.state().member_records().len();
    let event = consortium.accept("office/organisation", vote(first, true));
    let Event::ProposalFailed { code, .. } = event else { panic!("{event:?}") };
    assert_eq!(code, "key_used");
    assert_eq!(consortium.state().member_records().len(), before);
    let index = consortium.log.size() - 1;
    assert_eq!(status(&consortium, &first), ProposalStatus::Failed { index, code: "key_used".to_owned() });
}

#[test]
fn votes_of_members_that_are_gone_do_not_count() {
    let mut consortium = Consortium::new(2);
    let proposal = open(&mut consortium, policy(Some(4)));
    consortium.accept("lyon/organisation", vote(proposal, true));
    consortium.accept("insurer/organisation", vote(proposal, true));
    // The threshold of two of three replicas would be another question, so a member without replicas goes.
    carry_out(&mut consortium, exclude("insurer"));
    assert_eq!(status(&consortium, &proposal), ProposalStatus::Open);
    let tally = consortium.state().tally(&proposal);
    assert_eq!((tally.members, tally.approvals, tally.needed), (5, 2, 4));
    assert_eq!(consortium.refused("insurer/organisation", vote(proposal, false)), "revoked_key");
    consortium.accept("porto/organisation", vote(proposal, true));
    assert_eq!(consortium.state().epoch().threshold, 3, "the vote of a former member was counted");
    consortium.accept("turin/organisation", vote(proposal, true));
    assert_eq!(consortium.state().epoch().threshold, 4);
}

#[test]
fn a_proposal_is_made_once_and_has_a_bounded_reason() {
    let mut consortium = Consortium::new(2);
    let command = propose(consortium.state(), exclude("porto"));
    consortium.accept(BASEL, command.clone());
    assert_eq!(consortium.refused(BASEL, command.clone()), "proposal_exists");
    // The same from somebody else is another proposal.
    consortium.accept("lyon/organisation", command.clone());
    assert_eq!(consortium.state().proposals().len(), 2);
    let Command::Propose(content) = command else { unreachable!() };
    let long = Propose { reason: "x".repeat(TEXT_LENGTH_MAX + 1), ..content };
    assert_eq!(consortium.refused(BASEL, Command::Propose(long)), "text_too_long");
}

#[test]
fn open_proposals_are_bounded_and_expired_ones_make_room() {
    let mut consortium = Consortium::new(2);
    let action = policy(Some(4));
    let against = action.target(consortium.state());
    let start = consortium.log.size();
    let most = OPEN_PROPOSALS_PER_MEMBER_MAX as u64;
    for expiry in 0..most {
        consortium.accept(BASEL, propose_against(action.clone(), against, start + most + expiry));
    }
    let next = propose_against(action.clone(), against, 600);
    assert_eq!(consortium.refused(BASEL, next.clone()), "too_many_proposals_of_member");
    consortium.accept("lyon/organisation", next.clone());
    assert!(consortium.log.size() > start + most, "the first has not expired");
    consortium.accept(BASEL, next);
}

#[test]
fn a_consortium_of_one_decides_alone() {
    let mut consortium = Consortium::new(2);
    for member in ["turin", "office", "insurer", "porto"] {
        carry_out(&mut consortium, exclude(member));
    }
    let rest: Vec<_> = consortium.state().members().iter().map(|member| member.id.clone()).collect();
    assert_eq!(rest, ["basel", "lyon"]);
    let command = propose(consortium.state(), exclude("basel"));
    consortium.accept("lyon/organisation", command);
    let proposal = consortium.state().open_proposals(consortium.log.size()).next().map(|(id, _)| *id).unwrap();
    consortium.accept(BASEL, vote(proposal, true));
    // With a second replica both would have to co-sign, and only those of the genesis file can run yet.
    let command = propose(consortium.state(), admit(oslo()));
    assert_eq!(consortium.refused("lyon/organisation", command), "too_few_voters");
    let mut bergen = oslo();
    bergen.roles.remove(&Role::Replica);
    bergen.nodes.retain(|node| node.replica_number().is_none());
    let command = propose(consortium.state(), admit(bergen));
    let event = consortium.accept("lyon/organisation", command);
    assert!(matches!(event, Event::Executed { .. }), "{event:?}");
    assert_eq!(consortium.state().epoch().replicas.keys().collect::<Vec<_>>(), ["lyon/replica"]);
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let mut consortium = Consortium::new(2);
    carry_out(&mut consortium, admit(oslo()));
    carry_out(&mut consortium, exclude("porto"));
    let node = NodeKeys {
        name: "basel/replica".to_owned(),
        cosign_key: Some(key("basel/replica/cosign/2").public()),
        ..NodeKeys::default()
    };
    let rotate = RotateKeys { member: "basel".to_owned(), organisation_key: None, api_key: None, node: Some(node) };
    carry_out(&mut consortium, Action::RotateKeys(rotate));
    let proposal = open(&mut consortium, exclude("insurer"));
    let restored = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
    let (found, expected) = (restored.machine(), consortium.state());
    assert_eq!(found.digest(), expected.digest());
    assert_eq!(found.members(), expected.members());
    assert_eq!((found.epoch(), found.policy()), (expected.epoch(), expected.policy()));
    assert_eq!(found.open_proposals(consortium.log.size()).map(|(id, _)| *id).collect::<Vec<_>>(), [proposal]);
}
