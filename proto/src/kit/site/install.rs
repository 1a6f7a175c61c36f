//! Merging what the consortium sends back into a site's directory.

use std::path::{Path, PathBuf};

use fedledger_federation::member::{Member, NodeKind};
use fedledger_ledger::PublicKey;

use super::{Site, SiteError};
use crate::kit::{
    GENESIS_FILE, IDENTITY_FILE, IDENTITY_FOLDER, KEYS_FOLDER, KitFile, NODE_FILE, PARTICIPANT_FOLDER, POLICY_FILE,
    REPLICA_FOLDER,
    certificates::certified_key_of_pem,
    config::{ParticipantConfig, ReplicaConfig},
    error::KitError,
    files::{GenesisFile, parse_toml, read_text},
    identity::IdentityFile,
    keys::check_owner,
    member_files::{commented, data, node_text, policy_text, record_text},
    node_name,
    passphrase::Passphrase,
    record::{self, RECORD_FILE},
    request::MemberRequest,
    tls::{API_CERTIFICATE, API_KEY, AUTHORITY_CERTIFICATE},
    write::replace_file,
};

impl Site {
    /// Merges an approval, which is a folder with public files, into this directory: genesis file, certificates and
    /// addresses. Every key that the consortium knows of this member must be the one that lies here.
    ///
    /// What the site takes part in and where its data lie is taken from `site.toml`, never from the approval; a
    /// `policy.toml` that is there stays. It may be called again, after an interruption or with a newer approval.
    ///
    /// # Errors
    ///
    /// [`SiteError`]; nothing is written unless everything fits.
    pub fn install(&self, approval: &Path, passphrase: Option<&Passphrase>) -> Result<Member, SiteError> {
        let id = &self.description.id;
        let from = approval.join(IDENTITY_FOLDER);
        let identity_file = from.join(IDENTITY_FILE);
        let IdentityFile { member: found } = parse_toml(&read_text(&identity_file)?, &identity_file)?;
        if found != *id {
            let approval = approval.to_owned();
            return Err(SiteError::OtherMember { approval, found, expected: id.clone() });
        }
        let genesis = GenesisFile::of_kit(&from)?;
        self.check_consortium(approval, &genesis)?;
        let member = record::member(&from, &genesis, id)?;
        let member = member.ok_or_else(|| KitError::Unknown { file: identity_file, name: id.clone() })?;
        let request = self.request(passphrase)?;
        self.check_keys(&request, &member)?;

        let mut merged = Merged { site: self, approval, genesis: &genesis, member: &member, files: Vec::new() };
        if let Some(server_key) = request.server_key() {
            merged.replica(server_key)?;
        }
        if request.nodes.len() > usize::from(request.has_replica()) {
            merged.participant()?;
        }
        merged.identity(&request.api_key)?;
        for (path, file) in merged.files {
            replace_file(&self.directory.join(path), &file)?;
        }
        Ok(member)
    }

