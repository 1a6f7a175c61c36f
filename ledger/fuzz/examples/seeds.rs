//! Writes the seeds of the fuzz targets anew, in the present formats: `cargo run --example seeds [-- history.bundle]`.
//!
//! The transactions are real ones, those that are committed under `seeds/envelope`. Given the bundle of a history, such
//! as `fedledger export` writes after a short demo, one of each kind is taken from it first. Seeds that a fuzzer found
//! have other names and stay.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use fedledger_ledger::{
    Digest, SecretKey,
    bundle::{BundleIndex, BundleWriter},
    epoch::EpochChain,
    evidence::{Evidence, Prefix},
    leaf::{Leaf, Outcome},
    note::VerifierKey,
    policy::{PolicyBuilder, Threshold},
    receipt::Receipt,
    seal::{RULES_VERSION, Seal},
    state_receipt::StateReceipt,
    transaction::Envelope,
};
use fedledger_ledger_fuzz::{
    history::{History, lie},
    note, policy,
    raft_message::step::{BYTES, CAMPAIGN, COMPACT, MESSAGE, PERSIST, PROPOSE, READ, TICKS, TRANSFER, TROUBLE},
    sealed::{SEALS, Sealed},
    state_proof,
};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

/// Largest envelope that becomes a seed, in bytes.
const ENVELOPE_SIZE_BYTES_MAX: usize = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = env::args().nth(1) {
        take_transactions(&fs::read(path)?)?;
    }
    let genesis = fs::read(seeds("codec").join("genesis"))?;
    let leaves = write_leaves()?;
    write("note", "signed", note::signed().to_string().as_bytes())?;
    write("note", "text", note::TEXT.as_bytes())?;
    let key = VerifierKey::ed25519(note::NAME, SecretKey::from_seed([5; 32]).public())?;
    write("note", "key", key.to_string().as_bytes())?;
    write("bundle", "small", &small_bundle(&genesis, &leaves, &note::signed().to_string())?)?;
    write_proofs()?;
    write_trust()?;
    write_epochs()?;
    write_lives()
}

/// Takes the genesis file and one transaction of each kind, if it is small, from a history.
fn take_transactions(bundle: &[u8]) -> Result<(), Box<dyn Error>> {
    let index = BundleIndex::scan(bundle)?;
    write("codec", "genesis", index.genesis.as_deref().ok_or("the bundle has no genesis file")?)?;
    let mut seen = BTreeSet::new();
    for bytes in index.leaves(bundle)? {
        let leaf = Leaf::from_bytes(&bytes?)?;
        let transaction = Envelope::open_unverified(&leaf.envelope)?;
        if leaf.envelope.len() <= ENVELOPE_SIZE_BYTES_MAX && seen.insert(transaction.kind.clone()) {
            write("envelope", &transaction.kind, &leaf.envelope)?;
        }
    }
    Ok(())
}

