//! Loading the kit of a node.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use fedledger_federation::member::{MemberId, Node, NodeKind};
use fedledger_ledger::SecretKey;
use serde::Deserialize;

use super::{
    KEYS_FOLDER, NODE_FILE, POLICY_FILE,
    certificates::CertificateError,
    config::{NodeConfig, ParticipantConfig, ReplicaConfig},
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    keys::{COSIGN_KEY, Keyring, LOG_KEY, TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY},
    passphrase::Passphrase,
    policy::SitePolicy,
    record,
    tls::{self, TlsIdentity},
    trainers,
};
use crate::endpoint::{Proxy, WebSocketConfig};

/// What a node is, as people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// A replica.
    Replica,
    /// A participant.
    Participant,
}

/// Everything that a replica starts with.
#[derive(Debug, Clone)]
pub struct ReplicaKit {
    /// The node's directory.
    pub directory: PathBuf,
    /// Its configuration.
    pub config: ReplicaConfig,
    /// The consortium as it begins.
    pub genesis: GenesisFile,
    /// The member that runs the node.
    pub member: MemberId,
    /// The replica's number in the Raft configuration, from 1.
    pub number: u64,
    /// Signs its transactions.
    pub transaction_key: SecretKey,
    /// Identifies it to other nodes.
    pub transport_key: SecretKey,
    /// Signs its checkpoints.
    pub log_key: SecretKey,
    /// Co-signs the log's head.
    pub cosign_key: SecretKey,
    /// Identifies its API.
    pub tls: TlsIdentity,
    keys: Keyring,
}

/// Everything that a participant starts with.
#[derive(Debug, Clone)]
pub struct ParticipantKit {
    /// The node's directory.
    pub directory: PathBuf,
    /// Its configuration.
    pub config: ParticipantConfig,
    /// What the site agrees to.
    pub policy: SitePolicy,
    /// The consortium as it begins.
    pub genesis: GenesisFile,
    /// The member that runs the node.
    pub member: MemberId,
    /// Signs its transactions.
    pub transaction_key: SecretKey,
    /// Identifies it to other nodes.
    pub transport_key: SecretKey,
    /// Co-signs heads of the log that it has witnessed.
    pub witness_key: SecretKey,
    /// Certificate of the consortium's authority, in DER; kits of earlier versions have none.
    pub authority: Option<Vec<u8>>,
    keys: Keyring,
}

impl NodeRole {
    /// The command that starts such a node.
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Replica => "coordinator",
            Self::Participant => "participant",
        }
    }

    const fn of(node: &Node) -> Self {
        match node.kind {
            NodeKind::Replica { .. } => Self::Replica,
            NodeKind::Participant { .. } => Self::Participant,
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replica => "replica",
            Self::Participant => "participant",
        })
    }
}

impl NodeConfig {
    /// Loads `node.toml`; the genesis file beside it says whether it is a replica's or a participant's. No key is read.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file, the line and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        Ok(match NodeRole::of(&opened.node()?.1) {
            NodeRole::Replica => Self::Replica(opened.replica_config()?),
            NodeRole::Participant => Self::Participant(opened.participant_config()?),
        })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        match self {
            Self::Replica(config) => &config.name,
            Self::Participant(config) => &config.name,
        }
    }
}

