//! A history of 100,000 entries: rounds of four hospitals, with valid signatures, recomputable versions and seals.

use fedledger_federation::plan::Plan;
use fedledger_ledger::seal::{SEAL_KIND, SealProposal};

use crate::consortium::{Consortium, SITES, plan};

/// Rounds of the history; each makes 17 entries.
const ROUNDS: u64 = 5_860;

/// Rounds between two seals.
const SEALED_EVERY: u64 = 10;

/// Time of the first seal, in milliseconds since the Unix epoch.
const TIME_MS: u64 = 1_800_000_000_000;

/// Makes it.
pub fn long() -> Consortium {
    eprintln!("figures: making a history of {ROUNDS} rounds");
    let plan = Plan { rounds: ROUNDS, ..plan("heart") };
    let (mut consortium, plan) = Consortium::ready_for(SITES.len(), plan);
    for round in 1..=ROUNDS {
        let version = consortium.run_round(&plan);
        consortium.evaluate(&version);
        if round.is_multiple_of(SEALED_EVERY) {
            seal(&mut consortium, round);
        }
    }
    consortium.sign_checkpoints(SITES.len());
    assert!(consortium.log.size() >= 100_000, "the history has {} entries", consortium.log.size());
    consortium
}

fn seal(consortium: &mut Consortium, round: u64) {
    let proposal = SealProposal { time_ms: TIME_MS + round * 1000, term: 1, cosigned: Vec::new() };
    let envelope = consortium.envelope("basel/replica", SEAL_KIND, proposal.to_bytes());
    consortium.apply(&envelope).unwrap();
    assert_eq!(consortium.log.sealed().index + 1, consortium.log.size(), "the seal was rejected");
}
