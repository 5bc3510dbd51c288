//! The task behind a [`Connection`](crate::Connection): connect, serve, wait, again.

use rumqttc::mqttbytes::QoS;
use rumqttc::{Packet, PubAck, Publish};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::debug;

use crate::acknowledged::{InFlight, Tracked};
use crate::backoff::Backoff;
use crate::handshake::{self, unexpected};
use crate::metered::Metered;
use crate::pulse::{Beat, Pulse};
use crate::route::Choice;
use crate::session::Session;
use crate::{DisconnectCause, Event, Outgoing, Route, STOP_TIMEOUT, Settings, Step};

/// So many short lives in a row are no accident.
const SHORT_LIVES: u32 = 3;

pub(crate) struct Link {
    settings: Settings,
    events: mpsc::Sender<Event>,
    outgoing: mpsc::Receiver<Outgoing>,
    tracked: mpsc::Receiver<Tracked>,
    told: Told,
    choice: Choice,
    backoff: Backoff,
    short_lives: u32,
}

/// What the [`Connection`](crate::Connection) sees without asking.
pub(crate) struct Told {
    pub(crate) connected: watch::Sender<bool>,
    pub(crate) route: watch::Sender<Route>,
    pub(crate) turns_by: watch::Sender<Instant>,
    pub(crate) metered: Metered,
}

/// The one who listened has gone: say DISCONNECT and end.
struct Stopped;

impl Link {
    pub(crate) fn new(
        settings: Settings,
        events: mpsc::Sender<Event>,
        (outgoing, tracked): (mpsc::Receiver<Outgoing>, mpsc::Receiver<Tracked>),
        told: Told,
    ) -> Self {
        let backoff = Backoff::new(settings.reconnect_min, settings.reconnect_max, settings.seed);
        Self { settings, events, outgoing, tracked, told, choice: Choice::default(), backoff, short_lives: 0 }
    }

    pub(crate) async fn run(mut self) {
        while let Ok(cause) = self.live_once().await {
            let retry_in = self.backoff.next();
            debug!(%cause, ?retry_in, "no link");
            if self.events.send(Event::Disconnected { cause, retry_in }).await.is_err() {
                return;
            }
            self.told.turns_by.send_replace(Instant::now() + retry_in);
            tokio::select! {
                () = sleep(retry_in) => {}
                () = self.events.closed() => return,
            }
        }
    }

    /// One link from CONNECT to its end.
    async fn live_once(&mut self) -> Result<DisconnectCause, Stopped> {
        let mut step = Step::Resolving;
        self.told.turns_by.send_replace(Instant::now() + self.settings.connect_timeout);
        let fallback = self.settings.fallback.as_ref().filter(|_| self.choice.is_fallback());
        let route = fallback.unwrap_or(&self.settings.route);
        self.told.route.send_replace(route.clone());
        let connecting = tokio::select! {
            result = handshake::connect(&self.settings, route, &self.told.metered, &mut step) => result,
            () = self.events.closed() => return Err(Stopped),
        };
        let mut session = match connecting {
            Ok(session) => session,
            Err(cause) => {
                self.choice.failed(&cause);
                return Ok(cause);
            }
        };
        self.choice.worked();
        let born = Instant::now();
        self.told.connected.send_replace(true);
        let ended = self.serve(&mut session).await;
        self.told.connected.send_replace(false);
        match ended {
            Ok(cause) => {
                // What was handed over for the old link is asked again on the next one, by whoever wants its answer.
                while self.outgoing.try_recv().is_ok() || self.tracked.try_recv().is_ok() {}
                Ok(self.judge(cause, born.elapsed() >= self.settings.stable_after))
            }
            Err(Stopped) => {
                let _ = timeout(STOP_TIMEOUT, self.say_goodbye(&mut session)).await;
                Err(Stopped)
            }
        }
    }

