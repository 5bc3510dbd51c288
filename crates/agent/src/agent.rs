//! THE loop. Everything that happens comes in through [`Agent::next`], and is dealt with by one short function:
//!
//! ```text
//! broker ──► connection ──► session ──► offer ──► dispatcher ──► device
//!                              ▲                      │
//!                              └── update ◄── outcome ┘
//! ```
//!
//! What becomes of an offer until the cloud has taken its outcome is in `agent/execution.rs`; what becomes of what a
//! shadow desires, in `agent/wishes.rs`.

mod execution;
mod wishes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connection::Event;
use connection::talk::TalkMeter;
use dispatcher::{AfterStart, Ended, Progress, Rules};
use jobs::{Action, JobExecution, Session};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Settings;
use crate::deadline::Deadline;
use crate::hands::Hands;
use crate::held::Held;
use crate::history::History;
use crate::identity::{Loan, Rotation};
use crate::link::Link;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::publishing::Publishing;
use crate::report;
use crate::seeing::Seeing;
use crate::shadows::Shadows;
use crate::status::Wanted;
use crate::view::Doing;
use crate::worker::{Work, Worker};

/// With the 2 s that a command has to end, and the 2 s for a DISCONNECT beside it, a stop stays below 5 s.
const STOP: Duration = Duration::from_millis(4500);

struct Agent {
    link: Link,
    publishing: Option<Publishing>,
    session: Session,
    rules: Rules,
    worker: Worker,
    history: History,
    meter: Meter,
    pace: Pace,
    step_timeout: Option<Duration>,
    operation_timeout: Duration,
    boot_id: String,
    held: Option<Held>,
    /// Offered while something else still winds down.
    offered: Option<JobExecution>,
    progress: watch::Receiver<Progress>,
    connected: watch::Sender<bool>,
    fresh_document: mpsc::Receiver<oneshot::Sender<Value>>,
    waits_for_document: Option<oneshot::Sender<Value>>,
    loans: mpsc::Receiver<Loan>,
    seeing: Seeing,
    shadows: Shadows,
}

enum Input {
    Link(Event),
    Ended(Ended),
    Progress,
    DocumentWanted(oneshot::Sender<Value>),
    LinkWanted(Loan),
    StatusWanted(Wanted),
    /// Files that shadows keep, by their place among them.
    Written(Vec<usize>),
    Time,
}

pub async fn run(
    settings: &Settings,
    tls: Arc<rustls::ClientConfig>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let start = async {
        let mut agent = Agent::open(settings, Hands::new(settings).await, tls).await?;
        let thing = &settings.connection.thing_name;
        tracing::info!(name: "started", thing, version = env!("CARGO_PKG_VERSION"), "started");
        agent.take_up_what_a_restart_left().await?;
        anyhow::Ok(agent)
    };
    // A helper may not be there yet, and a device may take its time to say what runs: RAUC does, while it installs. Nothing has begun that a stop would break.
    let mut agent = tokio::select! {
        agent = start => agent?,
        () = &mut stop => {
            tracing::info!(name: "stopping", "stopping");
            return Ok(());
        }
    };
    agent.seeing.ready();
    loop {
        agent.act().await;
        agent.mind_the_shadows().await;
        agent.show();
        let input = tokio::select! {
            input = agent.next() => input,
            () = &mut stop => break,
        };
        agent.handle(input).await;
    }
    agent.stop().await;
    Ok(())
}

