//! A member's own directory, in which its keys are made on site and never leave it.
//!
//! ```text
//! site.toml                          who the member is and what it runs, as in consortium.toml; edit it
//! identity/organisation.key, ...     the keys, in the layout of a member's kit
//! replica/keys/, participant/keys/
//! ```
//!
//! [`Site::create`] draws the keys, [`Site::request`] makes the public half to be sent to the consortium, and
//! [`Site::install`] merges what comes back, after which the three folders are kits like any other.
//! [`InstalledSite`] replaces keys later. Whatever is interrupted can be begun again: files are replaced at once, and
//! those that make a folder usable come last.

mod install;
mod installed;
mod protect;

use std::path::{Path, PathBuf};

use fedledger_federation::member::MemberId;
use fedledger_ledger::Digest;

pub use self::{installed::InstalledSite, protect::change_passphrase};
use super::{
    KitFile,
    certificates::CertificateError,
    description::MemberDescription,
    error::KitError,
    files::{parse_toml, read_text},
    member_files::commented,
    passphrase::Passphrase,
    protection::{Protection, ProtectionError},
    provision::protect_files,
    request::{MemberRequest, RequestError, check_member},
    secrets::MemberSecrets,
    write::{WriteError, check_complete, write_new},
};

/// Name of the file that makes a directory a site.
const SITE_FILE: &str = "site.toml";

/// A directory with keys that were made on site.
#[derive(Debug, Clone)]
pub struct Site {
    directory: PathBuf,
    description: MemberDescription,
}

/// Something that cannot be done with a member's own directory. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A directory without the description of a site.
    #[error(
        "{} holds no keys made on site, it has no {SITE_FILE}: make them with `fedledger identity new`",
        directory.display()
    )]
    NotASite {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory in which no kit is installed.
    #[error("nothing is installed in {}: do so with `fedledger identity install`", directory.display())]
    NotInstalled {
        /// The directory.
        directory: PathBuf,
    },
    /// A file that cannot be used.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A description of no member.
    #[error("{}: {source}", file.display())]
    Description {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: RequestError,
    },
    /// A key that cannot be encrypted.
    #[error(transparent)]
    Protection(#[from] ProtectionError),
    /// A key that cannot be written.
    #[error(transparent)]
    Key(#[from] CertificateError),
    /// A configuration that TOML cannot hold.
    #[error("a configuration file cannot be written: {0}")]
    Toml(#[from] toml::ser::Error),
    /// An approval for somebody else.
    #[error("{} is for {found}, but the keys in this directory are those of {expected}", approval.display())]
    OtherMember {
        /// Where the approval lies.
        approval: PathBuf,
        /// Whom it is for.
        found: MemberId,
        /// Whose directory this is.
        expected: MemberId,
    },
    /// An approval for another consortium than the one that is installed.
    #[error(
        "{} is of the consortium with chain {found}, but this directory belongs to {installed}: use a new directory",
        approval.display()
    )]
    OtherConsortium {
        /// Where the approval lies.
        approval: PathBuf,
        /// Its chain.
        found: Digest,
        /// The chain installed.
        installed: Digest,
    },
    /// A node that the member does not have, or whose directory is elsewhere.
    #[error("{member} has no {node} in {}", directory.display())]
    NoNode {
        /// The member.
        member: MemberId,
        /// The node's folder.
        node: &'static str,
        /// The directory.
        directory: PathBuf,
    },
    /// A key that a node does not have.
    #[error("a {node} has no {purpose} key")]
    NoKey {
        /// The node's folder.
        node: &'static str,
        /// What the key would be for.
        purpose: &'static str,
    },
}

impl Site {
    /// Draws the keys of a member into a directory that must be new or empty, encrypted if there is a `protection`.
    /// `randomness` must come from the operating system; it is asked for every key, and once more for every key that is
    /// encrypted.
    ///
    /// # Errors
    ///
    /// [`SiteError`]; the description is checked before anything is written.
    pub fn create(
        directory: &Path,
        description: MemberDescription,
        protection: Option<Protection<'_>>,
        randomness: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<Self, SiteError> {
        let secrets = MemberSecrets::draw(&description, randomness);
        let malformed = |source| SiteError::Description { file: directory.join(SITE_FILE), source };
        check_member(secrets.request(&description).member(1)).map_err(|source| malformed(source.into()))?;
        let mut files = secrets.files()?;
        if let Some(protection) = protection {
            protect_files(&mut files, protection, randomness)?;
        }
        let text = commented(
            "This member, as in consortium.toml. Edit it before `fedledger identity request`.",
            &description,
        )?;
        files.insert(PathBuf::from(SITE_FILE), KitFile { bytes: text.into_bytes(), secret: false });
        write_new(&files, directory)?;
        Ok(Self { directory: directory.to_owned(), description })
    }

    /// Opens a directory that [`create`](Self::create) has written.
    ///
    /// # Errors
    ///
    /// [`SiteError`], which names the file.
    pub fn open(directory: &Path) -> Result<Self, SiteError> {
        check_complete(directory)?;
        let file = directory.join(SITE_FILE);
        let text = read_text(&file).map_err(|error| match error {
            KitError::Missing { .. } => SiteError::NotASite { directory: directory.to_owned() },
            other => other.into(),
        })?;
        Ok(Self { directory: directory.to_owned(), description: parse_toml(&text, &file)? })
    }

    /// The member, as it describes itself.
    pub const fn description(&self) -> &MemberDescription {
        &self.description
    }

    /// The public half of the keys, with a signature by each secret half.
    ///
    /// # Errors
    ///
    /// [`SiteError`]: a key cannot be read, or the description has been changed to one of no member.
    pub fn request(&self, passphrase: Option<&Passphrase>) -> Result<MemberRequest, SiteError> {
        let request = MemberSecrets::load(&self.description, &self.directory, passphrase)?.request(&self.description);
        let checked = request.check(request.has_replica().then_some(1));
        checked.map_err(|source| SiteError::Description { file: self.directory.join(SITE_FILE), source })?;
        Ok(request)
    }
}
