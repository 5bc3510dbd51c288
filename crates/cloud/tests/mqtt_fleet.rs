//! A fleet at once over mutual TLS, each thing with a certificate of its own, and a job for all of them.
//!
//! `FLEET=10000 cargo test --release -p fleethand-cloud --test mqtt_fleet -- --nocapture` prints what it took. The
//! things share the machine with the cloud; only the memory is the cloud's alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]
// helpers of tests, outside of them; and a table for whoever asked for it

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::{Cloud, arn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Executions that a job makes in a minute unless told otherwise.
const ROLLOUT_PER_MINUTE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(120);

struct Thing {
    name: String,
    stream: TlsStream<TcpStream>,
}

fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

impl Thing {
    async fn connect(name: String, port: u16, tls: ClientConfig) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let server = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(server, stream).await.unwrap();
        let mut thing = Self { name, stream };
        let body = [string("MQTT"), vec![4, 2, 4, 0xB0], string(&thing.name)].concat();
        thing.write(0x10, &body).await;
        assert_eq!(thing.read().await, (0x20, vec![0, 0]), "{}", thing.name);
        let body = [vec![0, 1], string(&thing.topic("notify-next")), vec![0]].concat();
        thing.write(0x82, &body).await;
        assert_eq!(thing.read().await, (0x90, vec![0, 1, 0]), "{}", thing.name);
        thing
    }

    fn topic(&self, rest: &str) -> String {
        format!("$aws/things/{}/jobs/{rest}", self.name)
    }

    /// Waits to be notified, reports success, and waits for that to be accepted.
    async fn work(mut self, notified: mpsc::Sender<()>) -> Self {
        let (topic, payload) = self.message().await;
        assert_eq!(topic, self.topic("notify-next"));
        notified.send(()).await.unwrap();
        let job = payload["execution"]["jobId"].as_str().unwrap();
        let update = self.topic(&format!("{job}/update"));
        let body = [string(&update), json!({"status": "SUCCEEDED"}).to_string().into_bytes()].concat();
        self.write(0x30, &body).await;
        // The empty queue is announced as well, in whichever order.
        let mut topics = [self.message().await.0, self.message().await.0];
        topics.sort();
        assert_eq!(topics, [format!("{update}/accepted"), self.topic("notify-next")]);
        self
    }

    async fn message(&mut self) -> (String, Value) {
        let (first, body) = self.read().await;
        assert_eq!(first, 0x30);
        let (topic, payload) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
        (String::from_utf8(topic.to_vec()).unwrap(), serde_json::from_slice(payload).unwrap())
    }

    async fn write(&mut self, first: u8, body: &[u8]) {
        let length = u8::try_from(body.len() % 128).unwrap();
        let packet = match body.len() / 128 {
            0 => [&[first, length], body].concat(),
            more => [&[first, length | 128, u8::try_from(more).unwrap()], body].concat(),
        };
        self.stream.write_all(&packet).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let first = self.stream.read_u8().await.unwrap();
        let mut length = usize::from(self.stream.read_u8().await.unwrap());
        if length >= 128 {
            length += (usize::from(self.stream.read_u8().await.unwrap()) << 7) - 128;
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (first, body)
    }
}

fn tls(created: &Value) -> ClientConfig {
    let pem = |member: &str| created[member].as_str().unwrap().as_bytes().to_vec();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("caPem")).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem("certificatePem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("privateKey")).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap()
}

/// `VmRSS` of the cloud, in KiB.
fn memory(cloud: &Cloud) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cloud.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_for_everybody() {
    let size: usize = std::env::var("FLEET").map_or(200, |size| size.parse().expect("FLEET is a number"));
    let cloud = Cloud::manual(&[]);
    let port = cloud.ready["mqtts"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    cloud.done("CreateThingGroup", json!({"thingGroupName": "everybody"}), json!({}));
    let mut identities = Vec::new();
    for n in 0..size {
        let name = format!("thing-{n}");
        identities.push((name.clone(), tls(&cloud.admin("POST", "things", Some(json!({"thing": name}))))));
        cloud.done(
            "AddThingToThingGroup",
            json!({}),
            json!({"thingGroupName": "everybody", "thingName": name}),
        );
    }
    let before = memory(&cloud);

    let begun = Instant::now();
    let at_once = Arc::new(Semaphore::new(100));
    let connecting = identities.into_iter().map(|(name, tls)| {
        let at_once = Arc::clone(&at_once);
        tokio::spawn(async move {
            let _permit = at_once.acquire_owned().await.unwrap();
            Thing::connect(name, port, tls).await
        })
    });
    let connecting: Vec<_> = connecting.collect();
    let mut things = Vec::new();
    for thing in connecting {
        things.push(thing.await.unwrap());
    }
    let connected = begun.elapsed();
    let each = (memory(&cloud).saturating_sub(before)) as f64 / size as f64;

    let (notified, mut notifications) = mpsc::channel(size);
    let working: Vec<_> =
        things.into_iter().map(|thing| tokio::spawn(thing.work(notified.clone()))).collect();
    let begun = Instant::now();
    cloud.done(
        "CreateJob",
        json!({"jobId": "for-all"}),
        json!({"targets": [arn("thinggroup/everybody")], "document": "{}"}),
    );
    for _ in 1..size.div_ceil(ROLLOUT_PER_MINUTE) {
        cloud.advance(60);
    }
    for _ in 0..size {
        tokio::time::timeout(PATIENCE, notifications.recv()).await.expect("everybody is notified").unwrap();
    }
    let all_notified = begun.elapsed();
    let mut done = Vec::new();
    for thing in working {
        done.push(tokio::time::timeout(PATIENCE, thing).await.expect("everybody reports").unwrap());
    }
    let all_done = begun.elapsed();
    println!("{size} things: connected {connected:.2?}, {each:.1} KiB each");
    println!(
        "a job for all: notified {all_notified:.2?}, SUCCEEDED {all_done:.2?}, cloud {} KiB",
        memory(&cloud)
    );

    let job = cloud.done("DescribeJob", json!({"jobId": "for-all"}), json!(null));
    assert_eq!(job["job"]["jobProcessDetails"]["numberOfSucceededThings"], json!(size));
    assert!(each < 64.0, "a connection holds {each} KiB");
}
