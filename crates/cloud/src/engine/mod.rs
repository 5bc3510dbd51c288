//! AWS IoT Jobs and the registry as a pure machine: requests and the time go in, answers, messages and
//! changed rows come out. No I/O, no clock, no threads, so that a rehearsal can be repeated exactly.
#![allow(dead_code, unused_imports)] // until the hub calls it
#![allow(unreachable_pub)] // a binary: `pub` here means "for the rest of the cloud"

mod compat;
mod interface;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use compat::Compat;
pub use interface::{ApiError, Change, ConnectionId, Objects, Output, Request, Settings, Time};

pub struct Engine {
    settings: Settings,
    objects: Arc<dyn Objects + Send + Sync>,
}

impl Engine {
    pub fn new(settings: Settings, objects: Arc<dyn Objects + Send + Sync>) -> Engine {
        Engine { settings, objects }
    }

    /// Everything as it was when `rows` were saved, timers included. A row that is not understood is an error.
    pub fn load(
        settings: Settings,
        objects: Arc<dyn Objects + Send + Sync>,
        rows: impl IntoIterator<Item = (String, String, Value)>,
    ) -> Result<Engine, String> {
        let _ = rows.into_iter().count();
        Ok(Engine::new(settings, objects))
    }

    /// A call of the control plane (and of the registry), by its operation's name.
    pub fn control(&mut self, now: Time, request: &Request) -> Result<Value, ApiError> {
        let _ = now;
        Err(ApiError {
            http: 404,
            kind: "ResourceNotFoundException",
            message: format!("{} is not known here", request.op),
            extra: Map::new(),
        })
    }

    /// A device's PUBLISH to a topic under `$aws/things/THING/jobs`.
    pub fn device(&mut self, now: Time, thing: &str, from: Option<ConnectionId>, topic: &str, payload: &[u8]) {
        let _ = (now, thing, from, topic, payload);
    }

    /// The device plane over HTTPS: the four operations of `iot-jobs-data`.
    pub fn device_https(&mut self, now: Time, request: &Request) -> Result<Value, ApiError> {
        self.control(now, request)
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Time> {
        None
    }

    /// Fires every timer that is due by `now`, in order, each at its own time.
    pub fn fire_due(&mut self, now: Time) {
        let _ = now;
    }

    /// The messages since the last call, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        Vec::new()
    }

    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        Vec::new()
    }
}
