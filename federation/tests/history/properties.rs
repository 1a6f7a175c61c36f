//! Whatever is committed, in whatever order: the state machine is total, deterministic and rejects without a trace.

use std::collections::BTreeMap;

use fedledger_federation::{
    Command, Federation, VersionId, cohort,
    command::{
        AbandonRound, ApprovePlan, AttestVersion, CancelPlan, CloseRound, CommitVersion, Contribute, DeclineRound,
        Evaluate, FileRef, GroupMetrics, JoinRound, MoveBranch, OpenRound, OutputFiles, PausePlan, ResumePlan,
        RevokeVersion, RoundKey, StartPlan, StopEarly, StopPlan, Tag, WithdrawConsent,
    },
    early_stopping::{EarlyStopping, Goal},
    plan::Plan,
    recipe::Recipe,
    retention::{PinVersion, PruneRound, PruneVersion},
};
use fedledger_ledger::{Digest, log::Log, machine::StateMachine as _};
use proptest::prelude::*;

use crate::{
    consortium::{Consortium, INSURER, OFFICE, SITES, metrics, plan},
    retention::{decide, restored_state_keeps_the_same},
};

/// One random choice: what to do, by whom, and two numbers that vary it.
#[derive(Debug, Clone, Copy)]
struct Choice {
    kind: u8,
    signer: u8,
    a: u8,
    b: u8,
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let choice = any::<(u8, u8, u8, u8)>().prop_map(|(kind, signer, a, b)| Choice { kind, signer, a, b });
    proptest::collection::vec(choice, 1..60)
}

/// Mostly whoever may do it, sometimes anybody.
fn signer(choice: Choice, permitted: &str) -> String {
    let site = SITES[usize::from(choice.signer) % SITES.len()];
    match choice.signer {
        0..200 if permitted == "office" => OFFICE.to_owned(),
        0..200 => format!("{site}/{permitted}"),
        200..220 => OFFICE.to_owned(),
        220..235 => INSURER.to_owned(),
        _ => "mallory".to_owned(),
    }
}

/// Something small that is often right and sometimes wrong.
struct Guess<'a> {
    state: &'a Federation,
    choice: Choice,
}

impl Guess<'_> {
    fn plan(&self) -> Digest {
        let plans: Vec<&Digest> = self.state.plans().iter().map(|(id, _)| id).collect();
        plans.get(usize::from(self.choice.a) % (plans.len() + 1)).copied().copied().unwrap_or_default()
    }

    fn round(&self) -> RoundKey {
        let open = self.state.plans().iter().find_map(|(_, record)| record.open);
        let mut key = match (open, self.choice.a % 8) {
            (Some(open), 0..7) => open,
            _ => RoundKey { plan: self.plan(), round: self.choice.b.into(), attempt: 1 },
        };
        if self.choice.b == 255 {
            key.attempt = u64::MAX;
        }
        key
    }

    fn version(&self) -> VersionId {
        let mut versions: Vec<(u64, VersionId)> =
            self.state.versions().iter().map(|(id, record)| (record.created_index, *id)).collect();
        versions.sort_unstable();
        let nth = usize::from(self.choice.b) % (versions.len() + 1);
        versions.iter().rev().nth(nth).map_or(VersionId::of_manifest(Digest::default()), |(_, id)| *id)
    }

    fn candidate(&self) -> VersionId {
        let open = self.state.plans().iter().find_map(|(_, record)| record.open);
        open.and_then(|key| self.state.candidate(&key)).unwrap_or_else(|| self.version())
    }

    fn outputs(&self) -> OutputFiles {
        let file = |name: u8| FileRef { digest: Digest::of(&[name]), size: 7 };
        // Mostly the same, so that replicas agree.
        OutputFiles { weights: file(self.choice.a / 200), optimizer_state: (self.choice.b > 240).then(|| file(9)) }
    }

    fn head(&self) -> Option<VersionId> {
        (self.choice.a < 220).then(|| self.state.head("main").map(|(id, _)| *id)).flatten()
    }
}

