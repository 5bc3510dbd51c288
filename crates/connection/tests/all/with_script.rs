//! Against a broker that says exactly what it is told to: byte for byte, polite or hostile.

use std::time::Duration;

use crate::common::pki::{P256, Pki};
use crate::common::scripted::{CONNACK, SUBACK, Scripted, publish};
use crate::common::{PATIENCE, connected, disconnected, message, settings};
use connection::{Connection, DisconnectCause, Error, Settings, Step};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

async fn broker() -> (Pki, Scripted, Settings) {
    let pki = Pki::new();
    let broker = Scripted::start(&pki).await;
    let settings = settings(broker.port, "device", &pki.device("device", P256));
    (pki, broker, settings)
}

#[tokio::test]
async fn tls_1_2_and_1_3_carry_the_name_of_the_server_and_a_clean_session() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let pki = Pki::new();
        let broker = Scripted::with_versions(&pki, &[version]).await;
        let mut settings = settings(broker.port, "device", &pki.device("device", P256));
        settings.keep_alive = Duration::from_secs(60);
        let _connection = Connection::start(settings);
        let mut peer = broker.accept().await;
        assert_eq!(peer.0.get_ref().1.server_name(), Some("localhost"));
        let (_, connect) = peer.packet().await.unwrap();
        let expected = [b"\0\x04MQTT\x04\x02\0\x3c\0\x06device".as_slice()].concat();
        assert_eq!(connect, expected, "3.1.1, clean session, keep-alive of 60 s");
    }
}

#[tokio::test]
async fn connected_is_said_after_the_suback_and_not_before() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept().await;
    peer.packet().await.unwrap();
    peer.say(CONNACK).await;
    let (first, body) = peer.packet().await.unwrap();
    assert_eq!((first, body.as_slice()), (0x82, b"\0\x01\0\x07inbox/+\0".as_slice()));
    let early = timeout(Duration::from_millis(100), connection.next()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(connection.publish("a", "b"), Err(Error::NotConnected));
    peer.say(SUBACK).await;
    connected(&mut connection).await;
    connection.publish("a", "b").unwrap();
    assert_eq!(peer.packet().await.unwrap(), (0x30, b"\0\x01ab".to_vec()));
}

#[tokio::test]
async fn more_filters_than_aws_takes_at_once_go_in_two_packets() {
    let (_pki, broker, mut settings) = broker().await;
    settings.subscriptions = (0..9).map(|n| format!("f/{n}")).collect();
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept().await;
    peer.packet().await.unwrap();
    peer.say(CONNACK).await;
    peer.packet().await.unwrap();
    peer.say(&[0x90, 10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(peer.packet().await.unwrap().1, b"\0\x02\0\x03f/8\0");
    peer.say(&[0x90, 3, 0, 2, 0]).await;
    connected(&mut connection).await;
}

#[tokio::test]
async fn stop_sends_what_was_accepted_and_then_disconnect() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept_and_greet().await;
    connected(&mut connection).await;
    connection.publish("a", "last words").unwrap();
    connection.stop().await;
    assert_eq!(peer.packet().await.unwrap(), (0x30, b"\0\x01alast words".to_vec()));
    assert_eq!(peer.packet().await.unwrap(), (0xe0, Vec::new()));
    assert_eq!(peer.packet().await, None);
}

#[tokio::test]
async fn a_dropped_connection_says_disconnect_too() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept_and_greet().await;
    connected(&mut connection).await;
    drop(connection);
    assert_eq!(peer.packet().await.unwrap(), (0xe0, Vec::new()));
}

#[tokio::test]
async fn stop_takes_no_longer_than_it_may_whatever_the_peer_does() {
    let (_pki, broker, mut settings) = broker().await;
    settings.connect_timeout = Duration::from_secs(60);
    let connection = Connection::start(settings);
    let _peer = broker.accept().await;
    timeout(Duration::from_millis(2500), connection.stop()).await.unwrap();
}

#[tokio::test]
async fn idle_is_one_ping_a_keep_alive_and_nothing_else() {
    let (_pki, broker, mut settings) = broker().await;
    settings.keep_alive = Duration::from_secs(1);
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept_and_greet().await;
    connected(&mut connection).await;
    let mut pings = 0;
    let count = async {
        while let Some(packet) = peer.packet().await {
            assert_eq!(packet, (0xc0, Vec::new()));
            pings += 1;
            peer.say(&[0xd0, 0]).await;
        }
    };
    assert!(timeout(Duration::from_millis(3500), count).await.is_err(), "the link ended");
    assert_eq!(pings, 3);
}

#[tokio::test]
async fn a_message_with_qos_1_is_acknowledged() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept_and_greet().await;
    connected(&mut connection).await;
    peer.say(&[0x32, 6, 0, 1, b'a', 0, 7, b'!']).await;
    assert_eq!(message(&mut connection).await, ("a".into(), b"!".to_vec()));
    assert_eq!(peer.packet().await.unwrap(), (0x40, vec![0, 7]));
}

#[tokio::test]
async fn a_forbidden_subscription_is_named() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept().await;
    peer.packet().await.unwrap();
    peer.say(CONNACK).await;
    peer.packet().await.unwrap();
    peer.say(&[0x90, 3, 0, 1, 0x80]).await;
    let said = disconnected(&mut connection).await.to_string();
    assert!(said.contains("iot:Subscribe on topicfilter/inbox/+"), "{said}");
}

