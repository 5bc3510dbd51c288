//! A private key that never leaves its token: every handshake is signed there, over PKCS#11.
//!
//! What kind of key it is, the certificate says. So a token that is not there yet is no reason not to start: the next connect
//! asks again.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};

use super::scheme::{Kind, Scheme};
use super::{Problem, Uri, may_others_read};
use crate::validity::public_key;

/// A longer one is no PIN.
const MAX_PIN: u64 = 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the library {module} cannot be used: {source}")]
    Module { module: String, source: Pkcs11Error },
    #[error("{found} tokens fit {uri}, expected one")]
    Tokens { found: usize, uri: Uri },
    #[error("the file with the PIN cannot be read: {0}")]
    Pin(#[from] std::io::Error),
    #[error("others may read the file with the PIN (mode {0:04o}): chmod 600")]
    PinIsPublic(u32),
    #[error(
        "the token has refused this PIN: it is not tried again, because tokens lock themselves, until {0} has another one"
    )]
    PinRefused(String),
    #[error("{found} private keys of the certificate's kind fit {uri}, expected one")]
    Keys { found: usize, uri: Uri },
    #[error("{0}")]
    Token(#[from] Pkcs11Error),
    #[error("its signature is not one of the certificate's key: another key, or another certificate")]
    Foreign,
}

