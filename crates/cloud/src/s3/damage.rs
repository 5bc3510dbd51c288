//! Downloads that go wrong on purpose: what a fault does to a response on its way out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use hyper::header::CONTENT_LENGTH;
use s3s::dto::StreamingBlob;
use s3s::{Body, HttpResponse};

use crate::faults::{Fault, Kind};

/// A body in pieces, which damage is done to.
type Piece = Result<Bytes, std::io::Error>;

/// A sixteenth of a second's worth is sent at a time.
const SLOW_STEPS: u64 = 16;

pub(super) fn apply(fault: &Fault, response: HttpResponse) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let length =
        parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    let pieces = http_body_util::BodyDataStream::new(body).map(|piece| piece.map_err(std::io::Error::other));
    let bytes = fault.bytes.unwrap_or_default();
    let body = match fault.fault {
        Kind::ObjectTruncate => whole(truncated(pieces, bytes)),
        Kind::ObjectCorrupt => whole(corrupted(pieces, length / 2)),
        Kind::ObjectSlow => whole(slowed(pieces, bytes)),
        _ => whole(pieces),
    };
    HttpResponse::from_parts(parts, body)
}

fn whole(pieces: impl Stream<Item = Piece> + Send + Sync + 'static) -> Body {
    Body::from(StreamingBlob::wrap(pieces))
}

/// The first `limit` bytes, and then the connection breaks.
fn truncated(pieces: impl Stream<Item = Piece>, limit: u64) -> impl Stream<Item = Piece> {
    let kept = pieces.scan(limit, |left, piece| {
        let piece =
            piece.map(|piece| piece.slice(..piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX))));
        *left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        let ended = piece.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready((!ended).then_some(piece))
    });
    // What was sent is flushed before the error tears the connection down.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("broken off on purpose"))
    });
    kept.chain(broken)
}

/// One bit of the byte at `position` is flipped.
fn corrupted(pieces: impl Stream<Item = Piece>, position: u64) -> impl Stream<Item = Piece> {
    pieces.scan(0_u64, move |start, piece| {
        let piece = piece.map(|piece| {
            let at = position.checked_sub(*start).and_then(|at| usize::try_from(at).ok());
            *start += piece.len() as u64;
            let mut piece = BytesMut::from(piece);
            if let Some(byte) = at.and_then(|at| piece.get_mut(at)) {
                *byte ^= 1;
            }
            piece.freeze()
        });
        std::future::ready(Some(piece))
    })
}

/// At most `rate` bytes a second.
fn slowed(pieces: impl Stream<Item = Piece>, rate: u64) -> impl Stream<Item = Piece> {
    let step = usize::try_from(rate / SLOW_STEPS).unwrap_or(usize::MAX).max(1);
    let small = pieces.flat_map(move |piece| {
        let parts: Vec<Piece> = match piece {
            Ok(piece) => (0..piece.len())
                .step_by(step)
                .map(|at| Ok(piece.slice(at..piece.len().min(at + step))))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(parts)
    });
    small.then(move |piece| async move {
        let bytes = piece.as_ref().map_or(0, Bytes::len) as f64;
        tokio::time::sleep(Duration::from_secs_f64(bytes / rate.max(1) as f64)).await;
        piece
    })
}
