//! MQTT over WebSocket against a server that says exactly what it is told to, and against one that means no good.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use connection::credentials::{RoleAlias, Source};
use connection::{Connection, DisconnectCause, Route, Settings, Signer, Step, Transport};
use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::pki::{P256, Pki};
use crate::common::scripted::{CONNACK, Peer, SUBACK, Scripted, publish};
use crate::common::{connected, disconnected, message, settings};

const CREDENTIALS: &str = r#"{"credentials":{"accessKeyId":"AKID","secretAccessKey":"hunter2","sessionToken":"to/ken==","expiration":"2035-01-01T00:00:00Z"}}"#;
const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The broker is the credential provider, too.
async fn broker() -> (Pki, Scripted, Settings) {
    let pki = Pki::new();
    let broker = Scripted::web(&pki).await;
    let mut settings = settings(broker.port, "device", &pki.device("device", P256));
    let alias = RoleAlias {
        endpoint: "localhost".to_owned(),
        port: broker.port,
        name: "fleet/1".to_owned(),
        thing_name: "edge-01".to_owned(),
    };
    let signer = Signer::new("eu-west-1".to_owned(), Source::RoleAlias(alias));
    settings.route = Route { transport: Transport::WebSocket(signer), port: broker.port };
    (pki, broker, settings)
}

/// Up to the empty line.
async fn head(peer: &mut Peer) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(peer.0.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

async fn give_credentials(broker: &Scripted) -> String {
    let mut peer = broker.accept().await;
    let asked = head(&mut peer).await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CREDENTIALS}", CREDENTIALS.len());
    peer.say(answer.as_bytes()).await;
    asked
}

async fn upgrade(broker: &Scripted) -> (Peer, String) {
    let mut peer = broker.accept().await;
    let asked = head(&mut peer).await;
    let key = asked.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let accept = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    peer.say(answer.as_bytes()).await;
    (peer, asked)
}

/// First byte and content of a frame, unmasked.
async fn frame(peer: &mut Peer) -> (u8, Vec<u8>) {
    let (first, length) = (peer.0.read_u8().await.unwrap(), peer.0.read_u8().await.unwrap());
    assert_eq!(length & 0x80, 0x80, "a client masks");
    let length = match length & 0x7f {
        126 => usize::from(peer.0.read_u16().await.unwrap()),
        length => usize::from(length),
    };
    let mut mask = [0; 4];
    peer.0.read_exact(&mut mask).await.unwrap();
    let mut content = vec![0; length];
    peer.0.read_exact(&mut content).await.unwrap();
    (first, content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

fn framed(first: u8, content: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(content.len()).unwrap()], content].concat()
}

async fn greet(broker: &Scripted) -> Peer {
    let (mut peer, _) = upgrade(broker).await;
    assert_eq!(frame(&mut peer).await.1[0], 0x10, "CONNECT comes first");
    peer.say(&framed(BINARY, CONNACK)).await;
    assert_eq!(frame(&mut peer).await.1[0], 0x82, "then SUBSCRIBE");
    peer.say(&framed(BINARY, SUBACK)).await;
    peer
}

#[tokio::test]
async fn the_upgrade_is_signed_with_the_token_behind_and_credentials_are_asked_for_once() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let asked = give_credentials(&broker).await;
    assert!(asked.starts_with("GET /role-aliases/fleet%2F1/credentials HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-amzn-iot-thingname: edge-01\r\n"), "{asked}");
    for _ in 0..2 {
        let (peer, asked) = upgrade(&broker).await;
        let (first, rest) = asked.split_once("\r\n").unwrap();
        assert!(
            first.starts_with("GET /mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F"),
            "{first}"
        );
        assert!(first.contains("%2Feu-west-1%2Fiotdevicegateway%2Faws4_request&"), "{first}");
        assert!(first.ends_with("&X-Amz-Security-Token=to%2Fken%3D%3D HTTP/1.1"), "{first}");
        assert!(rest.contains(&format!("Host: localhost:{}\r\n", broker.port)), "{rest}");
        assert!(rest.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{rest}");
        // Away before CONNACK: it comes again, with the same credentials.
        drop(peer);
        disconnected(&mut connection).await;
    }
}

