//! A device whose private key is in a token and nowhere else: in SoftHSM, and in a TPM 2.0 that swtpm plays.
#![cfg(feature = "pkcs11")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256, until};

const PIN: &str = "98765432";

fn library() -> PathBuf {
    let known = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"];
    let found = known.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("softhsm2; scripts/install-deps installs it"))
}

/// With a token `t` of its own.
fn device(cloud: &Cloud) -> Device {
    let mut device = Device::create(cloud);
    fs::create_dir(device.path("tokens")).unwrap();
    let tokens = format!("directories.tokendir = {}\nlog.level = ERROR\n", device.path("tokens").display());
    device.write("softhsm2.conf", tokens);
    let config = device.path("softhsm2.conf").display().to_string();
    device.environment.push(("SOFTHSM2_CONF".to_owned(), config));
    softhsm(&device, &["--init-token", "--free", "--label", "t", "--so-pin", "12345678", "--pin", PIN]);
    pin(&device, PIN);
    device
}

fn pin(device: &Device, pin: &str) {
    device.write("pin", format!("{pin}\n"));
    fs::set_permissions(device.path("pin"), PermissionsExt::from_mode(0o600)).unwrap();
}

fn softhsm(device: &Device, arguments: &[&str]) {
    run(Command::new("softhsm2-util").args(arguments).envs(device.environment.iter().cloned()));
}

fn openssl(device: &Device, arguments: &[&str]) {
    run(Command::new("openssl").args(arguments).current_dir(device.path("")));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Into the token, and out of the file.
fn import(device: &Device, key: &Path, label: &str, id: &str) {
    let pkcs8 = device.path("pkcs8.key").display().to_string();
    openssl(device, &["pkcs8", "-topk8", "-nocrypt", "-in", key.to_str().unwrap(), "-out", &pkcs8]);
    softhsm(device, &["--import", &pkcs8, "--token", "t", "--label", label, "--id", id, "--pin", PIN]);
    fs::remove_file(pkcs8).unwrap();
    fs::remove_file(key).unwrap();
}

fn uri(device: &Device, label: &str) -> String {
    let pin = device.path("pin").display().to_string();
    format!(
        "pkcs11:token=t;object={label};type=private?module-path={}&pin-source=file:{pin}",
        library().display()
    )
}

fn set(device: &Device, key: &str, value: &str) {
    let text = fs::read_to_string(device.config()).unwrap();
    let lines = text.lines().map(|line| {
        if line.starts_with(&format!("{key} = ")) {
            format!("{key} = {value}\n")
        } else {
            format!("{line}\n")
        }
    });
    device.write("fleethand.toml", lines.collect::<String>());
}

/// A certificate of the cloud for a key of another kind.
fn certify(cloud: &Cloud, device: &Device, algorithm: &[&str]) {
    openssl(device, &[&["genpkey", "-out", "new.key"], algorithm].concat());
    openssl(device, &["req", "-new", "-key", "new.key", "-subj", "/CN=edge-01", "-out", "new.csr"]);
    let csr = fs::read_to_string(device.path("new.csr")).unwrap();
    let made = cloud.done(
        "CreateCertificateFromCsr",
        json!({"setAsActive": "true"}),
        json!({"certificateSigningRequest": csr}),
    );
    device.write("certificate.pem", made["certificatePem"].as_str().unwrap());
    admit(cloud, &made);
}

/// As the device's own.
fn admit(cloud: &Cloud, made: &Value) {
    let target = json!({"target": made["certificateArn"]});
    cloud.done("AttachPolicy", json!({"policyName": "fleethand-device"}), target);
    let arn = made["certificateArn"].as_str().unwrap();
    let path = format!("/things/{THING}/principals");
    let attached = cloud.api_call("PUT", &path, &[("x-amzn-principal", arn)], None);
    assert_eq!(attached.status, 200, "{}", attached.text());
}

#[test]
fn firmware_is_installed_by_a_device_whose_key_is_in_a_token_alone() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    import(&device, &device.path("private.key"), "k", "01");
    set(&device, "private_key", &format!("{:?}", uri(&device, "k")));
    let checked = run(device.command(&["check-config"]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert!(checked.contains("private_key = \"pkcs11:token=t;object=k"), "{checked}");
    cloud.upload("fw", b"firmware");
    device.start();
    cloud.run("fw", &firmware_document("fw", "1", &sha256(b"firmware"))).is("SUCCEEDED", "installed");
    // Nobody makes it a key of a file.
    let rotate = json!({"operation": "rotate-certificate", "template": "any"});
    cloud.run("rotate", &rotate).is("FAILED", "key-in-token");
    // A session that was logged in is used again.
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    until("the reconnect", || (device.log().matches("INFO connected").count() == 2).then_some(()));
    assert!(!device.log().contains(PIN) && !checked.contains(PIN));
}

#[test]
fn a_token_that_is_not_there_or_refuses_the_pin_ends_no_process() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud);
    device.configure("connection", "reconnect_max_seconds = 1");
    import(&device, &device.path("private.key"), "k", "01");
    set(&device, "private_key", &format!("{:?}", uri(&device, "k")));
    pin(&device, "11111111");
    let tokens = device.path("tokens");
    fs::rename(&tokens, device.path("away")).unwrap();
    fs::create_dir(&tokens).unwrap();
    device.start();
    let says = |what: &str| until(what, || device.log().contains(what).then_some(()));
    says("0 tokens fit pkcs11:token=t;object=k;type=private, expected one");
    fs::remove_dir_all(&tokens).unwrap();
    fs::rename(device.path("away"), &tokens).unwrap();
    says("the token has refused this PIN: it is not tried again");
    until("more attempts", || (device.log().matches("refused this PIN").count() >= 4).then_some(()));
    pin(&device, PIN);
    says("INFO connected");
    // Others may read it: said, and not used.
    fs::set_permissions(device.path("pin"), PermissionsExt::from_mode(0o644)).unwrap();
    let checked = device.command(&["check-config"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("[connection] private_key") && said.contains("0644"), "{said}");
    assert!(!device.log().contains(PIN) && !device.log().contains("11111111"), "{}", device.log());
}

#[test]
fn each_kind_of_key_connects_and_another_key_is_told_from_it() {
    let cloud = Cloud::start(&[]);
    for (label, algorithm) in [
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..]),
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ] {
        let mut device = device(&cloud);
        import(&device, &device.path("private.key"), "first", "01");
        certify(&cloud, &device, algorithm);
        import(&device, &device.path("new.key"), label, "02");
        set(&device, "private_key", &format!("{:?}", uri(&device, label)));
        device.start();
        let connected = || device.log().contains("INFO connected").then_some(());
        until(label, connected);
        device.kill();
        // The right token, and not the certificate's key.
        set(&device, "private_key", &format!("{:?}", uri(&device, "first")));
        let checked = device.command(&["check-config"]).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(78), "{said}");
    }
}

