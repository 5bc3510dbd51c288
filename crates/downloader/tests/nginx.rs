//! TLS, from a server and with certificates that nobody here wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use downloader::{Artifact, Downloader, Error, Fetched, Resume, Settings, SourceUrl, Staging};
use support::{limits, noise, sha256};
use tokio_util::sync::CancellationToken;

struct Nginx {
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Nginx {
    /// Serves `fw.bin` to clients that trust `cert.pem`, the certificate of 127.0.0.1.
    async fn start(data: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        certificate(folder.path());
        fs::write(at("fw.bin"), data).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = folder.path().display();
        fs::write(
            at("nginx.conf"),
            format!(
                "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
                 events {{}}
                 http {{
                   access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                   uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                   server {{
                     listen 127.0.0.1:{port} ssl; root {root};
                     ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
                     location = /plain {{ return 302 http://127.0.0.1:{port}/fw.bin; }}
                     location = /moved {{ return 302 /fw.bin; }}
                   }}
                 }}"
            ),
        )
        .unwrap();
        let nginx = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let process = Command::new(nginx)
            .arg("-c")
            .arg(at("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed by scripts/install-deps");
        let started = Self { folder, process, port };
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return started;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nginx did not start: {}", fs::read_to_string(started.at("error.log")).unwrap_or_default());
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn fetch(&self, data: &[u8], path: &str, root_ca: Option<PathBuf>) -> Result<Fetched, Error> {
        let url = SourceUrl::parse(&format!("https://127.0.0.1:{}{path}", self.port), false)?;
        let artifact = Artifact { url, digest: sha256(data), size: Some(data.len() as u64) };
        let mut staging = Staging::create(&self.at("artifact"), artifact.digest, artifact.size)?;
        let fetched = Downloader::new(Settings { root_ca, limits: limits(), ..Settings::default() })
            .fetch(&artifact, &mut Resume::default(), &mut staging, &mut |_| {}, &CancellationToken::new())
            .await?;
        staging.finish().await.unwrap();
        Ok(fetched)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem".split(' '))
        .args("-days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(' '))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn over_tls_from_nginx() {
    let data = noise(3_000_000);
    let nginx = Nginx::start(&data).await;
    let trusted = || Some(nginx.at("cert.pem"));
    for path in ["/fw.bin?SECRET", "/moved"] {
        assert_eq!(
            nginx.fetch(&data, path, trusted()).await.unwrap(),
            Fetched { bytes: 3_000_000, attempts: 1 }
        );
        assert!(fs::read(nginx.at("artifact")).unwrap() == data);
    }

    let error = nginx.fetch(&data, "/plain?SECRET", trusted()).await.unwrap_err();
    assert_eq!(error.reason(), "url-rejected", "over https once, over https always: {error}");

    // The system's roots do not hold this certificate: no second attempt changes that.
    let error = nginx.fetch(&data, "/fw.bin?SECRET", None).await.unwrap_err();
    assert_eq!(error.reason(), "untrusted-server", "{error}");

    let error = nginx.fetch(&data, "/fw.bin", Some(nginx.at("key.pem"))).await.unwrap_err();
    assert!(error.reason() == "trusted-roots" && error.to_string().contains("key.pem"), "{error}");
    let error = nginx.fetch(&data, "/fw.bin", Some(nginx.at("missing.pem"))).await.unwrap_err();
    assert!(error.reason() == "trusted-roots" && error.to_string().contains("missing.pem"), "{error}");
}
