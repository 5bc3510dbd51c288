//! Ten thousand things. The bound is generous for an unoptimised build on a busy machine, and far below what any
//! scan over all executions per call would take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Cloud, settings};

const THINGS: usize = 10_000;

#[test]
fn one_job_for_ten_thousand_things() {
    let mut settings = settings();
    settings.record_changes = false;
    settings.compat.set("rate-maximum-limit=0").unwrap();
    let mut cloud = Cloud::with(settings);
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "fleet"}), Value::Null);
    let names: Vec<String> = (0..THINGS).map(|n| format!("thing-{n:05}")).collect();
    for name in &names {
        cloud.thing(name);
        cloud.ok("AddThingToThingGroup", Value::Null, json!({"thingGroupName": "fleet", "thingName": name}));
    }

    let begun = Instant::now();
    let all = json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": THINGS}});
    cloud.job("a", &["thinggroup/fleet"], all);
    assert_eq!(cloud.topics().len(), 2 * THINGS);
    for name in &names {
        cloud.device(name, "start-next", json!({"stepTimeoutInMinutes": 5}));
        cloud.device(name, "a/update", json!({"status": "SUCCEEDED"}));
    }
    assert_eq!(cloud.describe_job("a")["status"], "COMPLETED");
    let took = begun.elapsed();
    eprintln!("{THINGS} things, one job each: {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}
