//! Shadows over the local cloud: files that are kept as they desire, what the device says of itself, and what it costs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, THING, exists, until};

const SENSORS: &str = "sensors";

/// What an operator does to a shadow, and sees of it.
struct Shadow<'a> {
    cloud: &'a Cloud,
    name: &'a str,
}

impl Shadow<'_> {
    fn ids(&self) -> Value {
        match self.name {
            "" => json!({"thingName": THING}),
            name => json!({"thingName": THING, "name": name}),
        }
    }

    fn desire(&self, desired: Value) {
        let update = json!({"state": {"desired": desired}});
        self.cloud.done("UpdateThingShadow", self.ids(), update);
    }

    fn get(&self) -> Option<Value> {
        let answer = self.cloud.control("GetThingShadow", &self.ids(), None);
        (answer.status == 200).then(|| answer.json())
    }

    #[track_caller]
    fn until_reported(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.get().filter(|shadow| is(&shadow["state"]["reported"])))
    }

    #[track_caller]
    fn until_it_is(&self, expected: Value) -> Value {
        self.until_reported(&expected.to_string(), |reported| *reported == expected)
    }
}

fn sensors(cloud: &Cloud) -> Shadow<'_> {
    Shadow { cloud, name: SENSORS }
}

/// Messages about shadows that went out and came in, by the cloud's count.
fn messages(cloud: &Cloud) -> (u64, u64) {
    let meter = cloud.admin("GET", "meter", None);
    let rows = meter["clients"][THING].as_array().cloned().unwrap_or_default();
    let of = |direction: &str| {
        let rows = rows.iter().filter(|row| row["class"] == "shadow" && row["direction"] == direction);
        rows.map(|row| row["messages"].as_u64().unwrap()).sum()
    };
    (of("sent"), of("received"))
}

fn since(cloud: &Cloud, before: (u64, u64)) -> (u64, u64) {
    let now = messages(cloud);
    (now.0 - before.0, now.1 - before.1)
}

fn seen(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    device.configure("status", &format!("socket = {:?}", device.path("state/status.sock")));
    device
}

/// A device with one file of a shadow, a command that waits while there is a file `hold`, and `more` in its table.
fn device(cloud: &Cloud, more: &str) -> Device {
    let device = seen(cloud);
    let script = "echo run >> runs\nwhile [ -e hold ]; do sleep 0.02; done\n";
    let command = device.script("reload.sh", &format!("cd {}\n{script}", device.path("").display()));
    add(
        &device,
        &format!(
            "[[shadow]]\nname = \"{SENSORS}\"\nfile = \"sensors.json\"\nreload_command = {command}\n{more}"
        ),
    );
    device
}

fn add(device: &Device, tables: &str) {
    let text = fs::read_to_string(device.config()).unwrap();
    device.write("fleethand.toml", format!("{text}\n{tables}\n"));
}

/// Nothing is on its way any more: the agent has counted what the cloud has. Before a device stops, which compares both.
fn in_step(cloud: &Cloud, device: &Device) {
    until("the same count", || {
        let asked = device.fleethand(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&asked.stdout).ok()?;
        (status["meter"]["units"] == cloud.admin("GET", "meter", None)["units"]).then_some(())
    });
}

fn file(device: &Device) -> Value {
    serde_json::from_slice(&device.read("sensors.json")).unwrap_or_default()
}

fn runs(device: &Device) -> usize {
    fs::read_to_string(device.path("runs")).unwrap_or_default().lines().count()
}

fn until_it_runs(device: &Device, times: usize) {
    until("the command", || (runs(device) == times).then_some(()));
}

