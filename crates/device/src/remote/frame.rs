//! Frames on a stream: a byte that tells the kind, four for the length, and the payload. Nothing is allocated for a
//! length that is not allowed.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER: usize = 5;
/// JSON: a call, or its answer. The largest is an order, with a release that came in a document of at most 32 KiB.
const MESSAGE: u8 = b'm';
const MAX_MESSAGE: usize = 64 * 1024;
/// A piece of an artifact, or of a configuration.
const PIECE: u8 = b'p';
pub(super) const MAX_PIECE: usize = 256 * 1024;
/// Read at once while it is not known how long the frame is.
const READ_AHEAD: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Bytes),
    Piece(Bytes),
}

/// The line is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("a frame of the unknown kind {0:#04x}")]
    Kind(u8),
    #[error("a frame of {found} bytes, expected at most {limit}")]
    TooLong { found: usize, limit: usize },
    #[error("a message that is not understood: {0}")]
    Message(#[from] serde_json::Error),
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("the connection ended")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the first frame, or says how many bytes are missing at least.
fn take(buffer: &mut BytesMut) -> Result<Result<Frame, usize>, LineError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(Err(HEADER - buffer.len()));
    };
    let [kind, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    let limit = match kind {
        MESSAGE => MAX_MESSAGE,
        PIECE => MAX_PIECE,
        other => return Err(LineError::Kind(other)),
    };
    if length > limit {
        return Err(LineError::TooLong { found: length, limit });
    }
    if let missing @ 1.. = (HEADER + length).saturating_sub(buffer.len()) {
        return Ok(Err(missing));
    }
    buffer.advance(HEADER);
    let payload = buffer.split_to(length).freeze();
    Ok(Ok(if kind == MESSAGE { Frame::Message(payload) } else { Frame::Piece(payload) }))
}

pub(super) struct Reader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    pub(super) fn stream(&self) -> &R {
        &self.stream
    }

    /// `None` at the end of the stream. Cancel-safe: what was read stays here.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, LineError> {
        loop {
            let missing = match take(&mut self.buffer)? {
                Ok(frame) => return Ok(Some(frame)),
                Err(missing) => missing,
            };
            self.buffer.reserve(missing.max(READ_AHEAD));
            let room = self.buffer.capacity() - self.buffer.len();
            if self.stream.read_buf(&mut (&mut self.buffer).limit(room)).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(LineError::Ended) };
            }
        }
    }

    /// The next frame is a message.
    pub(super) async fn message<T: DeserializeOwned>(&mut self) -> Result<T, LineError> {
        match self.next().await? {
            Some(Frame::Message(json)) => Ok(serde_json::from_slice(&json)?),
            Some(Frame::Piece(_)) => Err(LineError::Unexpected("bytes where a message was expected")),
            None => Err(LineError::Ended),
        }
    }
}

pub(super) async fn send_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), LineError> {
    send_json(stream, serde_json::to_vec(message)?).await
}

pub(super) async fn send_json(
    stream: &mut (impl AsyncWrite + Unpin),
    json: Vec<u8>,
) -> Result<(), LineError> {
    if json.len() > MAX_MESSAGE {
        return Err(LineError::TooLong { found: json.len(), limit: MAX_MESSAGE });
    }
    send(stream, MESSAGE, json.into()).await
}

/// A short message, as it is sent.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, LineError> {
    let json = serde_json::to_vec(message)?;
    Ok([&header(MESSAGE, json.len())[..], &json].concat())
}

/// In as many frames as it takes.
pub(super) async fn send_pieces(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: Bytes,
) -> Result<(), LineError> {
    while !bytes.is_empty() {
        send(stream, PIECE, next_piece(&mut bytes)).await?;
    }
    Ok(())
}

pub(super) async fn send_piece(
    stream: &mut (impl AsyncWrite + Unpin),
    piece: Bytes,
) -> Result<(), LineError> {
    send(stream, PIECE, piece).await
}

/// No copy: it shares the memory.
pub(super) fn next_piece(bytes: &mut Bytes) -> Bytes {
    bytes.split_to(bytes.len().min(MAX_PIECE))
}

