//! A public key: Ed25519 or ECDSA over P-256, in the form that every tool writes (SPKI).

use std::path::PathBuf;

use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

use crate::pem;

/// What comes before the key's own bytes in an SPKI. DER leaves no other way to write it.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_LENGTH: usize = 32;
/// An uncompressed point.
const P256_LENGTH: usize = 65;
/// Two numbers of 32 bytes each.
const P256_FIXED_SIGNATURE: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    Ed25519([u8; ED25519_LENGTH]),
    P256([u8; P256_LENGTH]),
}

/// What is wrong with a key. Never contains any of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    Unusable { path: PathBuf, problem: Box<KeyError> },
    #[error(
        "has a private key, which belongs to nobody but the maker; expected a public one (`openssl pkey -pubout`)"
    )]
    Private,
    #[error("expected PEM with {0}")]
    NoKey(&'static str),
    #[error("expected an Ed25519 or ECDSA P-256 key, found another kind")]
    Unsupported,
    #[error(
        "the private key is encrypted, expected one without a passphrase (`openssl pkey -in … -out …` removes it)"
    )]
    Encrypted,
    #[error("others may change it, expected that at most owner and group may: `chmod o-w`")]
    OthersMayWrite,
    #[error("the system gives no random numbers")]
    Random,
    #[error("has more than {limit} {what}")]
    TooMuch { what: &'static str, limit: usize },
    #[error("has {found} different keys in its *.pem files, and the threshold is {threshold}")]
    TooFew { found: usize, threshold: usize },
}

impl PublicKey {
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(key) = der.strip_prefix(&ED25519_SPKI).and_then(|key| key.try_into().ok()) {
            return Ok(Self::Ed25519(key));
        }
        match der.strip_prefix(&P256_SPKI).and_then(|key| <[u8; P256_LENGTH]>::try_from(key).ok()) {
            Some(key) if key.starts_with(&[4]) => Ok(Self::P256(key)),
            _ => Err(KeyError::Unsupported),
        }
    }

    pub fn to_spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&ED25519_SPKI[..], key].concat(),
            Self::P256(key) => [&P256_SPKI[..], key].concat(),
        }
    }

    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.to_spki())
    }

    /// The sha256 of the SPKI, in hex: what a signature names its key by.
    pub fn id(&self) -> String {
        hex::encode(digest(&SHA256, &self.to_spki()))
    }

    /// DSSE leaves open how an ECDSA signature is written. Its own example has two plain numbers, OpenSSL and most signing
    /// services write DER; the length tells which it is.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::P256(key) if signature.len() == P256_FIXED_SIGNATURE => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(message, signature)
            }
        }
        .is_ok()
    }
}
