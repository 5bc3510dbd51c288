//! MQTT over WebSocket: the upgrade, whose signature says who asks, and the bytes in the frames.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};

use super::presigned::Presigned;
use super::web::{Peer, empty, refused};
use super::{Answer, Api};
use crate::broker::PACKET_BYTES;
use crate::clock::machine_time;
use crate::identity::Principal;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A connection that is signed lives no longer.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Answers the request; what follows it is MQTT, in a task of its own.
pub(super) fn open(api: &Arc<Api>, peer: &Peer, request: &mut Request<Incoming>) -> Answer {
    let has = |name, expected: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(expected))
    };
    let is_upgrade =
        has(UPGRADE, "websocket") && has(CONNECTION, "upgrade") && has(SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let (true, &Method::GET, Some(key)) = (is_upgrade, request.method(), key) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "InvalidRequestException",
            "this is no upgrade to a WebSocket",
        );
    };
    if !has(SEC_WEBSOCKET_PROTOCOL, "mqtt") {
        return refused(
            StatusCode::BAD_REQUEST,
            "InvalidRequestException",
            "Sec-WebSocket-Protocol is not mqtt",
        );
    }
    let signed = match who_signed(api, request.uri().query().unwrap_or_default(), request.headers()) {
        Ok(signed) => signed,
        Err(why) => {
            tracing::info!(why, "the signature of a WebSocket is refused");
            return refused(StatusCode::FORBIDDEN, "ForbiddenException", why);
        }
    };
    let accept = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
    if let Ok(accept) = HeaderValue::from_str(&BASE64_STANDARD.encode(accept)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let (api, address, upgrade) = (Arc::clone(api), peer.address, hyper::upgrade::on(request));
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let limits = Limits::default().max_payload_len(Some(PACKET_BYTES as usize));
        let socket = ServerBuilder::new().limits(limits).serve(TokioIo::new(upgraded));
        api.cloud.mqtt(content(socket), address, signed.principal, Some(signed.seconds)).await;
    });
    answer
}

struct Signed {
    /// None where IAM alone would decide, which is not here.
    principal: Option<Principal>,
    seconds: i64,
}

/// By the machine's clock, which is the one that a client signs by.
fn who_signed(api: &Api, query: &str, headers: &HeaderMap) -> Result<Signed, &'static str> {
    let now = machine_time();
    let presigned = Presigned::parse(query).ok_or("the query is not UTF-8")?;
    let access_key = presigned.access_key().ok_or("X-Amz-Credential is missing, or not KEY/SCOPE")?;
    let region = api.cloud.identity.region();
    if access_key == api.credentials.access_key && presigned.token().is_none() {
        presigned.verify(&api.credentials.secret_key, headers, region, now)?;
        return Ok(Signed { principal: None, seconds: DAY_SECONDS });
    }
    let session = api.temporary.find(now, access_key, presigned.token());
    let session = session.ok_or("the access key is not known, has expired, or has another token")?;
    presigned.verify(&session.secret_key, headers, region, now)?;
    let identity = session.authenticated_identity.as_deref();
    Ok(Signed {
        principal: identity.map(|identity| api.cloud.identity.cognito_principal(identity)),
        seconds: (session.expires.secs() - now.secs()).min(DAY_SECONDS),
    })
}

/// What is in binary frames, as one stream of bytes each way.
fn content<S>(socket: WebSocketStream<S>) -> impl AsyncRead + AsyncWrite + Unpin
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, stream) = socket.split();
    let read = stream.filter_map(|message| {
        ready(match message {
            Ok(message) if message.is_binary() => Some(Ok(Bytes::from(message.into_payload()))),
            Ok(message) if message.is_text() => Some(Err(io::Error::other("MQTT is binary"))),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let write = sink.with(|bytes: Bytes| ready(Ok(Message::binary(bytes)))).sink_map_err(io_error);
    tokio::io::join(StreamReader::new(read), SinkWriter::new(CopyToBytes::new(write)))
}

fn io_error(error: tokio_websockets::Error) -> io::Error {
    io::Error::other(error)
}
