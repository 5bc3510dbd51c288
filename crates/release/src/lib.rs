//! What a maker signs about a firmware, and what a device makes of it.
//!
//! A maker's [`Statement`] travels in an [`Envelope`] (DSSE). Only [`Keyring::verify`] makes a [`Release`] of it, and
//! [`Release::admits`] decides whether this firmware may be installed on this device, now. No I/O but reading the
//! folder of keys; the time is passed in.

mod admission;
mod envelope;
mod key;
mod keyring;
mod pem;
mod refusal;
mod signing;
mod statement;
mod timestamp;
mod version;

pub use admission::{Facts, plausible};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE};
pub use key::{KeyError, PublicKey};
pub use keyring::{Keyring, Release};
pub use refusal::Refusal;
pub use signing::{Kind, SigningKey};
pub use statement::Statement;
pub use timestamp::Timestamp;
pub use version::AgentVersion;
