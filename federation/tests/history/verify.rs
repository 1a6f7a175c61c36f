//! Verification of histories that are in order, and of those whose makers were dishonest.

use std::sync::Arc;

use fedledger_federation::{
    Command,
    command::{FileRef, OutputFiles},
    verify::{Options, Problem, ProblemKind, Report, verify},
};
use fedledger_ledger::{
    Digest,
    checkpoint::Checkpoint,
    note::sign_note,
    storage::{Batch, Column, LogStorage as _, notes::put_note},
};

use crate::consortium::{Consortium, OFFICE, genesis, key, open_bundle, update_file};

fn check(bundle: &[u8]) -> Report {
    verify(&open_bundle(bundle), &Options::default()).unwrap()
}

/// The one problem of a report.
#[track_caller]
fn only_problem(report: &Report) -> &Problem {
    assert!(!report.ok);
    match report.problems.as_slice() {
        [problem] => problem,
        problems => panic!("expected one problem, found {problems:#?}"),
    }
}

#[test]
fn an_honest_history_verifies_from_a_bundle_and_from_a_node() {
    let consortium = Consortium::with_history(4);
    let files = consortium.blobs.len() as u64;
    for threads in [1, 4] {
        let options = Options { trust: Some(consortium.genesis.clone()), recompute: true, threads };
        let bundle = verify(&open_bundle(&consortium.bundle()), &options).unwrap();
        let node = verify(&consortium.source(), &options).unwrap();
        assert_eq!(bundle, node);
        assert_eq!(bundle.problems, []);
        assert!(bundle.ok && bundle.genesis_trusted);
        assert_eq!((bundle.entries, bundle.signatures), (consortium.log.size(), consortium.log.size() - 1));
        assert_eq!((bundle.root, bundle.chain), (Some(consortium.log.root()), Some(*consortium.log.chain())));
        assert_eq!((bundle.checkpoints, bundle.final_entries), (4, consortium.log.size()));
        assert_eq!((bundle.versions_recomputed, bundle.versions_skipped.len()), (4, 0));
        assert_eq!(bundle.blobs, files);
    }
}

#[test]
fn a_report_has_the_fields_that_are_promised() {
    let consortium = Consortium::with_history(2);
    let json = serde_json::to_value(check(&consortium.bundle())).unwrap();
    assert_eq!(json["schema"], "fedledger.verify/1");
    assert_eq!((&json["ok"], &json["genesis_trusted"]), (&true.into(), &false.into()));
    let promised = ["entries", "signatures", "checkpoints", "versions_recomputed", "versions_skipped", "problems"];
    assert!(promised.iter().all(|field| json.get(field).is_some()), "{json}");
    let mut bundle = consortium.bundle();
    bundle[30] ^= 1;
    let json = serde_json::to_value(check(&bundle)).unwrap();
    let problem = &json["problems"][0];
    assert_eq!((&json["ok"], &problem["kind"]), (&false.into(), &"malformed".into()));
    assert!(problem["index"].is_null() && problem["offset"].is_u64() && problem["detail"].is_string(), "{problem}");
}

#[test]
fn a_genesis_file_that_is_not_the_trusted_one_is_named() {
    let consortium = Consortium::with_history(2);
    let mut other = genesis(2);
    other.salt = Digest::of(b"other salt");
    let options = Options { trust: Some(other.to_bytes()), ..Options::default() };
    let report = verify(&open_bundle(&consortium.bundle()), &options).unwrap();
    let problem = only_problem(&report);
    assert_eq!((problem.kind, problem.index), (ProblemKind::GenesisMismatch, Some(0)));
    assert!(!report.genesis_trusted);
}

