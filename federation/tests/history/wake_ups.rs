//! When a conductor asks to be woken although nothing happens: at the times that matter, and never at once again.

use fedledger_federation::{
    Command,
    command::AbandonRound,
    conductor::{Conductor, Duty, Report},
};

use crate::{
    consortium::{Consortium, SITES},
    retention,
};

/// How long a plan of these tests collects contributions, in milliseconds.
const ROUND_DURATION_MS: u64 = 30_000;

/// The wait before anything is tried again that failed, in milliseconds.
const RETRY_MS: u64 = 500;

/// The wait before files are deleted again that could not be, in milliseconds.
const DISCARD_RETRY_MS: u64 = 10_000;

/// More often than this nobody is woken in these tests.
const WAKES_MAX: usize = 1000;

/// Times a conductor asks to be woken until a time, if the ledger stays as it is and `answer` says what becomes of duties:
/// nothing yet if it is none.
fn wakes(
    consortium: &Consortium,
    leads: bool,
    until_ms: u64,
    mut answer: impl FnMut(Duty) -> Option<Report>,
) -> Vec<u64> {
    let mut conductor = Conductor::new("turin/replica");
    let (mut wakes, mut now_ms) = (Vec::new(), 0);
    loop {
        // Every report is looked at at once, as the replica does it.
        loop {
            let duties = conductor.step(consortium.state(), leads, now_ms);
            let reports: Vec<Report> = duties.into_iter().filter_map(&mut answer).collect();
            if reports.is_empty() {
                break;
            }
            reports.into_iter().for_each(|report| conductor.report(report, now_ms));
        }
        let Some(at_ms) = conductor.wake_at().filter(|at_ms| *at_ms <= until_ms) else { return wakes };
        assert!(at_ms > now_ms, "it asks to be woken at {at_ms} ms, which it was just now: {wakes:?}");
        wakes.push(at_ms);
        assert!(wakes.len() < WAKES_MAX, "it does not come to rest: {wakes:?}");
        now_ms = at_ms;
    }
}

fn never(_: Duty) -> Option<Report> {
    None
}

/// Whatever is asked for fails.
fn failed(duty: Duty) -> Option<Report> {
    Some(match duty {
        Duty::Submit(command) => Report::Submitted { command, accepted: false },
        Duty::Check { key, update } => Report::CheckFailed { key, member: update.member },
        Duty::Obtain { number, .. } => Report::Obtained { number, complete: false },
        Duty::Discard { last_index, .. } => Report::Discarded { last_index, complete: false },
        Duty::Compute(recipe) => Report::ComputeFailed { key: recipe.key, permanent: None },
    })
}

fn every(distance_ms: u64, until_ms: u64) -> Vec<u64> {
    (1..=until_ms / distance_ms).map(|count| count * distance_ms).collect()
}

/// A round to which one member has contributed; the version before it is here.
fn collecting() -> Consortium {
    let (mut consortium, plan) = Consortium::ready(4);
    let key = consortium.open_round(&plan);
    consortium.join_and_contribute(&key, "porto");
    consortium
}

/// Files of earlier versions are here, and updates cannot be checked.
fn only_checks(duty: Duty) -> Option<Report> {
    match duty {
        Duty::Obtain { number, .. } => Some(Report::Obtained { number, complete: true }),
        Duty::Check { .. } => failed(duty),
        Duty::Submit(_) | Duty::Discard { .. } | Duty::Compute(_) => None,
    }
}

#[test]
fn a_leader_is_woken_at_the_deadline_and_when_checks_are_no_longer_waited_for() {
    let consortium = collecting();
    assert_eq!(wakes(&consortium, true, u64::MAX, never), [ROUND_DURATION_MS, 2 * ROUND_DURATION_MS]);
    assert!(wakes(&consortium, false, u64::MAX, never).is_empty(), "only a leader keeps the time");
}

