//! The MQTT broker, behaving as AWS IoT Core's does.
//!
//! From the outside in: `listener` accepts, `connection` reads and writes (`wire`; `codec` and `packet` make one of
//! MQTT 3.1.1 and 5), `client` checks each packet against the rules (`topic`, `limits`, `identity::policy`), and
//! `state` is what all share: sessions (`session`), subscriptions (`routes`), what is retained.

mod client;
mod close;
mod codec;
mod connection;
mod events;
mod limits;
mod listener;
mod meter;
mod outbox;
mod outside;
mod packet;
mod routes;
mod session;
mod state;
mod topic;
mod wire;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::identity::{self, Identity, Principal};
use client::Peer;
use close::Close;
pub(crate) use limits::{Limits, PACKET_BYTES};
pub(crate) use outside::{Attachment, Outside};
use packet::Message;
use state::{Now, State};

pub(crate) type ConnectionId = u64;

/// Who answers what devices publish to the reserved topics of Jobs and shadows.
pub(crate) trait Service: Send + Sync {
    /// An authorised PUBLISH to `$aws/things/…/jobs/…`, or a request to a shadow. Everything else, and the latter too,
    /// the broker routes by itself.
    /// `thing` is the thing that the connection's certificate is attached to; none on the plain listener.
    fn published(
        &self,
        from: ConnectionId,
        client_id: &str,
        thing: Option<&str>,
        topic: &str,
        payload: &[u8],
    );
}

/// Milliseconds since the epoch: the cloud's clock, which a test may move.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A handle on the broker: cheap to clone, callable from any task, never blocks.
#[derive(Clone)]
pub(crate) struct Broker(Arc<Embedded>);

/// The broker in this process.
struct Embedded {
    limits: Limits,
    identity: Identity,
    arn_prefix: String,
    clock: Clock,
    started: Instant,
    state: Mutex<State>,
    meter: meter::Meter,
    outside: OnceLock<outside::Sender>,
}

impl Broker {
    pub(crate) fn new(identity: Identity, clock: Clock, limits: Limits) -> Self {
        let embedded = Arc::new(Embedded {
            arn_prefix: identity.arn_prefix(),
            state: Mutex::new(State::new(limits.clone())),
            limits,
            identity,
            clock,
            started: Instant::now(),
            meter: meter::Meter::default(),
            outside: OnceLock::new(),
        });
        let weak = Arc::downgrade(&embedded);
        embedded.identity.on_revoked(move |certificate| {
            if let Some(embedded) = weak.upgrade() {
                embedded
                    .state()
                    .close(Close::Administrative, |_, _, principal| principal == Some(certificate));
            }
        });
        Self(embedded)
    }

    /// Accepts connections until the future is dropped.
    pub(crate) async fn serve(
        &self,
        service: Arc<dyn Service>,
        mqtts: TcpListener,
        mqtt: Option<TcpListener>,
    ) -> Result<(), identity::Error> {
        listener::serve(&self.0, service, mqtts, mqtt).await
    }

    /// Serves one connection that was accepted elsewhere. Without a principal it may do everything; it is closed when it is
    /// used after `ends`, by the cloud's clock.
    pub(crate) async fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        address: IpAddr,
        principal: Option<Principal>,
        ends: Option<u64>,
        service: Arc<dyn Service>,
    ) {
        connection::run(stream, Peer { address, principal, ends }, Arc::clone(&self.0), service).await;
    }

    /// Serves the things of another broker too. The attachment does so while it is `run`.
    pub(crate) fn attach(&self, outside: &Outside) -> Result<Attachment, outside::Error> {
        let (sender, attachment) = outside::connect(outside)?;
        self.0.outside.set(sender).map_err(|_| outside::Error::Twice)?;
        Ok(attachment)
    }

    /// To everyone subscribed, at QoS 1 where the subscription has it.
    pub(crate) fn publish(&self, topic: &str, payload: Bytes) {
        if let Some(outside) = self.0.outside.get() {
            outside.publish(topic, payload.clone());
        }
        let now = self.0.now();
        self.0.state().publish(Message::new(topic, payload), None, now);
    }

    /// Straight to one connection, whether it subscribed or not: QoS 0, or that of its subscription.
    pub(crate) fn send(&self, to: ConnectionId, topic: &str, payload: Bytes) {
        if to == outside::CONNECTION {
            if let Some(outside) = self.0.outside.get() {
                outside.publish(topic, payload);
            }
            return;
        }
        let now = self.0.now();
        self.0.state().send(to, Message::new(topic, payload), now);
    }

    /// Closes the connections of this client id, or of certificates attached to this thing; says how many.
    pub(crate) fn cut(&self, client_or_thing: &str) -> usize {
        let meant = |client: &str, thing: Option<&str>, _: Option<&str>| {
            client == client_or_thing || thing == Some(client_or_thing)
        };
        self.0.state().close(Close::Administrative, meant)
    }

    /// Refuses the next `times` connections of this client id; 0: no more.
    pub(crate) fn refuse(&self, client_id: &str, times: u32) {
        self.0.state().refuse(client_id, times);
    }

    /// Lets everybody connect again; how many client ids had been refused.
    pub(crate) fn refuse_nobody(&self) -> usize {
        self.0.state().refuse_nobody()
    }

    /// What AWS would bill each client for.
    pub(crate) fn metered(&self) -> serde_json::Value {
        self.0.meter.report()
    }

    #[cfg(test)]
    pub(crate) fn is_connected(&self, client_id: &str) -> bool {
        self.0.state().is_connected(client_id)
    }

    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.0.state().connections()
    }
}

impl Embedded {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let real = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { cloud: (self.clock)(), real }
    }

    fn disconnect(&self, id: ConnectionId, close: Close, expiry: Option<u32>) {
        let now = self.now();
        self.state().disconnect(id, close, expiry, now);
    }
}

#[cfg(test)]
mod tests;
