//! How many entries of a history are final, as those see it who read it without verifying everything.

use fedledger_federation::{
    history::{FinalSizes, History, Keep, Source},
    verify::{Options, verify},
};
use fedledger_ledger::{Digest, checkpoint::Checkpoint};

use crate::{
    consortium::{Consortium, SITES, cosign, open_bundle, plan},
    epochs::{exclude, seal_and_keep, two_epochs},
    rewriting::rewritten,
};

fn sizes(source: &impl Source) -> FinalSizes {
    History::read(source, Keep::State, 1).unwrap().sizes
}

/// Those of a node's directory, which those of its bundle and of a verification must agree with.
#[track_caller]
fn agreed(consortium: &Consortium) -> FinalSizes {
    let (found, bundle) = (sizes(&consortium.source()), consortium.bundle());
    assert_eq!(sizes(&open_bundle(&bundle)), found);
    let report = verify(&open_bundle(&bundle), &Options::default()).unwrap();
    assert_eq!(report.problems, []);
    let FinalSizes { final_size, unanimous_size, time_s } = found;
    assert_eq!(
        (report.final_entries, report.unanimous_entries, report.final_time_s),
        (final_size, unanimous_size, time_s)
    );
    found
}

#[test]
fn as_many_cosignatures_as_the_threshold_make_a_head_final() {
    for (count, is_final, is_unanimous) in [(0, false, false), (2, false, false), (3, true, false), (4, true, true)] {
        let mut consortium = Consortium::new(2);
        consortium.sign_checkpoints(count);
        let size = consortium.log.size();
        // Clocks are two seconds apart, and the lower one of two in the middle counts.
        let time_s = consortium.time_s() + 2;
        assert_eq!(
            agreed(&consortium),
            FinalSizes {
                final_size: if is_final { size } else { 0 },
                unanimous_size: if is_unanimous { size } else { 0 },
                time_s: is_final.then_some(time_s),
            }
        );
    }
}

#[test]
fn each_head_is_judged_by_the_epoch_to_which_it_belongs() {
    let (consortium, _, end) = two_epochs();
    assert_eq!(agreed(&consortium).final_size, end, "two of three are enough now");
    // The head of the seal that excludes a replica still belongs to the epoch in which it is one.
    let mut consortium = Consortium::with_history(2);
    exclude(&mut consortium, "turin");
    let note = seal_and_keep(&mut consortium, "epoch/1", &SITES);
    let changed = Checkpoint::parse(note.text()).unwrap().size();
    consortium.start(plan("later"));
    seal_and_keep(&mut consortium, "head", &["basel"]);
    let FinalSizes { final_size, unanimous_size, .. } = agreed(&consortium);
    assert_eq!((final_size, unanimous_size), (changed, changed), "all four have co-signed");
}

#[test]
fn an_epoch_that_none_before_vouches_for_makes_nothing_final() {
    let mut consortium = Consortium::with_history(2);
    let before = agreed(&consortium);
    exclude(&mut consortium, "turin");
    consortium.seal();
    consortium.start(plan("later"));
    // As many as the new epoch needs, and all that it has who are in the old one: these are too few there.
    seal_and_keep(&mut consortium, "head", &["basel", "porto"]);
    assert_eq!(agreed(&consortium), before);
}

#[test]
fn notes_that_do_not_hold_are_passed_over() {
    let consortium = Consortium::with_history(2);
    let (honest, head) = (consortium.bundle(), consortium.checkpoint());
    let at = |size, root| cosign(&Checkpoint::new(head.origin(), size, root).unwrap(), 5, &SITES, &[]).to_string();
    let bad = [
        at(head.size(), Digest::of(b"another history")),
        at(head.size() + 1, *head.root()),
        // A replica's co-signature of another size.
        consortium.cosigned(&SITES, &[]).to_string().replacen(&format!("\n{}\n", head.size()), "\n2\n", 1),
        "no note".to_owned(),
    ];
    let with = |notes: &[String]| sizes(&open_bundle(&rewritten(&honest, |parts| parts.notes = notes.to_vec())));
    assert_eq!(with(&bad), FinalSizes::default());
    let good = with(&[consortium.cosigned(&SITES, &[]).to_string()]);
    assert_eq!((good.final_size, good.unanimous_size), (head.size(), head.size()));
    let mixed = [&bad[..], &[consortium.cosigned(&SITES, &[]).to_string()]].concat();
    assert_eq!(with(&mixed), good);
}
