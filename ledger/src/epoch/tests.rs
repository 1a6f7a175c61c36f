use super::*;
use crate::{
    checkpoint::Checkpoint,
    heads::{Conclusion, HeadError, Heads, Judged},
    keys::SecretKey,
    leaf::Leaf,
    log::{Applied, Log},
    machine::{RejectionCode, StateMachine, WriteSet},
    merkle::{LeafHashes, leaf_hash},
    note::{NoteError, NoteSignature, SignedNote},
    policy::PolicyError,
    receipt::Receipt,
    seal::{SEAL_KIND, SealProposal},
    transaction::{Nonce, Transaction},
};

const ORIGIN: &str = "test/epochs";

fn secret(label: &str) -> SecretKey {
    SecretKey::from_seed(*Digest::of(label.as_bytes()).as_bytes())
}

/// An epoch of these replicas, of which `threshold` make a head final, and one witness. A replica with a quote after its name
/// has new keys.
fn epoch(number: u64, index: u64, threshold: u64, replicas: &[&str]) -> Epoch {
    let keys = |name: &&str| {
        let public = |purpose: &str| secret(&format!("{name}/{purpose}")).public();
        let keys = ReplicaKeys { author: public("author"), log: public("log"), cosign: public("cosign") };
        (name.trim_end_matches('\'').to_owned(), keys)
    };
    let witnesses = BTreeMap::from([("w".to_owned(), secret("w/cosign").public())]);
    Epoch { number, index, threshold, replicas: replicas.iter().map(keys).collect(), witnesses }
}

/// A machine of which every transaction is the epoch that it makes, or any other text, which it refuses.
#[derive(Debug)]
struct Epochal(Epoch);

#[derive(Debug)]
struct NoEpoch;

impl std::fmt::Display for NoEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this is no epoch")
    }
}

impl RejectionCode for NoEpoch {
    fn code(&self) -> &'static str {
        "no_epoch"
    }
}

impl StateMachine for Epochal {
    type Event = ();
    type Rejection = NoEpoch;

    fn apply(
        &mut self,
        index: u64,
        _author: &PublicKey,
        _kind: &str,
        payload: &[u8],
        writes: &mut WriteSet,
    ) -> Result<(), NoEpoch> {
        let epoch = Epoch::from_bytes(payload).map_err(|_| NoEpoch)?;
        self.0 = Epoch { number: self.0.number + 1, index, ..epoch };
        writes.put(b"epoch".to_vec(), &self.0);
        Ok(())
    }

    fn epoch(&self) -> &Epoch {
        &self.0
    }

    fn genesis(bytes: &[u8], _writes: &mut WriteSet) -> Result<Self, String> {
        Epoch::from_bytes(bytes).map(Self).map_err(|error| error.to_string())
    }

    fn restore(_records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        Err("not needed".to_owned())
    }
}

/// A log and everything that an auditor takes note of.
struct History {
    log: Log<Epochal>,
    heads: Heads,
    hashes: LeafHashes,
    nonce: u8,
}

impl History {
    /// A log that begins with three of four replicas making heads final; notes may be about its first 100 heads.
    fn new() -> Self {
        let genesis = epoch(0, 0, 3, &["a", "b", "c", "d"]).to_bytes();
        let (log, _) = Log::genesis(&genesis).unwrap();
        let heads = Heads::new(ORIGIN.to_owned(), &log, 0..100);
        let mut hashes = LeafHashes::default();
        hashes.push(leaf_hash(&genesis));
        Self { log, heads, hashes, nonce: 0 }
    }

    fn submit(&mut self, kind: &str, payload: Vec<u8>) -> Leaf {
        self.nonce += 1;
        let author = secret("a/author");
        let transaction = Transaction {
            chain: *self.log.chain(),
            author: author.public(),
            nonce: Nonce([self.nonce; 16]),
            not_after_index: 1000,
            kind: kind.to_owned(),
            payload,
        };
        let Applied::Entry(entry) = self.log.apply(self.log.size(), &transaction.sign(&author).to_bytes()) else {
            panic!("the transaction was not applied");
        };
        self.heads.visit(&self.log, &entry.leaf);
        self.hashes.push(leaf_hash(&entry.leaf.to_bytes()));
        entry.leaf
    }

