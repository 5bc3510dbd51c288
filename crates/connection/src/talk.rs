//! A short link of its own: connect, ask, be answered, leave. For what is not a device's everyday: provisioning, another
//! certificate, a person who wants to know how far a connection comes. It neither comes back nor keeps itself alive.

use bytes::Bytes;
use meter::Tally;
use rumqttc::mqttbytes::QoS;
use rumqttc::{Packet, Publish};
use tokio::time::timeout;

use crate::handshake;
use crate::metered::Metered;
use crate::route::blames_the_route;
use crate::session::Session;
use crate::{DisconnectCause, Route, Settings, Step};

/// What is asked once everything is subscribed.
#[derive(Debug, Clone)]
pub struct Question {
    pub topic: String,
    pub payload: Bytes,
    /// Where the answer may come.
    pub answers: Vec<String>,
}

impl Question {
    /// Of AWS's usual form: `TOPIC/accepted`, `TOPIC/rejected`.
    pub fn accepted_or_rejected(topic: String, payload: impl Into<Bytes>) -> Self {
        let answers = ["accepted", "rejected"].map(|verdict| format!("{topic}/{verdict}")).to_vec();
        Self { topic, payload: payload.into(), answers }
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub topic: String,
    pub payload: Bytes,
}

impl Answer {
    pub fn is_accepted(&self) -> bool {
        self.topic.ends_with("/accepted")
    }
}

/// Where it ended, and why.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Stuck {
    pub at: Step,
    pub cause: DisconnectCause,
}

pub struct Talk {
    session: Session,
    settings: Settings,
}

/// Counts what several talks cost, also where they end early.
#[derive(Debug, Clone, Default)]
pub struct TalkMeter(Metered);

impl TalkMeter {
    /// What was sent and received since it was asked last, as AWS meters it.
    pub fn take(&self) -> Tally {
        self.0.take()
    }
}

impl Talk {
    /// Whoever is connected with the same client id loses that connection.
    pub async fn open(settings: &Settings, meter: &TalkMeter) -> Result<Self, Stuck> {
        match Self::open_by(settings, &settings.route, meter).await {
            Err(stuck) if blames_the_route(&stuck.cause) => match &settings.fallback {
                Some(fallback) => Self::open_by(settings, fallback, meter).await,
                None => Err(stuck),
            },
            opened => opened,
        }
    }

    pub(crate) async fn open_by(
        settings: &Settings,
        route: &Route,
        meter: &TalkMeter,
    ) -> Result<Self, Stuck> {
        let mut at = Step::Resolving;
        match handshake::connect(settings, route, &meter.0, &mut at).await {
            Ok(session) => Ok(Self { session, settings: settings.clone() }),
            Err(cause) => Err(Stuck { at, cause }),
        }
    }

    pub async fn ask(&mut self, question: &Question) -> Result<Answer, Stuck> {
        let topic = question.topic.clone();
        let asked = async {
            let publish = Publish::new(topic.clone(), QoS::AtMostOnce, question.payload.clone());
            self.session.send(Packet::Publish(publish)).await?;
            loop {
                if let Packet::Publish(publish) = self.session.receive().await? {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    if question.answers.contains(&topic) {
                        return Ok(Answer { topic, payload: publish.payload });
                    }
                }
            }
        };
        let cause = match timeout(self.settings.connect_timeout, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(DisconnectCause::Closed)) => DisconnectCause::PublishRefused { topic },
            Ok(Err(cause)) => cause,
            Err(_) => DisconnectCause::NoAnswer { topic, after: self.settings.connect_timeout },
        };
        Err(Stuck { at: Step::Answer, cause })
    }

    pub async fn leave(mut self) {
        let _ = timeout(crate::STOP_TIMEOUT, self.session.leave()).await;
    }
}