#[test]
fn a_file_follows_what_is_desired_and_what_is_in_force_is_reported() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.write("sensors.json", r#"{"interval": 60, "old": {"a": 1}, "none": null}"#);
    device.start();
    let shadow = sensors(&cloud);
    shadow.until_it_is(json!({"interval": 60, "old": {"a": 1}}));
    shadow.desire(json!({"interval": 30, "probes": [1, 2]}));
    let done = shadow.until_it_is(json!({"interval": 30, "probes": [1, 2]}));
    assert_eq!(done["state"].get("delta"), None);
    assert_eq!(file(&device), json!({"interval": 30, "probes": [1, 2]}));
    assert_eq!(runs(&device), 1);
    // A key that is removed is in no delta, and goes all the same.
    shadow.desire(json!({"probes": null}));
    shadow.until_it_is(json!({"interval": 30}));
    assert_eq!(file(&device), json!({"interval": 30}));
    // Without a wish everything stays as it is.
    shadow.desire(Value::Null);
    shadow.until_it_is(json!({"interval": 30}));
    // A shadow that is deleted is made again: what is in force is known to who asks.
    cloud.done("DeleteThingShadow", shadow.ids(), Value::Null);
    shadow.until_it_is(json!({"interval": 30}));
    assert_eq!(runs(&device), 2);
    in_step(&cloud, &device);
}

/// `desired` changes ten times while the device is killed, ten times while it is not connected, and ten times while it
/// is being applied. It ends at the last, with two questions and answers, or one.
#[test]
fn a_device_that_was_away_catches_up_with_as_few_messages_as_there_can_be() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    let shadow = sensors(&cloud);
    shadow.desire(json!({"n": 0}));
    device.start();
    shadow.until_it_is(json!({"n": 0}));
    until_it_runs(&device, 1);
    let desire_ten = |from: u64| (from..from + 10).for_each(|n| shadow.desire(json!({"n": n})));

    device.kill();
    let before = messages(&cloud);
    desire_ten(1);
    device.start();
    shadow.until_it_is(json!({"n": 10}));
    until("both reports", || (since(&cloud, before) == (2, 2)).then_some(()));
    assert_eq!((file(&device), runs(&device)), (json!({"n": 10}), 2));

    cloud.fault(json!({"fault": "refuse", "thing": THING, "count": 0}));
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    until("the cut", || device.log().contains("not connected").then_some(()));
    let before = messages(&cloud);
    desire_ten(11);
    cloud.admin("DELETE", "faults", None);
    shadow.until_it_is(json!({"n": 20}));
    until("both reports", || (since(&cloud, before) == (2, 2)).then_some(()));
    assert_eq!((file(&device), runs(&device)), (json!({"n": 20}), 3));

    let before = messages(&cloud);
    device.write("hold", "");
    shadow.desire(json!({"n": 21}));
    until_it_runs(&device, 4);
    desire_ten(22);
    fs::remove_file(device.path("hold")).unwrap();
    shadow.until_it_is(json!({"n": 31}));
    // Each of the eleven is heard of, in two messages. One report and its answer are all that comes of it.
    until("one report", || (since(&cloud, before) == (1, 23)).then_some(()));
    assert_eq!((file(&device), runs(&device)), (json!({"n": 31}), 5));
}

