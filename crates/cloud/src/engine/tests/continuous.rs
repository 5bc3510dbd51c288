//! Continuous jobs follow their groups.

use serde_json::{Value, json};

use super::fleet::{add, fleet, remove, status};
use super::support::{Cloud, arn};

#[test]
fn nested_groups_of_a_continuous_job() {
    let mut cloud = Cloud::new();
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "world"}), Value::Null);
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "europe"}), json!({"parentGroupName": "world"}));
    ["d", "e"].iter().for_each(|thing| cloud.thing(thing));
    add(&mut cloud, "europe", "d");
    cloud.job("a", &["thinggroup/world"], json!({"targetSelection": "CONTINUOUS"}));
    assert_eq!(status(&mut cloud, "a", "d"), "QUEUED");
    add(&mut cloud, "europe", "e");
    assert_eq!(status(&mut cloud, "a", "e"), "QUEUED");
    // In one group too many it stays a target until it has left the last one.
    add(&mut cloud, "world", "e");
    remove(&mut cloud, "europe", "e");
    assert_eq!(status(&mut cloud, "a", "e"), "QUEUED");
    remove(&mut cloud, "world", "e");
    assert_eq!(status(&mut cloud, "a", "e"), "REMOVED");
    // Again: a new execution; after success there is none.
    add(&mut cloud, "europe", "e");
    let again = cloud.execution("a", "e");
    assert_eq!((&again["status"], &again["executionNumber"]), (&json!("QUEUED"), &json!(2)));
    cloud.device("e", "a/update", json!({"status": "SUCCEEDED"}));
    remove(&mut cloud, "europe", "e");
    add(&mut cloud, "europe", "e");
    assert_eq!(status(&mut cloud, "a", "e"), "SUCCEEDED");
    // The group itself goes.
    cloud.ok("DeleteThingGroup", json!({"thingGroupName": "europe"}), Value::Null);
    assert_eq!(status(&mut cloud, "a", "d"), "REMOVED");
    assert_eq!(cloud.describe_job("a")["status"], "IN_PROGRESS");
}

#[test]
fn a_deleted_execution_comes_back_only_with_a_new_joining() {
    let mut cloud = fleet(1);
    cloud.job("a", &["thinggroup/fleet"], json!({"targetSelection": "CONTINUOUS"}));
    let params = json!({"jobId": "a", "thingName": "d1", "executionNumber": 1});
    cloud.ok("DeleteJobExecution", params, Value::Null);
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "other"}), Value::Null);
    add(&mut cloud, "other", "d1");
    let missing = json!({"jobId": "a", "thingName": "d1"});
    assert_eq!(cloud.err("DescribeJobExecution", missing, Value::Null), "ResourceNotFoundException");
    remove(&mut cloud, "fleet", "d1");
    add(&mut cloud, "fleet", "d1");
    assert_eq!(cloud.execution("a", "d1")["executionNumber"], 1);
}

#[test]
fn more_targets_for_a_continuous_job() {
    let mut cloud = fleet(1);
    cloud.thing("x");
    cloud.job("a", &["thinggroup/fleet"], json!({"targetSelection": "CONTINUOUS"}));
    cloud.job("snap", &["thinggroup/fleet"], json!({}));
    let more = json!({"targets": [arn("thing/x"), arn("thinggroup/fleet")]});
    cloud.ok("AssociateTargetsWithJob", json!({"jobId": "a"}), more.clone());
    assert_eq!(status(&mut cloud, "a", "x"), "QUEUED");
    assert_eq!(cloud.describe_job("a")["targets"].as_array().unwrap().len(), 2);
    assert_eq!(
        cloud.err("AssociateTargetsWithJob", json!({"jobId": "snap"}), more),
        "InvalidRequestException"
    );
    let many = json!({"targets": (0..101).map(|n| arn(&format!("thing/t{n}"))).collect::<Vec<_>>()});
    assert_eq!(cloud.err("AssociateTargetsWithJob", json!({"jobId": "a"}), many), "LimitExceededException");
    let ghost = json!({"targets": [arn("thing/ghost")]});
    assert_eq!(
        cloud.err("AssociateTargetsWithJob", json!({"jobId": "a"}), ghost),
        "ResourceNotFoundException"
    );
}
