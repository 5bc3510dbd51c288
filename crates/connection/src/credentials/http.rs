//! One request to a service that hands credentials out: bounded in time and size, and no redirects.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, redirect, retry};
use serde_json::Value;

use super::CredentialsError;
use crate::{Proxy, Settings, stream};

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_BYTES: usize = 64 * 1024;
/// Of an answer, in an error.
const SHOWN: usize = 200;

/// Does the service ask who this is?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificate {
    Shown,
    Kept,
}

/// One client for one fetch: an idle device should hold none. `service` is for errors.
pub(super) fn client(
    settings: &Settings,
    certificate: Certificate,
    service: &'static str,
) -> Result<Client, CredentialsError> {
    let mut tls = stream::without_certificate(&settings.tls, &[b"http/1.1"]);
    if certificate == Certificate::Shown {
        tls.client_auth_cert_resolver = Arc::clone(&settings.tls.client_auth_cert_resolver);
    }
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .timeout(TIMEOUT);
    let failed = |error: reqwest::Error| CredentialsError::Http { service, problem: words(&error) };
    let builder = match &settings.proxy {
        Proxy::None => builder.no_proxy(),
        Proxy::Environment => builder,
        Proxy::Http(proxy) => builder.proxy(reqwest::Proxy::all(proxy.url()).map_err(failed)?),
    };
    builder.build().map_err(failed)
}

/// The JSON of a 200. Of anything else, the kind of error and its message, which hold no secret of ours.
pub(super) async fn answer(
    request: RequestBuilder,
    service: &'static str,
) -> Result<Value, CredentialsError> {
    let failed = |problem: String| CredentialsError::Http { service, problem };
    let mut response = request.send().await.map_err(|error| failed(words(&error)))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(words(&error)))? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(failed(format!("its answer has more than {MAX_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    let document = serde_json::from_slice::<Value>(&body);
    if status.is_success() {
        return document.map_err(|_| failed("its answer is not JSON".to_owned()));
    }
    let document = document.unwrap_or_default();
    let said = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, message) = (said("__type"), said("message"));
    let words: Vec<_> =
        [status.to_string(), kind, message].into_iter().filter(|word| !word.is_empty()).collect();
    let answer = words.join(", ").chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Err(CredentialsError::Refused { service, answer, advice: None })
}

/// With what lies behind it: reqwest's own first line only says that something failed.
fn words(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = next {
        words.push(error.to_string());
        next = error.source();
    }
    match words.last() {
        Some(last) => last.clone(),
        None if error.is_timeout() => format!("no answer within {TIMEOUT:?}"),
        None => "the request failed".to_owned(),
    }
}
