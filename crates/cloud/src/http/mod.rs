//! Everything that comes over HTTP on the `api` address: the control plane, the device plane and the administration.

mod admin;
mod api;
mod cognito;
mod presigned;
mod routes;
pub(crate) mod sigv4;
pub(crate) mod web;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::cloud::Cloud;
use crate::engine::{ApiError, Time};
use crate::temporary::Temporary;

/// No request of this service is larger: a job document has 32 KiB at most, its parameters 30 KiB each.
const MAX_BODY: usize = 1 << 20;

pub(crate) type Answer = Response<Full<Bytes>>;

/// What the handlers share.
pub(crate) struct Api {
    pub(crate) cloud: Arc<Cloud>,
    /// Whose signatures count, besides those of temporary credentials.
    pub(crate) credentials: sigv4::Credentials,
    pub(crate) temporary: Temporary,
    /// Are signatures of this interface looked at? Those of a WebSocket always are.
    pub(crate) requires_signature: bool,
    /// What `serve` printed when it was ready.
    pub(crate) ready: serde_json::Value,
}

impl Api {
    /// The secret that belongs to this access key, if both are good at this time.
    fn credentials_of(&self, access_key: &str, token: Option<&str>, now: Time) -> Option<sigv4::Credentials> {
        if access_key == self.credentials.access_key {
            return Some(self.credentials.clone());
        }
        let session = self.temporary.find(now, access_key, token)?;
        Some(sigv4::Credentials { access_key: session.access_key, secret_key: session.secret_key })
    }
}

/// Accepts connections until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, api: Arc<Api>) {
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                // Out of file descriptors, most likely: some of them have to be closed first.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| handle(&api, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

async fn handle(api: &Api, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let message = format!("the body could not be read: {error}");
            return Ok(api::failure(&ApiError {
                http: 413,
                kind: "InvalidRequestException",
                message,
                extra: Default::default(),
            }));
        }
    };
    let answer = match parts.uri.path().strip_prefix("/_cloud/") {
        Some(what) => admin::handle(api, what, &parts, &body),
        None if cognito::is_asked(&parts.headers) => cognito::handle(api, &parts, &body),
        None => api::handle(api, &parts, &body),
    };
    tracing::debug!(method = %parts.method, path = parts.uri.path(), status = answer.status().as_u16(), "answered");
    Ok(answer)
}

fn json_answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
