//! Chains of epochs: whatever holds leads to the epochs that honest replicas have vouched for, and to no others.

use std::collections::BTreeMap;

use fedledger_ledger::{
    SecretKey,
    epoch::{EPOCH_CHAIN_SIZE_BYTES_MAX, EPOCH_SIZE_BYTES_MAX, Epoch, EpochChain, EpochLink, ReplicaKeys},
    note::SignedNote,
    receipt::Receipt,
};

use super::{
    choices::Choices,
    sealed::{LIAR, ORIGIN, SEALS, Sealed, forged_seal},
};

/// Most changes of the true chain.
const CHANGES_MAX: usize = 4;

/// Replicas that the liar puts into an epoch of its own.
const STRANGERS: [&str; 3] = ["x", "y", "z"];

/// Reads the bytes as a chain and as an epoch, changes the true chain, and forges a link.
pub fn run(data: &[u8]) {
    if let Ok(chain) = EpochChain::from_bytes(data) {
        assert!(data.len() <= EPOCH_CHAIN_SIZE_BYTES_MAX && EpochChain::is_meant_by(data));
        assert_eq!(chain.to_bytes(), data, "a chain has one encoding");
        tells_the_truth(&chain);
    }
    if let Ok(epoch) = Epoch::from_bytes(data) {
        assert!(data.len() <= EPOCH_SIZE_BYTES_MAX);
        assert_eq!(epoch.to_bytes(), data, "an epoch has one encoding");
        for (_, receipt) in &Sealed::get().seals {
            // Keys that anybody may have chosen, against signatures that others have made.
            if let Ok(vouchers) = epoch.vouchers(ORIGIN, receipt.checkpoint()) {
                assert!(vouchers.replicas.keys().all(|node| epoch.replicas.contains_key(node)));
            }
        }
        if let Ok(policy) = epoch.policy(ORIGIN) {
            assert_eq!(policy.witnesses().len(), epoch.replicas.len() + epoch.witnesses.len());
        }
    }
    let mut choices = Choices::new(data);
    tells_the_truth(&changed(&mut choices));
    tells_the_truth(&forged(&mut choices));
}

/// A chain that holds leads through true epochs, each with the size of the head that its seal makes.
fn tells_the_truth(chain: &EpochChain) {
    let log = Sealed::get();
    let Ok(epochs) = chain.verify(ORIGIN, &log.epochs[0]) else { return };
    assert_eq!(epochs.iter().count(), chain.links().len() + 1);
    let sizes = std::iter::once(0).chain(SEALS.map(|index| index + 1));
    for (found, truth) in epochs.iter().zip(sizes.zip(&log.epochs)) {
        assert_eq!(found, truth, "an epoch was accepted that nobody vouches for");
    }
    assert!(chain.links().len() <= SEALS.len(), "an epoch was accepted that never was");
    for (size, epoch) in epochs.iter() {
        assert_eq!(epochs.of_head(size + 1), Some(epoch));
    }
    for ((_, receipt), (_, epoch)) in log.seals.iter().zip(epochs.iter()) {
        assert!(epochs.accept(receipt.checkpoint()).is_ok(), "epoch {} does not vouch for its seal", epoch.number);
    }
}

/// The true chain with a few changes.
fn changed(choices: &mut Choices<'_>) -> EpochChain {
    let log = Sealed::get();
    let mut links = log.chain.links().to_vec();
    for _ in 0..choices.below(CHANGES_MAX + 1) {
        let place = choices.below(links.len().max(1));
        let Some(link) = links.get(place).cloned() else { break };
        let (receipt, other) = (&link.receipt, &log.seals[choices.below(SEALS.len())]);
        let with = |index, hashes, note| Receipt::new(index, None, hashes, note).expect("the note is a checkpoint");
        let (index, hashes, note) = (receipt.index(), receipt.hashes().to_vec(), receipt.checkpoint().clone());
        let changed = match choices.below(9) {
            0 => {
                links.remove(place);
                continue;
            }
            1 => {
                links.insert(place, link);
                continue;
            }
            2 => EpochLink { epoch: log.epochs[choices.below(log.epochs.len())].to_bytes(), ..link },
            3 => EpochLink { epoch: choices.changed(&link.epoch), ..link },
            4 => EpochLink { leaf: choices.changed(&link.leaf), ..link },
            5 => EpochLink { leaf: other.0.clone(), ..link },
            6 => EpochLink { receipt: other.1.clone(), ..link },
            7 => {
                let mut hashes = hashes;
                let place = choices.below(hashes.len().max(1));
                hashes.splice(place..hashes.len().min(place + 1), [choices.digest()]);
                EpochLink { receipt: with(choices.number_below(SEALS[1] + 2), hashes, note), ..link }
            }
            _ => {
                // One line of the note is missing, or changed.
                let text = note.to_string();
                let lines: Vec<&str> = text.lines().collect();
                let place = choices.below(lines.len());
                let kept: Vec<&str> =
                    lines.iter().enumerate().filter(|(number, _)| *number != place).map(|(_, line)| *line).collect();
                let text = kept.join("\n") + "\n";
                let Ok(note) = SignedNote::parse(&text) else { continue };
                match Receipt::new(index, None, hashes, note) {
                    Ok(receipt) => EpochLink { receipt, ..link },
                    Err(_) => continue,
                }
            }
        };
        links[place] = changed;
    }
    EpochChain::new(links).expect("a few links")
}

/// Some true links, and one that puts an epoch of the liar's own making into force.
fn forged(choices: &mut Choices<'_>) -> EpochChain {
    let log = Sealed::get();
    let kept = choices.below(SEALS.len() + 1);
    let mut links = log.chain.links()[..kept].to_vec();
    let previous = &log.epochs[kept];
    let public = |label: u8| SecretKey::from_seed([label; 32]).public();
    let keys = ReplicaKeys { author: public(1), log: public(2), cosign: public(3) };
    let mut replicas: BTreeMap<_, _> = STRANGERS.iter().map(|name| ((*name).to_owned(), keys)).collect();
    if choices.below(2) == 1 {
        replicas.extend(previous.replicas.get(LIAR).map(|keys| (LIAR.to_owned(), *keys)));
    }
    let epoch = Epoch {
        number: previous.number + choices.number_below(3),
        index: previous.index + choices.number_below(4),
        threshold: choices.number_below(5),
        replicas,
        witnesses: BTreeMap::new(),
    };
    let (leaf, receipt) = forged_seal(previous.index + choices.number_below(20), previous.number, &epoch);
    links.push(EpochLink { epoch: epoch.to_bytes(), leaf, receipt });
    EpochChain::new(links).expect("a few links")
}
