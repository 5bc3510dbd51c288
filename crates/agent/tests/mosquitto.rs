//! The firmware job over a broker that nobody here wrote: mosquitto with mutual TLS and one device's topics alone; the
//! local cloud is attached to it as a client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::cloud::{arn, aws_done};
use support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256, until};

struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut broker = Self { folder, port, process: None };
        broker.certificates();
        // A device may use its own topics and nothing else, as with the policy of a thing.
        broker.write(
            "acl",
            "pattern readwrite $aws/things/%u/jobs/#\nuser cloud\ntopic readwrite $aws/#\n".to_owned(),
        );
        let dir = broker.folder.path().display();
        broker.write(
            "conf",
            format!(
                "user root\nlistener {port} 127.0.0.1\ncafile {dir}/ca.pem\ncertfile {dir}/localhost.pem\n\
                 keyfile {dir}/localhost.key\nrequire_certificate true\nuse_identity_as_username true\n\
                 acl_file {dir}/acl\nmessage_size_limit 131072\npersistence false\n"
            ),
        );
        broker.run();
        broker
    }

    fn write(&self, name: &str, text: String) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn certificates(&self) {
        let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        self.openssl(&format!("req -x509 {ec} -keyout ca.key -out ca.pem -subj /CN=tests"));
        for name in ["localhost", "cloud", THING] {
            let san = format!("-addext subjectAltName=DNS:{name} -addext basicConstraints=critical,CA:FALSE");
            self.openssl(&format!("req -x509 {ec} -CA ca.pem -CAkey ca.key -keyout {name}.key -out {name}.pem -subj /CN={name} {san}"));
            std::fs::set_permissions(self.path(&format!("{name}.key")), PermissionsExt::from_mode(0o600))
                .unwrap();
        }
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&mut self) {
        let program =
            if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let process = Command::new(program).args(["-c", &self.path("conf")]).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("mosquitto; scripts/install-deps installs it"));
        until("mosquitto", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    fn restart(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        self.run();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn firmware_over_mosquitto_which_restarts_and_forgets_everything() {
    let mut broker = Mosquitto::start();
    let address = format!("localhost:{}", broker.port);
    let (ca, certificate, key) = (broker.path("ca.pem"), broker.path("cloud.pem"), broker.path("cloud.key"));
    let cloud = cloud_with_bucket(&[
        "--broker",
        &address,
        "--broker-ca",
        &ca,
        "--broker-cert",
        &certificate,
        "--broker-key",
        &key,
    ]);
    let mut device = Device::create(&cloud);
    for (ours, theirs) in [("certificate.pem", "pem"), ("private.key", "key")] {
        std::fs::copy(broker.path(&format!("{THING}.{theirs}")), device.path(ours)).unwrap();
    }
    std::fs::copy(ca, device.path("root-ca.pem")).unwrap();
    let text = std::fs::read_to_string(device.config()).unwrap();
    let lines = text.lines().map(|line| {
        if line.starts_with("port = ") { format!("port = {}\n", broker.port) } else { format!("{line}\n") }
    });
    device.write("fleethand.toml", lines.collect::<String>());
    let new: Vec<u8> = (0..800_000).map(|i| (i / 250) as u8).collect();
    cloud.upload("fw", &new);
    device.start();
    until("the connection", || device.log().contains("connected").then_some(()));

    let order = |job: &str, version: &str| {
        let document = firmware_document("fw", version, &sha256(&new)).to_string();
        let target = arn(&format!("thing/{THING}"));
        let role = "roleArn=arn:aws:iam::123456789012:role/jobs,expiresInSec=3600";
        let words = ["iot", "create-job", "--job-id", job, "--targets", &target, "--document", &document];
        aws_done(cloud.api(), &[&words[..], &["--presigned-url-config", role]].concat());
    };
    order("fw-2", "2.0");
    cloud.outcome("fw-2").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);

    cloud.fault(json!({"fault": "object-slow", "bytes": 400_000}));
    std::fs::remove_file(device.path("firmware.bin")).unwrap();
    order("fw-3", "3.0");
    cloud.wait_for("fw-3", "IN_PROGRESS");
    broker.restart();
    cloud.outcome("fw-3").is("SUCCEEDED", "installed");
    assert_eq!(device.read("firmware.bin"), new);
}