#[cfg(feature = "json-schema")]
#[test]
fn what_is_refused_is_said_with_its_reason_and_not_tried_again_until_something_else_is_desired() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "schema = \"schema.json\"");
    device.write("schema.json", r#"{"properties": {"interval": {"minimum": 1}}}"#);
    device.write("sensors.json", r#"{"interval": 60}"#);
    device.start();
    let shadow = sensors(&cloud);
    shadow.until_it_is(json!({"interval": 60}));
    shadow.desire(json!({"interval": 0}));
    let refused = shadow.until_reported("the refusal", |reported| reported.get("_refused").is_some());
    let reported = &refused["state"]["reported"];
    assert_eq!(
        (&reported["interval"], &reported["_refused"]["reason"]),
        (&json!(60), &json!("config-invalid"))
    );
    assert_eq!(refused["state"]["delta"], json!({"interval": 0}));
    assert_eq!((file(&device), runs(&device)), (json!({"interval": 60}), 0));

    // Not after a restart either: it asks, and has nothing to say.
    in_step(&cloud, &device);
    device.stop();
    let before = messages(&cloud);
    device.start();
    until("the question", || (since(&cloud, before) == (1, 1)).then_some(()));
    shadow.desire(json!({"interval": 5}));
    shadow.until_it_is(json!({"interval": 5}));
    until("one report", || (since(&cloud, before) == (2, 4)).then_some(()));
    assert_eq!(device.log().matches("what is desired is refused").count(), 1);

    // A command that fails brings back what was.
    device.write("reload.sh", format!("! grep -q 7 {:?}\n", device.path("sensors.json")));
    shadow.desire(json!({"interval": 7}));
    let failed = shadow.until_reported("the failure", |reported| reported.get("_refused").is_some());
    assert_eq!(failed["state"]["reported"]["_refused"]["reason"], "command-failed");
    assert_eq!(file(&device), json!({"interval": 5}));
    // And what could never be reported is not put in force.
    let (wide, much) = (json!({"interval": 9, "_refused": 1}), json!({"interval": 9, "x": "x".repeat(5000)}));
    for (desired, reason) in [(wide, "config-invalid"), (much, "shadow-unfit")] {
        shadow.desire(Value::Null);
        shadow.until_it_is(json!({"interval": 5}));
        shadow.desire(desired);
        shadow.until_reported(reason, |reported| reported["_refused"]["reason"] == reason);
        assert_eq!(file(&device), json!({"interval": 5}));
    }
    in_step(&cloud, &device);
}

/// Messages that are lost, repeated or refused cost a question, and change nothing in the end.
#[test]
fn whatever_becomes_of_messages_each_wish_is_granted_once() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.configure("connection", "request_timeout_seconds = 1");
    device.start();
    let shadow = sensors(&cloud);
    let topic = |what: &str| format!("$aws/things/+/shadow/name/{SENSORS}/{what}");
    let fault = |kind: &str, what: &str, count: u64| {
        cloud.fault(json!({"fault": kind, "topic": topic(what), "count": count, "code": "409"}));
    };
    shadow.desire(json!({"n": 1}));
    shadow.until_it_is(json!({"n": 1}));
    // Nothing is heard of the second; the third shows that there was one.
    fault("drop", "update/accepted", 1);
    fault("drop", "update/delta", 1);
    shadow.desire(json!({"n": 2, "second": true}));
    shadow.desire(json!({"n": 3}));
    shadow.until_it_is(json!({"n": 3, "second": true}));
    assert_eq!(runs(&device), 2);
    fault("duplicate", "#", 6);
    shadow.desire(json!({"n": 4}));
    shadow.until_it_is(json!({"n": 4, "second": true}));
    cloud.admin("DELETE", "faults", None);
    // A delta comes alone; and the report meets conflicts.
    fault("drop", "update/accepted", 1);
    fault("reject", "update", 2);
    shadow.desire(json!({"n": 5}));
    shadow.until_it_is(json!({"n": 5, "second": true}));
    fault("throttle", "update", 1);
    shadow.desire(json!({"n": 6}));
    shadow.until_it_is(json!({"n": 6, "second": true}));
    // The report is taken, and its answer does not come: it is sent once more.
    device.write("hold", "");
    shadow.desire(json!({"n": 7}));
    until_it_runs(&device, 6);
    fault("drop", "update/accepted", 1);
    fs::remove_file(device.path("hold")).unwrap();
    shadow.until_it_is(json!({"n": 7, "second": true}));
    until("the second report", || {
        let asked = device.fleethand(&["shadow", "get", SENSORS]);
        String::from_utf8(asked.stdout).unwrap().contains(", in force").then_some(())
    });
    assert_eq!((file(&device), runs(&device)), (json!({"n": 7, "second": true}), 6));
    in_step(&cloud, &device);
}

