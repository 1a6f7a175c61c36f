//! Heads of the log as a client remembers them: what one replica shows must go on from what any replica showed before.
//!
//! A client that asks with the last head that it has seen makes a fork known to whoever looks: the replica proves that its
//! log begins with that head, or one of the two has signed a history that it does not stand by.

use fedledger_federation::history::origin;
use fedledger_ledger::{checkpoint::Checkpoint, merkle::verify_consistency, note::SignedNote};

use super::{ApiClient, ApiCode, ApiError};
use crate::kit::GenesisFile;

/// What a replica showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenHead {
    /// It has no head yet.
    Nothing,
    /// Its newest head is consistent with what was known.
    Consistent {
        /// The replica's note, if it is to be remembered: it is about more entries than the known one, and final.
        newer: Option<SignedNote>,
        /// Who vouches for the replica's head.
        vouched: Vouched,
    },
}

/// Who vouches for a head, as far as somebody can tell who has the genesis file alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// As many replicas of the genesis file as make a head final.
    Final,
    /// No such number: no head is final yet on that replica.
    NotYet,
    /// No such number, and the replica says that members have changed since the genesis file. That makes nothing final by
    /// itself: whether the head is, only the chain of epochs shows.
    Unchecked {
        /// Number of the epoch in force, as the replica says.
        epoch: u64,
    },
}

/// Two heads that no append-only log can have both, or that are not shown to be heads of one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} shows the head {served} of a log whose head was {known} before: {reason}. One of the replicas that signed them \
     is not honest, or lost data"
)]
pub struct Conflict {
    /// URL of the replica.
    pub url: String,
    /// The head seen before, in words.
    pub known: String,
    /// The replica's, in words.
    pub served: String,
    /// Why they do not fit together.
    pub reason: String,
    /// The note seen before.
    pub known_note: Box<SignedNote>,
    /// The replica's note.
    pub served_note: Box<SignedNote>,
}

