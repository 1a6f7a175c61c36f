//! Certificates: everyone enrolled, what became of them, why and when; also of attempts that were given up.

use fedledger_federation::{
    Command, Event,
    command::{AbandonRound, CloseRound, DeclineRound, JoinRound},
    history::{History, Keep},
};

use crate::consortium::{Consortium, SITES};

const REPLICA: &str = "basel/replica";

/// A round in which everybody does something else, and the indexes of what they did.
fn eventful() -> (Consortium, fedledger_federation::command::RoundKey) {
    let (mut consortium, id) = Consortium::ready(4);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.accept("lyon/participant", Command::JoinRound(JoinRound { key }));
    let decline = DeclineRound { key, reason: "out of memory".to_owned() };
    consortium.accept("lyon/participant", Command::DeclineRound(decline));
    consortium.join_and_contribute(&key, "porto");
    consortium.accept("turin/participant", Command::JoinRound(JoinRound { key }));
    (consortium, key)
}

#[test]
fn a_certificate_tells_who_when_and_why() {
    let (mut consortium, key) = eventful();
    let opened = consortium.state().rounds().get(&key).unwrap().opened_index;
    let Event::RoundClosed { certificate, .. } = consortium.close(&key, &[]) else { panic!("it was not closed") };
    assert_eq!(
        (&certificate.enrolled[..], &certificate.selected[..]),
        (&SITES.map(str::to_owned)[..], &SITES.map(str::to_owned)[..])
    );
    assert_eq!(certificate.joined, ["basel", "porto", "turin"]);
    assert_eq!(certificate.contributed, ["basel", "porto"]);
    assert_eq!(certificate.declined["lyon"], "out of memory");
    assert_eq!(certificate.missing["turin"], "not_contributed");
    assert_eq!((certificate.opened_index, certificate.ended_index), (opened, Some(consortium.log.size() - 1)));
    let steps = |site: &str| {
        let steps = certificate.steps[site];
        [steps.joined, steps.declined, steps.contributed].map(|index| index.map(|index| index - opened))
    };
    assert_eq!(steps("basel"), [Some(1), None, Some(2)]);
    assert_eq!(steps("lyon"), [Some(3), Some(4), None]);
    assert_eq!(steps("porto"), [Some(5), None, Some(6)]);
    assert_eq!(steps("turin"), [Some(7), None, None]);
    assert_eq!(consortium.state().certificate(&key), Some(certificate.clone()), "it stays what it was");
    consortium.commit_and_attest(&key);
    assert_eq!(consortium.state().certificate(&key), Some(certificate));
}

#[test]
fn an_attempt_that_was_given_up_has_a_certificate_too() {
    let (mut consortium, key) = eventful();
    let excluded = [("porto".to_owned(), "blob_lost".to_owned())].into();
    let abandon = AbandonRound { key, reason: "below_quorum".to_owned(), excluded };
    let event = consortium.accept(REPLICA, Command::AbandonRound(abandon));
    let Event::RoundAbandoned { certificate, .. } = event else { panic!("{event:?}") };
    assert_eq!(certificate.contributed, ["basel"]);
    assert_eq!(certificate.excluded["porto"], "blob_lost");
    assert_eq!((certificate.quorum.contributed, certificate.quorum.needed), (1, 2));
    assert_eq!(certificate.ended_index, Some(consortium.log.size() - 1));
    assert_eq!(consortium.state().certificate(&key), Some(certificate));
}

#[test]
fn what_was_refused_and_when_things_were_sealed_is_read_from_the_history() {
    let (mut consortium, key) = eventful();
    let sealed = consortium.seal();
    let again = consortium.contribution(&key, "basel");
    assert_eq!(consortium.refused("basel/participant", Command::Contribute(again)), "already_contributed");
    let close = CloseRound { key, through: u64::MAX, excluded: Default::default() };
    consortium.accept(REPLICA, Command::CloseRound(close));
    let late = consortium.contribution(&key, "turin");
    assert_eq!(consortium.refused("turin/participant", Command::Contribute(late)), "round_closed");
    let last = consortium.seal();
    let history = History::read(&consortium.source(), Keep::State, 1).unwrap();
    let refused: Vec<_> =
        history.refused[&key].iter().map(|refused| (refused.member.as_str(), refused.code.as_str())).collect();
    assert_eq!(refused, [("basel", "already_contributed"), ("turin", "round_closed")]);
    assert_eq!(history.refused[&key][1].index, last - 1);
    let time_of = |index: u64| history.times.of(index);
    let opened = consortium.state().rounds().get(&key).unwrap().opened_index;
    assert_eq!((time_of(opened), time_of(sealed - 1)), (time_of(sealed), time_of(sealed)), "the first seal after it");
    assert!(time_of(sealed).unwrap() < time_of(last).unwrap());
    assert_eq!(time_of(last + 1), None, "no seal has come since");
}
