//! AWS's rest-json: a request becomes an operation with its members, a result or an error becomes a response.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::{Answer, Api, json_answer, routes, sigv4};
use crate::cloud::Plane;
use crate::engine::{ApiError, Request};

/// Members that travel in a header.
const HEADER_MEMBERS: &[(&str, &str)] = &[
    ("x-amzn-principal", "principal"),
    ("x-amzn-iot-principal", "principal"),
    ("x-amzn-iot-policy", "policyName"),
];

pub(super) fn handle(api: &Api, parts: &Parts, body: &Bytes) -> Answer {
    match call(api, parts, body) {
        Ok(Value::Null) => stamped(json_answer(StatusCode::OK, "{}")),
        Ok(result) => stamped(json_answer(StatusCode::OK, result.to_string())),
        Err(error) => failure(&error),
    }
}

fn call(api: &Api, parts: &Parts, body: &Bytes) -> Result<Value, ApiError> {
    if api.requires_signature {
        sigv4::verify(api, parts, body, crate::clock::machine_time())?;
    }
    let plane = match sigv4::signing_name(parts).as_deref() {
        Some("iot-jobs-data") => Plane::Device,
        _ if routes::is_data(parts.uri.path()) => Plane::Data,
        _ => Plane::Control,
    };
    let (operation, mut params) =
        routes::find(plane, parts.method.as_str(), parts.uri.path()).ok_or_else(|| match plane {
            Plane::Data => invalid(405, "MethodNotAllowedException", "The specified method is not allowed"),
            _ => invalid(404, "UnknownOperationException", "The requested operation is not known"),
        })?;
    params.extend(query(parts.uri.query().unwrap_or_default()));
    params.extend(header_members(&parts.headers));
    if plane == Plane::Data {
        return api.cloud.shadow(operation, &params, body);
    }
    let body = if body.is_empty() {
        Value::Null
    } else {
        let parsed: Value = serde_json::from_slice(body).map_err(|error| {
            invalid(400, "InvalidRequestException", &format!("the body is not JSON: {error}"))
        })?;
        if !parsed.is_object() {
            return Err(invalid(400, "InvalidRequestException", "the body has to be a JSON object"));
        }
        parsed
    };
    api.cloud.call(plane, &Request { op: operation.to_owned(), params, body })
}

fn query(query: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| !name.starts_with("X-Amz-"))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn header_members(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    HEADER_MEMBERS.iter().filter_map(|(header, member)| {
        let value = headers.get(*header)?.to_str().ok()?;
        Some(((*member).to_owned(), value.to_owned()))
    })
}

/// An error as rest-json carries it: its type in a header and, for clients that look there, in the body.
pub(super) fn failure(error: &ApiError) -> Answer {
    let mut body = error.extra.clone();
    body.insert("message".to_owned(), error.message.as_str().into());
    body.insert("__type".to_owned(), error.kind.into());
    let status = StatusCode::from_u16(error.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_answer(status, Value::Object(body).to_string());
    answer
        .headers_mut()
        .insert(HeaderName::from_static("x-amzn-errortype"), HeaderValue::from_static(error.kind));
    stamped(answer)
}

/// With a request id, which SDKs show in their errors.
fn stamped(mut answer: Answer) -> Answer {
    let id = fastrand::u128(..);
    let id = format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        id as u32,
        (id >> 32) as u16,
        (id >> 48) & 0xfff,
        0x8000 | (id >> 60) & 0x3fff,
        (id >> 74) & 0xffff_ffff_ffff
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(HeaderName::from_static("x-amzn-requestid"), id);
    }
    answer
}

pub(super) fn invalid(http: u16, kind: &'static str, message: &str) -> ApiError {
    ApiError { http, kind, message: message.to_owned(), extra: Map::new() }
}