    /// Refuses to turn a member of one consortium into one of another.
    fn check_consortium(&self, approval: &Path, genesis: &GenesisFile) -> Result<(), SiteError> {
        for folder in [IDENTITY_FOLDER, REPLICA_FOLDER, PARTICIPANT_FOLDER] {
            match GenesisFile::of_kit(&self.directory.join(folder)) {
                Ok(installed) if installed.chain != genesis.chain => {
                    let (approval, found) = (approval.to_owned(), genesis.chain);
                    return Err(SiteError::OtherConsortium { approval, found, installed: installed.chain });
                }
                Ok(_) | Err(KitError::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Checks that every key that the consortium knows is the one here, and the other way round.
    fn check_keys(&self, request: &MemberRequest, member: &Member) -> Result<(), SiteError> {
        let mine = request.member(0);
        let check = |mine: &PublicKey, theirs: &PublicKey, owner: &str| {
            check_owner(mine, &self.directory, theirs, owner).map_err(SiteError::from)
        };
        check(&mine.organisation_key, &member.organisation_key, &member.id)?;
        check(&mine.api_key, &member.api_key, &member.id)?;
        let missing =
            |name: &str| KitError::Unknown { file: self.directory.join(super::SITE_FILE), name: name.to_owned() };
        for node in &member.nodes {
            let own = mine.nodes.iter().find(|own| own.name == node.name).ok_or_else(|| missing(&node.name))?;
            check(&own.transport_key, &node.transport_key, &node.name)?;
            check(&own.transaction_key, &node.transaction_key, &node.name)?;
            match (&own.kind, &node.kind) {
                (
                    NodeKind::Replica { log_key, cosign_key, .. },
                    NodeKind::Replica { log_key: log, cosign_key: cosign, .. },
                ) => {
                    check(log_key, log, &node.name)?;
                    check(cosign_key, cosign, &node.name)?;
                }
                (NodeKind::Participant { witness_key }, NodeKind::Participant { witness_key: witness }) => {
                    check(witness_key, witness, &node.name)?;
                }
                _ => return Err(missing(&node.name).into()),
            }
        }
        match mine.nodes.iter().find(|own| !member.nodes.iter().any(|node| node.name == own.name)) {
            Some(own) => Err(missing(&own.name).into()),
            None => Ok(()),
        }
    }
}

/// Collects what is to be written, in order: the file that makes a folder a kit comes last.
struct Merged<'a> {
    site: &'a Site,
    approval: &'a Path,
    genesis: &'a GenesisFile,
    member: &'a Member,
    files: Vec<(PathBuf, KitFile)>,
}

impl Merged<'_> {
    fn replica(&mut self, server_key: &PublicKey) -> Result<(), SiteError> {
        let folder = Path::new(REPLICA_FOLDER);
        let config: ReplicaConfig = self.parse(&folder.join(NODE_FILE))?;
        self.check_node(&folder.join(NODE_FILE), &config.name, REPLICA_FOLDER)?;
        if let Some((setting, range)) = config.settings.mistake() {
            let file = self.approval.join(folder).join(NODE_FILE);
            return Err(KitError::Setting { file, setting, range }.into());
        }
        self.consortium(folder)?;
        self.certificates(&folder.join(KEYS_FOLDER), server_key)?;
        self.public(folder.join(NODE_FILE), node_text(&config)?);
        Ok(())
    }

    fn participant(&mut self) -> Result<(), SiteError> {
        let folder = Path::new(PARTICIPANT_FOLDER);
        let sent: ParticipantConfig = self.parse(&folder.join(NODE_FILE))?;
        self.check_node(&folder.join(NODE_FILE), &sent.name, PARTICIPANT_FOLDER)?;
        let described = self.site.description.participant.clone().unwrap_or_default();
        // Which programs run here is the site's to say: what somebody else has sent must never name one.
        let trainers = self.installed_participant()?.map(|installed| installed.trainers).unwrap_or_default();
        let config = ParticipantConfig { data: data(&described), trainers, ..sent };
        if let Some((setting, range)) = config.settings.mistake() {
            let file = self.approval.join(folder).join(NODE_FILE);
            return Err(KitError::Setting { file, setting, range }.into());
        }
        self.consortium(folder)?;
        if !self.site.directory.join(folder).join(POLICY_FILE).exists() {
            self.public(folder.join(POLICY_FILE), policy_text(&described.policy.unwrap_or_default())?);
        }
        self.public(folder.join(NODE_FILE), node_text(&config)?);
        let authority = folder.join(KEYS_FOLDER).join(AUTHORITY_CERTIFICATE);
        // Approvals of earlier versions come without.
        if self.approval.join(&authority).exists() {
            let pem = self.authority(&authority)?;
            self.public(authority, pem);
        }
        Ok(())
    }

    /// The configuration that the site has had so far.
    fn installed_participant(&self) -> Result<Option<ParticipantConfig>, SiteError> {
        let file = self.site.directory.join(PARTICIPANT_FOLDER).join(NODE_FILE);
        if file.exists() { Ok(Some(parse_toml(&read_text(&file)?, &file)?)) } else { Ok(None) }
    }

    fn identity(&mut self, api_key: &PublicKey) -> Result<(), SiteError> {
        let folder = Path::new(IDENTITY_FOLDER);
        self.consortium(folder)?;
        self.certificates(folder, api_key)?;
        let file = IdentityFile { member: self.member.id.clone() };
        let text = commented("The people of this member, for `fedledger --identity`.", &file)?;
        self.public(folder.join(IDENTITY_FILE), text);
        Ok(())
    }

    /// The genesis file, which must be the same for all, and the record, if the genesis file does not suffice.
    fn consortium(&mut self, folder: &Path) -> Result<(), SiteError> {
        let file = self.approval.join(folder).join(GENESIS_FILE);
        let found = GenesisFile::load(&file)?;
        if found.chain != self.genesis.chain {
            let installed = self.genesis.chain;
            return Err(SiteError::OtherConsortium { approval: file, found: found.chain, installed });
        }
        self.public(folder.join(GENESIS_FILE), self.genesis.bytes.clone());
        if !self.genesis.genesis.members.contains(self.member) {
            self.public(folder.join(RECORD_FILE), record_text(self.member)?);
        }
        Ok(())
    }

    /// A certificate for our key, and that of the authority.
    fn certificates(&mut self, folder: &Path, key: &PublicKey) -> Result<(), SiteError> {
        let (certificate, authority) = (folder.join(API_CERTIFICATE), folder.join(AUTHORITY_CERTIFICATE));
        let certificate_file = self.approval.join(&certificate);
        let pem = read_text(&certificate_file)?;
        let certified = certified_key_of_pem(&pem)
            .map_err(|source| KitError::Certificate { file: certificate_file.clone(), source })?;
        if certified != *key {
            let key = self.site.directory.join(folder).join(API_KEY);
            return Err(KitError::ForeignCertificate { certificate: certificate_file, key }.into());
        }
        let authority_pem = self.authority(&authority)?;
        self.public(certificate, pem);
        self.public(authority, authority_pem);
        Ok(())
    }

    /// The certificate of the authority, which must be one.
    fn authority(&self, path: &Path) -> Result<String, SiteError> {
        let file = self.approval.join(path);
        let pem = read_text(&file)?;
        certified_key_of_pem(&pem).map_err(|source| KitError::Certificate { file, source })?;
        Ok(pem)
    }

    fn check_node(&self, file: &Path, name: &str, folder: &str) -> Result<(), SiteError> {
        if name == node_name(&self.member.id, folder) {
            return Ok(());
        }
        Err(KitError::Unknown { file: self.approval.join(file), name: name.to_owned() }.into())
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T, SiteError> {
        let file = self.approval.join(path);
        Ok(parse_toml(&read_text(&file)?, &file)?)
    }

    fn public(&mut self, path: PathBuf, bytes: impl Into<Vec<u8>>) {
        self.files.push((path, KitFile { bytes: bytes.into(), secret: false }));
    }
}
