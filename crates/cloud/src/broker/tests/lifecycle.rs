//! Wills, and the events AWS publishes about connections.

use serde_json::{Value, json};

use super::*;

async fn event(watcher: &mut Raw) -> (String, Value) {
    let message = watcher.message().await;
    (message.topic, serde_json::from_slice(&message.payload).unwrap())
}

#[tokio::test]
async fn presence() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/presence/+/c", 0)]).await;

    let mut client = cloud.v3("c").await;
    let (topic, connected) = event(&mut watcher).await;
    assert_eq!(topic, "$aws/events/presence/connected/c");
    for (member, expected) in [
        ("clientId", json!("c")),
        ("eventType", json!("connected")),
        ("timestamp", json!(1_700_000_000_000u64)),
        ("ipAddress", json!("127.0.0.1")),
        ("principalIdentifier", Value::Null),
    ] {
        assert_eq!(connected[member], expected, "{member}");
    }
    client.write(&[0xE0, 0]).await;
    client.closed().await;
    let (topic, disconnected) = event(&mut watcher).await;
    assert_eq!(topic, "$aws/events/presence/disconnected/c");
    assert_eq!(disconnected["clientInitiatedDisconnect"], true);
    assert_eq!(disconnected["disconnectReason"], "CLIENT_INITIATED_DISCONNECT");
    assert_eq!(disconnected["sessionIdentifier"], connected["sessionIdentifier"]);

    drop(cloud.v5("c").await);
    let (_, again) = event(&mut watcher).await;
    assert_ne!(again["sessionIdentifier"], connected["sessionIdentifier"]);
    assert!(again["versionNumber"].as_u64() > connected["versionNumber"].as_u64());
    let (_, lost) = event(&mut watcher).await;
    assert_eq!(lost["clientInitiatedDisconnect"], false);
    assert_eq!(lost["disconnectReason"], "CONNECTION_LOST");
}

#[tokio::test]
async fn subscriptions() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/subscriptions/+/c", 0)]).await;
    let mut client = cloud.v3("c").await;
    client.subscribe(&[("a", 0), ("b/#", 1), ("bad#", 0)]).await;
    let (topic, subscribed) = event(&mut watcher).await;
    assert_eq!(topic, "$aws/events/subscriptions/subscribed/c");
    assert_eq!(subscribed["topics"], json!(["a", "b/#"]));
    client.write(&packet(0xA2, &[vec![0, 5], string("a")].concat())).await;
    assert_eq!(client.read().await, Some((0xB0, vec![0, 5])));
    let (topic, unsubscribed) = event(&mut watcher).await;
    assert_eq!(topic, "$aws/events/subscriptions/unsubscribed/c");
    assert_eq!(unsubscribed["topics"], json!(["a"]));
}

fn with_will(hello: Hello) -> Hello {
    Hello { will: Some(("wills/c".to_owned(), b"gone".to_vec())), ..hello }
}

#[tokio::test]
async fn a_will_is_for_every_end_that_was_not_announced() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("wills/c", 0)]).await;
    let connect = async |hello: Hello| {
        let mut raw = cloud.raw().await;
        assert_eq!(raw.connect(&with_will(hello)).await[1], 0);
        raw
    };
    let mut polite = connect(Hello::v3("c")).await;
    polite.write(&[0xE0, 0]).await;
    polite.closed().await;
    watcher.nothing_more().await;

    drop(connect(Hello::v3("c")).await);
    assert_eq!(watcher.message().await, got("wills/c", "gone"));

    let _old = connect(Hello::v3("c")).await;
    let mut new = cloud.v3("c").await;
    assert_eq!(watcher.message().await, got("wills/c", "gone"));
    new.write(&[0xE0, 0]).await;

    let _cut = connect(Hello::v3("c")).await;
    cloud.broker.cut("c");
    assert_eq!(watcher.message().await, got("wills/c", "gone"));

    // MQTT 5: DISCONNECT with the will.
    let mut five = connect(Hello::v5("c")).await;
    five.write(&[0xE0, 1, 4]).await;
    assert_eq!(watcher.message().await, got("wills/c", "gone"));
}

#[tokio::test]
async fn a_delayed_will_waits_for_the_client_to_come_back() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("wills/c", 0)]).await;
    // Session expiry 100 s, will delay 10 s.
    let mut hello = with_will(Hello::v5("c"));
    hello.properties = vec![0x11, 0, 0, 0, 100];
    hello.will_properties = vec![0x18, 0, 0, 0, 10];
    let mut raw = cloud.raw().await;
    raw.connect(&hello).await;
    drop(raw);
    while cloud.broker.is_connected("c") {
        tokio::task::yield_now().await;
    }
    watcher.nothing_more().await;
    let mut raw = cloud.raw().await;
    raw.connect(&hello).await;
    cloud.advance(11);
    cloud.broker.0.state().tick(cloud.broker.0.now());
    watcher.nothing_more().await;

    drop(raw);
    while cloud.broker.is_connected("c") {
        tokio::task::yield_now().await;
    }
    cloud.advance(9);
    cloud.broker.0.state().tick(cloud.broker.0.now());
    watcher.nothing_more().await;
    cloud.advance(1);
    assert_eq!(watcher.message().await, got("wills/c", "gone"), "the broker's own clock finds it");
}
