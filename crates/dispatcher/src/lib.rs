//! A job document becomes an [`Operation`], and an operation becomes an [`Outcome`].
//!
//! Read `operation.rs` for what is understood, `dispatcher.rs` for the order in which it is done, `resume.rs` for
//! what happens after a restart. The device is behind the trait of the crate `device`.

mod config;
mod dispatcher;
mod firmware;
mod journal;
mod operation;
mod outcome;
mod plan;
pub mod policy;
mod reboot;
mod refused;
mod resume;
mod rotate;

pub use config::{Format, JSON_SCHEMA, Unusable, check_schema};
pub use dispatcher::{Context, Dispatcher, Ended};
pub use journal::{Entry, ExecutionId, Journal, JournalError, Phase, Then};
pub use operation::{
    ConfigFile, DocumentError, Mode, Operation, Parsed, Reboot, Rules, UpdateConfig, UpdateFirmware,
};
pub use outcome::{Outcome, Progress, Until, Verdict, Wait};
pub use plan::describe;
pub use resume::{AfterStart, OnOffer, after_start, on_offer};
pub use rotate::{CertificateSource, Identity, Renewing, RotateCertificate, is_template_name};
