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
    note::{NoteSignature, SignedNote, sign_note},
    policy::Policy,
    storage::{Batch, Column, LogStorage as _, notes::put_note},
};

use crate::{
    consortium::{Consortium, OFFICE, SITES, cosign, genesis, key, open_bundle, update_file},
    rewriting::rewritten,
};

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
        let options =
            Options { trust: Some(consortium.genesis.clone()), recompute: true, threads, ..Options::default() };
        let bundle = verify(&open_bundle(&consortium.bundle()), &options).unwrap();
        let node = verify(&consortium.source(), &options).unwrap();
        assert_eq!(bundle, node);
        assert_eq!(bundle.problems, []);
        assert!(bundle.ok && bundle.genesis_trusted);
        assert_eq!((bundle.entries, bundle.signatures), (consortium.log.size(), consortium.log.size() - 1));
        assert_eq!((bundle.root, bundle.chain), (Some(consortium.log.root()), Some(*consortium.log.chain())));
        assert_eq!((bundle.checkpoints, bundle.final_entries), (1, consortium.log.size()));
        assert_eq!((bundle.unanimous_entries, bundle.pending_entries), (consortium.log.size(), 0));
        assert_eq!((bundle.seals, bundle.epochs, bundle.policy_satisfied), (4, 1, None));
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
    let fedledger_federation::records::Participation::Contributed { index, contribution, .. } = participation else {
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
    for signers in 0..=4 {
        let consortium = Consortium::with_history(2);
        let size = consortium.log.size();
        let bundle = rewritten(&consortium.bundle(), |parts| {
            parts.notes.clear();
            let note = consortium.cosigned(&SITES[..signers], &["basel", "lyon"]);
            parts.notes.extend((signers > 0).then(|| note.to_string()));
        });
        let report = check(&bundle);
        // With nobody's signature, entries could have been left out.
        let missing = report.problems.iter().map(|problem| (problem.kind, problem.index));
        assert!(missing.eq((signers == 0).then_some((ProblemKind::Missing, Some(1)))), "{report:?}");
        assert_eq!(report.checkpoints, u64::from(signers > 0));
        let expected = |least| if signers >= least { size } else { 0 };
        assert_eq!((report.final_entries, report.unanimous_entries), (expected(3), expected(4)), "{signers} signers");
        assert_eq!(report.pending_entries, size - expected(3));
        // The median of the replicas' clocks, the lower of two; the witnesses' do not count.
        let time_s = consortium.time_s() + 2;
        assert_eq!(report.final_time_s, (signers >= 3).then_some(time_s));
    }
}

#[test]
fn entries_after_the_last_final_head_are_told_and_no_problem() {
    let mut consortium = Consortium::with_history(2);
    let size = consortium.log.size();
    consortium.start(crate::consortium::plan("later"));
    let mut batch = Batch::default();
    put_note(&mut batch, "head", &consortium.covering_note().to_string());
    consortium.storage.write(&batch, true).unwrap();
    let report = check(&consortium.bundle());
    assert_eq!((report.problems, report.entries), (vec![], consortium.log.size()));
    assert_eq!((report.final_entries, report.pending_entries), (size, consortium.log.size() - size));
    assert_eq!((report.seals, report.epochs), (4, 1));
}

#[test]
fn the_final_head_must_satisfy_the_policy_that_is_given() {
    let consortium = Consortium::with_history(2);
    let bundle = consortium.bundle();
    let check = |policy: Policy| {
        let options = Options { policy: Some(policy), ..Options::default() };
        verify(&open_bundle(&bundle), &options).unwrap()
    };
    let own = consortium.state().consortium().epoch().policy("fedledger/hearts").unwrap();
    let report = check(own);
    assert_eq!((report.problems, report.policy_satisfied), (vec![], Some(true)));
    let mut stranger = consortium.state().consortium().epoch();
    for keys in stranger.replicas.values_mut() {
        keys.cosign = key(&format!("mallory/{}", keys.cosign)).public();
    }
    let report = check(stranger.policy("fedledger/hearts").unwrap());
    let problem = only_problem(&report);
    assert_eq!((problem.kind, problem.index), (ProblemKind::Policy, Some(consortium.log.size() - 1)));
    assert_eq!(report.policy_satisfied, Some(false));
    assert!(problem.detail.contains("2 of 6 witnesses"), "{problem:?}");
}

/// The problem that a note gives rise to, in a bundle that holds an honest one as well.
#[track_caller]
fn problem_of_note(change: impl FnOnce(&Consortium) -> String) -> (ProblemKind, String) {
    let consortium = Consortium::with_history(2);
    let note = change(&consortium);
    let bundle = rewritten(&consortium.bundle(), |parts| parts.notes.insert(0, note));
    let report = check(&bundle);
    let problem = only_problem(&report);
    assert!(problem.offset.is_some(), "{problem:?}");
    assert_eq!((report.checkpoints, report.final_entries), (1, consortium.log.size()));
    (problem.kind, problem.detail.clone())
}

