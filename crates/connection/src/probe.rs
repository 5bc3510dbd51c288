//! One attempt at a connection, for a person who wants to know how far it comes.

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{Packet, Publish};
use tokio::time::timeout;

use crate::handshake;
use crate::metered::Metered;
use crate::{DisconnectCause, Settings, Step};

/// What is asked once everything is subscribed.
#[derive(Debug, Clone)]
pub struct Question {
    pub topic: String,
    pub payload: Bytes,
    /// Where the answer may come.
    pub answers: Vec<String>,
}

/// Where it ended, and why.
#[derive(Debug)]
pub struct Stuck {
    pub at: Step,
    pub cause: DisconnectCause,
}

/// The whole way, and the topic that the answer came on. Whoever is connected with the same client id loses that connection.
pub async fn probe(settings: &Settings, question: &Question) -> Result<String, Stuck> {
    let mut at = Step::Resolving;
    let mut session = match handshake::connect(settings, &settings.route, &Metered::default(), &mut at).await
    {
        Ok(session) => session,
        Err(cause) => return Err(Stuck { at, cause }),
    };
    let topic = question.topic.clone();
    let asked = async {
        let publish = Publish::new(topic.clone(), QoS::AtMostOnce, question.payload.clone());
        session.send(Packet::Publish(publish)).await?;
        loop {
            if let Packet::Publish(publish) = session.receive().await? {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                if question.answers.contains(&topic) {
                    return Ok(topic);
                }
            }
        }
    };
    let cause = match timeout(settings.connect_timeout, asked).await {
        Ok(Ok(answer)) => {
            session.leave().await;
            return Ok(answer);
        }
        Ok(Err(DisconnectCause::Closed)) => DisconnectCause::PublishRefused { topic },
        Ok(Err(cause)) => cause,
        Err(_) => DisconnectCause::NoAnswer { topic, after: settings.connect_timeout },
    };
    Err(Stuck { at: Step::Answer, cause })
}

/// Up to where MQTT would begin: this disturbs nobody, whatever the client id.
pub async fn probe_tls(settings: &Settings) -> Result<(), Stuck> {
    let mut at = Step::Resolving;
    handshake::greet(settings, &settings.route, &mut at).await.map_err(|cause| Stuck { at, cause })
}
