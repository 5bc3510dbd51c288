//! Fleets for tests: things in a group.

use serde_json::{Value, json};

use super::support::Cloud;

pub fn fleet(size: usize) -> Cloud {
    let mut cloud = Cloud::new();
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "fleet"}), Value::Null);
    for n in 1..=size {
        cloud.thing(&format!("d{n}"));
        add(&mut cloud, "fleet", &format!("d{n}"));
    }
    cloud
}

pub fn add(cloud: &mut Cloud, group: &str, thing: &str) {
    cloud.ok("AddThingToThingGroup", Value::Null, json!({"thingGroupName": group, "thingName": thing}));
}

pub fn remove(cloud: &mut Cloud, group: &str, thing: &str) {
    cloud.ok("RemoveThingFromThingGroup", Value::Null, json!({"thingGroupName": group, "thingName": thing}));
}

pub fn status(cloud: &mut Cloud, job: &str, thing: &str) -> Value {
    cloud.execution(job, thing)["status"].clone()
}
