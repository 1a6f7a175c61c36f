//! Histories that are invalid, rewritten, or shown differently to others.

use fedledger_federation::{
    Command,
    command::{ApprovePlan, RoundKey},
};
use fedledger_ledger::{Digest, checkpoint::Checkpoint, leaf::Leaf, leaf::Outcome, note::SignedNote};
use fedledger_participant::node::{
    HistoryError, NodeEvent,
    core::{Core, Input, Output},
};

use crate::fixture::{Ledger, Purpose, Running, core, genesis, key, lone_head, plan, signed_head, site};

/// A ledger with an open round of alpha and beta, and another one that differs from index 3 on.
fn two_histories() -> (Ledger, Ledger, RoundKey) {
    let make = |consenting: &[&str]| {
        let mut ledger = Ledger::new();
        let plan = ledger.start_plan(plan(), consenting);
        let key = ledger.open_round(plan);
        (ledger, key)
    };
    let (honest, key) = make(&["alpha", "beta"]);
    let (forged, _) = make(&["alpha", "gamma", "beta"]);
    (honest, forged, key)
}

fn stored(ledger: &Ledger, replica: &str, size: u64) -> Checkpoint {
    Checkpoint::parse(SignedNote::parse(&ledger.head(replica, size)).unwrap().text()).unwrap()
}

fn note(replica: &str, text: String) -> Input {
    Input::Note { replica: format!("{replica}/replica"), text }
}

/// Whether the outputs do anything in the site's name.
fn acts(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Submit(..) | Output::Train(_) | Output::Upload(..)))
}

fn distrusted(outputs: &[Output]) -> Vec<&str> {
    let names = outputs.iter().filter_map(|output| match output {
        Output::Report(NodeEvent::Distrusted { replica, .. }) => Some(replica.as_str()),
        _ => None,
    });
    names.collect()
}

#[test]
fn nothing_is_done_before_the_log_is_up_to_date() {
    let (honest, ..) = two_histories();
    let mut core = Core::new(genesis(), site("alpha"), None).unwrap();
    let mut outputs = core.step(Input::Following { replica: "alpha/replica".to_owned(), next: honest.log.size() });
    for leaf in &honest.leaves[..honest.leaves.len() - 1] {
        outputs.extend(core.step(Input::Leaf(leaf.clone())));
    }
    assert!(!acts(&outputs) && !core.status().current);
    assert!(acts(&core.step(Input::Leaf(honest.leaves.last().unwrap().clone()))));
    assert!(core.status().current);
}

#[test]
fn a_signed_head_that_agrees_is_stored_once() {
    let (honest, ..) = two_histories();
    let size = honest.log.size();
    let mut alpha = Running::start(core(site("alpha")), &honest);
    alpha.take();
    alpha.input(note("beta", honest.head("beta", size)));
    let outputs = alpha.take();
    let witnessed = |output: &Output| matches!(output, Output::Witness(head) if head.checkpoint.size() == size);
    assert_eq!(outputs.iter().filter(|output| witnessed(output)).count(), 1);
    assert_eq!(alpha.core.status().witnessed, size);
    alpha.input(note("gamma", honest.head("gamma", size - 1)));
    assert_eq!(alpha.take(), [], "an older head was stored over a newer one");
}

#[test]
fn a_head_ahead_of_the_log_is_compared_when_the_log_gets_there() {
    let (honest, forged, _) = two_histories();
    let size = honest.log.size();
    let mut core = core(site("alpha"));
    core.step(Input::Following { replica: "alpha/replica".to_owned(), next: size });
    assert_eq!(core.step(note("beta", honest.head("beta", size))), []);
    assert_eq!(core.step(note("gamma", forged.head("gamma", size))), []);
    let mut alpha = Running { core, outputs: Vec::new() };
    alpha.catch_up(&honest);
    assert_eq!(distrusted(&alpha.outputs), ["gamma/replica"]);
    assert_eq!(alpha.core.status().witnessed, size);
}

