//! Sessions that outlive their connection.

use super::*;

/// Whether there was a session.
async fn reconnect(cloud: &Cloud, hello: &Hello) -> (Raw, bool) {
    let mut raw = cloud.raw().await;
    let connack = raw.connect(hello).await;
    assert_eq!(connack[1], 0);
    (raw, connack[0] == 1)
}

async fn gone(cloud: &Cloud, id: &str) {
    while cloud.broker.is_connected(id) {
        tokio::task::yield_now().await;
    }
}

fn keeping(v5: bool) -> Hello {
    match v5 {
        false => Hello { clean: false, ..Hello::v3("c") },
        true => Hello { clean: false, properties: vec![0x11, 0, 0, 0x0E, 0x10], ..Hello::v5("c") },
    }
}

#[tokio::test]
async fn stored_messages_come_after_the_connack() {
    let cloud = Cloud::start().await;
    for v5 in [false, true] {
        let hello = keeping(v5);
        let (mut client, present) = reconnect(&cloud, &hello).await;
        assert!(!present);
        client.subscribe(&[("one", 1), ("zero", 0)]).await;
        cloud.broker.publish("one", Bytes::from("unacknowledged"));
        client.message().await;
        drop(client);
        gone(&cloud, "c").await;
        cloud.broker.publish("one", Bytes::from("stored"));
        cloud.broker.publish("zero", Bytes::from("QoS 0 is not stored"));

        let (mut client, present) = reconnect(&cloud, &hello).await;
        assert!(present);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let message = client.message().await;
            client.puback(message.id.unwrap()).await;
            seen.push(String::from_utf8(message.payload).unwrap());
        }
        assert_eq!(seen, ["unacknowledged", "stored"]);
        // The subscriptions are there too.
        cloud.broker.publish("zero", Bytes::from("live"));
        assert_eq!(client.message().await, got("zero", "live"));

        let clean = if v5 { Hello::v5("c") } else { Hello::v3("c") };
        let (mut client, present) = reconnect(&cloud, &clean).await;
        assert!(!present);
        cloud.broker.publish("one", Bytes::from("nobody's"));
        client.nothing_more().await;
        drop(client);
        gone(&cloud, "c").await;
        assert!(!reconnect(&cloud, &hello).await.1, "nothing is kept of a clean session");
        reconnect(&cloud, &clean).await;
    }
}

#[tokio::test]
async fn ten_stored_messages_a_second() {
    let cloud = Cloud::start().await;
    let (mut client, _) = reconnect(&cloud, &keeping(false)).await;
    client.subscribe(&[("a", 1)]).await;
    drop(client);
    gone(&cloud, "c").await;
    for n in 0..25 {
        cloud.broker.publish("a", Bytes::from(n.to_string()));
    }
    let since = Instant::now();
    let (mut client, _) = reconnect(&cloud, &keeping(false)).await;
    for n in 0..25 {
        assert_eq!(client.message().await.payload, n.to_string().as_bytes());
    }
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
}

#[tokio::test]
async fn conn_session_expired() {
    let cloud = Cloud::start().await;
    for v5 in [false, true] {
        for (offline, expected) in [(3500, true), (3600 + 1800 + 1, false)] {
            let (mut client, _) = reconnect(&cloud, &keeping(v5)).await;
            client.subscribe(&[("a", 1)]).await;
            drop(client);
            gone(&cloud, "c").await;
            cloud.broker.publish("a", Bytes::from("x"));
            cloud.advance(offline);
            let (mut client, present) = reconnect(&cloud, &keeping(v5)).await;
            assert_eq!(present, expected, "after {offline} s");
            if present {
                assert_eq!(client.message().await.payload, b"x");
            } else {
                client.nothing_more().await;
            }
            reconnect(&cloud, &if v5 { Hello::v5("c") } else { Hello::v3("c") }).await;
        }
    }
}

#[tokio::test]
async fn versions_do_not_share_sessions() {
    let cloud = Cloud::start().await;
    reconnect(&cloud, &keeping(false)).await;
    gone(&cloud, "c").await;
    assert!(!reconnect(&cloud, &keeping(true)).await.1);
    gone(&cloud, "c").await;
    assert!(!reconnect(&cloud, &keeping(false)).await.1);
}

#[tokio::test]
async fn a_session_is_taken_over_while_it_is_in_use() {
    let cloud = Cloud::start().await;
    let (mut old, _) = reconnect(&cloud, &keeping(true)).await;
    old.subscribe(&[("a", 1)]).await;
    cloud.broker.publish("a", Bytes::from("unacknowledged"));
    old.message().await;
    let (mut new, present) = reconnect(&cloud, &keeping(true)).await;
    assert!(present);
    assert_eq!(new.message().await.payload, b"unacknowledged");
    assert_eq!(old.disconnected().await, 0x8E);
    // The end of the old connection does not touch what is now the new one's.
    cloud.broker.publish("a", Bytes::from("live"));
    assert_eq!(new.message().await.payload, b"live");
}

#[tokio::test]
async fn session_expiry_in_a_disconnect() {
    let cloud = Cloud::start().await;
    let disconnect = |seconds: u8| vec![0xE0, 7, 0, 5, 0x11, 0, 0, 0, seconds];
    // Shortened: gone at once.
    let (mut client, _) = reconnect(&cloud, &keeping(true)).await;
    client.write(&disconnect(0)).await;
    client.closed().await;
    assert!(!reconnect(&cloud, &keeping(true)).await.1);
    // From none to some: a protocol error.
    let mut client = cloud.v5("d").await;
    client.write(&disconnect(10)).await;
    assert_eq!(client.disconnected().await, 0x82);
}

#[tokio::test]
async fn expired_messages_are_not_delivered() {
    let cloud = Cloud::start().await;
    let (mut client, _) = reconnect(&cloud, &keeping(true)).await;
    client.subscribe(&[("a", 1)]).await;
    drop(client);
    gone(&cloud, "c").await;
    let mut sender = cloud.v5("sender").await;
    for (seconds, payload) in [(10, "short"), (100, "long")] {
        sender.write_publish(0x32, "a", payload.as_bytes(), Some(1), &[0x02, 0, 0, 0, seconds]).await;
        sender.read().await.unwrap();
    }
    cloud.advance(20);
    let (mut client, _) = reconnect(&cloud, &keeping(true)).await;
    let (first, body) = client.read().await.unwrap();
    // What is left of its life goes along.
    assert_eq!(body[6..11], [0x02, 0, 0, 0, 80], "{body:?}");
    assert_eq!(client.parse(first, &body).payload, b"long");
    client.nothing_more().await;
}
