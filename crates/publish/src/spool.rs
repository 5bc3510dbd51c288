//! Batches that wait, in files, within a limit: first in, first out, and nothing is removed before it was delivered.
//!
//! A segment is a file to which records are appended; it is removed when all of them were delivered, so that a device which is
//! connected hardly ever writes to its flash. At the limit the oldest segment goes: newer readings are worth more.

mod cursor;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::{Batch, record};

/// What is lost at the limit at once, and at most sent twice after the process was killed.
const SEGMENT: u64 = 64 * 1024;
/// Left free on the disk: the device's own state is on it, and no reading is worth a job.
const RESERVE: u64 = 1024 * 1024;
const EXTENSION: &str = "batches";

/// Where a record ends. By their order, the order of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    segment: u64,
    end: u64,
}

#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limit: u64,
    segments: VecDeque<Segment>,
    /// What is appended to: the last segment, if this process has made it.
    tail: Option<File>,
    unsynced: bool,
    /// Up to here everything was delivered.
    head: Position,
    /// Up to here everything was given out.
    next: Position,
    /// What was given out since the head, and whether it was delivered.
    out: VecDeque<(Position, bool)>,
    reading: Option<(u64, File)>,
    lost: u64,
    last_id: u64,
}

#[derive(Debug)]
struct Segment {
    id: u64,
    bytes: u64,
}

const START: Position = Position { segment: 0, end: 0 };

impl Spool {
    /// Of a folder that nobody else writes to. What an earlier process left in it is still to be delivered.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Some(id) = id(&entry.path()) {
                segments.push(Segment { id, bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.id);
        let cursor = cursor::take(folder)?;
        let last_id = segments.last().map_or(0, |segment| segment.id).max(cursor.map_or(0, |at| at.segment));
        // Of a segment that is gone it says nothing about the others.
        let first = segments.first().map(|segment| segment.id);
        let head = cursor.filter(|at| Some(at.segment) == first).unwrap_or(START);
        let mut spool = Self {
            folder: folder.to_owned(),
            limit: limit.max(2 * SEGMENT),
            segments: segments.into(),
            tail: None,
            unsynced: false,
            head,
            next: head,
            out: VecDeque::new(),
            reading: None,
            lost: 0,
            last_id,
        };
        spool.make_room(0);
        Ok(spool)
    }