fn open(guess: &Guess<'_>) -> OpenRound {
    let plan_id = guess.plan();
    let next = guess.state.plans().get(&plan_id).and_then(|record| {
        let key = Federation::next_key(plan_id, record);
        let (base, base_record) = guess.state.head(&record.plan.branch)?;
        let cohort = cohort::digest(&guess.state.next_cohort(&key, record, base_record));
        Some(OpenRound { key, base: *base, cohort, duration_ms: record.plan.participation.round_duration_ms })
    });
    let mut open = next.unwrap_or(OpenRound {
        key: guess.round(),
        base: guess.version(),
        cohort: cohort::digest(&["basel".to_owned()]),
        duration_ms: 1,
    });
    match guess.choice.b {
        0..10 => open.cohort = cohort::digest(&[]),
        10..20 => open.key.attempt += 1,
        20..30 => open.base = guess.version(),
        _ => {}
    }
    open
}

fn contribution(guess: &Guess<'_>) -> Contribute {
    let key = guess.round();
    let round = guess.state.rounds().get(&key);
    Contribute {
        key,
        base: round.map_or_else(|| guess.version(), |round| round.base),
        update: Digest::of(&[guess.choice.a]),
        size: if guess.choice.b < 250 { plan("heart").update_size_bytes() } else { 5 },
        examples: u64::from(guess.choice.a) * 4,
        metrics: metrics(),
        data_manifest: Digest::default(),
        environment: Digest::default(),
        software: String::new(),
        skipped_rows: BTreeMap::new(),
        trainer: None,
    }
}

fn commit(guess: &Guess<'_>) -> CommitVersion {
    let open = guess.state.plans().iter().find_map(|(_, record)| record.open);
    let key = open.unwrap_or(RoundKey { plan: guess.plan(), round: 0, attempt: 0 });
    let outputs = guess.outputs();
    let recipe = Recipe::of(guess.state, &key).ok();
    let version = recipe.and_then(|recipe| Some(recipe.manifest(guess.state, &outputs).ok()?.1));
    CommitVersion { key, version: version.unwrap_or_else(|| guess.version()), outputs }
}

/// A condition that the metrics of the tests meet at once or in the second round, sometimes.
fn hasty(choice: u8) -> Option<EarlyStopping> {
    let target = (choice >= 32).then(|| "0.8".parse().unwrap());
    let metric = "accuracy".to_owned();
    let condition = EarlyStopping {
        metric,
        goal: Goal::Max,
        target,
        patience: (choice < 32).then_some(1),
        minimum_improvement: None,
    };
    (choice < 64).then_some(condition)
}

