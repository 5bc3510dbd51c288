//! The device's identity, from PEM files to a TLS configuration.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

#[cfg(feature = "pkcs11")]
mod scheme;
#[cfg_attr(not(feature = "pkcs11"), path = "tls/no_token.rs")]
mod token;
mod uri;

pub use uri::{Uri, UriError};

use crate::Validity;

#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// PEM: the device's certificate, and after it the chain if there is one.
    pub certificate: PathBuf,
    /// PEM: EC P-256, P-384 or RSA, as PKCS#8, PKCS#1 or SEC1, readable by its owner alone. Or a [PKCS#11 URI](Uri), of a key that
    /// never leaves its token.
    pub private_key: PathBuf,
    /// PEM: who may sign the server's certificate, and nobody else may.
    pub root_ca: PathBuf,
}

/// What is wrong with which file. Never contains any of a file's content.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct TlsError {
    pub file: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("expected PEM with {expected}, found {found}")]
    Unexpected { expected: &'static str, found: String },
    #[error("not well-formed PEM: {0}")]
    Malformed(String),
    #[error(
        "the private key is encrypted, expected one without a passphrase (`openssl pkey -in … -out …` removes it)"
    )]
    Encrypted,
    #[error(
        "mode {mode:04o} lets others at the private key, expected 0600, or 0640 where it is root's: `chmod 600 {}`",
        file.display()
    )]
    OthersMayRead { mode: u32, file: PathBuf },
    #[error("expected an EC P-256, EC P-384 or RSA (2048 to 8192 bits) private key, found another kind")]
    UnsupportedKey,
    #[error("the private key does not belong to the certificate in {}", .certificate.display())]
    KeyMismatch { certificate: PathBuf },
    #[error("{0}")]
    Uri(#[from] UriError),
    #[error("is a key in a token, and this fleethand was built without the feature `pkcs11`")]
    NoTokens,
    /// Of [`try_key`] alone.
    #[error("cannot be used: {0}")]
    Token(String),
    #[error("holds a certificate that cannot be trusted as a root: {0}")]
    BadRoot(rustls::Error),
    #[error("there are none (install ca-certificates), and no root_ca is configured")]
    NoRoots,
    #[error("no TLS configuration can be built: {0}")]
    Rustls(rustls::Error),
}

const CERTIFICATE: &str = "a certificate (-----BEGIN CERTIFICATE-----)";
const PRIVATE_KEY: &str = "a private key (-----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY)";

/// TLS 1.2 and 1.3, the device's certificate, and the given root alone. The system's store is not looked at.
pub fn client_config(identity: &IdentityFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(&identity.root_ca).map_err(at(&identity.root_ca))?;
    let certificates = certificates(&identity.certificate).map_err(at(&identity.certificate))?;
    let key = match in_token(identity)? {
        Some(uri) => token_key(uri, certificates)?,
        None => certified_key(identity, certificates).map_err(at(&identity.private_key))?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| at(&identity.certificate)(Problem::Rustls(error)))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Ok(Arc::new(config))
}

/// Signs something with a key that is in a token, as every handshake does. A key in a file was looked at already.
pub fn try_key(identity: &IdentityFiles) -> Result<(), TlsError> {
    let Some(uri) = in_token(identity)? else { return Ok(()) };
    let certificates = certificates(&identity.certificate).map_err(at(&identity.certificate))?;
    let shown = PathBuf::from(uri.to_string());
    token::try_key(uri, &certificates).map_err(at(&shown))
}

/// The token's key, if it is not a file's. No error shows what may be a PIN.
fn in_token(identity: &IdentityFiles) -> Result<Option<Uri>, TlsError> {
    let uri = Uri::of(&identity.private_key).transpose();
    uri.map_err(|error| at(Path::new("pkcs11:…"))(error.into()))
}

