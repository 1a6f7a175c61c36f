//! What one side of a TLS connection needs: its key, its certificate, and the authority that it trusts.

use std::{fmt, path::Path, time::Duration};

use fedledger_ledger::{PublicKey, SecretKey};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use zeroize::Zeroizing;

use super::{
    certificates::{CertificateError, certified_key_of_pem},
    error::KitError,
    files::read_text,
    keys::{self, to_pem},
    passphrase::Passphrase,
};

/// The key of a TLS client or server, in PEM.
pub(super) const API_KEY: &str = "api.key";
/// Its certificate, in PEM.
pub(super) const API_CERTIFICATE: &str = "api.crt";
/// Certificate of the authority, in PEM.
pub(super) const AUTHORITY_CERTIFICATE: &str = "ca.crt";
/// Key of the authority.
pub(super) const AUTHORITY_KEY: &str = "ca.key";

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Key, certificate and trusted authority of one side of the API.
#[derive(Clone)]
pub struct TlsIdentity {
    key_pem: Zeroizing<String>,
    certificate_pem: String,
    authority_pem: String,
    public_key: PublicKey,
}

impl TlsIdentity {
    /// The identity with this key and certificate, which trusts certificates by `authority_pem`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if the certificate is none of this key's kind.
    pub fn new(key: &SecretKey, certificate_pem: String, authority_pem: String) -> Result<Self, CertificateError> {
        let public_key = certified_key_of_pem(&certificate_pem)?;
        Ok(Self { key_pem: to_pem(key)?, certificate_pem, authority_pem, public_key })
    }

    /// Loads the three files of a folder.
    pub(super) fn load(folder: &Path, passphrase: Option<&Passphrase>) -> Result<Self, KitError> {
        let (key_file, certificate_file) = (folder.join(API_KEY), folder.join(API_CERTIFICATE));
        let authority_file = folder.join(AUTHORITY_CERTIFICATE);
        let key = keys::read(&key_file, passphrase)?;
        let public_key = key.public();
        let certificate_pem = read_text(&certificate_file)?;
        let authority_pem = read_text(&authority_file)?;
        let certified = |pem: &str, file: &Path| {
            certified_key_of_pem(pem).map_err(|source| KitError::Certificate { file: file.to_owned(), source })
        };
        certified(&authority_pem, &authority_file)?;
        if certified(&certificate_pem, &certificate_file)? != public_key {
            return Err(KitError::ForeignCertificate { certificate: certificate_file, key: key_file });
        }
        let key_pem = to_pem(&key).map_err(|source| KitError::Certificate { file: key_file, source })?;
        Ok(Self { key_pem, certificate_pem, authority_pem, public_key })
    }

    /// The key that the certificate is about.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate of the trusted authority, in PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// For a server that admits only clients with a certificate by the authority.
    pub fn server_config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate_pem, self.key_pem.as_str()))
            .client_ca_root(Certificate::from_pem(&self.authority_pem))
            .timeout(HANDSHAKE_TIMEOUT)
    }

    /// For a client that trusts only servers with a certificate by the authority.
    pub fn client_config(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate_pem, self.key_pem.as_str()))
            .ca_certificate(Certificate::from_pem(&self.authority_pem))
            .timeout(HANDSHAKE_TIMEOUT)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity(of {})", self.public_key)
    }
}