#[test]
fn notes_that_are_no_heads_of_this_log_change_nothing() {
    let (honest, ..) = two_histories();
    let size = honest.log.size();
    let mut alpha = Running::start(core(site("alpha")), &honest);
    alpha.take();
    let other_log = honest.head("beta", size).replace("fedledger/hearts", "fedledger/lungs");
    for (replica, text) in [
        ("beta", String::new()),
        ("beta", "\u{2014}".repeat(1000)),
        ("beta", honest.head("gamma", size)),
        ("beta", other_log),
        ("beta", honest.head("beta", size).replace('\n', "\r\n")),
        ("nobody", honest.head("beta", size)),
    ] {
        alpha.input(note(replica, text));
        assert_eq!(alpha.take(), []);
    }
}

#[test]
fn a_head_that_too_few_replicas_have_co_signed_is_not_held_on_to() {
    let (honest, ..) = two_histories();
    let (size, root) = (honest.log.size(), honest.log.root());
    let mut alpha = Running::start(core(site("alpha")), &honest);
    alpha.take();
    let witnessed = |output: &Output| matches!(output, Output::Witness(_));
    alpha.input(note("beta", lone_head("beta", size, root)));
    assert!(!alpha.take().iter().any(witnessed), "one replica's word was enough");
    alpha.input(note("beta", honest.head("beta", size)));
    assert!(alpha.take().iter().any(witnessed));
}

#[test]
fn one_replica_that_contradicts_is_not_believed_and_does_not_stop_the_node() {
    let (honest, forged, _) = two_histories();
    let size = honest.log.size();
    let mut alpha = Running::start(core(site("alpha")), &honest);
    alpha.take();
    alpha.input(note("gamma", forged.head("gamma", size)));
    let outputs = alpha.take();
    assert_eq!(distrusted(&outputs), ["gamma/replica"]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Refollow | Output::Fail(_))));
    // Another one, and no majority is left that could hold this history.
    alpha.input(note("beta", signed_head("beta", size, Digest::of(b"elsewhere"))));
    let failed = |output: &Output| {
        matches!(output, Output::Fail(HistoryError::NoMajority { replica, .. })
        if replica == "beta/replica")
    };
    assert!(alpha.take().iter().any(failed));
    assert!(!alpha.core.status().current);
}

#[test]
fn a_replica_that_signs_another_history_than_it_sends_is_left() {
    let (honest, forged, key_of) = two_histories();
    let mut alpha = Running::start(core(site("alpha")), &honest);
    alpha.take();
    alpha.input(note("alpha", forged.head("alpha", 5)));
    let outputs = alpha.take();
    assert_eq!(distrusted(&outputs), ["alpha/replica"]);
    assert!(outputs.contains(&Output::Refollow));
    assert_eq!((alpha.core.size(), alpha.core.status().current), (1, false), "its leaves are not kept");
    alpha.follow("beta", &honest);
    assert!(alpha.core.status().current);
    assert!(alpha.core.federation().rounds().contains(&key_of));
}

#[test]
fn a_rewritten_history_stops_the_node_for_good() {
    let (honest, forged, _) = two_histories();
    let size = honest.log.size();
    let witnessed = stored(&honest, "beta", size);
    let core = Core::new(genesis(), site("alpha"), Some(witnessed)).unwrap();
    let mut alpha = Running::start(core, &forged);
    assert!(!acts(&alpha.outputs), "the node acted on a rewritten history");
    assert_eq!(distrusted(&alpha.take()), ["alpha/replica"]);
    alpha.follow("beta", &forged);
    let outputs = alpha.take();
    assert!(!acts(&outputs));
    let failed =
        |output: &Output| matches!(output, Output::Fail(HistoryError::Rewritten { size: at, .. }) if *at == size);
    assert!(outputs.iter().any(failed), "{outputs:?}");
}

