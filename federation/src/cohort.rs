//! Selection of participants: anybody can check that a cohort was not hand-picked.

use fedledger_ledger::{Digest, codec};

use crate::{command::RoundKey, member::MemberId};

/// The participants of a round: all of `enrolled`, or `size` of them drawn by a hash that nobody can steer once the plan and
/// the base version stand.
///
/// Members that the plan requires are in it, as far as they are enrolled; lots are drawn for the other places.
///
/// The draw takes the members with the smallest SHA-256(seed || member id), where seed = SHA-256("fedledger/v1/cohort" ||
/// plan || base weights || round || attempt), the numbers as eight big-endian bytes. The result is in the order of ids.
pub fn draw(
    enrolled: &[MemberId],
    required: &[MemberId],
    size: Option<u64>,
    key: &RoundKey,
    base_weights: &Digest,
) -> Vec<MemberId> {
    let size = size.map_or(enrolled.len(), |size| usize::try_from(size).unwrap_or(usize::MAX));
    if size >= enrolled.len() {
        return enrolled.to_vec();
    }
    let seed = Digest::of_parts(&[
        b"fedledger/v1/cohort",
        key.plan.as_bytes(),
        base_weights.as_bytes(),
        &key.round.to_be_bytes(),
        &key.attempt.to_be_bytes(),
    ]);
    let lot = |member: &MemberId| Digest::of_parts(&[seed.as_bytes(), member.as_bytes()]);
    let mut lots: Vec<(bool, Digest, &MemberId)> =
        enrolled.iter().map(|member| (!required.contains(member), lot(member), member)).collect();
    lots.sort();
    let mut cohort: Vec<MemberId> = lots.into_iter().take(size).map(|(_, _, member)| member.clone()).collect();
    cohort.sort();
    cohort
}

/// SHA-256 of the canonical encoding of a cohort, which is a list of ids in their order.
pub fn digest(cohort: &[MemberId]) -> Digest {
    Digest::of(&codec::encode(&cohort))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn enrolled(count: usize) -> Vec<MemberId> {
        (0..count).map(|i| format!("site-{i:03}")).collect()
    }

    fn key(round: u64) -> RoundKey {
        RoundKey { plan: Digest::of(b"plan"), round, attempt: 1 }
    }

    #[test]
    fn everybody_takes_part_unless_the_plan_wants_fewer() {
        let base = Digest::of(b"base");
        assert_eq!(draw(&enrolled(5), &[], None, &key(1), &base), enrolled(5));
        assert_eq!(draw(&enrolled(5), &[], Some(9), &key(1), &base), enrolled(5));
    }

    #[test]
    fn the_draw_depends_on_round_and_base_and_on_nothing_else() {
        let base = Digest::of(b"base");
        let first = draw(&enrolled(100), &[], Some(10), &key(1), &base);
        assert_eq!(first, draw(&enrolled(100), &[], Some(10), &key(1), &base));
        assert_ne!(first, draw(&enrolled(100), &[], Some(10), &key(2), &base));
        assert_ne!(first, draw(&enrolled(100), &[], Some(10), &key(1), &Digest::of(b"other")));
        assert!(first.is_sorted() && first.len() == 10);
    }

    #[test]
    fn a_cohort_is_named_by_its_members_in_their_order() {
        // A list of two texts of eight bytes each (RFC 8949, section 3.1).
        assert_eq!(digest(&enrolled(2)), Digest::of(b"\x82\x68site-000\x68site-001"));
        assert_ne!(digest(&enrolled(2)), digest(&enrolled(3)));
    }

    #[test]
    fn who_is_required_is_always_drawn() {
        let required = ["site-003".to_owned(), "site-017".to_owned(), "stranger".to_owned()];
        for round in 1..=50 {
            let cohort = draw(&enrolled(20), &required, Some(4), &key(round), &Digest::of(b"base"));
            assert!(cohort.len() == 4 && required[..2].iter().all(|member| cohort.contains(member)), "{cohort:?}");
            assert!(cohort.is_sorted() && !cohort.contains(&required[2]));
        }
    }

    #[test]
    fn the_draw_is_fair() {
        let mut counts = BTreeMap::<MemberId, u32>::new();
        for round in 1..=2000 {
            for member in draw(&enrolled(20), &[], Some(5), &key(round), &Digest::of(b"base")) {
                *counts.entry(member).or_default() += 1;
            }
        }
        // 500 expected per member, standard deviation 19: five of them either way.
        assert!(counts.len() == 20 && counts.values().all(|count| (405..=595).contains(count)), "{counts:?}");
    }
}
