//! Provisioning: from the description of a consortium to its genesis file and one kit per node and member.
//!
//! Nothing here touches the disk, the network or a clock. The same description, requests and randomness give the same
//! files. Of a member that brings keys made on site, only public files are made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fedledger_federation::member::{GENESIS_SCHEMA, Genesis, GenesisError, MemberId, Role, default_finality_threshold};
use fedledger_ledger::{Digest, SecretKey};
use zeroize::Zeroize as _;

use super::{
    AUTHORITY_FOLDER, DEFAULTS_FILE, GENESIS_FILE, IDENTITY_FOLDER, REPLICA_FOLDER,
    certificates::{CertificateAuthority, CertificateError},
    config::PeerConfig,
    defaults::CliDefaults,
    description::{ConsortiumDescription, MemberDescription},
    keys,
    member_files::{MemberFiles, commented},
    places::{self, Place},
    protection::{self, Protection, ProtectionError},
    request::{MemberRequest, RequestError},
    secrets::MemberSecrets,
    tls::{AUTHORITY_CERTIFICATE, AUTHORITY_KEY},
};
use crate::endpoint::{ParseAddressError, ParseNodeAddressError};

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

impl Drop for KitFile {
    fn drop(&mut self) {
        if self.secret {
            self.bytes.zeroize();
        }
    }
}

impl fmt::Debug for KitFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.secret { "secret file" } else { "file" };
        write!(f, "{what} of {} bytes", self.bytes.len())
    }
}

