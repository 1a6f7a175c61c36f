//! Provisioning: from the description of a consortium to its genesis file and one kit per node and member.
//!
//! Nothing here touches the disk, the network or a clock. The same description and randomness give the same files.

mod places;
mod render;
mod secrets;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use fedledger_federation::member::{
    GENESIS_SCHEMA, Genesis, GenesisError, Member, MemberId, Node, NodeKind, Role, default_finality_threshold,
};
use fedledger_ledger::{Digest, SecretKey};

use self::{places::Place, secrets::MemberSecrets};
use super::{
    AUTHORITY_FOLDER, PARTICIPANT_FOLDER, REPLICA_FOLDER,
    certificates::{CertificateAuthority, CertificateError},
    description::{ConsortiumDescription, MemberDescription},
};
use crate::endpoint::ParseAddressError;

/// What provisioning yields.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// The consortium as it begins.
    pub genesis: Genesis,
    /// Every file, by its path below the output directory.
    pub files: BTreeMap<PathBuf, KitFile>,
}

/// One file of a kit.
#[derive(Clone, PartialEq, Eq)]
pub struct KitFile {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether only its owner may read it.
    pub secret: bool,
}

impl fmt::Debug for KitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.secret { "secret file" } else { "file" };
        write!(f, "{what} of {} bytes", self.bytes.len())
    }
}

/// A description that no consortium can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// Nobody runs a replica.
    #[error("no member has a replica: give at least one the role `replica`, four or more to outvote a dishonest one")]
    NoReplica,
    /// An id that a folder beside the members' already has.
    #[error(
        "a member cannot have the id {0:?}, the folder of this name is the certificate authority's: choose another id"
    )]
    ReservedId(MemberId),
    /// An address that is none.
    #[error("the replica of {member}: {source}")]
    Address {
        /// Who runs the replica.
        member: MemberId,
        /// What is wrong.
        source: ParseAddressError,
    },
    /// A replica that listens on every interface, without the address at which it is reached.
    #[error(
        "the replica of {member} listens on {listen}, which is no address that others can use: \
         say with `{setting}` at which host:port it is reached"
    )]
    Unreachable {
        /// Who runs the replica.
        member: MemberId,
        /// Where it listens.
        listen: SocketAddr,
        /// The setting that is missing.
        setting: &'static str,
    },
    /// Two replicas, or node and API of one, at the same address.
    #[error("{first} and {second} are both at {address}: give one of them another port")]
    AddressTaken {
        /// The address.
        address: String,
        /// Who has it first.
        first: String,
        /// Who has it again.
        second: String,
    },
    /// No port is left for a replica without one.
    #[error("there is no default port for the replica of {0}: set `listen` and `api`")]
    NoPort(MemberId),
    /// A setting out of its range.
    #[error("the replica of {member}: `{setting}` must be {range}")]
    Setting {
        /// Who runs the replica.
        member: MemberId,
        /// Name of the setting.
        setting: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// The genesis file would be refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A certificate cannot be issued.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A path that TOML cannot hold.
    #[error("a configuration file cannot be written: {0}")]
    Toml(#[from] toml::ser::Error),
}

/// Provisions a consortium. `randomness` must come from the operating system; it is asked for the salt of the chain,
/// the key of the certificate authority, and then for every key in the order of the description.
///
/// # Errors
///
/// [`ProvisionError`], which names the member and what to change.
pub fn provision(
    description: &ConsortiumDescription,
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<Provisioned, ProvisionError> {
    let places = places::choose(&description.members)?;
    let salt = Digest::from_bytes(randomness());
    let authority_key = SecretKey::from_seed(randomness());
    let secrets: Vec<_> = description.members.iter().map(|member| MemberSecrets::draw(member, randomness)).collect();
    let genesis = genesis(description, salt, &places, &secrets)?;
    let authority = CertificateAuthority::new(&description.name, authority_key.clone())?;
    let files = render::files(description, &genesis, &places, &secrets, &authority, &authority_key)?;
    Ok(Provisioned { genesis, files })
}

fn genesis(
    description: &ConsortiumDescription,
    salt: Digest,
    places: &[Place],
    secrets: &[MemberSecrets],
) -> Result<Genesis, ProvisionError> {
    if places.is_empty() {
        return Err(ProvisionError::NoReplica);
    }
    let described = description.members.iter().zip(secrets);
    let mut members: Vec<_> = described.map(|(description, secrets)| member(description, places, secrets)).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(member) = members.iter().find(|member| member.id == AUTHORITY_FOLDER) {
        return Err(ProvisionError::ReservedId(member.id.clone()));
    }
    let genesis = Genesis {
        schema: GENESIS_SCHEMA.to_owned(),
        consortium: description.name.clone(),
        salt,
        finality_threshold: description
            .finality_threshold
            .unwrap_or_else(|| default_finality_threshold(places.len() as u64)),
        members,
    };
    genesis.check()?;
    Ok(genesis)
}

fn member(description: &MemberDescription, places: &[Place], secrets: &MemberSecrets) -> Member {
    let mut nodes = Vec::new();
    let place = places.iter().find(|place| place.member == description.id);
    if let (Some(place), Some(replica)) = (place, &secrets.replica) {
        nodes.push(Node {
            name: node_name(&description.id, REPLICA_FOLDER),
            kind: NodeKind::Replica {
                number: place.number,
                log_key: replica.log.public(),
                cosign_key: replica.cosign.public(),
            },
            transport_key: replica.node.transport.public(),
            transaction_key: replica.node.transaction.public(),
        });
    }
    if let Some(participant) = &secrets.participant {
        nodes.push(Node {
            name: node_name(&description.id, PARTICIPANT_FOLDER),
            kind: NodeKind::Participant { witness_key: participant.witness.public() },
            transport_key: participant.node.transport.public(),
            transaction_key: participant.node.transaction.public(),
        });
    }
    Member {
        id: description.id.clone(),
        name: description.name.clone().unwrap_or_else(|| description.id.clone()),
        roles: description.effective_roles(),
        organisation_key: secrets.organisation.public(),
        api_key: secrets.api.public(),
        nodes,
    }
}

fn node_name(member: &str, folder: &str) -> String {
    format!("{member}/{folder}")
}

fn has_role(member: &MemberDescription, role: Role) -> bool {
    member.effective_roles().contains(&role)
}