/// The signer and command of a choice.
fn command(state: &Federation, choice: Choice) -> (String, Command) {
    let guess = Guess { state, choice };
    let reason = || "reason".to_owned();
    let excluded = || match choice.b {
        0..200 => BTreeMap::new(),
        _ => BTreeMap::from([(SITES[usize::from(choice.a) % 4].to_owned(), "blob_lost".to_owned())]),
    };
    let name = ["heart", "lung", "Not a name"][usize::from(choice.a) % 3];
    let branch = || ["main", "production"][usize::from(choice.b) % 2].to_owned();
    let (permitted, command) = match choice.kind % 41 {
        0 => ("office", Command::ProposePlan(Plan { branch: branch(), early_stopping: hasty(choice.b), ..plan(name) })),
        1..4 => {
            let examples = (choice.b < 128).then(|| choice.b.into());
            ("participant", Command::ApprovePlan(ApprovePlan { plan: guess.plan(), examples }))
        }
        4 => ("participant", Command::WithdrawConsent(WithdrawConsent { plan: guess.plan(), reason: reason() })),
        5 => ("office", Command::StartPlan(StartPlan { plan: guess.plan() })),
        6 => {
            let drain = choice.b < 128;
            ("office", Command::StopPlan(StopPlan { plan: guess.plan(), drain, reason: reason() }))
        }
        7..11 => ("replica", Command::OpenRound(open(&guess))),
        11..14 => ("participant", Command::JoinRound(JoinRound { key: guess.round() })),
        14 => ("participant", Command::DeclineRound(DeclineRound { key: guess.round(), reason: reason() })),
        15..19 => ("participant", Command::Contribute(contribution(&guess))),
        19..22 => (
            "replica",
            Command::CloseRound(CloseRound {
                key: guess.round(),
                through: guess.choice.b.into(),
                excluded: excluded(),
            }),
        ),
        22 => {
            let reason = ["deadline", "Not a code!"][usize::from(choice.b) % 2].to_owned();
            ("replica", Command::AbandonRound(AbandonRound { key: guess.round(), reason, excluded: excluded() }))
        }
        23..25 => ("replica", Command::CommitVersion(commit(&guess))),
        25..29 => {
            let attest = AttestVersion { version: guess.candidate(), outputs: guess.outputs() };
            ("replica", Command::AttestVersion(attest))
        }
        29 => {
            let group = GroupMetrics { examples: choice.b.into(), metrics: metrics() };
            let groups = BTreeMap::from([(name.to_owned(), group)]);
            let groups = if choice.b < 128 { groups } else { BTreeMap::new() };
            let evaluate = Evaluate { version: guess.version(), examples: choice.a.into(), metrics: metrics(), groups };
            ("participant", Command::Evaluate(evaluate))
        }
        30..32 => {
            let (from, to, revoke) = (guess.head(), guess.version(), choice.a < 128);
            ("office", Command::MoveBranch(MoveBranch { branch: branch(), from, to, revoke, reason: reason() }))
        }
        32 => ("office", Command::PausePlan(PausePlan { plan: guess.plan(), reason: reason() })),
        33 => ("office", Command::ResumePlan(ResumePlan { plan: guess.plan(), reason: reason() })),
        34 => ("office", Command::CancelPlan(CancelPlan { plan: guess.plan(), reason: reason() })),
        35 => ("replica", Command::StopEarly(StopEarly { plan: guess.plan(), version: guess.version() })),
        36 => ("office", Command::Tag(Tag { name: name.to_owned(), version: guess.version() })),
        37 => {
            let (version, pinned) = (guess.version(), choice.a < 160);
            ("office", Command::PinVersion(PinVersion { version, pinned, reason: reason() }))
        }
        38 => {
            let (updates, files) = (!choice.a.is_multiple_of(4), choice.a % 4 < 2);
            ("replica", Command::PruneVersion(PruneVersion { version: guess.version(), updates, files }))
        }
        39 => ("replica", Command::PruneRound(PruneRound { key: guess.round() })),
        _ => ("office", Command::RevokeVersion(RevokeVersion { version: guess.version(), reason: reason() })),
    };
    (signer(choice, permitted), command)
}