#[test]
fn a_history_without_files_verifies_and_says_what_was_skipped() {
    let mut consortium = Consortium::with_history(2);
    consortium.blobs = Arc::default();
    let report = check(&consortium.bundle());
    assert_eq!(report.problems, []);
    // The initial version needs no files.
    assert_eq!((report.versions_recomputed, report.versions_skipped.len()), (1, 3));
    assert!(report.versions_skipped.iter().all(|skipped| skipped.reason.ends_with("is not there")));
}

#[test]
fn weights_that_a_dishonest_majority_made_up_are_found_by_recomputing() {
    let (mut consortium, plan) = Consortium::ready(2);
    let round = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&round, site);
    }
    consortium.close(&round, &[]);
    let weights = consortium.store(update_file(1234.5));
    let version = consortium.settle(&round, OutputFiles { weights, optimizer_state: None });
    let record = consortium.state().versions().get(&version).unwrap();
    assert_eq!(record.number(), Some(1), "three of four replicas vouch for it");
    let created = record.created_index;
    // The rounds after it are honest.
    consortium.run_round(&plan);

    let report = check(&consortium.bundle());
    let problem = only_problem(&report);
    assert_eq!((problem.kind, problem.index), (ProblemKind::VersionMismatch, Some(created)));
    assert!(problem.detail.contains(&version.to_string()), "{problem:?}");
    assert_eq!(report.versions_recomputed, 2);
    let trusting = Options { recompute: false, ..Options::default() };
    let report = verify(&open_bundle(&consortium.bundle()), &trusting).unwrap();
    assert!(report.ok, "without recomputing, the replicas are believed");
}

#[test]
fn an_unusable_update_that_a_dishonest_majority_let_in_is_found() {
    let (mut consortium, plan) = Consortium::ready(2);
    let round = consortium.open_round(&plan);
    consortium.join_and_contribute(&round, "basel");
    let poisoned = consortium.store(update_file(f32::NAN));
    let contribution = consortium.contribution_of(&round, "lyon", poisoned);
    consortium.join_and_send(&round, "lyon", contribution);
    consortium.close(&round, &[]);
    let weights = consortium.store(update_file(3.0));
    consortium.settle(&round, OutputFiles { weights, optimizer_state: None });
    let report = check(&consortium.bundle());
    let problem = only_problem(&report);
    assert_eq!(problem.kind, ProblemKind::VersionMismatch);
    assert!(problem.detail.contains("lyon"), "{problem:?}");
}

#[test]
fn the_reason_of_an_exclusion_must_hold() {
    for (scale, code, honest) in
        [(f32::NAN, "not_finite", true), (f32::NAN, "out_of_range", false), (1.0, "not_finite", false)]
    {
        let (mut consortium, plan) = Consortium::ready(3);
        let round = consortium.open_round(&plan);
        for site in ["basel", "lyon"] {
            consortium.join_and_contribute(&round, site);
        }
        let file = consortium.store(update_file(scale));
        let contribution = consortium.contribution_of(&round, "porto", file);
        consortium.join_and_send(&round, "porto", contribution);
        let index = consortium.log.size() - 1;
        consortium.close(&round, &[("porto", code)]);
        consortium.commit_and_attest(&round);
        let report = check(&consortium.bundle());
        if honest {
            assert_eq!(report.problems, [], "{code}");
        } else {
            let problem = only_problem(&report);
            assert_eq!((problem.kind, problem.index), (ProblemKind::Exclusion, Some(index)), "{code}");
        }
    }
}

#[test]
fn a_lost_update_is_a_reason_that_nobody_can_check() {
    let (mut consortium, plan) = Consortium::ready(3);
    let round = consortium.open_round(&plan);
    for site in ["basel", "lyon", "porto"] {
        consortium.join_and_contribute(&round, site);
    }
    consortium.close(&round, &[("porto", "blob_lost")]);
    consortium.commit_and_attest(&round);
    assert_eq!(check(&consortium.bundle()).problems, []);
}

