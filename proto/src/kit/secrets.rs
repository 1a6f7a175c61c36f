//! The keys of a member, one per purpose, and where each lies in the member's folder.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
};

use fedledger_federation::member::Role;
use fedledger_ledger::SecretKey;

use super::{
    IDENTITY_FOLDER, KEYS_FOLDER, KitFile, PARTICIPANT_FOLDER, REPLICA_FOLDER,
    certificates::CertificateError,
    description::MemberDescription,
    error::KitError,
    keys::{self, COSIGN_KEY, LOG_KEY, ORGANISATION_KEY, TRANSACTION_KEY, TRANSPORT_KEY, WITNESS_KEY},
    node_name,
    passphrase::Passphrase,
    possession::Possession,
    request::{MEMBER_REQUEST_SCHEMA, MemberRequest, RequestedNode},
    tls::API_KEY,
};

/// The keys of a member and its nodes.
pub(super) struct MemberSecrets {
    /// Signs its decisions.
    organisation: SecretKey,
    /// Identifies its people to the API.
    api: SecretKey,
    /// Those of its replica, if it has one.
    replica: Option<ReplicaSecrets>,
    /// Those of its participant, if it has one.
    participant: Option<ParticipantSecrets>,
}

/// The keys of a replica.
struct ReplicaSecrets {
    node: NodeSecrets,
    /// Signs its checkpoints.
    log: SecretKey,
    /// Co-signs the log's head.
    cosign: SecretKey,
    /// Identifies its API.
    server: SecretKey,
}

/// The keys of a participant.
struct ParticipantSecrets {
    node: NodeSecrets,
    /// Co-signs heads of the log.
    witness: SecretKey,
}

/// The keys that every node has.
struct NodeSecrets {
    /// Identifies it to other nodes.
    transport: SecretKey,
    /// Signs its transactions.
    transaction: SecretKey,
}

impl MemberSecrets {
    /// Draws the keys of a member.
    pub fn draw(member: &MemberDescription, randomness: &mut dyn FnMut() -> [u8; 32]) -> Self {
        let drawn: Result<Self, Infallible> = Self::collect(member, |_, _| Ok(SecretKey::from_seed(randomness())));
        match drawn {
            Ok(secrets) => secrets,
            Err(never) => match never {},
        }
    }

    /// Reads the keys of a member from its folder.
    pub fn load(member: &MemberDescription, folder: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        Self::collect(member, |keys, name| keys::read(&folder.join(keys).join(name), passphrase))
    }

    /// Asks `source` for the key in each folder and file.
    fn collect<E>(
        member: &MemberDescription,
        mut source: impl FnMut(&Path, &str) -> Result<SecretKey, E>,
    ) -> Result<Self, E> {
        let roles = member.effective_roles();
        let identity = Path::new(IDENTITY_FOLDER);
        let organisation = source(identity, ORGANISATION_KEY)?;
        let api = source(identity, API_KEY)?;
        let (replica_keys, participant_keys) = (keys_folder(REPLICA_FOLDER), keys_folder(PARTICIPANT_FOLDER));
        let mut node = |role: Role, folder: &Path| -> Result<Option<NodeSecrets>, E> {
            if !roles.contains(&role) {
                return Ok(None);
            }
            let transport = source(folder, TRANSPORT_KEY)?;
            Ok(Some(NodeSecrets { transport, transaction: source(folder, TRANSACTION_KEY)? }))
        };
        let replica = node(Role::Replica, &replica_keys)?;
        let participant = node(Role::Participant, &participant_keys)?;
        let replica = match replica {
            None => None,
            Some(node) => Some(ReplicaSecrets {
                node,
                log: source(&replica_keys, LOG_KEY)?,
                cosign: source(&replica_keys, COSIGN_KEY)?,
                server: source(&replica_keys, API_KEY)?,
            }),
        };
        let participant = match participant {
            None => None,
            Some(node) => Some(ParticipantSecrets { node, witness: source(&participant_keys, WITNESS_KEY)? }),
        };
        Ok(Self { organisation, api, replica, participant })
    }

    /// Every key, by its path in the member's folder.
    fn by_path(&self) -> Vec<(PathBuf, &SecretKey)> {
        let mut keys = Vec::new();
        let mut add = |folder: &Path, name: &str, key| keys.push((folder.join(name), key));
        let identity = Path::new(IDENTITY_FOLDER);
        add(identity, ORGANISATION_KEY, &self.organisation);
        add(identity, API_KEY, &self.api);
        if let Some(ReplicaSecrets { node, log, cosign, server }) = &self.replica {
            let folder = keys_folder(REPLICA_FOLDER);
            add(&folder, TRANSPORT_KEY, &node.transport);
            add(&folder, TRANSACTION_KEY, &node.transaction);
            add(&folder, LOG_KEY, log);
            add(&folder, COSIGN_KEY, cosign);
            add(&folder, API_KEY, server);
        }
        if let Some(ParticipantSecrets { node, witness }) = &self.participant {
            let folder = keys_folder(PARTICIPANT_FOLDER);
            add(&folder, TRANSPORT_KEY, &node.transport);
            add(&folder, TRANSACTION_KEY, &node.transaction);
            add(&folder, WITNESS_KEY, witness);
        }
        keys
    }

    /// The key files, by their paths in the member's folder.
    pub fn files(&self) -> Result<BTreeMap<PathBuf, KitFile>, CertificateError> {
        let file = |(path, key): (PathBuf, &SecretKey)| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let bytes = keys::to_text(name, key)?.as_bytes().to_vec();
            Ok((path, KitFile { bytes, secret: true }))
        };
        self.by_path().into_iter().map(file).collect()
    }

    /// The request with which the member brings these keys.
    pub fn request(&self, member: &MemberDescription) -> MemberRequest {
        let mut nodes = Vec::new();
        if let Some(ReplicaSecrets { node, log, cosign, server }) = &self.replica {
            nodes.push(RequestedNode::Replica {
                name: node_name(&member.id, REPLICA_FOLDER),
                transport_key: node.transport.public(),
                transaction_key: node.transaction.public(),
                log_key: log.public(),
                cosign_key: cosign.public(),
                server_key: server.public(),
            });
        }
        if let Some(ParticipantSecrets { node, witness }) = &self.participant {
            nodes.push(RequestedNode::Participant {
                name: node_name(&member.id, PARTICIPANT_FOLDER),
                transport_key: node.transport.public(),
                transaction_key: node.transaction.public(),
                witness_key: witness.public(),
            });
        }
        let request = MemberRequest {
            schema: MEMBER_REQUEST_SCHEMA.to_owned(),
            id: member.id.clone(),
            name: member.name.clone().unwrap_or_else(|| member.id.clone()),
            roles: member.effective_roles(),
            organisation_key: self.organisation.public(),
            api_key: self.api.public(),
            replica: member.replica.clone(),
            nodes,
            possession: Possession::default(),
        };
        request.prove(self.by_path().into_iter().map(|(_, key)| key))
    }
}

fn keys_folder(node: &str) -> PathBuf {
    Path::new(node).join(KEYS_FOLDER)
}
