//! What is in a running sum, and that what turns out to be unusable is not.

use proptest::prelude::*;

use super::*;

/// Over several segments of the sum, the last of them not full.
const LENGTH: usize = 20_000;

fn aggregation() -> Aggregation {
    vector(FED_AVG, LENGTH, 4, 8)
}

/// An update of moderate values that differ by element and `seed`.
fn update(seed: usize) -> Vec<f32> {
    (0..LENGTH).map(|element| ((element * 31 + seed * 7) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn sums(sum: &RunningSum) -> Vec<i64> {
    let mut sums = vec![0; LENGTH];
    sum.copy_to(0, &mut sums);
    sums
}

#[test]
fn nobody_is_in_a_sum_twice() {
    let sum = RunningSum::new(aggregation()).unwrap();
    let file = file(&update(1));
    let first = sum.begin(term(1, 1, &file)).unwrap().unwrap();
    assert!(sum.begin(term(1, 1, &file)).unwrap().is_none(), "one is on its way");
    assert_eq!(sum.terms(), None, "nobody knows yet what is in the sum");
    drop(first);
    assert_eq!(sum.terms(), Some(vec![]), "nothing of it had been added");
    add(&sum, term(1, 1, &file), &file, 5000).unwrap();
    assert!(sum.begin(term(1, 2, &file)).unwrap().is_none(), "one is there");
    assert_eq!(sum.terms(), Some(vec![term(1, 1, &file)]));
    assert!(sum.begin_removal(&term(1, 2, &file)).is_none(), "with another weight it is not there");
}

#[test]
fn nothing_gets_into_a_sum_that_is_being_read() {
    let sum = RunningSum::new(aggregation()).unwrap();
    let file = file(&update(1));
    add(&sum, term(1, 1, &file), &file, 5000).unwrap();
    let late = sum.begin(term(2, 3, &file)).unwrap().unwrap();
    let wanted = std::collections::BTreeSet::from([term(1, 1, &file)]);
    assert!(!sum.close(&wanted), "one is on its way");
    drop(late);
    assert!(
        !sum.close(&std::collections::BTreeSet::from([term(1, 2, &file)])),
        "with another weight it is another sum"
    );
    assert!(sum.close(&wanted) && sum.close(&wanted));
    assert!(sum.begin(term(2, 3, &file)).unwrap().is_none());
    assert!(sum.begin_removal(&term(1, 1, &file)).is_none());
    assert_eq!(sum.terms(), Some(vec![term(1, 1, &file)]));
}

#[test]
fn an_update_that_breaks_off_spoils_the_sum_unless_it_is_taken_back() {
    let file = file(&update(1));
    let half = &file[..file.len() / 2];
    let begun = |sum: &RunningSum| {
        add(sum, term(2, 3, &file), &file, 999).unwrap();
        let before = sums(sum);
        let mut addition = sum.begin(term(1, 1, &file)).unwrap().unwrap();
        addition.push(half).unwrap();
        assert!(addition.finish().is_err());
        (before, addition.take_back(&file[..]))
    };
    let sum = RunningSum::new(aggregation()).unwrap();
    let (before, taken_back) = begun(&sum);
    taken_back.unwrap();
    assert_eq!(sums(&sum), before);
    assert_eq!(sum.terms(), Some(vec![term(2, 3, &file)]));

    let mut addition = sum.begin(term(1, 1, &file)).unwrap().unwrap();
    addition.push(half).unwrap();
    drop(addition);
    assert_eq!(sum.terms(), None);
    assert!(sum.begin(term(3, 1, &file)).unwrap().is_none(), "a spoilt sum takes nothing more");
    assert!(sum.begin_removal(&term(2, 3, &file)).is_none());
}

#[test]
fn what_has_changed_meanwhile_is_not_taken_back() {
    let original = file(&update(1));
    let other = file(&update(2));
    let shorter = &original[..original.len() - 100];
    let garbage = vec![0xff; original.len()];
    for changed in [&other[..], shorter, &garbage] {
        let sum = RunningSum::new(aggregation()).unwrap();
        let mut addition = sum.begin(term(1, 1, b"another file")).unwrap().unwrap();
        addition.push(&original).unwrap();
        let found = Digest::of(&original);
        assert_eq!(addition.finish(), Err(AdditionError::Digest { found }));
        addition.take_back(changed).unwrap();
        assert_eq!(sum.terms(), None, "the sum is spoilt and says so");
    }
}

#[test]
fn unusable_values_anywhere_leave_the_sum_as_it_was() {
    let good = file(&update(1));
    for (element, value) in [(0, f32::NAN), (9000, f32::INFINITY), (16_384, f32::MAX), (LENGTH - 1, -f32::MAX)] {
        let mut values = update(2);
        // Values that are encoded in the exact way stand in many blocks before it.
        values.iter_mut().step_by(777).for_each(|value| *value *= 8192.0);
        values[element] = value;
        let bad = file(&values);
        let sum = RunningSum::new(aggregation()).unwrap();
        add(&sum, term(1, 4, &good), &good, 4096).unwrap();
        let before = sums(&sum);
        let mut addition = sum.begin(term(2, 3, &bad)).unwrap().unwrap();
        let refused = bad.chunks(1111).try_for_each(|chunk| addition.push(chunk)).unwrap_err();
        let expected = if value.is_finite() {
            EncodeError::TooLarge { tensor: "w".into(), element }
        } else {
            EncodeError::NotFinite { tensor: "w".into(), element }
        };
        assert_eq!(refused, expected.into());
        addition.take_back(&bad[..]).unwrap();
        assert_eq!(sums(&sum), before);
        assert_eq!(sum.terms(), Some(vec![term(1, 4, &good)]));
    }
}

#[test]
fn a_removal_that_fails_is_undone_or_spoils_the_sum() {
    let (one, other) = (file(&update(1)), file(&update(2)));
    let sum = RunningSum::new(aggregation()).unwrap();
    add(&sum, term(1, 1, &one), &one, 4096).unwrap();
    let before = sums(&sum);
    let mut removal = sum.begin_removal(&term(1, 1, &one)).unwrap();
    removal.push(&other).unwrap();
    assert!(removal.finish().is_err(), "it is another file");
    removal.take_back(&other[..]).unwrap();
    assert_eq!((sums(&sum), sum.terms()), (before, Some(vec![term(1, 1, &one)])));
    drop(sum.begin_removal(&term(1, 1, &one)).unwrap());
    assert_eq!(sum.terms(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_sum_is_that_of_what_is_left_in_it(
        removed in prop::collection::vec(any::<bool>(), 1..8),
        chunk_size in 1000_usize..100_000,
    ) {
        let files: Vec<_> = (0..removed.len()).map(|seed| file(&update(seed))).collect();
        let (sum, expected) = (RunningSum::new(aggregation()).unwrap(), RunningSum::new(aggregation()).unwrap());
        for (index, file) in files.iter().enumerate() {
            add(&sum, term(index, 2, file), file, chunk_size).unwrap();
        }
        for (index, (file, removed)) in files.iter().zip(removed).enumerate() {
            let term = term(index, 2, file);
            if removed {
                let mut removal = sum.begin_removal(&term).unwrap();
                file.chunks(chunk_size).try_for_each(|chunk| removal.push(chunk)).unwrap();
                removal.finish().unwrap();
            } else {
                add(&expected, term, file, 4096).unwrap();
            }
        }
        prop_assert_eq!(sum.terms(), expected.terms());
        prop_assert_eq!(sums(&sum), sums(&expected));
    }
}