#[tokio::test]
async fn every_refusal_of_connect_says_what_to_check() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    // 7 is not MQTT 3.1.1, but AWS is said to have sent it; the last is the bare close that it sends too.
    for (answer, expected) in [
        (vec![0x20, 2, 0, 2], "client id \"device\""),
        (vec![0x20, 2, 0, 3], "not available"),
        (vec![0x20, 2, 0, 5], "iot:Connect on client/device"),
        (vec![0x20, 2, 0, 7], "iot:Connect on client/device"),
        (vec![], "iot:Connect on client/device"),
    ] {
        let mut peer = broker.accept().await;
        peer.packet().await.unwrap();
        peer.say(&answer).await;
        peer.0.shutdown().await.unwrap();
        let said = disconnected(&mut connection).await.to_string();
        assert!(said.contains(expected), "{answer:?}: {said}");
    }
}

#[tokio::test]
async fn a_hostile_broker_is_left_and_nothing_breaks() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let greeting = [CONNACK, SUBACK].concat();
    // Read as MQTT, `HT` begins a packet of 86 bytes.
    let http = [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), &[b' '; 60]].concat();
    let cases: &[(&str, &[u8], &[u8])] = &[
        ("HTTP", b"", &http),
        ("a packet type that does not exist", b"", &[0xf0, 0]),
        ("an empty CONNACK", b"", &[0x20, 0]),
        ("a remaining length of five bytes", b"", &[0x20, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("256 MB announced before CONNACK", b"", &[0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("256 MB announced later", &greeting, &[0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("SUBACK first", b"", SUBACK),
        ("SUBACK of another id", CONNACK, &[0x90, 3, 0, 9, 0]),
        ("SUBACK of id 0", CONNACK, &[0x90, 3, 0, 0, 0]),
        ("SUBACK with too many codes", CONNACK, &[0x90, 4, 0, 1, 0, 0]),
        ("SUBACK without codes", CONNACK, &[0x90, 2, 0, 1]),
        ("SUBACK with a code that does not exist", CONNACK, &[0x90, 3, 0, 1, 0x42]),
        ("a second CONNACK", &greeting, CONNACK),
        ("a CONNECT", &greeting, b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06device"),
        ("PUBLISH without a topic", &greeting, &[0x30, 0]),
        ("PUBLISH whose topic is longer than it", &greeting, &[0x30, 3, 0xff, 0xff, 0]),
        ("PUBLISH with a topic that is not UTF-8", &greeting, &[0x30, 4, 0, 2, 0xff, 0xfe]),
        ("PUBLISH with QoS 3", &greeting, &[0x36, 6, 0, 1, b'a', 0, 7, b'!']),
        ("PUBACK for nothing", &greeting, &[0x40, 2, 0, 1]),
        ("DISCONNECT, which a server may not send", &greeting, &[0xe0, 0]),
    ];
    for (name, before, junk) in cases {
        let mut peer = broker.accept().await;
        peer.packet().await.unwrap();
        peer.say(before).await;
        peer.say(junk).await;
        if *before == greeting {
            connected(&mut connection).await;
        }
        let cause = disconnected(&mut connection).await;
        assert!(matches!(cause, DisconnectCause::Protocol(_)), "{name}: {cause:?}");
        // It was the client that left.
        while timeout(PATIENCE, peer.packet()).await.unwrap().is_some() {}
    }
    broker.accept_and_greet().await;
    connected(&mut connection).await;
}

#[tokio::test]
async fn random_bytes_never_end_the_task() {
    let (_pki, broker, mut settings) = broker().await;
    settings.reconnect_max = settings.reconnect_min;
    let mut connection = Connection::start(settings);
    let mut random = fastrand::Rng::with_seed(42);
    for _ in 0..40 {
        let mut peer = broker.accept_and_greet().await;
        connected(&mut connection).await;
        let junk: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64).collect();
        peer.say(&junk).await;
        drop(peer);
        while !matches!(crate::common::next(&mut connection).await, connection::Event::Disconnected { .. }) {}
    }
}

/// Whoever does not read is not sent more: the broker stalls, and what is held stays small.
#[tokio::test]
async fn a_flood_that_nobody_reads_stalls_the_sender_and_is_not_a_dead_link() {
    let (_pki, broker, mut settings) = broker().await;
    settings.keep_alive = Duration::from_secs(1);
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept_and_greet().await;
    let one = publish(b"inbox/a", &[b'x'; 100]);
    let many = one.repeat(100_000);
    let flood = tokio::spawn(async move {
        peer.0.write_all(&many).await.unwrap();
        peer.0.flush().await.unwrap();
        peer
    });
    sleep(Duration::from_secs(2)).await;
    assert!(!flood.is_finished(), "11 MB went somewhere");
    connected(&mut connection).await;
    for _ in 0..100_000 {
        assert_eq!(message(&mut connection).await.1.len(), 100);
    }
    flood.await.unwrap();
}

#[tokio::test]
async fn suback_that_never_comes_is_a_timeout_at_that_step() {
    let (_pki, broker, mut settings) = broker().await;
    settings.connect_timeout = Duration::from_millis(300);
    let mut connection = Connection::start(settings);
    let mut peer = broker.accept().await;
    peer.packet().await.unwrap();
    peer.say(CONNACK).await;
    let cause = disconnected(&mut connection).await;
    assert!(matches!(cause, DisconnectCause::ConnectTimeout { step: Step::Suback, .. }), "{cause:?}");
}