impl Agent {
    async fn open(
        settings: &Settings,
        device: Hands,
        tls: Arc<rustls::ClientConfig>,
    ) -> anyhow::Result<Self> {
        let state_directory = &settings.state_directory;
        let (talks, (loan_sender, loans)) = (TalkMeter::default(), mpsc::channel(1));
        let host = device.dispatcher(settings, settings.rules(), settings.policy.clone())?;
        let mut host = host.with_identity(Box::new(Rotation::new(settings, talks.clone(), loan_sender)));
        let boot = host.boot().await?;
        let history = History::open(state_directory);
        let mut session = Session::new(settings.session(), fastrand::u64(..));
        session.restore_settled(
            history.settled().iter().map(|s| (s.execution.clone(), s.update.clone())).collect(),
        );
        let (progress_sender, progress) = watch::channel(Progress::phase("starting"));
        let (fresh_sender, fresh_document) = mpsc::channel(1);
        let (connected, connection) = watch::channel(false);
        let link = Link::start(settings, tls, talks);
        Ok(Self {
            publishing: Publishing::start(settings.publish.as_ref(), state_directory, link.publisher()),
            link,
            session,
            rules: settings.rules(),
            worker: Worker::new(host, progress_sender, fresh_sender, connection),
            history,
            meter: Meter::open(state_directory),
            // Half of it: one report may get lost.
            pace: Pace::new(settings.progress_interval, settings.step_timeout.unwrap_or_default() / 2),
            step_timeout: settings.step_timeout,
            operation_timeout: settings.operation_timeout,
            seeing: Seeing::new(settings, &boot, Instant::now()),
            boot_id: boot.id,
            held: None,
            offered: None,
            progress,
            connected,
            fresh_document,
            waits_for_document: None,
            shadows: Shadows::open(settings),
            loans,
        })
    }

    /// Before there is any connection: what the journal alone decides.
    async fn take_up_what_a_restart_left(&mut self) -> anyhow::Result<()> {
        let Some(host) = self.worker.idle() else { return Ok(()) };
        let next = host.after_start().await?;
        let key = host.entry().and_then(|entry| report::key(&entry.execution));
        let name = host.entry().map(|entry| entry.execution.to_string()).unwrap_or_default();
        match (next, key) {
            (AfterStart::Clean | AfterStart::AskCloud, None) => host.abandon().await,
            (AfterStart::Clean | AfterStart::AskCloud, Some(_)) => {
                tracing::info!(
                    job_id = name,
                    "an execution was interrupted, the cloud says whether it goes on"
                );
            }
            (AfterStart::Report(outcome), Some(key)) => {
                host.conclude(outcome.clone()).await;
                self.hold(Some(key));
                self.report(&outcome);
            }
            (AfterStart::Report(outcome), None) => {
                execution::ended_here(host.entry(), &mut self.shadows, &outcome);
                host.abandon().await;
            }
            (what, key) => {
                tracing::info!(job_id = name, ?what, "what was interrupted goes on");
                self.hold(key);
                self.start(Work::Finish(what));
            }
        }
        Ok(())
    }