#[test]
fn a_shortened_history_is_waited_out() {
    let (mut honest, _, key_of) = two_histories();
    let size = honest.log.size();
    honest.join("beta", key_of);
    let core = Core::new(genesis(), site("alpha"), Some(stored(&honest, "beta", size + 1))).unwrap();
    let mut alpha = Running { core, outputs: Vec::new() };
    alpha.input(Input::Following { replica: "alpha/replica".to_owned(), next: size });
    for leaf in &honest.leaves[..honest.leaves.len() - 1] {
        alpha.input(Input::Leaf(leaf.clone()));
    }
    assert!(!acts(&alpha.outputs), "the node acted on less than it has witnessed");
    alpha.catch_up(&honest);
    assert!(acts(&alpha.outputs));
}

/// Changes a leaf; the digest is one that stands nowhere.
type Forge = fn(&mut Leaf, Digest);

/// Every leaf in turn is replaced by one that an attacker could make.
#[test]
fn forged_leaves_are_never_acted_on() {
    let (honest, ..) = two_histories();
    let other = Digest::of(b"other");
    let forgeries: [(&str, Forge); 4] = [
        ("index", |leaf, _| leaf.index += 1),
        ("outcome", |leaf, _| leaf.outcome = Outcome::Rejected("not_permitted".to_owned())),
        ("write set", |leaf, other| leaf.write_set = other),
        ("envelope", |leaf, _| leaf.envelope[40] ^= 1),
    ];
    for position in 0..honest.leaves.len() {
        let mut variants: Vec<(&str, Vec<u8>)> = forgeries
            .iter()
            .map(|(what, forge)| {
                let mut leaf = Leaf::from_bytes(&honest.leaves[position]).unwrap();
                forge(&mut leaf, other);
                (*what, leaf.to_bytes())
            })
            .collect();
        variants.push(("garbage", vec![0xff; 100]));
        if position > 0 {
            variants.push(("repetition", honest.leaves[position - 1].clone()));
        }
        for (what, forgery) in variants {
            let mut alpha = Running { core: core(site("alpha")), outputs: Vec::new() };
            alpha.input(Input::Following { replica: "alpha/replica".to_owned(), next: honest.log.size() });
            for leaf in &honest.leaves[..position] {
                alpha.input(Input::Leaf(leaf.clone()));
            }
            alpha.take();
            alpha.input(Input::Leaf(forgery));
            let outputs = alpha.take();
            assert_eq!(distrusted(&outputs), ["alpha/replica"], "{what} of leaf {position}");
            assert!(outputs.contains(&Output::Refollow) && !acts(&outputs));
            alpha.follow("beta", &honest);
            assert!(alpha.core.status().current, "the honest history of another replica is taken");
        }
    }
}

#[test]
fn a_replica_that_stays_behind_or_sends_nothing_is_left_without_distrust() {
    let (mut honest, _, key_of) = two_histories();
    let mut alpha = Running::start(core(site("alpha")), &honest);
    honest.join("beta", key_of);
    alpha.take();
    let size = honest.log.size();
    for _ in 0..10 {
        alpha.input(note("beta", honest.head("beta", size)));
    }
    let outputs = alpha.take();
    assert!(outputs.contains(&Output::Refollow));
    assert_eq!(distrusted(&outputs), [] as [&str; 0]);

    let mut core = core(site("alpha"));
    core.step(Input::Following { replica: "gamma/replica".to_owned(), next: u64::MAX });
    let outputs: Vec<Output> = (0..10).flat_map(|_| core.step(Input::Tick)).collect();
    assert_eq!(outputs.iter().filter(|output| **output == Output::Refollow).count(), 1);
}

#[test]
fn refusals_on_the_ledger_are_not_repeated_after_a_restart() {
    // Alpha's node consents although alpha has consented already: refused on record.
    let mut ledger = Ledger::new();
    let id = ledger.propose(plan());
    let participant = key("alpha", Purpose::Participant);
    let approve = Command::ApprovePlan(ApprovePlan { plan: id, examples: None });
    ledger.apply(&participant, approve.clone());
    assert_eq!(ledger.try_apply(&participant, &approve), "already_consented");
    let running = Running::start(core(site("alpha")), &ledger);
    assert!(!acts(&running.outputs));
}
