//! AWS's fleet provisioning service, as a device speaks to it: two requests over MQTT.

use std::collections::BTreeMap;

use connection::talk::{Answer, Question, Talk};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Error;

const CREATE: &str = "$aws/certificates/create-from-csr/json";
/// Of what the service says, this much goes into logs and statuses.
const MAX_SAID: usize = 300;

/// A certificate that waits for its registration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    pub certificate_pem: String,
    /// Good for an hour, and once. A secret until then.
    pub certificate_ownership_token: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    pub thing_name: String,
    #[serde(default)]
    pub device_configuration: Map<String, Value>,
}

/// Where answers come. AWS closes the connection of who subscribes to what its policy does not allow, so this is
/// subscribed to when it is needed.
pub fn subscriptions(template: &str) -> Vec<String> {
    let answers = |topic: &str| ["accepted", "rejected"].map(|verdict| format!("{topic}/{verdict}"));
    [answers(CREATE), answers(&register_topic(template))].concat()
}

pub async fn create_from_csr(talk: &mut Talk, request: &str) -> Result<Issued, Error> {
    let payload = json!({ "certificateSigningRequest": request }).to_string();
    let question = Question::accepted_or_rejected(CREATE.to_owned(), payload);
    understood("the certificate signing request", &talk.ask(&question).await?)
}

pub async fn register(
    talk: &mut Talk,
    template: &str,
    token: &str,
    parameters: &BTreeMap<String, String>,
) -> Result<Registered, Error> {
    let payload = json!({ "certificateOwnershipToken": token, "parameters": parameters }).to_string();
    let question = Question::accepted_or_rejected(register_topic(template), payload);
    understood("the registration", &talk.ask(&question).await?)
}

fn register_topic(template: &str) -> String {
    format!("$aws/provisioning-templates/{template}/provision/json")
}

fn understood<T: for<'a> Deserialize<'a>>(request: &'static str, answer: &Answer) -> Result<T, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Refusal {
        status_code: u16,
        error_code: String,
        error_message: String,
    }
    // The parser's message has a place and a kind, and nothing of the content: there may be a token in it.
    let malformed = |error: serde_json::Error| Error::Malformed { request, problem: classified(&error) };
    if answer.is_accepted() {
        return serde_json::from_slice(&answer.payload).map_err(malformed);
    }
    let refusal: Refusal = serde_json::from_slice(&answer.payload).map_err(malformed)?;
    Err(Error::Rejected {
        request,
        status: refusal.status_code,
        code: shortened(&refusal.error_code),
        message: shortened(&refusal.error_message),
    })
}

fn classified(error: &serde_json::Error) -> String {
    format!("{:?} error at column {}", error.classify(), error.column())
}

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &str, payload: &str) -> Result<Registered, Error> {
        let answer = Answer { topic: topic.to_owned(), payload: payload.to_owned().into() };
        understood("the registration", &answer)
    }

    #[test]
    fn answers_are_understood_or_named() {
        let registered = read("t/accepted", r#"{"thingName":"a","deviceConfiguration":{"k":"v"}}"#).unwrap();
        assert_eq!((registered.thing_name.as_str(), registered.device_configuration.len()), ("a", 1));
        assert!(read("t/accepted", r#"{"thingName":"a"}"#).unwrap().device_configuration.is_empty());
        for (topic, payload, expected) in [
            ("t/accepted", "{}", "not understood"),
            ("t/accepted", r#"{"thingName": 7, "token": "secret"}"#, "not understood"),
            ("t/rejected", "secret", "not understood"),
            ("t/rejected", r#"{"statusCode":400,"errorCode":"X","errorMessage":"a\nb"}"#, "X (400): a b"),
            ("t/rejected", "{}", "(0)"),
        ] {
            let error = read(topic, payload).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{payload}: {error}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_cannot() {
        use crate::identity::error::Again;
        let rejected = |status, code: &str| Error::Rejected {
            request: "r",
            status,
            code: code.to_owned(),
            message: String::new(),
        };
        for (status, code, expected) in [
            (429, "RequestThrottled", Again::Perhaps),
            (400, "ThrottlingException", Again::Perhaps),
            (500, "InternalError", Again::Perhaps),
            (503, "ServiceUnavailable", Again::Perhaps),
            (400, "InvalidParameters", Again::Useless),
            (404, "ResourceNotFound", Again::Useless),
            (0, "", Again::Useless),
        ] {
            assert_eq!(rejected(status, code).again(), expected, "{status} {code}");
        }
        assert!(rejected(400, "InvalidCertificateOwnershipToken").is_about_token());
        assert!(!rejected(400, "InvalidParameters").is_about_token());
    }
}
