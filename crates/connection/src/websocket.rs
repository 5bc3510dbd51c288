//! A WebSocket is a stream of bytes, too, once it has been asked for: MQTT's packets are the content of its binary frames,
//! whatever frame each of them begins in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{Sink, Stream as _};
use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_websockets::{ClientBuilder, CloseCode, Error, Limits, Message, WebSocketStream};

use crate::head::{self, HeadError};
use crate::session::MAX_PACKET;

/// RFC 6455: what a server proves with that it has understood.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why the server does not go on as a WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// As AWS answers what is wrong with a signature, whatever it is.
    #[error(
        "the server refuses the signature ({answer}): are the AWS credentials valid and of this endpoint's account, is the \
         region {region} right, and this device's clock ({now})?"
    )]
    Signature { answer: String, region: String, now: String },
    #[error("the server does not open a WebSocket ({answer})")]
    Refused { answer: String },
    #[error("what answers is no WebSocket: {0}")]
    NotAWebSocket(&'static str),
    #[error("{0}")]
    Broken(io::Error),
}

/// The status and header lines of a refusal are for the caller to judge.
pub(crate) enum Refusal {
    Status { status: u16, answer: String },
    Error(UpgradeError),
}

/// `target`: the path with its query.
pub(crate) async fn open<S>(mut stream: S, host: &str, target: &str) -> Result<Frames<S>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_le_bytes());
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    let broken = |error| Refusal::Error(UpgradeError::Broken(error));
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let head = match head::read(&mut stream).await {
        Ok(head) => head,
        Err(HeadError::Io(error)) => return Err(broken(error)),
        Err(HeadError::TooLong) => return Err(not("its headers have no end")),
        Err(HeadError::NotHttp) => return Err(not("it does not speak HTTP/1.1")),
    };
    if head.status != 101 {
        let kind = head.field("x-amzn-errortype").map(|kind| format!(", {}", kind.escape_default()));
        let answer = head.status_line() + &kind.unwrap_or_default();
        return Err(Refusal::Status { status: head.status, answer });
    }
    let accept = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    if head.field("Sec-WebSocket-Accept") != Some(&BASE64_STANDARD.encode(accept)) {
        return Err(not("it has not understood the request"));
    }
    if head.field("Sec-WebSocket-Protocol").is_some_and(|protocol| protocol != "mqtt") {
        return Err(not("it speaks something else than MQTT"));
    }
    let limits = Limits::default().max_payload_len(Some(MAX_PACKET));
    Ok(Frames {
        socket: ClientBuilder::new().limits(limits).take_over(stream),
        rest: Bytes::new(),
        closing: false,
    })
}

fn not(what: &'static str) -> Refusal {
    Refusal::Error(UpgradeError::NotAWebSocket(what))
}

/// The bytes in the frames. Pings are answered and a close is an end, as they come.
pub(crate) struct Frames<S> {
    socket: WebSocketStream<S>,
    /// Of the last frame, what was not read yet.
    rest: Bytes,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            // Answers to pings first: a peer that sends nothing else, and reads none of them, is not read any further.
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(io_error)?;
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(message)) if message.is_binary() => self.rest = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => {
                    let error =
                        io::Error::new(io::ErrorKind::InvalidData, "a text frame, where MQTT is binary");
                    return Poll::Ready(Err(error));
                }
                Some(Ok(message)) if message.is_close() => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let message = Message::binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    /// Says that nothing more comes. What the other side had under way can still be read, and counts.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
            self.closing = true;
            match Pin::new(&mut self.socket).start_send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "")) {
                Ok(()) | Err(Error::AlreadyClosed) => {}
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}
