//! Readings become batches, batches wait on the disk, and leave it when the cloud has acknowledged them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use connection::{Error, Publisher};
use publish::{Batch, Batcher, Position, Reading, Spool};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::Counts;
use super::budget::Budget;
use super::clients::Counter;
use crate::config::Publish;
use crate::socket::listen;

/// AWS takes 100 messages a second from a connection, and the jobs' are among them.
const BETWEEN: Duration = Duration::from_millis(50);
const IN_FLIGHT: usize = 8;
/// An acknowledgement that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is taken from all programs together: more than can be sent, and no more than a small processor reads in passing.
const TAKEN_PER_SECOND: u64 = 256 * 1024;
const TAKEN_AT_ONCE: u64 = 1024 * 1024;
/// Without a connection a batch waits longer for others, and then only to be safe from a power cut.
const OFFLINE_BATCH: Duration = Duration::from_secs(60);
/// What was delivered until then is never synced.
const UNSYNCED: Duration = Duration::from_secs(10);
/// After a connection that broke as it published: this, four times as long each time, and an hour at most.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What became of a batch on this topic.
type Answered = (Position, String, Result<(), Error>);

pub(super) struct Desk {
    settings: Publish,
    batcher: Batcher,
    spool: Spool,
    link: Publisher,
    counts: Arc<Counts>,
    budget: Budget,
    flight: JoinSet<Answered>,
    /// There may be something in the spool that was not given out.
    stocked: bool,
    unsynced_since: Option<Instant>,
    next_send: Instant,
    last_sent: Option<Position>,
    /// Until that is delivered, one at a time: among what is sent may be something that breaks the connection.
    careful_until: Option<Position>,
    /// How often that has happened.
    strikes: u32,
    /// Something is lost, and it was said.
    losing: bool,
}

