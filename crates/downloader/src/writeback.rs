//! The threads behind a staged file. One writes and syncs, window by window; the other trails behind it, reads each
//! window back and hashes what it read. So one pass over the bytes is both the digest of the transfer and the check
//! of what was written.
//!
//! What it proves: the bytes that the file gives back are the bytes of the digest. The kernel is asked to drop its
//! clean pages first (`POSIX_FADV_DONTNEED`), so that they normally come from the storage; it may decline (tmpfs has
//! no storage, another reader may hold the pages), and a drive's own cache is out of reach.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread,
};

use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::off_t;
use tokio::sync::{mpsc, oneshot};

use crate::{Digest, SinkError, VerifyError};

/// Synced and read back in one go. Large, because each sync waits for the storage's journal.
const WINDOW: u64 = 8 << 20;
/// Written before the kernel is nudged to start moving the pages out.
const NUDGE: u64 = 1 << 20;
/// Written whole: of a block device the kernel must first read a page that is written in part.
const PAGE: u64 = 4096;
/// Read back and hashed at a time: fits the processor's cache.
const BLOCK: usize = 64 << 10;
/// The queue between network and storage: 16 × 16 KiB.
const CHUNK: usize = 16 << 10;
const QUEUE: usize = 16;

// What fails, for the errors.
const WRITE: &str = "write the artifact";
const SYNC: &str = "sync the artifact";
const READ: &str = "read the artifact back";

/// How far the file is written and synced, or how that failed.
type Written = std_mpsc::Sender<Result<u64, SinkError>>;

/// The digest of bytes, and how many they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    pub digest: Digest,
    pub len: u64,
}

impl Hashed {
    /// Are these the bytes that were asked for? `resumed`: some of them were there before this transfer.
    pub fn check(&self, expected: Digest, size: Option<u64>, resumed: bool) -> Result<(), VerifyError> {
        if let Some(size) = size.filter(|size| *size != self.len) {
            return Err(VerifyError::SizeMismatch { expected: size, found: self.len, resumed });
        }
        if self.digest != expected {
            return Err(VerifyError::ChecksumMismatch { expected, found: self.digest, resumed });
        }
        Ok(())
    }
}

/// Bytes on their way to an open file or block device. Dropping it waits until nothing writes any more.
pub struct Writeback {
    queue: Option<mpsc::Sender<Bytes>>,
    outcome: Option<oneshot::Receiver<Result<Hashed, SinkError>>>,
    stop: Arc<AtomicBool>,
    synced: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Writeback {
    /// Goes on behind the `existing` bytes of the file, which are read back and hashed first. Nothing is written past
    /// the first `room` bytes.
    pub fn start(file: &Arc<File>, existing: u64, room: u64) -> Result<Self, SinkError> {
        let (queue, bytes) = mpsc::channel(QUEUE);
        let (written, to_hash) = std_mpsc::channel();
        let (report, outcome) = oneshot::channel();
        let mut this = Self {
            queue: Some(queue),
            outcome: Some(outcome),
            stop: Arc::default(),
            synced: Arc::default(),
            threads: Vec::new(),
        };

        let (file, synced) = (Arc::clone(file), Arc::clone(&this.synced));
        let reader = Arc::clone(&file);
        let writer =
            Writer { file, room, at: existing, tail: Vec::new(), synced: 0, nudged: existing, shown: synced };
        let stop = Arc::clone(&this.stop);
        this.spawn("artifact-write", move || {
            if let Err(e) = writer.run(bytes, &written, &stop) {
                let _ = written.send(Err(e)); // the hasher reports it
            }
        })?;
        let stop = Arc::clone(&this.stop);
        this.spawn("artifact-hash", move || {
            let _ = report.send(hash_windows(&reader, &to_hash, &stop)); // nobody listens after a drop
        })?;
        Ok(this)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), SinkError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.map_err(|e| SinkError::storage("start a thread", e))?);
        Ok(())
    }

    /// Queues the next bytes, counting in `taken` what was queued, also if it is dropped while waiting.
    pub async fn push(&mut self, mut bytes: Bytes, taken: &mut u64) -> Result<(), SinkError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let len = chunk.len() as u64;
            let sent = match &self.queue {
                Some(queue) => queue.send(chunk).await.is_ok(),
                None => false,
            };
            if !sent {
                return Err(self.outcome().await.err().unwrap_or_else(ended_early));
            }
            *taken += len;
        }
        Ok(())
    }

    /// How many bytes from the beginning would survive a power cut.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Relaxed)
    }

    /// The same from a thread that may wait.
    pub fn push_blocking(&mut self, mut bytes: Bytes) -> Result<(), SinkError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let sent = self.queue.as_ref().is_some_and(|queue| queue.blocking_send(chunk).is_ok());
            if !sent {
                let outcome = self.outcome.take().and_then(|outcome| outcome.blocking_recv().ok());
                return Err(outcome.and_then(Result::err).unwrap_or_else(ended_early));
            }
        }
        Ok(())
    }

    /// Everything was pushed: all of it is on disk, and this is what is read there.
    pub async fn finish(mut self) -> Result<Hashed, SinkError> {
        self.queue = None;
        self.outcome().await
    }

    async fn outcome(&mut self) -> Result<Hashed, SinkError> {
        match self.outcome.take() {
            Some(outcome) => outcome.await.unwrap_or_else(|_| Err(ended_early())),
            None => Err(ended_early()),
        }
    }
}

