//! What a shadow desires, in the place of a job: it is in force once, or refused once, and is reported so.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::operation::{Operation, Scenario, Standing, names};
use crate::support::cloud::Cloud;
use crate::support::{Device, THING};

const SHADOW: &str = "sensors";

#[derive(Clone, Copy, PartialEq)]
pub enum Wish {
    Granted,
    /// Its command fails, and what was comes back.
    Refused,
}

impl Wish {
    /// The job that does the same to the device.
    fn like(self) -> Operation {
        match self {
            Self::Granted => Operation::Config,
            Self::Refused => Operation::FirmwareWhoseCommandFails,
        }
    }

    fn ids() -> Value {
        json!({"thingName": THING, "name": SHADOW})
    }

    fn reported(cloud: &Cloud) -> Value {
        let answer = cloud.control("GetThingShadow", &Self::ids(), None);
        if answer.status == 200 { answer.json()["state"]["reported"].clone() } else { Value::Null }
    }
}

impl Scenario for Wish {
    fn name(&self) -> String {
        let name = match self {
            Self::Granted => "a shadow's wish",
            Self::Refused => "a shadow's wish whose command fails",
        };
        name.to_owned()
    }

    fn document(&self) -> Value {
        Value::Null
    }

    fn order(&self, cloud: &Cloud, _job: &str) {
        cloud.done("UpdateThingShadow", Self::ids(), json!({"state": {"desired": {"a": "new"}}}));
    }

    fn is_over(&self, cloud: &Cloud, _job: &str) -> bool {
        let reported = Self::reported(cloud);
        match self {
            Self::Granted => reported == json!({"a": "new"}),
            Self::Refused => reported.get("_refused").is_some(),
        }
    }

    fn forget(&self, cloud: &Cloud, _job: &str) {
        cloud.done("DeleteThingShadow", Self::ids(), Value::Null);
    }

    fn wrongs_of_the_cloud(&self, cloud: &Cloud, _job: &str, _after: u64) -> Vec<String> {
        let mut reported = Self::reported(cloud);
        let refused = reported.as_object_mut().and_then(|reported| reported.remove("_refused"));
        let reason = refused.as_ref().and_then(|refused| refused["reason"].as_str()).unwrap_or_default();
        let (status, expected) = self.outcome();
        let found = (if refused.is_some() { "FAILED" } else { "SUCCEEDED" }, reason);
        let mut wrongs = Vec::new();
        if found != (status, if *self == Self::Granted { "" } else { expected }) {
            wrongs.push(format!("the wish ended as {found:?} instead of {status} {expected}"));
        }
        let in_force = json!({"a": if *self == Self::Granted { "new" } else { "old" }});
        if reported != in_force {
            wrongs.push(format!("{reported} is reported instead of {in_force}"));
        }
        wrongs
    }

    fn cloud(&self) -> Cloud {
        Cloud::start(&[])
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        self.like().configure(device, disk);
        let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
        let shadow = format!("[[shadow]]\nname = \"{SHADOW}\"\nconfig = \"config.json\"\n");
        device.write("fleethand.toml", format!("{text}\n{shadow}"));
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        self.like().prepare(device, disk);
    }

    fn boot(&self, device: &Device, job: &str) {
        self.like().boot(device, job);
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        match self {
            Self::Granted => ("SUCCEEDED", "configured"),
            Self::Refused => ("FAILED", "command-failed"),
        }
    }

    fn wrongs(&self, device: &Device, disk: &Path, struck: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut expect = |what: &str, found: String, expected: String| {
            if found != expected {
                wrongs.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let config = fs::read(disk.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let (in_force, previous) = match self {
            Self::Granted => ("new", "config.json.previous "),
            Self::Refused => ("old", ""),
        };
        expect("config.json", config.to_string(), json!({"a": in_force}).to_string());
        expect("the files", names(disk), format!("config.json {previous}firmware.bin state"));
        let state = names(&disk.join("state"));
        expect("the state", state, "installed.json meter.json shadows.json".to_owned());
        let runs = Standing::of(device, disk).runs;
        // An agent that was not struck may know already how the command ended.
        if !struck.agent_lives || runs != struck.runs {
            expect("the runs of the command", runs, struck.runs.clone() + self.runs_to_come(struck));
        }
        wrongs
    }
}

impl Wish {
    /// As for a job: the command is repeated for a file whose command was not seen to end, and for no other.
    fn runs_to_come(self, struck: &Standing) -> &'static str {
        match (self, struck.phase.as_deref()) {
            (_, Some("reporting")) => "",
            (Self::Refused, Some("rolling-back")) => "o",
            (_, None) if !struck.runs.is_empty() => "",
            (Self::Refused, _) => "no",
            (Self::Granted, _) => "n",
        }
    }
}
