//! One binary, so that it is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that cannot set up should stop, and its helpers have no other readers"
)]

mod common;
mod identity;
mod ways;
#[cfg(feature = "websocket")]
mod websocket;
mod with_mosquitto;
mod with_script;