/// A leaf for each transaction, one of a refusal and one of a seal; and the payloads of the transactions.
fn write_leaves() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut paths = fs::read_dir(seeds("envelope"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let mut leaves = Vec::new();
    for (index, path) in (1..).zip(paths) {
        let envelope = fs::read(&path)?;
        let Ok(transaction) = Envelope::open_unverified(&envelope) else { continue };
        write("codec", &transaction.kind, &transaction.payload)?;
        let write_set = Digest::of(&transaction.payload);
        let outcome = Outcome::Accepted;
        let leaf = Leaf { index, raft_index: 2 * index, envelope, outcome, write_set, seal: None };
        write("leaf", &transaction.kind, &leaf.to_bytes())?;
        leaves.push(leaf);
    }
    let mut last = leaves.last().ok_or("there are no transactions")?.clone();
    last.outcome = Outcome::Rejected("not_permitted".into());
    write("leaf", "rejected", &last.to_bytes())?;
    last.outcome = Outcome::Accepted;
    last.seal = Some(Seal {
        number: 2,
        previous: 1,
        state_root: last.write_set,
        epoch: 0,
        next_epoch: last.write_set,
        time_ms: 1_700_000_000_000,
        rules_version: RULES_VERSION,
    });
    write("leaf", "sealed", &last.to_bytes())?;
    Ok(leaves.iter().map(Leaf::to_bytes).collect())
}

/// A bundle with everything that one can have.
fn small_bundle(genesis: &[u8], leaves: &[Vec<u8>], note: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut writer = BundleWriter::new(Vec::new(), genesis, &EpochChain::default().to_bytes())?;
    writer.add_note(note)?;
    for leaf in leaves.iter().take(2) {
        writer.add_leaf(leaf)?;
    }
    writer.add_policy(b"quorum none\n")?;
    let mut files = [b"one file".as_slice(), b"another", b""].map(|content| (Digest::of(content), content));
    files.sort();
    for (digest, content) in files {
        writer.add_blob(&digest, content.len() as u64, content)?;
    }
    Ok(writer.finish()?)
}

fn write_proofs() -> Result<(), Box<dyn Error>> {
    // Kind, size, index, number of changes, changes.
    write("proof", "inclusion", &[0, 69, 33, 0])?;
    write("proof", "inclusion-of-another-entry", &[0, 12, 5, 1, 2, 1, 6])?;
    write("proof", "inclusion-with-a-longer-proof", &[0, 12, 5, 1, 3, 4, 0, 9, 0])?;
    write("proof", "consistency", &[1, 69, 33, 0])?;
    write("proof", "consistency-from-another-root", &[1, 69, 33, 1, 1, 9, 0])?;
    let claims = [3u64, 7].map(u64::to_be_bytes).concat();
    write("proof", "arbitrary", &[[2].as_slice(), &claims, &[0x5a; 5 * 32]].concat())
}

/// Policies, receipts, evidence and state proofs.
fn write_trust() -> Result<(), Box<dyn Error>> {
    let log = VerifierKey::ed25519(note::NAME, SecretKey::from_seed([5; 32]).public())?;
    let mut alone = PolicyBuilder::new();
    alone.log(log.clone(), None)?.quorum(b"none")?;
    write("policy", "log-alone", &alone.build()?.to_bytes())?;
    let mut policy = PolicyBuilder::new();
    policy.log(log, Some(b"https://example.com/log"))?;
    for (number, name) in policy::WITNESSES.iter().enumerate() {
        let key = VerifierKey::cosignature_v1(name, policy::witness_key(number).public())?;
        policy.witness(format!("w{number}").as_bytes(), key, None)?;
    }
    policy.group(b"any", Threshold::AtLeast(1), &[b"w1", b"w2"])?;
    policy.group(b"all", Threshold::All, &[b"any".as_slice(), b"w0"])?;
    policy.quorum(b"all")?;
    write("policy", "groups", &policy.build()?.to_bytes())?;
    write("note", "witnessed", policy::witnessed().to_string().as_bytes())?;

    let log = History::get();
    let receipt = |index, size, extra: Option<&[u8]>| {
        Receipt::new(index, extra.map(<[u8]>::to_vec), log.inclusion(index, size), log.head(size))
    };
    write("receipt", "receipt", receipt(33, 70, None)?.to_string().as_bytes())?;
    write("receipt", "with-extra-data", receipt(4, 5, Some(b"anything"))?.to_string().as_bytes())?;
    write("receipt", "of-the-only-entry", receipt(0, 1, None)?.to_string().as_bytes())?;

    let other = Digest::of(b"another root");
    let prefix = Prefix { root: log.root(33), proof: log.consistency(33, 70) };
    let evidence = Evidence::new(lie(33, other), log.head(70), Some(prefix))?;
    write("evidence", "two-sizes", &evidence.to_bytes())?;
    write("evidence", "one-size", &Evidence::new(lie(70, other), log.head(70), None)?.to_bytes())?;
    // Sizes, who lies, and what about; then whether the proof is changed.
    let built = [[33, 70, 1].as_slice(), other.as_bytes(), &[1]].concat();
    write("evidence", "built", &built)?;

    write("state_proof", "present", &state_proof::state().prove(&[3]).to_bytes())?;
    write("state_proof", "absent", &state_proof::state().prove(&[50]).to_bytes())?;
    write("state_proof", "changed", &[3, 1, 0, 9, 2, 7, 5, 1, 2, 1, 8, 9])?;

    write("tiles", "path", b"tile/1/x001/234.p/17")?;
    write("tiles", "path-of-entries", b"tile/entries/x001/x234/067")?;
    // Width less one, index, level, two entries.
    write("tiles", "entries", &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, b'a', 0, 2, b'b', b'c'])?;
    // Number of the tile, changes less one, then place, kind and byte of the change.
    (0..5).try_for_each(|tile| write("tiles", &format!("changed-{tile}"), &[tile, 0, 0, 9, 3, 0xff]))
}

