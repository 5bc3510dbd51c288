//! CONNECT and CONNACK.

use super::*;

#[tokio::test]
async fn both_versions_connect_and_ping() {
    let cloud = Cloud::start().await;
    let (mut three, mut five) = (cloud.v3("three").await, cloud.v5("five").await);
    three.nothing_more().await;
    five.nothing_more().await;
    assert_eq!(cloud.broker.connections(), 2);
    assert!(cloud.broker.is_connected("five"));
}

/// The property's value as a number, in a CONNACK made of properties of fixed size and of one string.
fn property(connack: &[u8], wanted: u8) -> Option<u64> {
    let mut rest = &connack[3..];
    while let Some((id, tail)) = rest.split_first() {
        let size = match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 => 2 + usize::from(u16::from_be_bytes([tail[0], tail[1]])),
            other => panic!("property {other:#x} is not one of AWS's"),
        };
        if *id == wanted {
            let length = size.min(8);
            return Some(tail[..length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        rest = &tail[size..];
    }
    None
}

#[tokio::test]
async fn connack_of_mqtt_5_says_the_limits() {
    let cloud = Cloud::start().await;
    let mut raw = cloud.raw().await;
    let mut hello = Hello::v5("c");
    hello.clean = false;
    hello.properties = [vec![0x11], u32::MAX.to_be_bytes().to_vec()].concat();
    let connack = raw.connect(&hello).await;
    assert_eq!(connack[..2], [0, 0]);
    for (name, id, expected) in [
        ("session expiry, lowered", 0x11, Some(604_800)),
        ("server keep alive", 0x13, Some(60)),
        ("receive maximum", 0x21, Some(100)),
        ("topic alias maximum", 0x22, Some(8)),
        ("maximum QoS", 0x24, Some(1)),
        ("maximum packet size", 0x27, Some(131_072)),
        ("subscription identifiers", 0x29, Some(0)),
        ("assigned client id", 0x12, None),
    ] {
        assert_eq!(property(&connack, id), expected, "{name}");
    }
    // Available unless said otherwise, in MQTT 5's terms.
    for id in [0x25, 0x28] {
        assert_ne!(property(&connack, id), Some(0));
    }
}

async fn keep_alive(requested: u16) -> Option<u64> {
    let hello = Hello { keep_alive: requested, ..Hello::v5("c") };
    property(&Cloud::start().await.raw().await.connect(&hello).await, 0x13)
}

#[tokio::test]
async fn conn_keepalive_zero() {
    assert_eq!(keep_alive(0).await, Some(1200));
}

#[tokio::test]
async fn conn_keepalive_low() {
    for requested in [1, 10, 29, 30] {
        assert_eq!(keep_alive(requested).await, Some(30), "{requested}");
    }
}

#[tokio::test]
async fn conn_keepalive_high() {
    assert_eq!(keep_alive(3600).await, Some(1200));
}

#[tokio::test]
async fn conn_keepalive_timeout() {
    // A second instead of AWS's thirty.
    let cloud = Cloud::with(Limits { keep_alive: (1, 1200), ..Limits::default() }).await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/presence/disconnected/+", 0)]).await;
    for v5 in [false, true] {
        let mut raw = cloud.raw().await;
        let mut hello = if v5 { Hello::v5("silent") } else { Hello::v3("silent") };
        hello.keep_alive = 1;
        let since = Instant::now();
        assert_eq!(raw.connect(&hello).await[..2], [0, 0]);
        if v5 {
            assert_eq!(raw.disconnected().await, 0x8D);
        } else {
            raw.closed().await;
        }
        let waited = since.elapsed();
        assert!(waited >= Duration::from_millis(1500), "{waited:?}");
        let event: serde_json::Value = serde_json::from_slice(&watcher.message().await.payload).unwrap();
        assert_eq!(event["disconnectReason"], "MQTT_KEEP_ALIVE_TIMEOUT");
    }
    // Whoever speaks now and then stays.
    let mut raw = cloud.raw().await;
    let mut hello = Hello::v3("pinging");
    hello.keep_alive = 1;
    raw.connect(&hello).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        raw.nothing_more().await;
    }
}

#[tokio::test]
async fn conn_dollar_client_id_and_other_ids() {
    let cloud = Cloud::start().await;
    for (id, accepted) in [("$x", false), (&"x".repeat(129), false), (&"x".repeat(128), true), ("é", true)] {
        let code = cloud.raw().await.connect(&Hello::v5(id)).await[1];
        assert_eq!(code, if accepted { 0 } else { 0x85 }, "{id}");
        let code = cloud.raw().await.connect(&Hello::v3(id)).await[1];
        assert_eq!(code, if accepted { 0 } else { 2 }, "{id}");
    }
}

#[tokio::test]
async fn an_empty_client_id_is_assigned_one() {
    let cloud = Cloud::start().await;
    let connack = cloud.raw().await.connect(&Hello::v5("")).await;
    assert!(property(&connack, 0x12).is_some(), "{connack:?}");
    assert_eq!(cloud.raw().await.connect(&Hello::v3("")).await, [0, 0]);
    // Without a clean start there would be nothing to name the session by.
    let keeping = Hello { clean: false, ..Hello::v3("") };
    assert_eq!(cloud.raw().await.connect(&keeping).await, [0, 2]);
}

#[tokio::test]
async fn conn_duplicate_client_id() {
    let cloud = Cloud::start().await;
    let mut watcher = cloud.v3("watcher").await;
    watcher.subscribe(&[("$aws/events/presence/disconnected/twin", 0)]).await;
    for v5 in [false, true] {
        let mut old = if v5 { cloud.v5("twin").await } else { cloud.v3("twin").await };
        let mut new = cloud.v3("twin").await;
        if v5 {
            assert_eq!(old.disconnected().await, 0x8E);
        } else {
            old.closed().await;
        }
        new.nothing_more().await;
        let event: serde_json::Value = serde_json::from_slice(&watcher.message().await.payload).unwrap();
        assert_eq!(event["disconnectReason"], "DUPLICATE_CLIENTID");
        new.write(&[0xE0, 0]).await;
        new.closed().await;
        watcher.message().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_its_connack_is_served() {
    let cloud = Cloud::start().await;
    let mut raw = cloud.raw().await;
    raw.write(&[Hello::v3("eager").bytes(), vec![0xC0, 0]].concat()).await;
    assert_eq!(raw.read().await, Some((0x20, vec![0, 0])));
    assert_eq!(raw.read().await, Some((0xD0, vec![])));
}

#[tokio::test]
async fn refused_on_purpose_as_often_as_was_asked() {
    let cloud = Cloud::start().await;
    cloud.broker.refuse("c", 2);
    for expected in [3, 3, 0] {
        assert_eq!(cloud.raw().await.connect(&Hello::v3("c")).await[1], expected);
    }
    cloud.broker.refuse("c", 9);
    cloud.broker.refuse("c", 0);
    assert_eq!(cloud.raw().await.connect(&Hello::v3("c")).await[1], 0);
}

#[tokio::test]
async fn cut_on_purpose() {
    let cloud = Cloud::start().await;
    let (mut three, mut five) = (cloud.v3("three").await, cloud.v5("five").await);
    assert_eq!(cloud.broker.cut("three") + cloud.broker.cut("five") + cloud.broker.cut("nobody"), 2);
    three.closed().await;
    assert_eq!(five.disconnected().await, 0x98);
}

#[tokio::test]
async fn connect_rate_is_limited_where_asked_for() {
    let cloud = Cloud::with(Limits { connects_per_second: Some(1), ..Limits::default() }).await;
    let codes = [
        cloud.raw().await.connect(&Hello::v5("c")).await[1],
        cloud.raw().await.connect(&Hello::v5("c")).await[1],
    ];
    assert_eq!(codes, [0, 0x97]);
    assert_eq!(cloud.raw().await.connect(&Hello::v5("other")).await[1], 0);
}
