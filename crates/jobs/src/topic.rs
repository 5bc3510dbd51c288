//! The topics of AWS IoT Jobs' device plane, read by position.
//!
//! Position, because `get` and `start-next` are legal job ids: `jobs/get/accepted` answers "list my
//! executions", `jobs/get/get/accepted` describes the job that somebody called "get".

use crate::wire::JobId;

/// Which execution a describe is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobTarget {
    /// `$next`: the head of the queue. It stays literally in the topic of the answer.
    Next,
    Job(JobId),
}

/// How the service answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Rejected,
}

/// What the service can send to one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Notify,
    NotifyNext,
    GetPending(Verdict),
    StartNext(Verdict),
    Describe { job: JobTarget, verdict: Verdict },
    Update { job: JobId, verdict: Verdict },
}

impl Incoming {
    /// `None` for another thing's topics, for requests, and for everything that is not of this plane: answers
    /// arrive whether or not they were subscribed to, so a client has to look before it acts.
    pub fn parse(thing_name: &str, topic: &str) -> Option<Self> {
        let mut parts = topic.strip_prefix("$aws/things/")?.split('/');
        if parts.next()? != thing_name || parts.next()? != "jobs" {
            return None;
        }
        // Four levels are taken so that a fourth one, which no topic has, is seen.
        let rest = (parts.next()?, parts.next(), parts.next(), parts.next());
        match rest {
            ("notify", None, ..) => Some(Self::Notify),
            ("notify-next", None, ..) => Some(Self::NotifyNext),
            ("get", Some(verdict), None, _) => Verdict::parse(verdict).map(Self::GetPending),
            ("start-next", Some(verdict), None, _) => Verdict::parse(verdict).map(Self::StartNext),
            (job, Some("get"), Some(verdict), None) => {
                Some(Self::Describe { job: JobTarget::parse(job)?, verdict: Verdict::parse(verdict)? })
            }
            (job, Some("update"), Some(verdict), None) => {
                Some(Self::Update { job: JobId::new(job).ok()?, verdict: Verdict::parse(verdict)? })
            }
            _ => None,
        }
    }
}

impl Verdict {
    fn parse(level: &str) -> Option<Self> {
        match level {
            "accepted" => Some(Self::Accepted),
            "rejected" => Some(Self::Rejected),
            _ => None,
        }
    }
}

impl JobTarget {
    fn parse(level: &str) -> Option<Self> {
        match level {
            "$next" => Some(Self::Next),
            job => JobId::new(job).ok().map(Self::Job),
        }
    }
}

/// Where a describe is published.
pub fn describe(thing_name: &str, job: &JobTarget) -> String {
    let job = match job {
        JobTarget::Next => "$next",
        JobTarget::Job(id) => id.as_str(),
    };
    format!("$aws/things/{thing_name}/jobs/{job}/get")
}

/// Where an update is published. There is none for `$next`: the service has no such operation.
pub fn update(thing_name: &str, job: &JobId) -> String {
    format!("$aws/things/{thing_name}/jobs/{job}/update")
}

/// All that a session needs to hear, few enough for one SUBSCRIBE packet (which is metered by its topics).
/// `notify` is left out: it says nothing that `notify-next` and a describe do not, and each copy costs a
/// unit.
pub fn subscriptions(thing_name: &str) -> Vec<String> {
    ["notify-next", "+/get/+", "+/update/+"]
        .map(|filter| format!("$aws/things/{thing_name}/jobs/{filter}"))
        .to_vec()
}
