//! Certificates of the API: a certificate authority per consortium, made when it is provisioned.
//!
//! A certificate says which Ed25519 key somebody holds, nothing more. Whether that key may do anything is decided by
//! the ledger's current state at every call, so certificates need no revocation lists and, on purpose, do not expire:
//! RFC 5280, section 4.1.2.5, has a date for that.

use std::time::Duration;

use fedledger_ledger::{PublicKey, SecretKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use x509_parser::{oid_registry::OID_SIG_ED25519, parse_x509_certificate, pem::parse_x509_pem};

/// Names under which every replica's API may be reached from its own machine.
const LOCAL_HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// Label of a certificate in PEM.
const CERTIFICATE_LABEL: &str = "CERTIFICATE";

/// A certificate that cannot be issued, or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Issuing failed.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A host that cannot stand in a certificate.
    #[error("{0:?} is neither an IP address nor a host name")]
    Host(String),
    /// A private key that cannot be written as PEM.
    #[error("cannot write a private key as PEM")]
    PrivateKey,
    /// No PEM, or not of a certificate.
    #[error("this is not a certificate in PEM form")]
    NotPem,
    /// No X.509 certificate.
    #[error("this is not an X.509 certificate")]
    Malformed,
    /// A certificate of another kind of key.
    #[error("the certificate is not one of an Ed25519 key")]
    NotEd25519,
}

/// The authority that signs the consortium's API certificates.
#[derive(Debug)]
pub struct CertificateAuthority {
    consortium: String,
    key: IssuerKey,
    params: CertificateParams,
    certificate_pem: String,
}

impl CertificateAuthority {
    /// The authority of a consortium. The same key and name give the same certificate.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Issue`].
    pub fn new(consortium: &str, key: SecretKey) -> Result<Self, CertificateError> {
        let key = IssuerKey::new(key);
        let mut params = params(consortium, "certificate authority");
        // Signs end entities, no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { consortium: consortium.to_owned(), key, params, certificate_pem })
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for the API server of a node, reachable at `hosts` (IP addresses or names) and locally.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for a host that is none.
    pub fn issue_server(&self, node: &str, key: &PublicKey, hosts: &[&str]) -> Result<String, CertificateError> {
        let mut names: Vec<&str> = Vec::new();
        for host in hosts.iter().copied().chain(LOCAL_HOSTS) {
            if !names.contains(&host) {
                names.push(host);
            }
        }
        let mut alternatives = Vec::new();
        for host in names {
            let named = CertificateParams::new(vec![host.to_owned()]);
            alternatives.extend(named.map_err(|_| CertificateError::Host(host.to_owned()))?.subject_alt_names);
        }
        let mut params = params(&self.consortium, node);
        params.subject_alt_names = alternatives;
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth, key)
    }

    /// A certificate for the people and programs of a member, by their API key.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Issue`].
    pub fn issue_client(&self, member: &str, key: &PublicKey) -> Result<String, CertificateError> {
        self.issue(params(&self.consortium, member), ExtendedKeyUsagePurpose::ClientAuth, key)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
        key: &PublicKey,
    ) -> Result<String, CertificateError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&self.params, &self.key);
        Ok(params.signed_by(&SubjectKey(*key.as_bytes()), &issuer)?.pem())
    }
}

/// The Ed25519 key that a certificate in DER is about.
///
/// # Errors
///
/// [`CertificateError`] if there is none.
pub fn certified_key(certificate: &[u8]) -> Result<PublicKey, CertificateError> {
    let (rest, certificate) = parse_x509_certificate(certificate).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err(CertificateError::NotEd25519);
    }
    let bytes = info.subject_public_key.data.as_ref().try_into().map_err(|_| CertificateError::NotEd25519)?;
    Ok(PublicKey::from_bytes(bytes))
}

/// A certificate in PEM, in DER.
pub(super) fn der_of_pem(pem: &str) -> Result<Vec<u8>, CertificateError> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| CertificateError::NotPem)?;
    if pem.label == CERTIFICATE_LABEL { Ok(pem.contents) } else { Err(CertificateError::NotPem) }
}

/// The Ed25519 key that a certificate in PEM is about.
pub(super) fn certified_key_of_pem(pem: &str) -> Result<PublicKey, CertificateError> {
    certified_key(&der_of_pem(pem)?)
}

fn params(organisation: &str, name: &str) -> CertificateParams {
    /// Seconds from the beginning of a day to its last second.
    const LAST_SECOND: Duration = Duration::from_secs(24 * 3600 - 1);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organisation);
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    // Long ago, because clocks are not relied on; the end is the date that means none.
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + LAST_SECOND;
    params
}

/// The authority's key, as the certificate library wants it.
#[derive(Debug)]
struct IssuerKey {
    key: SecretKey,
    public: [u8; 32],
}

impl IssuerKey {
    fn new(key: SecretKey) -> Self {
        let public = *key.public().as_bytes();
        Self { key, public }
    }
}

impl PublicKeyData for IssuerKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for IssuerKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // X.509 has no room for a domain; this key signs nothing but certificates.
        Ok(self.key.sign(b"", message).as_bytes().to_vec())
    }
}

/// A key that is certified without being at hand.
struct SubjectKey([u8; 32]);

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}