/// A description that no consortium can be made from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
    /// An address of a node that is none.
    #[error("the replica of {member}: {source}")]
    NodeAddress {
        /// Who runs the replica.
        member: MemberId,
        /// What is wrong.
        source: ParseNodeAddressError,
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
    /// A request that must not be believed.
    #[error("the request of {member:?}: {source}")]
    Request {
        /// Who is said to ask.
        member: MemberId,
        /// What is wrong.
        source: RequestError,
    },
    /// A request of somebody whom the description does not name.
    #[error("there is a request of {0:?}, which is not among the members: describe it, or leave the request out")]
    RequestOfStranger(MemberId),
    /// Two requests of one member.
    #[error("there are two requests of {0:?}: find out which one it has made")]
    TwoRequests(MemberId),
    /// A request for other roles than the description gives.
    #[error("{0} asks for other roles than its description gives it: agree on one of them")]
    RequestedRoles(MemberId),
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

impl Provisioned {
    /// Encrypts every secret with a passphrase. `randomness` is asked once for each.
    ///
    /// # Errors
    ///
    /// [`ProtectionError`]: the cost is out of range.
    pub fn protect(
        &mut self,
        protection: Protection<'_>,
        randomness: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<(), ProtectionError> {
        protect_files(&mut self.files, protection, randomness)
    }
}

/// Encrypts the secret ones among some files.
pub(super) fn protect_files(
    files: &mut BTreeMap<PathBuf, KitFile>,
    protection: Protection<'_>,
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<(), ProtectionError> {
    for file in files.values_mut().filter(|file| file.secret) {
        let text = std::str::from_utf8(&file.bytes).map_err(|_| ProtectionError)?;
        let key = keys::parse(text, None).map_err(|_| ProtectionError)?;
        file.bytes.zeroize();
        file.bytes = protection::encrypt(&key, protection, randomness())?.into_bytes();
    }
    Ok(())
}

/// Provisions a consortium and draws every key. `randomness` must come from the operating system; it is asked for the
/// salt of the chain, the key of the certificate authority, and then for every key in the order of the description.
///
/// # Errors
///
/// [`ProvisionError`], which names the member and what to change.
pub fn provision(
    description: &ConsortiumDescription,
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<Provisioned, ProvisionError> {
    provision_with_requests(description, &[], randomness)
}

/// Provisions a consortium of which some members bring keys that they have made on site. The keys of the others are
/// drawn as in [`provision`].
///
/// # Errors
///
/// [`ProvisionError`], which names the member and what to change.
pub fn provision_with_requests(
    description: &ConsortiumDescription,
    requests: &[MemberRequest],
    randomness: &mut dyn FnMut() -> [u8; 32],
) -> Result<Provisioned, ProvisionError> {
    let members = merge(&description.members, requests)?;
    let places = places::choose(&members)?;
    let salt = Digest::from_bytes(randomness());
    let authority_key = SecretKey::from_seed(randomness());
    let enrolled: Vec<Enrolled> =
        members.into_iter().map(|member| Enrolled::new(member, requests, randomness)).collect();
    let genesis = genesis(description, salt, &places, &enrolled)?;
    let authority = CertificateAuthority::new(&description.name, authority_key.clone())?;
    let bytes = genesis.to_bytes();
    let mut files = consortium_files(&bytes, &places, &enrolled, &authority)?;
    let key = keys::to_text(AUTHORITY_KEY, &authority_key)?.as_bytes().to_vec();
    files.insert(Path::new(AUTHORITY_FOLDER).join(AUTHORITY_KEY), KitFile { bytes: key, secret: true });
    let peers: Vec<PeerConfig> = places.iter().map(Place::peer).collect();
    for member in &enrolled {
        let folder = Path::new(&member.description.id);
        let found = member.files(&bytes, &places, &peers, &authority)?;
        files.extend(found.into_iter().map(|(path, file)| (folder.join(path), file)));
    }
    Ok(Provisioned { genesis, files })
}

/// A member and its keys.
struct Enrolled {
    description: MemberDescription,
    /// The public halves.
    request: MemberRequest,
    /// The secret halves, if they were drawn here.
    secrets: Option<MemberSecrets>,
}

impl Enrolled {
    fn new(
        description: MemberDescription,
        requests: &[MemberRequest],
        randomness: &mut dyn FnMut() -> [u8; 32],
    ) -> Self {
        if let Some(request) = requests.iter().find(|request| request.id == description.id) {
            return Self { description, request: request.clone(), secrets: None };
        }
        let secrets = MemberSecrets::draw(&description, randomness);
        Self { request: secrets.request(&description), secrets: Some(secrets), description }
    }

    /// Every file of the member's folder.
    fn files(
        &self,
        genesis: &[u8],
        places: &[Place],
        peers: &[PeerConfig],
        authority: &CertificateAuthority,
    ) -> Result<BTreeMap<PathBuf, KitFile>, ProvisionError> {
        let member = self.description.id.as_str();
        let mut collected = MemberFiles { member, genesis, record: None, peers, authority, files: BTreeMap::new() };
        if let (Some(place), Some(server)) = (self.place(places), self.request.server_key()) {
            collected.replica(place, server)?;
        }
        if has_role(&self.description, Role::Participant) {
            let described = self.description.participant.clone().unwrap_or_default();
            // What a site that makes its own keys takes part in is not for others to write.
            if self.secrets.is_some() {
                collected.policy(&described.policy.clone().unwrap_or_default())?;
            }
            collected.participant(described)?;
        }
        collected.identity(&self.request.api_key)?;
        let mut files = collected.files;
        if let Some(secrets) = &self.secrets {
            files.extend(secrets.files()?);
        }
        Ok(files)
    }

    fn place<'a>(&self, places: &'a [Place]) -> Option<&'a Place> {
        places.iter().find(|place| place.member == self.description.id)
    }
}

/// Checks the requests and puts what they say where the description says nothing.
fn merge(members: &[MemberDescription], requests: &[MemberRequest]) -> Result<Vec<MemberDescription>, ProvisionError> {
    let mut asking = BTreeSet::new();
    for request in requests {
        let number = request.has_replica().then_some(1);
        let checked = request.check(number);
        checked.map_err(|source| ProvisionError::Request { member: request.id.chars().take(80).collect(), source })?;
        if !asking.insert(&request.id) {
            return Err(ProvisionError::TwoRequests(request.id.clone()));
        }
        if !members.iter().any(|member| member.id == request.id) {
            return Err(ProvisionError::RequestOfStranger(request.id.clone()));
        }
    }
    let merge = |member: &MemberDescription| {
        let mut member = member.clone();
        let Some(request) = requests.iter().find(|request| request.id == member.id) else { return Ok(member) };
        if request.roles != member.effective_roles() {
            return Err(ProvisionError::RequestedRoles(member.id));
        }
        member.name = member.name.or_else(|| Some(request.name.clone()));
        member.replica = member.replica.or_else(|| request.replica.clone());
        Ok(member)
    };
    members.iter().map(merge).collect()
}

fn genesis(
    description: &ConsortiumDescription,
    salt: Digest,
    places: &[Place],
    enrolled: &[Enrolled],
) -> Result<Genesis, ProvisionError> {
    if places.is_empty() {
        return Err(ProvisionError::NoReplica);
    }
    let record = |enrolled: &Enrolled| {
        let mut member = enrolled.request.member(enrolled.place(places).map_or(0, |place| place.number));
        member.name = enrolled.description.name.clone().unwrap_or(member.name);
        member
    };
    let mut members: Vec<_> = enrolled.iter().map(record).collect();
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

/// The public files beside the members' folders.
fn consortium_files(
    genesis: &[u8],
    places: &[Place],
    enrolled: &[Enrolled],
    authority: &CertificateAuthority,
) -> Result<BTreeMap<PathBuf, KitFile>, ProvisionError> {
    let public = |bytes: Vec<u8>| KitFile { bytes, secret: false };
    let defaults =
        commented("Defaults of the command line for everything below this folder.", &defaults(places, enrolled))?;
    let certificate = authority.certificate_pem().as_bytes().to_vec();
    Ok(BTreeMap::from([
        (PathBuf::from(GENESIS_FILE), public(genesis.to_vec())),
        (Path::new(AUTHORITY_FOLDER).join(AUTHORITY_CERTIFICATE), public(certificate)),
        (PathBuf::from(DEFAULTS_FILE), public(defaults.into_bytes())),
    ]))
}

/// The command line works as the first operator, or the first member, with its own replica or the first one, and turns to
/// the others where that one does not answer.
fn defaults(places: &[Place], enrolled: &[Enrolled]) -> CliDefaults {
    let members = || enrolled.iter().map(|enrolled| &enrolled.description);
    let member = members().find(|member| has_role(member, Role::Operator)).or(members().next());
    let own = places.iter().find(|place| member.is_some_and(|member| member.id == place.member));
    let place = own.or(places.first());
    let others = places.iter().filter(|other| place.is_none_or(|place| place.member != other.member));
    CliDefaults {
        ledger: place.map(|place| PathBuf::from(&place.member).join(REPLICA_FOLDER)),
        connect: place.into_iter().chain(others).map(|place| format!("https://{}", place.api_address)).collect(),
        identity: member.map(|member| PathBuf::from(&member.id).join(IDENTITY_FOLDER)),
    }
}

pub(super) fn has_role(member: &MemberDescription, role: Role) -> bool {
    member.effective_roles().contains(&role)
}
