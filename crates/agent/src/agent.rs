//! THE loop. Everything that happens comes in through [`Agent::next`], and is dealt with by one short function:
//!
//! ```text
//! broker ──► connection ──► session ──► offer ──► dispatcher ──► device
//!                              ▲                      │
//!                              └── update ◄── outcome ┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connection::{Connection, Event};
use dispatcher::{AfterStart, Ended, OnOffer, Outcome, Phase, Progress, Rules, on_offer};
use jobs::{Action, ExecutionKey, JobExecution, Session, Settlement, Status, Withdrawal};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Settings;
use crate::deadline::Deadline;
use crate::hands::Hands;
use crate::held::{self, Held};
use crate::history::{History, Settled};
use crate::meter::Meter;
use crate::pace::Pace;
use crate::report;
use crate::seeing::Seeing;
use crate::status::Wanted;
use crate::view::Doing;
use crate::worker::{Work, Worker};

/// With the 2 s that a command has to end, and the 2 s for a DISCONNECT beside it, a stop stays below 5 s.
const STOP: Duration = Duration::from_millis(4500);

struct Agent {
    link: Connection,
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
    seeing: Seeing,
}

enum Input {
    Link(Event),
    Ended(Ended),
    Progress,
    DocumentWanted(oneshot::Sender<Value>),
    StatusWanted(Wanted),
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
        let mut host = device.dispatcher(settings, settings.rules(), settings.policy.clone())?;
        let boot = host.boot().await?;
        let history = History::open(state_directory);
        let mut session = Session::new(settings.session(), fastrand::u64(..));
        session.restore_settled(
            history.settled().iter().map(|s| (s.execution.clone(), s.update.clone())).collect(),
        );
        let (progress_sender, progress) = watch::channel(Progress::phase("starting"));
        let (fresh_sender, fresh_document) = mpsc::channel(1);
        let (connected, connection) = watch::channel(false);
        Ok(Self {
            link: Connection::start(settings.link(tls)),
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
                Held::new(None).log_end(&outcome);
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
        let due = due.into_iter().flatten().min();
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
            wanted = self.seeing.wanted() => Input::StatusWanted(wanted),
            () = time => Input::Time,
        }
    }

    async fn handle(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Link(Event::Connected) => {
                tracing::info!(name: "connected", "connected");
                self.seeing.connected(now);
                self.connected.send_replace(true);
                self.session.connected(now);
            }
            Input::Link(Event::Disconnected { cause, retry_in }) => {
                let retry_in_s = retry_in.as_secs_f32();
                tracing::warn!(name: "not-connected", %cause, retry_in_s, "not connected");
                self.seeing.lost(now, cause.to_string(), retry_in);
                self.connected.send_replace(false);
                self.session.disconnected(now);
            }
            Input::Link(Event::Message { topic, payload }) => self.session.message(now, &topic, &payload),
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
            Input::StatusWanted(wanted) => {
                let doing = self.doing();
                // Who asked may have gone.
                let _ = wanted.send(self.seeing.document(now, doing.as_ref(), self.history.settled()));
            }
            Input::Time => {
                self.mind_the_deadline(now);
                self.report_progress_if_due(now);
                self.session.tick(now);
            }
        }
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

    async fn offered(&mut self, execution: JobExecution) {
        let now = Instant::now();
        let key = execution.key();
        let Some(host) = self.worker.idle() else {
            // A restart finishes it already, from the journal: the session only has to know that it is ours.
            if self.held.as_ref().is_some_and(|held| held.key.as_ref() == Some(&key)) {
                self.session.resume(now, &execution);
                // How it goes on is reported like the rest of it.
                if let (Ok(parsed), Some(held)) = (held::understand(&execution, &self.rules), &mut self.held)
                {
                    held.understood(parsed);
                    self.pace.changed();
                }
            } else {
                self.offered = Some(execution);
            }
            return;
        };
        let in_progress = execution.status == Status::InProgress;
        let rebooted_from = execution.status_details.get(report::BOOT_ID).map(String::as_str);
        let id = report::id(&key);
        let decision = on_offer(host.entry(), &id, in_progress, rebooted_from, &self.boot_id);
        if host.entry().is_some_and(|entry| entry.execution != id) {
            tracing::warn!(job_id = %key.job_id, "the interrupted execution is not pending any more, this one is");
            host.abandon().await;
        }
        tracing::info!(job_id = %key.job_id, execution = key.execution_number, ?decision, "offered");
        let accepted = host.accept(&id);
        self.hold(Some(key));
        let outcome = match (decision, accepted) {
            (OnOffer::Report(outcome), _) => outcome,
            (_, Err(error)) => {
                tracing::error!(%error, "no work is taken up without a journal");
                Outcome::failed(error.reason(), error.to_string())
            }
            (decision, Ok(())) => match held::understand(&execution, &self.rules) {
                Err(outcome) => outcome,
                Ok(parsed) => {
                    let starting = report::starting(&parsed.operation, &self.boot_id, self.step_timeout);
                    if let Some(held) = &mut self.held {
                        held.understood(parsed);
                    }
                    if decision == OnOffer::Continue {
                        self.session.resume(now, &execution);
                        self.begun();
                        // Little may be left of the cloud's step timer: a report arms it again.
                        self.pace.changed();
                    } else {
                        self.session.begin(now, &execution, starting);
                    }
                    return;
                }
            },
        };
        if let Some(host) = self.worker.idle() {
            host.conclude(outcome.clone()).await;
        }
        self.report(&outcome);
    }

