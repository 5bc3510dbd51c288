//! Against a broker that nobody here wrote.

use std::time::{Duration, Instant};

use crate::common::mosquitto::{Mosquitto, free_port};
use crate::common::pki::{P256, P384, Pki, RSA};
use crate::common::{PATIENCE, assert_usable, connected, disconnected, message, next, settings};
use connection::{Connection, DisconnectCause, Error, Event, MAX_PAYLOAD, MAX_TOPIC, Step};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn every_kind_and_format_of_key_connects() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    pki.device("p256", P256);
    pki.device("p384", P384);
    pki.device("rsa", RSA);
    pki.openssl(&["ec", "-in", "p256.key", "-out", "p256-sec1.key"]);
    pki.openssl(&["ec", "-in", "p384.key", "-out", "p384-sec1.key"]);
    pki.openssl(&["rsa", "-traditional", "-in", "rsa.key", "-out", "rsa-pkcs1.key"]);
    for (key, label) in [
        ("p256", "PRIVATE KEY"),
        ("p256-sec1", "EC PRIVATE KEY"),
        ("p384", "PRIVATE KEY"),
        ("p384-sec1", "EC PRIVATE KEY"),
        ("rsa", "PRIVATE KEY"),
        ("rsa-pkcs1", "RSA PRIVATE KEY"),
    ] {
        let mut identity = pki.identity(key.split('-').next().unwrap());
        identity.private_key = pki.path(&format!("{key}.key"));
        let pem = std::fs::read_to_string(&identity.private_key).unwrap();
        assert!(pem.contains(&format!("-----BEGIN {label}-----")), "{key}");
        let mut connection = Connection::start(settings(broker.port, key, &identity));
        assert_usable(&mut connection).await;
        connection.stop().await;
    }
}

#[tokio::test]
async fn a_version_1_certificate_and_a_chain_connect() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    pki.key("plain", P256);
    pki.sign("plain", None);
    let plain = pki.identity("plain");
    let chain = pki.device("chain", P256);
    let both = [&chain.certificate, &chain.root_ca].map(|file| std::fs::read(file).unwrap());
    std::fs::write(&chain.certificate, both.concat()).unwrap();
    for identity in [plain, chain] {
        let mut connection = Connection::start(settings(broker.port, "device", &identity));
        assert_usable(&mut connection).await;
        connection.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_the_given_root_did_not_sign_is_refused() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let broker = Mosquitto::start(&theirs).await;
    let identity = ours.device("device", P256);
    let mut connection = Connection::start(settings(broker.port, "device", &identity));
    let cause = disconnected(&mut connection).await;
    assert!(matches!(cause, DisconnectCause::OtherRoot(_)), "{cause:?}");
    assert!(cause.to_string().contains("does not come from root_ca"), "{cause}");
}

#[tokio::test]
async fn a_certificate_that_the_broker_does_not_know_is_named_as_the_reason() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let broker = Mosquitto::start(&theirs).await;
    let mut identity = ours.device("device", P256);
    identity.root_ca = theirs.path("ca.pem");
    let mut connection = Connection::start(settings(broker.port, "device", &identity));
    let said = disconnected(&mut connection).await.to_string();
    assert!(said.contains("ACTIVE"), "{said}");
}

#[tokio::test]
async fn a_wrong_clock_is_said_to_be_one() {
    #[derive(Debug)]
    struct In1970;
    impl rustls::time_provider::TimeProvider for In1970 {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(60)))
        }
    }
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    let mut settings = settings(broker.port, "device", &pki.device("device", P256));
    let mut config = (*settings.tls).clone();
    config.time_provider = std::sync::Arc::new(In1970);
    settings.tls = config.into();
    let cause = disconnected(&mut Connection::start(settings)).await;
    assert!(matches!(cause, DisconnectCause::Clock { .. }), "{cause:?}");
    assert!(cause.to_string().contains("clock says 20"), "{cause}");
}

