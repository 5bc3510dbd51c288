//! AWS IoT Device Shadows, the device's side, without I/O: topics, documents, and a session that says what is desired
//! and reports what is. Read `session.rs` first.

mod document;
mod session;
mod topic;
mod wire;

pub use document::{Members, Unfit, difference, merge, without_nulls};
pub use session::{Action, Session, Settings};
pub use topic::Shadow;