impl ReplicaKit {
    /// Loads and checks the kit of a replica whose keys are not encrypted.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        Self::load_with(directory, None)
    }

    /// Loads and checks the kit of a replica, with the passphrase of its keys if they are encrypted.
    ///
    /// The keys must be those that `member.toml` or else the genesis file names. Once the ledger is open,
    /// [`for_node`](Self::for_node) takes those that it names now.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load_with(directory: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        let (member, node) = opened.node()?;
        let NodeKind::Replica { number, log_key, cosign_key } = &node.kind else {
            return Err(opened.wrong_role(NodeRole::Participant, NodeRole::Replica));
        };
        let keys_folder = directory.join(KEYS_FOLDER);
        let config = opened.replica_config()?;
        let names = [TRANSACTION_KEY, TRANSPORT_KEY, LOG_KEY, COSIGN_KEY];
        let keys = Keyring::load(&keys_folder, &names, passphrase)?;
        Ok(Self {
            config,
            member,
            number: *number,
            transaction_key: keys.pick(TRANSACTION_KEY, &node.transaction_key, &node.name)?,
            transport_key: keys.pick(TRANSPORT_KEY, &node.transport_key, &node.name)?,
            log_key: keys.pick(LOG_KEY, log_key, &node.name)?,
            cosign_key: keys.pick(COSIGN_KEY, cosign_key, &node.name)?,
            tls: TlsIdentity::load(&keys_folder, passphrase)?,
            keys,
            directory: directory.to_owned(),
            genesis: opened.genesis,
        })
    }

    /// The kit with the number and keys that the ledger's current state gives the node. A key may be one that was drawn
    /// to follow (`*.key.next`) and has been approved since.
    ///
    /// # Errors
    ///
    /// [`KitError::ForeignKey`] if a key is in neither file; [`KitError::WrongRole`] if the node is no replica.
    pub fn for_node(self, node: &Node) -> Result<Self, KitError> {
        let NodeKind::Replica { number, log_key, cosign_key } = &node.kind else {
            return Err(wrong_role(&self.directory, &node.name, NodeRole::Participant, NodeRole::Replica));
        };
        Ok(Self {
            number: *number,
            transaction_key: self.keys.pick(TRANSACTION_KEY, &node.transaction_key, &node.name)?,
            transport_key: self.keys.pick(TRANSPORT_KEY, &node.transport_key, &node.name)?,
            log_key: self.keys.pick(LOG_KEY, log_key, &node.name)?,
            cosign_key: self.keys.pick(COSIGN_KEY, cosign_key, &node.name)?,
            ..self
        })
    }

    /// What its endpoint needs to listen for WebSocket connections and to dial others.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn websocket(&self, proxy: Option<Proxy>) -> Result<WebSocketConfig, CertificateError> {
        Ok(WebSocketConfig {
            listen: self.config.websocket,
            certificate: Some(self.tls.websocket_certificate()?),
            authorities: vec![self.tls.authority_der()?],
            proxy,
        })
    }
}

impl ParticipantKit {
    /// Loads and checks the kit of a participant whose keys are not encrypted.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load(directory: &Path) -> Result<Self, KitError> {
        Self::load_with(directory, None)
    }

    /// Loads and checks the kit of a participant, with the passphrase of its keys if they are encrypted.
    ///
    /// The keys must be those that `member.toml` or else the genesis file names. Once the ledger's state is known,
    /// [`for_node`](Self::for_node) takes those that it names now.
    ///
    /// # Errors
    ///
    /// [`KitError`], which names the file and what to do.
    pub fn load_with(directory: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        let opened = Opened::new(directory)?;
        let (member, node) = opened.node()?;
        let NodeKind::Participant { witness_key } = &node.kind else {
            return Err(opened.wrong_role(NodeRole::Replica, NodeRole::Participant));
        };
        let policy_file = directory.join(POLICY_FILE);
        let config = opened.participant_config()?;
        let policy = parse_toml(&read_text(&policy_file)?, &policy_file)?;
        let names = [TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY];
        let keys_folder = directory.join(KEYS_FOLDER);
        let keys = Keyring::load(&keys_folder, &names, passphrase)?;
        Ok(Self {
            config,
            policy,
            member,
            transaction_key: keys.pick(TRANSACTION_KEY, &node.transaction_key, &node.name)?,
            transport_key: keys.pick(TRANSPORT_KEY, &node.transport_key, &node.name)?,
            witness_key: keys.pick(WITNESS_KEY, witness_key, &node.name)?,
            authority: tls::load_authority(&keys_folder)?,
            keys,
            directory: directory.to_owned(),
            genesis: opened.genesis,
        })
    }

    /// The kit with the keys that the ledger's current state names for the node. A key may be one that was drawn to
    /// follow (`*.key.next`) and has been approved since.
    ///
    /// # Errors
    ///
    /// [`KitError::ForeignKey`] if a key is in neither file; [`KitError::WrongRole`] if the node is no participant.
    pub fn for_node(self, node: &Node) -> Result<Self, KitError> {
        let NodeKind::Participant { witness_key } = &node.kind else {
            return Err(wrong_role(&self.directory, &node.name, NodeRole::Replica, NodeRole::Participant));
        };
        Ok(Self {
            transaction_key: self.keys.pick(TRANSACTION_KEY, &node.transaction_key, &node.name)?,
            transport_key: self.keys.pick(TRANSPORT_KEY, &node.transport_key, &node.name)?,
            witness_key: self.keys.pick(WITNESS_KEY, witness_key, &node.name)?,
            ..self
        })
    }

    /// What its endpoint needs to dial WebSocket servers.
    pub fn websocket(&self, proxy: Option<Proxy>) -> WebSocketConfig {
        WebSocketConfig { authorities: self.authority.iter().cloned().collect(), proxy, ..WebSocketConfig::default() }
    }

    /// The table with the site's records.
    pub fn table_path(&self) -> PathBuf {
        self.directory.join(&self.config.data.table)
    }

    /// What its columns mean.
    pub fn schema_path(&self) -> PathBuf {
        self.directory.join(&self.config.data.schema)
    }
}