    /// Makes an epoch of these replicas.
    fn change(&mut self, threshold: u64, replicas: &[&str]) {
        let leaf = self.submit("epoch", epoch(0, 0, threshold, replicas).to_bytes());
        assert!(leaf.outcome.is_accepted());
    }

    fn seal(&mut self) -> u64 {
        let leaf = self.submit(SEAL_KIND, SealProposal { time_ms: 1, term: 1, cosigned: Vec::new() }.to_bytes());
        assert!(leaf.seal.is_some(), "{:?}", leaf.outcome);
        leaf.index
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(ORIGIN, self.log.size(), self.log.root()).unwrap()
    }

    /// The head as it is now, signed in the log's name by the first of these and co-signed by all.
    fn note(&self, replicas: &[&str]) -> SignedNote {
        cosign(&self.checkpoint(), replicas)
    }

    fn judge(&self, notes: &[SignedNote]) -> Vec<Judged> {
        notes.iter().map(|note| self.heads.judge(note).unwrap()).collect()
    }

    fn conclude(&self, notes: &[SignedNote]) -> Conclusion {
        self.heads.conclude(&self.judge(notes))
    }

    fn chain(&self, notes: &[SignedNote]) -> EpochChain {
        let vouching: Vec<&SignedNote> =
            self.conclude(notes).vouching.into_iter().map(|position| &notes[position]).collect();
        self.heads.chain(&vouching, &self.hashes).unwrap()
    }

    fn verify(&self, chain: &EpochChain) -> Result<Epochs, EpochChainError> {
        chain.verify(ORIGIN, self.heads.first_epoch())
    }
}

fn cosign(checkpoint: &Checkpoint, nodes: &[&str]) -> SignedNote {
    let text = checkpoint.to_note_text();
    let mut lines = vec![NoteSignature::sign(&text, ORIGIN, &secret(&format!("{}/log", nodes[0]))).unwrap()];
    for (node, time_s) in nodes.iter().zip(100..) {
        let name = cosigner_name(ORIGIN, node.trim_end_matches('\''));
        lines.push(NoteSignature::cosign(&text, &name, &secret(&format!("{node}/cosign")), time_s).unwrap());
    }
    SignedNote::from_parts(text, lines).unwrap()
}

/// A history of three epochs: `d` gives way to `e`, and later `c` gets new keys. The notes vouch for both changes and make
/// all of it final.
fn three_epochs() -> (History, Vec<SignedNote>) {
    let mut history = History::new();
    history.submit("epoch", b"nonsense".to_vec());
    history.seal();
    let mut notes = vec![history.note(&["a", "b", "c"])];
    history.change(3, &["a", "b", "c", "e"]);
    history.seal();
    notes.push(history.note(&["a", "b", "d", "w"]));
    history.change(3, &["a", "b", "c'", "e"]);
    history.seal();
    notes.push(history.note(&["b", "c", "e"]));
    history.submit("epoch", b"nonsense".to_vec());
    history.seal();
    notes.push(history.note(&["a", "b", "c'", "e"]));
    (history, notes)
}

#[test]
fn a_chain_leads_from_the_first_epoch_to_the_last() {
    let (history, notes) = three_epochs();
    let conclusion = history.conclude(&notes);
    assert_eq!(conclusion.vouching, [1, 2]);
    assert_eq!((conclusion.final_note, conclusion.unanimous_note), (Some(3), Some(3)));
    assert_eq!((conclusion.covered, history.heads.seals()), (history.log.size(), 4));
    let chain = history.chain(&notes);
    let read = EpochChain::from_bytes(&chain.to_bytes()).unwrap();
    assert_eq!((&read, EpochChain::is_meant_by(&chain.to_bytes())), (&chain, true));
    let epochs = history.verify(&read).unwrap();
    let spans: Vec<_> = epochs.iter().map(|(size, epoch)| (size, epoch.number, epoch.replicas.len())).collect();
    assert_eq!(spans, [(0, 0, 4), (5, 1, 4), (7, 2, 4)]);
    let number = |size| epochs.of_head(size).map(|epoch| epoch.number);
    assert_eq!([0, 1, 5, 6, 7, 8, 1000].map(number), [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]);
}

