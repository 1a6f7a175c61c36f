//! What auditors see, checked against numbers worked out by hand.

use std::{collections::BTreeMap, sync::Arc};

use fedledger_federation::{
    Command, Federation, VersionId,
    audit::{
        AuditError, ContributionRow, Finality, ReplayResult, TensorPresence, Verdict, VersionState, branch_log,
        contributions, diff, replay, version_rows,
    },
    command::{AbandonRound, Evaluate, Metrics, OutputFiles, RoundKey},
    history::{History, Keep},
    tensors::{Tensor, write_tensors},
};
use fedledger_ledger::Digest;

use crate::consortium::{Consortium, INSURER, OFFICE, update_file};

fn close_to(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() <= 1e-12 * expected.abs().max(1.0))
}

/// An update with these three values.
fn update(values: [f32; 3]) -> Vec<u8> {
    let tensor =
        |name: &str, shape: Vec<u64>, values: &[f32]| Tensor { name: name.to_owned(), shape, values: values.to_vec() };
    let [bias, weights @ ..] = values;
    write_tensors(&[tensor("layer0.bias", vec![1], &[bias]), tensor("layer0.weight", vec![1, 2], &weights)]).unwrap()
}

fn contribute(consortium: &mut Consortium, key: &RoundKey, site: &str, file: Vec<u8>) {
    let file = consortium.store(file);
    let contribution = consortium.contribution_of(key, site, file);
    consortium.join_and_send(key, site, contribution);
}

fn rows(consortium: &Consortium) -> Vec<ContributionRow> {
    contributions(&consortium.source(), consortium.state()).unwrap()
}

pub fn without_finality(attested: &BTreeMap<VersionId, u64>) -> Finality<'_> {
    Finality { attested, final_entries: 0 }
}

#[test]
fn norms_and_angles_are_those_of_the_updates() {
    let (mut consortium, id) = Consortium::ready(4);
    let key = consortium.open_round(&id);
    let opened = consortium.log.size() - 1;
    contribute(&mut consortium, &key, "basel", update([3.0, 4.0, 0.0]));
    contribute(&mut consortium, &key, "lyon", update([0.0, 1.0, 0.0]));
    contribute(&mut consortium, &key, "porto", update([-3.0, -4.0, 0.0]));
    contribute(&mut consortium, &key, "turin", update([f32::NAN, 0.0, 0.0]));
    consortium.close(&key, &[("turin", "not_finite")]);
    consortium.commit_and_attest(&key);

    let rows = rows(&consortium);
    let [basel, lyon, porto, turin] = rows.as_slice() else { panic!("{} rows", rows.len()) };
    assert!(close_to(basel.norm, 5.0) && close_to(lyon.norm, 1.0) && close_to(porto.norm, 5.0), "{rows:#?}");
    // The others of basel sum to (-3, -3, 0), those of lyon to zero, those of porto to (3, 5, 0).
    assert!(close_to(basel.cosine, -21.0 / (5.0 * 18_f64.sqrt())), "{:?}", basel.cosine);
    assert_eq!(lyon.cosine, None, "there is no angle to zero");
    assert!(close_to(porto.cosine, -29.0 / (5.0 * 34_f64.sqrt())), "{:?}", porto.cosine);
    assert_eq!((turin.norm, turin.cosine), (None, None));
    let verdicts = [&basel.verdict, &turin.verdict].map(ToString::to_string);
    assert_eq!(verdicts, ["aggregated", "excluded:not_finite"]);
    assert_eq!((basel.round, basel.attempt, basel.member.as_str()), (1, 1, "basel"));
    assert_eq!((basel.index - opened, basel.lateness), (2, 2));
    assert_eq!(basel.update, Digest::of(&update([3.0, 4.0, 0.0])));
    assert_eq!(basel.metrics["loss"], 0.412_345);
    let json = serde_json::to_value(turin).unwrap();
    assert_eq!((&json["verdict"], &json["signature"]), (&"excluded:not_finite".into(), &"valid".into()));
    assert!(json["norm"].is_null() && json["cosine"].is_null());
}

