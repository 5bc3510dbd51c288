//! Everything through which somebody sees the agent: systemd, the status socket, the metrics, a warning in the log. The loop
//! tells it what happens; it decides nothing, waits for nobody, and has no timer of its own while nothing happens.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use connection::{Validity, tls, utc};
use device::Boot;
use dispatcher::Progress;
use jobs::UpdateStatus;
use tokio::sync::mpsc;

use crate::config::Settings;
use crate::doctor::EXPIRES_SOON;
use crate::history::Settled;
use crate::metrics::{Counts, Metrics};
use crate::notify::Notify;
use crate::rate::Rate;
use crate::status::{
    About, Certificate, Connection, Execution, FORMAT, Firmware, Metered, Outcome, Publishing, Shadow, State,
    Status, Wanted, serve,
};
use crate::view::{self, Doing, Link, Stage};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of these a person sees the last.
const OUTCOMES: usize = 10;

pub struct Seeing {
    thing_name: String,
    endpoint: String,
    started: Instant,
    link: Link,
    rate: Rate,
    firmware: Firmware,
    counts: Counts,
    certificate: Option<Validity>,
    /// When it was last said that the certificate expires.
    warned: Option<Instant>,
    notify: Notify,
    metrics: Option<Metrics>,
    wanted: mpsc::Receiver<Wanted>,
}

impl Seeing {
    pub fn new(settings: &Settings, boot: &Boot, now: Instant) -> Self {
        let connection = &settings.connection;
        Self {
            thing_name: connection.thing_name.clone(),
            endpoint: connection.endpoint.clone(),
            started: now,
            link: Link::Connecting,
            rate: Rate::new(now),
            firmware: firmware(boot),
            counts: Counts::default(),
            certificate: tls::validity(&connection.identity.certificate).ok(),
            warned: None,
            notify: Notify::from_environment(now),
            metrics: settings.metrics.clone().map(Metrics::new),
            wanted: serve(settings.status_socket.as_deref()),
        }
    }

    pub fn ready(&self) {
        self.notify.ready();
    }

    pub fn stopping(&mut self) {
        self.notify.stopping();
        let text = self.counts.text(&Link::Connecting, None, self.certificate);
        if let Some(metrics) = &mut self.metrics {
            metrics.end(text);
        }
    }

    /// And with which certificate.
    pub fn connected(&mut self, now: Instant, certificate: &Path) {
        self.certificate = tls::validity(certificate).ok();
        self.link.connected(now);
        self.counts.connections += 1;
    }

    pub fn lost(&mut self, now: Instant, cause: String, retry_in: Duration) {
        self.link.lost(now, cause, retry_in);
    }

    pub fn progressed(&mut self, now: Instant, progress: &Progress) {
        self.rate.note(now, progress);
    }

    pub fn ended(&mut self, status: UpdateStatus) {
        self.counts.ended(status);
    }

    /// What shadows say, too.
    pub fn facts(&self) -> (&Firmware, Option<Validity>) {
        (&self.firmware, self.certificate)
    }

    /// What runs may be something else now.
    pub fn booted(&mut self, boot: &Boot) {
        self.firmware = firmware(boot);
    }

    /// The loop has turned. `parts_answer`: and what it consists of does, too.
    pub fn turned(&mut self, now: Instant, parts_answer: bool, work: Option<&Doing>) {
        self.notify.turned(now, parts_answer);
        self.notify.status(|| view::line(&self.link, work));
        let certificate = self.certificate;
        if let Some(metrics) = &mut self.metrics {
            metrics.turned(now, || self.counts.text(&self.link, work, certificate));
        }
        self.mind_the_certificate(now);
    }

    /// When the loop has to turn at the latest.
    pub fn due(&self) -> Option<Instant> {
        let metrics = self.metrics.as_ref().and_then(Metrics::due);
        self.notify.due().into_iter().chain(metrics).min()
    }

    /// Somebody wants to know how it goes. Cancel-safe; never, where nobody can ask.
    pub async fn wanted(&mut self) -> Wanted {
        match self.wanted.recv().await {
            Some(wanted) => wanted,
            None => std::future::pending().await,
        }
    }