#[test]
fn receipts_of_every_epoch_are_checked_with_the_first_epoch_alone() {
    let (history, notes) = three_epochs();
    let epochs = history.verify(&history.chain(&notes)).unwrap();
    for note in &notes {
        let size = Checkpoint::parse(note.text()).unwrap().size();
        let accepted = epochs.accept(note).unwrap();
        assert_eq!((accepted.checkpoint.size(), accepted.logs.len()), (size, 1));
    }
    let first = Epochs::first(ORIGIN, history.heads.first_epoch().clone());
    assert!(first.accept(&notes[0]).is_ok());
    // Of the last note's signers only two had these keys in the first epoch.
    let refused = first.accept(&notes[3]).unwrap_err();
    assert!(matches!(refused, EpochsError::Refused(PolicyError::NoQuorum { cosigned: 2, .. })), "{refused}");
}

#[test]
fn keys_of_an_old_epoch_make_no_later_head_final() {
    let (history, mut notes) = three_epochs();
    let epochs = history.verify(&history.chain(&notes)).unwrap();
    let old = history.note(&["a", "b", "d"]);
    assert!(epochs.accept(&old).is_err());
    let error = history.heads.judge(&old).unwrap_err();
    assert!(matches!(error, HeadError::Signature { error: VouchError::Stranger(_), .. }), "{error}");
    // The witness counts for nothing, and the threshold is that of the head's own epoch.
    *notes.last_mut().unwrap() = history.note(&["a", "b", "w"]);
    let conclusion = history.conclude(&notes);
    assert_eq!((conclusion.final_note, conclusion.covered), (Some(2), history.log.size()));
}

#[test]
fn an_epoch_cannot_vouch_for_itself() {
    let mut history = History::new();
    history.change(2, &["e", "f", "a"]);
    history.seal();
    let sealed = history.note(&["a", "b"]);
    history.seal();
    let notes = [sealed, history.note(&["a", "e", "f"])];
    let conclusion = history.conclude(&notes);
    assert_eq!((conclusion.vouching.len(), conclusion.final_note), (0, None), "two of three are not enough");
    // Put together all the same, the chain is refused.
    let chain = history.heads.chain(&[&notes[1]], &history.hashes).unwrap();
    let refused = history.verify(&chain).unwrap_err();
    let error = EpochLinkError::NotVouchedFor { cosigned: 1, threshold: 3 };
    assert_eq!(refused, EpochChainError::Link { link: 1, error });
    // A later head vouches for it if enough replicas have stayed and agree.
    let mut history = History::new();
    history.change(2, &["a", "b", "c"]);
    history.seal();
    let sealed = history.note(&["a", "b"]);
    history.seal();
    let notes = [sealed, history.note(&["c", "a", "b"])];
    let conclusion = history.conclude(&notes);
    assert_eq!((conclusion.vouching.as_slice(), conclusion.final_note), ([1].as_slice(), Some(1)));
    assert!(history.verify(&history.chain(&notes)).is_ok());
}

#[test]
fn a_log_without_enough_signers_is_not_final_until_its_epoch_is_vouched_for() {
    let mut history = History::new();
    history.seal();
    let mut notes = vec![history.note(&["a", "b", "c"])];
    history.change(3, &["a", "b", "e", "f"]);
    history.seal();
    history.seal();
    notes.push(history.note(&["a", "b", "e", "f"]));
    // All replicas of the new epoch agree, but those of the old one have not said that it is theirs.
    assert_eq!(history.conclude(&notes).final_note, Some(0));
}

