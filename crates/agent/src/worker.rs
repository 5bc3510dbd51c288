//! One operation at a time, polled beside the loop and never awaited inside it.

use std::pin::Pin;

use device::{Boot, Halt};
use dispatcher::{AfterStart, Context, Dispatcher, Ended, Operation, Progress, Verdict};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, Span};

use crate::hands::Hands;

pub type Host = Dispatcher<Hands>;

type Running = Pin<Box<dyn Future<Output = (Box<Host>, Ended, Option<Boot>)>>>;

pub struct Worker {
    state: State,
    progress: watch::Sender<Progress>,
    fresh_document: mpsc::Sender<oneshot::Sender<Value>>,
    connected: watch::Receiver<bool>,
    booted: Option<Boot>,
}

/// The dispatcher is either at hand or inside the running future: nothing else can touch the device meanwhile.
enum State {
    Idle(Box<Host>),
    Busy {
        running: Running,
        halt: Halt,
    },
    /// Only while one of the two above becomes the other.
    Between,
}

pub enum Work {
    Run(Operation),
    /// What a restart interrupted.
    Finish(AfterStart),
}

impl Worker {
    pub fn new(
        host: Host,
        progress: watch::Sender<Progress>,
        fresh_document: mpsc::Sender<oneshot::Sender<Value>>,
        connected: watch::Receiver<bool>,
    ) -> Self {
        Self { state: State::Idle(Box::new(host)), progress, fresh_document, connected, booted: None }
    }

    /// What is known of the running system after what ended last, once.
    pub fn booted(&mut self) -> Option<Boot> {
        self.booted.take()
    }

    /// The dispatcher, while nothing runs.
    pub fn idle(&mut self) -> Option<&mut Host> {
        match &mut self.state {
            State::Idle(host) => Some(host),
            State::Busy { .. } | State::Between => None,
        }
    }

    /// How to stop what runs.
    pub fn halt(&self) -> Option<&Halt> {
        match &self.state {
            State::Busy { halt, .. } => Some(halt),
            State::Idle(_) | State::Between => None,
        }
    }

    /// Begins, if nothing runs: one operation at a time is kept here, and not by the care of callers.
    /// What it logs is said inside `span`.
    pub fn start(&mut self, work: Work, span: Span) {
        self.state = match std::mem::replace(&mut self.state, State::Between) {
            State::Idle(mut host) => {
                let halt = Halt::default();
                let context = Context {
                    progress: self.progress.clone(),
                    fresh_document: self.fresh_document.clone(),
                    connected: self.connected.clone(),
                    halt: halt.clone(),
                };
                let work = async move {
                    let ended = match work {
                        Work::Run(operation) => host.run(&operation, &context).await,
                        Work::Finish(what) => host.finish(what, &context).await,
                    };
                    // Asked here, beside the loop: a device may take its time for the answer.
                    let booted = match &ended {
                        Ended::Outcome(outcome) if outcome.verdict == Verdict::Succeeded => {
                            host.boot().await.ok()
                        }
                        _ => None,
                    };
                    (host, ended, booted)
                };
                State::Busy { running: Box::pin(work.instrument(span)), halt }
            }
            busy => {
                tracing::error!("work was to be started beside other work, and was not");
                busy
            }
        };
    }

    /// How the running work ended; never, while nothing runs. Cancel-safe: the work is kept here, not in the
    /// returned future.
    pub async fn ended(&mut self) -> Ended {
        let State::Busy { running, .. } = &mut self.state else { return std::future::pending().await };
        let (host, ended, booted) = running.await;
        self.state = State::Idle(host);
        self.booted = booted;
        ended
    }
}
