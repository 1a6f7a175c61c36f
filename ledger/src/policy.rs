//! Whom a verifier trusts: the policy that a checkpoint must satisfy.
//!
//! The format is C2SP tlog-policy (<https://c2sp.org/tlog-policy>), a text that operators write by hand and tools of
//! other transparency logs read: the keys of logs, the keys of witnesses, and the quorum of witnesses whose
//! co-signatures make a checkpoint acceptable.
//!
//! ```text
//! log example.com/log+2f1e1aa5+AZ...
//! witness north north.example/w+70b861c7+BG...
//! witness south south.example/w+0c4b8d2e+BP...
//! group both all north south
//! quorum both
//! ```
//!
//! [`Policy::parse`] is strict and knows nothing but the format; [`PolicyBuilder`] makes the same values in code, under
//! the same rules. Names are octets, not text: two of them are equal only if every octet is.

mod builder;
mod name;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    builder::{PolicyBuilder, PolicyDefect},
    name::PolicyName,
    parse::ParsePolicyError,
};
use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    digest::shortened,
    note::{NoteError, SignedNote, VerifierKey},
};

/// Largest policy, in bytes: room for several hundred members with addresses and comments.
pub const POLICY_SIZE_BYTES_MAX: usize = 256 * 1024;

/// Most lines of a policy, comments included. The format demands that at least 32 logs, witnesses and groups fit.
pub const POLICY_LINES_MAX: usize = 1024;

/// The name that stands for a quorum without any witness.
const NONE: &[u8] = b"none";

/// Logs, witnesses, and the quorum of witnesses that a checkpoint needs.
///
/// [`fmt::Display`] is for people: octets that are no text are replaced. [`Policy::to_bytes`] is exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    /// In the order of definition: members stand before the groups that they belong to.
    groups: Vec<PolicyGroup>,
    /// Nothing for a quorum of `none`.
    quorum: Option<Member>,
}

/// A log that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// The key, whose name is the origin of the log's checkpoints.
    pub key: VerifierKey,
    /// Where to find the log, for tools that ask it; octets without meaning here.
    pub url: Option<PolicyName>,
}

/// A witness that may take part in a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWitness {
    /// What the policy calls it.
    pub name: PolicyName,
    /// The key of its co-signatures.
    pub key: VerifierKey,
    /// Where to find the witness, for tools that ask it; octets without meaning here.
    pub url: Option<PolicyName>,
}

/// How many members of a group must have witnessed a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// Every member.
    All,
    /// One member at least.
    Any,
    /// This many members at least, from 1 to their number.
    AtLeast(usize),
}

/// A group of witnesses and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PolicyGroup {
    name: PolicyName,
    threshold: Threshold,
    members: Vec<Member>,
}

/// A witness or a group, by its position among those of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// What a note that satisfies a policy says, and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The head of the log.
    pub checkpoint: Checkpoint,
    /// The listed keys of the checkpoint's log that signed, at least one.
    pub logs: Vec<VerifierKey>,
    /// The listed witnesses that co-signed, in the order of the policy. There may be more of them than the quorum needs.
    pub witnesses: Vec<Witnessed>,
    /// The median of the witnesses' times, in seconds since the beginning of 1970; nothing without witnesses.
    ///
    /// Of an even number it is the lower of the two in the middle. As long as fewer than half of the witnesses that
    /// co-signed have a wrong clock, the median lies between two times of right ones.
    pub time_s: Option<u64>,
}

/// A co-signature that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessed {
    /// What the policy calls the witness.
    pub name: PolicyName,
    /// The key of the witness.
    pub key: VerifierKey,
    /// When it co-signed, in seconds since the beginning of 1970, by its own clock.
    pub time_s: u64,
}

/// A note that does not satisfy a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text of the note is no checkpoint.
    #[error("the note is no checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is of a log that the policy does not list.
    #[error("the policy lists no log {0:?}")]
    UnknownLog(String),
    /// No listed key of the checkpoint's log has signed.
    #[error("no key that the policy lists for the log {0:?} has signed the checkpoint")]
    NotSignedByLog(String),
    /// A signature by a listed key does not verify: the note as a whole is not to be trusted.
    #[error(transparent)]
    BadSignature(NoteError),
    /// The witnesses that co-signed are not enough.
    #[error("{cosigned} of {listed} witnesses have co-signed the checkpoint, which is no quorum {quorum}")]
    NoQuorum {
        /// Listed witnesses that co-signed.
        cosigned: usize,
        /// Witnesses that the policy lists.
        listed: usize,
        /// The witness or group that must have witnessed the checkpoint.
        quorum: PolicyName,
    },
}

impl Policy {
    /// The logs, any of which is accepted, in the order of the text.
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses, in the order of the text.
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// The name of the witness or group that must have witnessed a checkpoint; nothing for `none`.
    pub fn quorum(&self) -> Option<&PolicyName> {
        self.quorum.and_then(|member| self.name_of(member))
    }

