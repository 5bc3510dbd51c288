//! The broker over real sockets. What speaks to it is either `rumqttc` or bytes written out here by hand, so that
//! the codec under test does not check itself.

mod connecting;
mod hostile;
mod lifecycle;
mod limits;
mod outside;
mod routing;
mod sessions;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Cases that have no test of their own, and why.
const ELSEWHERE: [(&str, &str); 1] =
    [("conn-alpn-missing", "there is no port 443 here, and issue 3 wants none refused for a missing ALPN")];

#[test]
fn every_case_of_the_contract_has_a_test_of_its_name() {
    let sources = [
        include_str!("connecting.rs"),
        include_str!("limits.rs"),
        include_str!("routing.rs"),
        include_str!("sessions.rs"),
        include_str!("tls.rs"),
    ]
    .concat();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test-fixtures/vectors/connection.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let tested = sources.contains(&format!("async fn {}", id.replace('-', "_")));
        let excepted = ELSEWHERE.iter().any(|(known, _)| *known == id);
        assert!(tested != excepted, "{id}: {}", if tested { "excepted, yet tested" } else { "no test" });
    }
}

/// Long enough for a busy machine; every wait for something that should come ends with it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker on free ports, with a clock that stands still until it is moved.
struct Cloud {
    broker: Broker,
    identity: Identity,
    clock: Arc<AtomicU64>,
    plain: SocketAddr,
    secure: SocketAddr,
    heard: Arc<Heard>,
    server: JoinHandle<()>,
}

/// Stands for the Jobs service: notes what devices published, and echoes `…/get` to the asking connection.
#[derive(Default)]
struct Heard {
    broker: OnceLock<Broker>,
    published: Mutex<Vec<(String, Option<String>, String)>>,
}

impl Service for Heard {
    fn published(
        &self,
        from: ConnectionId,
        client_id: &str,
        thing: Option<&str>,
        topic: &str,
        payload: &[u8],
    ) {
        let note = (client_id.to_owned(), thing.map(str::to_owned), topic.to_owned());
        self.published.lock().unwrap().push(note);
        let answer = Bytes::copy_from_slice(payload);
        self.broker.get().unwrap().send(from, &format!("{topic}/accepted"), answer);
    }
}

