//! `ROTATION.toml`: new keys for a member or one of its nodes, made on site.

use fedledger_federation::member::{Member, MemberId, NodeKind};
use fedledger_ledger::{Digest, PublicKey, SecretKey, codec};
use serde::{Deserialize, Serialize};

use super::{
    possession::Possession,
    record,
    request::{Fingerprint, RequestError, check_schema, parse},
};

/// The format of a request to replace keys.
pub const ROTATION_REQUEST_SCHEMA: &str = "fedledger.key-rotation/1";

/// Domain of the signatures in a rotation request.
const DOMAIN: &[u8] = b"fedledger/v1/key-rotation\n";

/// What a member asks to have its keys replaced with. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationRequest {
    /// [`ROTATION_REQUEST_SCHEMA`].
    pub schema: String,
    /// The consortium, by its chain id, so that it means nothing in another one.
    pub chain: Digest,
    /// Id of the member.
    pub member: MemberId,
    /// The keys to be replaced.
    pub keys: Vec<RotatedKey>,
    /// A signature by every new key. The old ones may be lost or in wrong hands; governance decides.
    #[serde(default, skip_serializing_if = "Possession::is_empty")]
    pub possession: Possession,
}

/// One key to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotatedKey {
    /// Name of the node; absent for the organisation's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the key is for.
    pub purpose: KeyPurpose,
    /// The current key.
    pub old: PublicKey,
    /// The one to take its place.
    pub new: PublicKey,
}

/// What a key that the ledger names is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// Signs a member's decisions.
    Organisation,
    /// Identifies a node to others.
    Transport,
    /// Signs a node's transactions.
    Transaction,
    /// Signs a replica's checkpoints.
    Log,
    /// Co-signs heads of the log as a replica.
    Cosign,
    /// Co-signs heads of the log as a participant.
    Witness,
}

impl KeyPurpose {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisation => "organisation",
            Self::Transport => "transport",
            Self::Transaction => "transaction",
            Self::Log => "log",
            Self::Cosign => "cosign",
            Self::Witness => "witness",
        }
    }

    /// The key that a member has for a purpose, of a node or of the organisation.
    pub(super) fn key<'a>(self, member: &'a mut Member, node: Option<&str>) -> Option<&'a mut PublicKey> {
        let Some(name) = node else {
            return (self == Self::Organisation).then_some(&mut member.organisation_key);
        };
        let node = member.nodes.iter_mut().find(|node| node.name == name)?;
        match (self, &mut node.kind) {
            (Self::Transport, _) => Some(&mut node.transport_key),
            (Self::Transaction, _) => Some(&mut node.transaction_key),
            (Self::Log, NodeKind::Replica { log_key, .. }) => Some(log_key),
            (Self::Cosign, NodeKind::Replica { cosign_key, .. }) => Some(cosign_key),
            (Self::Witness, NodeKind::Participant { witness_key }) => Some(witness_key),
            _ => None,
        }
    }
}

impl RotationRequest {
    /// Reads a request; [`check`](Self::check) says whether to believe it.
    ///
    /// # Errors
    ///
    /// [`RequestError`], which names the line.
    pub fn from_toml(text: &str) -> Result<Self, RequestError> {
        parse(text, ROTATION_REQUEST_SCHEMA, |request: &Self| &request.schema)
    }

    /// The request as a file.
    ///
    /// # Errors
    ///
    /// TOML cannot hold it, which is a defect.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The same request with signatures by the new keys.
    pub(super) fn prove<'a>(self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let possession = Possession::prove(DOMAIN, &self.digest(), keys);
        Self { possession, ..self }
    }

    /// Checks the request against the member as it is now in the consortium `chain`, and gives the member with its new
    /// keys. Whether these keys are free in the consortium is for the ledger to check.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn check(&self, chain: &Digest, member: &Member) -> Result<Member, RequestError> {
        check_schema(&self.schema, ROTATION_REQUEST_SCHEMA)?;
        if self.chain != *chain {
            return Err(RequestError::Chain { found: self.chain, expected: *chain });
        }
        if self.keys.is_empty() {
            return Err(RequestError::Empty);
        }
        let mut changed = member.clone();
        for rotated in &self.keys {
            let current = rotated.purpose.key(&mut changed, rotated.node.as_deref());
            match current {
                Some(current) if self.member == member.id && *current == rotated.old => *current = rotated.new,
                _ => return Err(rotated.not_current(&self.member)),
            }
        }
        record::check(&changed)?;
        let keys: Vec<PublicKey> = self.keys.iter().map(|rotated| rotated.new).collect();
        self.possession.check(DOMAIN, &self.digest(), &keys)?;
        Ok(changed)
    }

    /// What identifies everything that the request asks for.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.digest())
    }

    /// Digest of the canonical encoding without the signatures.
    fn digest(&self) -> Digest {
        Digest::of(&codec::encode(&Self { possession: Possession::default(), ..self.clone() }))
    }
}

impl RotatedKey {
    fn not_current(&self, member: &str) -> RequestError {
        let owner = self.node.as_deref().unwrap_or(member).chars().take(80).collect();
        RequestError::NotCurrent { purpose: self.purpose.name(), old: self.old, owner }
    }
}

#[cfg(test)]
mod tests;
