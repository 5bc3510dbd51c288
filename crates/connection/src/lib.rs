//! One MQTT link to AWS IoT Core. See the README for what this room is for.
//!
//! [`Connection::start`] spawns one task that connects, subscribes, keeps the link alive and comes back after every
//! loss, for ever; what happens is told through [`Connection::next`].

mod acknowledged;
mod backoff;
mod calendar;
mod cause;
#[cfg(feature = "websocket")]
pub mod credentials;
mod handshake;
mod head;
mod link;
mod metered;
pub mod probe;
mod proxy;
mod pulse;
mod route;
mod session;
#[cfg(feature = "websocket")]
mod sigv4;
mod stream;
pub mod talk;
pub mod tls;
mod validity;
#[cfg(feature = "websocket")]
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meter::Tally;
use metered::Metered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use acknowledged::{Publisher, Succession};
pub use calendar::utc;
pub use cause::{DisconnectCause, Step};
#[cfg(feature = "websocket")]
pub use credentials::{CredentialsError, Signer};
pub use proxy::{HttpProxy, MalformedProxy, Proxy, ProxyError};
pub use route::{Route, Transport};
pub use validity::Validity;
#[cfg(feature = "websocket")]
pub use websocket::UpgradeError;

/// AWS closes the connection of a client that sends more than this in one PUBLISH.
pub const MAX_PAYLOAD: usize = 128 * 1024;
/// AWS closes the connection of a client that publishes to a longer topic (UTF-8 bytes).
pub const MAX_TOPIC: usize = 256;

/// Both queues are short, because their length times [`MAX_PAYLOAD`] is the memory a hostile peer can occupy.
const QUEUE: usize = 16;
/// How late the task may be on a machine that has much else to do.
const LATE: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Host name, or an IP address that the server's certificate names. Also the SNI.
    pub endpoint: String,
    pub route: Route,
    /// Tried when `route` does not work, and the other way round: see [`Connection::route`].
    pub fallback: Option<Route>,
    pub proxy: Proxy,
    pub client_id: String,
    pub tls: Arc<rustls::ClientConfig>,
    /// Whole seconds; a link on which nothing came in for one and a half of these is dead.
    pub keep_alive: Duration,
    /// For all of name resolution, TCP, a proxy, TLS, CONNACK and SUBACK together.
    pub connect_timeout: Duration,
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    /// A link that lived this long was a good one: the next loss starts again at `reconnect_min`.
    pub stable_after: Duration,
    /// Topic filters, subscribed to with QoS 0 on every connect.
    pub subscriptions: Vec<String>,
    /// Of the reconnect jitter.
    pub seed: u64,
}

#[derive(Debug)]
pub enum Event {
    /// Connected, and every subscription is granted: what is published now can be answered.
    Connected,
    /// Lost, or not reached. The link comes back by itself; whatever was unanswered is to be asked again.
    Disconnected {
        cause: DisconnectCause,
        retry_in: Duration,
    },
    Message {
        topic: String,
        payload: Bytes,
    },
}

/// Why a publish was refused. Nothing has been sent, and the link is unharmed.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    #[error("not connected")]
    NotConnected,
    /// Of a [`Publisher`] alone: it may have arrived.
    #[error("the connection was lost before it was acknowledged")]
    Unacknowledged,
    #[error("{QUEUE} publishes are already waiting to be sent")]
    Busy,
    #[error("the payload has {found} bytes, AWS IoT Core takes at most {MAX_PAYLOAD}")]
    PayloadTooLarge { found: usize },
    #[error("the topic has {found} bytes, AWS IoT Core takes 1 to {MAX_TOPIC}")]
    TopicLength { found: usize },
    #[error("`{topic}` is not a topic: `+`, `#` and NUL cannot be published to")]
    InvalidTopic { topic: String },
}

/// The link. Dropping it says DISCONNECT too, without waiting.
#[derive(Debug)]
pub struct Connection {
    events: mpsc::Receiver<Event>,
    outgoing: mpsc::Sender<Outgoing>,
    tracked: mpsc::Sender<acknowledged::Tracked>,
    connected: watch::Receiver<bool>,
    route: watch::Receiver<Route>,
    turns_by: watch::Receiver<Instant>,
    metered: Metered,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Outgoing {
    topic: String,
    payload: Bytes,
}

impl Connection {
    /// Must be called on a tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let (events_in, events) = mpsc::channel(QUEUE);
        let (outgoing, outgoing_out) = mpsc::channel(QUEUE);
        let (tracked, tracked_out) = mpsc::channel(acknowledged::QUEUE);
        let (tell_connected, connected) = watch::channel(false);
        let (promise, turns_by) = watch::channel(Instant::now());
        let metered = Metered::default();
        let (told, route) = watch::channel(settings.route.clone());
        let link = link::Link::new(
            settings,
            events_in,
            (outgoing_out, tracked_out),
            link::Told {
                connected: tell_connected,
                route: told,
                turns_by: promise,
                metered: metered.clone(),
            },
        );
        let task = tokio::spawn(link.run());
        Self { events, outgoing, tracked, connected, route, turns_by, metered, task }
    }

    /// The next thing that happened. Cancel-safe. While nobody asks, the link reads no further: memory stays bounded.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends when this receiver is closed, and not before.
            None => std::future::pending().await,
        }
    }

    /// Does the task behind this still turn? It says, before each wait, how long that can last at most.
    pub fn answers(&self) -> bool {
        Instant::now() < *self.turns_by.borrow() + LATE
    }

    /// The way it is connected by, or tries: worth remembering, once it is connected, for the next start.
    pub fn route(&self) -> Route {
        self.route.borrow().clone()
    }

    /// Hands a message to the link, QoS 0; never blocks. `Ok` means accepted, not delivered: only an answer proves that.
    pub fn publish(&self, topic: impl Into<String>, payload: impl Into<Bytes>) -> Result<(), Error> {
        let (topic, payload) = (topic.into(), payload.into());
        check(&topic, &payload)?;
        if !*self.connected.borrow() {
            return Err(Error::NotConnected);
        }
        self.outgoing.try_send(Outgoing { topic, payload }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::NotConnected,
        })
    }

    /// Publishes over this link with QoS 1, and does not keep it from its own messages.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.ends())
    }

    pub(crate) fn ends(&self) -> acknowledged::Ends {
        acknowledged::Ends { outgoing: self.tracked.clone(), connected: self.connected.clone() }
    }

    /// What was sent and received since it was asked last, as AWS meters it.
    pub fn take_tally(&self) -> Tally {
        self.metered.take()
    }

    /// What was accepted is sent, then DISCONNECT; at most 2 s. What was metered until the end is returned.
    pub async fn stop(mut self) -> Tally {
        self.events.close();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(STOP_TIMEOUT, self.task).await.is_err() {
            abort.abort();
        }
        self.metered.take()
    }
}

/// AWS closes the connection for what this refuses.
fn check(topic: &str, payload: &Bytes) -> Result<(), Error> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Error::PayloadTooLarge { found: payload.len() });
    }
    if topic.is_empty() || topic.len() > MAX_TOPIC {
        return Err(Error::TopicLength { found: topic.len() });
    }
    if topic.contains(['+', '#', '\0']) {
        return Err(Error::InvalidTopic { topic: topic.to_owned() });
    }
    Ok(())
}
