//! The public files of a member's folder: configuration, certificates and the genesis file. They hold no secret.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fedledger_federation::member::Member;
use fedledger_ledger::PublicKey;
use serde::Serialize;

use super::{
    GENESIS_FILE, IDENTITY_FILE, IDENTITY_FOLDER, KEYS_FOLDER, KitFile, NODE_FILE, PARTICIPANT_FOLDER, POLICY_FILE,
    ProvisionError, REPLICA_FOLDER, SitePolicy,
    certificates::CertificateAuthority,
    config::{DataConfig, ParticipantConfig, ParticipantSettings, PeerConfig, ReplicaConfig},
    description::ParticipantDescription,
    identity::IdentityFile,
    node_name,
    places::Place,
    record::RECORD_FILE,
    tls::{API_CERTIFICATE, AUTHORITY_CERTIFICATE},
    transfers::TransferConfig,
};

/// Where a participant's records lie by default, in its directory.
const DATA_DEFAULT: &str = "data.csv";
/// Where their schema lies by default, in its directory.
const SCHEMA_DEFAULT: &str = "schema.toml";

/// Collects the files of one member, by their paths in its folder.
pub(super) struct MemberFiles<'a> {
    /// Id of the member.
    pub member: &'a str,
    /// The genesis file.
    pub genesis: &'a [u8],
    /// What the ledger says of the member, if the genesis file does not.
    pub record: Option<&'a Member>,
    /// Every replica with its addresses.
    pub peers: &'a [PeerConfig],
    /// Signs the certificates.
    pub authority: &'a CertificateAuthority,
    /// What was collected.
    pub files: BTreeMap<PathBuf, KitFile>,
}

impl MemberFiles<'_> {
    /// Those of the replica at `place`, whose API has this key.
    pub fn replica(&mut self, place: &Place, server_key: &PublicKey) -> Result<(), ProvisionError> {
        let name = node_name(self.member, REPLICA_FOLDER);
        let config = ReplicaConfig {
            listen: place.listen,
            websocket: place.websocket,
            api: place.api,
            http: Some(place.http),
            settings: place.settings.clone(),
            transfers: TransferConfig::default(),
            peers: self.peers.iter().filter(|peer| peer.name != name).cloned().collect(),
            name: name.clone(),
        };
        let folder = Path::new(REPLICA_FOLDER);
        self.node(folder, &config)?;
        let hosts = place.certified_hosts();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let certificate = self.authority.issue_server(&name, server_key, &hosts)?;
        self.tls(&folder.join(KEYS_FOLDER), certificate);
        Ok(())
    }

    /// Those of the participant; its policy is the site's own business and separate.
    pub fn participant(&mut self, described: ParticipantDescription) -> Result<(), ProvisionError> {
        let config = ParticipantConfig {
            name: node_name(self.member, PARTICIPANT_FOLDER),
            data: data(&described),
            settings: ParticipantSettings::default(),
            transfers: TransferConfig::default(),
            trainers: BTreeMap::new(),
            peers: self.peers.to_vec(),
        };
        let folder = Path::new(PARTICIPANT_FOLDER);
        self.node(folder, &config)?;
        // Replicas show certificates by it where they are reached over WebSocket.
        self.public(folder.join(KEYS_FOLDER).join(AUTHORITY_CERTIFICATE), self.authority.certificate_pem());
        Ok(())
    }

    /// What the participant's site takes part in.
    pub fn policy(&mut self, policy: &SitePolicy) -> Result<(), ProvisionError> {
        self.public(Path::new(PARTICIPANT_FOLDER).join(POLICY_FILE), policy_text(policy)?);
        Ok(())
    }

    /// Those of the member's people, with this API key.
    pub fn identity(&mut self, api_key: &PublicKey) -> Result<(), ProvisionError> {
        let folder = Path::new(IDENTITY_FOLDER);
        let file = IdentityFile { member: self.member.to_owned() };
        let text = commented("The people of this member, for `fedledger --identity`.", &file)?;
        self.public(folder.join(IDENTITY_FILE), text);
        self.consortium(folder)?;
        let certificate = self.authority.issue_client(self.member, api_key)?;
        self.tls(folder, certificate);
        Ok(())
    }

    /// What every node has.
    fn node(&mut self, folder: &Path, config: &impl Serialize) -> Result<(), ProvisionError> {
        self.public(folder.join(NODE_FILE), node_text(config)?);
        self.consortium(folder)
    }

    /// What says which consortium this is.
    fn consortium(&mut self, folder: &Path) -> Result<(), ProvisionError> {
        self.public(folder.join(GENESIS_FILE), self.genesis);
        if let Some(record) = self.record {
            self.public(folder.join(RECORD_FILE), record_text(record)?);
        }
        Ok(())
    }

    fn tls(&mut self, folder: &Path, certificate: String) {
        self.public(folder.join(API_CERTIFICATE), certificate);
        self.public(folder.join(AUTHORITY_CERTIFICATE), self.authority.certificate_pem());
    }

    fn public(&mut self, path: PathBuf, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path, KitFile { bytes: bytes.into(), secret: false });
    }
}

/// Where a participant's data lie.
pub(super) fn data(described: &ParticipantDescription) -> DataConfig {
    DataConfig {
        table: described.data.clone().unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
        schema: described.schema.clone().unwrap_or_else(|| PathBuf::from(SCHEMA_DEFAULT)),
    }
}

/// `node.toml`.
pub(super) fn node_text(config: &impl Serialize) -> Result<String, toml::ser::Error> {
    commented("Relative paths start from this folder.", config)
}

/// `policy.toml`.
pub(super) fn policy_text(policy: &SitePolicy) -> Result<String, toml::ser::Error> {
    commented("What this site takes part in.", policy)
}

/// `member.toml`.
pub(super) fn record_text(record: &Member) -> Result<String, toml::ser::Error> {
    commented("This member as the ledger knows it. Written by `fedledger identity`.", record)
}

/// A TOML file with a comment on top.
pub(super) fn commented(comment: &str, value: &impl Serialize) -> Result<String, toml::ser::Error> {
    Ok(format!("# {comment}\n{}", toml::to_string(value)?))
}
