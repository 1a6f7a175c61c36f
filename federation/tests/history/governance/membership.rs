//! What happens when members and nodes come and go.

use fedledger_federation::{
    Command, Event,
    command::{ApprovePlan, AttestVersion, CommitVersion, JoinRound},
    event::Certificate,
    governance::Action,
    member::{Member, Role},
    records::{PlanStatus, VersionStatus},
};
use fedledger_ledger::Digest;

use super::*;
use crate::consortium::{OFFICE, SITES, plan};

fn revoke_node(node: &str) -> Action {
    Action::RevokeNode { node: node.to_owned() }
}

fn admit_node(member: &str, node: Node) -> Action {
    Action::AdmitNode { member: member.to_owned(), node }
}

#[test]
fn a_new_member_can_do_at_once_what_its_roles_allow() {
    let (mut consortium, plan) = Consortium::ready(2);
    let approve = Command::ApprovePlan(ApprovePlan { plan, examples: None });
    assert_eq!(consortium.refused("oslo/participant", approve.clone()), "unknown_author");
    carry_out(&mut consortium, admit(oslo()));
    let record = consortium.state().member_records().get(&"oslo".to_owned()).unwrap();
    assert_eq!((record.admitted_index, record.revoked_index), (consortium.log.size() - 1, None));
    assert_eq!(record.member.nodes[0].replica_number(), Some(5), "the next number");
    let epoch = consortium.state().epoch();
    assert_eq!((epoch.number, epoch.threshold, epoch.replicas.len()), (1, 4, 5), "the default for five replicas");
    assert!(epoch.witnesses.contains_key("oslo/participant"));
    assert_eq!(consortium.state().attestation_quorum(), 3);
    consortium.accept("oslo/participant", approve);
    let key = consortium.open_round(&plan);
    consortium.accept("oslo/participant", Command::JoinRound(JoinRound { key }));
    let proposal = open(&mut consortium, exclude("insurer"));
    consortium.accept("oslo/organisation", vote(proposal, true));
    assert_eq!(consortium.state().tally(&proposal).needed, 5, "two thirds of seven");
}

#[test]
fn an_excluded_member_can_do_nothing_and_never_comes_back() {
    let (mut consortium, plan) = Consortium::ready(3);
    let witnesses = consortium.state().epoch().witnesses.len();
    carry_out(&mut consortium, exclude("porto"));
    let index = consortium.log.size() - 1;
    let state = consortium.state();
    assert!(state.members().get("porto").is_none());
    assert_eq!(state.member_records().get(&"porto".to_owned()).unwrap().revoked_index, Some(index));
    assert!(state.plans().get(&plan).unwrap().consents.keys().eq(["basel", "lyon"]));
    assert_eq!((state.epoch().replicas.len(), state.epoch().threshold), (3, 2), "the default for three replicas");
    assert_eq!(state.epoch().witnesses.len(), witnesses - 1);
    assert_eq!(state.revoked_keys().len(), 9, "two of the member, four of its replica, three of its participant");
    let approve = Command::ApprovePlan(ApprovePlan { plan, examples: None });
    for signer in ["porto/participant", "porto/replica", "porto/organisation"] {
        assert_eq!(consortium.refused(signer, approve.clone()), "revoked_key", "{signer}");
    }
    let back = newcomer("porto", &[], Vec::new());
    assert_eq!(impossible(&mut consortium, admit(back)), "member_exists");
    for reused in ["porto/organisation", "porto/api", "porto/replica/log", "porto/participant/witness"] {
        let organisation_key = key(reused).public();
        let renamed = Member { organisation_key, ..newcomer("oslo", &[], Vec::new()) };
        assert_eq!(impossible(&mut consortium, admit(renamed)), "key_used", "{reused}");
    }
}

