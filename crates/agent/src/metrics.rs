//! A file for node_exporter's textfile collector: the agent opens no port for it.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use connection::Validity;
use device::beside;
use jobs::UpdateStatus;

use crate::view::{Doing, Link, Stage};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    pub file: PathBuf,
    /// At most one write in this time.
    pub interval: Duration,
}

pub struct Metrics {
    settings: MetricsSettings,
    written: String,
    next: Option<Instant>,
    /// The loop has turned since it was last looked whether something changed.
    stale: bool,
}

impl Metrics {
    pub fn new(settings: MetricsSettings) -> Self {
        Self { settings, written: String::new(), next: None, stale: false }
    }

    /// Writes if something is different, and the last time is long enough ago.
    pub fn turned(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if self.next.is_some_and(|next| now < next) {
            self.stale = true;
            return;
        }
        self.stale = false;
        let text = text();
        if text == self.written {
            return;
        }
        self.next = Some(now + self.settings.interval);
        self.write(text);
    }

    /// The last that is said, whenever the time before that was.
    pub fn end(&mut self, text: String) {
        self.write(text);
    }

    /// One that fails is not tried again, but what comes next is.
    fn write(&mut self, text: String) {
        if let Err(error) = write(&self.settings.file, &text) {
            tracing::warn!(path = %self.settings.file.display(), %error, "the metrics cannot be written");
        }
        self.written = text;
    }

    pub fn due(&self) -> Option<Instant> {
        self.next.filter(|_| self.stale)
    }
}

/// Who collects it sees one version or the other, and is another user. Nothing depends on it after a power cut.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, "new");
    device::remove_if_there(&new)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.set_permissions(PermissionsExt::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

/// Since the start of the agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub connections: u64,
    succeeded: u64,
    failed: u64,
    rejected: u64,
}

impl Counts {
    pub fn ended(&mut self, status: UpdateStatus) {
        match status {
            UpdateStatus::InProgress => {}
            UpdateStatus::Succeeded => self.succeeded += 1,
            UpdateStatus::Failed => self.failed += 1,
            UpdateStatus::Rejected => self.rejected += 1,
        }
    }

    /// In the text format of Prometheus. Nothing here changes by the passing of time alone.
    pub fn text(&self, link: &Link, work: Option<&Doing>, certificate: Option<Validity>) -> String {
        let Self { connections, succeeded, failed, rejected } = self;
        let version = env!("CARGO_PKG_VERSION");
        let connected = u8::from(matches!(link, Link::Connected { .. }));
        let percent = match work.map(|work| &work.stage) {
            Some(Stage::Runs(progress)) => progress.percent().unwrap_or(0),
            _ => 0,
        };
        let running = u8::from(work.is_some());
        let mut text = format!(
            "# TYPE fleethand_info gauge\nfleethand_info{{version=\"{version}\"}} 1\n\
             # HELP fleethand_connected Whether there is a connection to the cloud.\n\
             # TYPE fleethand_connected gauge\nfleethand_connected {connected}\n\
             # HELP fleethand_connections_total Connections made since the start.\n\
             # TYPE fleethand_connections_total counter\nfleethand_connections_total {connections}\n\
             # HELP fleethand_executions_total Job executions that ended since the start.\n\
             # TYPE fleethand_executions_total counter\n\
             fleethand_executions_total{{status=\"SUCCEEDED\"}} {succeeded}\n\
             fleethand_executions_total{{status=\"FAILED\"}} {failed}\n\
             fleethand_executions_total{{status=\"REJECTED\"}} {rejected}\n\
             # HELP fleethand_execution_running Whether a job execution is worked on.\n\
             # TYPE fleethand_execution_running gauge\nfleethand_execution_running {running}\n\
             # HELP fleethand_execution_percent How far its download or installation is.\n\
             # TYPE fleethand_execution_percent gauge\nfleethand_execution_percent {percent}\n"
        );
        let expires = certificate
            .and_then(|certificate| certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(expires) = expires {
            text += &format!(
                "# HELP fleethand_certificate_expires_seconds When the device's certificate expires, as Unix time.\n\
                 # TYPE fleethand_certificate_expires_seconds gauge\n\
                 fleethand_certificate_expires_seconds {}\n",
                expires.as_secs()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_when_something_changed_and_not_more_often_than_that() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fleethand.prom");
        let mut metrics =
            Metrics::new(MetricsSettings { file: file.clone(), interval: Duration::from_secs(15) });
        let start = Instant::now();
        let mut turned = |second, text: &str| {
            metrics.turned(start + Duration::from_secs(second), || text.to_owned());
            let due = metrics.due().map(|due| (due - start).as_secs());
            (std::fs::read_to_string(&file).unwrap(), due)
        };
        assert_eq!(turned(0, "a"), ("a".to_owned(), None));
        assert_eq!(turned(1, "b"), ("a".to_owned(), Some(15)));
        assert_eq!(turned(15, "c"), ("c".to_owned(), None));
        // One look too many after a turn in which nothing changed, and then the loop may sleep.
        assert_eq!(turned(16, "c"), ("c".to_owned(), Some(30)));
        assert_eq!(turned(30, "c"), ("c".to_owned(), None));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_line_is_of_the_text_format() {
        let mut counts = Counts { connections: 2, ..Counts::default() };
        counts.ended(UpdateStatus::Failed);
        let validity = Validity { not_before: SystemTime::UNIX_EPOCH, not_after: SystemTime::UNIX_EPOCH };
        let text = counts.text(&Link::Connecting, None, Some(validity));
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("fleethand_") && value.parse::<f64>().is_ok(), "{line}");
            let family = name.split('{').next().unwrap();
            assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
        }
        assert!(text.contains("fleethand_executions_total{status=\"FAILED\"} 1\n"), "{text}");
    }
}