/// Why a head is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The replica did not answer the question.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It contradicts what was seen before.
    #[error(transparent)]
    Conflict(#[from] Box<Conflict>),
    /// It is no head of this log.
    #[error("{url} shows a head that is none of this log: {reason}; ask another replica")]
    Invalid {
        /// URL of the replica.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl ApiClient {
    /// Asks for the newest head and checks that it goes on from `known`, the last one that was seen.
    ///
    /// # Errors
    ///
    /// [`HeadError`]; a [`Conflict`] carries both notes, which belong into the hands of the other members.
    pub async fn check_head(&self, genesis: &GenesisFile, known: Option<&SignedNote>) -> Result<SeenHead, HeadError> {
        let (note, proof) = match self.checkpoint_since(known).await {
            Ok(answer) => answer,
            Err(ApiError::Refused(refused)) if refused.code == ApiCode::Contradicts => {
                let served = self.checkpoint().await?;
                return Err(self.refused_head(known, served, refused.message));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(note) = note else { return Ok(SeenHead::Nothing) };
        let served = self.head(&note, genesis)?;
        let epoch = genesis.genesis.epoch();
        let vouchers = epoch.vouchers(served.origin(), &note).map_err(|error| self.no_head(&error))?;
        let mut is_newer = true;
        if let Some(known_note) = known {
            let known = self.head(known_note, genesis)?;
            check_extension(&known, &served, proof.as_deref())
                .map_err(|reason| self.conflict(known_note, &known, &note, &served, reason))?;
            // The replica may lag, or nothing has happened.
            is_newer = served.size() > known.size();
        }
        if vouchers.is_final(&epoch) {
            return Ok(SeenHead::Consistent { newer: is_newer.then_some(note), vouched: Vouched::Final });
        }
        // A head for which too few stand must not push out one for which enough do. What the replica says of its epoch
        // tells people why, and lowers nothing.
        let vouched = match self.status().await?.epoch {
            0 => Vouched::NotYet,
            epoch => Vouched::Unchecked { epoch },
        };
        Ok(SeenHead::Consistent { newer: None, vouched })
    }

    fn head(&self, note: &SignedNote, genesis: &GenesisFile) -> Result<Checkpoint, HeadError> {
        let head = Checkpoint::parse(note.text()).map_err(|error| self.no_head(&error))?;
        let expected = origin(&genesis.genesis);
        if head.origin() == expected {
            Ok(head)
        } else {
            let reason = format!("it is of the log {:?}, expected {expected:?}", head.origin());
            Err(HeadError::Invalid { url: self.url().to_owned(), reason })
        }
    }

    fn no_head(&self, error: &dyn std::error::Error) -> HeadError {
        HeadError::Invalid { url: self.url().to_owned(), reason: error.to_string() }
    }

    /// The replica says itself that its log is another one.
    fn refused_head(&self, known: Option<&SignedNote>, served: Option<SignedNote>, reason: String) -> HeadError {
        let (Some(known_note), Some(note)) = (known, served) else {
            return self.invalid("it refuses a head that it was not shown").into();
        };
        match (Checkpoint::parse(known_note.text()), Checkpoint::parse(note.text())) {
            (Ok(known), Ok(served)) => self.conflict(known_note, &known, &note, &served, reason),
            _ => self.invalid("its checkpoint is none").into(),
        }
    }

    fn conflict(
        &self,
        known_note: &SignedNote,
        known: &Checkpoint,
        served_note: &SignedNote,
        served: &Checkpoint,
        reason: String,
    ) -> HeadError {
        let words = |head: &Checkpoint| format!("{} of {} entries", head.root(), head.size());
        let conflict = Conflict {
            url: self.url().to_owned(),
            known: words(known),
            served: words(served),
            reason,
            known_note: Box::new(known_note.clone()),
            served_note: Box::new(served_note.clone()),
        };
        HeadError::Conflict(Box::new(conflict))
    }
}

/// Checks that the served head extends the known one. A replica that knows fewer entries has compared the known head with
/// its own log as far as it can, and proves nothing.
fn check_extension(
    known: &Checkpoint,
    served: &Checkpoint,
    proof: Option<&[fedledger_ledger::Digest]>,
) -> Result<(), String> {
    if served.size() < known.size() {
        return Ok(());
    }
    if served == known {
        return Ok(());
    }
    let proof = proof.ok_or("the replica does not prove that its log begins with it")?;
    let verified = verify_consistency(known.size(), known.root(), served.size(), served.root(), proof);
    verified.map_err(|error| format!("the proof that one follows from the other fails, {error}"))
}

#[cfg(test)]
mod tests {
    use fedledger_ledger::{
        Digest,
        merkle::{Frontier, leaf_hash, node_hash},
    };

    use super::*;

    /// The roots of logs of one, two and three entries.
    fn heads() -> [Checkpoint; 3] {
        let mut frontier = Frontier::new();
        [1u64, 2, 3].map(|size| {
            frontier.append(leaf_hash(&size.to_be_bytes()));
            Checkpoint::new("fedledger/heart", size, frontier.root()).unwrap()
        })
    }

    #[test]
    fn a_later_head_needs_its_proof() {
        let [one, two, three] = heads();
        let second = leaf_hash(&2u64.to_be_bytes());
        assert_eq!(check_extension(&one, &two, Some(&[second])), Ok(()));
        assert_eq!(check_extension(&two, &three, Some(&[leaf_hash(&3u64.to_be_bytes())])), Ok(()));
        assert!(check_extension(&one, &two, None).unwrap_err().contains("does not prove"));
        assert!(check_extension(&one, &two, Some(&[])).is_err());
        assert!(check_extension(&one, &two, Some(&[Digest::of(b"made up")])).is_err());
    }

    #[test]
    fn another_history_has_no_proof() {
        let [one, two, _] = heads();
        let other = Checkpoint::new("fedledger/heart", 1, Digest::of(b"another entry")).unwrap();
        let second = leaf_hash(&2u64.to_be_bytes());
        assert!(check_extension(&other, &two, Some(&[second])).unwrap_err().contains("root"));
        // Two heads of one size are the same or contradict each other, whatever is said.
        let forked = node_hash(other.root(), &second);
        let forked = Checkpoint::new("fedledger/heart", 2, forked).unwrap();
        assert!(check_extension(&two, &forked, Some(&[])).is_err());
        assert!(check_extension(&two, &forked, None).is_err());
        assert_eq!(check_extension(&two, &two.clone(), None), Ok(()));
        assert_eq!(check_extension(&two, &one, None), Ok(()), "a replica may lag");
    }
}
