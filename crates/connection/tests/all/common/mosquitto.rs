use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use super::{PATIENCE, pki::Pki};

/// mosquitto with mutual TLS; gone when dropped.
pub struct Mosquitto {
    pub port: u16,
    config: std::path::PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    pub async fn start(pki: &Pki) -> Self {
        let port = free_port();
        let config = pki.path("mosquitto.conf");
        let folder = pki.folder().display();
        // `user root`: started by root, mosquitto would otherwise become a user who cannot read the folder.
        fs::write(
            &config,
            format!(
                "user root\nlistener {port} 127.0.0.1\nrequire_certificate true\nuse_identity_as_username true\n\
                 cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n\
                 persistence false\nset_tcp_nodelay true\n"
            ),
        )
        .unwrap();
        let mut broker = Self { port, config, process: None };
        broker.start_again().await;
        broker
    }

    pub async fn start_again(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| fs::exists(path).unwrap_or(false))
            .unwrap_or("mosquitto");
        let log = fs::File::create(self.config.with_extension("log")).unwrap();
        let process = Command::new(program)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto is needed: scripts/install-deps installs it");
        self.process = Some(process);
        let ready = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            let log = fs::read_to_string(self.config.with_extension("log"));
            panic!("mosquitto does not listen: {log:?}");
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// mosquitto cannot listen on port 0, so the system chooses one first.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
