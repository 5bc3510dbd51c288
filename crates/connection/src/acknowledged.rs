//! Publishing with QoS 1, for whoever must know that a message has arrived. The service's PUBACK is free.

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{Packet, Publish};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Connection, Error, check};

/// AWS takes 100 before it has acknowledged one.
const MAX_IN_FLIGHT: usize = 16;
/// Beside the queue of the [`Connection`](crate::Connection): who publishes much does not keep it from its own messages.
pub(crate) const QUEUE: usize = 4;

/// Publishes over a [`Connection`](crate::Connection), from any thread.
#[derive(Debug, Clone)]
pub struct Publisher {
    ends: Ends,
    successors: watch::Receiver<Ends>,
}

/// Those of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) outgoing: mpsc::Sender<Tracked>,
    pub(crate) connected: watch::Receiver<bool>,
}

/// One connection after the other, for publishers that outlive each of them.
#[derive(Debug)]
pub struct Succession(watch::Sender<Ends>);

impl Succession {
    pub fn begin(connection: &Connection) -> Self {
        Self(watch::Sender::new(connection.ends()))
    }

    /// Its publishers are those of this connection from now on.
    pub fn go_on(&self, connection: &Connection) {
        self.0.send_replace(connection.ends());
    }

    pub fn publisher(&self) -> Publisher {
        let successors = self.0.subscribe();
        Publisher { ends: self.0.borrow().clone(), successors }
    }
}

#[derive(Debug)]
pub(crate) struct Tracked {
    topic: String,
    payload: Bytes,
    acknowledged: oneshot::Sender<()>,
}

impl Publisher {
    pub(crate) fn new(ends: Ends) -> Self {
        // Nobody will send another.
        Self { successors: watch::Sender::new(ends.clone()).subscribe(), ends }
    }

    pub fn is_connected(&self) -> bool {
        *self.ends.connected.borrow()
    }

    /// Until `is_connected` may have changed. Cancel-safe; never, once the last connection has ended.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.successors.changed() => self.ends = self.successors.borrow_and_update().clone(),
            Ok(()) = self.ends.connected.changed() => {}
            else => std::future::pending::<()>().await,
        }
    }

    /// Ends when the service has acknowledged it. `NotConnected` means that it was not sent, `Unacknowledged` that it may have
    /// arrived. How long that may take is for the caller to say.
    pub async fn publish(&self, topic: String, payload: impl Into<Bytes>) -> Result<(), Error> {
        let payload = payload.into();
        check(&topic, &payload)?;
        if !self.is_connected() {
            return Err(Error::NotConnected);
        }
        let (acknowledged, told) = oneshot::channel();
        let message = Tracked { topic, payload, acknowledged };
        self.ends.outgoing.send(message).await.map_err(|_| Error::NotConnected)?;
        told.await.map_err(|_| Error::Unacknowledged)
    }
}

/// Of one link. Who waits for the rest is told when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    waiting: Vec<(u16, oneshot::Sender<()>)>,
    sent: u64,
}

impl InFlight {
    pub(crate) fn has_room(&mut self) -> bool {
        // Those who gave up do not count.
        self.waiting.retain(|(_, acknowledged)| !acknowledged.is_closed());
        self.waiting.len() < MAX_IN_FLIGHT
    }

    /// `None` if nobody waits for it any more.
    pub(crate) fn begin(&mut self, message: Tracked) -> Option<Packet> {
        if message.acknowledged.is_closed() {
            return None;
        }
        // 0 is no packet id; and what is in flight is much less than there are.
        let id = (self.sent % u64::from(u16::MAX)) as u16 + 1;
        self.sent += 1;
        self.waiting.push((id, message.acknowledged));
        let mut publish = Publish::new(message.topic, QoS::AtLeastOnce, message.payload);
        publish.pkid = id;
        Some(Packet::Publish(publish))
    }

    /// Whether there was anything to acknowledge: it may be that nobody waits for it any more.
    pub(crate) fn acknowledged(&mut self, id: u16) -> bool {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
            let _ = self.waiting.swap_remove(at).1.send(());
        }
        id != 0 && u64::from(id) <= self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> (Tracked, oneshot::Receiver<()>) {
        let (acknowledged, told) = oneshot::channel();
        (Tracked { topic: "t".to_owned(), payload: Bytes::new(), acknowledged }, told)
    }

    fn id(packet: Option<Packet>) -> Option<u16> {
        match packet {
            Some(Packet::Publish(publish)) => Some(publish.pkid),
            _ => None,
        }
    }

    #[test]
    fn as_many_are_in_flight_as_wait_for_an_answer() {
        let mut in_flight = InFlight { sent: u64::from(u16::MAX) - 1, ..InFlight::default() };
        let mut told = Vec::new();
        for expected in [u16::MAX].into_iter().chain(1..MAX_IN_FLIGHT as u16) {
            assert!(in_flight.has_room());
            let (message, receiver) = message();
            assert_eq!(id(in_flight.begin(message)), Some(expected));
            told.push(receiver);
        }
        assert!(!in_flight.has_room());
        // What was sent long ago, and what never was.
        assert!(in_flight.acknowledged(4711));
        assert!(!in_flight.acknowledged(0));
        assert!(!InFlight::default().acknowledged(1));
        assert!(!in_flight.has_room());
        assert!(in_flight.acknowledged(3));
        assert_eq!(told[3].try_recv(), Ok(()));
        assert!(in_flight.has_room());
        // Who does not wait any more has no place, and is not sent.
        told.truncate(2);
        assert!(in_flight.has_room());
        assert_eq!(in_flight.waiting.len(), 2);
        let (gone, receiver) = message();
        drop(receiver);
        assert_eq!(in_flight.begin(gone), None);
    }

    #[tokio::test]
    async fn a_publisher_goes_on_with_the_next_connection() {
        let ends = |connected| {
            let (outgoing, messages) = mpsc::channel(QUEUE);
            let (tell, connected) = watch::channel(connected);
            (Ends { outgoing, connected }, messages, tell)
        };
        let (first, messages, tell) = ends(true);
        let succession = Succession(watch::Sender::new(first));
        let mut publisher = succession.publisher();
        assert!(publisher.is_connected());
        drop((messages, tell));
        assert_eq!(publisher.publish("t".to_owned(), "x").await, Err(Error::NotConnected));

        let (second, mut messages, tell) = ends(false);
        succession.0.send_replace(second);
        publisher.changed().await;
        assert!(!publisher.is_connected());
        tell.send_replace(true);
        publisher.changed().await;
        let published = tokio::spawn(async move { publisher.publish("t".to_owned(), "x").await });
        messages.recv().await.unwrap().acknowledged.send(()).unwrap();
        assert_eq!(published.await.unwrap(), Ok(()));
    }
}
