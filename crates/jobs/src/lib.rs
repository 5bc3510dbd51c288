//! AWS IoT Jobs, the device plane, without I/O: topics, what goes over the wire, and a session that turns
//! messages into offers and outcomes into updates. Read `session.rs` first.

mod details;
mod session;
pub mod topic;
pub mod wire;

pub use details::{StatusDetails, StatusUpdate, UpdateStatus};
pub use session::{Action, Session, Settings, Settlement, Withdrawal};
pub use topic::{JobTarget, describe, subscriptions};
pub use wire::{Error, ExecutionKey, JobExecution, JobId, Rejection, RejectionCode, Status};
