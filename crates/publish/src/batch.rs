//! Readings of one topic become one message: a JSON array that stays in one metered unit. Pure: `now` is passed in.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Reading;

/// Of topic and payload together: a tenth below AWS's unit of 5 KiB.
pub const LIMIT: usize = 4608;
/// Before it is compressed. What a batch can hold of memory, and what its reader has to.
const MAX_RAW: usize = 32 * 1024;
/// Topics with an open batch. Their number times [`MAX_RAW`] is the memory that they can occupy.
const MAX_OPEN: usize = 32;
/// What gzip adds to what cannot be compressed.
const GZIP_OVERHEAD: usize = 64;

/// A message as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub topic: String,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    Json,
    /// The same, compressed; with a suffix to the topic, so that nobody takes it for JSON.
    Gzip {
        suffix: String,
    },
}

/// One open batch for each topic.
#[derive(Debug)]
pub struct Batcher {
    encoding: Encoding,
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// With commas between.
    raw: String,
    /// Where each reading ends in it.
    ends: Vec<usize>,
    /// So many of them are known to fit.
    fit: usize,
    /// Compressing takes its time: it is tried again at this length.
    try_at: usize,
}

impl Batcher {
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, open: BTreeMap::new() }
    }

    /// What is full now, the oldest first.
    pub fn push(&mut self, now: Instant, reading: Reading) -> Vec<Batch> {
        let Reading { topic, payload } = reading;
        let mut full = Vec::new();
        if !self.open.contains_key(&topic) && self.open.len() >= MAX_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.since).map(|(topic, _)| topic.clone());
            if let Some((topic, open)) = oldest.and_then(|topic| self.open.remove_entry(&topic)) {
                self.encoding.drain(&topic, open, &mut full);
            }
        }
        let open = self.open.entry(topic.clone()).or_insert_with(|| Open::new(now));
        open.add(&payload);
        self.encoding.settle(&topic, open, now, &mut full);
        if open.ends.is_empty() {
            self.open.remove(&topic);
        }
        full
    }

    /// Since when the oldest reading waits.
    pub fn waits_since(&self) -> Option<Instant> {
        self.open.values().map(|open| open.since).min()
    }

    /// The batches that were begun so long ago, or earlier.
    pub fn take_older(&mut self, now: Instant, age: Duration) -> Vec<Batch> {
        let due = |open: &Open| now.saturating_duration_since(open.since) >= age;
        let topics: Vec<_> =
            self.open.iter().filter(|(_, open)| due(open)).map(|(topic, _)| topic.clone()).collect();
        let mut taken = Vec::new();
        for topic in topics {
            if let Some(open) = self.open.remove(&topic) {
                self.encoding.drain(&topic, open, &mut taken);
            }
        }
        taken
    }

    pub fn take_all(&mut self, now: Instant) -> Vec<Batch> {
        self.take_older(now, Duration::ZERO)
    }
}

impl Open {
    fn new(now: Instant) -> Self {
        Self { since: now, raw: String::new(), ends: Vec::new(), fit: 0, try_at: 0 }
    }

    fn add(&mut self, payload: &str) {
        if !self.raw.is_empty() {
            self.raw.push(',');
        }
        self.raw.push_str(payload);
        self.ends.push(self.raw.len());
    }

    /// The first `count` readings.
    fn first(&self, count: usize) -> &str {
        let end = count.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        self.raw.get(..end).unwrap_or_default()
    }

    fn remove_first(&mut self, count: usize) {
        // With the comma behind them.
        let gone = (self.first(count).len() + 1).min(self.raw.len());
        self.raw.drain(..gone);
        self.ends.drain(..count);
        for end in &mut self.ends {
            *end -= gone;
        }
        (self.fit, self.try_at) = (0, 0);
    }
}

impl Encoding {
    pub fn suffix(&self) -> &str {
        match self {
            Self::Json => "",
            Self::Gzip { suffix } => suffix,
        }
    }

    /// Gives away what is full. At least the last reading fits what stays, as far as it was tried.
    fn settle(&self, topic: &str, open: &mut Open, now: Instant, full: &mut Vec<Batch>) {
        let room = self.room(topic);
        while !open.ends.is_empty() {
            let length = open.raw.len();
            if self.longest_of(length) <= room {
                open.fit = open.ends.len();
                return;
            }
            if length < open.try_at {
                return;
            }
            let encoded = self.encode(&open.raw).len();
            if encoded <= room && length < MAX_RAW {
                open.fit = open.ends.len();
                // Half of what there may be room for, as far as the rest is like this.
                let growth = (room - encoded) * length / encoded.max(1) / 2;
                open.try_at = (length + growth.max(256)).min(MAX_RAW);
                return;
            }
            let count = if encoded <= room { open.ends.len() } else { self.longest_fit(open, room) };
            full.push(self.batch(topic, open.first(count)));
            open.remove_first(count);
            open.since = now;
        }
    }

    /// Gives away all of it.
    fn drain(&self, topic: &str, mut open: Open, taken: &mut Vec<Batch>) {
        let room = self.room(topic);
        while !open.ends.is_empty() {
            let all = self.longest_of(open.raw.len()) <= room || self.encode(&open.raw).len() <= room;
            let count = if all { open.ends.len() } else { self.longest_fit(&open, room) };
            taken.push(self.batch(topic, open.first(count)));
            open.remove_first(count);
        }
    }

    fn room(&self, topic: &str) -> usize {
        LIMIT.saturating_sub(topic.len() + self.suffix().len())
    }

    /// How many readings fit. One that does not by itself goes alone: it costs what it costs.
    fn longest_fit(&self, open: &Open, room: usize) -> usize {
        let (mut fits, mut beyond) = (open.fit, open.ends.len());
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            if self.encode(open.first(middle)).len() <= room {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        fits.max(1)
    }

    /// No encoding of so many bytes is longer.
    fn longest_of(&self, raw: usize) -> usize {
        match self {
            Self::Json => raw + 2,
            Self::Gzip { .. } => raw + 2 + GZIP_OVERHEAD,
        }
    }

    fn encode(&self, raw: &str) -> Vec<u8> {
        let json = [b"[", raw.as_bytes(), b"]"].concat();
        match self {
            Self::Json => json,
            Self::Gzip { .. } => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                // Into memory: this does not fail.
                let _ = encoder.write_all(&json);
                encoder.finish().unwrap_or_default()
            }
        }
    }

    fn batch(&self, topic: &str, raw: &str) -> Batch {
        Batch { topic: format!("{topic}{}", self.suffix()), payload: self.encode(raw) }
    }
}

#[cfg(test)]
mod tests;
