//! What a session asks of the agent.

use crate::wire::{JobExecution, RejectionCode, Status};

/// One thing for the agent to do or to know, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Publish {
        topic: String,
        payload: Vec<u8>,
    },
    /// An execution to `begin`, `resume`, `finish` or `pass`. Nothing else is offered until that has come to
    /// its end. The same one is offered anew when the service had moved on before `begin` reached it.
    Offer(JobExecution),
    /// The service has accepted IN_PROGRESS: the work may start.
    Begun {
        version_number: u64,
        /// Until the service times the execution out, where it has said so: it does for one that was in
        /// progress when it was offered, and not in the answer to an update.
        seconds_left: Option<u64>,
    },
    /// The held execution as it is now, its URLs freshly signed: the answer to `refresh`.
    Refreshed(JobExecution),
    /// The held execution is no longer ours to do: stop. It needs no report.
    Withdrawn(Withdrawal),
    /// The outcome given to `finish` has reached its end: it need not be kept any longer.
    Settled(Settlement),
    /// The service has said that nothing is pending.
    Idle,
}

/// Why work on an execution has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Canceled, removed, timed out, or finished by another; the service does not always say which.
    Ended(Option<Status>),
    /// The execution, its job or the thing does not exist any more.
    Deleted,
    /// The service does not let it begin, for a reason that no retry cures.
    Refused { code: RejectionCode, message: String },
}

/// How a report ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    Accepted,
    /// The execution had ended otherwise; the service does not always say how.
    AlreadyEnded(Option<Status>),
    Gone,
    /// The service refuses this report in any form.
    Unreportable {
        code: RejectionCode,
        message: String,
    },
}