    /// The next thing that happens. Cancel-safe.
    async fn next(&mut self) -> Input {
        let operation = self.held.as_ref().and_then(|held| held.deadline.as_ref()).and_then(Deadline::due);
        let due = [self.session.deadline(), self.pace.due(Instant::now()), operation, self.seeing.due()];
        let due = due.into_iter().flatten().chain(self.shadows.deadline()).min();
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.link.next() => Input::Link(event),
            ended = self.worker.ended() => Input::Ended(ended),
            Ok(()) = self.progress.changed() => Input::Progress,
            Some(answer) = self.fresh_document.recv() => Input::DocumentWanted(answer),
            Some(loan) = self.loans.recv() => Input::LinkWanted(loan),
            wanted = self.seeing.wanted() => Input::StatusWanted(wanted),
            files = self.shadows.written() => Input::Written(files),
            () = time => Input::Time,
        }
    }

    async fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Link(Event::Connected) => {
                tracing::info!(name: "connected", "connected");
                self.seeing.connected(now, self.link.certificate());
                self.connected.send_replace(true);
                self.session.connected(now);
                self.shadows.connected(now);
            }
            Input::Link(Event::Disconnected { cause, retry_in }) => {
                let retry_in_s = retry_in.as_secs_f32();
                if cause.is_planned() {
                    tracing::info!(%cause, retry_in_s, "the connection is given up");
                } else {
                    tracing::warn!(name: "not-connected", %cause, retry_in_s, "not connected");
                }
                self.lost(now, cause.to_string(), retry_in);
            }
            Input::Link(Event::Message { topic, payload }) => {
                if !self.shadows.message(now, &topic, &payload) {
                    self.session.message(now, &topic, &payload);
                }
            }
            Input::Ended(ended) => self.ended(ended).await,
            Input::Progress => {
                self.pace.changed();
                let progress = *self.progress.borrow();
                self.seeing.progressed(now, &progress);
                if let Some(held) = &mut self.held {
                    held.progressed(now, &progress);
                }
            }
            Input::DocumentWanted(answer) => {
                self.waits_for_document = Some(answer);
                self.session.refresh(now);
            }
            Input::LinkWanted(loan) => {
                tracing::info!("the connection ends for a moment: another certificate is tried");
                self.link.lend(loan).await;
                self.lost(now, "another certificate is tried".to_owned(), Duration::ZERO);
            }
            Input::StatusWanted(wanted) => {
                self.meter.add(&self.link.take_tally());
                let doing = self.doing();
                let costs = (self.meter.report(), self.publishing.as_ref().map(Publishing::report));
                // Who asked may have gone.
                let (settled, shadows) = (self.history.settled(), self.shadows.shown());
                let _ = wanted.send(self.seeing.document(now, doing.as_ref(), settled, costs, shadows));
            }
            Input::Written(files) => self.shadows.have_been_written(&files),
            Input::Time => {
                self.shadows.tick(now);
                self.mind_the_deadline(now);
                self.report_progress_if_due(now);
                self.session.tick(now);
            }
        }
    }

    fn lost(&mut self, now: Instant, cause: String, retry_in: Duration) {
        self.seeing.lost(now, cause, retry_in);
        self.connected.send_replace(false);
        self.session.disconnected(now);
        self.shadows.disconnected(now);
    }

    /// What there is to see now, for whoever looks at the service.
    fn show(&mut self) {
        let doing = self.doing();
        self.seeing.turned(Instant::now(), self.link.answers(), doing.as_ref());
    }

    fn doing(&self) -> Option<Doing> {
        // Before it runs and after it has ended, the progress is that of what ran before.
        let runs = self.worker.halt().is_some();
        let progress = if runs { *self.progress.borrow() } else { Progress::phase("starting") };
        self.held.as_ref().map(|held| held.doing(progress))
    }

    /// Does what the session asks for, until it asks for nothing more.
    async fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Publish { topic, payload } => self.publish(topic, payload),
                Action::Offer(execution) => self.offered(execution).await,
                Action::Begun { .. } => {
                    self.begun();
                    self.reported(Instant::now(), self.step_timeout);
                }
                Action::Refreshed(execution) => {
                    if let Some(held) = &mut self.held {
                        held.cloud_waits(&execution);
                    }
                    if let (Some(answer), Some(document)) =
                        (self.waits_for_document.take(), execution.document)
                    {
                        let _ = answer.send(document);
                    }
                }
                Action::Withdrawn(withdrawal) => self.withdrawn(&withdrawal).await,
                Action::Settled(settlement) => self.settled(&settlement),
                Action::Idle => self.nothing_is_pending().await,
            }
        }
    }

    /// What could not be sent is sent again by the session, with the same client token.
    fn publish(&self, topic: String, payload: Vec<u8>) {
        tracing::debug!(topic, bytes = payload.len(), "publishing");
        if let Err(error) = self.link.publish(topic, Bytes::from(payload)) {
            tracing::debug!(%error, "not published");
        }
    }

    /// Everything is in the journal; this only shortens what the next start has to do.
    async fn stop(mut self) {
        tracing::info!(name: "stopping", "stopping");
        self.seeing.stopping();
        if let Some(halt) = self.worker.halt() {
            halt.stop();
        }
        let worker = async {
            if self.worker.halt().is_some() {
                self.worker.ended().await;
            }
        };
        let link = async {
            if let Some(publishing) = self.publishing {
                publishing.stop().await;
            }
            self.link.stop().await
        };
        let (worker, tally) = tokio::join!(tokio::time::timeout(STOP, worker), link);
        if worker.is_err() {
            tracing::warn!("stopped in the middle of something: the next start goes on");
        }
        self.meter.add(&tally);
        self.meter.save();
        // Also where work had not begun.
        if let Some(host) = self.worker.idle() {
            host.stopped();
        }
    }
}
