use bytes::Bytes;

use super::*;

fn link(receive_maximum: u16) -> Link {
    let mut connect = Connect {
        client_id: "c".into(),
        clean: false,
        keep_alive: 60,
        session_expiry: 60,
        will: None,
        receive_maximum,
        max_packet: None,
    };
    Link::new(1, Arc::new(Rules::everything()), &mut connect)
}

fn message(topic: &str) -> Arc<Message> {
    Arc::new(Message::new(topic, Bytes::new()))
}

fn sent(session: &Session) -> Vec<(String, Option<u16>)> {
    let outbox = &session.link.as_ref().unwrap().outbox;
    std::iter::from_fn(|| outbox.pop())
        .map(|delivery| (delivery.message.topic.to_string(), delivery.packet_id.map(NonZeroU16::get)))
        .collect()
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).unwrap()
}

#[test]
fn no_more_in_flight_than_the_client_takes() {
    let mut session = Session::new(Version::V5, 60, link(2));
    for topic in ["a", "b", "c", "d"] {
        session.deliver(&message(topic), true, false, 0);
    }
    assert_eq!(sent(&session), [("a".into(), Some(1)), ("b".into(), Some(2))]);
    session.deliver(&message("q0"), false, false, 0);
    assert_eq!(sent(&session), [("q0".into(), None)], "QoS 0 does not wait");
    session.acknowledge(id(9), 0);
    assert_eq!(sent(&session), [], "an unknown acknowledgement changes nothing");
    session.acknowledge(id(1), 0);
    assert_eq!(sent(&session), [("c".into(), Some(3))]);
}

#[test]
fn what_was_not_acknowledged_comes_again_first_and_slowly() {
    let mut session = Session::new(Version::V3, 60, link(100));
    session.deliver(&message("unacknowledged"), true, false, 0);
    sent(&session);
    session.link = None;
    for n in 0..25 {
        session.deliver(&message(&format!("offline-{n}")), true, false, 0);
    }
    session.deliver(&message("q0"), false, false, 0);
    session.resume(60, link(100));
    assert!(session.replay(10, 0));
    let first: Vec<_> = sent(&session).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!((first.len(), &*first[0], &*first[9]), (10, "unacknowledged", "offline-8"));
    session.deliver(&message("live"), true, false, 0);
    assert_eq!(sent(&session)[0].0, "live", "live traffic does not wait for it");
    assert!(session.replay(10, 0));
    assert!(!session.replay(10, 0));
    assert_eq!(sent(&session).len(), 16);
}

#[test]
fn expired_messages_are_not_replayed() {
    let mut session = Session::new(Version::V5, 60, link(100));
    session.link = None;
    let expiring = Message { expires: Some(1000), ..Message::new("old", Bytes::new()) };
    session.deliver(&Arc::new(expiring), true, false, 0);
    session.deliver(&message("lasting"), true, false, 0);
    session.resume(60, link(100));
    session.replay(10, 1000);
    assert_eq!(sent(&session), [("lasting".into(), Some(2))]);
}

#[test]
fn storage_is_bounded_and_drops_the_new() {
    let mut session = Session::new(Version::V3, 60, link(100));
    session.link = None;
    for n in 0..STORED_MESSAGES + 5 {
        session.deliver(&message(&n.to_string()), true, false, 0);
    }
    assert_eq!(session.unsent.len(), STORED_MESSAGES);
    assert_eq!(&*session.unsent[0].message.topic, "0");
}

#[test]
fn packet_ids_in_use_are_skipped_and_never_zero() {
    let mut session = Session::new(Version::V3, 60, link(100));
    session.last_packet_id = u16::MAX - 1;
    session.deliver(&message("a"), true, false, 0);
    session.last_packet_id = u16::MAX - 1;
    session.deliver(&message("b"), true, false, 0);
    let ids: Vec<_> = sent(&session).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [Some(u16::MAX), Some(1)]);
}

#[test]
fn which_sessions_can_be_resumed() {
    let session = |version, expiry, ends| {
        let mut session = Session::new(version, expiry, link(1));
        session.ends = ends;
        session
    };
    for (found, version, now, expected) in [
        (session(Version::V3, 3600, Some(3_600_000)), Version::V3, 3_599_999, true),
        (session(Version::V3, 3600, Some(3_600_000)), Version::V3, 3_600_000, false),
        (session(Version::V3, 3600, None), Version::V3, 9_999_999, true),
        (session(Version::V3, 3600, None), Version::V5, 0, false),
        (session(Version::V3, 0, None), Version::V3, 0, false),
    ] {
        assert_eq!(found.is_resumable(version, now), expected);
    }
}
