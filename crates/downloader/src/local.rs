//! A transfer without a network: from a file on this machine, a USB stick perhaps. It is trusted as little as a server.

use std::{fs::OpenOptions, path::Path};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::{Error, Fetched, Limits, Progress, Resume, Sink, SinkError, staging::open};

const PIECE: usize = 256 << 10;

/// Always from zero: reading a file again costs less than knowing whether it still is the same one.
pub(crate) async fn copy(
    path: &Path,
    limits: &Limits,
    size: Option<u64>,
    sink: &mut impl Sink,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fetched, Error> {
    let file = open(path, OpenOptions::new().read(true))?;
    let total = file.metadata().map_err(read_error)?.len();
    if total > limits.max_size {
        return Err(Error::TooLarge { found: total, limit: limits.max_size });
    }
    if let Some(expected) = size.filter(|size| *size != total) {
        return Err(Error::SizeMismatch { expected, found: total });
    }
    if sink.position() > 0 {
        sink.restart().await?;
    }
    sink.reserve(&Resume { validator: None, total: Some(total) }).await?;
    // One byte more than announced would show as another digest; endless ones must end.
    let mut file = tokio::fs::File::from_std(file).take(total);
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.read(&mut piece).await.map_err(read_error)?;
        if read == 0 {
            return Ok(Fetched { bytes: sink.position(), attempts: 1 });
        }
        sink.write(Bytes::copy_from_slice(piece.get(..read).unwrap_or_default())).await?;
        progress(Progress { received: sink.position(), total: Some(total) });
    }
}

fn read_error(error: std::io::Error) -> Error {
    SinkError::storage("read the local artifact", error).into()
}
