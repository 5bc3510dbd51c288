//! Ports, ALPN and proxies: which way a link takes, and what is said of one that is closed.

use connection::{
    Connection, DisconnectCause, HttpProxy, Proxy, ProxyError, Route, Settings, Step, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::mosquitto::free_port;
use crate::common::pki::{P256, Pki};
use crate::common::scripted::Scripted;
use crate::common::{connected, disconnected, settings};

async fn broker() -> (Pki, Scripted, Settings) {
    let pki = Pki::new();
    let broker = Scripted::start(&pki).await;
    let settings = settings(broker.port, "device", &pki.device("device", P256));
    (pki, broker, settings)
}

fn alpn(port: u16) -> Route {
    Route { transport: Transport::Alpn, port }
}

#[tokio::test]
async fn the_alpn_is_said_where_it_is_needed_and_only_there() {
    let (_pki, broker, mut settings) = broker().await;
    let first = Connection::start(settings.clone());
    assert_eq!(broker.accept().await.0.get_ref().1.alpn_protocol(), None);
    drop(first);
    settings.route = alpn(broker.port);
    let mut connection = Connection::start(settings);
    let peer = broker.accept_and_greet().await;
    assert_eq!(peer.0.get_ref().1.alpn_protocol(), Some(b"x-amzn-mqtt-ca".as_slice()));
    connected(&mut connection).await;
}

#[tokio::test]
async fn a_closed_port_leads_to_the_other_one_and_that_one_is_kept() {
    let (_pki, broker, mut settings) = broker().await;
    let closed = settings.route.clone();
    settings.route.port = free_port();
    settings.fallback = Some(alpn(broker.port));
    let mut connection = Connection::start(settings.clone());
    assert_eq!(connection.route(), settings.route);
    let cause = disconnected(&mut connection).await;
    assert!(matches!(cause, DisconnectCause::Unreachable { .. }), "{cause}");
    for _ in 0..3 {
        let peer = broker.accept_and_greet().await;
        connected(&mut connection).await;
        assert_eq!(connection.route(), alpn(broker.port), "not {closed:?}");
        drop(peer);
        disconnected(&mut connection).await;
    }
}

/// Answers each CONNECT with the next answer, and carries on where it is a 200.
struct TestProxy {
    listener: TcpListener,
    port: u16,
}

impl TestProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { port: listener.local_addr().unwrap().port(), listener }
    }

    /// What it was asked.
    async fn answer(&self, answer: &str) -> (String, TcpStream) {
        let (mut client, _) = self.listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(client.read_u8().await.unwrap());
        }
        client.write_all(answer.as_bytes()).await.unwrap();
        (String::from_utf8(asked).unwrap(), client)
    }

    async fn carry(&self) -> String {
        let (asked, mut client) = self.answer("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        let target = asked.split(' ').nth(1).unwrap().to_owned();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        asked
    }
}

#[tokio::test]
async fn a_proxy_is_asked_by_name_with_a_password_and_carries_what_follows() {
    let (_pki, broker, mut settings) = broker().await;
    let proxy = TestProxy::start().await;
    let url = format!("http://us%20er:p%3Ass@127.0.0.1:{}", proxy.port);
    settings.proxy = Proxy::Http(HttpProxy::parse(&url, None).unwrap());
    let target = format!("localhost:{}", broker.port);
    let mut connection = Connection::start(settings);
    let (asked, _peer) = tokio::join!(proxy.carry(), broker.accept_and_greet());
    connected(&mut connection).await;
    let expected = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic dXMgZXI6cDpzcw==\r\n\r\n"
    );
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_proxy_that_says_no_is_quoted_with_what_to_check_and_no_password() {
    let (_pki, _broker, mut settings) = broker().await;
    let proxy = TestProxy::start().await;
    let url = format!("http://user:hunter2@127.0.0.1:{}", proxy.port);
    settings.proxy = Proxy::Http(HttpProxy::parse(&url, None).unwrap());
    let mut connection = Connection::start(settings);
    for (answer, expected) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
            "are the user and the password of `proxy` right?",
        ),
        (
            "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n",
            "by way of NTLM, and only Basic is known here",
        ),
        ("HTTP/1.0 403 Filtered\r\n\r\n", "(403 Filtered): does it allow CONNECT to this host and port?"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "it does not reach localhost:"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "it is no HTTP proxy: it answers 400 Bad Request"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "it is no HTTP proxy: what came is not HTTP/1.1"),
        ("", "it closed the connection instead of answering"),
    ] {
        let (_, client) = proxy.answer(answer).await;
        drop(client);
        let cause = disconnected(&mut connection).await;
        assert!(matches!(cause, DisconnectCause::Proxy { .. }), "{cause:?}");
        let said = format!("{cause} {cause:?}");
        assert!(said.contains(expected) && said.contains(&proxy.port.to_string()), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// A proxy that never comes to an end, or to a point, costs neither memory nor for ever.
#[tokio::test]
async fn a_proxy_that_goes_on_or_says_nothing_is_given_up() {
    let (_pki, _broker, mut settings) = broker().await;
    let proxy = TestProxy::start().await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    settings.proxy = Proxy::Http(HttpProxy::parse(&url, None).unwrap());
    settings.connect_timeout = std::time::Duration::from_secs(1);
    let mut connection = Connection::start(settings);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(20_000));
    let (_, _open) = proxy.answer(&endless).await;
    match disconnected(&mut connection).await {
        DisconnectCause::Proxy { error: ProxyError::NotAProxy(why), .. } => {
            assert!(why.starts_with("more than"), "{why}");
        }
        other => panic!("{other}"),
    }
    let (_, _open) = proxy.answer("HTTP/1.1 200 OK\r\n").await;
    let cause = disconnected(&mut connection).await;
    assert!(matches!(cause, DisconnectCause::ConnectTimeout { step: Step::Proxy, .. }), "{cause}");
}
