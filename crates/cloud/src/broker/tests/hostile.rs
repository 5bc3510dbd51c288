//! Bytes that no client should send: they end their own connection and nothing else.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn not_mqtt() {
    let cloud = Cloud::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0; 64],
        &[0xFF; 64],
        // PUBLISH, SUBSCRIBE and PINGREQ before CONNECT.
        &[0x30, 4, 0, 1, b'a', b'x', 0, 0, 0, 0, 0, 0],
        &[0x82, 6, 0, 1, 0, 1, b'a', 0, 0, 0, 0],
        &[0xC0, 0, 0, 0, 0, 0, 0, 0, 0],
        // CONNECT: of another protocol, of MQTT 6, cut short inside, with a reserved flag.
        b"\x10\x0C\x00\x04NOPE\x04\x02\x00\x3C\x00\x00",
        b"\x10\x0C\x00\x04MQTT\x06\x02\x00\x3C\x00\x00",
        b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x09",
        b"\x10\x0D\x00\x04MQTT\x04\x03\x00\x3C\x00\x01c",
        // Longer than any packet may be.
        &[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T', b'T', 4, 2],
    ] {
        let mut raw = cloud.raw().await;
        raw.write(bytes).await;
        raw.closed().await;
    }
    // MQTT 3.1 is answered in its own words.
    let mut raw = cloud.raw().await;
    raw.write(b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c").await;
    assert_eq!(raw.read().await, Some((0x20, vec![0, 1])));
    raw.closed().await;
    cloud.v3("c").await.nothing_more().await;
}

#[tokio::test]
async fn wrong_after_the_connack() {
    let cloud = Cloud::start().await;
    for (bytes, code) in [
        (Hello::v5("c").bytes(), 0x82),
        // What only servers send, QoS 2's, AUTH.
        (vec![0x20, 3, 0, 0, 0], 0x82),
        (vec![0x50, 2, 0, 1], 0x82),
        (vec![0x62, 2, 0, 1], 0x82),
        (vec![0xF0, 0], 0x82),
        // A SUBSCRIBE without filters, a packet id of 0, QoS 3, an id missing.
        (vec![0x82, 3, 0, 0, 0], 0x81),
        (vec![0x36, 5, 0, 1, b'a', 0, 1], 0x81),
        (vec![0x40, 1, 0], 0x81),
        // A reserved bit in the first byte.
        (vec![0x80, 5, 0, 1, 0, 0, 0], 0x83),
        // Announces more than may come.
        (vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], 0x97),
    ] {
        let mut five = cloud.v5("c").await;
        five.write(&bytes).await;
        let (first, body) = five.read().await.unwrap();
        assert_eq!(first, 0xE0);
        assert!(body[0] == code || (code == 0x83 && body[0] == 0x81), "{bytes:x?}: {:#x}", body[0]);
        five.closed().await;
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/presence/disconnected/+", 1)]).await;
    let mut stuck = cloud.v3("stuck").await;
    stuck.subscribe(&[("flood", 0)]).await;
    let mut live = cloud.v3("live").await;
    live.subscribe(&[("live", 1)]).await;
    // More than the socket buffers and the outbox can hold together.
    let big = Bytes::from(vec![b'x'; 100_000]);
    let mut sent = 0;
    while cloud.broker.is_connected("stuck") {
        assert!(sent < 10_000, "it should have been disconnected by now");
        cloud.broker.0.state().publish(
            Message { at_least_once: false, ..Message::new("flood", big.clone()) },
            None,
            Now { cloud: 0, real: sent * 20 },
        );
        sent += 1;
        tokio::task::yield_now().await;
        if sent % 50 == 0 {
            cloud.broker.publish("live", Bytes::from("on time"));
            let message = live.message().await;
            assert_eq!(message.payload, b"on time");
            live.puback(message.id.unwrap()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let event: serde_json::Value = serde_json::from_slice(&watcher.message().await.payload).unwrap();
    assert_eq!(
        (event["clientId"].as_str(), event["disconnectReason"].as_str()),
        (Some("stuck"), Some("THROTTLED"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Packets that are right but for a few bytes get further than noise does.
    #[test]
    fn damaged_packets_do_not_end_the_broker(
        v5: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let will = Some(("wills/c".to_owned(), b"gone".to_vec()));
        let mut bytes = Hello { will, ..if v5 { Hello::v5("c") } else { Hello::v3("c") } }.bytes();
        let properties: &[u8] = if v5 { &[12, 0x23, 0, 1, 0x26, 0, 1, b'k', 0, 1, b'v', 0x01, 1] } else { &[] };
        let none: &[u8] = if v5 { &[0] } else { &[] };
        bytes.extend(packet(0x82, &[&[0, 1], none, &string("a/#"), &[1]].concat()));
        bytes.extend(packet(0x32, &[string("a/b").as_slice(), &[0, 2], properties, b"x"].concat()));
        bytes.extend(packet(0xA2, &[&[0, 3], none, &string("a/#")].concat()));
        for (place, value) in damage {
            *place.get_mut(&mut bytes) = value;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cloud = Cloud::start().await;
            let mut raw = cloud.raw().await;
            let _ = raw.stream.write_all(&bytes).await;
            // Until it has answered what it understood, or has had enough.
            let _ = timeout(Duration::from_millis(5), async { while raw.read_now().await.is_some() {} }).await;
            drop(raw);
            cloud.v3("after").await.nothing_more().await;
            while cloud.broker.connections() > 1 {
                tokio::task::yield_now().await;
            }
            assert!(!cloud.server.is_finished());
        });
    }

    /// Whatever bytes follow a CONNECT, in whatever pieces: the broker serves on.
    #[test]
    fn no_bytes_end_the_broker(
        v5: bool,
        packets in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        connect_first: bool,
        piece in 1usize..50,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cloud = Cloud::start().await;
            let mut raw = cloud.raw().await;
            if connect_first {
                raw.connect(&if v5 { Hello::v5("c") } else { Hello::v3("c") }).await;
            }
            let mut bytes: Vec<u8> = packets.iter().flat_map(|(first, body)| packet(*first, body)).collect();
            bytes.extend(tail);
            for piece in bytes.chunks(piece) {
                // The broker may have had enough of it.
                if raw.stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(raw);
            cloud.v3("after").await.nothing_more().await;
            while cloud.broker.connections() > 1 {
                tokio::task::yield_now().await;
            }
            assert!(!cloud.server.is_finished());
        });
    }
}