impl Drop for Writeback {
    /// Waits for the threads, so that nothing writes to the file any more: a block or one window's sync away.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic has already shown as a missing outcome
        }
    }
}

fn ended_early() -> SinkError {
    SinkError::storage(WRITE, io::Error::other("the writing thread has ended"))
}

struct Writer {
    file: Arc<File>,
    room: u64,
    at: u64,
    /// Not yet written: the beginning of a page, between two batches.
    tail: Vec<u8>,
    synced: u64,
    nudged: u64,
    /// `synced`, for everybody.
    shown: Arc<AtomicU64>,
}

impl Writer {
    fn run(
        mut self,
        mut bytes: mpsc::Receiver<Bytes>,
        written: &Written,
        stop: &AtomicBool,
    ) -> Result<(), SinkError> {
        if self.at > 0 {
            self.hand_over(written)?; // read while the network is still being asked
        }
        let mut batch = Vec::with_capacity(QUEUE);
        while bytes.blocking_recv_many(&mut batch, QUEUE) > 0 && !stop.load(Ordering::Relaxed) {
            for bytes in batch.drain(..) {
                let end = self.at + self.tail.len() as u64;
                let (needed, available) = (bytes.len() as u64, self.room.saturating_sub(end));
                if needed > available {
                    return Err(SinkError::NoSpace { needed, available });
                }
                self.tail.extend_from_slice(&bytes);
            }
            let torn = (self.at + self.tail.len() as u64) % PAGE;
            self.write(self.tail.len().saturating_sub(torn as usize))?;
            if self.at - self.nudged >= NUDGE {
                // Dirty pages are not dropped, but Linux begins to write them out, so the sync is short.
                drop_pages(&self.file, self.nudged, self.at);
                self.nudged = self.at;
            }
            if self.at - self.synced >= WINDOW {
                self.hand_over(written)?;
            }
        }
        self.write(self.tail.len())?;
        if !stop.load(Ordering::Relaxed) {
            self.file.sync_all().map_err(|e| SinkError::storage(SYNC, e))?;
            self.hand_over(written)?;
        }
        Ok(())
    }

    fn write(&mut self, length: usize) -> Result<(), SinkError> {
        let bytes = self.tail.get(..length).unwrap_or_default();
        self.file.write_all_at(bytes, self.at).map_err(|e| SinkError::storage(WRITE, e))?;
        self.at += bytes.len() as u64;
        self.tail.drain(..length);
        Ok(())
    }

    /// What was written until now is on the storage, and the hasher may read it.
    fn hand_over(&mut self, written: &Written) -> Result<(), SinkError> {
        self.file.sync_data().map_err(|e| SinkError::storage(SYNC, e))?;
        self.synced = self.at;
        self.shown.store(self.at, Ordering::Relaxed);
        // A hasher that is gone has failed, and its error is the one that counts.
        written.send(Ok(self.at)).map_err(|_| ended_early())
    }
}

fn hash_windows(
    file: &File,
    written: &std_mpsc::Receiver<Result<u64, SinkError>>,
    stop: &AtomicBool,
) -> Result<Hashed, SinkError> {
    let mut hasher = ReadBack::new(file);
    while let Ok(end) = written.recv() {
        hasher.read_to(end?, stop)?;
    }
    Ok(hasher.finish())
}

/// Hashes bytes as they pass.
pub struct Hasher {
    context: ring::digest::Context,
    len: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { context: Digest::context(), len: 0 }
    }
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.len += bytes.len() as u64;
    }

    pub fn finish(self) -> Hashed {
        Hashed { digest: Digest::of(self.context), len: self.len }
    }
}

/// Hashes a file from its beginning, as it is read back.
pub struct ReadBack<'a> {
    file: &'a File,
    hasher: Hasher,
    at: u64,
    block: Vec<u8>,
}

impl<'a> ReadBack<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, hasher: Hasher::default(), at: 0, block: vec![0; BLOCK] }
    }

    pub fn read_to(&mut self, end: u64, stop: &AtomicBool) -> Result<(), SinkError> {
        drop_pages(self.file, self.at, end);
        while self.at < end && !stop.load(Ordering::Relaxed) {
            let want = usize::try_from(end - self.at).unwrap_or(BLOCK).min(BLOCK);
            let read = match self.block.get_mut(..want).map(|block| self.file.read_at(block, self.at)) {
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                Some(Err(e)) => return Err(SinkError::storage(READ, e)),
                None | Some(Ok(0)) => {
                    let gone = io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file is shorter than what was written",
                    );
                    return Err(SinkError::storage(READ, gone));
                }
                Some(Ok(read)) => read,
            };
            self.hasher.update(self.block.get(..read).unwrap_or_default());
            self.at += read as u64;
        }
        Ok(())
    }

    pub fn finish(self) -> Hashed {
        self.hasher.finish()
    }
}

/// Only advice: a filesystem that cannot follow it is no error, nor is a place that 32 bits cannot name.
fn drop_pages(file: &File, from: u64, to: u64) {
    if let (Ok(offset), Ok(len)) = (off_t::try_from(from), off_t::try_from(to - from))
        && len > 0
    {
        let _ = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
