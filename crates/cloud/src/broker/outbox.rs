//! What waits to be written to one connection. Bounded: a client that does not read is disconnected, and keeps
//! nobody else waiting.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::close::Close;
use super::limits::{OUTBOX_BYTES, OUTBOX_MESSAGES};
use super::packet::Message;

#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    /// There is one at QoS 1.
    pub(super) packet_id: Option<NonZeroU16>,
    pub(super) retain: bool,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    close: Option<Close>,
}

impl Outbox {
    pub(super) fn push(&self, delivery: Delivery) {
        let mut waiting = self.lock();
        if waiting.close.is_some() {
            return;
        }
        waiting.bytes += delivery.message.payload.len();
        waiting.deliveries.push_back(delivery);
        if waiting.bytes > OUTBOX_BYTES || waiting.deliveries.len() > OUTBOX_MESSAGES {
            *waiting = Waiting { close: Some(Close::SlowReader), ..Waiting::default() };
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Asks the connection to end; the first reason given stands.
    pub(super) fn close(&self, close: Close) {
        self.lock().close.get_or_insert(close);
        self.wake.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Delivery> {
        let mut waiting = self.lock();
        let delivery = waiting.deliveries.pop_front();
        match &delivery {
            Some(delivery) => waiting.bytes -= delivery.message.payload.len(),
            // An idle connection keeps no memory for its last burst.
            None if waiting.deliveries.capacity() > 16 => waiting.deliveries = VecDeque::new(),
            None => {}
        }
        delivery
    }

    pub(super) fn closing(&self) -> Option<Close> {
        self.lock().close
    }

    /// Until there may be something to do.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    pub(super) async fn closed(&self) -> Close {
        loop {
            if let Some(close) = self.closing() {
                // For whoever waits next.
                self.wake.notify_one();
                return close;
            }
            self.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
