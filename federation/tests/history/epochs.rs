//! Histories in which the consortium changes: who vouches for whom, and what forgers try.

use fedledger_federation::{
    Command, Event,
    governance::{Action, Propose, Vote},
    history::{Proofs, Wanted},
    subject::Subject,
    verify::{Options, Problem, ProblemKind, Report, verify},
};
use fedledger_ledger::{
    checkpoint::Checkpoint,
    epoch::{EpochChain, EpochLink, Epochs},
    note::SignedNote,
    receipt::Receipt,
    storage::{Batch, LogStorage as _, notes::put_note},
};

use crate::{
    consortium::{Consortium, genesis, key, open_bundle, plan},
    rewriting::{Parts, rewritten},
};

const ORIGIN: &str = "fedledger/hearts";

/// Has a member proposed for exclusion and voted out.
pub fn exclude(consortium: &mut Consortium, member: &str) {
    let action = Action::RevokeMember { member: member.to_owned() };
    let against = action.target(consortium.state());
    let expires_index = consortium.log.size() + 100;
    let propose = Propose { action, against, expires_index, reason: "it has left".to_owned() };
    let Event::Proposed { proposal, .. } = consortium.accept("basel/organisation", Command::Propose(propose)) else {
        panic!("nothing was proposed")
    };
    for voter in ["insurer", "lyon"] {
        consortium.accept(&format!("{voter}/organisation"), Command::Vote(Vote { proposal, approve: true }));
    }
    let last = Command::Vote(Vote { proposal, approve: true });
    let event = consortium.accept("office/organisation", last);
    assert!(matches!(event, Event::Executed { .. }), "{event:?}");
}

/// Seals, and keeps the head with these co-signatures under a name. Returns it.
pub fn seal_and_keep(consortium: &mut Consortium, name: &str, replicas: &[&str]) -> SignedNote {
    consortium.seal();
    let note = consortium.cosigned(replicas, &["basel"]);
    let mut batch = Batch::default();
    put_note(&mut batch, name, &note.to_string());
    consortium.storage.write(&batch, true).unwrap();
    note
}

/// A history in which turin is excluded, with the sizes of its last head before and of its head at the end.
fn two_epochs() -> (Consortium, u64, u64) {
    let mut consortium = Consortium::with_history(2);
    let before = consortium.log.size();
    exclude(&mut consortium, "turin");
    seal_and_keep(&mut consortium, "epoch/1", &["basel", "lyon", "porto"]);
    consortium.start(plan("later"));
    seal_and_keep(&mut consortium, "final", &["basel", "porto"]);
    let end = consortium.log.size();
    (consortium, before, end)
}

fn check(bundle: &[u8]) -> Report {
    verify(&open_bundle(bundle), &Options::default()).unwrap()
}

fn kinds(report: &Report) -> Vec<ProblemKind> {
    report.problems.iter().map(|problem| problem.kind).collect()
}

fn chain_of(bundle: &[u8]) -> EpochChain {
    EpochChain::from_bytes(&Parts::of(bundle).epochs).unwrap()
}

#[test]
fn a_history_with_a_change_of_epoch_is_final_to_its_end() {
    let (consortium, _, end) = two_epochs();
    let bundle = consortium.bundle();
    for report in [check(&bundle), verify(&consortium.source(), &Options::default()).unwrap()] {
        assert_eq!((report.problems.as_slice(), report.epochs, report.seals), ([].as_slice(), 2, 6));
        assert_eq!((report.final_entries, report.unanimous_entries), (end, 0), "two of three are enough now");
    }
    let chain = chain_of(&bundle);
    let epochs = chain.verify(ORIGIN, &genesis(2).epoch()).unwrap();
    let last = epochs.of_head(end).unwrap();
    assert_eq!((chain.links().len(), last.replicas.len(), last.threshold), (1, 3, 2));
    assert_eq!(last, consortium.state().epoch());
    assert_eq!(Parts::of(&bundle).policy, Some(last.policy(ORIGIN).unwrap().to_bytes()));
    let proofs = Proofs::read(&open_bundle(&bundle), Wanted::default(), 1).unwrap();
    assert_eq!(proofs.chain().unwrap(), chain);
}

#[test]
fn receipts_after_a_change_need_the_chain() {
    let (consortium, ..) = two_epochs();
    let bundle = open_bundle(&consortium.bundle());
    let wanted = Wanted { entry: Some(7), record: None };
    let proofs = Proofs::read(&bundle, wanted, 1).unwrap();
    let receipt = Receipt::parse(&proofs.receipt().unwrap().to_string()).unwrap();
    let first = genesis(2).epoch();
    let alone = Epochs::first(ORIGIN, first.clone());
    assert!(alone.accept(receipt.checkpoint()).is_err(), "two of four are not enough");
    let epochs = proofs.chain().unwrap().verify(ORIGIN, &first).unwrap();
    let policy = epochs.policy_for(receipt.checkpoint()).unwrap();
    assert!(receipt.verify(&policy, receipt.extra().unwrap()).is_ok());
    assert_eq!(policy, proofs.policy().unwrap());
}

