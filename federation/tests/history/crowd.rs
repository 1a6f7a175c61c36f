//! Rounds with as many members as a consortium can have: transactions and records stay within their bounds.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, Federation, cohort,
    command::{Contribute, OpenRound, RoundKey},
    conductor::{Conductor, Duty, Report},
    limits::{MEMBERS_MAX, NAME_LENGTH_MAX, PAYLOAD_SIZE_BYTES_MAX, RECORD_SIZE_BYTES_MAX},
    member::MemberId,
    records::{Consent, Participation, PlanRecord},
};
use fedledger_ledger::{
    Digest, codec,
    machine::{StateMachine as _, WriteSet},
    storage::{Column, scan_all},
};

use crate::consortium::{Consortium, key, metrics, plan};

const REPLICA: &str = "basel/replica";

/// As many ids as there can be, as long as they can be.
fn crowd() -> Vec<MemberId> {
    (0..MEMBERS_MAX).map(|i| format!("{i:0>width$}", width = NAME_LENGTH_MAX)).collect()
}

/// The state of a consortium, with records of the test's own in place of or beside its own.
fn restored(consortium: &Consortium, replaced: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Federation {
    let records = scan_all(&consortium.storage, Column::State, Vec::new()).map(Result::unwrap);
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = records.collect();
    records.extend(replaced);
    Federation::restore(&mut records.into_iter()).unwrap()
}

fn record<K: serde::Serialize, V: serde::Serialize>(tag: u8, key: &K, value: &V) -> (Vec<u8>, Vec<u8>) {
    ([vec![tag], codec::encode(key)].concat(), codec::encode(value))
}

/// A state in which the crowd has consented to the plan that is next to be opened.
fn consented() -> (Federation, Digest) {
    let (consortium, id) = Consortium::ready_for(2, plan("crowd"));
    let mut enrolled: PlanRecord = consortium.state().plans().get(&id).unwrap().clone();
    enrolled.consents = crowd().into_iter().map(|member| (member, Consent { index: 1, examples: None })).collect();
    (restored(&consortium, [record(1, &id, &enrolled)]), id)
}

/// The one command that a conductor wants.
fn wanted(conductor: &mut Conductor, state: &Federation, now_ms: u64) -> Command {
    let duties = conductor.step(state, true, now_ms);
    let mut commands = duties.into_iter().filter_map(|duty| match duty {
        Duty::Submit(command) => Some(command),
        _ => None,
    });
    let command = commands.next().unwrap();
    assert_eq!(commands.next(), None);
    assert!(command.payload().len() <= PAYLOAD_SIZE_BYTES_MAX, "{} bytes", command.payload().len());
    command
}

fn accept(state: &mut Federation, index: u64, command: &Command) {
    let author = key(REPLICA).public();
    state.apply(index, &author, command.kind(), &command.payload(), &mut WriteSet::default()).unwrap();
}

#[test]
fn a_round_is_opened_for_as_many_as_there_can_be() {
    let (mut state, id) = consented();
    let command = wanted(&mut Conductor::new(REPLICA), &state, 0);
    let Command::OpenRound(OpenRound { key, cohort, .. }) = &command else { panic!("{command:?}") };
    assert_eq!(*cohort, cohort::digest(&crowd()));
    accept(&mut state, 1_000, &command);
    let round = state.rounds().get(key).unwrap();
    assert_eq!((key.plan, &round.cohort), (id, &crowd()));
    assert!(codec::encode(round).len() <= RECORD_SIZE_BYTES_MAX / 4, "there is room for who has consented meanwhile");
}

/// A contribution that the state takes for that of a member.
fn contribution(key: RoundKey, state: &Federation, member: &MemberId) -> Participation {
    let contribution = Contribute {
        key,
        base: state.rounds().get(&key).unwrap().base,
        update: Digest::of(member.as_bytes()),
        size: 1,
        examples: 1,
        metrics: metrics(),
        data_manifest: Digest::default(),
        environment: Digest::default(),
        software: String::new(),
        skipped_rows: BTreeMap::new(),
        trainer: None,
    };
    Participation::Contributed { index: 1_001, joined_index: 1_000, contribution: Box::new(contribution) }
}

#[test]
fn an_attempt_of_which_too_many_would_have_to_be_named_is_given_up() {
    for spoilt in [2, MEMBERS_MAX - 2] {
        let (mut consortium, id) = Consortium::ready_for(2, plan("crowd"));
        let key = consortium.open_round(&id);
        let mut round = consortium.state().rounds().get(&key).unwrap().clone();
        round.cohort = crowd();
        let contributed = crowd().into_iter().map(|member| {
            let contribution = contribution(key, consortium.state(), &member);
            record(3, &(key, member), &contribution)
        });
        let mut state = restored(&consortium, contributed.chain([record(2, &key, &round)]));
        let mut conductor = Conductor::new(REPLICA);
        for duty in conductor.step(&state, true, 0) {
            let Duty::Check { key, update } = duty else { continue };
            let nth: usize = update.member.parse().unwrap();
            let verdict = if nth < spoilt { Err("not_finite".to_owned()) } else { Ok(()) };
            conductor.report(Report::Checked { key, member: update.member, verdict }, 0);
        }
        let command = wanted(&mut conductor, &state, 0);
        match &command {
            Command::CloseRound(close) => assert_eq!((close.excluded.len(), spoilt), (2, 2)),
            Command::AbandonRound(abandon) => {
                assert_eq!((abandon.reason.as_str(), spoilt), ("too_many_excluded", MEMBERS_MAX - 2));
            }
            other => panic!("{other:?}"),
        }
        accept(&mut state, 2_000, &command);
    }
}