    async fn serve(&mut self, session: &mut Session) -> Result<DisconnectCause, Stopped> {
        let mut pulse = Pulse::new(self.settings.keep_alive, Instant::now());
        let mut in_flight = InFlight::default();
        let end = session.end();
        tokio::pin!(end);
        self.events.send(Event::Connected).await.map_err(|_| Stopped)?;
        loop {
            let (due, beat) = pulse.next();
            self.told.turns_by.send_replace(pulse.dead_at());
            let packet = tokio::select! {
                () = self.events.closed() => return Err(Stopped),
                Some(message) = self.outgoing.recv() => message.into_packet(),
                Some(message) = self.tracked.recv(), if in_flight.has_room() => match in_flight.begin(message) {
                    Some(packet) => packet,
                    None => continue,
                },
                received = session.receive() => match received {
                    Ok(packet) => {
                        let reply = match self.take_in(packet, &mut in_flight).await? {
                            Ok(reply) => reply,
                            Err(cause) => return Ok(cause),
                        };
                        // Only now: a slow listener is not a silent broker.
                        pulse.heard(Instant::now());
                        match reply {
                            Some(reply) => reply,
                            None => continue,
                        }
                    }
                    Err(cause) => return Ok(cause),
                },
                () = &mut end => {
                    let _ = timeout(STOP_TIMEOUT, session.leave()).await;
                    return Ok(DisconnectCause::Renewal);
                }
                () = sleep_until(due) => match beat {
                    Beat::Ping => Packet::PingReq,
                    Beat::Dead => return Ok(self.silent()),
                },
            };
            let is_ping = packet == Packet::PingReq;
            match timeout_at(pulse.dead_at(), session.send(packet)).await {
                Ok(Ok(())) if is_ping => pulse.pinged(Instant::now()),
                Ok(Ok(())) => pulse.sent(Instant::now()),
                Ok(Err(cause)) => return Ok(cause),
                Err(_) => return Ok(self.silent()),
            }
        }
    }

    /// Tells the listener about a packet; what is to be answered, if anything.
    async fn take_in(
        &self,
        packet: Packet,
        in_flight: &mut InFlight,
    ) -> Result<Result<Option<Packet>, DisconnectCause>, Stopped> {
        let publish = match packet {
            Packet::Publish(publish) => publish,
            Packet::PingResp => return Ok(Ok(None)),
            Packet::PubAck(ack) if in_flight.acknowledged(ack.pkid) => return Ok(Ok(None)),
            other => return Ok(Err(unexpected(&other, "PUBLISH, PUBACK or PINGRESP"))),
        };
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else {
            return Ok(Err(DisconnectCause::Protocol("a topic is not UTF-8".into())));
        };
        let payload = publish.payload;
        self.events.send(Event::Message { topic, payload }).await.map_err(|_| Stopped)?;
        // Nothing is subscribed to with QoS 1, but a message sent straight to this client may have it.
        Ok(Ok((publish.qos == QoS::AtLeastOnce).then(|| Packet::PubAck(PubAck::new(publish.pkid)))))
    }

    fn silent(&self) -> DisconnectCause {
        DisconnectCause::Silent { after: self.settings.keep_alive * 3 / 2 }
    }

    /// A link that lived is forgiven everything; one that was closed at once, again and again, has a rival.
    fn judge(&mut self, cause: DisconnectCause, stable: bool) -> DisconnectCause {
        if stable {
            self.backoff.reset();
            self.short_lives = 0;
        } else if matches!(cause, DisconnectCause::Closed) {
            self.short_lives += 1;
            if self.short_lives >= SHORT_LIVES {
                return DisconnectCause::TakenOver {
                    client_id: self.settings.client_id.clone(),
                    times: self.short_lives,
                };
            }
        }
        cause
    }

    async fn say_goodbye(&mut self, session: &mut Session) {
        while let Ok(message) = self.outgoing.try_recv() {
            if session.send(message.into_packet()).await.is_err() {
                return;
            }
        }
        session.leave().await;
    }
}

impl Outgoing {
    fn into_packet(self) -> Packet {
        Packet::Publish(Publish::new(self.topic, QoS::AtMostOnce, self.payload))
    }
}