#[tokio::test]
async fn a_closed_port_is_reported_and_tried_again() {
    let pki = Pki::new();
    let identity = pki.device("device", P256);
    let mut connection = Connection::start(settings(free_port(), "device", &identity));
    for _ in 0..3 {
        let cause = disconnected(&mut connection).await;
        assert!(matches!(cause, DisconnectCause::Unreachable { .. }), "{cause:?}");
    }
    assert_eq!(connection.publish("inbox/a", "x"), Err(Error::NotConnected));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up_when_the_time_is_up() {
    let pki = Pki::new();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(mute.local_addr().unwrap().port(), "device", &pki.device("device", P256));
    settings.connect_timeout = Duration::from_millis(300);
    let started = Instant::now();
    let cause = disconnected(&mut Connection::start(settings)).await;
    let DisconnectCause::ConnectTimeout { step, .. } = cause else {
        panic!("{cause:?}");
    };
    assert_eq!(step, Step::TlsHandshake);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let pki = Pki::new();
    let mut settings = settings(1, "device", &pki.device("device", P256));
    settings.endpoint = "no-such-host.invalid".into();
    let cause = disconnected(&mut Connection::start(settings)).await;
    assert!(cause.to_string().contains("no-such-host.invalid"), "{cause}");
}

/// The AWS IoT Device Client never subscribes again after a reconnect: connected and deaf until it is restarted.
#[tokio::test]
async fn device_client_deaf_after_reconnect() {
    let pki = Pki::new();
    let mut broker = Mosquitto::start(&pki).await;
    let mut connection = Connection::start(settings(broker.port, "device", &pki.device("device", P256)));
    assert_usable(&mut connection).await;
    broker.kill();
    let cause = disconnected(&mut connection).await;
    assert!(matches!(cause, DisconnectCause::Closed), "{cause:?}");
    broker.start_again().await;
    // It may have knocked once or more while nobody listened.
    while !matches!(next(&mut connection).await, Event::Connected) {}
    connection.publish("inbox/again", "heard").unwrap();
    assert_eq!(message(&mut connection).await, ("inbox/again".into(), b"heard".to_vec()));
}

#[tokio::test]
async fn two_clients_with_one_id_are_told_about_each_other() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    let settings = settings(broker.port, "twin", &pki.device("device", P256));
    let rival = Connection::start(settings.clone());
    let mut connection = Connection::start(settings);
    let told = async {
        loop {
            if let Event::Disconnected { cause, .. } = connection.next().await
                && matches!(cause, DisconnectCause::TakenOver { .. })
            {
                return cause.to_string();
            }
        }
    };
    let said = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(said.contains("another client probably uses the client id twin"), "{said}");
    drop(rival);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_link_survives() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    let mut connection = Connection::start(settings(broker.port, "device", &pki.device("device", P256)));
    connected(&mut connection).await;
    for (topic, size, expected) in [
        ("inbox/a".to_owned(), MAX_PAYLOAD + 1, Error::PayloadTooLarge { found: MAX_PAYLOAD + 1 }),
        ("x".repeat(MAX_TOPIC + 1), 1, Error::TopicLength { found: MAX_TOPIC + 1 }),
        (String::new(), 1, Error::TopicLength { found: 0 }),
        ("inbox/+".into(), 1, Error::InvalidTopic { topic: "inbox/+".into() }),
    ] {
        assert_eq!(connection.publish(topic, vec![0; size]), Err(expected));
    }
    let largest = vec![b'x'; MAX_PAYLOAD];
    connection.publish("inbox/large", largest.clone()).unwrap();
    assert_eq!(message(&mut connection).await, ("inbox/large".into(), largest));
}

/// A proxy that stops forwarding, and keeps both connections open.
#[tokio::test]
async fn a_link_that_dies_without_saying_so_is_noticed_within_one_and_a_half_keep_alives() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = proxy.local_addr().unwrap().port();
    let (cut, mut is_cut) = tokio::sync::watch::channel(false);
    let upstream = broker.port;
    let forwarding = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
        (near, far, proxy)
    });
    let mut settings = settings(port, "device", &pki.device("device", P256));
    settings.keep_alive = Duration::from_secs(1);
    let mut connection = Connection::start(settings);
    assert_usable(&mut connection).await;
    // Alive over several pings first.
    let quiet = tokio::time::timeout(Duration::from_millis(2500), connection.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");

    cut.send(true).unwrap();
    let since = Instant::now();
    let _held_open = forwarding.await.unwrap();
    // Talking into the void must not hide that nothing comes back.
    let chatter = async {
        loop {
            connection.publish("elsewhere", "anybody?").unwrap();
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(200), connection.next()).await {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, chatter).await.unwrap();
    assert!(matches!(event, Event::Disconnected { cause: DisconnectCause::Silent { .. }, .. }), "{event:?}");
    assert!(since.elapsed() < Duration::from_millis(1900), "{:?}", since.elapsed());
}