#[test]
fn an_excluded_update_is_compared_with_the_others_but_not_they_with_it() {
    let (mut consortium, id) = Consortium::ready(3);
    let key = consortium.open_round(&id);
    contribute(&mut consortium, &key, "basel", update([1.0, 0.0, 0.0]));
    contribute(&mut consortium, &key, "lyon", update([1.0, 0.0, 0.0]));
    contribute(&mut consortium, &key, "porto", update([-1e9, 0.0, 0.0]));
    consortium.close(&key, &[("porto", "out_of_range")]);
    consortium.commit_and_attest(&key);
    let cosines: Vec<_> = rows(&consortium).iter().map(|row| row.cosine).collect();
    assert_eq!(cosines, [Some(1.0), Some(1.0), Some(-1.0)]);
}

#[test]
fn a_verdict_follows_the_round() {
    let (mut consortium, id) = Consortium::ready(2);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    assert!(rows(&consortium).iter().all(|row| row.verdict == Verdict::Pending));
    consortium.close(&key, &[]);
    assert!(rows(&consortium).iter().all(|row| row.verdict == Verdict::Pending));
    let reason = "coordinator_gave_up".to_owned();
    consortium.accept("basel/replica", Command::AbandonRound(AbandonRound { key, reason, excluded: BTreeMap::new() }));
    assert!(rows(&consortium).iter().all(|row| row.verdict == Verdict::NotUsed));
    consortium.run_round(&id);
    let verdicts: Vec<_> = rows(&consortium).into_iter().map(|row| (row.attempt, row.verdict)).collect();
    let (used, not_used) = (Verdict::Aggregated, Verdict::NotUsed);
    assert_eq!(verdicts, [(1, not_used.clone()), (1, not_used), (2, used.clone()), (2, used)]);
}

#[test]
fn contributions_are_listed_without_their_files_too() {
    let mut consortium = Consortium::with_history(2);
    let complete = rows(&consortium);
    assert_eq!(complete.len(), 6);
    assert!(complete.iter().all(|row| row.norm.is_some() && row.cosine.is_some()));
    let (lost, damaged) = (complete[0].update, complete[2].update);
    let blobs = Arc::make_mut(&mut consortium.blobs);
    blobs.remove(&lost);
    *blobs.get_mut(&damaged).unwrap().last_mut().unwrap() ^= 0x40;
    let rows = rows(&consortium);
    for row in &rows[..4] {
        let alone = row.update != lost && row.update != damaged;
        assert_eq!((row.norm.is_some(), row.cosine), (alone, None), "only the other one is left in the round");
    }
    assert_eq!(rows[4..], complete[4..]);
}

#[test]
fn every_version_is_replayed_and_a_false_one_is_told() {
    let (mut consortium, id) = Consortium::ready(2);
    consortium.run_round(&id);
    let key = consortium.open_round(&id);
    consortium.join_and_contribute(&key, "basel");
    consortium.join_and_contribute(&key, "lyon");
    consortium.close(&key, &[]);
    let right = consortium.compute(&key);
    let weights = consortium.store(update_file(77.0));
    let false_version = consortium.settle(&key, OutputFiles { weights, optimizer_state: None });

    let rows = replay(&consortium.source(), consortium.state(), None, 1).unwrap();
    let results: Vec<_> = rows.iter().map(|row| (row.number, row.result)).collect();
    use ReplayResult::{Match, Mismatch, Skipped};
    assert_eq!(results, [(Some(0), Match), (Some(1), Match), (Some(2), Mismatch)]);
    let last = rows.last().unwrap();
    assert_eq!(last.recorded.map(|files| files.weights), Some(weights.digest));
    assert_eq!(last.computed.map(|files| files.weights), Some(right.weights.digest));
    let one = replay(&consortium.source(), consortium.state(), Some(&false_version), 2).unwrap();
    assert_eq!(one, rows[2..]);

    consortium.blobs = Arc::default();
    let rows = replay(&consortium.source(), consortium.state(), None, 1).unwrap();
    assert_eq!(rows.iter().map(|row| row.result).collect::<Vec<_>>(), [Match, Skipped, Skipped]);
    assert!(rows[1].reason.as_ref().is_some_and(|reason| reason.contains("is not there")));
    let unknown = VersionId::of_manifest(Digest::of(b"unknown"));
    let error = replay(&consortium.source(), consortium.state(), Some(&unknown), 1).unwrap_err();
    assert!(matches!(error, AuditError::Ledger(_)), "{error}");
}