#[test]
fn a_rejected_version_is_not_held_against_the_ledger() {
    let (mut consortium, plan) = Consortium::ready(2);
    let round = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&round, site);
    }
    consortium.close(&round, &[]);
    let wrong = OutputFiles { weights: consortium.store(update_file(9.0)), optimizer_state: None };
    let commit = consortium.commit(&round, wrong);
    let rejected = commit.version;
    consortium.accept("turin/replica", Command::CommitVersion(commit));
    let right = consortium.compute(&round);
    for site in ["basel", "lyon"] {
        let attest = fedledger_federation::command::AttestVersion { version: rejected, outputs: right };
        consortium.accept(&format!("{site}/replica"), Command::AttestVersion(attest));
    }
    consortium.settle(&round, right);
    let report = check(&consortium.bundle());
    assert_eq!((report.problems, report.versions_recomputed), (vec![], 2));
    let [skipped] = report.versions_skipped.as_slice() else { panic!("{:?}", report.versions_skipped) };
    assert_eq!(skipped.version, rejected);
}

#[test]
fn a_damaged_file_is_named_and_the_rest_is_checked() {
    let mut consortium = Consortium::with_history(2);
    let key = *consortium.state().rounds().iter().next().unwrap().0;
    let (_, participation) = consortium.state().participations(&key).next().unwrap();
    let fedledger_federation::records::Participation::Contributed { index, contribution } = participation else {
        panic!("{participation:?}");
    };
    let (index, update) = (*index, contribution.update);
    Arc::make_mut(&mut consortium.blobs).get_mut(&update).unwrap()[150] ^= 4;
    let report = verify(&consortium.source(), &Options::default()).unwrap();
    let problem = only_problem(&report);
    assert_eq!((problem.kind, problem.index), (ProblemKind::Blob, Some(index)));
    assert!(problem.detail.contains(&update.to_string()), "{problem:?}");
    assert_eq!(report.versions_recomputed, 3, "the versions that do not need the file");
    assert!(report.versions_skipped[0].reason.contains("damaged"), "{:?}", report.versions_skipped);
}

#[test]
fn entries_are_final_as_far_as_enough_replicas_have_signed() {
    let mut consortium = Consortium::with_history(2);
    let expected = |signers| if signers >= 3 { consortium.log.size() } else { 0 };
    for (signers, expected) in [0, 1, 2, 3, 4].map(|signers| (signers, expected(signers))) {
        let mut bytes = Vec::new();
        let mut writer = fedledger_ledger::bundle::BundleWriter::new(&mut bytes, &consortium.genesis).unwrap();
        consortium.leaves.iter().for_each(|leaf| writer.add_leaf(leaf).unwrap());
        consortium.sign_checkpoints(signers);
        consortium.notes.iter().for_each(|note| writer.add_note(&note.to_string()).unwrap());
        writer.finish().unwrap();
        let report = check(&bytes);
        // With nobody's signature, entries could have been left out.
        let missing = report.problems.iter().map(|problem| (problem.kind, problem.index));
        assert!(missing.eq((signers == 0).then_some((ProblemKind::Missing, Some(1)))), "{report:?}");
        assert_eq!((report.checkpoints, report.final_entries), (signers as u64, expected), "{signers} signers");
    }
}

/// The kind of the problem that a replica's note gives rise to.
#[track_caller]
fn problem_of_note(change: impl FnOnce(&Consortium) -> String) -> ProblemKind {
    let consortium = Consortium::with_history(2);
    let note = change(&consortium);
    let mut bytes = Vec::new();
    let mut writer = fedledger_ledger::bundle::BundleWriter::new(&mut bytes, &consortium.genesis).unwrap();
    consortium.leaves.iter().for_each(|leaf| writer.add_leaf(leaf).unwrap());
    writer.add_note(&note).unwrap();
    writer.add_note(&consortium.covering_note().to_string()).unwrap();
    writer.finish().unwrap();
    let report = check(&bytes);
    let problem = only_problem(&report);
    assert!(problem.offset.is_some(), "{problem:?}");
    assert_eq!((report.checkpoints, report.final_entries), (1, 0));
    problem.kind
}

