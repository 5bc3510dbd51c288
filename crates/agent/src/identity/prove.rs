//! A certificate is good when AWS IoT Jobs has answered who came with it, and not before.

use std::time::Duration;

use connection::talk::{Question, Talk, TalkMeter};
use jobs::{JobTarget, describe};

use super::Error;

/// What AWS has just activated it may not know everywhere yet.
const ATTEMPTS: u32 = 4;

/// `link` is the device's own, with the new certificate. It asks for `$next` without its document, and changes nothing.
pub async fn prove(link: &connection::Settings, thing_name: &str, meter: &TalkMeter) -> Result<(), Error> {
    let question = Question::accepted_or_rejected(
        describe(thing_name, &JobTarget::Next),
        r#"{"includeJobDocument":false}"#,
    );
    let mut link = link.clone();
    link.subscriptions.clone_from(&question.answers);
    let mut pause = link.reconnect_min;
    for attempt in 1.. {
        // AWS takes one CONNECT a second of a client id, and there was one just now.
        tokio::time::sleep(pause).await;
        let proved = async {
            let mut talk = Talk::open(&link, meter).await?;
            let answer = talk.ask(&question).await;
            talk.leave().await;
            answer
        };
        match proved.await {
            Ok(answer) if answer.is_accepted() => return Ok(()),
            Ok(_) => {
                let problem = format!("AWS IoT Jobs refuses to say what is next for the thing {thing_name}");
                return Err(Error::NewRefused(problem));
            }
            Err(stuck) if !stuck.cause.is_about_identity() => return Err(stuck.into()),
            Err(stuck) if attempt >= ATTEMPTS => return Err(Error::NewRefused(stuck.to_string())),
            Err(stuck) => {
                pause = (pause * 2).min(Duration::from_secs(10));
                tracing::info!(%stuck, attempt, "the new certificate does not work yet");
            }
        }
    }
    Ok(())
}
