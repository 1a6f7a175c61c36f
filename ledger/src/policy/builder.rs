//! Policies put together piece by piece, under the rules of the format.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Member, NONE, POLICY_LINES_MAX, POLICY_SIZE_BYTES_MAX, Policy, PolicyGroup, PolicyLog, PolicyName, PolicyWitness,
    Threshold, name::quoted,
};
use crate::{
    keys::PublicKey,
    note::{SignatureType, VerifierKey, VerifierKeyError},
};

/// What makes a text, or what was put together, no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyDefect {
    /// Larger than [`POLICY_SIZE_BYTES_MAX`].
    #[error("the policy is larger than {POLICY_SIZE_BYTES_MAX} bytes")]
    TooLarge,
    /// More than [`POLICY_LINES_MAX`] lines.
    #[error("the policy has more than {POLICY_LINES_MAX} lines")]
    TooManyLines,
    /// A last line without its newline.
    #[error("the last line does not end with a newline: the file may have been cut off")]
    NoFinalNewline,
    /// A control character other than tab and newline.
    #[error("the character {0:#04x} is not allowed: only tab and newline are, of all control characters")]
    ControlCharacter(u8),
    /// A line that begins with none of the four words.
    #[error("{0} is no kind of line: expected log, witness, group or quorum")]
    UnknownKind(String),
    /// Too few or too many words.
    #[error("expected `{0}`")]
    Form(&'static str),
    /// A key that cannot be read.
    #[error(transparent)]
    Key(#[from] VerifierKeyError),
    /// A witness with a key that does not co-sign.
    #[error("the key {0:?} signs logs: a witness needs a key of the co-signature type")]
    NotACosigner(String),
    /// Two logs or two witnesses with the same public key, perhaps under different names.
    #[error("the key of {0:?} is listed already")]
    DuplicateKey(String),
    /// A name or address that is empty or contains spaces or control characters.
    #[error("a name or address must be one word without control characters, found {0}")]
    Word(String),
    /// A second definition of a name.
    #[error("the name {0} is defined already")]
    DuplicateName(String),
    /// The predefined name, defined or used as a member.
    #[error("the name none is only for `quorum none`")]
    ReservedName,
    /// A name that no line before this one defines.
    #[error("no witness or group {0} is defined on a line before this one")]
    UnknownName(String),
    /// A name that is a member of two groups, or twice of one.
    #[error("{0} is a group member already, and can be one only once")]
    DuplicateMember(String),
    /// A threshold that is no number, or not one that the group can have.
    #[error("{threshold} is no threshold for {members} members: expected all, any or a number from 1 to {members}")]
    Threshold {
        /// What was found.
        threshold: String,
        /// Members of the group.
        members: usize,
    },
    /// A second quorum line.
    #[error("the quorum is defined already")]
    DuplicateQuorum,
    /// No quorum line at all.
    #[error("no quorum line: end with `quorum NAME`, or `quorum none` if no witnesses are needed")]
    NoQuorum,
}

/// Puts a [`Policy`] together: logs and witnesses in any order, groups and the quorum after their members.
///
/// What is refused changes nothing.
#[derive(Debug, Clone, Default)]
pub struct PolicyBuilder {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<PolicyGroup>,
    quorum: Option<Option<Member>>,
    names: BTreeMap<PolicyName, Member>,
    log_keys: BTreeSet<PublicKey>,
    witness_keys: BTreeSet<PublicKey>,
    /// What is a member of some group.
    members: BTreeSet<PolicyName>,
}

impl PolicyBuilder {
    /// A policy without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists a log, whose key is named as the origin of its checkpoints.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect`] if the public key is listed as a log's already, or the address is not one word.
    pub fn log(&mut self, key: VerifierKey, url: Option<&[u8]>) -> Result<&mut Self, PolicyDefect> {
        let url = url.map(word).transpose()?;
        if !self.log_keys.insert(*key.public_key()) {
            return Err(PolicyDefect::DuplicateKey(key.name().to_owned()));
        }
        self.logs.push(PolicyLog { key, url });
        Ok(self)
    }

    /// Lists a witness under a name of its own.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect`] if the name is taken or not allowed, the key is not of type
    /// [`SignatureType::CosignatureV1`] or listed as a witness's already, or the address is not one word.
    pub fn witness(&mut self, name: &[u8], key: VerifierKey, url: Option<&[u8]>) -> Result<&mut Self, PolicyDefect> {
        let name = self.new_name(name)?;
        let url = url.map(word).transpose()?;
        if key.kind() != SignatureType::CosignatureV1 {
            return Err(PolicyDefect::NotACosigner(key.name().to_owned()));
        }
        if !self.witness_keys.insert(*key.public_key()) {
            return Err(PolicyDefect::DuplicateKey(key.name().to_owned()));
        }
        self.names.insert(name.clone(), Member::Witness(self.witnesses.len()));
        self.witnesses.push(PolicyWitness { name, key, url });
        Ok(self)
    }

    /// Defines a group of witnesses and groups that are there already.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect`] if the name is taken or not allowed, a member is unknown or a group member already, or the
    /// threshold is not between 1 and the number of members.
    pub fn group<M: AsRef<[u8]>>(
        &mut self,
        name: &[u8],
        threshold: Threshold,
        members: &[M],
    ) -> Result<&mut Self, PolicyDefect> {
        let name = self.new_name(name)?;
        if members.is_empty() || !(1..=members.len()).contains(&threshold.count(members.len())) {
            let threshold = quoted(threshold.to_string().as_bytes());
            return Err(PolicyDefect::Threshold { threshold, members: members.len() });
        }
        let mut claimed = BTreeSet::new();
        let members = members.iter().map(|member| self.claim(member.as_ref(), &mut claimed));
        let members = members.collect::<Result<_, _>>()?;
        self.members.append(&mut claimed);
        self.names.insert(name.clone(), Member::Group(self.groups.len()));
        self.groups.push(PolicyGroup { name, threshold, members });
        Ok(self)
    }

    /// Names the witness or group that must have witnessed a checkpoint; `none` if no witness is needed.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect`] if the name is unknown or the quorum is defined already.
    pub fn quorum(&mut self, name: &[u8]) -> Result<&mut Self, PolicyDefect> {
        if self.quorum.is_some() {
            return Err(PolicyDefect::DuplicateQuorum);
        }
        let quorum = if name == NONE { None } else { Some(self.defined(name)?.1) };
        self.quorum = Some(quorum);
        Ok(self)
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// [`PolicyDefect::NoQuorum`] if none was named; [`PolicyDefect::TooManyLines`] or [`PolicyDefect::TooLarge`] if
    /// [`Policy::parse`] would refuse the text for it.
    pub fn build(self) -> Result<Policy, PolicyDefect> {
        let quorum = self.quorum.ok_or(PolicyDefect::NoQuorum)?;
        let policy = Policy { logs: self.logs, witnesses: self.witnesses, groups: self.groups, quorum };
        if policy.logs.len() + policy.witnesses.len() + policy.groups.len() >= POLICY_LINES_MAX {
            return Err(PolicyDefect::TooManyLines);
        }
        if policy.to_bytes().len() > POLICY_SIZE_BYTES_MAX { Err(PolicyDefect::TooLarge) } else { Ok(policy) }
    }

    /// A name that may be defined.
    fn new_name(&self, name: &[u8]) -> Result<PolicyName, PolicyDefect> {
        if name == NONE {
            return Err(PolicyDefect::ReservedName);
        }
        let name = word(name)?;
        if self.names.contains_key(&name) {
            return Err(PolicyDefect::DuplicateName(quoted(name.as_bytes())));
        }
        Ok(name)
    }

    /// A name that is defined, and for what.
    fn defined(&self, name: &[u8]) -> Result<(PolicyName, Member), PolicyDefect> {
        let unknown = || PolicyDefect::UnknownName(quoted(name));
        let name = PolicyName::new(name).ok_or_else(unknown)?;
        let member = *self.names.get(&name).ok_or_else(unknown)?;
        Ok((name, member))
    }

    /// Takes a name as a member of a new group that has `claimed` others; nothing can be a member twice.
    fn claim(&self, name: &[u8], claimed: &mut BTreeSet<PolicyName>) -> Result<Member, PolicyDefect> {
        if name == NONE {
            return Err(PolicyDefect::ReservedName);
        }
        let (name, member) = self.defined(name)?;
        let duplicate = PolicyDefect::DuplicateMember(quoted(name.as_bytes()));
        if !self.members.contains(&name) && claimed.insert(name) { Ok(member) } else { Err(duplicate) }
    }
}

/// One word of a line.
fn word(octets: &[u8]) -> Result<PolicyName, PolicyDefect> {
    PolicyName::new(octets).ok_or_else(|| PolicyDefect::Word(quoted(octets)))
}