#[test]
fn a_revoked_key_is_proven_to_be_revoked_and_others_not_to_be() {
    let (consortium, ..) = two_epochs();
    let policy = consortium.state().epoch().policy(ORIGIN).unwrap();
    let prove = |subject: &Subject| {
        let wanted = Wanted { entry: None, record: Some(subject.record_key()) };
        let receipt = Proofs::read(&consortium.source(), wanted, 1).unwrap().state_receipt().unwrap();
        receipt.verify(&policy).unwrap();
        subject.statement(receipt.value.as_deref())
    };
    let revoked = prove(&Subject::RevokedKey(key("turin/replica").public()));
    assert!(revoked.contains("is revoked since entry"), "{revoked}");
    assert!(prove(&Subject::RevokedKey(key("basel/replica").public())).ends_with("is not revoked"));
    assert!(prove(&Subject::Member("turin".to_owned())).contains("was excluded by entry"));
    assert_eq!(prove(&Subject::Member("basel".to_owned())), "member basel is in the consortium");
    assert_eq!(prove(&Subject::Member("oslo".to_owned())), "member oslo was never in the consortium");
}

#[test]
fn an_epoch_that_is_left_out_of_the_chain_is_named() {
    let (consortium, before, _) = two_epochs();
    let bundle = rewritten(&consortium.bundle(), |parts| parts.epochs = EpochChain::default().to_bytes());
    let report = check(&bundle);
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!(problem.kind, ProblemKind::Epochs);
    assert!(problem.detail.contains("epoch 1") && problem.index.is_some_and(|index| index > before), "{problem:?}");
}

#[test]
fn a_chain_that_says_something_else_than_the_entries_is_noticed() {
    let (consortium, ..) = two_epochs();
    let honest = consortium.bundle();
    let [link] = chain_of(&honest).links().to_vec().try_into().unwrap();
    let with = |links: Vec<EpochLink>| {
        let epochs = EpochChain::new(links).unwrap().to_bytes();
        check(&rewritten(&honest, |parts| parts.epochs = epochs))
    };
    assert_eq!(with(vec![link.clone()]).problems, []);
    assert_eq!(kinds(&with(vec![link.clone(), link.clone()])), [ProblemKind::Epochs]);
    // The same seal under another note, which is none of the bundle's: it could hold anything.
    let head = Checkpoint::parse(link.receipt.checkpoint().text()).unwrap();
    let other = crate::consortium::cosign(&head, 5, &["lyon", "porto", "turin"], &[]);
    let receipt = Receipt::new(link.receipt.index(), None, link.receipt.hashes().to_vec(), other).unwrap();
    let report = with(vec![EpochLink { receipt, ..link }]);
    assert_eq!(kinds(&report), [ProblemKind::Epochs]);
    assert!(report.problems[0].detail.contains("none of the notes"), "{report:?}");
}

#[test]
fn replicas_of_the_old_epoch_make_nothing_final_after_the_change() {
    let (consortium, ..) = two_epochs();
    let forged = rewritten(&consortium.bundle(), |parts| {
        *parts.notes.last_mut().unwrap() = consortium.cosigned(&["basel", "lyon", "turin"], &[]).to_string();
    });
    let report = check(&forged);
    assert!(report.problems.iter().any(|problem| problem.detail.contains("turin/replica")), "{report:?}");
    assert!(report.final_entries < consortium.log.size());
}

#[test]
fn without_those_who_vouch_for_it_a_new_epoch_makes_nothing_final() {
    let mut consortium = Consortium::with_history(2);
    let before = consortium.log.size();
    exclude(&mut consortium, "turin");
    consortium.seal();
    // By the new epoch's replicas as many as it needs, but by those of the old one too few.
    consortium.start(plan("later"));
    seal_and_keep(&mut consortium, "head", &["basel", "porto"]);
    let report = check(&consortium.bundle());
    assert_eq!((report.problems, report.epochs), (vec![], 2));
    assert_eq!((report.final_entries, report.pending_entries), (before, consortium.log.size() - before));
}

#[test]
fn a_bundle_cut_before_an_exclusion_is_noticed_by_whoever_knows_a_later_epoch() {
    let (consortium, before, _) = two_epochs();
    let honest = consortium.bundle();
    // With the later notes, the cut shows.
    let leaves = usize::try_from(before).unwrap() - 1;
    let careless = rewritten(&honest, |parts| parts.leaves.truncate(leaves));
    assert!(kinds(&check(&careless)).contains(&ProblemKind::Checkpoint));
    // Without them, it is a history of that time, and says so.
    let cut = rewritten(&honest, |parts| {
        parts.leaves.truncate(leaves);
        parts.notes = consortium.notes.iter().map(ToString::to_string).collect();
        parts.epochs = EpochChain::default().to_bytes();
        parts.policy = Some(genesis(2).epoch().policy(ORIGIN).unwrap().to_bytes());
    });
    let report = check(&cut);
    assert_eq!((report.problems.as_slice(), report.final_entries, report.epochs), ([].as_slice(), before, 1));
    assert!(report.final_time_s < check(&honest).final_time_s);
    // Whoever has got the chain elsewhere is not deceived.
    let known = Options { epochs: Some(chain_of(&honest)), ..Options::default() };
    let report = verify(&open_bundle(&cut), &known).unwrap();
    let [Problem { kind: ProblemKind::Epochs, detail, index: Some(_), .. }] = report.problems.as_slice() else {
        panic!("{report:?}")
    };
    assert!(detail.contains("epoch 1"), "{detail}");
    assert_eq!(verify(&open_bundle(&honest), &known).unwrap().problems, []);
}
