//! What happens to a client that goes beyond AWS's limits.

use super::*;

/// The lifecycle's reason for the end of the client called `c`, as the watcher is told.
async fn reason(watcher: &mut Raw) -> String {
    let event: serde_json::Value = serde_json::from_slice(&watcher.message().await.payload).unwrap();
    event["disconnectReason"].as_str().unwrap().to_owned()
}

async fn watcher(cloud: &Cloud) -> Raw {
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/presence/disconnected/c", 0)]).await;
    watcher
}

#[tokio::test]
async fn conn_publish_oversize() {
    let cloud = Cloud::start().await;
    let mut watcher = watcher(&cloud).await;
    let mut three = cloud.v3("c").await;
    three.subscribe(&[("big", 0)]).await;
    three.publish("big", &vec![b'x'; 131_072], None).await;
    assert_eq!(three.message().await.payload.len(), 131_072, "128 KB are fine");
    three.publish("big", &vec![b'x'; 131_073], None).await;
    three.closed().await;
    assert_eq!(reason(&mut watcher).await, "CLIENT_ERROR");
    let mut five = cloud.v5("c").await;
    five.publish("big", &vec![b'x'; 131_073], None).await;
    assert_eq!(five.disconnected().await, 0x97);
    assert_eq!(reason(&mut watcher).await, "CLIENT_ERROR");
}

#[tokio::test]
async fn conn_topic_slashes_and_length() {
    let cloud = Cloud::start().await;
    let long = "x".repeat(257);
    for topic in ["a/b/c/d/e/f/g/h/i", &long, "a/+", "a/#"] {
        let mut three = cloud.v3("c").await;
        three.publish(topic, b"", None).await;
        three.closed().await;
        let mut five = cloud.v5("c").await;
        five.publish(topic, b"", None).await;
        assert_eq!(five.disconnected().await, 0x90, "{topic}");
    }
    for filter in ["a/b/c/d/e/f/g/h/+", &long] {
        let mut five = cloud.v5("c").await;
        assert_eq!(five.subscribe(&[(filter, 0)]).await, [0x8F]);
        assert_eq!(five.disconnected().await, 0x8F, "{filter}");
    }
    let mut client = cloud.v3("c").await;
    assert_eq!(client.subscribe(&[("a/b/c/d/e/f/g/+", 0)]).await, [0]);
    client.publish("a/b/c/d/e/f/g/h", b"seven slashes", None).await;
    assert_eq!(client.message().await, got("a/b/c/d/e/f/g/h", "seven slashes"));
}

#[tokio::test]
async fn conn_qos2_publish() {
    let cloud = Cloud::start().await;
    let mut three = cloud.v3("c").await;
    three.subscribe(&[("a", 0)]).await;
    three.write_publish(0x34, "a", b"", Some(1), &[]).await;
    three.nothing_more().await;
    three.write_subscribe(&[("b", 2)]).await;
    three.nothing_more().await;
    for subscribe in [false, true] {
        let mut five = cloud.v5("c").await;
        if subscribe {
            five.write_subscribe(&[("b", 2)]).await;
        } else {
            five.write_publish(0x34, "a", b"", Some(1), &[]).await;
        }
        assert_eq!(five.disconnected().await, 0x9B);
    }
}

#[tokio::test]
async fn conn_rate() {
    let cloud = Cloud::start().await;
    for v5 in [false, true] {
        let mut receiver = cloud.v3("receiver").await;
        receiver.subscribe(&[("a", 0)]).await;
        let mut sender = if v5 { cloud.v5("c").await } else { cloud.v3("c").await };
        // In one write, so that it is one second however slow the machine.
        let mut burst = Vec::new();
        for id in 1..=150u16 {
            let properties = v5.then_some(0);
            let body = [string("a"), id.to_be_bytes().to_vec(), properties.into_iter().collect(), vec![b'x']];
            burst.extend(packet(0x32, &body.concat()));
        }
        sender.write(&burst).await;
        let mut codes = Vec::new();
        for _ in 0..if v5 { 150 } else { 100 } {
            let (first, body) = sender.read().await.unwrap();
            assert_eq!(first, 0x40);
            codes.push(body.get(2).copied().unwrap_or(0));
        }
        sender.nothing_more().await;
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 100);
        assert!(codes[100..].iter().all(|code| *code == 0x97));
        // What the receiver gets counts for it as well, and it has had its hundred.
        for _ in 0..100 {
            receiver.message().await;
        }
        receiver.nothing_more().await;
    }
}