impl Cloud {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let identity = Identity::new("us-east-1", "123456789012", &[]).unwrap();
        let reading = Arc::clone(&clock);
        let broker = Broker::new(identity.clone(), Arc::new(move || reading.load(Ordering::SeqCst)), limits);
        let heard = Arc::new(Heard::default());
        heard.broker.set(broker.clone()).ok();
        let mqtts = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mqtt = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (secure, plain) = (mqtts.local_addr().unwrap(), mqtt.local_addr().unwrap());
        let (serving, service) = (broker.clone(), Arc::clone(&heard));
        let server = tokio::spawn(async move { serving.serve(service, mqtts, Some(mqtt)).await.unwrap() });
        Self { broker, identity, clock, plain, secure, heard, server }
    }

    fn advance(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// A socket on the plain listener that has said nothing.
    async fn raw(&self) -> Raw {
        Raw::new(TcpStream::connect(self.plain).await.unwrap())
    }

    /// A connected MQTT 3.1.1 client without a session.
    async fn v3(&self, id: &str) -> Raw {
        let mut raw = self.raw().await;
        assert_eq!(raw.connect(&Hello::v3(id)).await, [0, 0]);
        raw
    }

    /// A connected MQTT 5 client without a session.
    async fn v5(&self, id: &str) -> Raw {
        let mut raw = self.raw().await;
        assert_eq!(raw.connect(&Hello::v5(id)).await[..2], [0, 0]);
        raw
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a CONNECT says.
#[derive(Clone)]
struct Hello {
    v5: bool,
    id: String,
    clean: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    /// Topic and payload.
    will: Option<(String, Vec<u8>)>,
    will_properties: Vec<u8>,
}

impl Hello {
    fn v3(id: &str) -> Self {
        Self {
            v5: false,
            id: id.to_owned(),
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            will: None,
            will_properties: Vec::new(),
        }
    }

    fn v5(id: &str) -> Self {
        Self { v5: true, ..Self::v3(id) }
    }

    fn bytes(&self) -> Vec<u8> {
        let will_flag = if self.will.is_some() { 0b100 } else { 0 };
        let mut body = string("MQTT");
        body.push(if self.v5 { 5 } else { 4 });
        body.push((u8::from(self.clean) << 1) | will_flag);
        body.extend(self.keep_alive.to_be_bytes());
        if self.v5 {
            body.extend(sized(&self.properties));
        }
        body.extend(string(&self.id));
        if let Some((topic, payload)) = &self.will {
            if self.v5 {
                body.extend(sized(&self.will_properties));
            }
            body.extend(string(topic));
            body.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            body.extend(payload);
        }
        packet(0x10, &body)
    }
}

fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// Behind its length as a variable byte integer.
fn sized(body: &[u8]) -> Vec<u8> {
    let mut length = body.len();
    let mut bytes = Vec::new();
    loop {
        let more = length >= 128;
        bytes.push((length % 128) as u8 | if more { 128 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], sized(body)].concat()
}

/// A PUBLISH as it was read.
#[derive(Debug, PartialEq)]
struct Got {
    topic: String,
    payload: Vec<u8>,
    id: Option<u16>,
    retain: bool,
}

fn got(topic: &str, payload: &str) -> Got {
    Got { topic: topic.to_owned(), payload: payload.as_bytes().to_vec(), id: None, retain: false }
}

/// One end of a connection, byte by byte.
struct Raw {
    stream: Box<dyn Stream>,
    v5: bool,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Raw {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), v5: false }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet's first byte and body; None when the broker closed the connection.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, self.read_now()).await.expect("something from the broker")
    }

    async fn read_now(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    /// The CONNACK's body: session present, code, and what properties there are.
    async fn connect(&mut self, hello: &Hello) -> Vec<u8> {
        self.v5 = hello.v5;
        self.write(&hello.bytes()).await;
        let (first, body) = self.read().await.expect("a CONNACK");
        assert_eq!(first, 0x20);
        body
    }

    /// The codes of the SUBACK.
    async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.write_subscribe(filters).await;
        let (first, body) = self.read().await.expect("a SUBACK");
        assert_eq!((first, &body[..2]), (0x90, &[0, 9][..]));
        body[if self.v5 { 3 } else { 2 }..].to_vec()
    }

    async fn write_subscribe(&mut self, filters: &[(&str, u8)]) {
        let mut body = vec![0, 9];
        body.extend(self.v5.then_some(0));
        for (filter, options) in filters {
            body.extend(string(filter));
            body.push(*options);
        }
        self.write(&packet(0x82, &body)).await;
    }

    /// At QoS 1 when there is an id.
    async fn publish(&mut self, topic: &str, payload: &[u8], id: Option<u16>) {
        self.write_publish(if id.is_some() { 0x32 } else { 0x30 }, topic, payload, id, &[]).await;
    }

    async fn write_publish(
        &mut self,
        first: u8,
        topic: &str,
        payload: &[u8],
        id: Option<u16>,
        properties: &[u8],
    ) {
        let mut body = string(topic);
        body.extend(id.map(u16::to_be_bytes).into_iter().flatten());
        if self.v5 {
            body.extend(sized(properties));
        }
        body.extend(payload);
        self.write(&packet(first, &body)).await;
    }

    async fn puback(&mut self, id: u16) {
        self.write(&packet(0x40, &id.to_be_bytes())).await;
    }

    /// The next packet, which is a PUBLISH; properties of MQTT 5 are skipped.
    async fn message(&mut self) -> Got {
        let (first, body) = self.read().await.expect("a PUBLISH");
        self.parse(first, &body)
    }

    fn parse(&self, first: u8, body: &[u8]) -> Got {
        assert_eq!(first & 0xF0, 0x30, "not a PUBLISH: {first:#x} {body:?}");
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        let mut rest = &body[2 + length..];
        let mut id = None;
        if first & 0b110 != 0 {
            id = Some(u16::from_be_bytes([rest[0], rest[1]]));
            rest = &rest[2..];
        }
        if self.v5 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        Got { topic, payload: rest.to_vec(), id, retain: first & 1 != 0 }
    }

    /// Proves that nothing else is under way: the answer to a ping is the next thing that comes.
    async fn nothing_more(&mut self) {
        self.write(&[0xC0, 0]).await;
        assert_eq!(
            self.read().await,
            Some((0xD0, Vec::new())),
            "something came before the answer to the ping"
        );
    }

    /// The reason of an MQTT 5 DISCONNECT, and the end of the connection after it.
    async fn disconnected(&mut self) -> u8 {
        let (first, body) = self.read().await.expect("a DISCONNECT");
        assert_eq!(first, 0xE0, "{body:?}");
        self.closed().await;
        body[0]
    }

    async fn closed(&mut self) {
        assert_eq!(self.read().await, None, "the connection should have been closed");
    }
}
