//! What one side of a TLS connection needs: its key, its certificate, and the authority that it trusts.

use std::{fmt, path::Path, time::Duration};

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes},
};
use fedledger_ledger::{PublicKey, SecretKey};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use zeroize::Zeroizing;

use super::{
    KEYS_FOLDER,
    certificates::{CertificateError, certified_key_of_pem, der_of_pem},
    error::KitError,
    files::read_text,
    keys::{self, to_pem},
    passphrase::Passphrase,
};
use crate::endpoint::WebSocketCertificate;

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

    /// What a WebSocket server shows.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn websocket_certificate(&self) -> Result<WebSocketCertificate, CertificateError> {
        let key = SigningKey::from_pkcs8_pem(&self.key_pem).map_err(|_| CertificateError::PrivateKey)?;
        // Without the public key, which not everybody reads.
        let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
        let key = pair.to_pkcs8_der().map_err(|_| CertificateError::PrivateKey)?;
        Ok(WebSocketCertificate { certificate: der_of_pem(&self.certificate_pem)?, key: key.to_bytes() })
    }

    /// The certificate of the trusted authority, in DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn authority_der(&self) -> Result<Vec<u8>, CertificateError> {
        der_of_pem(&self.authority_pem)
    }

    /// For a server that admits only clients with a certificate by the authority.
    pub fn server_config(&self) -> ServerTlsConfig {
        choose_cryptography();
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

/// The certificate of the authority that a node's directory holds, in DER, if it holds one.
///
/// # Errors
///
/// [`KitError`], which names the file.
pub fn authority_of_node(directory: &Path) -> Result<Option<Vec<u8>>, KitError> {
    load_authority(&directory.join(KEYS_FOLDER))
}

/// The certificate of the authority in a participant's folder of keys, in DER, if there is one.
pub(super) fn load_authority(folder: &Path) -> Result<Option<Vec<u8>>, KitError> {
    let file = folder.join(AUTHORITY_CERTIFICATE);
    let pem = match read_text(&file) {
        Ok(pem) => pem,
        Err(KitError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let failed = |source| KitError::Certificate { file: file.clone(), source };
    certified_key_of_pem(&pem).map_err(failed)?;
    der_of_pem(&pem).map(Some).map_err(failed)
}

/// Two implementations of TLS's cryptography are linked, since libp2p's WebSocket insists on one of its own. A server that
/// is not told which one to use would give up.
fn choose_cryptography() {
    // Whoever was first has chosen already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity(of {})", self.public_key)
    }
}