    /// Checks a note against the policy.
    ///
    /// The note must be a checkpoint, signed by a listed log whose key is named as the checkpoint's origin, and
    /// co-signed by a quorum. Lines by keys that are not listed are ignored, as C2SP signed-note demands. The policy
    /// does not say how recent a checkpoint must be; see [`Accepted::time_s`].
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if the note does not satisfy the policy, or if any signature by a listed key does not verify.
    pub fn check(&self, note: &SignedNote) -> Result<Accepted, PolicyError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let logs = self.signing_logs(note, checkpoint.origin())?;
        let times = self.cosignature_times(note)?;
        let cosigned: Vec<bool> = times.iter().map(Option::is_some).collect();
        let witnesses: Vec<Witnessed> = self.witnesses.iter().zip(times).filter_map(Witnessed::of).collect();
        if let Some(quorum) = self.quorum
            && !self.is_witnessed(quorum, &cosigned)
        {
            return Err(PolicyError::NoQuorum {
                cosigned: witnesses.len(),
                listed: self.witnesses.len(),
                quorum: self.name_of(quorum).cloned().unwrap_or_else(PolicyName::none),
            });
        }
        let time_s = lower_median(witnesses.iter().map(|witness| witness.time_s).collect());
        Ok(Accepted { checkpoint, logs, witnesses, time_s })
    }

    /// The text, from which [`Policy::parse`] reads an equal policy: logs, witnesses, groups and the quorum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for log in &self.logs {
            push_line(&mut text, &[b"log", log.key.to_string().as_bytes()], &log.url);
        }
        for witness in &self.witnesses {
            let key = witness.key.to_string();
            push_line(&mut text, &[b"witness", witness.name.as_bytes(), key.as_bytes()], &witness.url);
        }
        for group in &self.groups {
            let threshold = group.threshold.to_string();
            let mut items = vec![b"group".as_slice(), group.name.as_bytes(), threshold.as_bytes()];
            items.extend(group.members.iter().filter_map(|&member| self.name_of(member)).map(PolicyName::as_bytes));
            push_line(&mut text, &items, &None);
        }
        push_line(&mut text, &[b"quorum", self.quorum().map_or(NONE, PolicyName::as_bytes)], &None);
        text
    }

    /// The listed keys of the log `origin` that signed the note.
    fn signing_logs(&self, note: &SignedNote, origin: &str) -> Result<Vec<VerifierKey>, PolicyError> {
        let mut signed = Vec::new();
        for log in &self.logs {
            // Whoever signs a checkpoint of another log says nothing about this one, but its signature must be good.
            if is_signed(note.verify_with(&log.key))?.is_some() && log.key.name() == origin {
                signed.push(log.key.clone());
            }
        }
        if !signed.is_empty() {
            Ok(signed)
        } else if self.logs.iter().any(|log| log.key.name() == origin) {
            Err(PolicyError::NotSignedByLog(shortened(origin)))
        } else {
            Err(PolicyError::UnknownLog(shortened(origin)))
        }
    }

    /// When each witness co-signed the note, if it did.
    fn cosignature_times(&self, note: &SignedNote) -> Result<Vec<Option<u64>>, PolicyError> {
        let verify = |key: &VerifierKey| is_signed(note.verify_cosignature(key.name(), key.public_key()));
        self.witnesses.iter().map(|witness| verify(&witness.key)).collect()
    }

    /// Whether `member` has witnessed what the witnesses in `cosigned` have co-signed.
    fn is_witnessed(&self, member: Member, cosigned: &[bool]) -> bool {
        let mut groups = Vec::<bool>::with_capacity(self.groups.len());
        let of = |member, groups: &[bool]| match member {
            Member::Witness(index) => cosigned.get(index).is_some_and(|witnessed| *witnessed),
            Member::Group(index) => groups.get(index).is_some_and(|witnessed| *witnessed),
        };
        // Members are defined before their groups, so one pass is enough, however deep the groups are nested.
        for group in &self.groups {
            let witnessed = group.members.iter().filter(|&&member| of(member, &groups)).count();
            groups.push(witnessed >= group.threshold.count(group.members.len()));
        }
        of(member, &groups)
    }

    fn name_of(&self, member: Member) -> Option<&PolicyName> {
        match member {
            Member::Witness(index) => self.witnesses.get(index).map(|witness| &witness.name),
            Member::Group(index) => self.groups.get(index).map(|group| &group.name),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl Threshold {
    /// Members needed of a group of `members`.
    const fn count(self, members: usize) -> usize {
        match self {
            Self::All => members,
            Self::Any => 1,
            Self::AtLeast(count) => count,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Any => f.write_str("any"),
            Self::AtLeast(count) => count.fmt(f),
        }
    }
}

impl Witnessed {
    fn of((witness, time_s): (&PolicyWitness, Option<u64>)) -> Option<Self> {
        time_s.map(|time_s| Self { name: witness.name.clone(), key: witness.key.clone(), time_s })
    }
}

/// What a signature that verified gives; nothing where there is none.
fn is_signed<T>(verified: Result<T, NoteError>) -> Result<Option<T>, PolicyError> {
    match verified {
        Ok(value) => Ok(Some(value)),
        Err(NoteError::NotSigned { .. }) => Ok(None),
        Err(error) => Err(PolicyError::BadSignature(error)),
    }
}

/// The value in the middle; of an even number, the lower of both.
fn lower_median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Appends items and an optional address as one line.
fn push_line(text: &mut Vec<u8>, items: &[&[u8]], url: &Option<PolicyName>) {
    text.extend(items.join(&b' '));
    if let Some(url) = url {
        text.push(b' ');
        text.extend(url.as_bytes());
    }
    text.push(b'\n');
}
