//! What the agent has counted comes to what the cloud has, line by line: asserted wherever a device stops in order.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cloud::{Cloud, http};
use super::{Device, PATIENCE, THING};

/// The two sides of one device's link.
#[derive(Debug)]
pub struct Meters {
    cloud: String,
    thing: String,
    /// Why the two differ, where a test makes them.
    differ: OnceLock<&'static str>,
}

impl Meters {
    pub fn of(cloud: &Cloud, thing: &str) -> Self {
        Self { cloud: cloud.api().to_owned(), thing: thing.to_owned(), differ: OnceLock::new() }
    }

    /// What only one side has counted from here on.
    pub fn differ(&self, why: &'static str) {
        let _ = self.differ.set(why);
    }

    /// What was in flight when a link was lost is counted by who sent it, and what was in memory when an agent was killed
    /// is gone. Everything else is to be the same on both sides.
    pub fn comparable(&self, log: &str) -> bool {
        let every_start_connected =
            log.matches("INFO started").count() == log.matches("INFO connected").count();
        let address = self.cloud.strip_prefix("http://").unwrap();
        self.differ.get().is_none()
            && every_start_connected
            && !log.contains("not connected")
            && TcpStream::connect(address).is_ok()
    }

    #[track_caller]
    pub fn agree(&self, file: &Path, units: Option<u64>) {
        let mut seen = (Value::Null, Value::Null);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let here = fs::read(file).unwrap_or(b"{}".to_vec());
            let months: Value = serde_json::from_slice(&here).unwrap();
            let cloud = http("GET", &format!("{}/_cloud/meter", self.cloud), &[], b"").json();
            let there = cloud["clients"].get(&self.thing);
            seen = (sorted(months.as_object().unwrap().values()), sorted(there.into_iter()));
            if seen.0 == seen.1 && units.is_none_or(|units| cloud["units"] == units) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{units:?} units; the agent: {}\nthe cloud: {}", seen.0, seen.1);
    }
}

/// Of a device that runs and has nothing to do.
#[track_caller]
pub fn meters_agree(cloud: &Cloud, device: &Device, units: impl Into<Option<u64>>) {
    Meters::of(cloud, THING).agree(&device.path("state/meter.json"), units.into());
}

fn sorted<'a>(lists: impl Iterator<Item = &'a Value>) -> Value {
    let mut rows: Vec<Value> = lists.flat_map(|list| list.as_array().unwrap().clone()).collect();
    rows.sort_by_key(|row| format!("{} {}", row["class"], row["direction"]));
    rows.into()
}
