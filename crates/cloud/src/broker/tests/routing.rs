//! Who gets what: filters, QoS, retained messages, reserved topics, direct answers.

use super::*;

#[tokio::test]
async fn qos_is_the_lower_of_the_two_across_versions() {
    let cloud = Cloud::start().await;
    let (mut three, mut five) = (cloud.v3("three").await, cloud.v5("five").await);
    assert_eq!(three.subscribe(&[("a/+", 1), ("b", 0)]).await, [1, 0]);
    assert_eq!(five.subscribe(&[("a/+", 1), ("b", 0)]).await, [1, 0]);
    let mut sender = cloud.v3("sender").await;
    for (topic, id, expected) in [("a/1", None, None), ("a/2", Some(7), Some(1)), ("b", Some(8), None)] {
        sender.publish(topic, b"x", id).await;
        if let Some(id) = id {
            assert_eq!(sender.read().await, Some((0x40, id.to_be_bytes().to_vec())));
        }
        for receiver in [&mut three, &mut five] {
            assert_eq!(receiver.message().await, Got { id: expected, ..got(topic, "x") });
        }
    }
}

#[tokio::test]
async fn conn_multilevel_parent() {
    let cloud = Cloud::start().await;
    let mut client = cloud.v3("c").await;
    client.subscribe(&[("sensor/#", 0)]).await;
    client.publish("sensor", b"parent", None).await;
    client.publish("sensor/a", b"child", None).await;
    assert_eq!(client.message().await, got("sensor/a", "child"));
    client.nothing_more().await;
}

#[tokio::test]
async fn unsubscribe() {
    let cloud = Cloud::start().await;
    let mut five = cloud.v5("five").await;
    five.subscribe(&[("a", 0)]).await;
    let filters = [string("a"), string("never")].concat();
    five.write(&packet(0xA2, &[vec![0, 5, 0], filters].concat())).await;
    assert_eq!(five.read().await, Some((0xB0, vec![0, 5, 0, 0x00, 0x11])));
    five.publish("a", b"x", None).await;
    five.nothing_more().await;
}

#[tokio::test]
async fn answers_go_to_the_asking_connection_alone() {
    let cloud = Cloud::start().await;
    let (mut device, mut other) = (cloud.v3("lamp").await, cloud.v5("other").await);
    let topic = "$aws/things/lamp/jobs/get";
    other.subscribe(&[("$aws/things/lamp/jobs/#", 1)]).await;
    device.publish(topic, b"1", None).await;
    assert_eq!(
        device.message().await,
        got("$aws/things/lamp/jobs/get/accepted", "1"),
        "without a subscription"
    );
    // With a subscription at QoS 1 the answer has it too.
    device.subscribe(&[("$aws/things/lamp/jobs/get/+", 1)]).await;
    device.publish(topic, b"2", None).await;
    assert_eq!(device.message().await.id, Some(1));
    // Neither the request nor the answers were the other's to see; notifications are.
    cloud.broker.publish("$aws/things/lamp/jobs/notify", Bytes::from("n"));
    assert_eq!(other.message().await, Got { id: Some(1), ..got("$aws/things/lamp/jobs/notify", "n") });
    device.nothing_more().await;
}

#[tokio::test]
async fn retained_messages() {
    let cloud = Cloud::start().await;
    let mut client = cloud.v3("c").await;
    client.write_publish(0x31, "kept/a", b"1", None, &[]).await;
    client.write_publish(0x31, "kept/b", b"2", None, &[]).await;
    client.write_publish(0x31, "kept/b", b"", None, &[]).await;
    assert_eq!(client.subscribe(&[("kept/+", 0), ("kept/b", 0)]).await, [0, 0]);
    client.nothing_more().await;
    assert_eq!(client.subscribe(&[("kept/a", 1)]).await, [1]);
    assert_eq!(client.message().await, Got { retain: true, ..got("kept/a", "1") });
    // To those who are subscribed already it is an ordinary message.
    client.write_publish(0x31, "kept/a", b"3", None, &[]).await;
    assert_eq!(client.message().await, got("kept/a", "3"));

    let mut shared = cloud.v3("shared").await;
    shared.subscribe(&[("$share/group/kept/a", 0)]).await;
    shared.nothing_more().await;

    // MQTT 5: retain handling 2 wants none, 1 only for a new subscription; retain as published keeps the flag.
    let mut five = cloud.v5("five").await;
    five.subscribe(&[("kept/a", 0x20)]).await;
    five.nothing_more().await;
    five.subscribe(&[("kept/a", 0x10)]).await;
    five.nothing_more().await;
    five.subscribe(&[("kept/a", 0x08)]).await;
    assert!(five.message().await.retain);
    five.write_publish(0x31, "kept/a", b"4", None, &[]).await;
    assert_eq!(five.message().await, Got { retain: true, ..got("kept/a", "4") });
}