#[test]
fn edits_on_the_device_are_seen_and_stay_until_something_else_is_desired() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.start();
    let shadow = sensors(&cloud);
    shadow.desire(json!({"a": 1, "b": 2}));
    shadow.until_it_is(json!({"a": 1, "b": 2}));
    device.write("sensors.json", r#"{"a": 5, "c": 3}"#);
    let edited = shadow.until_it_is(json!({"a": 5, "c": 3}));
    assert_eq!(edited["state"]["delta"], json!({"a": 1, "b": 2}));
    // One that is replaced is another file.
    device.write("other", r#"{"a": 6}"#);
    fs::rename(device.path("other"), device.path("sensors.json")).unwrap();
    shadow.until_it_is(json!({"a": 6}));
    in_step(&cloud, &device);
    device.stop();
    device.write("sensors.json", r#"{"a": 7}"#);
    device.start();
    shadow.until_it_is(json!({"a": 7}));
    assert_eq!(runs(&device), 1);
    shadow.desire(json!({"a": 8}));
    shadow.until_it_is(json!({"a": 8, "b": 2}));
    assert_eq!((file(&device), runs(&device)), (json!({"a": 8, "b": 2}), 2));
    in_step(&cloud, &device);
}

#[test]
fn a_job_and_a_shadow_take_turns_on_the_same_file() {
    let cloud = Cloud::start(&[]);
    let mut device = seen(&cloud);
    let script = "echo run >> runs\nwhile [ -e hold ]; do sleep 0.02; done\n";
    let command = device.script("reload.sh", &format!("cd {}\n{script}", device.path("").display()));
    device.configure("config", &format!("reload_command = {command}"));
    add(&device, &format!("[[shadow]]\nname = \"{SENSORS}\"\nconfig = \"config.json\"\n"));
    device.write("config.json", "{}");
    device.start();
    let shadow = sensors(&cloud);
    let in_force = || serde_json::from_slice::<Value>(&device.read("config.json")).unwrap();

    // A wish waits for the job that runs.
    device.write("hold", "");
    cloud.create_job("first", &json!({"operation": "update-config", "config": {"job": 1}}));
    until_it_runs(&device, 1);
    shadow.desire(json!({"shadow": 1}));
    until("the wish", || device.log().contains("what is desired is known").then_some(()));
    assert_eq!(in_force(), json!({"job": 1}));
    fs::remove_file(device.path("hold")).unwrap();
    cloud.outcome("first").is("SUCCEEDED", "configured");
    shadow.until_it_is(json!({"shadow": 1}));
    assert_eq!((in_force(), runs(&device)), (json!({"shadow": 1}), 2));

    // A job waits for the wish that is being granted.
    device.write("hold", "");
    shadow.desire(json!({"shadow": 2}));
    until_it_runs(&device, 3);
    cloud.create_job("second", &json!({"operation": "update-config", "config": {"job": 2}}));
    cloud.publish(THING, &format!("$aws/things/{THING}/jobs/$next/get"), json!({}));
    assert_eq!(cloud.execution("second")["status"], "QUEUED");
    assert_eq!(in_force(), json!({"shadow": 2}));
    fs::remove_file(device.path("hold")).unwrap();
    cloud.outcome("second").is("SUCCEEDED", "configured");
    let both = shadow.until_it_is(json!({"shadow": 2, "job": 2}));
    assert_eq!(both["state"].get("delta"), None);
    assert_eq!((in_force(), runs(&device)), (json!({"shadow": 2, "job": 2}), 4));
    in_step(&cloud, &device);
}

#[test]
fn two_processes_keep_a_file_that_only_root_may_write() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.write("sensors.json", "{}");
    device.divide();
    let _helper = device.start_helper();
    device.start();
    let shadow = sensors(&cloud);
    shadow.desire(json!({"a": 1}));
    shadow.until_it_is(json!({"a": 1}));
    assert_eq!((file(&device), runs(&device)), (json!({"a": 1}), 1));
    device.write("sensors.json", r#"{"a": 2}"#);
    shadow.until_it_is(json!({"a": 2}));
    in_step(&cloud, &device);
}

#[test]
fn the_device_says_what_it_is_when_that_has_changed_and_not_otherwise() {
    let cloud = Cloud::start(&[]);
    let mut device = seen(&cloud);
    add(
        &device,
        "[shadows]\nreport = true\nreport_interval_seconds = 1\nreport_without = [\"freeSpacePercent\"]\n\
         report_package = \"after_job\"\nfirmware_package = \"fw\"\n[[shadows.packages]]\nname = \"fleethand\"\n\
         [[shadows.packages]]\nname = \"model\"\nversion_file = \"model\"\nattributes = { origin = \"factory\" }\n",
    );
    device.write("model", "3.1+build.7\n");
    let theirs = json!({"state": {"reported": {"theirs": {"version": "1"}}}});
    cloud.done("UpdateThingShadow", json!({"thingName": THING, "name": "$package"}), theirs);
    device.start();
    let (classic, package) = (Shadow { cloud: &cloud, name: "" }, Shadow { cloud: &cloud, name: "$package" });
    let agent = json!({"version": env!("CARGO_PKG_VERSION")});
    let said = classic.until_reported("the agent", |reported| reported["agent"] == agent);
    let said = &said["state"]["reported"];
    assert!(said["bootTime"].is_string() && said["certificate"]["expires"].is_string(), "{said}");
    assert_eq!((said.get("job"), said.get("freeSpacePercent")), (None, None));
    package.until_it_is(json!({
        "theirs": {"version": "1"},
        "fleethand": agent,
        "model": {"version": "3.1", "attributes": {"origin": "factory"}},
    }));
    // The question and the report, each with its answer, of both.
    until("what was said", || (messages(&cloud) == (4, 4)).then_some(()));

    let document = json!({"operation": "update-config", "config": {"a": 1}});
    cloud.run("configure", &document).is("SUCCEEDED", "configured");
    let job = json!({"jobId": "configure", "status": "SUCCEEDED", "reason": "configured"});
    classic.until_reported("the job", |reported| reported["job"] == job);
    until("one report", || (messages(&cloud) == (5, 5)).then_some(()));
    // A reconnect changes nothing, and costs nothing here.
    cloud.fault(json!({"fault": "cut", "thing": THING}));
    until("the reconnect", || (device.log().matches("INFO connected").count() == 2).then_some(()));
    cloud.run("again", &document).is("SUCCEEDED", "unchanged");
    classic.until_reported("the next job", |reported| reported["job"]["jobId"] == "again");
    until("one report", || (messages(&cloud) == (6, 6)).then_some(()));
    in_step(&cloud, &device);
}

#[test]
fn without_a_word_in_the_configuration_there_is_no_message_about_shadows() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    sensors(&cloud).desire(json!({"a": 1}));
    device.start();
    let document = json!({"operation": "update-config", "config": {"a": 1}});
    cloud.run("configure", &document).is("SUCCEEDED", "configured");
    device.stop();
    assert_eq!(messages(&cloud), (0, 0));
    assert!(!exists(&device.path("state/shadows.json")));
}

#[test]
fn the_status_shows_what_the_agent_knows_of_its_shadows() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "");
    device.start();
    let shadow = sensors(&cloud);
    shadow.desire(json!({"a": 1}));
    shadow.until_it_is(json!({"a": 1}));
    let status = until("the status", || {
        let asked = device.fleethand(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&asked.stdout).ok()?;
        Some(status["shadows"][0].clone()).filter(|shadow| shadow["reported"] == json!({"a": 1}))
    });
    assert_eq!((&status["name"], &status["desired"]), (&json!(SENSORS), &json!({"a": 1})));
    assert!(status["version"].as_u64().unwrap() >= 2);
    let text = String::from_utf8(device.fleethand(&["status"]).stdout).unwrap();
    assert!(text.contains("shadows      sensors (version "), "{text}");

    let said = |arguments: &[&str]| {
        let asked = device.fleethand(&[&["shadow"], arguments].concat());
        (
            asked.status.code(),
            String::from_utf8(asked.stdout).unwrap() + &String::from_utf8(asked.stderr).unwrap(),
        )
    };
    let (code, text) = said(&["get", SENSORS]);
    assert!(code == Some(0) && text.contains(", in force\n  desired   {\"a\":1}\n"), "{text}");
    let (_, text) = said(&["get", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["reported"], json!({"a": 1}));
    let (code, text) = said(&["get", "lamp"]);
    assert!(code == Some(1) && text.contains("it has: sensors"), "{text}");
    let (code, text) = said(&["set-desired", SENSORS, r#"{"a": null, "b": 2}"#, "--api", cloud.api()]);
    assert!(code == Some(0) && text.starts_with("sensors: version "), "{text}");
    shadow.until_it_is(json!({"b": 2}));
    let (code, text) = said(&["set-desired", SENSORS, "{", "--api", cloud.api()]);
    assert!(code == Some(1) && text.contains("not JSON"), "{text}");

    let mut watching = device.command(&["shadow", "watch", SENSORS, "--json"]).spawn().unwrap();
    let lines = || device.log().lines().filter(|line| line.starts_with("{\"desired\"")).count();
    until("the first line", || (lines() == 1).then_some(()));
    shadow.desire(json!({"b": 3}));
    until("another line", || (lines() > 1).then_some(()));
    watching.kill().unwrap();
    watching.wait().unwrap();
    shadow.until_it_is(json!({"b": 3}));
    in_step(&cloud, &device);
}