#[test]
fn a_round_in_progress_goes_on_without_an_excluded_member() {
    let (mut consortium, plan) = Consortium::ready(4);
    let key = consortium.open_round(&plan);
    for site in ["basel", "lyon", "porto"] {
        consortium.join_and_contribute(&key, site);
    }
    carry_out(&mut consortium, exclude("porto"));
    let Event::RoundClosed { certificate, .. } = consortium.close(&key, &[]) else { panic!("it was not closed") };
    let Certificate { enrolled, selected, contributed, missing, .. } = certificate;
    assert_eq!(enrolled, ["basel", "lyon", "turin"]);
    assert_eq!(selected, SITES);
    assert_eq!(contributed, ["basel", "lyon"]);
    let reason = |member: &str| missing.get(member).map(String::as_str);
    assert_eq!((reason("porto"), reason("turin")), (Some("revoked"), Some("not_joined")));
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    consortium.accept("basel/replica", Command::CommitVersion(commit));
    // Three replicas are left, of which two are a majority.
    let event = consortium.accept("lyon/replica", Command::AttestVersion(AttestVersion { version, outputs }));
    assert!(matches!(event, Event::VersionAttested { moved: true, .. }), "{event:?}");
    let manifest = &consortium.state().versions().get(&version).unwrap().manifest;
    assert!(manifest.contributions.iter().all(|contribution| contribution.member != "porto"));
    assert_eq!(consortium.state().plans().get(&plan).unwrap().status, PlanStatus::Running);
}