/// A TPM 2.0, and the library that makes a token of it.
struct Tpm {
    process: Child,
    environment: Vec<(String, String)>,
    library: PathBuf,
}

impl Tpm {
    fn start(device: &Device) -> Self {
        for folder in ["tpm", "store"] {
            fs::create_dir(device.path(folder)).unwrap();
        }
        // The library looks for the control channel one port above.
        let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
        let port = until("two ports", || {
            let port = free(0).ok()?.port();
            free(port.checked_add(1)?).ok().map(|_| port)
        });
        let state = format!("dir={}", device.path("tpm").display());
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", &state])
            .args([
                "--server",
                &format!("type=tcp,port={port}"),
                "--ctrl",
                &format!("type=tcp,port={}", port + 1),
            ])
            .spawn()
            .unwrap_or_else(|error| panic!("swtpm: {error}; scripts/install-deps installs it"));
        until("swtpm", || TcpStream::connect(("127.0.0.1", port + 1)).ok());
        let folders = fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
        let library =
            folders.map(|folder| folder.join("pkcs11/libtpm2_pkcs11.so")).find(|path| path.exists());
        let store = device.path("store").display().to_string();
        let environment = [
            ("TPM2_PKCS11_TCTI", format!("swtpm:host=127.0.0.1,port={port}")),
            ("TPM2_PKCS11_STORE", store),
            ("TPM2_PKCS11_BACKEND", "esysdb".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self {
            process,
            environment,
            library: library.expect("libtpm2-pkcs11-1; scripts/install-deps installs it"),
        }
    }

    fn tool(&self, device: &Device, arguments: &[&str]) {
        let environment = self.environment.iter().cloned();
        run(Command::new("pkcs11-tool")
            .arg("--module")
            .arg(&self.library)
            .args(arguments)
            .envs(environment)
            .current_dir(device.path("")));
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_key_that_was_made_in_a_tpm_runs_a_job() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    fs::remove_file(device.path("private.key")).unwrap();
    let tpm = Tpm::start(&device);
    tpm.tool(&device, &["--slot-index", "0", "--init-token", "--label", "t", "--so-pin", "12345678"]);
    let as_officer = ["--token-label", "t", "--login", "--so-pin", "12345678"];
    tpm.tool(&device, &[&as_officer[..], &["--init-pin", "--new-pin", PIN]].concat());
    pin(&device, PIN);
    device.environment.extend(tpm.environment.iter().cloned());
    for (kind, label) in [("EC:prime256v1", "ec"), ("RSA:2048", "rsa")] {
        let as_user = ["--token-label", "t", "--login", "--pin", PIN, "--label", label];
        tpm.tool(&device, &[&as_user[..], &["--keypairgen", "--key-type", kind]].concat());
        tpm.tool(
            &device,
            &[&as_user[..], &["--read-object", "--type", "pubkey", "-o", "public.der"]].concat(),
        );
        // A certificate for it, of nobody that the cloud knows.
        device.write("v3.ext", "basicConstraints=CA:FALSE\n");
        openssl(&device, &["pkey", "-pubin", "-inform", "DER", "-in", "public.der", "-out", "public.pem"]);
        openssl(
            &device,
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "any.key"],
        );
        let new = ["x509", "-new", "-key", "any.key", "-force_pubkey", "public.pem", "-subj", "/CN=edge-01"];
        openssl(
            &device,
            &[&new[..], &["-extfile", "v3.ext", "-days", "2", "-out", "certificate.pem"]].concat(),
        );
        let pem = fs::read_to_string(device.path("certificate.pem")).unwrap();
        let body = json!({"certificatePem": pem, "status": "ACTIVE"});
        admit(&cloud, &cloud.done("RegisterCertificateWithoutCA", json!({}), body));
        let uri = format!(
            "pkcs11:token=t;object={label}?module-path={}&pin-source={}",
            tpm.library.display(),
            device.path("pin").display()
        );
        set(&device, "private_key", &format!("{uri:?}"));
        device.start();
        let config = json!({"operation": "update-config", "config": {"key": label}});
        cloud.run(label, &config).is("SUCCEEDED", "configured");
        device.stop();
    }
}

/// What a server of TLS 1.2 may insist on.
#[test]
fn every_scheme_of_rsa_is_signed() {
    let cloud = Cloud::start(&[]);
    let device = device(&cloud);
    certify(&cloud, &device, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    import(&device, &device.path("new.key"), "k", "01");
    set(&device, "private_key", &format!("{:?}", uri(&device, "k")));
    device.write("server.ext", "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n");
    let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr"];
    openssl(&device, &[&new[..], &["-subj", "/CN=localhost"]].concat());
    let sign = ["x509", "-req", "-in", "server.csr", "-signkey", "server.key", "-extfile", "server.ext"];
    openssl(&device, &[&sign[..], &["-days", "2", "-out", "server.pem"]].concat());
    set(&device, "root_ca", &format!("{:?}", device.path("server.pem")));
    set(&device, "endpoint", "\"localhost\"");
    // What comes after the handshake has no answer there.
    device.configure("connection", "connect_timeout_seconds = 1");
    for scheme in [
        "rsa_pss_rsae_sha256",
        "rsa_pss_rsae_sha384",
        "rsa_pss_rsae_sha512",
        "RSA+SHA256",
        "RSA+SHA384",
        "RSA+SHA512",
    ] {
        let (_server, port) = Server::start(&device, scheme);
        set(&device, "port", &port.to_string());
        let mut doctor = device.command(&["doctor", "--json"]);
        let said = doctor.stdout(Stdio::piped()).output().unwrap();
        let report: Value = serde_json::from_slice(&said.stdout).unwrap();
        let tls = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "tls").unwrap();
        assert_eq!(tls["result"], "ok", "{scheme}: {report:#}");
    }
}

/// Of openssl: TLS 1.2, and one way to sign.
struct Server(Child);

impl Server {
    fn start(device: &Device, scheme: &str) -> (Self, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(device.path("s_server")).unwrap();
        let child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-tls1_2", "-Verify", "1"])
            .args(["-cert", "server.pem", "-key", "server.key", "-client_sigalgs", scheme])
            .current_dir(device.path(""))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self(child);
        until("openssl", || {
            fs::read_to_string(device.path("s_server")).unwrap().contains("ACCEPT").then_some(())
        });
        (server, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
