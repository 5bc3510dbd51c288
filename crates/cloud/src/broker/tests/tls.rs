//! Mutual TLS: certificates, policies, ALPN, SNI, with rumqttc as the client.

use std::sync::Arc;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::identity::ThingFiles;

fn tls(files: &ThingFiles, with_certificate: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(files.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    if !with_certificate {
        return builder.with_no_client_auth();
    }
    let certificate = CertificateDer::from_pem_slice(files.certificate_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(files.private_key.as_bytes()).unwrap();
    builder.with_client_auth_cert(vec![certificate], key).unwrap()
}

fn client(cloud: &Cloud, id: &str, tls: ClientConfig) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, ("localhost", cloud.secure.port()));
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    AsyncClient::builder(options).build()
}

async fn next(events: &mut EventLoop) -> Result<Incoming, String> {
    loop {
        let event = timeout(PATIENCE, events.poll()).await.expect("an event");
        match event {
            Ok(Event::Incoming(incoming)) => return Ok(incoming),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn conn_jobs_response_without_subscription() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    let (client, mut events) = client(&cloud, "lamp", tls(&files, true));
    assert!(matches!(next(&mut events).await, Ok(Incoming::ConnAck(_))));
    let topic = "$aws/things/lamp/jobs/$next/get";
    client.publish(topic, "{}", rumqttc::PublishOptions::at_least_once()).await.unwrap();
    let (mut acknowledged, mut answered) = (false, false);
    while !(acknowledged && answered) {
        match next(&mut events).await.unwrap() {
            Incoming::PubAck(_) => acknowledged = true,
            Incoming::Publish(answer) => {
                assert_eq!(answer.topic, format!("{topic}/accepted"));
                assert_eq!(answer.qos, rumqttc::QoS::AtMostOnce);
                assert_eq!(&*answer.payload, b"{}");
                answered = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let published = cloud.heard.published.lock().unwrap().clone();
    assert_eq!(published, [("lamp".to_owned(), Some("lamp".to_owned()), topic.to_owned())]);
}

#[tokio::test]
async fn conn_not_authorized() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    let (_client, mut events) = client(&cloud, "another", tls(&files, true));
    let refused = next(&mut events).await;
    assert!(refused.as_ref().is_err_and(|error| error.contains("NotAuthorized")), "{refused:?}");
}

#[tokio::test]
async fn conn_publish_denied() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    for topic in ["telemetry", "$aws/things/other/jobs/$next/get", "$aws/events/x", "$SYS/x"] {
        let mut three = lamp(&cloud, &files, &Hello::v3("lamp")).await;
        three.publish(topic, b"{}", Some(1)).await;
        three.closed().await;
        let mut five = lamp(&cloud, &files, &Hello::v5("lamp")).await;
        five.publish(topic, b"{}", Some(1)).await;
        assert_eq!(five.disconnected().await, 0x87, "{topic}");
    }
    assert!(cloud.heard.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn subscribe_denied() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    let own = "$aws/things/lamp/jobs/notify";
    for filter in ["$aws/things/other/jobs/notify", "$aws/things/lamp/#", "#", "$SYS/#"] {
        let mut three = lamp(&cloud, &files, &Hello::v3("lamp")).await;
        assert_eq!(three.subscribe(&[(own, 1), (filter, 0)]).await, [1, 0x80], "{filter}");
        three.closed().await;
        let mut five = lamp(&cloud, &files, &Hello::v5("lamp")).await;
        assert_eq!(five.subscribe(&[(own, 1), (filter, 0)]).await, [1, 0x87], "{filter}");
        assert_eq!(five.disconnected().await, 0x87, "{filter}");
    }
}

/// The thing called lamp, over TLS, byte by byte.
async fn lamp(cloud: &Cloud, files: &ThingFiles, hello: &Hello) -> Raw {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(files, true)));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(cloud.secure).await.unwrap();
    let mut raw = Raw::new(connector.connect(name, stream).await.unwrap());
    assert_eq!(raw.connect(hello).await[..2], [0, 0]);
    raw
}

/// The handshake alone, then one CONNECT and the code of its CONNACK: 0xFF when there is none.
async fn handshake(cloud: &Cloud, mut config: ClientConfig, name: &str, alpn: &[&str]) -> u8 {
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(cloud.secure).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let Ok(mut stream) = timeout(PATIENCE, connector.connect(name, stream)).await.unwrap() else {
        return 0xFF;
    };
    if stream.write_all(&Hello::v3("lamp").bytes()).await.is_err() {
        return 0xFF;
    }
    let mut connack = [0; 4];
    match timeout(PATIENCE, stream.read_exact(&mut connack)).await.unwrap() {
        Ok(_) => connack[3],
        Err(_) => 0xFF,
    }
}

#[tokio::test]
async fn alpn_names_and_addresses() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    for (name, alpn, expected) in [
        ("localhost", &[][..], 0),
        ("localhost", &["x-amzn-mqtt-ca"][..], 0),
        ("localhost", &["mqtt"][..], 0),
        ("localhost", &["x-amzn-http-ca"][..], 0xFF),
        ("127.0.0.1", &[][..], 0),
        ("10.0.2.2", &[][..], 0),
        ("::1", &[][..], 0),
        ("example.com", &[][..], 0xFF),
    ] {
        assert_eq!(handshake(&cloud, tls(&files, true), name, alpn).await, expected, "{name} {alpn:?}");
    }
}

#[tokio::test]
async fn sni_is_required_where_asked_for() {
    let cloud = Cloud::with(Limits { require_sni: true, ..Limits::default() }).await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    // A client that is given an address sends none.
    assert_eq!(handshake(&cloud, tls(&files, true), "127.0.0.1", &[]).await, 0xFF);
    assert_eq!(handshake(&cloud, tls(&files, true), "localhost", &[]).await, 0);
}

#[tokio::test]
async fn who_gets_no_connection() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    assert_eq!(handshake(&cloud, tls(&files, false), "localhost", &[]).await, 0xFF, "no certificate");

    let stranger =
        Identity::new("us-east-1", "123456789012", &[]).unwrap().create_for_thing(0, "lamp").unwrap();
    let forged = ThingFiles { ca_pem: files.ca_pem.clone(), ..stranger };
    assert_eq!(handshake(&cloud, tls(&forged, true), "localhost", &[]).await, 0xFF, "another authority's");

    let set = |status: &str| {
        let params = [("certificateId", &*files.certificate_id), ("newStatus", status)];
        let params = params.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        cloud.identity.control(0, "UpdateCertificate", &params, &serde_json::Value::Null).unwrap().unwrap();
    };
    set("INACTIVE");
    assert_eq!(handshake(&cloud, tls(&files, true), "localhost", &[]).await, 0xFF, "inactive");
    set("ACTIVE");
    assert_eq!(handshake(&cloud, tls(&files, true), "localhost", &[]).await, 0);
}

#[tokio::test]
async fn a_certificate_that_is_revoked_loses_its_connection() {
    let cloud = Cloud::start().await;
    let files = cloud.identity.create_for_thing(0, "lamp").unwrap();
    let (_client, mut events) = client(&cloud, "lamp", tls(&files, true));
    next(&mut events).await.unwrap();
    let params = [("certificateId", &*files.certificate_id), ("newStatus", "REVOKED")];
    let params = params.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    cloud.identity.control(0, "UpdateCertificate", &params, &serde_json::Value::Null).unwrap().unwrap();
    assert!(next(&mut events).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended() {
    let cloud = Cloud::with(Limits { handshake: Duration::from_millis(200), ..Limits::default() }).await;
    let mut idle = Raw::new(TcpStream::connect(cloud.secure).await.unwrap());
    idle.closed().await;
    let mut silent = cloud.raw().await;
    silent.closed().await;
}
