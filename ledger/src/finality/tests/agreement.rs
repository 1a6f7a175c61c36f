//! What holds in every order: the same notes end in the same result, and no two replicas see contradicting heads final.

use proptest::prelude::*;

use super::*;

/// What a replica is told.
#[derive(Debug, Clone)]
enum Told {
    Seal(u64),
    Note(u64, Digest, Vec<u64>),
}

fn tell(finality: &mut Finality, epoch: &Arc<Epoch>, told: &Told) -> Vec<Finding> {
    match told {
        Told::Seal(size) => seal(finality, epoch, *size),
        Told::Note(size, root, ids) => match finality.offer(&note(*size, *root, ids)) {
            Ok(Offered::Taken(findings)) => findings,
            Ok(Offered::Elsewhere(..)) | Err(OfferError::NoCosignature) => Vec::new(),
            Err(error) => panic!("{error}"),
        },
    }
}

/// Three heads in their order, and notes about them before, between and after; nobody signs two roots of one size.
fn story() -> impl Strategy<Value = (Vec<Told>, Vec<usize>)> {
    let signers = prop::sample::subsequence(vec![1, 2, 3, 4, 8, 9], 1..=6);
    let notes = prop::collection::vec((1..=3u64, any::<bool>(), signers), 1..10);
    // Who is wrong about which head.
    let wrong = prop::collection::btree_set((1..=3u64, 1..=4u64), 0..4);
    let notes = (notes, wrong).prop_map(|(notes, wrong)| {
        let note = |(size, is_wrong, ids): (u64, bool, Vec<u64>)| {
            let ids: Vec<u64> = ids.into_iter().filter(|id| wrong.contains(&(size, *id)) == is_wrong).collect();
            let root = root(if is_wrong { "wrong" } else { "right" });
            (!ids.is_empty()).then_some(Told::Note(size * 10, root, ids))
        };
        notes.into_iter().filter_map(note).collect::<Vec<_>>()
    });
    (notes, prop::collection::vec(any::<usize>(), 40))
}

/// The notes, some of them twice, in an order that `places` gives, with the heads sealed in between.
fn arrange(notes: &[Told], places: &[usize], twice: usize) -> Vec<Told> {
    let mut all = notes.to_vec();
    all.extend(notes.iter().take(twice).cloned());
    let mut arranged: Vec<Told> = Vec::new();
    for (told, place) in all.into_iter().zip(places) {
        arranged.insert(place % (arranged.len() + 1), told);
    }
    let mut after = 0;
    for (number, place) in (1..=3).zip(places.iter().rev()) {
        after += place % (arranged.len() - after + 1);
        arranged.insert(after, Told::Seal(number * 10));
        after += 1;
    }
    arranged
}

/// What a replica knows in the end.
fn outcome(epoch: &Arc<Epoch>, told: &[Told]) -> (u64, u64, Option<Vec<String>>) {
    let mut finality = begin(epoch);
    for told in told {
        tell(&mut finality, epoch, told);
    }
    // Notes that came after the next head, too: each is told once more in the end, as gossip does.
    for told in told.iter().filter(|told| matches!(told, Told::Note(..))) {
        tell(&mut finality, epoch, told);
    }
    let signers = finality.final_note().map(|note| {
        let note = SignedNote::parse(&note).unwrap();
        let mut names: Vec<String> = note.signatures().iter().map(|line| line.name().to_owned()).collect();
        names.sort_unstable();
        names
    });
    (finality.final_size(), finality.unanimous_size(), signers)
}

/// Two replicas whose logs differ: the honest others have signed the one root or the other, the liars both. All notes
/// reach both of them, in different orders.
fn contradicts(n: u64, threshold: u64, liars: u64, sides: &[bool], orders: [&[usize]; 2]) -> bool {
    let epoch = Arc::new(epoch(0, threshold, 1..=n));
    let (one, other) = (root("right"), root("other"));
    let mut notes = Vec::new();
    for (id, side) in (1..=n).zip(sides) {
        let roots = if id <= liars { vec![one, other] } else { vec![if *side { one } else { other }] };
        notes.extend(roots.into_iter().map(|root| (root, id)));
    }
    let is_final = |own: Digest, order: &[usize]| {
        let mut finality = begin(&epoch);
        let (of, next_epoch) = (Arc::clone(&epoch), Arc::clone(&epoch));
        finality.sealed(&SealedHead { size: 10, root: own, epoch: of, next_epoch }).unwrap();
        let mut arranged = Vec::new();
        for (told, place) in notes.iter().zip(order) {
            arranged.insert(place % (arranged.len() + 1), *told);
        }
        for (root, id) in arranged {
            findings(&mut finality, &note(10, root, &[id]));
        }
        finality.final_size() == 10
    };
    is_final(one, orders[0]) && is_final(other, orders[1])
}

/// n, f, and the threshold ceil((n + f + 1) / 2).
fn sizes() -> impl Strategy<Value = (u64, u64, u64)> {
    prop::sample::select(vec![(4u64, 1), (5, 1), (5, 2), (7, 2), (7, 3)])
        .prop_map(|(n, f)| (n, f, (n + f + 1).div_ceil(2)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_the_same_notes_ends_in_the_same_result(
        (notes, places) in story(), other in prop::collection::vec(any::<usize>(), 40), twice in 0..10usize
    ) {
        let epoch = consortium();
        let first = outcome(&epoch, &arrange(&notes, &places, 0));
        let second = outcome(&epoch, &arrange(&notes, &other, twice));
        prop_assert_eq!(first, second);
    }

    #[test]
    fn liars_never_make_two_contradicting_heads_final(
        (n, f, threshold) in sizes(),
        sides in prop::collection::vec(any::<bool>(), 7),
        orders in prop::collection::vec(any::<usize>(), 28),
    ) {
        let (one, other) = orders.split_at(14);
        prop_assert!(!contradicts(n, threshold, f, &sides, [one, other]));
    }
}

/// Every way in which the honest ones can be divided, and that the threshold is what prevents the contradiction.
#[test]
fn the_threshold_is_the_smallest_that_excludes_contradictions() {
    let orders = [0; 14];
    for (n, f) in [(4u64, 1), (5, 1), (5, 2), (7, 2)] {
        let threshold = (n + f + 1).div_ceil(2);
        let any = |threshold| {
            (0..1u64 << n).any(|mask| {
                let sides: Vec<bool> = (0..n).map(|bit| mask >> bit & 1 == 1).collect();
                contradicts(n, threshold, f, &sides, [&orders, &orders])
            })
        };
        assert!(!any(threshold), "{n} replicas, {f} liars");
        assert!(any(threshold - 1), "{n} replicas, {f} liars: a lower threshold would do");
    }
}
