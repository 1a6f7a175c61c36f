//! The files of every kit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fedledger_federation::member::{Genesis, Role};
use fedledger_ledger::SecretKey;
use serde::Serialize;

use super::{
    KitFile, MemberDescription, ProvisionError, has_role, node_name,
    places::{Place, host},
    secrets::{MemberSecrets, NodeSecrets, ParticipantSecrets, ReplicaSecrets},
};
use crate::kit::{
    AUTHORITY_FOLDER, DEFAULTS_FILE, GENESIS_FILE, IDENTITY_FILE, IDENTITY_FOLDER, KEYS_FOLDER, NODE_FILE,
    PARTICIPANT_FOLDER, POLICY_FILE, REPLICA_FOLDER,
    certificates::CertificateAuthority,
    config::{DataConfig, ParticipantConfig, ParticipantSettings, PeerConfig, ReplicaConfig},
    defaults::CliDefaults,
    description::ConsortiumDescription,
    identity::IdentityFile,
    keys::{COSIGN_KEY, LOG_KEY, ORGANISATION_KEY, TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY, to_file, to_pem},
    tls::{API_CERTIFICATE, API_KEY, AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
};

/// Where a participant's records lie by default, in its directory.
const DATA_DEFAULT: &str = "data.csv";
/// Where their schema lies by default, in its directory.
const SCHEMA_DEFAULT: &str = "schema.toml";

/// Every file of a consortium.
pub(super) fn files(
    description: &ConsortiumDescription,
    genesis: &Genesis,
    places: &[Place],
    secrets: &[MemberSecrets],
    authority: &CertificateAuthority,
    authority_key: &SecretKey,
) -> Result<BTreeMap<PathBuf, KitFile>, ProvisionError> {
    let mut writer = Writer { genesis: genesis.to_bytes(), places, authority, files: BTreeMap::new() };
    writer.public(GENESIS_FILE, writer.genesis.clone());
    writer.public(join(AUTHORITY_FOLDER, AUTHORITY_CERTIFICATE), authority.certificate_pem());
    writer.secret(join(AUTHORITY_FOLDER, AUTHORITY_KEY), to_pem(authority_key)?);
    writer.toml(
        DEFAULTS_FILE,
        "Defaults of the command line for everything below this folder.",
        &defaults(description, places),
    )?;
    for (member, secrets) in description.members.iter().zip(secrets) {
        let place = places.iter().find(|place| place.member == member.id);
        if let (Some(place), Some(replica)) = (place, &secrets.replica) {
            writer.replica(member, place, replica)?;
        }
        if let Some(participant) = &secrets.participant {
            writer.participant(member, participant)?;
        }
        writer.identity(member, secrets)?;
    }
    Ok(writer.files)
}

/// The command line works as the first operator, or the first member, with its own replica or the first one, and turns to
/// the others where that one does not answer.
fn defaults(description: &ConsortiumDescription, places: &[Place]) -> CliDefaults {
    let operator = description.members.iter().find(|member| has_role(member, Role::Operator));
    let member = operator.or(description.members.first());
    let own = places.iter().find(|place| member.is_some_and(|member| member.id == place.member));
    let place = own.or(places.first());
    let others = places.iter().filter(|other| place.is_none_or(|place| place.member != other.member));
    CliDefaults {
        ledger: place.map(|place| PathBuf::from(&place.member).join(REPLICA_FOLDER)),
        connect: place.into_iter().chain(others).map(|place| format!("https://{}", place.api_address)).collect(),
        identity: member.map(|member| PathBuf::from(&member.id).join(IDENTITY_FOLDER)),
    }
}

/// Collects files.
struct Writer<'a> {
    genesis: Vec<u8>,
    places: &'a [Place],
    authority: &'a CertificateAuthority,
    files: BTreeMap<PathBuf, KitFile>,
}