/// Where a random history begins: with nothing, or in the middle of a round, so that all of the machine is reached.
fn beginning(stage: u8) -> Consortium {
    if stage == 0 {
        return Consortium::new(4);
    }
    let (mut consortium, id) = Consortium::ready(4);
    if stage > 1 {
        consortium.run_round(&id);
    }
    if stage > 2 {
        decide(&mut consortium, 1, 2);
        for _ in 0..stage % 2 {
            consortium.run_round(&id);
        }
        let key = consortium.open_round(&id);
        consortium.join_and_contribute(&key, "basel");
        consortium.join_and_contribute(&key, "lyon");
        if stage > 3 {
            consortium.close(&key, &[]);
        }
    }
    consortium
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn random_histories_are_deterministic_and_rejections_leave_no_trace(stage in 0_u8..5, choices in choices()) {
        let mut consortium = beginning(stage);
        for choice in choices {
            let (signer, command) = command(consortium.state(), choice);
            let before = consortium.state().digest();
            let outcome = consortium.submit(&signer, &command);
            let leaf = fedledger_ledger::leaf::Leaf::from_bytes(consortium.leaves.last().unwrap()).unwrap();
            let empty = fedledger_ledger::machine::WriteSet::default().digest();
            let unchanged = consortium.state().digest() == before;
            prop_assert!(outcome.is_ok() || unchanged, "{:?} gave {:?}", command, outcome);
            prop_assert_eq!(outcome.is_ok(), leaf.write_set != empty, "{:?} gave {:?}", command, outcome);
        }
        let (mut other, _) = Log::<Federation>::genesis(&consortium.genesis).unwrap();
        for leaf in &consortium.leaves {
            other.replay(leaf).unwrap();
        }
        prop_assert_eq!(other.machine().digest(), consortium.state().digest());
        prop_assert_eq!(other.root(), consortium.log.root());
        let restored = Log::<Federation>::load(&consortium.storage).unwrap().unwrap();
        prop_assert_eq!(restored.machine().digest(), consortium.state().digest());
        restored_state_keeps_the_same(&consortium);
        prop_assert_eq!((restored.root(), restored.size()), (consortium.log.root(), consortium.log.size()));
    }

    #[test]
    fn every_version_is_numbered_once_and_heads_are_usable(stage in 0_u8..5, choices in choices()) {
        let mut consortium = beginning(stage);
        for choice in choices {
            let (signer, command) = command(consortium.state(), choice);
            // What becomes of it is the other property's business.
            drop(consortium.submit(&signer, &command));
            let state = consortium.state();
            for (branch, head) in state.branches().iter() {
                let record = state.versions().get(head).unwrap();
                prop_assert!(record.number().is_some(), "the head of {} is not attested", branch);
                prop_assert!(record.revoked.is_none(), "the head of {} is revoked", branch);
            }
            for (number, id) in state.numbers().iter() {
                prop_assert_eq!(state.versions().get(id).unwrap().number(), Some(*number));
            }
            let numbered = state.versions().iter().filter(|(_, record)| record.number().is_some()).count();
            prop_assert_eq!(numbered, state.numbers().len());
            for (id, record) in state.plans().iter() {
                let open = record.open.filter(|key| key.plan == *id && state.rounds().contains(key));
                prop_assert_eq!(record.open, open);
            }
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(
        kind in proptest::sample::select(KINDS.to_vec()),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        signer in proptest::sample::select(vec![OFFICE, INSURER, "basel/replica", "basel/participant"]),
    ) {
        let mut state = Federation::genesis(&crate::consortium::genesis(2).to_bytes(), &mut Default::default()).unwrap();
        let before = state.digest();
        let mut writes = Default::default();
        let author = crate::consortium::key(signer).public();
        let outcome = state.apply(1, &author, kind, &payload, &mut writes);
        prop_assert!(outcome.is_err(), "random bytes were understood: {:?}", outcome);
        prop_assert_eq!(state.digest(), before);
        prop_assert!(writes.is_empty());
    }

    #[test]
    fn damaged_payloads_never_panic(choice in any::<(u8, u8, u8, u8)>(), bit in any::<prop::sample::Index>()) {
        let mut consortium = beginning(3);
        let (kind, signer, a, b) = choice;
        let (signer, command) = command(consortium.state(), Choice { kind, signer, a, b });
        let mut payload = command.payload();
        let bit = bit.index(payload.len() * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        let envelope = consortium.envelope(&signer, command.kind(), payload);
        let before = consortium.state().digest();
        // A damaged payload may well be another valid one; a rejected one changes nothing.
        let rejected = consortium.apply(&envelope).unwrap().unwrap().is_err();
        prop_assert!(!rejected || consortium.state().digest() == before);
    }
}

const KINDS: [&str; 28] = [
    "ProposePlan",
    "ApprovePlan",
    "WithdrawConsent",
    "StartPlan",
    "StopPlan",
    "PausePlan",
    "ResumePlan",
    "CancelPlan",
    "StopEarly",
    "OpenRound",
    "JoinRound",
    "DeclineRound",
    "Contribute",
    "CloseRound",
    "AbandonRound",
    "CommitVersion",
    "AttestVersion",
    "Evaluate",
    "MoveBranch",
    "Tag",
    "RevokeVersion",
    "PinVersion",
    "PruneVersion",
    "PruneRound",
    "Propose",
    "Vote",
    "RecordEvidence",
    "",
];
