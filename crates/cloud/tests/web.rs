//! What is on port 443 at AWS: MQTT by ALPN, MQTT over WebSocket, and the credential provider.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::{Cloud, arn, aws, aws_done, operations, vectors};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

const PATIENCE: Duration = Duration::from_secs(20);
const THING: &str = "edge-01";
/// MQTT 3.1.1, clean, 60 s, the client id "w".
const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01w";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const PING: &[u8] = &[0xc0, 0];

struct World {
    cloud: Cloud,
    folder: tempfile::TempDir,
}

impl World {
    fn new(options: &[&str]) -> World {
        let cloud = Cloud::start(&[&["--https", "127.0.0.1:0"], options].concat());
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        let create = ["thing", "create", THING, "--out", out, "--api", cloud.api()];
        let created = std::process::Command::new(support::binary()).args(create).output().unwrap();
        assert!(created.status.success());
        World { cloud, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> &str {
        self.cloud.ready["https"].as_str().unwrap()
    }

    fn authority(&self) -> String {
        format!("localhost:{}", self.address().rsplit(':').next().unwrap())
    }

    fn tls(&self, with_certificate: bool, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.path("root-ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = if with_certificate {
            let key = PrivateKeyDer::from_pem_file(self.path("private.key")).unwrap();
            builder.with_client_auth_cert(vec![certificate(&self.path("certificate.pem"))], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    async fn connect(&self, with_certificate: bool, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls(with_certificate, alpn)));
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
    }

    /// A WebSocket with this URL's query, or the status that refuses it.
    async fn websocket(
        &self,
        query: &str,
        protocol: &str,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, u16> {
        let url = format!("wss://{}/mqtt?{query}", self.authority());
        let builder = ClientBuilder::new().uri(&url).unwrap();
        let header = ("sec-websocket-protocol".parse().unwrap(), protocol.parse().unwrap());
        let builder = builder.add_header(header.0, header.1).unwrap();
        match builder.connect_on(self.connect(false, &[]).await).await {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
                Ok(socket)
            }
            Err(tokio_websockets::Error::Upgrade(
                tokio_websockets::upgrade::Error::DidNotSwitchProtocols(status),
            )) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    /// A query that AWS's own signer made.
    fn query(&self, keys: (&str, &str, Option<&str>), region: &str, at: SystemTime) -> String {
        let (access_key, secret_key, token) = keys;
        let credentials = aws_credential_types::Credentials::new(
            access_key,
            secret_key,
            token.map(str::to_owned),
            None,
            "test",
        );
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.session_token_mode = SessionTokenMode::Exclude;
        settings.expires_in = Some(Duration::from_secs(300));
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("iotdevicegateway")
            .time(at)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let url = format!("https://{}/mqtt", self.authority());
        let headers = std::iter::empty::<(&str, &str)>();
        let request = SignableRequest::new("GET", url, headers, SignableBody::Bytes(b"")).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in instructions.params() {
            query.append_pair(name, value);
        }
        query.finish().replace('+', "%20")
    }

    async fn credentials(
        &self,
        client: &reqwest::Client,
        alias: &str,
        thing: Option<&str>,
    ) -> reqwest::Response {
        let url = format!("https://{}/role-aliases/{alias}/credentials", self.authority());
        let request = client.get(url);
        let request = match thing {
            Some(thing) => request.header("x-amzn-iot-thingname", thing),
            None => request,
        };
        request.send().await.unwrap()
    }

    fn client(&self, with_certificate: bool) -> reqwest::Client {
        let tls = self.tls(with_certificate, &[]);
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
    }

    /// A role alias, and a policy of the thing's certificate that allows to use it.
    fn allow(&self, alias: &str) {
        let role = arn("role/devices").replace(":iot:us-east-1:", ":iam::");
        aws_done(self.cloud.api(), &["iot", "create-role-alias", "--role-alias", alias, "--role-arn", &role]);
        let document = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": arn(&format!("rolealias/{alias}"))},
        ]});
        let principals = self.cloud.done("ListThingPrincipals", json!({"thingName": THING}), Value::Null);
        let policy = json!({"policyName": alias});
        self.cloud.done("CreatePolicy", policy.clone(), json!({"policyDocument": document.to_string()}));
        self.cloud.done("AttachPolicy", policy, json!({"target": principals["principals"][0]}));
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

const ACCOUNT: (&str, &str, Option<&str>) = ("test", "test", None);

async fn next(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Option<Vec<u8>> {
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap()? {
            Ok(message) if message.is_binary() => return Some(message.into_payload().to_vec()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[tokio::test]
async fn mqtt_is_in_the_frames_of_a_websocket_that_is_signed_and_ends_after_a_day() {
    let world = World::new(&[]);
    let query = world.query(ACCOUNT, "us-east-1", SystemTime::now());
    let mut socket = world.websocket(&query, "mqtt").await.unwrap();
    // A packet in two frames, and two packets in one.
    let (head, tail) = CONNECT.split_at(5);
    for part in [head.to_vec(), [tail, PING].concat()] {
        socket.send(Message::binary(part)).await.unwrap();
    }
    let mut answer = Vec::new();
    while answer.len() < 6 {
        answer.extend(next(&mut socket).await.unwrap());
    }
    assert_eq!(answer, [CONNACK, &[0xd0, 0]].concat());
    socket.send(Message::ping("are you there?")).await.unwrap();
    let pong = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(pong.is_pong() && &**pong.as_payload() == b"are you there?");

    world.cloud.advance(24 * 3600 - 60);
    socket.send(Message::binary(PING)).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), [0xd0, 0]);
    world.cloud.advance(60);
    socket.send(Message::binary(PING)).await.unwrap();
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn a_signature_that_is_not_right_is_403() {
    let world = World::new(&[]);
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    for (keys, region, at) in [
        (("test", "wrong", None), "us-east-1", now),
        (("nobody", "test", None), "us-east-1", now),
        (("test", "test", Some("a token that nobody gave")), "us-east-1", now),
        (ACCOUNT, "eu-west-1", now),
        (ACCOUNT, "us-east-1", now - minute * 10),
        (ACCOUNT, "us-east-1", now + minute * 10),
    ] {
        assert_eq!(
            world.websocket(&world.query(keys, region, at), "mqtt").await.err(),
            Some(403),
            "{keys:?} {region}"
        );
    }
    assert_eq!(world.websocket("", "mqtt").await.err(), Some(403));
    assert_eq!(world.websocket("X-Amz-Signature=%ff&x", "mqtt").await.err(), Some(403));
    assert_eq!(world.websocket(&world.query(ACCOUNT, "us-east-1", now), "chat").await.err(), Some(400));
}

/// The contract's `conn-alpn-missing`.
#[tokio::test]
async fn without_the_alpn_port_443_is_http_and_with_it_mqtt() {
    assert!(vectors("connection.json").iter().any(|case| case["id"] == "conn-alpn-missing"));
    let world = World::new(&[]);
    let answer = async |with_certificate, alpn: &[&[u8]]| {
        let mut stream = world.connect(with_certificate, alpn).await;
        let _ = stream.write_all(CONNECT).await;
        let mut answer = [0; 4];
        let read = timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap();
        read.map(|_| answer.to_vec()).unwrap_or_default()
    };
    let edge = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}});
    let principals = world.cloud.done("ListThingPrincipals", json!({"thingName": THING}), Value::Null);
    let policy = json!({"policyName": "all"});
    world.cloud.done("CreatePolicy", policy.clone(), json!({"policyDocument": edge.to_string()}));
    world.cloud.done("AttachPolicy", policy, json!({"target": principals["principals"][0]}));
    assert_eq!(answer(true, &[b"x-amzn-mqtt-ca"]).await, CONNACK);
    assert_eq!(answer(false, &[b"x-amzn-mqtt-ca"]).await, b"");
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let said = answer(true, alpn).await;
        assert!(said.is_empty() || said == b"HTTP", "{said:?}");
    }
}

/// The contract's `credentials-provider` and `credentials-wrong-thing`, as they stand there.
#[tokio::test]
async fn the_credential_provider_answers_as_the_contract_says() {
    let world = World::new(&[]);
    world.allow("agent");
    let client = world.client(true);
    for id in ["credentials-provider", "credentials-wrong-thing"] {
        let case = vectors("exchanges.json").into_iter().find(|case| case["id"] == id).unwrap();
        let (asked, expected) = (&case["steps"][0]["http"], &case["steps"][1]["httpResponse"]);
        let thing = asked["headers"]["x-amzn-iot-thingname"].as_str();
        assert!(asked["url"].as_str().unwrap().ends_with("/role-aliases/agent/credentials"));
        let answer = world.credentials(&client, "agent", thing).await;
        assert_eq!(u64::from(answer.status().as_u16()), expected["status"].as_u64().unwrap(), "{id}");
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        for (name, value) in expected["json"]["credentials"].as_object().into_iter().flatten() {
            let found = body["credentials"][name].as_str().unwrap_or_else(|| panic!("{name}: {body}"));
            let is_time = found.len() == value.as_str().unwrap().len() && found.ends_with('Z');
            assert!(value == "$str" || is_time, "{name}: {found}");
        }
    }
}

#[tokio::test]
async fn temporary_credentials_are_for_who_may_have_them_and_work_with_their_token() {
    let world = World::new(&["--require-sigv4"]);
    let with_certificate = world.client(true);
    let status = async |client, alias| world.credentials(client, alias, Some(THING)).await.status().as_u16();
    assert_eq!(status(&with_certificate, "agent").await, 403, "no such alias");
    let role = "arn:aws:iam::123456789012:role/devices";
    let api = world.cloud.api();
    let iot = |arguments: &[&str]| aws_done(api, &[&["iot"], arguments].concat());
    iot(&[
        "create-role-alias",
        "--role-alias",
        "other",
        "--role-arn",
        role,
        "--credential-duration-seconds",
        "900",
    ]);
    assert_eq!(status(&with_certificate, "other").await, 403, "no policy");
    let described = iot(&["describe-role-alias", "--role-alias", "other"]);
    assert_eq!(described["roleAliasDescription"]["credentialDurationSeconds"], 900);
    assert_eq!(iot(&["list-role-aliases"])["roleAliases"], json!(["other"]));
    iot(&["update-role-alias", "--role-alias", "other", "--credential-duration-seconds", "1800"]);
    iot(&["delete-role-alias", "--role-alias", "other"]);
    let gone = aws(api, &["iot", "describe-role-alias", "--role-alias", "other"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("ResourceNotFoundException"));

    let open = World::new(&[]);
    open.allow("agent");
    assert_eq!(
        open.credentials(&open.client(false), "agent", None).await.status().as_u16(),
        403,
        "no certificate"
    );
    let answer = open.credentials(&open.client(true), "agent", None).await;
    let found: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let text = |name: &str| found["credentials"][name].as_str().unwrap().to_owned();
    let (key, secret, token) = (text("accessKeyId"), text("secretAccessKey"), text("sessionToken"));
    let now = SystemTime::now();
    let good = open.query((&key, &secret, Some(&token)), "us-east-1", now);
    assert!(good.contains("X-Amz-Security-Token="), "{good}");
    assert!(open.websocket(&good, "mqtt").await.is_ok());
    for token in [None, Some("another")] {
        let query = open.query((&key, &secret, token), "us-east-1", now);
        assert_eq!(open.websocket(&query, "mqtt").await.err(), Some(403));
    }
    let _ = operations::names();
}
