//! What AWS serves on port 443, on one listener: MQTT for who says `x-amzn-mqtt-ca`; for everybody else HTTP, with MQTT over
//! WebSocket, the credential provider, and Cognito.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Answer, Api, MAX_BODY, api, cognito, json_answer, presigned, websocket};
use crate::clock::machine_time;
use crate::engine::{ApiError, Time};
use crate::identity::{MQTT_CA, Principal};

const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts connections until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: TlsAcceptor, api: Arc<Api>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(secure(stream, address, tls.clone(), Arc::clone(&api)));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn secure(stream: TcpStream, address: SocketAddr, tls: TlsAcceptor, api: Arc<Api>) {
    let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let principal = certificate.and_then(|der| api.cloud.identity.principal(der));
    if session.alpn_protocol() == Some(MQTT_CA) {
        if principal.is_some() {
            api.cloud.mqtt(stream, address.ip(), principal, None).await;
        }
        return;
    }
    let peer = Arc::new(Peer { address: address.ip(), principal });
    let service = service_fn(|request| handle(&api, Arc::clone(&peer), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

pub(super) struct Peer {
    pub(super) address: IpAddr,
    principal: Option<Principal>,
}

async fn handle(
    api: &Arc<Api>,
    peer: Arc<Peer>,
    mut request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let answer = if path == presigned::PATH {
        websocket::open(api, &peer, &mut request)
    } else if let (&Method::GET, Some(alias)) = (request.method(), role_alias(&path)) {
        credentials(api, &peer, alias, &request)
    } else if cognito::is_asked(request.headers()) {
        let (parts, body) = request.into_parts();
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => cognito::handle(api, &parts, &body.to_bytes()),
            Err(error) => {
                refused(StatusCode::PAYLOAD_TOO_LARGE, "InvalidParameterException", &error.to_string())
            }
        }
    } else {
        refused(StatusCode::NOT_FOUND, "UnknownOperationException", "nothing is served here")
    };
    tracing::debug!(%path, status = answer.status().as_u16(), "answered");
    Ok(answer)
}

pub(super) fn refused(status: StatusCode, kind: &'static str, message: &str) -> Answer {
    api::failure(&ApiError {
        http: status.as_u16(),
        kind,
        message: message.to_owned(),
        extra: Default::default(),
    })
}

fn role_alias(path: &str) -> Option<&str> {
    path.strip_prefix("/role-aliases/")?.strip_suffix("/credentials").filter(|alias| !alias.contains('/'))
}

/// The credential provider.
fn credentials(api: &Api, peer: &Peer, alias: &str, request: &Request<Incoming>) -> Answer {
    let refused = |message| refused(StatusCode::FORBIDDEN, "AccessDeniedException", message);
    let alias = percent_encoding::percent_decode_str(alias).decode_utf8_lossy();
    let Some(principal) = &peer.principal else { return refused("no certificate was shown") };
    let thing = request.headers().get("x-amzn-iot-thingname").and_then(|value| value.to_str().ok());
    if thing.is_some_and(|thing| !principal.things.contains(thing)) {
        return refused("the thing is not attached to the certificate");
    }
    let Some(seconds) = api.cloud.identity.may_assume(principal, thing, &alias) else {
        return refused("no role alias of this name may be used with the certificate");
    };
    let session = api.temporary.issue(machine_time(), seconds, None);
    let body = json!({"credentials": {
        "accessKeyId": session.access_key,
        "secretAccessKey": session.secret_key,
        "sessionToken": session.token,
        "expiration": iso(session.expires),
    }});
    json_answer(StatusCode::OK, Bytes::from(body.to_string()))
}

/// `2018-01-18T09:18:06Z`
fn iso(at: Time) -> String {
    let mut text = Vec::new();
    let at = s3s::dto::Timestamp::from(crate::clock::system_time(Time::from_secs(at.secs())));
    let _ = at.format(s3s::dto::TimestampFormat::DateTime, &mut text);
    String::from_utf8(text).unwrap_or_default().replace(".000Z", "Z")
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Full::default());
    *answer.status_mut() = status;
    answer
}