/// Chains of epochs and receipts of records.
fn write_epochs() -> Result<(), Box<dyn Error>> {
    let log = Sealed::get();
    write("epochs", "chain", &log.chain.to_bytes())?;
    write("epochs", "no-link", &EpochChain::default().to_bytes())?;
    write("epochs", "epoch", &log.epochs[1].to_bytes())?;
    // Number of changes; then for each the link, another seal, the kind of change, and what it takes.
    write("epochs", "unchanged-and-forged", &[0, 2, 1, 1, 3, 2, 9])?;
    (0..9).try_for_each(|kind| write("epochs", &format!("changed-{kind}"), &[1, 1, 0, kind, 0, 7, 2, 1]))?;

    let prove = |seal: usize, key: u8, value: Option<Vec<u8>>| {
        let (leaf, receipt) = log.seals[seal].clone();
        let (proof, key) = (state_proof::state().prove(&[key]), vec![key]);
        StateReceipt { leaf, receipt, proof, key, value }
    };
    write("state_receipt", "present", &prove(0, 3, Some(vec![3, 3])).to_bytes())?;
    write("state_receipt", "absent", &prove(SEALS.len() - 1, 50, None).to_bytes())?;
    // The seal, the key, number of changes; then for each its kind, and what it takes.
    (0..6).try_for_each(|kind| write("state_receipt", &format!("changed-{kind}"), &[1, 7, 1, kind, 0, 7, 2, 1]))
}

/// Lives of a replica, as the steps of the target.
fn write_lives() -> Result<(), Box<dyn Error>> {
    // Kinds of messages by their numbers in `eraftpb.proto`.
    let (append, append_response, vote, snapshot, beat, beat_response, pre_vote) = (3, 4, 6, 7, 8, 9, 18);
    // Numbers that mean something to the replica, as the target chooses them.
    let (zero, term, next_term, term_before, commit, last, byte) = (0, 1, 2, 3, 4, 5, 8);
    // What else a message has.
    let (with_entries, with_context, with_snapshot) = (4, 8, 16);
    // The first peer, which is replica 1.
    let peer = 0;

    let heartbeat = |term, commit| vec![MESSAGE, peer, beat, term, zero, zero, commit, 0];
    let response = |kind, term, index| vec![MESSAGE, peer, kind, term, index, zero, zero, 0];
    let persist = vec![PERSIST];
    let two_entries = vec![
        MESSAGE,
        peer,
        append,
        term,
        last,
        term_before,
        zero,
        with_entries,
        2,
        0,
        term,
        2,
        b'a',
        b'b',
        0,
        term,
        1,
        b'c',
    ];
    let compact = vec![COMPACT, commit, commit];
    let follower = [
        heartbeat(next_term, zero),
        persist.clone(),
        two_entries,
        persist.clone(),
        heartbeat(term, last),
        compact.clone(),
        vec![READ, TICKS, 23, TICKS, 23],
    ];
    write("raft_message", "follower", &follower.concat())?;
    let elected = [
        vec![CAMPAIGN],
        persist.clone(),
        response(pre_vote, next_term, zero),
        persist.clone(),
        response(vote, term, zero),
        persist.clone(),
        response(append_response, term, last),
    ]
    .concat();
    let confirmed = vec![MESSAGE, peer, beat_response, term, zero, zero, commit, with_context, 0];
    let leader = [
        elected,
        vec![PROPOSE, 0, 2, b'd', b'e'],
        persist.clone(),
        response(append_response, term, last),
        vec![READ],
        confirmed,
        compact,
        vec![TROUBLE, peer, TRANSFER, peer, TICKS, 12],
    ];
    write("raft_message", "leader", &leader.concat())?;
    let snapshot = vec![MESSAGE, peer, snapshot, term, zero, zero, zero, with_snapshot, byte, 50, term, 1];
    let lagging = [heartbeat(next_term, zero), persist.clone(), snapshot, persist, heartbeat(term, last)];
    write("raft_message", "snapshot", &lagging.concat())?;
    let mut honest = Message { from: 1, to: 2, term: 2, ..Message::default() };
    honest.set_msg_type(MessageType::MsgHeartbeat);
    let honest = honest.write_to_bytes()?;
    let steps = [[BYTES, peer].as_slice(), &u16::try_from(honest.len())?.to_be_bytes(), &honest].concat();
    write("raft_message", "bytes", &steps)
}

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(seeds(target))?;
    Ok(fs::write(seeds(target).join(name), bytes)?)
}
