//! Certificates made by openssl, a real mosquitto, and a scripted broker that says exactly the bytes it is told to.

pub mod mosquitto;
pub mod pki;
pub mod scripted;

use std::path::Path;
use std::time::Duration;

use connection::{Connection, DisconnectCause, Event, Proxy, Route, Settings, Transport, tls};

/// Far more than anything here takes; only reached by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Settings for a broker at `localhost:port`, quick to give up and quick to come back.
pub fn settings(port: u16, client_id: &str, identity: &tls::IdentityFiles) -> Settings {
    Settings {
        endpoint: "localhost".into(),
        route: Route { transport: Transport::Tls, port },
        fallback: None,
        proxy: Proxy::None,
        client_id: client_id.into(),
        tls: tls::client_config(identity).unwrap(),
        keep_alive: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(100),
        stable_after: Duration::from_secs(20),
        subscriptions: vec!["inbox/+".into()],
        seed: 1,
    }
}

pub async fn next(connection: &mut Connection) -> Event {
    tokio::time::timeout(PATIENCE, connection.next()).await.expect("nothing happened on the connection")
}

pub async fn connected(connection: &mut Connection) {
    let event = next(connection).await;
    assert!(matches!(event, Event::Connected), "{event:?}");
}

pub async fn disconnected(connection: &mut Connection) -> DisconnectCause {
    match next(connection).await {
        Event::Disconnected { cause, .. } => cause,
        other => panic!("expected a disconnect, found {other:?}"),
    }
}

pub async fn message(connection: &mut Connection) -> (String, Vec<u8>) {
    match next(connection).await {
        Event::Message { topic, payload } => (topic, payload.to_vec()),
        other => panic!("expected a message, found {other:?}"),
    }
}

/// Connects, and sends itself a message round the broker.
pub async fn assert_usable(connection: &mut Connection) {
    connected(connection).await;
    connection.publish("inbox/hello", "there and back").unwrap();
    let expected = ("inbox/hello".to_owned(), b"there and back".to_vec());
    assert_eq!(message(connection).await, expected);
}

pub fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
}
