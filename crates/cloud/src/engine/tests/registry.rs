//! Templates, things, groups, and lists in pages.

use serde_json::{Value, json};

use super::fleet::fleet;
use super::support::{Cloud, arn};

#[test]
fn templates() {
    let mut cloud = fleet(1);
    let body = json!({"description": "firmware", "document": "{\"operation\":\"install\"}",
        "timeoutConfig": {"inProgressTimeoutInMinutes": 7}, "jobExecutionsRolloutConfig": {"maximumPerMinute": 5}});
    let made = cloud.ok("CreateJobTemplate", json!({"jobTemplateId": "t"}), body.clone());
    let error = cloud.call("CreateJobTemplate", json!({"jobTemplateId": "t"}), body).unwrap_err();
    assert_eq!((error.http, error.kind, &error.extra["resourceId"]), (409, "ConflictException", &json!("t")));
    let body = json!({"targets": [arn("thing/d1")], "jobTemplateArn": made["jobTemplateArn"],
        "timeoutConfig": {"inProgressTimeoutInMinutes": 9}});
    assert_eq!(cloud.ok("CreateJob", json!({"jobId": "a"}), body)["description"], "firmware");
    let job = cloud.describe_job("a");
    assert_eq!(job["timeoutConfig"]["inProgressTimeoutInMinutes"], 9);
    assert_eq!(job["jobExecutionsRolloutConfig"]["maximumPerMinute"], 5);
    let of_job = json!({"description": "from a job", "jobArn": arn("job/a")});
    cloud.ok("CreateJobTemplate", json!({"jobTemplateId": "u"}), of_job);
    let shown = cloud.ok("DescribeJobTemplate", json!({"jobTemplateId": "u"}), Value::Null);
    assert_eq!(shown["document"], "{\"operation\":\"install\"}");
    assert_eq!(
        cloud.ok("ListJobTemplates", json!({}), Value::Null)["jobTemplates"].as_array().unwrap().len(),
        2
    );
    cloud.ok("DeleteJobTemplate", json!({"jobTemplateId": "t"}), Value::Null);
    let gone = json!({"targets": [arn("thing/d1")], "jobTemplateArn": made["jobTemplateArn"]});
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "b"}), gone), "ResourceNotFoundException");
}

