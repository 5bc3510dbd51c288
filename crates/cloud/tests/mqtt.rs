//! Devices at the real binary: what `thing create` makes, sessions under the cloud's clock, restarts, another broker.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS, TlsConfiguration, Transport,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::{Cloud, arn};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn create(cloud: &Cloud, name: &str, folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleethand-cloud"))
        .args(["thing", "create", name, "--api", cloud.api(), "--out"])
        .arg(folder)
        .output()
        .unwrap()
}

/// An MQTT client as the configuration that was written says.
fn device(folder: &Path, port: Option<u16>, clean: bool) -> (AsyncClient, EventLoop) {
    let config: toml::Table =
        std::fs::read_to_string(folder.join("fleethand.toml")).unwrap().parse().unwrap();
    let connection = config["connection"].as_table().unwrap();
    let text = |key: &str| connection[key].as_str().unwrap().to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(text("root_ca")).unwrap()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(text("certificate")).unwrap()],
            PrivateKeyDer::from_pem_file(text("private_key")).unwrap(),
        )
        .unwrap();
    let port = port.unwrap_or_else(|| u16::try_from(connection["port"].as_integer().unwrap()).unwrap());
    let mut options = MqttOptions::new(text("thing_name"), (text("endpoint"), port));
    options.set_clean_session(clean);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    AsyncClient::builder(options).build()
}

async fn next(events: &mut EventLoop) -> Incoming {
    loop {
        if let Event::Incoming(incoming) = timeout(PATIENCE, events.poll()).await.unwrap().unwrap() {
            return incoming;
        }
    }
}

async fn message(events: &mut EventLoop) -> (String, Value) {
    loop {
        if let Incoming::Publish(publish) = next(events).await {
            let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
            return (topic, serde_json::from_slice(&publish.payload).unwrap());
        }
    }
}

/// Whether the CONNACK said that there was a session.
async fn connected(events: &mut EventLoop) -> bool {
    match next(events).await {
        Incoming::ConnAck(ack) => ack.session_present,
        other => panic!("{other:?}"),
    }
}