#[test]
fn chains_with_a_link_left_out_exchanged_or_forged_are_refused() {
    let (history, notes) = three_epochs();
    let chain = history.chain(&notes);
    let links = chain.links().to_vec();
    let refused = |links: Vec<EpochLink>| match history.verify(&EpochChain::new(links).unwrap()).unwrap_err() {
        EpochChainError::Link { link, error } => (link, error),
        error => panic!("{error}"),
    };
    assert_eq!(refused(vec![links[1].clone()]), (1, EpochLinkError::Gap { expected: 0, found: 1 }));
    assert_eq!(refused(vec![links[1].clone(), links[0].clone()]).0, 1);
    assert_eq!(refused(vec![links[0].clone(), links[0].clone()]), (2, EpochLinkError::Gap { expected: 1, found: 0 }));
    let forged = |change: &dyn Fn(&mut EpochLink)| {
        let mut links = links.clone();
        change(&mut links[0]);
        refused(links).1
    };
    let other = epoch(1, 4, 1, &["mallory"]);
    assert!(matches!(forged(&|link| link.epoch = other.to_bytes()), EpochLinkError::Digest { .. }));
    assert!(matches!(forged(&|link| link.leaf = links[1].leaf.clone()), EpochLinkError::Gap { .. }));
    assert!(matches!(forged(&|link| link.leaf = b"leaf".to_vec()), EpochLinkError::Leaf(_)));
    let with_seal = |change: &dyn Fn(&mut Leaf)| {
        forged(&|link| {
            let mut leaf = Leaf::from_bytes(&link.leaf).unwrap();
            change(&mut leaf);
            link.leaf = leaf.to_bytes();
        })
    };
    assert_eq!(with_seal(&|leaf| leaf.seal = None), EpochLinkError::NoSeal);
    assert_eq!(with_seal(&|leaf| leaf.index += 1), EpochLinkError::Index { leaf: 5, receipt: 4 });
    assert!(matches!(with_seal(&|leaf| leaf.raft_index += 1), EpochLinkError::Inclusion(_)));
    let with_receipt = |index: u64, extra: Option<Vec<u8>>, note: SignedNote| {
        forged(&|link| {
            let hashes = link.receipt.hashes().to_vec();
            link.receipt = Receipt::new(index, extra.clone(), hashes, note.clone()).unwrap();
        })
    };
    let honest = links[0].receipt.checkpoint();
    assert_eq!(with_receipt(4, Some(vec![1]), honest.clone()), EpochLinkError::Extra);
    assert!(matches!(with_receipt(3, None, honest.clone()), EpochLinkError::Index { .. }));
    let head = Checkpoint::parse(honest.text()).unwrap();
    let few = cosign(&head, &["a", "b", "w"]);
    assert_eq!(with_receipt(4, None, few), EpochLinkError::NotVouchedFor { cosigned: 2, threshold: 3 });
    let elsewhere = Checkpoint::new("test/other", head.size(), *head.root()).unwrap();
    assert!(matches!(with_receipt(4, None, cosign(&elsewhere, &["a", "b", "c"])), EpochLinkError::Origin(_)));
    let rewritten = Checkpoint::new(ORIGIN, head.size(), Digest::of(b"forged")).unwrap();
    let lines = cosign(&rewritten, &["a", "b", "c"]).signatures().to_vec();
    let bad = SignedNote::from_parts(honest.text(), lines).unwrap();
    assert!(matches!(with_receipt(4, None, bad), EpochLinkError::Signature(NoteError::BadSignature { .. })));
    assert!(matches!(with_receipt(4, None, cosign(&rewritten, &["a", "b", "c"])), EpochLinkError::Inclusion(_)));
}

#[test]
fn an_epoch_that_nobody_or_everybody_could_speak_for_is_refused() {
    for threshold in [0, 5] {
        let mut history = History::new();
        history.change(threshold, &["a", "b", "c", "e"]);
        history.seal();
        let chain = history.chain(&[history.note(&["a", "b", "c"])]);
        let error = EpochLinkError::Threshold { threshold, replicas: 4 };
        assert_eq!(history.verify(&chain).unwrap_err(), EpochChainError::Link { link: 1, error });
    }
}

#[test]
fn every_flipped_bit_of_a_chain_is_noticed_or_changes_nothing_that_counts() {
    let (history, notes) = three_epochs();
    let chain = history.chain(&notes);
    let bytes = chain.to_bytes();
    let honest = history.verify(&chain).unwrap();
    let texts: Vec<String> = notes.iter().map(ToString::to_string).collect();
    let mut tolerated = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(read) = EpochChain::from_bytes(&flipped) else { continue };
        let Ok(epochs) = history.verify(&read) else { continue };
        // Lines by keys that are not known are ignored, as the format demands; whoever has the notes notices.
        assert_eq!(epochs, honest, "bit {bit} leads to other epochs");
        let is_known = |link: &EpochLink| texts.contains(&link.receipt.checkpoint().to_string());
        assert!(!read.links().iter().all(is_known), "bit {bit} was not noticed");
        tolerated += 1;
    }
    assert!(tolerated < bytes.len(), "{tolerated} of {} bits count for nothing", bytes.len() * 8);
}

