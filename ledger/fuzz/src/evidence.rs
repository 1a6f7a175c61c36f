//! Evidence: it convicts whoever lied, and never whoever did not, however it is put together.

use fedledger_ledger::evidence::{Evidence, EvidenceError, Prefix};

use super::{
    choices::Choices,
    history::{History, SIZE, honest_key, liar_key, lie},
};

/// Reads the bytes as evidence, and puts some together from true heads and lies.
pub fn run(data: &[u8]) {
    if let Ok(evidence) = Evidence::from_bytes(data) {
        assert_eq!(evidence.to_bytes(), data, "evidence has one encoding");
        let (first, second) = (evidence.first().clone(), evidence.second().clone());
        let swapped = Evidence::new(second, first, evidence.prefix().cloned());
        assert_eq!(swapped.as_ref(), Ok(&evidence), "the order of the notes does not matter");
        acquits_the_honest(&evidence);
    }
    build(&mut Choices::new(data));
}

/// The honest key signs one history only.
fn acquits_the_honest(evidence: &Evidence) {
    assert!(evidence.verify(&[honest_key()]).is_err(), "who signed one history was convicted");
}

fn build(choices: &mut Choices<'_>) {
    let log = History::get();
    let (a, b) = (choices.number_below(SIZE + 1), choices.number_below(SIZE + 1));
    let (old, new) = (a.min(b), a.max(b));
    let lies = choices.below(4);
    let lie_about = |size, choices: &mut Choices<'_>| lie(size, choices.digest());
    let first = if lies & 1 == 0 { log.head(old) } else { lie_about(old, choices) };
    let second = if lies & 2 == 0 { log.head(new) } else { lie_about(new, choices) };
    let mut prefix = (old != new).then(|| Prefix { root: log.root(old), proof: log.consistency(old, new) });
    let changed = choices.below(4) == 0;
    if changed {
        change(choices, &mut prefix);
    }
    match Evidence::new(first, second, prefix) {
        Ok(evidence) => {
            acquits_the_honest(&evidence);
            assert_eq!(Evidence::from_bytes(&evidence.to_bytes()).as_ref(), Ok(&evidence));
            assert_eq!(evidence.verify(&[honest_key(), liar_key()]), Ok(vec![&liar_key()]), "the liar got away");
        }
        Err(error) => {
            // A lie about the smaller head of a true larger one is always shown.
            let shown = old > 0 && old < new && lies == 1 && !changed;
            assert!(!shown || matches!(error, EvidenceError::Consistent { .. }), "{error}");
        }
    }
}

fn change(choices: &mut Choices<'_>, prefix: &mut Option<Prefix>) {
    match (choices.below(4), prefix.as_mut()) {
        (0, _) => *prefix = None,
        (1, _) => *prefix = Some(Prefix { root: choices.digest(), proof: vec![choices.digest()] }),
        (2, Some(prefix)) => prefix.root = choices.digest(),
        (_, Some(prefix)) => {
            let place = choices.below(prefix.proof.len().max(1));
            if let Some(hash) = prefix.proof.get_mut(place) {
                *hash = choices.digest();
            }
        }
        (_, None) => {}
    }
}