#[test]
fn a_difference_is_measured_per_tensor() {
    let (mut consortium, id) = Consortium::ready(2);
    let initial = consortium.head("main");
    let key = consortium.open_round(&id);
    // Both send the same update, so their mean is this update.
    contribute(&mut consortium, &key, "basel", update([0.0, 0.75, -1.0]));
    contribute(&mut consortium, &key, "lyon", update([0.0, 0.75, -1.0]));
    consortium.close(&key, &[]);
    let first = consortium.commit_and_attest(&key);
    let evaluate = |version, accuracy| {
        let metrics = Metrics::from([("accuracy".to_owned(), accuracy)]);
        Command::Evaluate(Evaluate { version, examples: 10, metrics, groups: BTreeMap::new() })
    };
    consortium.accept(INSURER, evaluate(initial, 500_000));
    consortium.accept(INSURER, evaluate(first, 750_000));

    let diff = diff(&consortium.source(), consortium.state(), &initial, &first).unwrap();
    let [bias, weight] = diff.tensors.as_slice() else { panic!("{:?}", diff.tensors) };
    assert_eq!((bias.tensor.as_str(), bias.norm, bias.max_abs), ("layer0.bias", Some(0.0), Some(0.0)));
    assert_eq!((weight.tensor.as_str(), weight.presence), ("layer0.weight", TensorPresence::Both));
    assert_eq!(weight.shape, [1, 2]);
    // Weights are 32-bit floats, so the difference is exact to about 1e-7.
    let about = |found: Option<f64>, expected: f64| found.is_some_and(|found| (found - expected).abs() < 1e-6);
    assert!(about(weight.norm, 1.25) && about(weight.max_abs, 1.0), "{weight:?}");
    let file =
        &consortium.blobs[&consortium.state().versions().get(&initial).unwrap().manifest.weights().unwrap().digest];
    let values: Vec<f32> = file[file.len() - 8..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    assert!(about(weight.relative, 1.25 / norm), "{weight:?}");
    assert_eq!((diff.metrics["accuracy"].from, diff.metrics["accuracy"].change), (Some(0.5), Some(0.25)));
    assert_eq!(
        (diff.contributors.added.as_slice(), diff.contributors.both.len()),
        (&["basel", "lyon"].map(str::to_owned)[..], 0)
    );
}

#[test]
fn a_difference_needs_the_weights_of_both() {
    let mut consortium = Consortium::with_history(2);
    let (head, production) = (consortium.head("main"), consortium.head("production"));
    assert_eq!(head, production);
    let parent = consortium.state().versions().get(&head).unwrap().manifest.parents[0];
    let weights =
        |state: &Federation, id: &VersionId| state.versions().get(id).unwrap().manifest.weights().unwrap().digest;
    let digest = weights(consortium.state(), &parent);
    *Arc::make_mut(&mut consortium.blobs).get_mut(&digest).unwrap().last_mut().unwrap() ^= 1;
    let error = diff(&consortium.source(), consortium.state(), &parent, &head).unwrap_err();
    assert!(matches!(error, AuditError::Damaged { version, .. } if version == parent), "{error}");
    Arc::make_mut(&mut consortium.blobs).remove(&digest);
    let error = diff(&consortium.source(), consortium.state(), &head, &parent).unwrap_err();
    assert!(matches!(error, AuditError::MissingFile { version, .. } if version == parent), "{error}");
}

#[test]
fn the_log_of_a_branch_is_newest_first() {
    let consortium = Consortium::with_history(4);
    let history = History::read(&consortium.source(), Keep::State, 1).unwrap();
    let rows = branch_log(history.state(), "main", without_finality(&history.attested)).unwrap();
    assert_eq!(rows.iter().map(|row| row.round).collect::<Vec<_>>(), [2, 1, 0]);
    let [head, first, initial] = rows.as_slice() else { panic!("{} rows", rows.len()) };
    assert_eq!(head.branch_heads, ["main", "production"]);
    assert_eq!(head.contributors, ["basel", "lyon", "porto", "turin"]);
    assert_eq!((head.rule, initial.rule), (Some("fed_avg"), None));
    assert_eq!((head.state, first.state, head.revoked), (VersionState::Production, VersionState::Attested, false));
    assert_eq!(head.parents, [first.version]);
    assert_eq!(head.metrics, BTreeMap::from([("accuracy".to_owned(), 0.8), ("loss".to_owned(), 0.412_345)]));
    assert!(initial.metrics.is_empty());
    let json = serde_json::to_value(head).unwrap();
    for field in ["version", "number", "parents", "round", "branch_heads", "contributors", "metrics", "created_index"] {
        assert!(json.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(
        (&json["final"], &json["revoked"], &json["state"]),
        (&false.into(), &false.into(), &"production".into())
    );
    let error = branch_log(history.state(), "no-branch", without_finality(&history.attested)).unwrap_err();
    assert!(matches!(error, AuditError::UnknownBranch(branch) if branch == "no-branch"));
}

#[test]
fn all_versions_are_listed_with_their_states() {
    let mut consortium = Consortium::with_history(2);
    let plan = *consortium.state().plans().iter().next().unwrap().0;
    let tag = fedledger_federation::command::Tag { name: "good".to_owned(), version: consortium.head("main") };
    consortium.accept(OFFICE, Command::Tag(tag));
    let history = History::read(&consortium.source(), Keep::State, 1).unwrap();
    let attested_first = *history.attested.values().min().unwrap();
    let finality = Finality { attested: &history.attested, final_entries: attested_first + 1 };
    let rows = version_rows(history.state(), finality);
    let states: Vec<_> = rows.iter().map(|row| (row.number, row.state, row.is_final)).collect();
    use VersionState::{Attested, Production, Revoked};
    let expected = [
        (Some(3), Revoked, false),
        (Some(2), Production, false),
        (Some(1), Attested, false),
        (Some(0), Attested, true),
    ];
    assert_eq!(states, expected);
    assert_eq!(rows[0].revocation.as_deref(), Some("as the board decided"));
    assert_eq!((rows[1].tags.as_slice(), rows[1].plan), (&["good".to_owned()][..], plan));
}

#[test]
fn metrics_are_weighted_by_examples() {
    let (mut consortium, _) = Consortium::ready(2);
    let version = consortium.head("main");
    let evaluate = |examples, metrics: &[(&str, i64)]| {
        let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Command::Evaluate(Evaluate { version, examples, metrics, groups: BTreeMap::new() })
    };
    consortium.accept("basel/participant", evaluate(30, &[("accuracy", 900_000), ("auc", 700_000)]));
    consortium.accept("lyon/participant", evaluate(10, &[("accuracy", 500_000)]));
    consortium.accept(INSURER, evaluate(0, &[]));
    let attested = BTreeMap::new();
    let rows = version_rows(consortium.state(), without_finality(&attested));
    assert_eq!(rows[0].metrics, BTreeMap::from([("accuracy".to_owned(), 0.8), ("auc".to_owned(), 0.7)]));
}
