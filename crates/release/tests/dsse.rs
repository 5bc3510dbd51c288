//! Envelopes and keys against what others made of the same specification: DSSE's own example, and OpenSSL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use release::{Envelope, Keyring, Kind, PublicKey, Refusal, SigningKey, Statement};
use serde_json::{Value, json};

fn statement() -> Statement {
    Statement::new([7; 32], 100, "2.0", 5, &["board-1".to_owned()])
}

struct Maker {
    folder: tempfile::TempDir,
}

impl Maker {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn openssl(&self, arguments: &str) -> Vec<u8> {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn key(&self, name: &str) -> SigningKey {
        SigningKey::from_pem(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn keys(of: &[&SigningKey]) -> Vec<PublicKey> {
    of.iter().map(|key| key.public().clone()).collect()
}

fn generate(kind: Kind) -> SigningKey {
    SigningKey::from_pem(SigningKey::generate(kind).unwrap().as_bytes()).unwrap()
}

fn signed_by(of: &[&SigningKey]) -> Envelope {
    let mut envelope = Envelope::of(&statement()).unwrap();
    for key in of {
        envelope.sign(key).unwrap();
    }
    envelope
}

#[track_caller]
fn refused(ring: &Keyring, envelope: &Envelope, reason: &str) {
    assert_eq!(ring.verify(envelope).unwrap_err().reason(), reason);
}

/// The example in DSSE's protocol.md: ECDSA, and a signature of two plain numbers. Its payload is none of ours, which is
/// found after the signature.
#[test]
fn the_example_of_the_specification_verifies() {
    let spki = example_key();
    let envelope = |payload: &str| {
        Envelope::from_value(&json!({
            "payload": payload,
            "payloadType": "http://example.com/HelloWorld",
            "signatures": [{"sig":
                "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}],
        }))
        .unwrap()
    };
    let ring = Keyring::new(vec![PublicKey::from_spki(&spki).unwrap()], 1).unwrap();
    let refusal = ring.verify(&envelope("aGVsbG8gd29ybGQ=")).unwrap_err();
    assert!(matches!(&refusal, Refusal::Invalid(why) if why.contains("HelloWorld")), "{refusal}");
    refused(&ring, &envelope("aGVsbG8gd29ybGQh"), "signature-invalid");
}

/// X and Y of the example, as an SPKI.
fn example_key() -> Vec<u8> {
    let head = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
    let (x, y) = (
        "67cd390f77aa359cb08c2235f652270493a9ed832b0abcc01f70954c0390d238",
        "0c782bd54e269125a44f4433aff1432ce94e12bca73aa67ac80cea12608ddf74",
    );
    hex(&format!("{head}{x}{y}"))
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn keys_of_openssl_sign_and_what_we_sign_verifies_with_openssl() {
    let maker = Maker::new();
    maker.openssl("genpkey -algorithm ed25519 -out ed25519.key");
    maker.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.key");
    fs::write(maker.path("ours-ed25519.key"), SigningKey::generate(Kind::Ed25519).unwrap()).unwrap();
    fs::write(maker.path("ours-p256.key"), SigningKey::generate(Kind::P256).unwrap()).unwrap();
    for (name, verify) in [
        ("ed25519.key", "pkeyutl -verify -rawin -in message -sigfile sig -inkey pub -pubin"),
        ("ours-ed25519.key", "pkeyutl -verify -rawin -in message -sigfile sig -inkey pub -pubin"),
        ("p256.key", "dgst -sha256 -verify pub -signature sig message"),
        ("ours-p256.key", "dgst -sha256 -verify pub -signature sig message"),
    ] {
        maker.openssl(&format!("pkey -in {name} -pubout -out pub"));
        let key = maker.key(name);
        // The same key, and its id as `openssl pkey -pubin -outform DER | sha256sum` gives it.
        assert_eq!(key.public().to_pem(), fs::read_to_string(maker.path("pub")).unwrap(), "{name}");
        maker.openssl("pkey -pubin -in pub -outform DER -out der");
        let digest = maker.openssl("dgst -sha256 -r der");
        assert!(digest.starts_with(key.public().id().as_bytes()), "{name}");

        let envelope = signed_by(&[&key]);
        let written = serde_json::to_value(&envelope).unwrap();
        fs::write(maker.path("message"), pae(&maker, &written)).unwrap();
        base64_decode(&maker, written["signatures"][0]["sig"].as_str().unwrap(), "sig");
        maker.openssl(verify);
        Keyring::new(keys(&[&key]), 1).unwrap().verify(&envelope).unwrap();
    }
}

/// A key that never leaves a token or a signing service signs with tools of its own.
#[test]
fn what_openssl_signs_verifies_here() {
    let maker = Maker::new();
    fs::write(maker.path("ed25519.key"), SigningKey::generate(Kind::Ed25519).unwrap()).unwrap();
    fs::write(maker.path("p256.key"), SigningKey::generate(Kind::P256).unwrap()).unwrap();
    let mut envelope = serde_json::to_value(Envelope::of(&statement()).unwrap()).unwrap();
    fs::write(maker.path("message"), pae(&maker, &envelope)).unwrap();
    maker.openssl("pkeyutl -sign -rawin -in message -inkey ed25519.key -out sig-1");
    maker.openssl("dgst -sha256 -sign p256.key -out sig-2 message");
    let encoded = |name: &str| {
        let text = String::from_utf8(maker.openssl(&format!("base64 -A -in {name}"))).unwrap();
        json!({"sig": text.trim()})
    };
    envelope["signatures"] = json!([encoded("sig-1"), encoded("sig-2")]);
    let envelope = Envelope::from_value(&envelope).unwrap();
    let ring = Keyring::new(keys(&[&maker.key("ed25519.key"), &maker.key("p256.key")]), 2).unwrap();
    assert_eq!(*ring.verify(&envelope).unwrap().statement(), statement());
}

/// Written here from the specification, not taken from the code under test.
fn pae(maker: &Maker, envelope: &Value) -> Vec<u8> {
    let payload = base64_decode(maker, envelope["payload"].as_str().unwrap(), "payload");
    let kind = "application/vnd.fleethand.release+json";
    [format!("DSSEv1 38 {kind} {} ", payload.len()).as_bytes(), &payload].concat()
}

fn base64_decode(maker: &Maker, text: &str, name: &str) -> Vec<u8> {
    fs::write(maker.path("base64"), text).unwrap();
    maker.openssl(&format!("base64 -d -A -in base64 -out {name}"));
    fs::read(maker.path(name)).unwrap()
}

#[test]
fn only_keys_of_the_ring_count_and_each_counts_once() {
    let [a, b, stranger] = [Kind::Ed25519, Kind::P256, Kind::Ed25519].map(generate);
    let one = Keyring::new(keys(&[&a, &b]), 1).unwrap();
    let two = Keyring::new(keys(&[&a, &b]), 2).unwrap();
    assert_eq!(*one.verify(&signed_by(&[&b])).unwrap().statement(), statement());
    one.verify(&signed_by(&[&stranger, &a])).unwrap();
    two.verify(&signed_by(&[&b, &stranger, &a])).unwrap();
    refused(&one, &signed_by(&[]), "signature-invalid");
    refused(&one, &signed_by(&[&stranger]), "signature-invalid");
    refused(&two, &signed_by(&[&stranger]), "signature-invalid");
    refused(&two, &signed_by(&[&a]), "signature-threshold");
    refused(&two, &signed_by(&[&a, &stranger]), "signature-threshold");

    // Two signatures of one key are one: as they are, under no name, and under the other key's name. Those of P-256 differ
    // each time.
    let sigs: Vec<Value> = (0..3)
        .map(|_| serde_json::to_value(signed_by(&[&b])).unwrap()["signatures"][0]["sig"].clone())
        .collect();
    assert_ne!(sigs[0], sigs[1]);
    let mut envelope = serde_json::to_value(signed_by(&[&b])).unwrap();
    for keyid in [b.public().id(), a.public().id(), String::new(), "another".to_owned()] {
        envelope["signatures"] = sigs.iter().map(|sig| json!({"sig": sig, "keyid": keyid})).collect();
        assert!(two.verify(&Envelope::from_value(&envelope).unwrap()).is_err(), "{keyid}");
    }
}

/// A key id is a hint, as DSSE says: none, or one that nobody knows, changes nothing.
#[test]
fn a_key_id_is_a_hint_only() {
    let [a, b] = [Kind::Ed25519, Kind::P256].map(generate);
    let ring = Keyring::new(keys(&[&a, &b]), 2).unwrap();
    let mut envelope = serde_json::to_value(signed_by(&[&a, &b])).unwrap();
    for keyid in [json!(""), json!("key of the maker")] {
        for signature in envelope["signatures"].as_array_mut().unwrap() {
            signature["keyid"] = keyid.clone();
        }
        ring.verify(&Envelope::from_value(&envelope).unwrap()).unwrap();
    }
}

#[test]
fn no_bit_of_payload_type_or_signature_may_change() {
    for key in [Kind::Ed25519, Kind::P256].map(generate) {
        let ring = Keyring::new(keys(&[&key]), 1).unwrap();
        let maker = Maker::new();
        let good = serde_json::to_value(signed_by(&[&key])).unwrap();
        ring.verify(&Envelope::from_value(&good).unwrap()).unwrap();
        let mut other_type = good.clone();
        other_type["payloadType"] = json!("application/vnd.fleethand.release+jsoN");
        refused(&ring, &Envelope::from_value(&other_type).unwrap(), "signature-invalid");
        for pointer in ["/payload", "/signatures/0/sig"] {
            let bytes = base64_decode(&maker, good.pointer(pointer).unwrap().as_str().unwrap(), "bytes");
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                let mut envelope = good.clone();
                *envelope.pointer_mut(pointer).unwrap() = json!(base64_encode(&changed));
                refused(&ring, &Envelope::from_value(&envelope).unwrap(), "signature-invalid");
            }
        }
    }
}

fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What a trusted key signed is still not run if it is not understood.
#[test]
fn a_trusted_signature_over_something_else_is_release_invalid() {
    let maker = Maker::new();
    fs::write(maker.path("key"), SigningKey::generate(Kind::Ed25519).unwrap()).unwrap();
    let ring = Keyring::new(keys(&[&maker.key("key")]), 1).unwrap();
    let kind = "application/vnd.fleethand.release+json";
    for payload in ["", "[]", "{}", r#"{"format":2}"#, "\u{0}", &"[".repeat(10_000)] {
        fs::write(maker.path("message"), format!("DSSEv1 38 {kind} {} {payload}", payload.len())).unwrap();
        maker.openssl("pkeyutl -sign -rawin -in message -inkey key -out sig");
        let envelope = json!({
            "payload": base64_encode(payload.as_bytes()), "payloadType": kind,
            "signatures": [{"sig": base64_encode(&fs::read(maker.path("sig")).unwrap())}],
        });
        refused(&ring, &Envelope::from_value(&envelope).unwrap(), "release-invalid");
    }
}

#[test]
fn a_folder_of_keys_is_read_or_the_error_names_file_and_cause() {
    let maker = Maker::new();
    let folder = maker.path("keys.d");
    fs::create_dir(&folder).unwrap();
    let (a, b) = (generate(Kind::Ed25519), generate(Kind::P256));
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let error = |threshold| Keyring::load(&folder, threshold).unwrap_err().to_string();
    assert!(error(1).contains("has 0 different keys"), "{}", error(1));
    assert!(error(1).contains("keys.d"), "{}", error(1));
    write("maker.pem", &a.public().to_pem());
    write("copy.pem", &a.public().to_pem());
    write("README", "keys of the maker");
    assert!(Keyring::load(&folder, 1).is_ok());
    assert!(error(0).contains("threshold is 0"), "{}", error(0));
    assert!(error(2).contains("has 1 different keys"), "{}", error(2));
    write("copy.pem", &format!("{}{}", a.public().to_pem(), b.public().to_pem()));
    let ring = Keyring::load(&folder, 2).unwrap();
    ring.verify(&signed_by(&[&a, &b])).unwrap();

    let rsa = {
        maker.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
        String::from_utf8(maker.openssl("pkey -in rsa.key -pubout")).unwrap()
    };
    let compressed = {
        maker.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.key");
        String::from_utf8(maker.openssl("ec -in p256.key -pubout -conv_form compressed")).unwrap()
    };
    let cases = [
        (String::new(), "expected PEM with a public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(), "found another kind"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n".to_owned(), "expected PEM with a public key"),
        (rsa, "found another kind"),
        (compressed, "found another kind"),
        (SigningKey::generate(Kind::Ed25519).unwrap(), "has a private key"),
        ("x".repeat(70_000), "has more than 65536 bytes"),
    ];
    for (text, expected) in cases {
        write("copy.pem", &text);
        let said = error(1);
        assert!(said.contains(expected) && said.contains("copy.pem"), "{said}, expected {expected}");
    }
    write("copy.pem", &b.public().to_pem());
    for path in [folder.join("copy.pem"), folder.clone()] {
        mode(&path, 0o757);
        assert!(error(1).contains("others may change it"), "{}", error(1));
        mode(&path, 0o755);
    }
    for _ in 0..17 {
        let key = generate(Kind::Ed25519);
        write(&format!("{}.pem", key.public().id()), &key.public().to_pem());
    }
    assert!(error(1).contains("has more than 16 keys"), "{}", error(1));
    let missing = Keyring::load(&maker.path("nothing"), 1).unwrap_err().to_string();
    assert!(missing.contains("nothing: cannot be read"), "{missing}");
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_private_key_that_cannot_be_used_is_named() {
    let maker = Maker::new();
    maker.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384");
    maker.openssl("ecparam -name prime256v1 -genkey -noout -out sec1");
    maker.openssl("genpkey -algorithm ed25519 -aes256 -pass pass:x -out encrypted");
    fs::write(maker.path("public"), generate(Kind::P256).public().to_pem()).unwrap();
    for (name, expected) in [
        ("p384", "found another kind"),
        ("sec1", "a private key in PKCS#8"),
        ("encrypted", "is encrypted"),
        ("public", "a private key in PKCS#8"),
    ] {
        let error = SigningKey::from_pem(&fs::read(maker.path(name)).unwrap()).err().unwrap().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