fn mqtts_port(cloud: &Cloud) -> u16 {
    cloud.ready["mqtts"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn what_thing_create_writes_is_enough_to_connect() {
    let cloud = Cloud::start(&[]);
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("edge-01");
    let created = create(&cloud, "edge-01", &folder);
    assert!(created.status.success(), "{created:?}");

    let (client, mut events) = device(&folder, None, true);
    connected(&mut events).await;
    let asked = "$aws/things/edge-01/jobs/$next/get";
    client.publish(asked, r#"{"clientToken":"t"}"#, PublishOptions::at_least_once()).await.unwrap();
    let (topic, payload) = message(&mut events).await;
    assert_eq!(topic, format!("{asked}/accepted"));
    assert_eq!(payload["clientToken"], "t");

    // Once more into the same folder: refused by name, and no second certificate comes to be.
    let again = create(&cloud, "edge-01", &folder);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && said.contains("private.key"), "{said}");
    let principals = cloud.done("ListThingPrincipals", json!({"thingName": "edge-01"}), json!(null));
    assert_eq!(principals["principals"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_lasts_an_hour_of_the_clouds_clock() {
    let cloud = Cloud::manual(&["--mqtt", "127.0.0.1:0"]);
    let parent = tempfile::tempdir().unwrap();
    assert!(create(&cloud, "edge-01", parent.path()).status.success());
    let topic = "$aws/things/edge-01/jobs/notify-next";
    let plain: u16 = cloud.ready["mqtt"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    let (watcher, mut seen) = AsyncClient::builder(MqttOptions::new("watcher", ("127.0.0.1", plain))).build();
    connected(&mut seen).await;
    watcher.subscribe("$aws/events/presence/disconnected/edge-01", QoS::AtMostOnce).await.unwrap();
    while !matches!(next(&mut seen).await, Incoming::SubAck(_)) {}
    for (offline, present) in [(3500, true), (3601, false)] {
        let (client, mut events) = device(parent.path(), None, false);
        connected(&mut events).await;
        client.subscribe(topic, QoS::AtLeastOnce).await.unwrap();
        while !matches!(next(&mut events).await, Incoming::SubAck(_)) {}
        client.disconnect_now().await.unwrap();
        while timeout(PATIENCE, events.poll()).await.unwrap().is_ok() {}
        // The hour begins when the cloud has seen the client go, and the clock must not move before.
        message(&mut seen).await;
        let job = format!("while-offline-{present}");
        cloud.done(
            "CreateJob",
            json!({"jobId": job}),
            json!({"targets": [arn("thing/edge-01")], "document": "{}"}),
        );
        cloud.advance(offline);
        let (client, mut events) = device(parent.path(), None, false);
        assert_eq!(connected(&mut events).await, present, "after {offline} s");
        if present {
            assert_eq!(message(&mut events).await.1["execution"]["jobId"], json!(job));
            cloud.done("DeleteJob", json!({"jobId": job, "force": true}), json!(null));
        }
        drop((client, events));
        message(&mut seen).await;
    }
}

#[tokio::test]
async fn certificates_and_policies_are_good_after_a_restart() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = ["--data", data.path().to_str().unwrap()];
    let cloud = Cloud::start(&arguments);
    assert!(create(&cloud, "edge-01", folder.path()).status.success());
    cloud.stop();
    let cloud = Cloud::start(&arguments);
    let (client, mut events) = device(folder.path(), Some(mqtts_port(&cloud)), true);
    connected(&mut events).await;
    client.publish("$aws/things/edge-01/jobs/get", "{}", PublishOptions::at_least_once()).await.unwrap();
    assert_eq!(message(&mut events).await.0, "$aws/things/edge-01/jobs/get/accepted");
}

struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn mosquitto() -> (Mosquitto, u16) {
    let binary = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
    // A port that was free a moment ago; if somebody else took it meanwhile, another.
    for _ in 0..10 {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child =
            Command::new(binary).args(["-p", &port.to_string()]).stderr(Stdio::null()).spawn().unwrap();
        let mut running = Mosquitto(child);
        while running.0.try_wait().unwrap().is_none() {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return (running, port);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("mosquitto did not start");
}

#[tokio::test]
async fn a_job_for_a_thing_at_another_broker() {
    let (_mosquitto, port) = mosquitto().await;
    let cloud = Cloud::start(&["--broker", &format!("127.0.0.1:{port}")]);
    cloud.done("CreateThing", json!({"thingName": "far"}), json!(null));
    let (client, mut events) = AsyncClient::builder(MqttOptions::new("far", ("127.0.0.1", port))).build();
    client.subscribe("$aws/things/far/jobs/+/update/+", QoS::AtLeastOnce).await.unwrap();
    client.subscribe("$aws/things/far/jobs/notify-next", QoS::AtLeastOnce).await.unwrap();
    for _ in 0..2 {
        while !matches!(next(&mut events).await, Incoming::SubAck(_)) {}
    }
    cloud.done("CreateJob", json!({"jobId": "j"}), json!({"targets": [arn("thing/far")], "document": "{}"}));
    let (topic, payload) = message(&mut events).await;
    assert_eq!((&*topic, &payload["execution"]["jobId"]), ("$aws/things/far/jobs/notify-next", &json!("j")));
    let update = "$aws/things/far/jobs/j/update";
    client.publish(update, r#"{"status":"SUCCEEDED"}"#, PublishOptions::at_least_once()).await.unwrap();
    loop {
        if message(&mut events).await.0 == format!("{update}/accepted") {
            break;
        }
    }
    let job = cloud.done("DescribeJob", json!({"jobId": "j"}), json!(null));
    assert_eq!(job["job"]["status"], "COMPLETED");
}
