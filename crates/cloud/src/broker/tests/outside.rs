//! Attached to mosquitto, as its client.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, PublishOptions, QoS};

use super::*;

struct Mosquitto {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mosquitto {
    async fn start(more: impl Fn(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A port that was free a moment ago; if somebody else took it meanwhile, another.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            let config = folder.path().join("mosquitto.conf");
            let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{}", more(folder.path()));
            std::fs::write(&config, text).unwrap();
            let binary =
                if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
            let mut child = Command::new(binary)
                .arg("-c")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto is installed");
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Self { child, port, folder };
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("mosquitto did not start");
    }
}

/// A device at mosquitto asks, is answered and notified through it.
async fn asks_and_is_answered(cloud: &Cloud, mut options: MqttOptions) {
    options.set_keep_alive(5);
    let (client, mut events) = AsyncClient::builder(options).build();
    client.subscribe("$aws/things/lamp/jobs/#", QoS::AtLeastOnce).await.unwrap();
    let mut seen = Vec::new();
    let ask = async || {
        client.publish("$aws/things/lamp/jobs/get", "{}", PublishOptions::at_least_once()).await.unwrap();
    };
    let work = async {
        loop {
            match events.poll().await.unwrap() {
                Event::Incoming(Incoming::SubAck(_)) => ask().await,
                // Our own request: until the cloud is attached nobody answers it.
                Event::Incoming(Incoming::Publish(publish))
                    if publish.topic == "$aws/things/lamp/jobs/get" && seen.is_empty() =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    ask().await;
                }
                Event::Incoming(Incoming::Publish(publish))
                    if publish.topic == "$aws/things/lamp/jobs/get" => {}
                Event::Incoming(Incoming::Publish(publish)) => {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    if topic.ends_with("/accepted") && seen.is_empty() {
                        cloud.broker.publish("$aws/things/lamp/jobs/notify", Bytes::from("n"));
                    }
                    if !seen.contains(&topic) {
                        seen.push(topic);
                    }
                    if seen.len() == 2 {
                        break;
                    }
                }
                _ => {}
            }
        }
    };
    timeout(PATIENCE, work).await.expect("an answer through the other broker");
    assert_eq!(seen, ["$aws/things/lamp/jobs/get/accepted", "$aws/things/lamp/jobs/notify"]);
    let published = cloud.heard.published.lock().unwrap();
    let request = ("lamp".to_owned(), Some("lamp".to_owned()), "$aws/things/lamp/jobs/get".to_owned());
    assert!(!published.is_empty());
    assert!(published.iter().all(|one| *one == request), "answers that come back are not requests");
}

#[tokio::test]
async fn a_thing_at_mosquitto() {
    let mosquitto = Mosquitto::start(|_| String::new()).await;
    let cloud = Cloud::start().await;
    let outside = Outside { host: "127.0.0.1".into(), port: mosquitto.port, ca: None, certificate: None };
    let attachment = cloud.broker.attach(&outside).unwrap();
    let running = tokio::spawn(attachment.run(cloud.heard.clone()));
    asks_and_is_answered(&cloud, MqttOptions::new("lamp", ("127.0.0.1", mosquitto.port))).await;
    // Those who are connected here are still served.
    let mut here = cloud.v3("here").await;
    here.subscribe(&[("$aws/things/here/jobs/notify", 0)]).await;
    cloud.broker.publish("$aws/things/here/jobs/notify", Bytes::from("n"));
    assert_eq!(here.message().await, got("$aws/things/here/jobs/notify", "n"));
    running.abort();
}

#[tokio::test]
async fn a_thing_at_mosquitto_with_mutual_tls() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    // Not the name that the certificates below have: they would count as self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(params, authority);
    let mosquitto = Mosquitto::start(|folder| {
        std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        for name in ["server", "client"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let folder = folder.display();
        // Root starts it as the user mosquitto, who could not read the files.
        format!(
            "user root\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n\
             require_certificate true\n"
        )
    })
    .await;
    let file = |name: &str| mosquitto.folder.path().join(name);
    let outside = Outside {
        host: "localhost".into(),
        port: mosquitto.port,
        ca: Some(file("ca.pem")),
        certificate: Some((file("client.pem"), file("client.key"))),
    };
    let cloud = Cloud::start().await;
    let running = tokio::spawn(cloud.broker.attach(&outside).unwrap().run(cloud.heard.clone()));
    let tls = super::super::outside::client_config(&file("ca.pem"), outside.certificate.as_ref()).unwrap();
    let mut options = MqttOptions::new("lamp", ("localhost", mosquitto.port));
    let tls = rumqttc::TlsConfiguration::Rustls(Arc::new(tls));
    options.set_transport(rumqttc::Transport::tls_with_config(tls));
    asks_and_is_answered(&cloud, options).await;
    running.abort();

    let wrong = Outside { ca: Some(file("mosquitto.conf")), ..outside };
    let refused = super::super::outside::connect(&wrong).err();
    assert!(refused.is_some(), "a file without certificates");
}
