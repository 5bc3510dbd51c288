//! The MQTT broker, behaving as AWS IoT Core's does: see `contract/connection.md` for what that means.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;

use crate::identity::Identity;

pub(crate) type ConnectionId = u64;

/// Who answers what devices publish to the reserved topics of Jobs.
pub(crate) trait Service: Send + Sync {
    /// An authorised PUBLISH to `$aws/things/…/jobs/…`. Everything else the broker routes by itself.
    /// `thing` is the thing that the connection's certificate is attached to; none on the plain listener.
    fn published(&self, from: ConnectionId, client_id: &str, thing: Option<&str>, topic: &str, payload: &[u8]);
}

/// Milliseconds since the epoch: the cloud's clock, which a test may move.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A handle on the broker: cheap to clone, callable from any task, never blocks.
#[derive(Clone)]
pub(crate) struct Broker;

impl Broker {
    pub(crate) fn new(identity: Identity, clock: Clock) -> Self {
        let _ = (identity, clock);
        Self
    }

    /// Accepts connections until the future is dropped.
    pub(crate) async fn serve(&self, service: Arc<dyn Service>, mqtts: TcpListener, mqtt: Option<TcpListener>) {
        let _ = (service, mqtts, mqtt);
        std::future::pending().await
    }

    /// To everyone subscribed, at QoS 1 where the subscription has it.
    pub(crate) fn publish(&self, topic: &str, payload: Bytes) {
        let _ = (topic, payload);
    }

    /// Straight to one connection, whether it subscribed or not.
    pub(crate) fn send(&self, to: ConnectionId, topic: &str, payload: Bytes) {
        let _ = (to, topic, payload);
    }

    /// Closes the connections of this client id, or of certificates attached to this thing.
    pub(crate) fn cut(&self, client_or_thing: &str) -> usize {
        let _ = client_or_thing;
        0
    }

    /// Refuses the next `times` connections of this client id.
    pub(crate) fn refuse(&self, client_id: &str, times: u32) {
        let _ = (client_id, times);
    }
}