#[test]
fn checks_that_failed_are_tried_again_in_time_by_everybody() {
    let consortium = collecting();
    let until_ms = 400 * RETRY_MS;
    assert_eq!(wakes(&consortium, false, until_ms, only_checks), every(RETRY_MS, until_ms));
    // When the time is over, nothing is tried again: the leader has asked for the end of the round.
    let until_deadline = every(RETRY_MS, ROUND_DURATION_MS);
    let of_leader = wakes(&consortium, true, u64::MAX, only_checks);
    assert!(of_leader.starts_with(&until_deadline), "{of_leader:?}");
    assert_eq!(of_leader.last(), Some(&(2 * ROUND_DURATION_MS)), "{of_leader:?}");
}

#[test]
fn versions_are_computed_again_in_time() {
    let (mut consortium, plan) = Consortium::ready(2);
    let key = consortium.open_round(&plan);
    for site in &SITES[..2] {
        consortium.join_and_contribute(&key, site);
    }
    consortium.close(&key, &[]);
    let only_computing = |duty: Duty| match duty {
        Duty::Compute(_) => failed(duty),
        Duty::Obtain { number, .. } => Some(Report::Obtained { number, complete: true }),
        Duty::Submit(_) | Duty::Check { .. } | Duty::Discard { .. } => None,
    };
    let until_ms = 100 * RETRY_MS;
    assert_eq!(wakes(&consortium, false, until_ms, only_computing), every(RETRY_MS, until_ms));
    assert!(wakes(&consortium, false, u64::MAX, never).is_empty(), "what is under way is waited for");
}

#[test]
fn commands_that_nobody_took_are_tried_again_in_time() {
    let (consortium, _) = Consortium::ready(4);
    let until_ms = 100 * RETRY_MS;
    let only_submitting = |duty: Duty| match duty {
        Duty::Submit(_) => failed(duty),
        _ => only_checks(duty),
    };
    assert_eq!(wakes(&consortium, true, until_ms, only_submitting), every(RETRY_MS, until_ms));
    assert!(wakes(&consortium, false, u64::MAX, only_submitting).is_empty(), "only a leader opens rounds");
}

#[test]
fn files_that_nobody_has_are_looked_for_ever_more_seldom() {
    let consortium = Consortium::with_history(2);
    let day_ms = 24 * 3600 * 1000;
    let found = wakes(&consortium, false, day_ms, failed);
    let waits: Vec<u64> = std::iter::once(&0).chain(&found).zip(&found).map(|(one, next)| next - one).collect();
    let expected = [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 3_600_000];
    assert_eq!(waits[..expected.len()], expected);
    assert!(waits[expected.len()..].iter().all(|wait_ms| *wait_ms == 3_600_000), "{waits:?}");
}

#[test]
fn files_that_cannot_be_deleted_are_tried_again_in_time() {
    let (mut consortium, plan) = Consortium::ready(3);
    for _ in 0..3 {
        consortium.run_round(&plan);
    }
    retention::decide(&mut consortium, 1, None);
    assert!(!retention::prune_all(&mut consortium).is_empty());
    let only_discarding = |duty: Duty| match duty {
        Duty::Discard { .. } => failed(duty),
        Duty::Obtain { number, .. } => Some(Report::Obtained { number, complete: true }),
        Duty::Submit(_) | Duty::Check { .. } | Duty::Compute(_) => None,
    };
    assert_eq!(
        wakes(&consortium, false, 10 * DISCARD_RETRY_MS, only_discarding),
        every(DISCARD_RETRY_MS, 10 * DISCARD_RETRY_MS)
    );
}

#[test]
fn another_attempt_is_waited_for_once() {
    let (mut consortium, plan) = Consortium::ready(4);
    for (failures, patience_ms) in [(1, 1_000), (2, 2_000)] {
        let key = consortium.open_round(&plan);
        let abandon = AbandonRound { key, reason: "below_quorum".to_owned(), excluded: Default::default() };
        consortium.accept("basel/replica", Command::AbandonRound(abandon));
        assert_eq!(wakes(&consortium, true, u64::MAX, never), [patience_ms], "after {failures} failures");
    }
}
