//! The connection with the identity that works: normally the one in force. One that is refused is tried again and again,
//! and between that whatever else this device may be: a device that cannot connect cannot be helped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connection::talk::TalkMeter;
use connection::{Connection, Event, Publisher, Succession};
use meter::Tally;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::config::Settings;
use crate::identity::{Generation, Loan, Store};
use crate::route::Remembered;

/// So often in a row an identity is refused before another one is tried; twice as often each time, up to the most.
const PATIENCE: u32 = 2;
const MOST_PATIENCE: u32 = 32;
/// Until a disk that gave nothing is asked again.
const UNREADABLE: Duration = Duration::from_secs(30);

pub struct Link {
    settings: Box<Settings>,
    store: Store,
    using: Generation,
    route: Remembered,
    /// Those who publish for others keep their publisher over all of it.
    succession: Succession,
    state: State,
    refusals: u32,
    patience: u32,
    /// What was metered besides the connection that there is.
    earlier: Tally,
    talks: TalkMeter,
}

enum State {
    Up(Connection),
    Lent(oneshot::Receiver<()>),
    /// AWS takes one CONNECT a second of a client id, and there was one just now.
    Resting {
        until: Instant,
    },
}

impl Link {
    /// With the identity of the settings, of which `tls` was made.
    pub fn start(settings: &Settings, tls: Arc<rustls::ClientConfig>, talks: TalkMeter) -> Self {
        let connection = &settings.connection;
        let number = connection.generation.unwrap_or_default();
        let route = Remembered::open(settings);
        let using = Generation { number, files: connection.identity.clone(), about: None };
        let connection = Connection::start(route.first(settings.link(tls)));
        Self {
            store: settings.identities(),
            succession: Succession::begin(&connection),
            state: State::Up(connection),
            settings: Box::new(settings.clone()),
            route,
            using,
            refusals: 0,
            patience: PATIENCE,
            earlier: Tally::default(),
            talks,
        }
    }

    /// The certificate that it connects with.
    pub fn certificate(&self) -> &Path {
        &self.using.files.certificate
    }

    /// The next thing that happened. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Up(connection) => {
                    let event = connection.next().await;
                    self.note(&event);
                    return event;
                }
                State::Lent(back) => {
                    let _ = back.await;
                    self.state = State::Resting { until: Instant::now() + self.pause() };
                }
                State::Resting { until } => {
                    sleep_until(*until).await;
                    let in_force = self.store.in_force().unwrap_or_else(|| self.using.clone());
                    self.connect_as(in_force);
                }
            }
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Connected => self.accepted(),
            Event::Disconnected { cause, .. } if cause.is_about_identity() => self.refused(),
            Event::Disconnected { .. } | Event::Message { .. } => {}
        }
    }

    fn accepted(&mut self) {
        (self.refusals, self.patience) = (0, PATIENCE);
        if let State::Up(connection) = &self.state {
            self.route.worked(&connection.route());
        }
        // Obtained, not yet proven, and now it is the one that works.
        if self.store.is_pending(&self.using) {
            match self.store.put_in_force(&self.using) {
                Ok(()) => {
                    tracing::warn!(name: "identity-changed", "the new certificate works, and the old one does not");
                }
                Err(error) => tracing::error!(%error, "the certificate that works could not be put in force"),
            }
        }
    }

    fn refused(&mut self) {
        self.refusals += 1;
        if self.refusals < self.patience {
            return;
        }
        self.refusals = 0;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
        if let Some(next) = self.next_identity() {
            let certificate = next.files.certificate.display().to_string();
            tracing::warn!(name: "identity-refused", certificate, "the certificate is refused, another one is tried");
            self.connect_as(next);
        }
    }

    /// The one in force, then the others, and so on round.
    fn next_identity(&self) -> Option<Generation> {
        let others = self.store.others(&self.settings.connection.thing_name);
        let mut all: Vec<_> = self.store.in_force().into_iter().chain(others).collect();
        let now = all.iter().position(|generation| generation.number == self.using.number);
        let next = now.map_or(0, |now| now + 1) % all.len().max(1);
        (next < all.len() && Some(next) != now).then(|| all.swap_remove(next))
    }

    fn connect_as(&mut self, generation: Generation) {
        let connection = &self.settings.connection;
        let usable = connection.tls(&generation.files);
        let tls = usable.inspect_err(|error| tracing::error!(%error, "this identity cannot be used"));
        let (tls, using) = match tls {
            Ok(tls) => (Some(tls), generation),
            Err(_) => (connection.tls(&self.using.files).ok(), self.using.clone()),
        };
        self.using = using;
        let Some(tls) = tls else {
            // Nothing can be read now. Later, perhaps.
            return self.replace(State::Resting { until: Instant::now() + UNREADABLE });
        };
        let connection = Connection::start(self.route.first(self.settings.link(tls)));
        self.succession.go_on(&connection);
        self.replace(State::Up(connection));
    }

    fn replace(&mut self, state: State) {
        let tally = self.take_tally();
        self.earlier.merge(&tally);
        self.state = state;
    }

    fn pause(&self) -> Duration {
        self.settings.connection.reconnect_min
    }

    /// Says DISCONNECT, and lets somebody else have the client id.
    pub async fn lend(&mut self, loan: Loan) {
        let up = std::mem::replace(&mut self.state, State::Lent(loan.back));
        if let State::Up(connection) = up {
            self.earlier.merge(&connection.stop().await);
        }
        // Whoever asked may have gone: then it is given back already.
        let _ = loan.granted.send(self.using.clone());
    }

    /// Publishes over whichever connection there is.
    pub fn publisher(&self) -> Publisher {
        self.succession.publisher()
    }

    pub fn answers(&self) -> bool {
        match &self.state {
            State::Up(connection) => connection.answers(),
            State::Lent(_) | State::Resting { .. } => true,
        }
    }

    pub fn publish(&self, topic: String, payload: Bytes) -> Result<(), connection::Error> {
        match &self.state {
            State::Up(connection) => connection.publish(topic, payload),
            State::Lent(_) | State::Resting { .. } => Err(connection::Error::NotConnected),
        }
    }

    /// What was sent and received since it was asked last, as AWS meters it.
    pub fn take_tally(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.earlier);
        tally.merge(&self.talks.take());
        if let State::Up(connection) = &self.state {
            tally.merge(&connection.take_tally());
        }
        tally
    }

    pub async fn stop(mut self) -> Tally {
        let mut tally = self.take_tally();
        if let State::Up(connection) = self.state {
            tally.merge(&connection.stop().await);
        }
        tally
    }
}
