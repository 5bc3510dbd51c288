//! From nothing to a link on which everything is subscribed.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::{Connect, ConnectReturnCode, Packet, Subscribe, SubscribeFilter, SubscribeReasonCode};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::metered::Metered;
use crate::session::Session;
use crate::{DisconnectCause, Settings, Step};

/// More filters in one SUBSCRIBE close the connection at AWS.
const FILTERS_PER_SUBSCRIBE: usize = 8;

/// `step` is where it is, or where it ended.
pub(crate) async fn connect(
    settings: &Settings,
    metered: &Metered,
    step: &mut Step,
) -> Result<Session, DisconnectCause> {
    let result = timeout(settings.connect_timeout, establish(settings, metered, step)).await;
    in_time(result, settings, *step)
}

/// Up to the end of the TLS handshake, and away again.
pub(crate) async fn greet(settings: &Settings, step: &mut Step) -> Result<(), DisconnectCause> {
    let result = timeout(settings.connect_timeout, encrypt(settings, step)).await;
    let mut tls = in_time(result, settings, *step)?;
    let _ = timeout(settings.connect_timeout, tls.shutdown()).await;
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
    metered: &Metered,
    step: &mut Step,
) -> Result<Session, DisconnectCause> {
    let tls = encrypt(settings, step).await?;
    let mut session = Session::new(tls, metered.clone());

    *step = Step::Connack;
    introduce(&mut session, settings).await?;
    *step = Step::Suback;
    for (filters, id) in settings.subscriptions.chunks(FILTERS_PER_SUBSCRIBE).zip(1..) {
        subscribe(&mut session, filters, id).await?;
    }
    Ok(session)
}

async fn encrypt(settings: &Settings, step: &mut Step) -> Result<TlsStream<TcpStream>, DisconnectCause> {
    let host = settings.endpoint.as_str();
    let server_name = ServerName::try_from(host.to_owned())
        .map_err(|_| DisconnectCause::InvalidEndpoint(host.to_owned()))?;
    let addresses: Vec<_> = lookup_host((host, settings.port))
        .await
        .map_err(|source| DisconnectCause::Resolve { host: host.to_owned(), source })?
        .collect();

    *step = Step::Connecting;
    let tcp = reach(&addresses, settings.connect_timeout).await?;
    // Requests are small and waited for: Nagle against delayed acknowledgements costs 40 ms each.
    tcp.set_nodelay(true).map_err(DisconnectCause::Broken)?;

    *step = Step::TlsHandshake;
    let connector = TlsConnector::from(settings.tls.clone());
    connector.connect(server_name, tcp).await.map_err(DisconnectCause::from_io)
}

/// Tries one address after the other, each with its share of the time: a black hole among them (IPv6 on a network
/// that only pretends to have it) must not eat what the others need.
async fn reach(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, DisconnectCause> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut outcome = Err(DisconnectCause::Broken(std::io::ErrorKind::AddrNotAvailable.into()));
    for address in addresses {
        let attempt = timeout(limit / count, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(tcp) => return Ok(tcp),
            Err(source) => {
                outcome = Err(DisconnectCause::Unreachable { address: address.to_string(), source });
            }
        }
    }
    outcome
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
