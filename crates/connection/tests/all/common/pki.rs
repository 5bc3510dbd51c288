use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use connection::tls::IdentityFiles;
use tempfile::TempDir;

use super::run;

/// A folder with a CA (`ca.pem`), a server for `localhost` (`server.*`) and whatever devices a test asks for.
pub struct Pki {
    folder: TempDir,
}

pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

impl Pki {
    pub fn new() -> Self {
        let pki = Self { folder: tempfile::tempdir().unwrap() };
        pki.key("ca", P256);
        pki.openssl(&[
            "req",
            "-x509",
            "-key",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=a CA for tests",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
        pki.key("server", P256);
        fs::write(pki.path("server.ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n")
            .unwrap();
        pki.sign("server", Some("server.ext"));
        pki
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A device with a PKCS#8 key; its name is the certificate's common name.
    pub fn device(&self, name: &str, algorithm: &[&str]) -> IdentityFiles {
        self.key(name, algorithm);
        fs::write(self.path("device.ext"), "basicConstraints=CA:FALSE\n").unwrap();
        self.sign(name, Some("device.ext"));
        self.identity(name)
    }

    pub fn identity(&self, name: &str) -> IdentityFiles {
        IdentityFiles {
            certificate: self.path(&format!("{name}.pem")),
            private_key: self.path(&format!("{name}.key")),
            root_ca: self.path("ca.pem"),
        }
    }

    pub fn key(&self, name: &str, algorithm: &[&str]) {
        let file = format!("{name}.key");
        self.openssl(&[&["genpkey", "-out", &file], algorithm].concat());
        self.private(&file);
    }

    /// Without extensions openssl 3.0 makes a version 1 certificate.
    pub fn sign(&self, name: &str, extensions: Option<&str>) {
        let (key, request, out) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", &subject]);
        let mut arguments = vec![
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            &out,
        ];
        arguments.extend(extensions.iter().flat_map(|file| ["-extfile", *file]));
        self.openssl(&arguments);
    }

    pub fn openssl(&self, arguments: &[&str]) {
        run("openssl", arguments, self.folder());
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        self.private(name);
        path
    }

    fn private(&self, name: &str) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}