#[test]
fn managed_templates() {
    let mut cloud = fleet(1);
    let listed = cloud.ok("ListManagedJobTemplates", json!({"templateName": "AWS-Run-Command"}), Value::Null);
    let template = &listed["managedJobTemplates"][0];
    assert_eq!(template["templateArn"], "arn:aws:iot:us-east-1::jobtemplate/AWS-Run-Command:1.0");
    let shown =
        cloud.ok("DescribeManagedJobTemplate", json!({"templateName": "AWS-Run-Command"}), Value::Null);
    assert_eq!(shown["documentParameters"][0]["key"], "command");
    let body = |more: Value| {
        let mut body = json!({"targets": [arn("thing/d1")], "jobTemplateArn": template["templateArn"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(cloud.err("CreateJob", json!({"jobId": "a"}), body(json!({}))), "InvalidRequestException");
    let parameters = json!({"documentParameters": {"command": "echo,\"hi\""}});
    cloud.ok("CreateJob", json!({"jobId": "a"}), body(parameters));
    let head = cloud.answer("d1", "$next/get", json!({}));
    assert_eq!(head["execution"]["jobDocument"]["steps"][0]["action"]["input"]["command"], "echo,\"hi\"");
    let raw = cloud.ok("GetJobDocument", json!({"jobId": "a", "beforeSubstitution": true}), Value::Null);
    assert!(raw["document"].as_str().unwrap().contains("${aws:iot:parameter:command}"));
}

#[test]
fn pages() {
    let mut cloud = fleet(7);
    for n in 0..5 {
        cloud.job(&format!("j{n}"), &["thinggroup/fleet"], json!({}));
    }
    for (op, params, list, expected) in [
        ("ListJobs", json!({}), "jobs", 5),
        ("ListThings", json!({}), "things", 7),
        ("ListJobExecutionsForJob", json!({"jobId": "j1"}), "executionSummaries", 7),
        ("ListJobExecutionsForThing", json!({"thingName": "d3"}), "executionSummaries", 5),
        ("ListThingsInThingGroup", json!({"thingGroupName": "fleet"}), "things", 7),
        ("ListManagedJobTemplates", json!({}), "managedJobTemplates", 8),
        ("ListThingGroups", json!({}), "thingGroups", 1),
    ] {
        let whole = cloud.ok(op, params.clone(), Value::Null);
        assert_eq!(whole[list].as_array().unwrap().len(), expected, "{op}");
        assert_eq!(whole.get("nextToken"), None);
        let (mut found, mut params) = (Vec::new(), params);
        params["maxResults"] = json!(2);
        loop {
            let page = cloud.ok(op, params.clone(), Value::Null);
            found.extend(page[list].as_array().unwrap().clone());
            match page.get("nextToken") {
                Some(token) => params["nextToken"] = token.clone(),
                None => break,
            }
        }
        assert_eq!(json!(found), whole[list], "{op}");
        params["nextToken"] = json!("not one of ours");
        assert_eq!(cloud.err(op, params.clone(), Value::Null), "InvalidRequestException");
        params["nextToken"] = Value::Null;
        params["maxResults"] = json!(251);
        assert_eq!(cloud.err(op, params, Value::Null), "InvalidRequestException");
    }
    cloud.ok("CancelJob", json!({"jobId": "j2"}), Value::Null);
    let canceled =
        cloud.ok("ListJobs", json!({"status": "CANCELED", "thingGroupName": "fleet"}), Value::Null);
    assert_eq!(canceled["jobs"][0]["jobId"], "j2");
    let one = json!({"thingName": "d1", "status": "CANCELED"});
    let listed = cloud.ok("ListJobExecutionsForThing", one, Value::Null);
    assert_eq!(listed["executionSummaries"][0]["jobId"], "j2");
}

#[test]
fn the_registry() {
    let mut cloud = Cloud::new();
    let attributes = |more: Value| json!({"attributePayload": {"attributes": more}});
    let name = json!({"thingName": "d"});
    let made = cloud.ok("CreateThing", name.clone(), attributes(json!({"model": "x1"})));
    assert_eq!(cloud.ok("CreateThing", name.clone(), attributes(json!({"model": "x1"}))), made);
    let other = cloud.call("CreateThing", name.clone(), attributes(json!({"model": "x2"}))).unwrap_err();
    assert_eq!(
        (other.kind, &other.extra["resourceId"]),
        ("ResourceAlreadyExistsException", &made["thingId"])
    );
    let many = attributes(json!({"a": "1", "b": "2", "c": "3", "d": "4"}));
    assert_eq!(cloud.err("CreateThing", json!({"thingName": "e"}), many), "InvalidRequestException");
    assert_eq!(cloud.err("CreateThing", json!({"thingName": "a.b"}), Value::Null), "InvalidRequestException");
    let merge =
        json!({"attributePayload": {"attributes": {"place": "hall"}, "merge": true}, "expectedVersion": 1});
    cloud.ok("UpdateThing", name.clone(), merge.clone());
    assert_eq!(cloud.err("UpdateThing", name.clone(), merge), "VersionConflictException");
    let shown = cloud.ok("DescribeThing", name.clone(), Value::Null);
    assert_eq!(shown["attributes"], json!({"model": "x1", "place": "hall"}));
    assert_eq!((&shown["version"], &shown["defaultClientId"]), (&json!(2), &json!("d")));
    let by_attribute =
        json!({"attributeName": "place", "attributeValue": "ha", "usePrefixAttributeValue": true});
    assert_eq!(cloud.ok("ListThings", by_attribute, Value::Null)["things"][0]["thingName"], "d");
    assert_eq!(
        cloud.err("DescribeThing", json!({"thingName": "zz"}), Value::Null),
        "ResourceNotFoundException"
    );
    cloud.ok("DeleteThing", json!({"thingName": "zz"}), Value::Null);

    let mut parent = Value::Null;
    for depth in 1..=7 {
        let group = format!("g{depth}");
        cloud.ok("CreateThingGroup", json!({"thingGroupName": group}), json!({"parentGroupName": parent}));
        parent = json!(group);
    }
    let deep = json!({"parentGroupName": "g7"});
    assert_eq!(
        cloud.err("CreateThingGroup", json!({"thingGroupName": "g8"}), deep),
        "InvalidRequestException"
    );
    let shown = cloud.ok("DescribeThingGroup", json!({"thingGroupName": "g3"}), Value::Null);
    assert_eq!(shown["thingGroupMetadata"]["rootToParentThingGroups"][1]["groupName"], "g2");
    assert_eq!(
        cloud.err("DeleteThingGroup", json!({"thingGroupName": "g3"}), Value::Null),
        "InvalidRequestException"
    );
    let by_arn = json!({"thingGroupArn": arn("thinggroup/g7"), "thingArn": arn("thing/d")});
    cloud.ok("AddThingToThingGroup", Value::Null, by_arn);
    let recursive = json!({"thingGroupName": "g1", "recursive": true});
    assert_eq!(cloud.ok("ListThingsInThingGroup", recursive, Value::Null)["things"], json!(["d"]));
    let groups = cloud.ok("ListThingGroupsForThing", name.clone(), Value::Null);
    assert_eq!(groups["thingGroups"][0]["groupName"], "g7");
    let below = json!({"parentGroup": "g5", "recursive": true});
    assert_eq!(cloud.ok("ListThingGroups", below, Value::Null)["thingGroups"].as_array().unwrap().len(), 2);
    cloud.ok("DeleteThing", name, Value::Null);
    assert_eq!(
        cloud.ok("ListThingsInThingGroup", json!({"thingGroupName": "g7"}), Value::Null)["things"],
        json!([])
    );
    let endpoint = cloud.ok("DescribeEndpoint", json!({"endpointType": "iot:Data-ATS"}), Value::Null);
    assert_eq!(endpoint["endpointAddress"], "localhost");
    assert_eq!(
        cloud.err("DescribeEndpoint", json!({"endpointType": "x"}), Value::Null),
        "InvalidRequestException"
    );
}
