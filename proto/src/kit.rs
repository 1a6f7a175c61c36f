//! Kits: the directories that provisioning writes and that nodes and people start from.
//!
//! [`provision`] turns the description of a consortium into a genesis file, keys and certificates, without touching the
//! disk; [`write_kits`] writes them:
//!
//! ```text
//! genesis.cbor                       the consortium as it begins; its SHA-256 is the chain id
//! fedledger.toml                     defaults of the command line, see CliDefaults
//! ca/                                the authority that signs API certificates
//! <member>/replica/                  one kit per node: node.toml, genesis.cbor, keys/
//! <member>/participant/              also policy.toml, what the site agrees to
//! <member>/identity/                 the member's people: organisation.key, api.key, api.crt, ca.crt
//! ```
//!
//! [`ReplicaKit`], [`ParticipantKit`] and [`Identity`] load one such directory and check it: every key must be the one
//! that the genesis file names, and no secret may be readable by others.

mod addresses;
mod approval;
mod certificates;
mod config;
mod defaults;
mod description;
mod error;
mod files;
mod identity;
mod keys;
mod member_files;
mod nodes;
mod passphrase;
mod places;
mod policy;
mod possession;
mod protection;
mod provision;
mod record;
mod request;
mod rotation;
mod secrets;
mod seen;
mod site;
mod sizes;
mod tls;
mod trainers;
mod transfers;
mod write;

#[cfg(test)]
mod tests;

pub use addresses::AddressList;
pub use approval::{ApprovalError, ProvisionedKits};
pub use certificates::{CertificateAuthority, CertificateError, certified_key};
pub use config::{
    ComputeDevice, DataConfig, NodeConfig, ParticipantConfig, ParticipantSettings, PeerConfig, ReplicaConfig,
    ReplicaSettings,
};
pub use defaults::CliDefaults;
pub use description::{
    ConsortiumDescription, DescriptionError, MemberDescription, ParticipantDescription, ReplicaDescription,
};
pub use error::KitError;
pub use files::GenesisFile;
pub use identity::Identity;
pub use keys::{KeyTextError, parse as parse_key};
pub use nodes::{NodeRole, ParticipantKit, ReplicaKit};
pub use passphrase::{Passphrase, PassphraseError};
pub use policy::{Selection, SitePolicy, Surprises};
pub use possession::{Possession, PossessionError};
pub use protection::{Protection, ProtectionError, ScryptCost, encrypt as encrypt_key, key_cost};
pub use provision::{KitFile, ProvisionError, Provisioned, provision, provision_with_requests};
pub use request::{Fingerprint, MEMBER_REQUEST_SCHEMA, MemberRequest, RequestError, RequestedNode};
pub use rotation::{KeyPurpose, ROTATION_REQUEST_SCHEMA, RotatedKey, RotationRequest};
pub use seen::SeenHeads;
pub use site::{InstalledSite, Site, SiteError, change_passphrase};
pub use sizes::{ByteSize, ParseByteSizeError};
pub use tls::{TlsIdentity, authority_of_node};
pub use trainers::TrainerConfig;
pub use transfers::{ByteRate, ParseByteRateError, TransferConfig};
pub use write::{WriteError, write_kits, write_new};

/// Name of a node's configuration file.
pub const NODE_FILE: &str = "node.toml";
/// Name of a participant's site policy.
pub const POLICY_FILE: &str = "policy.toml";
/// Name of the genesis file.
pub const GENESIS_FILE: &str = "genesis.cbor";
/// Name of the file that makes a directory an identity.
pub const IDENTITY_FILE: &str = "identity.toml";
/// Name of the file in an identity's directory with the last head of the log that its people have seen.
pub const SEEN_HEAD_FILE: &str = "checkpoint";
/// Name of the file in an identity's directory with the chain of epochs that its people have seen.
pub const SEEN_EPOCHS_FILE: &str = "epochs";
/// Name of the file with the command line's defaults.
pub const DEFAULTS_FILE: &str = "fedledger.toml";

/// Folder of a node's keys.
const KEYS_FOLDER: &str = "keys";
/// Folder of the certificate authority, beside the members'.
const AUTHORITY_FOLDER: &str = "ca";
/// Folder of a member's replica.
const REPLICA_FOLDER: &str = "replica";
/// Folder of a member's participant.
const PARTICIPANT_FOLDER: &str = "participant";
/// Folder of the identity of a member's people.
const IDENTITY_FOLDER: &str = "identity";

/// Name of a member's node, by its folder.
fn node_name(member: &str, folder: &str) -> String {
    format!("{member}/{folder}")
}
