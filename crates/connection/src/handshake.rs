//! From nothing to a link on which everything is subscribed.

use rumqttc::mqttbytes::QoS;
use rumqttc::{Connect, ConnectReturnCode, Packet, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::io::AsyncWriteExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::metered::Metered;
use crate::session::Session;
use crate::{DisconnectCause, Route, Settings, Step, stream};

/// More filters in one SUBSCRIBE close the connection at AWS.
const FILTERS_PER_SUBSCRIBE: usize = 8;

/// `step` is where it is, or where it ended.
pub(crate) async fn connect(
    settings: &Settings,
    route: &Route,
    metered: &Metered,
    step: &mut Step,
) -> Result<Session, DisconnectCause> {
    let result = timeout(settings.connect_timeout, establish(settings, route, metered, step)).await;
    in_time(result, settings, *step)
}

/// Up to where MQTT would begin, and away again.
pub(crate) async fn greet(
    settings: &Settings,
    route: &Route,
    step: &mut Step,
) -> Result<(), DisconnectCause> {
    let result = timeout(settings.connect_timeout, stream::open(settings, route, step)).await;
    let mut stream = in_time(result, settings, *step)?.stream;
    let _ = timeout(settings.connect_timeout, stream.shutdown()).await;
    Ok(())
}

fn in_time<T>(
    result: Result<Result<T, DisconnectCause>, Elapsed>,
    settings: &Settings,
    step: Step,
) -> Result<T, DisconnectCause> {
    match result {
        Ok(result) => result.map_err(|cause| cause.while_at(step, &settings.client_id)),
        Err(_) => Err(DisconnectCause::ConnectTimeout { step, after: settings.connect_timeout }),
    }
}

async fn establish(
    settings: &Settings,
    route: &Route,
    metered: &Metered,
    step: &mut Step,
) -> Result<Session, DisconnectCause> {
    let opened = stream::open(settings, route, step).await?;
    let mut session = Session::new(opened, metered.clone());

    *step = Step::Connack;
    introduce(&mut session, settings).await?;
    *step = Step::Suback;
    for (filters, id) in settings.subscriptions.chunks(FILTERS_PER_SUBSCRIBE).zip(1..) {
        subscribe(&mut session, filters, id).await?;
    }
    Ok(session)
}

async fn introduce(session: &mut Session, settings: &Settings) -> Result<(), DisconnectCause> {
    let mut connect = Connect::new(&settings.client_id);
    connect.clean_session = true;
    connect.keep_alive = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX);
    session.send(Packet::Connect(connect)).await?;
    match session.receive().await? {
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(()),
        Packet::ConnAck(ack) => Err(DisconnectCause::from_connack(ack.code, &settings.client_id)),
        other => Err(unexpected(&other, "CONNACK")),
    }
}

async fn subscribe(session: &mut Session, filters: &[String], id: u16) -> Result<(), DisconnectCause> {
    let mut packet = Subscribe::new_many(
        filters.iter().map(|filter| SubscribeFilter { path: filter.clone(), qos: QoS::AtMostOnce }),
    );
    packet.pkid = id;
    session.send(Packet::Subscribe(packet)).await?;
    let ack = loop {
        match session.receive().await? {
            Packet::SubAck(ack) => break ack,
            // A message may overtake the SUBACK. Whoever listens asks again after `Connected`, so nothing is lost.
            Packet::Publish(_) => {}
            other => return Err(unexpected(&other, "SUBACK")),
        }
    };
    if ack.pkid != id || ack.return_codes.len() != filters.len() {
        return Err(DisconnectCause::Protocol(format!(
            "SUBACK {} with {} codes answers SUBSCRIBE {id} with {} filters",
            ack.pkid,
            ack.return_codes.len(),
            filters.len()
        )));
    }
    match filters.iter().zip(&ack.return_codes).find(|(_, code)| **code == SubscribeReasonCode::Failure) {
        Some((filter, _)) => Err(DisconnectCause::SubscriptionRefused { filter: filter.clone() }),
        None => Ok(()),
    }
}

pub(crate) fn unexpected(packet: &Packet, expected: &str) -> DisconnectCause {
    DisconnectCause::Protocol(format!("expected {expected}, found {:?}", packet.packet_type()))
}