#[test]
fn forged_checkpoints_are_found() {
    let sign = |checkpoint: &Checkpoint| cosign(checkpoint, 1, &["basel"], &[]).to_string();
    let with = |c: &Consortium, size: u64, root: Digest| Checkpoint::new(c.checkpoint().origin(), size, root).unwrap();
    let line = |c: &Consortium, name: &str, signer: &str| {
        sign_note(&c.checkpoint().to_note_text(), name, &key(signer)).unwrap().to_string()
    };
    let witnessed = |c: &Consortium, name: &str, signer: &str| {
        let text = c.checkpoint().to_note_text();
        let line = NoteSignature::cosign(&text, name, &key(signer), 1).unwrap();
        SignedNote::from_parts(text, vec![line]).unwrap().to_string()
    };
    let origin = "fedledger/hearts";
    let cases = [
        ("wrong root", ProblemKind::Root, problem_of_note(|c| sign(&with(c, c.log.size(), Digest::of(b"other"))))),
        ("wrong size", ProblemKind::Root, problem_of_note(|c| sign(&with(c, c.log.size() - 1, c.log.root())))),
        ("too large", ProblemKind::Checkpoint, problem_of_note(|c| sign(&with(c, c.log.size() + 1, c.log.root())))),
        ("empty", ProblemKind::Checkpoint, problem_of_note(|c| sign(&with(c, 0, Digest::of(b""))))),
        (
            "another log",
            ProblemKind::Checkpoint,
            problem_of_note(|c| sign(&Checkpoint::new("fedledger/lungs", c.log.size(), c.log.root()).unwrap())),
        ),
        ("another key", ProblemKind::Checkpoint, problem_of_note(|c| line(c, origin, "mallory"))),
        ("a transaction key", ProblemKind::Checkpoint, problem_of_note(|c| line(c, origin, "basel/replica"))),
        ("another name", ProblemKind::Checkpoint, problem_of_note(|c| line(c, "basel/replica", "basel/replica/log"))),
        (
            "a log key that co-signs",
            ProblemKind::Checkpoint,
            problem_of_note(|c| witnessed(c, "fedledger/hearts/basel/replica", "basel/replica/log")),
        ),
        (
            "a witness in a replica's name",
            ProblemKind::Checkpoint,
            problem_of_note(|c| witnessed(c, "fedledger/hearts/basel/replica", "basel/participant/witness")),
        ),
        (
            "a node that is no witness",
            ProblemKind::Checkpoint,
            problem_of_note(|c| witnessed(c, "fedledger/hearts/porto/participant", "porto/participant/witness")),
        ),
        (
            "twice",
            ProblemKind::Checkpoint,
            problem_of_note(|c| {
                let mut note = c.cosigned(&["basel"], &[]);
                note.sign(origin, &key("basel/replica/log")).unwrap();
                note.to_string()
            }),
        ),
        (
            "no checkpoint",
            ProblemKind::Malformed,
            problem_of_note(|_| sign_note("hello\n", origin, &key("basel/replica/log")).unwrap().to_string()),
        ),
    ];
    for (what, expected, (kind, detail)) in cases {
        assert_eq!(kind, expected, "{what}: {detail}");
    }
}

#[test]
fn whoever_co_signs_where_there_is_no_seal_is_found() {
    let mut consortium = Consortium::with_history(2);
    consortium.start(crate::consortium::plan("later"));
    let note = consortium.cosigned(&["basel"], &[]);
    let mut batch = Batch::default();
    put_note(&mut batch, "head", &note.to_string());
    consortium.storage.write(&batch, true).unwrap();
    let report = verify(&consortium.source(), &Options::default()).unwrap();
    let no_seal = |problem: &Problem| problem.kind == ProblemKind::Checkpoint && problem.detail.contains("no seal");
    assert!(report.problems.iter().any(no_seal), "{:?}", report.problems);
    assert_eq!(report.checkpoints, 1);
}

#[test]
fn witnesses_make_nothing_final_however_many_they_are() {
    let consortium = Consortium::with_history(4);
    let bundle = rewritten(&consortium.bundle(), |parts| {
        parts.notes = vec![consortium.cosigned(&["basel", "lyon"], &["basel", "lyon", "porto", "turin"]).to_string()];
    });
    let report = check(&bundle);
    assert_eq!((report.problems, report.checkpoints, report.final_entries), (vec![], 1, 0));
}

#[test]
fn signatures_that_stand_in_two_notes_are_not_put_together() {
    let consortium = Consortium::with_history(2);
    let bundle = rewritten(&consortium.bundle(), |parts| {
        parts.notes =
            [["basel", "lyon"], ["porto", "turin"]].map(|two| consortium.cosigned(&two, &[]).to_string()).into();
    });
    assert_eq!((check(&bundle).checkpoints, check(&bundle).final_entries), (2, 0));
}

#[test]
fn of_two_final_heads_of_one_size_only_the_one_of_the_entries_is_accepted() {
    let consortium = Consortium::with_history(2);
    let other = Checkpoint::new("fedledger/hearts", consortium.log.size(), Digest::of(b"another history")).unwrap();
    let note = cosign(&other, consortium.time_s(), &["lyon", "porto", "turin"], &[]);
    let report = check(&rewritten(&consortium.bundle(), |parts| parts.notes.push(note.to_string())));
    let problem = only_problem(&report);
    assert_eq!((problem.kind, problem.index), (ProblemKind::Root, Some(consortium.log.size() - 1)));
    for word in ["lyon/replica, porto/replica, turin/replica", "not the consortium's"] {
        assert!(problem.detail.contains(word), "{problem:?}");
    }
}

#[test]
fn a_file_that_the_ledger_does_not_name_has_no_place_in_a_bundle() {
    let mut consortium = Consortium::with_history(2);
    let stowaway = consortium.store(b"stowaway".to_vec());
    let bundle = rewritten(&consortium.bundle(), |parts| {
        parts.blobs.insert(stowaway.digest, b"stowaway".to_vec());
    });
    let report = check(&bundle);
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
    let report = tampered(&|batch| put_note(batch, "epoch/1", &note.to_string()));
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