/// A node's directory of which the name and the genesis file have been read.
struct Opened {
    directory: PathBuf,
    file: PathBuf,
    text: String,
    name: String,
    genesis: GenesisFile,
}

/// The part of `node.toml` that every node has.
#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

impl Opened {
    fn new(directory: &Path) -> Result<Self, KitError> {
        let file = directory.join(NODE_FILE);
        let text = read_text(&file).map_err(|error| match error {
            KitError::Missing { .. } => KitError::NotANode { directory: directory.to_owned() },
            other => other,
        })?;
        let NameOnly { name } = parse_toml(&text, &file)?;
        let genesis = GenesisFile::of_kit(directory)?;
        Ok(Self { directory: directory.to_owned(), file, text, name, genesis })
    }

    /// The node as the record or the genesis file beside it knows it, and its member.
    fn node(&self) -> Result<(MemberId, Node), KitError> {
        let unknown = || KitError::Unknown { file: self.file.clone(), name: self.name.clone() };
        let (id, _) = self.name.split_once('/').ok_or_else(unknown)?;
        let member = record::member(&self.directory, &self.genesis, id)?.ok_or_else(unknown)?;
        let node = member.nodes.into_iter().find(|node| node.name == self.name).ok_or_else(unknown)?;
        Ok((member.id, node))
    }

    fn wrong_role(&self, found: NodeRole, needed: NodeRole) -> KitError {
        wrong_role(&self.directory, &self.name, found, needed)
    }

    fn replica_config(&self) -> Result<ReplicaConfig, KitError> {
        let config: ReplicaConfig = parse_toml(&self.text, &self.file)?;
        self.check_setting(config.settings.mistake())?;
        Ok(config)
    }

    fn participant_config(&self) -> Result<ParticipantConfig, KitError> {
        let config: ParticipantConfig = parse_toml(&self.text, &self.file)?;
        self.check_setting(config.settings.mistake())?;
        self.check_setting(trainers::mistake(&config.trainers))?;
        Ok(config)
    }

    fn check_setting(&self, mistake: Option<(&'static str, &'static str)>) -> Result<(), KitError> {
        match mistake {
            None => Ok(()),
            Some((setting, range)) => Err(KitError::Setting { file: self.file.clone(), setting, range }),
        }
    }
}

fn wrong_role(directory: &Path, node: &str, found: NodeRole, needed: NodeRole) -> KitError {
    KitError::WrongRole { directory: directory.to_owned(), node: node.to_owned(), found, needed }
}
