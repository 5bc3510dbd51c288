//! With `--data` everything is there again after a restart; a manual clock goes on where it is told to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use serde_json::{Value, json};
use support::{Cloud, arn, aws_done};

fn start(folder: &tempfile::TempDir, clock: &str) -> Cloud {
    Cloud::start(&["--data", folder.path().to_str().unwrap(), "--clock", clock])
}

#[test]
fn things_jobs_timers_and_the_authority_survive() {
    let folder = tempfile::tempdir().unwrap();
    let ca;
    {
        let cloud = start(&folder, "manual:1700000000");
        ca = std::fs::read(cloud.ready["ca"].as_str().unwrap()).unwrap();
        cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
        let job = json!({
            "targets": [arn("thing/edge-01")],
            "document": "{\"operation\":\"reboot\"}",
            "timeoutConfig": {"inProgressTimeoutInMinutes": 10},
        });
        cloud.done("CreateJob", json!({"jobId": "job1"}), job);
        cloud.publish(
            "edge-01",
            "$aws/things/edge-01/jobs/start-next",
            json!({"statusDetails": {"step": "1"}}),
        );
        cloud.stop();
    }
    let cloud = start(&folder, "manual:1700000060");
    assert_eq!(std::fs::read(cloud.ready["ca"].as_str().unwrap()).unwrap(), ca);
    let ids = json!({"thingName": "edge-01", "jobId": "job1"});
    let describe = || cloud.done("DescribeJobExecution", ids.clone(), Value::Null)["execution"].clone();
    let before = describe();
    assert_eq!((&before["status"], &before["versionNumber"]), (&json!("IN_PROGRESS"), &json!(2)));
    assert_eq!(before["statusDetails"]["detailsMap"], json!({"step": "1"}));
    assert_eq!(before["approximateSecondsBeforeTimedOut"], 540);
    cloud.advance(540);
    assert_eq!(describe()["status"], "TIMED_OUT");
}

#[test]
fn shadows_survive_with_the_versions_of_deleted_ones_and_the_package_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (classic, named) = (json!({"thingName": "edge-01"}), json!({"thingName": "edge-01", "name": "lamp"}));
    let desired = json!({"state": {"desired": {"led": "on"}}});
    {
        let cloud = start(&folder, "real");
        cloud.done("UpdateThingShadow", classic.clone(), desired.clone());
        cloud.done("UpdateThingShadow", named.clone(), desired.clone());
        cloud.done("DeleteThingShadow", named.clone(), Value::Null);
        let on = json!({"versionUpdateByJobsConfig": {"enabled": true}});
        cloud.done("UpdatePackageConfiguration", json!({}), on);
        cloud.kill();
    }
    let cloud = start(&folder, "real");
    let shadow = cloud.done("GetThingShadow", classic, Value::Null);
    assert_eq!(shadow["state"]["delta"], json!({"led": "on"}));
    assert_eq!(cloud.control("GetThingShadow", &named, None).status, 404);
    assert_eq!(cloud.done("UpdateThingShadow", named, desired)["version"], 2);
    let configuration = cloud.done("GetPackageConfiguration", json!({}), Value::Null);
    assert_eq!(configuration["versionUpdateByJobsConfig"]["enabled"], true);
}

#[test]
fn a_kill_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = start(&folder, "real");
    for number in 0..50 {
        cloud.done("CreateThing", json!({"thingName": format!("thing-{number}")}), json!(null));
    }
    cloud.kill();
    let cloud = start(&folder, "real");
    let things = cloud.done("ListThings", json!({"maxResults": 250}), json!(null));
    assert_eq!(things["things"].as_array().unwrap().len(), 50);
}

#[test]
fn objects_survive_and_what_was_half_uploaded_is_swept_up() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("objects");
    let body = folder.path().join("body");
    std::fs::write(&body, "firmware").unwrap();
    {
        let cloud = start(&folder, "real");
        aws_done(cloud.s3(), &["s3api", "create-bucket", "--bucket", "firmware"]);
        let put =
            ["s3api", "put-object", "--bucket", "firmware", "--key", "a/b", "--body", body.to_str().unwrap()];
        aws_done(cloud.s3(), &put);
        let begin = ["s3api", "create-multipart-upload", "--bucket", "firmware", "--key", "half"];
        let id = aws_done(cloud.s3(), &begin)["UploadId"].as_str().unwrap().to_owned();
        let part = ["s3api", "upload-part", "--bucket", "firmware", "--key", "half", "--part-number", "1"];
        aws_done(cloud.s3(), &[&part[..], &["--upload-id", &id, "--body", body.to_str().unwrap()]].concat());
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), 2);
    }
    let cloud = start(&folder, "real");
    let got = folder.path().join("got");
    let get = ["s3api", "get-object", "--bucket", "firmware", "--key", "a/b", got.to_str().unwrap()];
    assert_eq!(aws_done(cloud.s3(), &get)["ContentLength"], 8);
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "firmware");
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 1);
}
