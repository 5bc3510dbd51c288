//! A batch in a file: its length, a checksum, and then the topic and the payload. What a power cut tore does not pass for one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Batch;

/// Length and checksum.
pub(crate) const HEADER: u64 = 8;
/// Nothing that is written is longer, so nothing longer is read.
const MAX_BODY: u32 = 64 * 1024;

/// `None` where AWS would not take it either.
pub(crate) fn encode(batch: &Batch) -> Option<Vec<u8>> {
    let topic_length = u16::try_from(batch.topic.len()).ok()?;
    let length = u32::try_from(2 + batch.topic.len() + batch.payload.len()).ok()?;
    if length > MAX_BODY {
        return None;
    }
    let body = [&topic_length.to_le_bytes(), batch.topic.as_bytes(), &batch.payload].concat();
    Some([&length.to_le_bytes()[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat())
}

/// The record at `offset`, and where the next one begins. `None` where there is no whole one.
pub(crate) fn read(file: &File, offset: u64) -> io::Result<Option<(Batch, u64)>> {
    let mut header = [0; HEADER as usize];
    if !read_whole(file, &mut header, offset)? {
        return Ok(None);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let (length, checksum) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
    if length > MAX_BODY {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    if !read_whole(file, &mut body, offset + HEADER)? || crc32fast::hash(&body) != checksum {
        return Ok(None);
    }
    Ok(decode(&body).map(|batch| (batch, offset + HEADER + u64::from(length))))
}

fn decode(body: &[u8]) -> Option<Batch> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let (topic, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some(Batch { topic: std::str::from_utf8(topic).ok()?.to_owned(), payload: payload.to_vec() })
}

fn read_whole(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
