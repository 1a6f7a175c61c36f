//! Approving a member of a running consortium: the public files that it starts from, with certificates by the
//! consortium's authority.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fedledger_federation::member::Member;
use fedledger_ledger::PublicKey;

use super::{
    AUTHORITY_FOLDER, GENESIS_FILE, KitFile, NODE_FILE, PARTICIPANT_FOLDER, ProvisionError, REPLICA_FOLDER,
    certificates::{CertificateAuthority, CertificateError},
    config::{ParticipantConfig, PeerConfig, ReplicaConfig},
    description::MemberDescription,
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    keys,
    member_files::MemberFiles,
    passphrase::Passphrase,
    places::{self, Place},
    request::{MemberRequest, RequestError},
    tls::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
};

/// What provisioning has written, with the authority that signs certificates.
#[derive(Debug)]
pub struct ProvisionedKits {
    genesis: GenesisFile,
    authority: CertificateAuthority,
    peers: Vec<PeerConfig>,
}

/// A request that cannot be approved.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// A file that cannot be used.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// A request that must not be believed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A request for other keys or roles than the consortium has admitted.
    #[error("{0} was admitted with other keys, nodes or roles than this request names: ask for the right one")]
    OtherRecord(String),
    /// The files cannot be made.
    #[error(transparent)]
    Files(#[from] ProvisionError),
    /// The key and the certificate of the authority do not belong together.
    #[error("{} is not the certificate of the key beside it: restore the pair", file.display())]
    Authority {
        /// File of the certificate.
        file: PathBuf,
    },
}

impl ProvisionedKits {
    /// Opens the output directory of provisioning: genesis file, authority, and the addresses of all replicas as the
    /// nodes' configurations know them.
    ///
    /// # Errors
    ///
    /// [`KitError`] or [`ApprovalError::Authority`], which name the file.
    pub fn open(directory: &Path, passphrase: Option<&Passphrase>) -> Result<Self, ApprovalError> {
        let genesis = GenesisFile::load(&directory.join(GENESIS_FILE))?;
        let folder = directory.join(AUTHORITY_FOLDER);
        let (key_file, file) = (folder.join(AUTHORITY_KEY), folder.join(AUTHORITY_CERTIFICATE));
        let key = keys::read(&key_file, passphrase)?;
        let invalid = |source: CertificateError| KitError::Certificate { file: file.clone(), source };
        let authority = CertificateAuthority::new(&genesis.genesis.consortium, key).map_err(invalid)?;
        if read_text(&file)? != authority.certificate_pem() {
            return Err(ApprovalError::Authority { file });
        }
        let peers = peers(directory, &genesis)?;
        Ok(Self { genesis, authority, peers })
    }

    /// The consortium as it begins.
    pub const fn genesis(&self) -> &GenesisFile {
        &self.genesis
    }

    /// The files for a member that the ledger has admitted as `record`, by their paths in its folder. None is secret.
    ///
    /// # Errors
    ///
    /// [`ApprovalError`]: the request is not the one that was admitted.
    pub fn approve(
        &self,
        request: &MemberRequest,
        record: &Member,
    ) -> Result<BTreeMap<PathBuf, KitFile>, ApprovalError> {
        let number = record.nodes.iter().find_map(fedledger_federation::member::Node::replica_number);
        let asked = request.check(request.has_replica().then_some(number.unwrap_or_default()))?;
        if asked != *record {
            return Err(ApprovalError::OtherRecord(record.id.clone()));
        }
        let in_genesis = self.genesis.genesis.members.contains(record);
        let place = match (number, request.server_key()) {
            (Some(number), Some(server)) => Some((place(request, number)?, server)),
            _ => None,
        };
        let mut peers = self.peers.clone();
        if let Some((place, _)) = &place {
            peers.retain(|peer| peer.name != place.peer().name);
            peers.push(place.peer());
        }
        let mut collected = MemberFiles {
            member: &record.id,
            genesis: &self.genesis.bytes,
            record: (!in_genesis).then_some(record),
            peers: &peers,
            authority: &self.authority,
            files: BTreeMap::new(),
        };
        collect(&mut collected, place.as_ref().map(|(place, server)| (place, *server)), record)?;
        Ok(collected.files)
    }
}

fn collect(
    files: &mut MemberFiles<'_>,
    replica: Option<(&Place, &PublicKey)>,
    record: &Member,
) -> Result<(), ProvisionError> {
    if let Some((place, server)) = replica {
        files.replica(place, server)?;
    }
    if record.nodes.iter().any(|node| node.replica_number().is_none()) {
        files.participant(Default::default())?;
    }
    files.identity(&record.api_key)
}

/// Where the replica that is asked for is.
fn place(request: &MemberRequest, number: u64) -> Result<Place, ProvisionError> {
    let description = MemberDescription {
        id: request.id.clone(),
        name: None,
        roles: request.roles.clone(),
        replica: request.replica.clone(),
        participant: None,
    };
    places::place(&description, number)
}

/// Every replica with the address that the configuration of some node names.
fn peers(directory: &Path, genesis: &GenesisFile) -> Result<Vec<PeerConfig>, ApprovalError> {
    let mut found: BTreeMap<String, PeerConfig> = BTreeMap::new();
    for (member, node) in genesis.genesis.nodes() {
        let folder = if node.replica_number().is_some() { REPLICA_FOLDER } else { PARTICIPANT_FOLDER };
        let file = directory.join(&member.id).join(folder).join(NODE_FILE);
        let text = match read_text(&file) {
            Ok(text) => text,
            Err(KitError::Missing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let peers = if node.replica_number().is_some() {
            parse_toml::<ReplicaConfig>(&text, &file)?.peers
        } else {
            parse_toml::<ParticipantConfig>(&text, &file)?.peers
        };
        found.extend(peers.into_iter().map(|peer| (peer.name.clone(), peer)));
    }
    Ok(found.into_values().collect())
}
