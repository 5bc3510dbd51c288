//! An envelope and what is in it: understood or refused with a sentence, and never verified without a trusted signature. The
//! input is an envelope, and a payload as if it had been signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use release::{Envelope, Keyring, Kind, SigningKey};

static RING: LazyLock<Keyring> = LazyLock::new(|| {
    let keys = [Kind::Ed25519, Kind::P256].map(|kind| {
        let pem = SigningKey::generate(kind).unwrap();
        SigningKey::from_pem(pem.as_bytes()).unwrap().public().clone()
    });
    Keyring::new(keys.to_vec(), 1).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    match Envelope::parse(bytes) {
        Ok(envelope) => {
            assert!(!RING.verify(&envelope).unwrap_err().to_string().is_empty());
            let written = serde_json::to_value(&envelope).unwrap();
            assert_eq!(Envelope::from_value(&written).unwrap(), envelope);
            if let Ok(statement) = envelope.unverified() {
                let again = Envelope::of(&statement).unwrap();
                assert_eq!(again.unverified().unwrap(), statement);
            }
        }
        Err(error) => assert!(!error.to_string().contains('?'), "{error}"),
    }
});
