//! Export: what a bundle holds, and that nothing is lost on the way.

use std::io::Read as _;

use fedledger_federation::{
    Event,
    history::{ExportOptions, History, Keep, Source as _, export, named_files},
    verify::{Options, verify},
};
use fedledger_ledger::{Digest, bundle::BundleIndex};

use crate::consortium::{Consortium, open_bundle};

#[test]
fn a_bundle_and_the_node_it_came_from_tell_the_same_history() {
    let consortium = Consortium::with_history(4);
    let bundle = open_bundle(&consortium.bundle());
    let node = consortium.source();
    assert_eq!(bundle.genesis().unwrap(), node.genesis().unwrap());
    let leaves: Vec<_> = bundle.leaves().unwrap().map(Result::unwrap).collect();
    assert_eq!(leaves, consortium.leaves);
    assert!(leaves.len() > 60, "a history of {} entries", leaves.len());
    let texts = |notes: Vec<fedledger_federation::history::EncodedNote>| -> Vec<String> {
        notes.into_iter().map(|note| note.text).collect()
    };
    assert_eq!(texts(bundle.notes().unwrap()), texts(node.notes().unwrap()));
    for digest in named_files(consortium.state()).into_keys() {
        let mut content = Vec::new();
        bundle.blob(&digest).unwrap().unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(Digest::of(&content), digest);
    }
    let mut again = Vec::new();
    export(&bundle, &mut again, ExportOptions { files_until: None, blobs: true }).unwrap();
    assert_eq!(again, consortium.bundle(), "a bundle of a bundle has other bytes");
}

#[test]
fn replaying_a_bundle_gives_the_state_and_every_entry() {
    let consortium = Consortium::with_history(4);
    for threads in [1, 3] {
        let history = History::read(&open_bundle(&consortium.bundle()), Keep::Entries, threads).unwrap();
        assert_eq!(history.log.root(), consortium.log.root());
        assert_eq!(history.state().digest(), consortium.state().digest());
        assert_eq!(history.entries.len(), consortium.leaves.len());
        assert!(history.entries.iter().map(|entry| entry.index).eq(1..consortium.log.size()));
        assert_eq!(history.attested.len(), 4);
        let attested = history.attested.values().map(|index| usize::try_from(*index - 1).unwrap());
        for entry in attested.map(|position| &history.entries[position]) {
            assert!(matches!(entry.event, Some(Event::VersionAttested { .. })), "{entry:?}");
            assert_eq!(entry.author.member.as_deref(), Some("porto"), "the third replica makes the majority");
        }
    }
    let history = History::read(&consortium.source(), Keep::State, 1).unwrap();
    assert_eq!((history.state().digest(), history.entries.len()), (consortium.state().digest(), 0));
}

#[test]
fn an_entry_is_readable_as_json() {
    let consortium = Consortium::with_history(2);
    let history = History::read(&open_bundle(&consortium.bundle()), Keep::Entries, 1).unwrap();
    let json = |index: usize| serde_json::to_value(&history.entries[index]).unwrap();
    let proposal = json(0);
    assert_eq!(proposal["kind"], "ProposePlan");
    assert_eq!(proposal["payload"]["name"], "heart");
    assert_eq!(proposal["author"]["member"], "office");
    assert_eq!(proposal["author"]["capacity"], "organisation");
    assert_eq!(proposal["outcome"], "accepted");
    assert_eq!(proposal["event"]["event"], "plan_proposed");
    let refused = json(history.entries.len() - 2);
    assert_eq!(refused["outcome"], "head_moved");
    assert!(refused["rejection"].as_str().unwrap().contains("look again"), "{refused}");
    assert!(refused.get("event").is_none());
    let seal = json(history.entries.len() - 1);
    assert_eq!((&seal["kind"], &seal["outcome"]), (&"Seal".into(), &"accepted".into()));
    assert_eq!((&seal["seal"]["number"], &seal["proposal"]["term"]), (&4.into(), &1.into()));
    let consent = json(1);
    assert_eq!(consent["author"]["node"], "basel/participant");
}

#[test]
fn an_export_up_to_an_entry_leaves_out_later_files_and_no_entries() {
    let mut consortium = Consortium::with_history(2);
    consortium.sign_checkpoints(3);
    let mut exported_files = Vec::new();
    for until in [1, consortium.log.size() / 2, consortium.log.size()] {
        let mut bytes = Vec::new();
        let options = ExportOptions { files_until: Some(until), blobs: true };
        let exported = export(&consortium.source(), &mut bytes, options).unwrap();
        assert_eq!((exported.entries, exported.notes, exported.missing), (consortium.log.size(), 1, vec![]));
        exported_files.push(exported.blobs);
        let report = verify(&open_bundle(&bytes), &Options::default()).unwrap();
        assert_eq!((report.problems, report.entries), (vec![], exported.entries));
    }
    assert!(exported_files[0] == 0 && exported_files.is_sorted() && exported_files[1] < exported_files[2]);
}

#[test]
fn what_no_replica_has_signed_for_is_not_exported() {
    let mut consortium = Consortium::with_history(2);
    consortium.sign_checkpoints(1);
    let covered = consortium.log.size();
    consortium.start(crate::consortium::plan("later"));
    let mut bytes = Vec::new();
    let exported = export(&consortium.source(), &mut bytes, ExportOptions::default()).unwrap();
    assert_eq!(exported.entries, covered);
    assert_eq!(verify(&open_bundle(&bytes), &Options::default()).unwrap().problems, []);
}

#[test]
fn files_are_exported_only_if_wanted_and_there() {
    let mut consortium = Consortium::with_history(2);
    let mut bytes = Vec::new();
    let none = export(&consortium.source(), &mut bytes, ExportOptions::default()).unwrap();
    assert_eq!((none.blobs, BundleIndex::scan(bytes.as_slice()).unwrap().blobs.len()), (0, 0));

    let named = named_files(consortium.state());
    let lost = *named.keys().next().unwrap();
    std::sync::Arc::make_mut(&mut consortium.blobs).remove(&lost);
    let mut bytes = Vec::new();
    let options = ExportOptions { files_until: None, blobs: true };
    let exported = export(&consortium.source(), &mut bytes, options).unwrap();
    assert_eq!((exported.blobs, exported.missing), (named.len() as u64 - 1, vec![lost]));
    let index = BundleIndex::scan(bytes.as_slice()).unwrap();
    assert!(index.blobs.keys().eq(named.keys().skip(1)), "other files than the ledger names");
}

#[test]
fn a_damaged_file_is_not_exported() {
    let mut consortium = Consortium::with_history(2);
    let first = *named_files(consortium.state()).keys().next().unwrap();
    std::sync::Arc::make_mut(&mut consortium.blobs).get_mut(&first).unwrap()[20] ^= 1;
    let options = ExportOptions { files_until: None, blobs: true };
    let error = export(&consortium.source(), Vec::new(), options).unwrap_err();
    assert!(error.to_string().contains(&first.to_string()), "{error}");
}