fn token_key(uri: Uri, certificates: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, TlsError> {
    let shown = PathBuf::from(uri.to_string());
    token::certified_key(uri, certificates).map_err(at(&shown))
}

/// The same without a device's certificate, for who says otherwise who it is. Without a root: those of the system.
pub fn anonymous_config(root_ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let file = root_ca.unwrap_or(Path::new("the system's trusted roots"));
    let roots = root_ca.map_or_else(system_roots, roots).map_err(at(file))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| at(file)(Problem::Rustls(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Problem::NoRoots);
    }
    Ok(roots)
}

/// From when until when the first certificate of this file is valid.
pub fn validity(certificate: &Path) -> Result<Validity, TlsError> {
    let found = certificates(certificate).map_err(at(certificate))?;
    let validity = found.first().and_then(|leaf| Validity::of(leaf));
    validity.ok_or_else(|| at(certificate)(Problem::Malformed("it is no X.509 certificate".to_owned())))
}

fn at(file: &Path) -> impl FnOnce(Problem) -> TlsError {
    let file = file.to_owned();
    |problem| TlsError { file, problem }
}

fn roots(file: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(Problem::BadRoot)?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let pem = fs::read(file)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| malformed(&error))?;
    if found.is_empty() {
        return Err(unexpected(CERTIFICATE, &pem));
    }
    Ok(found)
}

fn certified_key(
    identity: &IdentityFiles,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, Problem> {
    let der = private_key(&identity.private_key)?;
    let key = any_supported_type(&der).map_err(|_| Problem::UnsupportedKey)?;
    // A certificate contains its public key as it stands. rustls has a comparison of its own, which refuses the X.509
    // version 1 certificates that a plain `openssl x509 -req` makes.
    let fits = match (key.public_key(), certificates.first()) {
        (Some(public), Some(leaf)) => leaf.windows(public.len()).any(|part| part == &*public),
        _ => true,
    };
    if !fits {
        return Err(Problem::KeyMismatch { certificate: identity.certificate.clone() });
    }
    Ok(CertifiedKey::new(certificates, key))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let mut opened = File::open(file)?;
    let metadata = opened.metadata()?;
    if let Some(mode) = may_others_read(&metadata) {
        let file = file.to_owned();
        return Err(Problem::OthersMayRead { mode, file });
    }
    let mut pem = Vec::new();
    opened.read_to_end(&mut pem)?;
    // PKCS#8 says so in its label, the older formats in a header line.
    if labels(&pem).contains(&"ENCRYPTED PRIVATE KEY".to_owned())
        || pem.windows(22).any(|line| line == b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(Problem::Encrypted);
    }
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(unexpected(PRIVATE_KEY, &pem)),
        Err(error) => Err(malformed(&error)),
    }
}

/// The mode, if it is too wide for a secret.
fn may_others_read(metadata: &fs::Metadata) -> Option<u32> {
    let mode = metadata.mode() & 0o7777;
    // Root gives a key to a service by its group (and systemd its credentials), which cannot change it then. Everybody
    // else's group is people.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    (mode & others != 0).then_some(mode)
}

/// The kind of fault alone: the parser's own message may quote the line, and a line may be part of a key.
fn malformed(error: &rustls::pki_types::pem::Error) -> Problem {
    use rustls::pki_types::pem::Error;
    Problem::Malformed(
        match error {
            Error::MissingSectionEnd { .. } => "a section has no -----END line",
            Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken",
            Error::Base64Decode(_) => "the base64 is broken",
            Error::SectionTooLarge => "a section is too large",
            _ => "it cannot be parsed",
        }
        .to_owned(),
    )
}

fn unexpected(expected: &'static str, content: &[u8]) -> Problem {
    let labels = labels(content);
    let found = if !labels.is_empty() {
        labels.join(", ")
    } else if content.is_empty() {
        "an empty file".to_owned()
    } else if content.first() == Some(&0x30) {
        // The tag of an ASN.1 SEQUENCE, with which every certificate and key begins.
        "DER (`openssl x509` or `openssl pkey` with `-inform DER` converts it)".to_owned()
    } else {
        "no -----BEGIN line".to_owned()
    };
    Problem::Unexpected { expected, found }
}

/// What a PEM file says it holds. Labels are not secret; at most a few, of printable characters.
fn labels(pem: &[u8]) -> Vec<String> {
    pem.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .filter(|label| label.len() <= 40 && !label.chars().any(char::is_control))
        .take(5)
        .map(str::to_owned)
        .collect()
}