#[tokio::test]
async fn conn_retain_reserved() {
    let cloud = Cloud::start().await;
    let mut three = cloud.v3("c").await;
    three.write_publish(0x31, "$aws/things/x/shadow/update", b"{}", None, &[]).await;
    three.closed().await;
    let mut five = cloud.v5("c").await;
    five.write_publish(0x31, "$aws/things/x/shadow/update", b"{}", None, &[]).await;
    assert_eq!(five.disconnected().await, 0x90);
}

#[tokio::test]
async fn conn_shadow_response_to_others() {
    let cloud = Cloud::start().await;
    let (mut a, mut b) = (cloud.v3("a").await, cloud.v3("b").await);
    b.subscribe(&[("$aws/things/a/shadow/update/accepted", 0)]).await;
    a.publish("$aws/things/a/shadow/update/accepted", b"{}", None).await;
    assert_eq!(b.message().await, got("$aws/things/a/shadow/update/accepted", "{}"));
}

#[tokio::test]
async fn no_local_and_properties_of_mqtt_5() {
    let cloud = Cloud::start().await;
    let (mut sender, mut receiver) = (cloud.v5("sender").await, cloud.v5("receiver").await);
    sender.subscribe(&[("a", 0x04)]).await;
    receiver.subscribe(&[("a", 0)]).await;
    // Content type "t", user property k=v, message expiry 30 s.
    let properties = [
        vec![0x03],
        string("t"),
        vec![0x26],
        string("k"),
        string("v"),
        [vec![0x02], 30u32.to_be_bytes().to_vec()].concat(),
    ]
    .concat();
    sender.write_publish(0x30, "a", b"x", None, &properties).await;
    sender.nothing_more().await;
    let (_, body) = receiver.read().await.unwrap();
    let found = &body[4..4 + usize::from(body[3])];
    for part in properties.chunk_by(|_, next| ![0x02, 0x03, 0x26].contains(next)) {
        assert!(found.windows(part.len()).any(|window| window == part), "{part:?} in {found:?}");
    }
    // MQTT 3 gets the message without them.
    let mut three = cloud.v3("three").await;
    three.subscribe(&[("a", 0)]).await;
    sender.write_publish(0x30, "a", b"y", None, &properties).await;
    assert_eq!(three.message().await, got("a", "y"));
}

#[tokio::test]
async fn conn_reserved_slashes() {
    let cloud = Cloud::start().await;
    let mut client = cloud.v3("c").await;
    let filter = "$aws/commands/things/t/executions/+/response/accepted/json";
    assert_eq!(client.subscribe(&[(filter, 1)]).await, [1]);
}

#[tokio::test]
async fn topic_aliases() {
    let cloud = Cloud::start().await;
    let mut client = cloud.v5("c").await;
    client.subscribe(&[("long/topic", 0)]).await;
    client.write_publish(0x30, "long/topic", b"1", None, &[0x23, 0, 8]).await;
    client.write_publish(0x30, "", b"2", None, &[0x23, 0, 8]).await;
    assert_eq!(client.message().await, got("long/topic", "1"));
    assert_eq!(client.message().await, got("long/topic", "2"));
    client.write_publish(0x30, "", b"3", None, &[0x23, 0, 7]).await;
    assert_eq!(client.disconnected().await, 0x94, "not set");
    let mut client = cloud.v5("c").await;
    client.write_publish(0x30, "a", b"", None, &[0x23, 0, 9]).await;
    assert_eq!(client.disconnected().await, 0x94, "more than eight");
}

#[tokio::test]
async fn a_client_that_takes_small_packets_gets_no_large_ones() {
    let cloud = Cloud::start().await;
    let mut raw = cloud.raw().await;
    let hello = Hello { properties: vec![0x27, 0, 0, 0, 100], ..Hello::v5("small") };
    raw.connect(&hello).await;
    raw.subscribe(&[("a", 1)]).await;
    let mut sender = cloud.v3("sender").await;
    for _ in 0..150 {
        // More than may be in flight: what is discarded must not count as unacknowledged.
        cloud.broker.publish("a", Bytes::from(vec![b'x'; 200]));
    }
    sender.publish("a", b"fits", Some(1)).await;
    assert_eq!(&raw.message().await.payload, b"fits");
}