impl Desk {
    pub(super) fn new(settings: Publish, spool: Spool, link: Publisher, counts: Arc<Counts>) -> Self {
        let now = Instant::now();
        Self {
            batcher: Batcher::new(settings.encoding.clone()),
            settings,
            spool,
            link,
            counts,
            budget: Budget::new(TAKEN_PER_SECOND, TAKEN_AT_ONCE, now),
            flight: JoinSet::new(),
            stocked: true,
            unsynced_since: None,
            next_send: now,
            last_sent: None,
            careful_until: None,
            strikes: 0,
            losing: false,
        }
    }

    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        // As few as possible: who writes faster than this is read waits.
        let (counter, mut readings) = mpsc::channel(4);
        match listen(&self.settings.socket) {
            Ok(listener) => {
                let rules = Arc::new(self.settings.rules.clone());
                let counter = Counter { rules, desk: counter, counts: Arc::clone(&self.counts) };
                tokio::spawn(counter.serve(listener));
            }
            Err(error) => {
                let path = self.settings.socket.display();
                tracing::warn!(%path, %error, "nobody can publish");
            }
        }
        loop {
            let now = Instant::now();
            let empty_until = self.budget.empty_until(now);
            let due = self.work(now).into_iter().chain(empty_until).min();
            let time = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stop => break,
                Some(reading) = readings.recv(), if empty_until.is_none() => self.take(reading),
                Some(answered) = self.flight.join_next() => match answered {
                    Ok(answered) => self.answered(answered),
                    // It does not panic, and is not cancelled one by one.
                    Err(_) => self.take_back(),
                },
                () = self.link.changed() => {}
                () = time => {}
            }
        }
        self.close().await;
    }

    fn take(&mut self, reading: Reading) {
        let now = Instant::now();
        self.counts.readings.fetch_add(1, Ordering::Relaxed);
        self.budget.spend(now, reading.topic.len() + reading.payload.len());
        for batch in self.batcher.push(now, reading) {
            self.keep(&batch);
        }
    }

    /// Does what can be done now; when there is more.
    fn work(&mut self, now: Instant) -> Option<Instant> {
        let connected = self.link.is_connected();
        let age = self.settings.batch_for;
        let age = if connected { age } else { age.max(OFFLINE_BATCH) };
        for batch in self.batcher.take_older(now, age) {
            self.keep(&batch);
        }
        while connected && self.may_send() && self.next_send <= now {
            self.send_next(now);
        }
        if self.unsynced_since.is_some_and(|since| now.saturating_duration_since(since) >= UNSYNCED) {
            self.sync();
        }
        self.tell();
        let batch = self.batcher.waits_since().map(|since| since + age);
        let send = (connected && self.may_send()).then_some(self.next_send);
        let sync = self.unsynced_since.map(|since| since + UNSYNCED);
        [batch, send, sync].into_iter().flatten().min()
    }

    fn may_send(&self) -> bool {
        let most = if self.careful_until.is_some() { 1 } else { IN_FLIGHT };
        self.stocked && self.flight.len() < most
    }

    fn keep(&mut self, batch: &Batch) {
        if let Err(error) = self.spool.append(batch)
            && !self.losing
        {
            self.losing = true;
            tracing::warn!(%error, "readings of other programs cannot be kept, and are lost");
        }
        self.stocked = true;
        if !self.spool.is_synced() {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
    }

    fn send_next(&mut self, now: Instant) {
        match self.spool.next_batch() {
            Ok(Some((position, Batch { topic, payload }))) => {
                let link = self.link.clone();
                self.flight.spawn(async move {
                    let sent = timeout(PATIENCE, link.publish(topic.clone(), payload)).await;
                    (position, topic, sent.unwrap_or(Err(Error::Unacknowledged)))
                });
                self.last_sent = Some(position);
                self.next_send = now + BETWEEN;
            }
            Ok(None) => self.stocked = false,
            Err(error) => {
                tracing::warn!(%error, "readings of other programs cannot be read back, and are lost");
            }
        }
    }

    fn answered(&mut self, (position, topic, result): Answered) {
        match result {
            Ok(()) => {
                if self.careful_until.is_some_and(|until| position >= until) {
                    (self.careful_until, self.strikes) = (None, 0);
                }
                self.counts.batches.fetch_add(1, Ordering::Relaxed);
                self.delivered(position);
            }
            Err(Error::NotConnected) => self.take_back(),
            Err(Error::Unacknowledged) => self.strike(&topic),
            // It would never be taken.
            Err(error) => {
                tracing::warn!(%error, "a batch of other programs' readings is lost");
                self.delivered(position);
            }
        }
    }

    /// A policy that forbids a topic closes the connection: the jobs' own messages are not to share that again and again.
    fn strike(&mut self, topic: &str) {
        self.strikes += 1;
        self.careful_until = self.careful_until.max(self.last_sent);
        let pause = PAUSE.saturating_mul(4u32.saturating_pow(self.strikes - 1)).min(LONGEST_PAUSE);
        self.next_send = Instant::now() + pause;
        if self.strikes > 1 {
            let (strikes, pause_s) = (self.strikes, pause.as_secs());
            tracing::warn!(
                strikes,
                pause_s,
                "publishing for other programs pauses: the connection was lost again when {topic} was published to; does \
                 the policy allow iot:Publish on topic/{topic}?"
            );
        }
        self.take_back();
    }

    fn delivered(&mut self, position: Position) {
        self.spool.delivered(position);
        if self.spool.is_synced() {
            self.unsynced_since = None;
        }
        if self.spool.bytes() == 0 {
            self.losing = false;
        }
    }

    /// What is under way may arrive, and comes again all the same.
    fn take_back(&mut self) {
        self.flight = JoinSet::new();
        self.spool.rewind();
        self.stocked = true;
    }

    fn sync(&mut self) {
        if let Err(error) = self.spool.sync() {
            tracing::warn!(%error, "readings of other programs may not survive a power cut");
        }
        self.unsynced_since = None;
    }

    /// For the status; and for the log, when the limit begins to cost something.
    fn tell(&mut self) {
        let lost = self.spool.lost();
        if self.counts.lost.swap(lost, Ordering::Relaxed) < lost && !self.losing {
            self.losing = true;
            tracing::warn!(
                max_bytes = self.settings.max_bytes,
                "too many readings of other programs wait: the oldest are lost"
            );
        }
        self.counts.waiting.store(self.spool.bytes(), Ordering::Relaxed);
    }

    /// Answers that are under way are waited for, so that nothing is sent twice without need.
    async fn close(mut self) {
        for batch in self.batcher.take_all(Instant::now()) {
            self.keep(&batch);
        }
        let answers = async {
            while let Some(Ok((position, _, Ok(())))) = self.flight.join_next().await {
                self.spool.delivered(position);
            }
        };
        let _ = timeout(Duration::from_secs(1), answers).await;
        if let Err(error) = self.spool.close() {
            tracing::warn!(%error, "readings of other programs may be lost, or sent twice");
        }
    }
}