    /// Keeps a batch. What does not fit on the disk even when older ones went is lost, and counted.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(bytes) = record::encode(batch) else {
            self.lost += 1;
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.make_room(bytes.len() as u64);
        let written = self.write(&bytes).or_else(|error| {
            // The disk may be full, and what is oldest on it is ours.
            if self.drop_oldest() { self.write(&bytes) } else { Err(error) }
        });
        if written.is_err() {
            self.lost += 1;
        }
        written
    }

    /// The next one that was not given out yet.
    pub fn next_batch(&mut self) -> io::Result<Option<(Position, Batch)>> {
        while let Some(segment) = self.segments.iter().find(|segment| segment.id >= self.next.segment) {
            let (id, bytes) = (segment.id, segment.bytes);
            let offset = if id == self.next.segment { self.next.end } else { 0 };
            let found = if offset < bytes { self.read(id, offset) } else { Ok(None) };
            match found {
                Ok(Some((batch, end))) => {
                    self.next = Position { segment: id, end };
                    self.out.push_back((self.next, false));
                    return Ok(Some((self.next, batch)));
                }
                Ok(None) if self.is_tail(id) => return Ok(None),
                // Its end, or where it is torn; or it cannot be read, and will not be the next time.
                ended => {
                    self.give_up(id);
                    ended?;
                }
            }
        }
        Ok(None)
    }

    /// It was delivered.
    pub fn delivered(&mut self, position: Position) {
        if let Some((_, delivered)) = self.out.iter_mut().find(|(at, _)| *at == position) {
            *delivered = true;
        }
        self.settle();
    }

    /// What was given out and not delivered is given out again.
    pub fn rewind(&mut self) {
        self.out.clear();
        self.next = self.head;
    }

    pub fn is_synced(&self) -> bool {
        !self.unsynced
    }

    /// What was appended survives a power cut from here on.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(tail) = self.tail.as_ref().filter(|_| self.unsynced) {
            tail.sync_data()?;
            File::open(&self.folder)?.sync_all()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// For the next start: what was delivered is not sent again.
    pub fn close(mut self) -> io::Result<()> {
        self.sync()?;
        if self.segments.is_empty() { Ok(()) } else { cursor::write(&self.folder, self.head) }
    }

    /// What waits, in bytes of files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Batches that had to go, and those that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn read(&mut self, id: u64, offset: u64) -> io::Result<Option<(Batch, u64)>> {
        record::read(self.file(id)?, offset)
    }

    /// Goes on behind a segment.
    fn give_up(&mut self, id: u64) {
        if self.is_tail(id) {
            self.tail = None;
        }
        self.next = Position { segment: id + 1, end: 0 };
        self.settle();
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full = self.segments.back().is_none_or(|last| last.bytes + bytes.len() as u64 > SEGMENT);
        if full || self.tail.is_none() {
            if available(&self.folder)? < RESERVE + SEGMENT {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // A segment of an earlier process may be torn at its end: nothing is written behind that.
            let id = self.last_id + 1;
            let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.path(id))?;
            if let Some(before) = self.tail.replace(file) {
                before.sync_data()?;
            }
            self.last_id = id;
            self.segments.push_back(Segment { id, bytes: 0 });
        }
        let (Some(file), Some(segment)) = (self.tail.as_mut(), self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = file.write_all(bytes) {
            // What is half written would hide what comes after it.
            if file.set_len(segment.bytes).is_err() {
                self.tail = None;
            }
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes() + bytes > self.limit && self.drop_oldest() {}
    }

    /// Whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.segments.front() else { return false };
        let id = oldest.id;
        self.lost += self.waiting_in(id);
        self.remove_first();
        self.out.retain(|(at, _)| at.segment > id);
        self.head = self.head.max(Position { segment: id + 1, end: 0 });
        self.next = self.next.max(self.head);
        true
    }

    /// Records of a segment that were not delivered.
    fn waiting_in(&mut self, id: u64) -> u64 {
        let mut offset = if self.head.segment == id { self.head.end } else { 0 };
        let mut count = 0;
        let Ok(file) = self.file(id) else { return 0 };
        while let Ok(Some((_, end))) = record::read(file, offset) {
            (offset, count) = (end, count + 1);
        }
        count
    }

    /// Moves the head over what was delivered, and removes what is behind it.
    fn settle(&mut self) {
        while let Some((position, true)) = self.out.front().copied() {
            self.head = position;
            self.out.pop_front();
        }
        if self.out.is_empty() {
            self.head = self.head.max(self.next);
        }
        while let Some(first) = self.segments.front() {
            let done = first.id < self.head.segment
                || (first.id == self.head.segment && self.head.end >= first.bytes);
            if !done {
                return;
            }
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        let Some(first) = self.segments.pop_front() else { return };
        if self.last_id == first.id {
            self.tail = None;
            self.unsynced = false;
        }
        self.reading = None;
        // If it cannot be removed, it is delivered again after a restart.
        let _ = fs::remove_file(self.path(first.id));
    }

    fn is_tail(&self, id: u64) -> bool {
        self.tail.is_some() && self.last_id == id
    }

    fn file(&mut self, id: u64) -> io::Result<&File> {
        let open = self.reading.take().filter(|(open, _)| *open == id);
        let open = match open {
            Some(open) => open,
            None => (id, File::open(self.path(id))?),
        };
        Ok(&self.reading.insert(open).1)
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:016x}.{EXTENSION}"))
    }
}

fn available(folder: &Path) -> io::Result<u64> {
    let space = statvfs(folder)?;
    // Narrower than u64 on 32-bit processors.
    #[allow(clippy::useless_conversion, reason = "it is not useless everywhere")]
    let (blocks, size) = (u64::from(space.blocks_available()), u64::from(space.fragment_size()));
    Ok(blocks.saturating_mul(size))
}

fn id(path: &Path) -> Option<u64> {
    let name = path.file_stem().filter(|_| path.extension().is_some_and(|found| found == EXTENSION))?;
    u64::from_str_radix(name.to_str()?, 16).ok()
}

#[cfg(test)]
mod tests;
