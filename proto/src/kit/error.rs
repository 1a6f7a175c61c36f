//! Why a kit, an identity or one of their files cannot be used.

use std::{io, path::PathBuf};

use fedledger_federation::member::GenesisError;
use fedledger_ledger::PublicKey;

use super::{IDENTITY_FILE, NODE_FILE, certificates::CertificateError, nodes::NodeRole, passphrase::PassphraseError};

/// A directory or file that a node or a person cannot start from. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A directory without a node's configuration.
    #[error(
        "{} is no node's directory, it has no {NODE_FILE}: give one that `fedledger provision` wrote, or finish with \
         `fedledger identity install`",
        directory.display()
    )]
    NotANode {
        /// The directory.
        directory: PathBuf,
    },
    /// A directory without an identity.
    #[error(
        "{} is no identity, it has no {IDENTITY_FILE}: \
         give a member's identity directory that `fedledger provision` wrote, or finish with \
         `fedledger identity install`",
        directory.display()
    )]
    NotAnIdentity {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory of a replica where a participant's is needed, or the other way round.
    #[error(
        "{} is the directory of {node}, a {found}: start it with `fedledger {command}`, \
         or give the directory of a {needed}",
        directory.display(),
        command = found.command()
    )]
    WrongRole {
        /// The directory.
        directory: PathBuf,
        /// Name of its node.
        node: String,
        /// What the node is.
        found: NodeRole,
        /// What was needed.
        needed: NodeRole,
    },
    /// A file that every such directory has.
    #[error("{} is missing: restore it from a backup, or provision the consortium anew", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file larger than any of its kind.
    #[error("{} is larger than {limit} bytes, so it is not what its name says", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Largest size allowed, in bytes.
        limit: u64,
    },
    /// A secret that others than its owner may read.
    #[error("{} can be used by others (mode {mode:04o}): run `chmod 600 {}`", file.display(), file.display())]
    Permissions {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file that holds no key.
    #[error("{} is damaged, expected {expected}: restore it from a backup", file.display())]
    MalformedKey {
        /// The file.
        file: PathBuf,
        /// What a key file of this kind holds.
        expected: &'static str,
    },
    /// A key file that is encrypted, without a passphrase.
    #[error(
        "{} is encrypted: give its passphrase with --passphrase-file or in FEDLEDGER_PASSPHRASE",
        file.display()
    )]
    Locked {
        /// The file.
        file: PathBuf,
    },
    /// A key file that a passphrase does not decrypt.
    #[error("{} cannot be decrypted with this passphrase", file.display())]
    WrongPassphrase {
        /// The file.
        file: PathBuf,
    },
    /// A key file that is encrypted in another way than ours, or at a cost that is none.
    #[error(
        "{} is not encrypted with scrypt and AES-256-CBC at a bearable cost: restore it from a backup",
        file.display()
    )]
    UnsupportedEncryption {
        /// The file.
        file: PathBuf,
    },
    /// A file that holds no passphrase.
    #[error("{}: {source}", file.display())]
    PassphraseFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: PassphraseError,
    },
    /// A key other than the one that the consortium knows.
    #[error(
        "key {key} in {} is not the one that the genesis file or the ledger names for {owner}: \
         restore the right file, or use the directory of the node that the key belongs to",
        file.display()
    )]
    ForeignKey {
        /// The public half of the key found.
        key: PublicKey,
        /// Its file.
        file: PathBuf,
        /// The node, or the member with a word on the purpose.
        owner: String,
    },
    /// A certificate that cannot be read.
    #[error("{}: {source}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A certificate of another key than the one beside it.
    #[error("the certificate {} is not that of the key {}: restore the pair", certificate.display(), key.display())]
    ForeignCertificate {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A file that people write, with a mistake in it.
    #[error("{}: {source}", file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// A setting out of its range.
    #[error("{}: `{setting}` must be {range}", file.display())]
    Setting {
        /// The file.
        file: PathBuf,
        /// Name of the setting.
        setting: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// A genesis file that describes no consortium.
    #[error("{}: {source}", file.display())]
    Genesis {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: GenesisError,
    },
    /// The last head that was seen, damaged.
    #[error(
        "{} is no signed checkpoint: restore it from a backup, or remove it, and with it the memory of what replicas have \
         shown before",
        file.display()
    )]
    SeenHead {
        /// The file.
        file: PathBuf,
    },
    /// A record of a member that is none.
    #[error("{}: {source}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: GenesisError,
    },
    /// A name that the genesis file does not know.
    #[error("{} names {name:?}, which is not in the genesis file beside it: correct the name", file.display())]
    Unknown {
        /// The file with the name.
        file: PathBuf,
        /// The node or member.
        name: String,
    },
}