#[tokio::test]
async fn filters_per_subscribe_and_subscriptions_per_connection() {
    let cloud = Cloud::start().await;
    let names: Vec<_> = (0..50).map(|n| format!("topic/{n}")).collect();
    let mut three = cloud.v3("c").await;
    let mut five = cloud.v5("d").await;
    for eight in names.chunks(8) {
        let filters: Vec<_> = eight.iter().map(|name| (name.as_str(), 0)).collect();
        assert_eq!(three.subscribe(&filters).await, vec![0; filters.len()]);
        assert_eq!(five.subscribe(&filters).await, vec![0; filters.len()]);
    }
    assert_eq!(
        three.subscribe(&[("one/more", 0), ("topic/1", 1)]).await,
        [0x80, 1],
        "a known one may be renewed"
    );
    assert_eq!(five.subscribe(&[("one/more", 0)]).await, [0x97]);
    five.nothing_more().await;

    let nine: Vec<_> = names[..9].iter().map(|name| (name.as_str(), 0)).collect();
    three.write_subscribe(&nine).await;
    three.closed().await;
    five.write_subscribe(&nine).await;
    assert_eq!(five.disconnected().await, 0x97);
}

#[tokio::test]
async fn a_hundred_in_flight() {
    let cloud = Cloud::start().await;
    let mut receiver = cloud.v3("c").await;
    receiver.subscribe(&[("a", 1)]).await;
    for n in 0..120 {
        cloud.broker.publish("a", Bytes::from(n.to_string()));
    }
    for n in 0..100 {
        assert_eq!(receiver.message().await.payload, n.to_string().as_bytes());
    }
    receiver.nothing_more().await;
    receiver.puback(1).await;
    assert_eq!(receiver.message().await.payload, b"100");
    // MQTT 5 clients may ask for less.
    let mut raw = cloud.raw().await;
    raw.connect(&Hello { properties: vec![0x21, 0, 1], ..Hello::v5("modest") }).await;
    raw.subscribe(&[("b", 1)]).await;
    cloud.broker.publish("b", Bytes::from("1"));
    cloud.broker.publish("b", Bytes::from("2"));
    assert_eq!(raw.message().await, Got { id: Some(1), ..got("b", "1") });
    raw.nothing_more().await;
}

#[tokio::test]
async fn subscription_identifiers_are_not_there() {
    let cloud = Cloud::start().await;
    let mut five = cloud.v5("c").await;
    let body = [vec![0, 9, 2, 0x0B, 1], string("a"), vec![0]].concat();
    five.write(&packet(0x82, &body)).await;
    assert_eq!(five.disconnected().await, 0xA1);
}

#[tokio::test]
async fn too_many_bytes_are_delayed_and_not_lost() {
    let limits = Limits { bytes_per_second: Some(1000), publishes_per_second: None, ..Limits::default() };
    let cloud = Cloud::with(limits).await;
    let mut receiver = cloud.v3("receiver").await;
    receiver.subscribe(&[("a", 0)]).await;
    let mut sender = cloud.v3("c").await;
    let since = Instant::now();
    for _ in 0..5 {
        sender.publish("a", &[b'x'; 500], None).await;
    }
    for _ in 0..5 {
        assert_eq!(receiver.message().await.payload.len(), 500);
    }
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
}
