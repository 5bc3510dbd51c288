//! Where the bytes go.

use bytes::Bytes;

use crate::{Resume, SinkError};

/// What a transfer writes into: a file here, an inactive slot behind another process later. Plain messages, no
/// callbacks. A call may be dropped at any await (a cancelled transfer); [`position`](Sink::position) is true even then.
#[allow(
    async_fn_in_trait,
    reason = "used generically on one current-thread runtime: nobody needs the future to be Send"
)]
pub trait Sink {
    /// What the object is, before each body: say no now if there is no space for what is still missing of it. Whoever
    /// goes on after a restart keeps `object`.
    async fn reserve(&mut self, object: &Resume) -> Result<(), SinkError>;
    /// Append. Waits when the storage is slower than the network.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError>;
    /// The object has changed: forget everything, from zero.
    async fn restart(&mut self) -> Result<(), SinkError>;
    /// How many bytes were taken.
    fn position(&self) -> u64;
}