    fn begun(&mut self) {
        if let Some(held) = &self.held
            && let Some(operation) = held.operation.clone()
        {
            held.span().in_scope(|| tracing::info!(name: "job-begun", operation = operation.name(), "begun"));
            self.start(Work::Run(operation));
        }
    }

    fn start(&mut self, work: Work) {
        if let Some(held) = &mut self.held {
            let limit = held.timeout.unwrap_or(self.operation_timeout);
            held.deadline = Some(Deadline::new(Instant::now(), limit, self.step_timeout));
            self.worker.start(work, held.span());
        }
    }

    fn hold(&mut self, key: Option<ExecutionKey>) {
        self.held = Some(Held::new(key));
    }

    /// An update has armed the cloud's step timer.
    fn reported(&mut self, now: Instant, step: Option<Duration>) {
        self.pace.sent(now, step);
        if let (Some(held), Some(step)) = (&mut self.held, step) {
            held.armed(now, step);
        }
    }

    fn mind_the_deadline(&mut self, now: Instant) {
        let Some(held) = &mut self.held else { return };
        let Some(deadline) = &mut held.deadline else { return };
        if deadline.is_over(now) {
            held.deadline = None;
            if let Some(halt) = self.worker.halt() {
                halt.expire();
            }
        } else if deadline.look(now) {
            self.session.refresh(now);
        }
    }

    async fn ended(&mut self, ended: Ended) {
        self.pace.reset();
        self.waits_for_document = None;
        if let Some(boot) = self.worker.booted() {
            self.seeing.booted(&boot);
        }
        if let Some(held) = &mut self.held {
            held.deadline = None;
        }
        let owed = self.held.as_ref().is_some_and(|held| held.key.is_some());
        match ended {
            Ended::Outcome(outcome) if owed => {
                if let Some(other) = self.offered.take() {
                    self.session.pass(Instant::now(), &other.key());
                }
                self.report(&outcome);
            }
            ended => {
                if let (Ended::Outcome(outcome), Some(host)) = (ended, self.worker.idle()) {
                    Held::new(None).log_end(&outcome);
                    host.settled();
                }
                self.held = None;
                if let Some(offered) = self.offered.take() {
                    self.offered(offered).await;
                }
            }
        }
    }

    /// The outcome is in the journal. From here on it is owed, until the session says that it is settled.
    fn report(&mut self, outcome: &Outcome) {
        let Some(held) = &mut self.held else { return };
        held.log_end(outcome);
        let Held { key: Some(key), update: owed, .. } = held else { return };
        let update = report::terminal(outcome);
        self.seeing.ended(update.status);
        *owed = Some(update.clone());
        self.session.finish(Instant::now(), key, None, update);
    }

    fn report_progress_if_due(&mut self, now: Instant) {
        if self.pace.due(now).is_none_or(|due| due > now) {
            return;
        }
        let progress = *self.progress.borrow_and_update();
        match self.held.as_ref().and_then(|held| held.operation.as_ref()) {
            Some(operation) => {
                let update = report::progress(operation, &self.boot_id, self.step_timeout, &progress);
                let armed = report::armed(&update);
                self.session.progress(now, update);
                self.reported(now, armed);
            }
            None => self.pace.reset(),
        }
    }

    async fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        tracing::warn!(?withdrawal, "the execution was withdrawn");
        if let Some(halt) = self.worker.halt() {
            halt.cancel();
        } else if let Some(host) = self.worker.idle() {
            self.held = None;
            host.abandon().await;
        }
    }

    fn settled(&mut self, settlement: &Settlement) {
        match settlement {
            Settlement::Accepted => tracing::info!("the outcome was accepted"),
            other => {
                tracing::warn!(settlement = ?other, "the outcome was not taken, and is not owed any more");
            }
        }
        if let Some(Held { key: Some(key), update: Some(update), .. }) = self.held.take() {
            self.history.add(Settled::now(key, update));
        }
        if let Some(host) = self.worker.idle() {
            host.settled();
        }
        self.meter.job_ended();
    }

    /// The cloud has nothing for us: what was interrupted before anything changed was withdrawn meanwhile.
    async fn nothing_is_pending(&mut self) {
        tracing::debug!("nothing is pending");
        self.meter.add(&self.link.take_tally());
        self.meter.save_if_due();
        let Some(host) = self.worker.idle() else { return };
        let interrupted = host.entry().is_some_and(|entry| !matches!(entry.phase, Phase::Reporting { .. }));
        if interrupted && self.held.is_none() {
            tracing::warn!("the interrupted execution is not pending any more");
            host.abandon().await;
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
        let both = async { tokio::join!(worker, self.link.stop()) };
        match tokio::time::timeout(STOP, both).await {
            Ok(((), tally)) => {
                self.meter.add(&tally);
                self.meter.save();
            }
            Err(_) => tracing::warn!("stopped in the middle of something: the next start goes on"),
        }
        // Also where work had not begun.
        if let Some(host) = self.worker.idle() {
            host.stopped();
        }
    }
}