pub(super) fn certified_key(
    uri: Uri,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, Problem> {
    Ok(CertifiedKey::new(certificates.clone(), Arc::new(TokenKey::new(uri, &certificates)?)))
}

/// Signs something, as every handshake does.
pub(super) fn try_key(uri: Uri, certificates: &[CertificateDer<'_>]) -> Result<(), Problem> {
    let key = TokenKey::new(uri, certificates)?;
    let scheme = key.0.kind.schemes().first().ok_or(Problem::UnsupportedKey)?;
    key.0.sign(scheme, b"a handshake").map(drop).map_err(|error| Problem::Token(error.to_string()))
}

struct TokenKey(Arc<Key>);

struct Key {
    uri: Uri,
    kind: Kind,
    /// As the certificate has it.
    public: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// The digest of a PIN that was wrong.
    refused: Option<Vec<u8>>,
}

/// Logged in. The session goes before the library.
struct Open {
    session: Session,
    key: ObjectHandle,
    library: Pkcs11,
}

impl TokenKey {
    fn new(uri: Uri, certificates: &[CertificateDer<'_>]) -> Result<Self, Problem> {
        let (algorithm, public) =
            certificates.first().and_then(|leaf| public_key(leaf)).ok_or_else(|| {
                Problem::Malformed("the certificate beside it has no public key that can be read".to_owned())
            })?;
        let kind = Kind::of(algorithm).ok_or(Problem::UnsupportedKey)?;
        let public = public.to_owned();
        Ok(Self(Arc::new(Key { uri, kind, public, state: Mutex::default() })))
    }
}

impl Key {
    fn sign(&self, scheme: &Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let mut state = self.lock();
        // Of a token that was taken out, or has forgotten the login, this fails, and everything begins anew.
        let again = state.open.take().and_then(|open| match open.sign(scheme, message) {
            Ok(signature) => Some((open, signature)),
            Err(_) => {
                open.close();
                None
            }
        });
        let (open, signature) = match again {
            Some(signed) => signed,
            None => {
                let open = self.open(&mut state)?;
                match open.sign(scheme, message) {
                    Ok(signature) => (open, signature),
                    Err(error) => {
                        open.close();
                        return Err(error.into());
                    }
                }
            }
        };
        state.open = Some(open);
        if scheme.verifies(&self.public, message, &signature) {
            Ok(signature)
        } else {
            Err(TokenError::Foreign)
        }
    }

    fn open(&self, state: &mut State) -> Result<Open, TokenError> {
        let module = |source| TokenError::Module { module: self.uri.module.display().to_string(), source };
        let library = Pkcs11::new(&self.uri.module).map_err(module)?;
        match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // By another configuration of this process.
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(module(error)),
        }
        match self.log_in(&library, state) {
            Ok((session, key)) => Ok(Open { session, key, library }),
            Err(error) => {
                // A library that is loaded anew finds tokens that were not there.
                let _ = library.finalize();
                Err(error)
            }
        }
    }

    fn log_in(&self, library: &Pkcs11, state: &mut State) -> Result<(Session, ObjectHandle), TokenError> {
        let session = library.open_ro_session(self.slot(library)?)?;
        if let Some(file) = &self.uri.pin {
            let pin = read_pin(file)?;
            let digest = digest::digest(&digest::SHA256, pin.as_bytes()).as_ref().to_owned();
            let refused = || TokenError::PinRefused(file.display().to_string());
            if state.refused.as_ref() == Some(&digest) {
                return Err(refused());
            }
            match session.login(UserType::User, Some(&AuthPin::from(pin))) {
                Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => state.refused = None,
                Err(Pkcs11Error::Pkcs11(RvError::PinIncorrect, _)) => {
                    state.refused = Some(digest);
                    return Err(refused());
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Of another kind it could not be the certificate's; and there are tokens that end the process when they are asked for a
        // signature of RSA by another key.
        let key_type = Attribute::KeyType(self.kind.key_type());
        let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), key_type];
        wanted.extend(self.uri.get("object").map(|label| Attribute::Label(label.to_owned())));
        wanted.extend(self.uri.get("id").map(|id| Attribute::Id(id.to_owned())));
        match session.find_objects(&wanted)?.as_slice() {
            [key] => Ok((session, *key)),
            keys => Err(TokenError::Keys { found: keys.len(), uri: self.uri.clone() }),
        }
    }

    fn slot(&self, library: &Pkcs11) -> Result<Slot, TokenError> {
        let mut fitting = Vec::new();
        for slot in library.get_slots_with_token()? {
            let Ok(info) = library.get_token_info(slot) else { continue };
            let slot_id = slot.id().to_string();
            let fits = [
                ("token", info.label()),
                ("manufacturer", info.manufacturer_id()),
                ("model", info.model()),
                ("serial", info.serial_number()),
                ("slot-id", slot_id.as_str()),
            ]
            .into_iter()
            .all(|(name, found)| self.uri.get(name).is_none_or(|wanted| wanted == found.as_bytes()));
            if fits {
                fitting.push(slot);
            }
        }
        match fitting.as_slice() {
            [slot] => Ok(*slot),
            slots => Err(TokenError::Tokens { found: slots.len(), uri: self.uri.clone() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn sign(&self, scheme: &Scheme, message: &[u8]) -> Result<Vec<u8>, Pkcs11Error> {
        let signature = self.session.sign(&scheme.mechanism(), self.key, &scheme.prepared(message))?;
        Ok(scheme.encoded(signature))
    }

    fn close(self) {
        let Self { session, library, .. } = self;
        drop(session);
        let _ = library.finalize();
    }
}

fn read_pin(file: &std::path::Path) -> Result<String, TokenError> {
    let opened = File::open(file)?;
    if let Some(mode) = may_others_read(&opened.metadata()?) {
        return Err(TokenError::PinIsPublic(mode));
    }
    let mut pin = String::new();
    opened.take(MAX_PIN).read_to_string(&mut pin)?;
    Ok(pin.trim_end_matches(['\r', '\n']).to_owned())
}

impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.0.kind.schemes().iter().find(|scheme| offered.contains(&scheme.name))?;
        Some(Box::new(TokenSigner { key: Arc::clone(&self.0), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.kind.algorithm()
    }
}

struct TokenSigner {
    key: Arc<Key>,
    scheme: &'static Scheme,
}

impl Signer for TokenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = self.key.sign(self.scheme, message);
        signed.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme.name
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.uri)
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {}", self.scheme.name, self.key.uri)
    }
}
