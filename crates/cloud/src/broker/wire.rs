//! The bytes of one connection: a stream, the codec the client speaks, and what was read but not understood yet or
//! written but not sent.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rmqtt_codec::error::DecodeError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::close::{Close, Refusal};
use super::codec::Codec;
use super::packet::{Connect, Packet};

/// Read at a time, and kept for an idle connection. A larger packet gets a buffer of its own for as long as it takes.
const READ_BYTES: usize = 1024;
/// Written at a time.
const WRITE_BYTES: usize = 64 * 1024;
/// How long a client that is being disconnected has for reading why.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Wire<S> {
    stream: S,
    pub(super) codec: Codec,
    input: BytesMut,
    pub(super) output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads the CONNECT; None when what comes is not one.
    pub(super) async fn open(mut stream: S, now: u64) -> Option<(Self, Result<Connect, Refusal>)> {
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let mut codec = None;
        loop {
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
            if codec.is_none() {
                codec = Codec::detect(&mut input).ok()?;
            }
            let Some(mut known) = codec.take() else { continue };
            match known.decode_connect(&mut input, now) {
                Ok(Some(connect)) => {
                    return Some((Self { stream, codec: known, input, output: BytesMut::new() }, connect));
                }
                Ok(None) => codec = Some(known),
                Err(error) => {
                    tracing::debug!(%error, "CONNECT cannot be read");
                    return None;
                }
            }
        }
    }

    /// Bytes that were read; 0 at the end. May be given up and called again without losing any.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.input).await
    }

    /// The next of the packets that were read.
    pub(super) fn packet(&mut self) -> Result<Option<Packet>, Close> {
        match self.codec.decode(&mut self.input) {
            Ok(Some(packet)) => Ok(Some(packet)),
            Ok(None) => {
                if self.input.is_empty() && self.input.capacity() > READ_BYTES {
                    self.input = BytesMut::with_capacity(READ_BYTES);
                }
                self.input.reserve(READ_BYTES / 4);
                Ok(None)
            }
            Err(DecodeError::MaxSizeExceeded { .. }) => Err(Close::Quota),
            Err(error) => {
                tracing::debug!(%error, "not a packet");
                Err(Close::Malformed)
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= WRITE_BYTES
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.stream.flush().await?;
        if self.output.capacity() > READ_BYTES {
            self.output = BytesMut::new();
        }
        self.output.clear();
        Ok(())
    }

    /// Sends what there is, if the client takes it, and hangs up.
    pub(super) async fn close(mut self) {
        let _ = timeout(FAREWELL, self.flush()).await;
        let _ = timeout(FAREWELL, self.stream.shutdown()).await;
    }
}
