//! Cognito's identity pools in JSON 1.1: the operation is in a header, and everything else in the body.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use serde_json::Value;

use super::{Answer, Api, api, json_answer};
use crate::clock::machine_time;

const TARGET: &str = "x-amz-target";
const SERVICE: &str = "AWSCognitoIdentityService.";
const JSON: &str = "application/x-amz-json-1.1";

pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    operation(headers).is_some()
}

fn operation(headers: &HeaderMap) -> Option<&str> {
    headers.get(TARGET)?.to_str().ok()?.strip_prefix(SERVICE)
}

pub(super) fn handle(api: &Api, parts: &Parts, body: &Bytes) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let operation = operation(&parts.headers).unwrap_or_default();
    let mut answer = match api.cloud.cognito(operation, &body, &api.temporary, machine_time()) {
        Ok(result) => json_answer(StatusCode::OK, result.to_string()),
        Err(error) => api::failure(&error),
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    answer
}