#[tokio::test]
async fn packets_come_in_frames_of_any_size_and_pings_are_answered_between_them() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    give_credentials(&broker).await;
    let mut peer = greet(&broker).await;
    connected(&mut connection).await;
    let packets = [publish(b"inbox/1", b"one"), publish(b"inbox/2", b"two")].concat();
    for byte in &packets {
        peer.say(&framed(BINARY, &[*byte])).await;
    }
    peer.say(&[framed(BINARY, b""), framed(PING, b"alive?"), framed(BINARY, &packets)].concat()).await;
    // A message in two fragments.
    let (start, end) = packets.split_at(7);
    peer.say(&[framed(0x02, start), framed(0x80, end)].concat()).await;
    for _ in 0..3 {
        assert_eq!(message(&mut connection).await, ("inbox/1".to_owned(), b"one".to_vec()));
        assert_eq!(message(&mut connection).await, ("inbox/2".to_owned(), b"two".to_vec()));
    }
    assert_eq!(frame(&mut peer).await, (PONG, b"alive?".to_vec()));
    connection.publish("outbox", "hello").unwrap();
    assert_eq!(frame(&mut peer).await, (BINARY, publish(b"outbox", b"hello")));
    let stopped = tokio::spawn(connection.stop());
    assert_eq!(frame(&mut peer).await, (BINARY, vec![0xe0, 0]));
    assert_eq!(frame(&mut peer).await.0, CLOSE);
    drop(peer);
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_left() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    give_credentials(&broker).await;
    let huge = [vec![BINARY, 127], (1_u64 << 40).to_be_bytes().to_vec()].concat();
    let masked = [&[BINARY, 0x81, 0, 0, 0, 0], &[0_u8][..]].concat();
    for (bytes, expected) in [
        (framed(CLOSE, &[3, 0xe8]), "the server closed the connection"),
        (framed(TEXT, b"hello"), "a text frame, where MQTT is binary"),
        (huge, "the connection broke"),
        (masked, "the connection broke"),
        (framed(0x83, b"x"), "the connection broke"),
        (framed(BINARY, b"\xff\xff\xff\xff\xff\xff"), "broke the MQTT protocol"),
    ] {
        let mut peer = greet(&broker).await;
        connected(&mut connection).await;
        peer.say(&bytes).await;
        let said = disconnected(&mut connection).await.to_string();
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
}

/// Who pings and never reads is not read any further: the answers would be kept.
#[tokio::test]
async fn pings_without_end_cost_no_memory() {
    let (_pki, broker, mut settings) = broker().await;
    settings.keep_alive = Duration::from_secs(2);
    let mut connection = Connection::start(settings);
    give_credentials(&broker).await;
    let mut peer = greet(&broker).await;
    connected(&mut connection).await;
    let pings = framed(PING, &[7; 125]).repeat(1000);
    // The sockets' buffers are full some time, and then nothing more is taken.
    let flood = async {
        for _ in 0..2000 {
            if peer.0.write_all(&pings).await.is_err() {
                return;
            }
        }
        panic!("a quarter of a gigabyte was taken");
    };
    let (cause, ()) = tokio::join!(disconnected(&mut connection), flood);
    assert!(matches!(cause, DisconnectCause::Silent { .. }), "{cause}");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_says_what_to_check() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    give_credentials(&broker).await;
    for (answer, expected) in [
        (
            "HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: ForbiddenException\r\n\r\n",
            "(403 Forbidden, ForbiddenException): are the AWS credentials valid",
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "does not open a WebSocket (404 Not Found)"),
        ("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n", "it has not understood the request"),
        ("\x20\x02\0\0", "it does not speak HTTP/1.1"),
    ] {
        let mut peer = broker.accept().await;
        head(&mut peer).await;
        peer.say(answer.as_bytes()).await;
        let cause = disconnected(&mut connection).await;
        let said = format!("{cause} {cause:?}");
        assert!(matches!(cause, DisconnectCause::Upgrade(_)) && said.contains(expected), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("to/ken"), "{said}");
    }
    let mut peer = broker.accept().await;
    head(&mut peer).await;
    peer.say(&[b"HTTP/1.1 101 OK\r\nX: ".as_slice(), &[b'a'; 9000]].concat()).await;
    let said = disconnected(&mut connection).await.to_string();
    assert!(said.contains("its headers have no end"), "{said}");
}

#[tokio::test]
async fn a_service_without_credentials_is_quoted_and_bounded() {
    let (_pki, broker, settings) = broker().await;
    let mut connection = Connection::start(settings);
    let expired = CREDENTIALS.replace("2035", "2015");
    let long = format!("{{\"credentials\":\"{}\"}}", "x".repeat(70_000));
    for (status, body, expected) in [
        (
            "403 Forbidden",
            "{\"message\":\"no\\u001b[31m\"}",
            "refuses (403 Forbidden, no[31m): does a policy",
        ),
        ("500 Oops", "", "refuses (500 Internal Server Error)"),
        ("200 OK", "<html>", "its answer is not JSON"),
        ("200 OK", "{}", "there are no credentials in it"),
        ("200 OK", &long, "has more than 65536 bytes"),
        ("200 OK", &expired, "expired at 2015-01-01T00:00:00Z; this device's clock says "),
        ("200 OK", &CREDENTIALS.replace("2035-", "soon-"), "its Expiration is not a time"),
    ] {
        let mut peer = broker.accept().await;
        head(&mut peer).await;
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        peer.say(answer.as_bytes()).await;
        let cause = disconnected(&mut connection).await;
        let said = format!("{cause} {cause:?}");
        assert!(
            said.contains("credential provider") && said.contains(expected),
            "{expected:?} is not in {said}"
        );
        assert!(!said.contains("hunter2") && !said.contains("to/ken"), "{said}");
    }
    // It goes on from there.
    give_credentials(&broker).await;
    greet(&broker).await;
    connected(&mut connection).await;
    assert_ne!(Step::Upgrade.to_string(), Step::Credentials.to_string());
}