#[test]
fn forged_checkpoints_are_found() {
    let log_key = || key("basel/replica/log");
    let sign = |checkpoint: &Checkpoint| {
        sign_note(&checkpoint.to_note_text(), "basel/replica", &log_key()).unwrap().to_string()
    };
    let with = |consortium: &Consortium, size: u64, root: Digest| {
        Checkpoint::new(consortium.checkpoint().origin(), size, root).unwrap()
    };
    let wrong_root = problem_of_note(|c| sign(&with(c, c.log.size(), Digest::of(b"another history"))));
    assert_eq!(wrong_root, ProblemKind::Root);
    let wrong_size = problem_of_note(|c| sign(&with(c, c.log.size() - 1, c.log.root())));
    assert_eq!(wrong_size, ProblemKind::Root);
    let too_large = problem_of_note(|c| sign(&with(c, c.log.size() + 1, c.log.root())));
    assert_eq!(too_large, ProblemKind::Checkpoint);
    let empty = problem_of_note(|c| sign(&with(c, 0, Digest::of(b""))));
    assert_eq!(empty, ProblemKind::Checkpoint);
    let other_log = problem_of_note(|c| sign(&Checkpoint::new("fedledger/lungs", c.log.size(), c.log.root()).unwrap()));
    assert_eq!(other_log, ProblemKind::Checkpoint);
    let other_key = problem_of_note(|c| {
        sign_note(&c.checkpoint().to_note_text(), "basel/replica", &key("mallory")).unwrap().to_string()
    });
    assert_eq!(other_key, ProblemKind::Checkpoint);
    let transaction_key = problem_of_note(|c| {
        sign_note(&c.checkpoint().to_note_text(), "basel/replica", &key("basel/replica")).unwrap().to_string()
    });
    assert_eq!(transaction_key, ProblemKind::Checkpoint);
    let participant = problem_of_note(|c| {
        sign_note(&c.checkpoint().to_note_text(), "basel/participant", &log_key()).unwrap().to_string()
    });
    assert_eq!(participant, ProblemKind::Checkpoint);
    let twice = problem_of_note(|c| {
        let mut note = sign_note(&c.checkpoint().to_note_text(), "basel/replica", &log_key()).unwrap();
        note.sign("basel/replica", &log_key()).unwrap();
        note.to_string()
    });
    assert_eq!(twice, ProblemKind::Checkpoint);
    let no_checkpoint = problem_of_note(|_| sign_note("hello\n", "basel/replica", &log_key()).unwrap().to_string());
    assert_eq!(no_checkpoint, ProblemKind::Malformed);
}

#[test]
fn a_file_that_the_ledger_does_not_name_has_no_place_in_a_bundle() {
    let mut consortium = Consortium::with_history(2);
    let leaves = consortium.leaves.clone();
    let note = consortium.covering_note().to_string();
    let stowaway = consortium.store(b"stowaway".to_vec());
    let mut bytes = Vec::new();
    let mut writer = fedledger_ledger::bundle::BundleWriter::new(&mut bytes, &consortium.genesis).unwrap();
    leaves.iter().for_each(|leaf| writer.add_leaf(leaf).unwrap());
    writer.add_note(&note).unwrap();
    writer.add_blob(&stowaway.digest, stowaway.size, &b"stowaway"[..]).unwrap();
    writer.finish().unwrap();
    let report = check(&bytes);
    assert_eq!(only_problem(&report).kind, ProblemKind::Blob);
    let node = verify(&consortium.source(), &Options::default()).unwrap();
    assert_eq!(node.problems, [], "in a node's folder, other files may lie around");
}

