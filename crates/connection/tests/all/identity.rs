//! What is wrong with which file: every message names the file, what was found and what was expected.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::common::pki::{P256, Pki, RSA};
use connection::tls::{self, IdentityFiles};

type Spoil = fn(&Pki, &mut IdentityFiles) -> PathBuf;

/// Each spoils a good identity, and says which file is to blame.
const CASES: &[(&str, Spoil, &[&str])] = &[
    (
        "missing certificate",
        |pki, id| {
            id.certificate = pki.path("nowhere.pem");
            id.certificate.clone()
        },
        &["No such file"],
    ),
    (
        "missing key",
        |pki, id| {
            id.private_key = pki.path("nowhere.key");
            id.private_key.clone()
        },
        &["No such file"],
    ),
    (
        "missing root",
        |pki, id| {
            id.root_ca = pki.path("nowhere.pem");
            id.root_ca.clone()
        },
        &["No such file"],
    ),
    (
        "not PEM",
        |pki, id| {
            id.certificate = pki.write("text", "hello");
            id.certificate.clone()
        },
        &["expected PEM with a certificate", "no -----BEGIN line"],
    ),
    (
        "empty",
        |pki, id| {
            id.root_ca = pki.write("empty", "");
            id.root_ca.clone()
        },
        &["expected PEM with a certificate", "an empty file"],
    ),
    (
        "DER",
        |pki, id| {
            pki.openssl(&["x509", "-in", "device.pem", "-outform", "DER", "-out", "device.der"]);
            id.certificate = pki.path("device.der");
            id.certificate.clone()
        },
        &["expected PEM", "found DER", "-inform DER"],
    ),
    (
        "a key where the certificate should be",
        |_, id| {
            id.certificate = id.private_key.clone();
            id.certificate.clone()
        },
        &["expected PEM with a certificate", "found PRIVATE KEY"],
    ),
    (
        "a certificate where the key should be",
        |pki, id| {
            id.private_key = pki.write("cert.key", std::fs::read(&id.certificate).unwrap());
            id.private_key.clone()
        },
        &["expected PEM with a private key", "found CERTIFICATE"],
    ),
    (
        "a public key",
        |pki, id| {
            pki.openssl(&["pkey", "-in", "device.key", "-pubout", "-out", "public.pem"]);
            id.private_key = pki.write("public.key", std::fs::read(pki.path("public.pem")).unwrap());
            id.private_key.clone()
        },
        &["expected PEM with a private key", "found PUBLIC KEY"],
    ),
    (
        "encrypted, PKCS#8",
        |pki, id| {
            pki.openssl(&[
                "pkcs8",
                "-topk8",
                "-in",
                "device.key",
                "-passout",
                "pass:secret",
                "-out",
                "locked.key",
            ]);
            id.private_key = pki.path("locked.key");
            id.private_key.clone()
        },
        &["encrypted", "without a passphrase"],
    ),
    (
        "encrypted, traditional",
        |pki, id| {
            pki.openssl(&[
                "ec",
                "-aes128",
                "-in",
                "device.key",
                "-passout",
                "pass:secret",
                "-out",
                "locked.key",
            ]);
            id.private_key = pki.path("locked.key");
            id.private_key.clone()
        },
        &["encrypted", "without a passphrase"],
    ),
    (
        "another key",
        |pki, id| {
            pki.key("other", P256);
            id.private_key = pki.path("other.key");
            id.private_key.clone()
        },
        &["does not belong to the certificate in", "device.pem"],
    ),
    (
        "another key of another kind",
        |pki, id| {
            pki.key("other", RSA);
            id.private_key = pki.path("other.key");
            id.private_key.clone()
        },
        &["does not belong to the certificate in", "device.pem"],
    ),
    (
        "a curve that is not supported",
        |pki, id| {
            pki.key("odd", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp521r1"]);
            id.private_key = pki.path("odd.key");
            id.private_key.clone()
        },
        &["EC P-256, EC P-384 or RSA"],
    ),
    (
        "a key that others can read",
        |_, id| {
            std::fs::set_permissions(&id.private_key, std::fs::Permissions::from_mode(0o644)).unwrap();
            id.private_key.clone()
        },
        &["0644", "0600", "chmod 600"],
    ),
    (
        "a key that a group can change",
        |_, id| {
            std::fs::set_permissions(&id.private_key, std::fs::Permissions::from_mode(0o660)).unwrap();
            id.private_key.clone()
        },
        &["0660", "0640 where it is root's"],
    ),
    (
        "a truncated key",
        |pki, id| {
            let pem = std::fs::read(&id.private_key).unwrap();
            id.private_key = pki.write("cut.key", &pem[..pem.len() / 2]);
            id.private_key.clone()
        },
        &["no -----END line"],
    ),
    (
        "a root that is none",
        |pki, id| {
            id.root_ca =
                pki.write("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
            id.root_ca.clone()
        },
        &["cannot be trusted as a root"],
    ),
];

#[test]
fn every_fault_names_its_file_what_was_found_and_what_was_expected() {
    for (name, spoil, expected) in CASES {
        let pki = Pki::new();
        let mut identity = pki.device("device", P256);
        tls::client_config(&identity).unwrap();
        let blamed = spoil(&pki, &mut identity);
        let error = tls::client_config(&identity).expect_err(name);
        assert_eq!(error.file, blamed, "{name}");
        let said = error.to_string();
        assert!(said.starts_with(&blamed.display().to_string()), "{name}: {said}");
        for part in *expected {
            assert!(said.contains(part), "{name}: `{part}` is not in `{said}`");
        }
        assert_no_key_in(&format!("{said} {error:?}"), &identity);
    }
}

/// How a package gives a key to a service.
#[test]
fn a_key_of_root_may_be_read_by_its_group_and_one_of_a_person_may_not() {
    let pki = Pki::new();
    let identity = pki.device("device", P256);
    std::fs::set_permissions(&identity.private_key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let of_root = std::fs::metadata(&identity.private_key).unwrap().uid() == 0;
    assert_eq!(tls::client_config(&identity).is_ok(), of_root);
    if of_root {
        std::os::unix::fs::chown(&identity.private_key, Some(65_534), None).unwrap();
        let error = tls::client_config(&identity).unwrap_err().to_string();
        assert!(error.contains("0640 lets others"), "{error}");
    }
}

#[test]
fn how_long_a_certificate_is_valid_is_read_as_openssl_wrote_it() {
    let pki = Pki::new();
    let certificate = pki.device("device", RSA).certificate;
    let validity = tls::validity(&certificate).unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    assert!(validity.not_before <= now && validity.not_before > now - day, "{validity:?}");
    assert_eq!(validity.not_after.duration_since(validity.not_before).unwrap(), 2 * day);
    let text = pki.write("text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(tls::validity(&text).unwrap_err().to_string().contains("no X.509 certificate"));
}

fn assert_no_key_in(said: &str, identity: &IdentityFiles) {
    let key = std::fs::read(&identity.private_key).unwrap_or_default();
    for line in String::from_utf8_lossy(&key).lines().filter(|line| !line.starts_with("-----")) {
        assert!(line.len() < 16 || !said.contains(line), "a line of the key is in {said}");
    }
}