#[test]
fn a_closed_round_keeps_what_its_certificate_says() {
    let (mut consortium, plan) = Consortium::ready(4);
    let key = consortium.open_round(&plan);
    for site in SITES {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    let before = consortium.state().certificate(&key).unwrap().contributed;
    carry_out(&mut consortium, exclude("porto"));
    assert_eq!(consortium.state().certificate(&key).unwrap().contributed, before);
    let version = consortium.commit_and_attest_by(&key, &["basel", "lyon"]);
    assert_eq!(consortium.state().versions().get(&version).unwrap().manifest.contributions.len(), 4);
}

#[test]
fn a_candidate_is_decided_by_the_replicas_that_are_left() {
    let (mut consortium, plan) = Consortium::ready(2);
    let key = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    let CommitVersion { version, .. } = consortium.commit(&key, outputs);
    let commit = Command::CommitVersion(CommitVersion { key, version, outputs });
    consortium.accept("basel/replica", commit);
    consortium.accept("lyon/replica", Command::AttestVersion(AttestVersion { version, outputs }));
    let status = consortium.state().versions().get(&version).unwrap().status;
    assert_eq!(status, VersionStatus::Candidate, "two of four are no majority");
    let event = decide(&mut consortium, revoke_node("turin/replica"));
    let Event::Executed { consequences, .. } = event else { panic!("{event:?}") };
    assert_eq!(consequences.attested, [version], "two of three are one, and nobody is left to say so");
    assert_eq!(consortium.head("main"), version);
    let history = fedledger_federation::history::History::read(&consortium.source(), Default::default(), 1).unwrap();
    assert_eq!(history.attested.get(&version), Some(&(consortium.log.size() - 1)));
}

#[test]
fn the_word_of_a_replica_that_is_gone_does_not_count() {
    let (mut consortium, plan) = Consortium::ready(2);
    let key = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    let outputs = consortium.compute(&key);
    let commit = consortium.commit(&key, outputs);
    let version = commit.version;
    consortium.accept("turin/replica", Command::CommitVersion(commit));
    consortium.accept("porto/replica", Command::AttestVersion(AttestVersion { version, outputs }));
    carry_out(&mut consortium, exclude("turin"));
    let record = consortium.state().versions().get(&version).unwrap();
    assert_eq!(record.status, VersionStatus::Candidate, "only porto's word is left");
    let event = consortium.accept("lyon/replica", Command::AttestVersion(AttestVersion { version, outputs }));
    assert!(matches!(event, Event::VersionAttested { .. }), "{event:?}");
}

#[test]
fn nodes_give_their_members_the_roles_for_them() {
    let (mut consortium, plan) = Consortium::ready(3);
    let has = |consortium: &Consortium, member: &str, role| consortium.state().members().has_role(member, role);
    carry_out(&mut consortium, revoke_node("porto/participant"));
    assert!(!has(&consortium, "porto", Role::Participant) && has(&consortium, "porto", Role::Replica));
    assert!(consortium.state().plans().get(&plan).unwrap().consents.keys().eq(["basel", "lyon"]));
    let approve = Command::ApprovePlan(ApprovePlan { plan, examples: None });
    assert_eq!(consortium.refused("porto/organisation", approve.clone()), "not_permitted");
    assert_eq!(impossible(&mut consortium, admit_node("porto", participant("porto/participant"))), "key_used");
    carry_out(&mut consortium, admit_node("porto", participant("porto/second")));
    consortium.accept("porto/second", approve);
    assert_eq!(impossible(&mut consortium, admit_node("porto", participant("lyon/third"))), "invalid_member");
    assert_eq!(impossible(&mut consortium, admit_node("porto", participant("porto/second"))), "invalid_member");
    assert_eq!(impossible(&mut consortium, admit_node("oslo", participant("oslo/first"))), "unknown_member");
    assert_eq!(impossible(&mut consortium, revoke_node("porto/participant")), "unknown_node");
    assert_eq!(impossible(&mut consortium, revoke_node("nonsense")), "unknown_member");
}

#[test]
fn numbers_of_replicas_are_never_given_again() {
    let mut consortium = Consortium::new(2);
    let number = |consortium: &Consortium, name: &str| {
        consortium
            .state()
            .members()
            .nodes()
            .find(|(_, node)| node.name == name)
            .and_then(|(_, node)| node.replica_number())
    };
    carry_out(&mut consortium, admit_node("porto", replica("porto/second")));
    assert_eq!(number(&consortium, "porto/second"), Some(5));
    carry_out(&mut consortium, revoke_node("porto/second"));
    carry_out(&mut consortium, admit_node("porto", replica("porto/third")));
    assert_eq!(number(&consortium, "porto/third"), Some(6));
    let mut numbered = replica("porto/fourth");
    let NodeKind::Replica { number, .. } = &mut numbered.kind else { unreachable!() };
    *number = 7;
    assert_eq!(impossible(&mut consortium, admit_node("porto", numbered)), "replica_numbered");
}

#[test]
fn a_fixed_threshold_stays_and_forbids_what_it_does_not_fit() {
    let mut consortium = Consortium::new(2);
    for threshold in [0, 2, 5] {
        assert_eq!(impossible(&mut consortium, policy(Some(threshold))), "threshold_impossible", "{threshold}");
    }
    assert_eq!(impossible(&mut consortium, policy(None)), "nothing_to_change");
    carry_out(&mut consortium, policy(Some(4)));
    assert_eq!(impossible(&mut consortium, exclude("porto")), "threshold_impossible");
    assert_eq!(impossible(&mut consortium, revoke_node("porto/replica")), "threshold_impossible");
    for name in ["porto/second", "porto/third"] {
        carry_out(&mut consortium, admit_node("porto", replica(name)));
        assert_eq!(consortium.state().epoch().threshold, 4, "it is fixed");
    }
    // With four of seven, two dishonest ones could make two heads final.
    assert_eq!(impossible(&mut consortium, admit_node("porto", replica("porto/fourth"))), "threshold_impossible");
    carry_out(&mut consortium, policy(None));
    assert_eq!(consortium.state().epoch().threshold, 4, "the default for six replicas");
    // Five of seven would need one that cannot run yet.
    assert_eq!(impossible(&mut consortium, admit_node("porto", replica("porto/fourth"))), "too_few_voters");
    assert_eq!(impossible(&mut consortium, exclude("basel")), "too_few_voters");
}

#[test]
fn something_is_always_left() {
    let mut consortium = Consortium::new(2);
    for member in ["porto", "turin", "lyon"] {
        carry_out(&mut consortium, exclude(member));
    }
    assert_eq!(impossible(&mut consortium, exclude("basel")), "no_replica_left");
    assert_eq!(impossible(&mut consortium, revoke_node("basel/replica")), "no_replica_left");
    for member in ["office", "insurer"] {
        carry_out(&mut consortium, exclude(member));
    }
    assert_eq!(impossible(&mut consortium, exclude("basel")), "no_member_left");
    assert_eq!(consortium.refused(OFFICE, Command::ProposePlan(plan("heart"))), "revoked_key");
}

#[test]
fn only_sound_members_with_new_keys_are_admitted() {
    let mut consortium = Consortium::new(2);
    let mut refused = |change: &dyn Fn(&mut Member)| {
        let mut member = oslo();
        change(&mut member);
        impossible(&mut consortium, admit(member))
    };
    assert_eq!(refused(&|member| member.id = "porto".to_owned()), "member_exists");
    assert_eq!(refused(&|member| member.id = "Oslo".to_owned()), "invalid_member");
    assert_eq!(refused(&|member| member.name = "x".repeat(TEXT_LENGTH_MAX + 1)), "invalid_member");
    assert_eq!(refused(&|member| member.roles.retain(|role| *role != Role::Replica)), "invalid_member");
    assert_eq!(refused(&|member| member.nodes.truncate(1)), "invalid_member");
    assert_eq!(refused(&|member| member.nodes[1].name = "oslo/replica".to_owned()), "invalid_member");
    assert_eq!(refused(&|member| member.nodes[1].name = "porto/x".to_owned()), "invalid_member");
    assert_eq!(refused(&|member| member.api_key = member.organisation_key), "key_used");
    assert_eq!(refused(&|member| member.api_key = key("turin/replica/cosign").public()), "key_used");
    assert_eq!(refused(&|member| member.nodes[0].transport_key = member.nodes[1].transaction_key), "key_used");
    let unknown = Digest::of(b"unknown").to_string();
    assert_eq!(impossible(&mut consortium, exclude(&unknown)), "unknown_member");
    carry_out(&mut consortium, admit(oslo()));
}

/// Six members, of which four must agree: three approve of one proposal, and two reject another.
fn undecided() -> (Consortium, Digest, Digest) {
    let mut consortium = Consortium::new(2);
    let approved = open(&mut consortium, Action::ChangePolicy { finality_threshold: Some(4) });
    let rejected = open(&mut consortium, exclude("insurer"));
    for member in ["lyon", "office"] {
        consortium.accept(&organisation(member), vote(approved, true));
        consortium.accept(&organisation(member), vote(rejected, false));
    }
    (consortium, approved, rejected)
}

/// Has the hospitals exclude a member.
#[track_caller]
fn exclude_by_hospitals(consortium: &mut Consortium, member: &str) -> Event {
    let command = propose(consortium.state(), exclude(member));
    let Event::Proposed { proposal, .. } = consortium.accept("lyon/organisation", command) else { panic!("decided") };
    for voter in ["basel", "porto"] {
        consortium.accept(&organisation(voter), vote(proposal, true));
    }
    consortium.accept("turin/organisation", vote(proposal, true))
}

#[test]
fn proposals_are_decided_by_the_members_that_are_left() {
    let (mut consortium, approved, rejected) = undecided();
    // Of five members four must agree as well; of four, three.
    consortium.accept("porto/organisation", vote(rejected, true));
    let event = exclude_by_hospitals(&mut consortium, "office");
    let Event::Executed { consequences, .. } = event else { panic!("{event:?}") };
    assert!(consequences.decided.is_empty(), "the office's ballots are gone: {consequences:?}");
    let tally = consortium.state().tally(&approved);
    assert_eq!((tally.members, tally.approvals, tally.needed), (5, 2, 4));
    assert_eq!((consortium.state().tally(&rejected).approvals, consortium.state().tally(&rejected).rejections), (2, 1));
    consortium.accept("porto/organisation", vote(approved, true));
    assert_eq!(status(&consortium, &approved), ProposalStatus::Open, "three of five are too few");
    let number = consortium.state().epoch().number;
    // The insurer has voted on nothing: without it, three approvals are enough.
    let event = exclude_by_hospitals(&mut consortium, "insurer");
    let index = consortium.log.size() - 1;
    let Event::Executed { consequences, .. } = event else { panic!("{event:?}") };
    assert_eq!(consequences.decided, [(approved, ProposalStatus::Executed { index })].into());
    assert_eq!(consequences.superseded, [rejected], "its target is gone");
    assert_eq!(status(&consortium, &approved), ProposalStatus::Executed { index });
    let epoch = consortium.state().epoch();
    assert_eq!((epoch.threshold, epoch.index, epoch.number), (4, index, number + 1));
    assert_eq!(consequences.epoch, epoch.number);
    assert_eq!(consortium.refused("turin/organisation", vote(approved, true)), "proposal_closed");
}

#[test]
fn what_can_no_longer_succeed_is_rejected_with_the_member_that_goes() {
    let (mut consortium, _, rejected) = undecided();
    assert_eq!(status(&consortium, &rejected), ProposalStatus::Open, "two of six may reject");
    let proposal = open(&mut consortium, exclude("turin"));
    for voter in ["insurer", "lyon"] {
        consortium.accept(&organisation(voter), vote(proposal, true));
    }
    let event = consortium.accept("office/organisation", vote(proposal, true));
    let index = consortium.log.size() - 1;
    let Event::Executed { consequences, .. } = event else { panic!("{event:?}") };
    // Five are left: three of them cannot be four.
    assert_eq!(consequences.decided, [(rejected, ProposalStatus::Rejected { index })].into());
    assert_eq!(consortium.refused("porto/organisation", vote(rejected, true)), "proposal_closed");
}

/// Whoever reads the log, or the records that were stored, comes to the same.
#[test]
fn what_an_exclusion_decides_is_the_same_for_all() {
    let mut consortium = Consortium::new(2);
    let second = open(&mut consortium, exclude("office"));
    for voter in ["lyon", "porto"] {
        consortium.accept(&organisation(voter), vote(second, true));
    }
    let third = open(&mut consortium, Action::ChangePolicy { finality_threshold: Some(4) });
    consortium.accept("lyon/organisation", vote(third, true));
    consortium.accept("porto/organisation", vote(third, true));
    // Of six members four must agree, of five four, of four three: both wait for one more member to go.
    let first = open(&mut consortium, exclude("insurer"));
    for voter in ["lyon", "porto"] {
        consortium.accept(&organisation(voter), vote(first, true));
    }
    let event = consortium.accept("turin/organisation", vote(first, true));
    let Event::Executed { consequences, .. } = event else { panic!("{event:?}") };
    assert!(consequences.decided.is_empty(), "three of five are too few: {consequences:?}");
    let event = consortium.accept("turin/organisation", vote(second, true));
    let index = consortium.log.size() - 1;
    let Event::Executed { proposal, consequences, .. } = event else { panic!("{event:?}") };
    assert_eq!(proposal, second);
    assert_eq!(consequences.decided, [(third, ProposalStatus::Executed { index })].into());
    let history = fedledger_federation::history::History::read(&consortium.source(), Default::default(), 1).unwrap();
    assert_eq!(history.state().digest(), consortium.state().digest());
    let restored = Log::<Federation>::load(&consortium.stored()).unwrap().unwrap();
    assert_eq!(restored.machine().digest(), consortium.state().digest());
    assert_eq!(restored.machine().open_proposals(index).count(), 0);
}
