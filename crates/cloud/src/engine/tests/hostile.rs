//! Whatever comes from the network: an answer or an error, never a panic, and no change by what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{Cloud, DOCUMENT, arn, request};

/// Members of all requests, so that random bodies get past the first check.
const MEMBERS: &[&str] = &[
    "targets",
    "document",
    "documentSource",
    "jobTemplateArn",
    "targetSelection",
    "description",
    "status",
    "presignedUrlConfig",
    "expiresInSec",
    "roleArn",
    "jobExecutionsRolloutConfig",
    "maximumPerMinute",
    "exponentialRate",
    "baseRatePerMinute",
    "incrementFactor",
    "rateIncreaseCriteria",
    "numberOfNotifiedThings",
    "abortConfig",
    "criteriaList",
    "failureType",
    "action",
    "thresholdPercentage",
    "minNumberOfExecutedThings",
    "timeoutConfig",
    "inProgressTimeoutInMinutes",
    "jobExecutionsRetryConfig",
    "numberOfRetries",
    "schedulingConfig",
    "startTime",
    "endTime",
    "endBehavior",
    "maintenanceWindows",
    "durationInMinutes",
    "documentParameters",
    "destinationPackageVersions",
    "tags",
    "statusDetails",
    "expectedVersion",
    "stepTimeoutInMinutes",
    "executionNumber",
    "clientToken",
    "includeJobDocument",
    "thingName",
    "thingArn",
    "thingGroupName",
    "thingGroupArn",
    "attributePayload",
    "attributes",
    "merge",
    "thingGroupProperties",
    "parentGroupName",
    "eventConfigurations",
    "JOB",
    "Enabled",
    "jobArn",
    "comment",
    "reasonCode",
];

const WORDS: &[&str] = &[
    "",
    "d",
    "a",
    "fleet",
    "SNAPSHOT",
    "CONTINUOUS",
    "IN_PROGRESS",
    "FAILED",
    "ALL",
    "CANCEL",
    "STOP_ROLLOUT",
    "2023-11-15 00:00",
    "9223372036854775807-12-31 23:59",
    "cron(0 1 * * ? *)",
    "cron(0 1 30 FEB ? *)",
    "\u{0}",
    "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}",
    "${aws:iot:s3-presigned-url-upload:${jobId}",
    "https://s3.amazonaws.com/docs/job.json",
    "https://docs.s3.amazonaws.com/missing",
    "arn:",
    "é",
    "arn:aws:iot:us-east-1:123456789012:thing/d",
    "arn:aws:iot:us-east-1:123456789012:thinggroup/fleet",
    "arn:aws:iot:us-east-1::jobtemplate/AWS-Reboot:1.0",
];

const OPERATIONS: &[&str] = &[
    "CreateJob",
    "DescribeJob",
    "GetJobDocument",
    "ListJobs",
    "UpdateJob",
    "CancelJob",
    "DeleteJob",
    "AssociateTargetsWithJob",
    "ListJobExecutionsForJob",
    "ListJobExecutionsForThing",
    "DescribeJobExecution",
    "CancelJobExecution",
    "DeleteJobExecution",
    "CreateJobTemplate",
    "DescribeJobTemplate",
    "ListJobTemplates",
    "DeleteJobTemplate",
    "ListManagedJobTemplates",
    "DescribeManagedJobTemplate",
    "CreateThing",
    "DescribeThing",
    "UpdateThing",
    "DeleteThing",
    "ListThings",
    "CreateThingGroup",
    "DescribeThingGroup",
    "UpdateThingGroup",
    "DeleteThingGroup",
    "ListThingGroups",
    "AddThingToThingGroup",
    "RemoveThingFromThingGroup",
    "ListThingsInThingGroup",
    "ListThingGroupsForThing",
    "DescribeEndpoint",
    "UpdateEventConfigurations",
    "DescribeEventConfigurations",
];

fn value() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![Just(i64::MIN), Just(i64::MAX), -2..40i64, Just(10_081)];
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => numbers.prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        4 => proptest::sample::select(WORDS).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = proptest::sample::select(MEMBERS).prop_map(str::to_owned);
        let members = proptest::collection::btree_map(name, inner.clone(), 0..5);
        prop_oneof![
            1 => proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            3 => members.prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// A body that is nearly right: a good one with a few members replaced.
fn body() -> impl Strategy<Value = Value> {
    let changes = proptest::collection::vec((proptest::sample::select(MEMBERS), value()), 0..4);
    let nearly = changes.prop_map(|changes| {
        let mut body = json!({"targets": [arn("thing/d")], "document": DOCUMENT, "status": "IN_PROGRESS",
            "thingName": "d", "thingGroupName": "fleet", "description": "x"});
        changes.into_iter().for_each(|(name, value)| body[name] = value);
        body
    });
    prop_oneof![2 => nearly, 1 => value()]
}

fn params() -> impl Strategy<Value = Value> {
    let one = |names: &'static [&'static str]| proptest::sample::select(names);
    let number = one(&["1", "0", "-1", "x", "9223372036854775808"]);
    (
        one(&["a", "b", "$next", "a/b", ""]),
        one(&["d", "x:y", "", "ghost"]),
        number,
        one(&["true", "false", "1"]),
    )
        .prop_map(|(job, thing, number, flag)| {
            json!({"jobId": job, "thingName": thing, "executionNumber": number, "maxResults": number,
                "force": flag, "jobTemplateId": job, "templateName": job, "thingGroupName": thing})
        })
}

fn cloud() -> Cloud {
    let mut cloud = Cloud::new();
    cloud.thing("d");
    cloud.ok("CreateThingGroup", json!({"thingGroupName": "fleet"}), Value::Null);
    cloud.job("a", &["thing/d"], json!({}));
    cloud.drain();
    cloud.engine.take_changes();
    cloud
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_control_plane(op in proptest::sample::select(OPERATIONS), params in params(), body in body()) {
        let mut cloud = cloud();
        if let Err(error) = cloud.engine.control(cloud.now, &request(op, &params, body)) {
            prop_assert!(!error.message.is_empty() && (400..500).contains(&error.http), "{op}: {error:?}");
            prop_assert_eq!(cloud.engine.take_changes(), vec![], "{} was refused: {:?}", op, error);
            prop_assert_eq!(cloud.drain(), vec![]);
        }
        cloud.at(400_000);
    }

    #[test]
    fn the_device_plane(topic in "(get|start-next|a/get|a/update|\\$next/get|b/update|[ -~]{0,20})", body in body()) {
        let mut cloud = cloud();
        let before = cloud.execution("a", "d");
        let messages = cloud.device("d", &topic, body);
        prop_assert!(messages[0].0.ends_with("/accepted") || messages[0].0.ends_with("/rejected"));
        if messages[0].0.ends_with("/rejected") {
            prop_assert_eq!(messages.len(), 1);
            prop_assert_eq!(cloud.execution("a", "d"), before);
        }
    }

    #[test]
    fn any_bytes(topic in any::<String>(), payload in any::<Vec<u8>>()) {
        let mut cloud = cloud();
        cloud.engine.device(cloud.now, "d", None, &topic, &payload);
        cloud.engine.device(cloud.now, "d", None, "$aws/things/d/jobs/a/update", &payload);
    }
}
