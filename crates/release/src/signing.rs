//! The maker's side. No device has a private key, and the linker leaves this out of the agent.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::{KeyError, PublicKey, pem};

/// What comes before the seed in the PKCS#8 of an Ed25519 key, in version 1: OpenSSL does not read ring's version 2.
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const EXPECTED: &str =
    "a private key in PKCS#8 (-----BEGIN PRIVATE KEY-----; `openssl pkcs8 -topk8 -nocrypt` makes it)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ed25519,
    P256,
}

pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// A new private key as PKCS#8 in PEM.
    pub fn generate(kind: Kind) -> Result<String, KeyError> {
        let random = SystemRandom::new();
        let der = match kind {
            Kind::Ed25519 => {
                let mut seed = [0; 32];
                random.fill(&mut seed).map_err(|_| KeyError::Random)?;
                [&ED25519_PKCS8[..], &seed].concat()
            }
            Kind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                .map_err(|_| KeyError::Random)?
                .as_ref()
                .to_vec(),
        };
        Ok(pem::write("PRIVATE KEY", &der))
    }

    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        const ENCRYPTED: &[u8] = b"ENCRYPTED";
        if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            return Err(KeyError::Encrypted);
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| KeyError::NoKey(EXPECTED))?;
        let der = der.secret_pkcs8_der();
        // Version 1 has no public key to check against; signing itself is the same.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let key = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Unsupported)?;
            return Ok(Self { pair: Pair::Ed25519(pair), public: PublicKey::Ed25519(key) });
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new())
            .map_err(|_| KeyError::Unsupported)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Unsupported)?;
        Ok(Self { pair: Pair::P256(pair), public: PublicKey::P256(key) })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Random),
        }
    }
}