impl Writer<'_> {
    fn replica(
        &mut self,
        member: &MemberDescription,
        place: &Place,
        secrets: &ReplicaSecrets,
    ) -> Result<(), ProvisionError> {
        let folder = Path::new(&member.id).join(REPLICA_FOLDER);
        let name = node_name(&member.id, REPLICA_FOLDER);
        let config = ReplicaConfig {
            listen: place.listen,
            api: place.api,
            settings: place.settings.clone(),
            peers: self.peers().filter(|peer| peer.name != name).collect(),
            name: name.clone(),
        };
        let keys = self.node(&folder, &secrets.node, &config)?;
        self.secret(keys.join(LOG_KEY), to_file(&secrets.log));
        self.secret(keys.join(COSIGN_KEY), to_file(&secrets.cosign));
        let (listen_host, host) = (place.api.ip().to_string(), host(&place.api_address));
        let mut hosts = vec![host.as_str()];
        if !place.api.ip().is_unspecified() {
            hosts.push(&listen_host);
        }
        let certificate = self.authority.issue_server(&name, &secrets.server.public(), &hosts)?;
        self.tls(&keys, &secrets.server, certificate)
    }

    fn participant(&mut self, member: &MemberDescription, secrets: &ParticipantSecrets) -> Result<(), ProvisionError> {
        let folder = Path::new(&member.id).join(PARTICIPANT_FOLDER);
        let described = member.participant.clone().unwrap_or_default();
        let config = ParticipantConfig {
            name: node_name(&member.id, PARTICIPANT_FOLDER),
            data: DataConfig {
                table: described.data.unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
                schema: described.schema.unwrap_or_else(|| PathBuf::from(SCHEMA_DEFAULT)),
            },
            settings: ParticipantSettings::default(),
            peers: self.peers().collect(),
        };
        let keys = self.node(&folder, &secrets.node, &config)?;
        self.secret(keys.join(WITNESS_KEY), to_file(&secrets.witness));
        let policy = described.policy.unwrap_or_default();
        self.toml(folder.join(POLICY_FILE), "What this site takes part in.", &policy)
    }

    fn identity(&mut self, member: &MemberDescription, secrets: &MemberSecrets) -> Result<(), ProvisionError> {
        let folder = Path::new(&member.id).join(IDENTITY_FOLDER);
        let file = IdentityFile { member: member.id.clone() };
        self.toml(folder.join(IDENTITY_FILE), "The people of this member, for `fedledger --identity`.", &file)?;
        self.public(folder.join(GENESIS_FILE), self.genesis.clone());
        self.secret(folder.join(ORGANISATION_KEY), to_file(&secrets.organisation));
        let certificate = self.authority.issue_client(&member.id, &secrets.api.public())?;
        self.tls(&folder, &secrets.api, certificate)
    }

    /// What every node has; returns its folder of keys.
    fn node(
        &mut self,
        folder: &Path,
        secrets: &NodeSecrets,
        config: &impl Serialize,
    ) -> Result<PathBuf, ProvisionError> {
        self.toml(folder.join(NODE_FILE), "Relative paths start from this folder.", config)?;
        self.public(folder.join(GENESIS_FILE), self.genesis.clone());
        let keys = folder.join(KEYS_FOLDER);
        self.secret(keys.join(TRANSACTION_KEY), to_file(&secrets.transaction));
        self.secret(keys.join(TRANSPORT_KEY), to_file(&secrets.transport));
        Ok(keys)
    }

    fn tls(&mut self, folder: &Path, key: &SecretKey, certificate: String) -> Result<(), ProvisionError> {
        self.secret(folder.join(API_KEY), to_pem(key)?);
        self.public(folder.join(API_CERTIFICATE), certificate);
        self.public(folder.join(AUTHORITY_CERTIFICATE), self.authority.certificate_pem());
        Ok(())
    }

    /// All replicas with their addresses.
    fn peers(&self) -> impl Iterator<Item = PeerConfig> {
        let places = self.places.iter();
        places
            .map(|place| PeerConfig { name: node_name(&place.member, REPLICA_FOLDER), address: place.address.clone() })
    }

    fn toml(&mut self, path: impl AsRef<Path>, comment: &str, value: &impl Serialize) -> Result<(), ProvisionError> {
        let text = toml::to_string(value)?;
        self.public(path.as_ref(), format!("# {comment}\n{text}"));
        Ok(())
    }

    fn public(&mut self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.as_ref().to_owned(), KitFile { bytes: bytes.into(), secret: false });
    }

    fn secret(&mut self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.as_ref().to_owned(), KitFile { bytes: bytes.into(), secret: true });
    }
}

fn join(folder: &str, file: &str) -> PathBuf {
    Path::new(folder).join(file)
}