/// Header and payload in one system call.
async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: u8, payload: Bytes) -> Result<(), LineError> {
    let header = header(kind, payload.len());
    stream.write_all_buf(&mut header.chain(payload)).await?;
    Ok(())
}

fn header(kind: u8, length: usize) -> BytesMut {
    let mut header = BytesMut::with_capacity(HEADER);
    header.put_u8(kind);
    header.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u32, payload: &[u8]) -> Vec<u8> {
        [&[kind][..], &length.to_be_bytes(), payload].concat()
    }

    async fn read_all(bytes: &[u8]) -> (Vec<Frame>, Option<LineError>) {
        let (mut reader, mut frames) = (Reader::new(bytes), Vec::new());
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_read_and_pieces_stay_within_their_limit() {
        let long: Bytes = (0..MAX_PIECE * 2 + 7).map(|i| (i * 31) as u8).collect();
        let mut wire = Vec::new();
        send_message(&mut wire, &"hello").await.unwrap();
        send_pieces(&mut wire, long.clone()).await.unwrap();
        let (frames, error) = read_all(&wire).await;
        assert!(error.is_none());
        let pieces = long.chunks(MAX_PIECE).map(|piece| Frame::Piece(Bytes::copy_from_slice(piece)));
        let expected: Vec<_> =
            std::iter::once(Frame::Message(Bytes::from_static(b"\"hello\""))).chain(pieces).collect();
        assert_eq!(frames, expected);
        let too_long = send_message(&mut wire, &"x".repeat(MAX_MESSAGE)).await;
        assert!(matches!(too_long, Err(LineError::TooLong { .. })));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_named_and_nothing_is_allocated_for_it() {
        let cases = [
            (frame(b'x', 0, b""), "unknown kind 0x78"),
            (frame(MESSAGE, MAX_MESSAGE as u32 + 1, b""), "a frame of 65537 bytes, expected at most 65536"),
            (frame(PIECE, MAX_PIECE as u32 + 1, b""), "a frame of 262145 bytes"),
            (frame(PIECE, u32::MAX, b""), "a frame of 4294967295 bytes"),
            (frame(MESSAGE, 5, b"four"), "the connection ended"),
            (vec![MESSAGE, 0], "the connection ended"),
        ];
        for (bytes, expected) in cases {
            let mut reader = Reader::new(&bytes[..]);
            let error = reader.next().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(reader.buffer.capacity() <= 4 * READ_AHEAD, "{bytes:?}");
        }
    }

    /// Whatever comes, in whatever pieces: the same frames, no panic, and no more memory than a frame takes.
    #[tokio::test]
    async fn random_bytes_are_read_alike_in_one_piece_and_byte_by_byte() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut seen = 0;
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            for _ in 0..next() % 5 {
                // Mostly frames, some with a bit turned, so that every branch is taken often.
                let payload: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
                let kind = if next() % 2 == 0 { MESSAGE } else { PIECE };
                let mut frame = frame(kind, payload.len() as u32, &payload);
                if next() % 4 == 0 {
                    let at = next() as usize % frame.len();
                    frame[at] ^= 1 << (next() % 8);
                }
                bytes.extend(frame);
            }
            bytes.truncate(bytes.len() - (next() as usize % 3).min(bytes.len()));
            let (whole, whole_error) = read_all(&bytes).await;
            let (mut buffer, mut pieces, mut failed) = (BytesMut::new(), Vec::new(), false);
            for byte in &bytes {
                buffer.put_u8(*byte);
                match take(&mut buffer) {
                    Ok(Ok(frame)) => pieces.push(frame),
                    Ok(Err(_)) => {}
                    Err(_) => {
                        failed = true;
                        break;
                    }
                }
            }
            assert_eq!(pieces, whole, "{bytes:?}");
            assert_eq!(failed || !buffer.is_empty(), whole_error.is_some(), "{bytes:?}");
            seen += whole.len();
        }
        assert!(seen > 1000, "{seen}");
    }
}
