//! One attempt at a connection, for a person who wants to know how far it comes.

use crate::handshake;
use crate::talk::{Question, Stuck, Talk, TalkMeter};
use crate::{Settings, Step};

/// The whole way, and the topic that the answer came on. Whoever is connected with the same client id loses that connection.
pub async fn probe(settings: &Settings, question: &Question) -> Result<String, Stuck> {
    let mut talk = Talk::open_by(settings, &settings.route, &TalkMeter::default()).await?;
    let answer = talk.ask(question).await?;
    talk.leave().await;
    Ok(answer.topic)
}

/// Up to where MQTT would begin: this disturbs nobody, whatever the client id.
pub async fn probe_tls(settings: &Settings) -> Result<(), Stuck> {
    let mut at = Step::Resolving;
    handshake::greet(settings, &settings.route, &mut at).await.map_err(|cause| Stuck { at, cause })
}
