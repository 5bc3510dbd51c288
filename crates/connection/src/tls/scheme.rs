//! What a token is asked for each of TLS's signature schemes, and how its answer becomes what TLS wants. The message is hashed
//! here: not every token can.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::KeyType;
use ring::{digest, signature};
use rustls::pki_types::alg_id;
use rustls::{SignatureAlgorithm, SignatureScheme};

/// Of what a certificate may have a key of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    P256,
    P384,
    Rsa,
}

pub(super) struct Scheme {
    pub(super) name: SignatureScheme,
    padding: Padding,
    hash: &'static digest::Algorithm,
    verify: &'static (dyn signature::VerificationAlgorithm + Sync),
}

#[derive(Clone, Copy)]
enum Padding {
    Ecdsa,
    Pss,
    /// With the head of a `DigestInfo`, which names the hash.
    Pkcs1(&'static [u8]),
}

const SHA256: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
const SHA384: &[u8] = b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30";
const SHA512: &[u8] = b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";

const fn scheme(
    name: SignatureScheme,
    padding: Padding,
    hash: &'static digest::Algorithm,
    verify: &'static (dyn signature::VerificationAlgorithm + Sync),
) -> Scheme {
    Scheme { name, padding, hash, verify }
}

static P256_SCHEMES: [Scheme; 1] = [scheme(
    SignatureScheme::ECDSA_NISTP256_SHA256,
    Padding::Ecdsa,
    &digest::SHA256,
    &signature::ECDSA_P256_SHA256_ASN1,
)];
static P384_SCHEMES: [Scheme; 1] = [scheme(
    SignatureScheme::ECDSA_NISTP384_SHA384,
    Padding::Ecdsa,
    &digest::SHA384,
    &signature::ECDSA_P384_SHA384_ASN1,
)];
/// TLS 1.3 knows only the first three.
static RSA_SCHEMES: [Scheme; 6] = [
    scheme(
        SignatureScheme::RSA_PSS_SHA256,
        Padding::Pss,
        &digest::SHA256,
        &signature::RSA_PSS_2048_8192_SHA256,
    ),
    scheme(
        SignatureScheme::RSA_PSS_SHA384,
        Padding::Pss,
        &digest::SHA384,
        &signature::RSA_PSS_2048_8192_SHA384,
    ),
    scheme(
        SignatureScheme::RSA_PSS_SHA512,
        Padding::Pss,
        &digest::SHA512,
        &signature::RSA_PSS_2048_8192_SHA512,
    ),
    scheme(
        SignatureScheme::RSA_PKCS1_SHA256,
        Padding::Pkcs1(SHA256),
        &digest::SHA256,
        &signature::RSA_PKCS1_2048_8192_SHA256,
    ),
    scheme(
        SignatureScheme::RSA_PKCS1_SHA384,
        Padding::Pkcs1(SHA384),
        &digest::SHA384,
        &signature::RSA_PKCS1_2048_8192_SHA384,
    ),
    scheme(
        SignatureScheme::RSA_PKCS1_SHA512,
        Padding::Pkcs1(SHA512),
        &digest::SHA512,
        &signature::RSA_PKCS1_2048_8192_SHA512,
    ),
];

impl Kind {
    /// By the algorithm identifier of a certificate's key.
    pub(super) fn of(algorithm: &[u8]) -> Option<Self> {
        let known = [
            (alg_id::ECDSA_P256, Self::P256),
            (alg_id::ECDSA_P384, Self::P384),
            (alg_id::RSA_ENCRYPTION, Self::Rsa),
        ];
        known.into_iter().find(|(id, _)| id.as_ref() == algorithm).map(|(_, kind)| kind)
    }

    /// The one that is liked best first.
    pub(super) fn schemes(self) -> &'static [Scheme] {
        match self {
            Self::P256 => &P256_SCHEMES,
            Self::P384 => &P384_SCHEMES,
            Self::Rsa => &RSA_SCHEMES,
        }
    }

    pub(super) fn key_type(self) -> KeyType {
        match self {
            Self::P256 | Self::P384 => KeyType::EC,
            Self::Rsa => KeyType::RSA,
        }
    }

    pub(super) fn algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::P256 | Self::P384 => SignatureAlgorithm::ECDSA,
            Self::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

impl Scheme {
    pub(super) fn mechanism(&self) -> Mechanism<'static> {
        match self.padding {
            Padding::Ecdsa => Mechanism::Ecdsa,
            Padding::Pkcs1(_) => Mechanism::RsaPkcs,
            Padding::Pss => {
                let (hash_alg, mgf) = match self.hash.output_len() {
                    32 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
                    48 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
                    _ => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
                };
                // TLS wants a salt as long as the digest.
                let s_len = (self.hash.output_len() as std::ffi::c_ulong).into();
                Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len })
            }
        }
    }

    /// What the token signs of a message.
    pub(super) fn prepared(&self, message: &[u8]) -> Vec<u8> {
        let digest = digest::digest(self.hash, message);
        match self.padding {
            Padding::Pkcs1(head) => [head, digest.as_ref()].concat(),
            _ => digest.as_ref().to_owned(),
        }
    }

    /// What TLS calls that signature.
    pub(super) fn encoded(&self, signature: Vec<u8>) -> Vec<u8> {
        match self.padding {
            Padding::Ecdsa => {
                let (r, s) = signature.split_at(signature.len() / 2);
                element(0x30, &[integer(r), integer(s)].concat())
            }
            _ => signature,
        }
    }

    pub(super) fn verifies(&self, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(self.verify, public).verify(message, signature).is_ok()
    }
}

/// An INTEGER of DER: as short as can be, and not negative.
fn integer(big_endian: &[u8]) -> Vec<u8> {
    let start = big_endian.iter().position(|byte| *byte != 0).unwrap_or(big_endian.len());
    let digits = big_endian.get(start..).unwrap_or_default();
    let sign = digits.first().is_none_or(|first| *first >= 0x80);
    element(0x02, &[if sign { &[0][..] } else { &[] }, digits].concat())
}

/// Of less than 128 bytes: two numbers of 384 bits are.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, content.len() as u8], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_become_der() {
        let cases: [(&[u8], &[u8]); 4] = [
            (&[0x01, 0x02], &[0x30, 6, 2, 1, 1, 2, 1, 2]),
            (&[0x80, 0x7f], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]),
            (&[0, 0, 0, 5], &[0x30, 6, 2, 1, 0, 2, 1, 5]),
            (&[0, 0x80, 1, 0], &[0x30, 8, 2, 2, 0, 0x80, 2, 2, 1, 0]),
        ];
        for (raw, expected) in cases {
            assert_eq!(P256_SCHEMES[0].encoded(raw.to_owned()), expected, "{raw:?}");
        }
        assert_eq!(P384_SCHEMES[0].encoded(vec![0xff; 96]).len(), 2 + 2 * (2 + 49));
    }

    #[test]
    fn only_keys_of_the_three_kinds_are_known() {
        assert_eq!(Kind::of(alg_id::ECDSA_P256.as_ref()), Some(Kind::P256));
        assert_eq!(Kind::of(alg_id::RSA_ENCRYPTION.as_ref()), Some(Kind::Rsa));
        assert_eq!(Kind::of(alg_id::ED25519.as_ref()), None);
        assert_eq!(Kind::of(b""), None);
    }
}
