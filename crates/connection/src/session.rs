//! Packets over one stream, each of them metered.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use meter::{Class, Direction};
use rumqttc::{Codec, Packet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::Framed;

use crate::DisconnectCause;
use crate::metered::Metered;
use crate::stream::{Opened, Stream};

/// 128 KiB of payload, a topic and headers; whoever announces more is cut off before it is read.
pub(crate) const MAX_PACKET: usize = 146 * 1024;
/// The server closes a connection that was given up. Some do not.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    stream: Framed<Box<dyn Stream>, Codec>,
    /// When another one is to take its place, if that is known.
    ends: Option<Instant>,
    metered: Metered,
}

impl Session {
    pub(crate) fn new(opened: Opened, metered: Metered) -> Self {
        let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
        Self { stream: Framed::new(opened.stream, codec), ends: opened.ends, metered }
    }

    /// Returns when it has lived long enough.
    pub(crate) fn end(&self) -> impl Future<Output = ()> + use<> {
        let ends = self.ends;
        async move {
            match ends {
                Some(ends) => sleep_until(ends).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) async fn send(&mut self, packet: Packet) -> Result<(), DisconnectCause> {
        let cost = cost(&packet);
        self.stream.send(packet).await.map_err(DisconnectCause::from_codec)?;
        if let Some((class, bytes)) = cost {
            self.metered.count(class, Direction::Sent, bytes);
        }
        Ok(())
    }

    /// Cancel-safe: what has come in of a packet stays here.
    pub(crate) async fn receive(&mut self) -> Result<Packet, DisconnectCause> {
        match self.stream.next().await {
            Some(Ok(packet)) => {
                // The service's own acknowledgements are free.
                if let Some((class, bytes)) =
                    cost(&packet).filter(|(class, _)| *class != Class::Acknowledgement)
                {
                    self.metered.count(class, Direction::Received, bytes);
                }
                Ok(packet)
            }
            Some(Err(error)) => Err(DisconnectCause::from_codec(error)),
            None => Err(DisconnectCause::Closed),
        }
    }

    /// Without DISCONNECT the cloud would report a lost device; if it fails, that is what it is.
    pub(crate) async fn leave(&mut self) {
        let _ = self.send(Packet::Disconnect).await;
        let _ = self.stream.close().await;
        // What is under way is metered, too; and a socket that is closed over unread bytes resets the connection, which
        // may cost the DISCONNECT.
        let _ = timeout(FAREWELL, async { while self.receive().await.is_ok() {} }).await;
    }
}

/// What AWS meters, and how many bytes of it. Pings, DISCONNECT and the service's acknowledgements are free.
fn cost(packet: &Packet) -> Option<(Class, usize)> {
    match packet {
        // Protocol name, level, flags and keep-alive are ten bytes.
        Packet::Connect(connect) => Some((Class::Connect, 12 + connect.client_id.len())),
        Packet::Subscribe(subscribe) => {
            let bytes = subscribe.filters.iter().map(|filter| filter.path.len()).sum();
            Some((Class::Subscribe, bytes))
        }
        // In MQTT 3.1.1 billed as one unit, although it has four bytes.
        Packet::PubAck(_) => Some((Class::Acknowledgement, 4)),
        Packet::Publish(publish) => {
            let class = std::str::from_utf8(&publish.topic).map_or(Class::Other, Class::of);
            Some((class, publish.topic.len() + publish.payload.len()))
        }
        _ => None,
    }
}