#[test]
fn an_epoch_as_a_policy_accepts_what_the_epoch_makes_final() {
    let mut history = History::new();
    history.seal();
    let policy = history.heads.first_epoch().policy(ORIGIN).unwrap();
    let text = policy.to_string();
    assert_eq!(text.lines().filter(|line| line.starts_with("log test/epochs+")).count(), 4);
    let end = "group replicas 3 a b c d\ngroup witnesses any w\nquorum replicas\n";
    assert!(text.contains("\nwitness w test/epochs/w+") && text.ends_with(end), "{text}");
    let accepted = policy.check(&history.note(&["a", "b", "c", "w"])).unwrap();
    assert_eq!((accepted.witnesses.len(), accepted.time_s), (4, Some(101)));
    assert!(policy.check(&history.note(&["a", "b", "w"])).is_err());
    let mut unlimited = epoch(0, 0, 5, &["a", "b", "c", "d"]);
    assert!(unlimited.policy(ORIGIN).is_err(), "five of four");
    unlimited.threshold = 3;
    unlimited.witnesses = (0..2000_u16).map(|n| (format!("w{n}"), secret(&format!("w{n}")).public())).collect();
    assert!(unlimited.policy(ORIGIN).is_err(), "more witnesses than a policy can list");
}

#[test]
fn notes_that_contradict_the_log_are_refused() {
    let (history, _) = three_epochs();
    let size = history.log.size();
    let judge = |checkpoint: Checkpoint, nodes: &[&str]| history.heads.judge(&cosign(&checkpoint, nodes)).unwrap_err();
    let at = |origin: &str, size: u64, root: Digest| Checkpoint::new(origin, size, root).unwrap();
    let root = history.log.root();
    assert!(matches!(judge(at("test/other", size, root), &["b"]), HeadError::Origin { .. }));
    assert!(matches!(judge(at(ORIGIN, size + 1, root), &["b"]), HeadError::Size { .. }));
    assert!(matches!(judge(at(ORIGIN, 0, root), &["b"]), HeadError::Size { .. }));
    let other = Digest::of(b"other");
    let few = judge(at(ORIGIN, size, other), &["a", "b", "w"]);
    assert!(
        matches!(few, HeadError::Root { is_final: false, ref signers, .. } if signers == &["a", "b", "w"]),
        "{few}"
    );
    assert!(matches!(judge(at(ORIGIN, size, other), &["a", "b", "e"]), HeadError::Root { is_final: true, .. }));
    let before = history.hashes.root_at(size - 1).unwrap();
    assert_eq!(judge(at(ORIGIN, size - 1, before), &["b"]), HeadError::NotASeal { size: size - 1 });
    let text = at(ORIGIN, size - 1, before).to_note_text();
    let log = NoteSignature::sign(&text, ORIGIN, &secret("b/log")).unwrap();
    let judged = history.heads.judge(&SignedNote::from_parts(text, vec![log]).unwrap()).unwrap();
    assert_eq!((judged.size, judged.vouchers.logs.len()), (size - 1, 1), "the log may sign any head");
    let mut twice = history.note(&["b", "a"]);
    twice.sign(ORIGIN, &secret("b/log")).unwrap();
    let error = history.heads.judge(&twice).unwrap_err();
    assert!(matches!(error, HeadError::Signature { error: VouchError::Repeated(_), .. }), "{error}");
}

#[test]
fn a_new_replica_signs_in_the_name_of_the_log_from_its_seal_on() {
    let mut history = History::new();
    history.change(3, &["a", "b", "c", "e"]);
    history.seal();
    let text = history.checkpoint().to_note_text();
    let line = |name: &str| NoteSignature::sign(&text, ORIGIN, &secret(&format!("{name}/log"))).unwrap();
    let note = |lines| SignedNote::from_parts(text.clone(), lines).unwrap();
    assert_eq!(history.heads.judge(&note(vec![line("e")])).unwrap().epoch.number, 1);
    assert_eq!(history.heads.judge(&note(vec![line("d")])).unwrap().epoch.number, 0);
    assert!(history.heads.judge(&note(vec![line("d"), line("e")])).is_err());
    assert!(history.heads.judge(&history.note(&["e"])).is_err(), "but it co-signs only later heads");
}
