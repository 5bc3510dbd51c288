//! AWS's own software, unmodified: the CLI, boto3 and the device SDK. `scripts/install-deps` installs them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Cloud, arn, aws, aws_done, operations, tool};

fn python(script: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new(tool("python3")).arg(script).args(arguments).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}{stdout}");
    stdout.into_owned()
}

#[test]
fn the_cli_runs_a_whole_jobs_life() {
    let cloud = Cloud::start(&["--require-sigv4"]);
    let iot = |arguments: &[&str]| aws_done(cloud.api(), &[&["iot"], arguments].concat());
    for thing in ["edge-01", "edge-02"] {
        assert_eq!(iot(&["create-thing", "--thing-name", thing])["thingArn"], arn(&format!("thing/{thing}")));
    }
    iot(&["create-thing-group", "--thing-group-name", "fleet"]);
    for thing in ["edge-01", "edge-02"] {
        iot(&["add-thing-to-thing-group", "--thing-group-name", "fleet", "--thing-name", thing]);
    }
    let fleet = arn("thinggroup/fleet");
    let target = ["create-job", "--job-id", "rollout-1", "--targets", fleet.as_str()];
    let document = ["--document", r#"{"operation":"reboot"}"#, "--target-selection", "SNAPSHOT"];
    let rollout = ["--job-executions-rollout-config", "maximumPerMinute=1"];
    let created = iot(&[&target[..], &document, &rollout].concat());
    assert_eq!(created["jobArn"], arn("job/rollout-1"));

    let job = iot(&["describe-job", "--job-id", "rollout-1"])["job"].clone();
    assert_eq!(
        (&job["status"], &job["jobExecutionsRolloutConfig"]["maximumPerMinute"]),
        (&json!("IN_PROGRESS"), &json!(1))
    );
    assert_eq!(iot(&["list-jobs"])["jobs"][0]["jobId"], "rollout-1");
    let executions = iot(&["list-job-executions-for-job", "--job-id", "rollout-1"]);
    assert_eq!(executions["executionSummaries"].as_array().unwrap().len(), 1, "one a minute: {executions}");
    let describe = ["describe-job-execution", "--job-id", "rollout-1", "--thing-name", "edge-01"];
    assert_eq!(iot(&describe)["execution"]["status"], "QUEUED");

    iot(&["cancel-job", "--job-id", "rollout-1", "--reason-code", "ENOUGH", "--comment", "for today"]);
    let job = iot(&["describe-job", "--job-id", "rollout-1"])["job"].clone();
    assert_eq!((&job["status"], &job["reasonCode"]), (&json!("CANCELED"), &json!("ENOUGH")));
    assert_eq!(iot(&describe)["execution"]["status"], "CANCELED");
    iot(&["delete-job", "--job-id", "rollout-1"]);
    let gone = aws(cloud.api(), &["iot", "describe-job", "--job-id", "rollout-1"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("ResourceNotFoundException"));
    // Pages, as the CLI turns them.
    let names = iot(&["list-things", "--page-size", "1", "--query", "things[].thingName"]);
    assert_eq!(names, json!(["edge-01", "edge-02"]));
}

#[test]
fn boto3_finds_every_answer_in_the_service_model() {
    let cloud = Cloud::start(&[]);
    let checked: Vec<String> = serde_json::from_str(&python("answers.py", &[cloud.api()])).unwrap();
    let missing: Vec<&str> =
        operations::names().filter(|name| !checked.contains(&format!("iot:{name}"))).collect();
    assert!(missing.is_empty(), "never called: {missing:?}");
    assert_eq!(checked.iter().filter(|name| name.starts_with("iot-jobs-data:")).count(), 4, "{checked:?}");
}

fn device(protocol: &str) {
    let cloud = Cloud::start(&["--https", "127.0.0.1:0"]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let create = ["thing", "create", "edge-01", "--out", out, "--api", cloud.api()];
    assert!(
        Command::new(env!("CARGO_BIN_EXE_fleethand-cloud")).args(create).output().unwrap().status.success()
    );
    let listener = if protocol.ends_with("-websocket") { "https" } else { "mqtts" };
    let port = cloud.ready[listener].as_str().unwrap().rsplit(':').next().unwrap();
    assert_eq!(python("device.py", &[protocol, cloud.api(), port, out]), "ok\n");
    let mut seen = 0;
    let messages = cloud.messages(&mut seen);
    let answers = messages.iter().filter(|message| message["client"] == "edge-01").count();
    assert!(answers > 10 && messages.iter().any(|message| message["client"] == Value::Null), "{answers}");
}

#[test]
fn the_device_sdk_speaks_mqtt_3() {
    device("mqtt311");
}

#[test]
fn the_device_sdk_speaks_mqtt_5() {
    device("mqtt5");
}

#[test]
fn the_device_sdk_has_its_shadows() {
    let cloud = Cloud::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let create = ["thing", "create", "edge-01", "--out", out, "--api", cloud.api()];
    assert!(
        Command::new(env!("CARGO_BIN_EXE_fleethand-cloud")).args(create).output().unwrap().status.success()
    );
    let port = cloud.ready["mqtts"].as_str().unwrap().rsplit(':').next().unwrap();
    for protocol in ["mqtt311", "mqtt5"] {
        assert_eq!(python("shadow.py", &[protocol, cloud.api(), port, out]), "ok\n");
    }
}

#[test]
fn the_cli_has_shadows() {
    let cloud = Cloud::start(&["--require-sigv4"]);
    let folder = tempfile::tempdir().unwrap();
    let got = folder.path().join("got");
    let data = |arguments: &[&str]| {
        let thing = ["--thing-name", "edge-01"];
        let output = aws(cloud.api(), &[&["iot-data"], arguments, &thing].concat());
        let text = std::fs::read_to_string(&got).unwrap_or_default();
        let said = serde_json::from_str(&text).unwrap_or(Value::Null);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        (serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
    };
    let file = got.to_str().unwrap();
    let desired = r#"{"state":{"desired":{"led":"on"}}}"#;
    let (_, updated) = data(&["update-thing-shadow", "--shadow-name", "lamp", "--payload", desired, file]);
    assert_eq!(updated["version"], 1);
    let (_, shadow) = data(&["get-thing-shadow", "--shadow-name", "lamp", file]);
    assert_eq!(shadow["state"], json!({"desired": {"led": "on"}, "delta": {"led": "on"}}));
    let (listed, _) = data(&["list-named-shadows-for-thing"]);
    assert_eq!(listed["results"], json!(["lamp"]));
    let (_, deleted) = data(&["delete-thing-shadow", "--shadow-name", "lamp", file]);
    assert_eq!(deleted["version"], 1);
    assert_eq!(data(&["list-named-shadows-for-thing"]).0["results"], json!([]));
}

#[test]
fn the_device_sdk_provisions_itself_by_claim() {
    let cloud = Cloud::start(&[]);
    let port = cloud.ready["mqtts"].as_str().unwrap().rsplit(':').next().unwrap();
    let ca = cloud.ready["ca"].as_str().unwrap();
    assert_eq!(python("provision.py", &[cloud.api(), port, ca]), "ok\n");
}

#[test]
fn the_device_sdk_speaks_mqtt_3_over_a_websocket_that_it_signs() {
    device("mqtt311-websocket");
}

#[test]
fn the_device_sdk_speaks_mqtt_5_over_a_websocket_signed_for_a_guest_of_cognito() {
    device("mqtt5-websocket");
}

#[test]
fn signatures_are_checked_when_they_have_to_be() {
    let cloud = Cloud::start(&["--require-sigv4", "--s3-secret-key", "another"]);
    let wrong = aws(cloud.api(), &["iot", "list-things"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("InvalidSignatureException"));
    let unsigned = cloud.control("ListThings", &json!({}), None);
    assert_eq!(
        (unsigned.status, unsigned.header("x-amzn-errortype")),
        (403, Some("MissingAuthenticationTokenException"))
    );
    // Otherwise any credentials do.
    aws_done(Cloud::start(&["--s3-secret-key", "another"]).api(), &["iot", "list-things"]);
}