#[test]
fn records_of_a_node_that_do_not_follow_from_its_entries_are_found() {
    let consortium = Consortium::with_history(2);
    let tampered = |write: &dyn Fn(&mut Batch)| {
        let storage = consortium.stored();
        let mut batch = Batch::default();
        write(&mut batch);
        storage.write(&batch, true).unwrap();
        verify(&consortium.source_over(storage), &Options::default()).unwrap()
    };
    assert_eq!(tampered(&|_| ()).problems, []);

    let node = fedledger_ledger::merkle::NodeId { level: 1, index: 3 };
    let report = tampered(&|batch| batch.put(Column::Node, node.to_key(), [0; 32]));
    assert_eq!((only_problem(&report).kind, only_problem(&report).index), (ProblemKind::State, Some(6)));

    // The head of `main` moved without a transaction: the record is that of another branch's table entry.
    let tag = 5;
    let branch = |name: &str| [&[tag], fedledger_ledger::codec::encode(&name.to_owned()).as_slice()].concat();
    let head = fedledger_ledger::codec::encode(&consortium.head("production"));
    let report = tampered(&|batch| batch.put(Column::State, branch("shadow"), head.clone()));
    assert_eq!(only_problem(&report).kind, ProblemKind::State);

    let last = consortium.log.size() - 1;
    let report = tampered(&|batch| batch.delete(Column::Leaf, last.to_be_bytes()));
    assert!(report.problems.iter().any(|problem| problem.kind == ProblemKind::State), "{:?}", report.problems);

    let report = tampered(&|batch| batch.delete(Column::Leaf, 5_u64.to_be_bytes()));
    let problem = &report.problems[0];
    assert_eq!((problem.kind, problem.index), (ProblemKind::Order, Some(5)), "{:?}", report.problems);

    let note = sign_note("no checkpoint\n", "basel/replica", &key("basel/replica/log")).unwrap();
    let report = tampered(&|batch| put_note(batch, "basel/replica", &note.to_string()));
    assert_eq!(only_problem(&report).kind, ProblemKind::Malformed);
}

#[test]
fn a_place_without_a_ledger_is_reported() {
    let report = check(b"");
    assert_eq!((report.ok, report.entries), (false, 0));
    assert_eq!(report.problems[0].offset, Some(0));
    let consortium = Consortium::new(2);
    let empty = fedledger_ledger::storage::memory::MemoryStorage::default();
    let report = verify(&consortium.source_over(empty), &Options::default()).unwrap();
    assert_eq!(only_problem(&report).kind, ProblemKind::Missing);
}

#[test]
fn a_single_entry_is_a_history() {
    let consortium = Consortium::new(2);
    let report = check(&consortium.bundle());
    assert_eq!((report.ok, report.entries, report.signatures), (true, 1, 0));
}

#[test]
fn a_version_that_claims_other_files_than_its_blobs_is_found() {
    // The recorded size is wrong, the digest is right.
    let (mut consortium, plan) = Consortium::ready(2);
    let round = consortium.open_round(&plan);
    for site in ["basel", "lyon"] {
        consortium.join_and_contribute(&round, site);
    }
    consortium.close(&round, &[]);
    let honest = consortium.compute(&round);
    let weights = FileRef { size: honest.weights.size + 1, ..honest.weights };
    consortium.settle(&round, OutputFiles { weights, optimizer_state: None });
    let report = check(&consortium.bundle());
    assert_eq!(only_problem(&report).kind, ProblemKind::VersionMismatch);
}

#[test]
fn strangers_entries_are_recorded_as_rejected_and_verify() {
    let mut consortium = Consortium::new(2);
    let tag = Command::Tag(fedledger_federation::command::Tag {
        name: "mine".to_owned(),
        version: "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua".parse().unwrap(),
    });
    assert_eq!(consortium.refused("mallory", tag.clone()), "unknown_author");
    assert_eq!(consortium.refused(OFFICE, tag), "not_attested");
    assert_eq!(check(&consortium.bundle()).problems, []);
}
