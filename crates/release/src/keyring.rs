//! The keys that a device trusts, and the one door to a [`Release`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use crate::envelope::Signature;
use crate::{Envelope, KeyError, PublicKey, Refusal, Statement};

/// Each may have to be tried with each signature.
const MAX_KEYS: usize = 16;
const MAX_FILE: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub struct Keyring {
    /// With their ids; no key twice.
    keys: Vec<(String, PublicKey)>,
    threshold: usize,
}

/// What enough keys have signed. Nothing but [`Keyring::verify`] makes one: what is unverified cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release(Statement);

impl Keyring {
    /// Reads the `*.pem` files of a folder, which may have any names. A key that is there twice counts once.
    pub fn load(folder: &Path, threshold: usize) -> Result<Self, KeyError> {
        let unusable = |problem| KeyError::Unusable { path: folder.to_owned(), problem: Box::new(problem) };
        let unreadable = |source| KeyError::Unreadable { path: folder.to_owned(), source };
        if others_may_write(&folder.metadata().map_err(unreadable)?) {
            return Err(unusable(KeyError::OthersMayWrite));
        }
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                keys.extend(read(&path)?);
            }
            if keys.len() > MAX_KEYS {
                return Err(unusable(KeyError::TooMuch { what: "keys", limit: MAX_KEYS }));
            }
        }
        Self::new(keys, threshold).map_err(unusable)
    }

    pub fn new(keys: Vec<PublicKey>, threshold: usize) -> Result<Self, KeyError> {
        let mut keys: Vec<_> = keys.into_iter().map(|key| (key.id(), key)).collect();
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        keys.dedup_by(|(a, _), (b, _)| a == b);
        // A threshold of none would trust everybody.
        if threshold == 0 || keys.len() < threshold {
            return Err(KeyError::TooFew { found: keys.len(), threshold });
        }
        Ok(Self { keys, threshold })
    }

    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The signatures first: nothing of a payload is looked at before somebody trusted has signed it.
    pub fn verify(&self, envelope: &Envelope) -> Result<Release, Refusal> {
        let message = envelope.signed_bytes();
        let signers: BTreeSet<&str> =
            envelope.signatures().iter().filter_map(|signature| self.signer(&message, signature)).collect();
        match signers.len() {
            0 => Err(Refusal::Signature { found: envelope.signatures().len() }),
            found if found < self.threshold => Err(Refusal::Threshold { found, threshold: self.threshold }),
            _ => Statement::parse(envelope.payload_type(), envelope.payload()).map(Release),
        }
    }

    /// Whose signature it is. A key id that is one of ours narrows the choice, any other says nothing.
    fn signer(&self, message: &[u8], signature: &Signature) -> Option<&str> {
        let named = self.keys.iter().any(|(id, _)| *id == signature.keyid);
        let candidates = self.keys.iter().filter(|(id, _)| !named || *id == signature.keyid);
        candidates
            .into_iter()
            .find(|(_, key)| key.verifies(message, &signature.sig))
            .map(|(id, _)| id.as_str())
    }
}

impl Release {
    pub fn statement(&self) -> &Statement {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn assume_verified(statement: Statement) -> Self {
        Self(statement)
    }
}

fn read(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
    let unusable = |problem| KeyError::Unusable { path: path.to_owned(), problem: Box::new(problem) };
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(unreadable(io::Error::other("it is not a file")));
    }
    if others_may_write(&found) {
        return Err(unusable(KeyError::OthersMayWrite));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(unusable(KeyError::TooMuch { what: "bytes", limit: MAX_FILE as usize }));
    }
    public_keys(&text).map_err(unusable)
}

fn public_keys(pem: &[u8]) -> Result<Vec<PublicKey>, KeyError> {
    const EXPECTED: &str = "a public key (-----BEGIN PUBLIC KEY-----)";
    const PRIVATE: &[u8] = b"PRIVATE KEY-----";
    if pem.windows(PRIVATE.len()).any(|part| part == PRIVATE) {
        return Err(KeyError::Private);
    }
    let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem)
        .map(|key| key.map_err(|_| KeyError::NoKey(EXPECTED)).and_then(|key| PublicKey::from_spki(&key)))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(KeyError::NoKey(EXPECTED)) } else { Ok(keys) }
}

/// Whoever may add a key is whoever may sign.
fn others_may_write(found: &std::fs::Metadata) -> bool {
    found.mode() & 0o002 != 0
}
