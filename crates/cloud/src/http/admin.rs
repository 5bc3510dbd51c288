//! `/_cloud/…`: what tests and rehearsals need and AWS does not offer.

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Answer, Api, json_answer};
use crate::cloud::thing_of;
use crate::engine::Time;
use crate::faults::Fault;
use crate::identity::provisioning::ask;
use crate::shadow::Topic;

struct Refused(StatusCode, String);

pub(super) fn handle(api: &Api, what: &str, parts: &Parts, body: &Bytes) -> Answer {
    let result = match (&parts.method, what) {
        (&Method::GET, "info") => Ok(info(api).to_string()),
        (&Method::POST, "clock") => clock(api, body).map(|answer| answer.to_string()),
        (&Method::GET, "meter") => Ok(api.cloud.metered().to_string()),
        (&Method::GET, "messages") => messages(api, parts.uri.query().unwrap_or_default()),
        (&Method::POST, "publish") => publish(api, body).map(|()| "{}".to_owned()),
        (&Method::POST, "things") => provision(api, body).map(|answer| answer.to_string()),
        (&Method::POST, "faults") => add_fault(api, body).map(|answer| answer.to_string()),
        (&Method::GET, "faults") => Ok(json!({"faults": api.cloud.faults.list()}).to_string()),
        (&Method::DELETE, what) if what == "faults" || what.starts_with("faults/") => clear_faults(api, what),
        _ => Err(Refused(StatusCode::NOT_FOUND, format!("{} /_cloud/{what} is not served", parts.method))),
    };
    match result {
        Ok(body) => json_answer(StatusCode::OK, body),
        Err(Refused(status, message)) => json_answer(status, json!({"message": message}).to_string()),
    }
}

/// The ready line, the authority's certificate and the time.
fn info(api: &Api) -> Value {
    let mut info = api.ready.clone();
    if let Some(info) = info.as_object_mut() {
        info.insert("ca_pem".to_owned(), api.cloud.identity.ca_pem().into());
        info.insert("now".to_owned(), api.cloud.clock.now().to_number());
    }
    info
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Move {
    At(f64),
    Advance(f64),
}

fn clock(api: &Api, body: &Bytes) -> Result<Value, Refused> {
    let order: Move = parsed(body)?;
    let (Move::At(seconds) | Move::Advance(seconds)) = order;
    // Up to the year 9999: everything later would overflow somewhere.
    if !(-253_402_300_799.0..=253_402_300_799.0).contains(&seconds) {
        return Err(Refused(
            StatusCode::BAD_REQUEST,
            format!("{seconds} is no number of seconds that a clock has"),
        ));
    }
    let millis = (seconds * 1000.0).round() as i64;
    let now = api.cloud.move_clock(|now| match order {
        Move::At(_) => Time::from_millis(millis),
        Move::Advance(_) => Time::from_millis(now.millis().saturating_add(millis)),
    });
    Ok(json!({"now": now.to_number()}))
}

fn messages(api: &Api, query: &str) -> Result<String, Refused> {
    let after = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "after");
    let after = after.map_or(Ok(0), |(_, value)| {
        value.parse().map_err(|_| Refused(StatusCode::BAD_REQUEST, format!("after={value} is no number")))
    })?;
    Ok(api.cloud.messages_since(after))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    thing: String,
    topic: String,
    payload: Option<Value>,
    raw: Option<String>,
}

fn publish(api: &Api, body: &Bytes) -> Result<(), Refused> {
    let publish: Publish = parsed(body)?;
    let payload = match (publish.payload, publish.raw) {
        (Some(payload), None) => payload.to_string(),
        (None, Some(raw)) => raw,
        _ => return Err(Refused(StatusCode::BAD_REQUEST, "expected either `payload` or `raw`".to_owned())),
    };
    match thing_of(&publish.topic) {
        Some(thing) if thing != publish.thing => {
            let message = format!("thing {} may not publish to {}", publish.thing, publish.topic);
            return Err(Refused(StatusCode::FORBIDDEN, message));
        }
        Some(thing) if is_jobs(thing, &publish.topic) => {
            api.cloud.device(None, thing, &publish.topic, payload.as_bytes());
        }
        // Heard by whoever subscribed, like any message, before it is answered.
        Some(thing) if Topic::parse(&publish.topic).is_some() => {
            api.cloud.route(&publish.topic, Bytes::from(payload.clone()));
            api.cloud.device(None, thing, &publish.topic, payload.as_bytes());
        }
        None if ask(&publish.topic).is_some() => {
            api.cloud.provisioning(None, &publish.thing, &publish.topic, payload.as_bytes());
        }
        _ => api.cloud.route(&publish.topic, Bytes::from(payload)),
    }
    Ok(())
}

fn is_jobs(thing: &str, topic: &str) -> bool {
    topic
        .strip_prefix("$aws/things/")
        .and_then(|rest| rest.strip_prefix(thing))
        .is_some_and(|rest| rest == "/jobs" || rest.starts_with("/jobs/"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provision {
    thing: String,
}

fn provision(api: &Api, body: &Bytes) -> Result<Value, Refused> {
    let Provision { thing } = parsed(body)?;
    let refused = |http, message| {
        Refused(StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)
    };
    let files = api.cloud.provision(&thing).map_err(|error| refused(error.http, error.message))?;
    let mut answer = serde_json::to_value(files).map_err(|error| refused(500, error.to_string()))?;
    let port = api
        .ready
        .get("mqtts")
        .and_then(Value::as_str)
        .and_then(|address| address.rsplit(':').next()?.parse::<u16>().ok());
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("port".to_owned(), port.into());
    }
    Ok(answer)
}

fn add_fault(api: &Api, body: &Bytes) -> Result<Value, Refused> {
    let fault: Fault = parsed(body)?;
    let refused = |message| Refused(StatusCode::BAD_REQUEST, message);
    fault.check().map_err(refused)?;
    Ok(json!({"id": api.cloud.add_fault(fault).map_err(refused)?}))
}

fn clear_faults(api: &Api, what: &str) -> Result<String, Refused> {
    let id = match what.strip_prefix("faults/") {
        None => None,
        Some(id) => {
            Some(id.parse().map_err(|_| Refused(StatusCode::NOT_FOUND, format!("there is no fault {id}")))?)
        }
    };
    match (id, api.cloud.clear_faults(id)) {
        (Some(id), 0) => Err(Refused(StatusCode::NOT_FOUND, format!("there is no fault {id}"))),
        (_, cleared) => Ok(json!({"cleared": cleared}).to_string()),
    }
}

fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}