    pub fn document(
        &self,
        now: Instant,
        work: Option<&Doing>,
        settled: &[Settled],
        (meter, publishing): (Metered, Option<Publishing>),
        shadows: Vec<Shadow>,
    ) -> String {
        let status = Status {
            format: FORMAT,
            agent: About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                thing_name: self.thing_name.clone(),
                endpoint: self.endpoint.clone(),
                runs_for_seconds: (now - self.started).as_secs(),
            },
            connection: self.connection(now),
            execution: work.map(|work| self.execution(now, work)),
            outcomes: settled.iter().rev().take(OUTCOMES).map(outcome).collect(),
            firmware: self.firmware.clone(),
            certificate: self.certificate.map(|validity| certificate(&validity, SystemTime::now())),
            meter: Some(meter),
            shadows,
            publishing,
        };
        serde_json::to_string(&status).unwrap_or_default()
    }

    fn connection(&self, now: Instant) -> Connection {
        let (state, since, cause) = match &self.link {
            Link::Connecting => (State::Connecting, self.started, None),
            Link::Connected { since } => (State::Connected, *since, None),
            Link::Lost { since, cause, .. } => (State::NotConnected, *since, Some(cause.clone())),
        };
        let lasts = now.saturating_duration_since(since);
        let since = utc(SystemTime::now().checked_sub(lasts).unwrap_or(SystemTime::UNIX_EPOCH));
        Connection { state, since, for_seconds: lasts.as_secs(), cause }
    }

    fn execution(&self, now: Instant, work: &Doing) -> Execution {
        let about = Execution {
            job_id: work.job_id.clone(),
            execution_number: work.execution_number,
            operation: work.operation.map(str::to_owned),
            ..Execution::default()
        };
        match &work.stage {
            Stage::Ended(status) => Execution { status: (*status).to_owned(), ..about },
            Stage::Runs(progress) => {
                // What else has a total counts percents.
                let rate = self.rate.per_second(now, progress).filter(|_| progress.phase == "downloading");
                Execution {
                    status: UpdateStatus::InProgress.name().to_owned(),
                    phase: Some(progress.phase.to_owned()),
                    until: progress.wait.map(|wait| wait.until.to_string()),
                    percent: progress.percent(),
                    bytes_per_second: rate,
                    seconds_left: self.rate.seconds_left(now, progress),
                    ..about
                }
            }
        }
    }

    /// Once a day at most, and only when the loop turns for another reason: no device is woken for it.
    fn mind_the_certificate(&mut self, now: Instant) {
        if self.warned.is_some_and(|warned| now - warned < DAY) {
            return;
        }
        self.warned = Some(now);
        let Some(now) = release::plausible(SystemTime::now()) else { return };
        let Some(Certificate { expires, days_left, expires_soon: true }) =
            self.certificate.map(|validity| certificate(&validity, now))
        else {
            return;
        };
        tracing::warn!(name: "certificate-expires", expires, days_left, "the device's certificate expires soon");
    }
}

fn firmware(boot: &Boot) -> Firmware {
    Firmware { version: boot.version.clone(), slot: boot.slot.clone() }
}

fn certificate(validity: &Validity, now: SystemTime) -> Certificate {
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    let days_left = match validity.not_after.duration_since(now) {
        Ok(left) => days(left),
        Err(over) => -1 - days(over.duration()),
    };
    let expires_soon = validity.not_after < now + EXPIRES_SOON;
    Certificate { expires: utc(validity.not_after), days_left, expires_soon }
}

fn outcome(settled: &Settled) -> Outcome {
    let detail = |key| settled.update.details.get(key).unwrap_or_default().to_owned();
    Outcome {
        job_id: settled.execution.job_id.as_str().to_owned(),
        execution_number: settled.execution.execution_number,
        status: settled.update.status.name().to_owned(),
        reason: detail("reason"),
        message: detail("message"),
        settled_at: settled.at.map(|at| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(at))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_last_month_is_told_in_days() {
        let not_after = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let validity = Validity { not_before: SystemTime::UNIX_EPOCH, not_after };
        let of = |now| {
            let certificate = certificate(&validity, now);
            (certificate.days_left, certificate.expires_soon)
        };
        assert_eq!(of(not_after - 31 * DAY), (31, false));
        assert_eq!(of(not_after - 30 * DAY), (30, false));
        assert_eq!(of(not_after - 30 * DAY + Duration::from_secs(1)), (29, true));
        assert_eq!(of(not_after), (0, true));
        assert_eq!(of(not_after + Duration::from_secs(1)), (-1, true));
    }
}
