//! What there is to see of the agent at one moment. Everything that shows it to anybody is made from this.

use std::fmt::{Display, Formatter, Result};
use std::time::{Duration, Instant};

use dispatcher::Progress;

/// The link to the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The first attempt has not ended yet.
    Connecting,
    Connected {
        since: Instant,
    },
    Lost {
        since: Instant,
        cause: String,
        retry_in: Duration,
    },
}

impl Link {
    pub fn connected(&mut self, now: Instant) {
        *self = Self::Connected { since: now };
    }

    /// It was lost when this was first said; every further attempt has its own cause.
    pub fn lost(&mut self, now: Instant, cause: String, retry_in: Duration) {
        let since = if let Self::Lost { since, .. } = self { *since } else { now };
        *self = Self::Lost { since, cause, retry_in };
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Connected { .. } => f.write_str("connected"),
            Self::Lost { cause, retry_in, .. } => {
                write!(f, "not connected: {cause}; retry in {} s", retry_in.as_secs_f32().round())
            }
        }
    }
}

/// The execution that is ours at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// Absent for what was ordered on the device itself.
    pub job_id: Option<String>,
    pub execution_number: Option<u64>,
    pub operation: Option<&'static str>,
    pub stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Runs(Progress),
    /// It has ended like this, and the cloud has not said that it knows.
    Ended(&'static str),
}

impl Display for Doing {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.job_id {
            Some(job_id) => write!(f, "job {job_id}: ")?,
            None => f.write_str("what was ordered on the device: ")?,
        }
        match &self.stage {
            Stage::Ended(status) => write!(f, "{status}, not reported yet"),
            Stage::Runs(Progress { wait: Some(wait), phase, .. }) => {
                write!(f, "{phase} until {}", wait.until)
            }
            Stage::Runs(progress) => match progress.percent() {
                Some(percent) => write!(f, "{} {percent} %", progress.phase),
                None => f.write_str(progress.phase),
            },
        }
    }
}

/// In one line.
pub fn line(link: &Link, work: Option<&Doing>) -> String {
    match (link, work) {
        (Link::Connected { .. }, Some(work)) => work.to_string(),
        (_, Some(work)) => format!("{work}; {link}"),
        (Link::Connected { .. }, None) => "connected, idle".to_owned(),
        (_, None) => link.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use dispatcher::{Until, Wait};

    use super::*;

    #[test]
    fn one_line_says_how_it_goes() {
        let now = Instant::now();
        let connected = Link::Connected { since: now };
        let mut lost = Link::Connecting;
        lost.lost(now, "nothing was heard for 90s".to_owned(), Duration::from_millis(7_600));
        let work = |job_id: Option<&str>, stage| {
            let job_id = job_id.map(str::to_owned);
            Some(Doing { job_id, execution_number: None, operation: None, stage })
        };
        let job = |stage| work(Some("fw-2"), stage);
        let downloading = Progress { done: 41, total: Some(100), ..Progress::phase("downloading") };
        let waiting = Progress::waiting(Wait { until: Until::NextReboot, lasts: None });
        let here = work(None, Stage::Runs(Progress::phase("confirming")));
        let cases = [
            (&Link::Connecting, None, "connecting"),
            (&connected, None, "connected, idle"),
            (&lost, None, "not connected: nothing was heard for 90s; retry in 8 s"),
            (&connected, job(Stage::Runs(downloading)), "job fw-2: downloading 41 %"),
            (&connected, job(Stage::Runs(waiting)), "job fw-2: waiting until next-reboot"),
            (&connected, here, "what was ordered on the device: confirming"),
            (
                &lost,
                job(Stage::Ended("SUCCEEDED")),
                "job fw-2: SUCCEEDED, not reported yet; not connected: nothing was heard for 90s; retry in 8 s",
            ),
        ];
        for (link, work, expected) in cases {
            assert_eq!(line(link, work.as_ref()), expected);
        }
    }

    #[test]
    fn a_loss_counts_from_its_beginning() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut link = Link::Connecting;
        link.lost(start, "first".to_owned(), Duration::ZERO);
        link.lost(later, "second".to_owned(), Duration::ZERO);
        let lost = Link::Lost { since: start, cause: "second".to_owned(), retry_in: Duration::ZERO };
        assert_eq!(link, lost);
        link.connected(later);
        assert_eq!(link, Link::Connected { since: later });
    }
}
