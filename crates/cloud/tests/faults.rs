//! Faults on purpose, ordered through the administration and the command line, seen by whoever they hit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Cloud, arn, aws_done, http};

const GET: &str = "$aws/things/edge-01/jobs/get";

fn cloud() -> Cloud {
    let cloud = Cloud::manual(&[]);
    cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
    cloud
}

fn fault(cloud: &Cloud, fault: Value) -> Value {
    cloud.admin("POST", "faults", Some(fault))
}

fn ask(cloud: &Cloud, token: &str) {
    cloud.publish("edge-01", GET, json!({"clientToken": token}));
}

fn topics(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["topic"].as_str().unwrap()).collect()
}

/// A shadow's codes are numbers, and its answers are answers although everybody hears them.
#[test]
fn shadows_are_refused_and_not_answered_like_jobs() {
    let cloud = cloud();
    let mut seen = 0;
    let get = "$aws/things/edge-01/shadow/name/n/get";
    let ask = |token: &str| cloud.publish("edge-01", get, json!({"clientToken": token}));
    let named = json!({"thingName": "edge-01", "name": "n"});
    cloud.done("UpdateThingShadow", named.clone(), json!({"state": {"reported": {"a": 1}}}));
    cloud.messages(&mut seen);

    fault(&cloud, json!({"fault": "throttle", "topic": "$aws/things/+/shadow/#"}));
    fault(&cloud, json!({"fault": "reject", "code": "409", "topic": "$aws/things/+/shadow/#"}));
    ["throttled", "in conflict"].into_iter().for_each(ask);
    fault(&cloud, json!({"fault": "drop", "thing": "edge-01"}));
    ["dropped", "answered"].into_iter().for_each(ask);
    let messages = cloud.messages(&mut seen);
    assert_eq!(topics(&messages)[..2], [format!("{get}/rejected"), format!("{get}/rejected")]);
    let refused = |at: usize| {
        let payload = &messages[at]["payload"];
        (payload["code"].as_u64().unwrap(), payload["clientToken"].as_str().unwrap())
    };
    assert_eq!((refused(0), refused(1)), ((429, "throttled"), (409, "in conflict")));
    assert_eq!(messages[0]["payload"]["message"], "Too Many Requests");
    assert_eq!((messages.len(), &messages[2]["payload"]["clientToken"]), (3, &json!("answered")));

    fault(&cloud, json!({"fault": "throttle", "operation": "GetThingShadow"}));
    let throttled = cloud.control("GetThingShadow", &named, None);
    assert_eq!((throttled.status, throttled.header("x-amzn-errortype")), (429, Some("ThrottlingException")));
}

/// What has no vector, because over MQTT it is another matter.
#[test]
fn shadows_over_https_know_their_methods_and_their_encoding() {
    let cloud = cloud();
    let path = format!("{}/things/edge-01/shadow", cloud.api());
    let kind =
        |answer: &support::Answer| (answer.status, answer.header("x-amzn-errortype").unwrap().to_owned());
    let put = http("PUT", &path, &[], b"{}");
    assert_eq!(kind(&put), (405, "MethodNotAllowedException".to_owned()));
    let latin = http("POST", &path, &[], b"{\"state\":{\"reported\":{\"a\":\"\xe9\"}}}");
    assert_eq!(kind(&latin), (415, "UnsupportedDocumentEncodingException".to_owned()));
    let name = http("GET", &format!("{path}?name=a.b"), &[], b"");
    assert_eq!(kind(&name), (400, "InvalidRequestException".to_owned()));
    for page in ["0", "101", "x"] {
        let list = cloud.control(
            "ListNamedShadowsForThing",
            &json!({"thingName": "edge-01", "pageSize": page}),
            None,
        );
        assert_eq!(kind(&list), (400, "InvalidRequestException".to_owned()));
    }
}

#[test]
fn answers_are_dropped_duplicated_and_refused() {
    let cloud = cloud();
    let mut seen = 0;
    let accepted = "$aws/things/edge-01/jobs/get/accepted";

    fault(&cloud, json!({"fault": "drop", "thing": "edge-01"}));
    ask(&cloud, "dropped");
    ask(&cloud, "delivered");
    let messages = cloud.messages(&mut seen);
    assert_eq!(topics(&messages), [accepted]);
    assert_eq!(messages[0]["payload"]["clientToken"], "delivered");

    fault(&cloud, json!({"fault": "duplicate", "topic": "$aws/things/+/jobs/get/accepted"}));
    ask(&cloud, "twice");
    ask(&cloud, "once");
    assert_eq!(topics(&cloud.messages(&mut seen)), [accepted; 3]);

    fault(&cloud, json!({"fault": "reject", "code": "InternalError", "topic": GET}));
    fault(&cloud, json!({"fault": "throttle", "thing": "edge-01"}));
    ask(&cloud, "one");
    ask(&cloud, "two");
    let messages = cloud.messages(&mut seen);
    assert_eq!(topics(&messages), ["$aws/things/edge-01/jobs/get/rejected"; 2]);
    assert_eq!(messages[0]["payload"]["code"], "InternalError");
    assert_eq!(messages[0]["payload"]["clientToken"], "one");
    assert_eq!(messages[1]["payload"]["code"], "RequestThrottled");
    assert_eq!(messages[1]["payload"]["timestamp"], 1_700_000_000);
    assert_eq!(cloud.admin("GET", "faults", None), json!({"faults": []}));
}

#[test]
fn a_refused_update_is_not_carried_out() {
    let cloud = cloud();
    let job = json!({"targets": [arn("thing/edge-01")], "document": "{}"});
    cloud.done("CreateJob", json!({"jobId": "job1"}), job);
    fault(
        &cloud,
        json!({"fault": "reject", "code": "RequestThrottled", "topic": "$aws/things/+/jobs/+/update"}),
    );
    cloud.publish("edge-01", "$aws/things/edge-01/jobs/job1/update", json!({"status": "SUCCEEDED"}));
    let execution =
        cloud.done("DescribeJobExecution", json!({"thingName": "edge-01", "jobId": "job1"}), json!(null));
    assert_eq!(execution["execution"]["status"], "QUEUED");
}

#[test]
fn a_delayed_answer_comes_late() {
    let cloud = cloud();
    let mut seen = 0;
    fault(&cloud, json!({"fault": "delay", "milliseconds": 300}));
    let asked = Instant::now();
    ask(&cloud, "late");
    assert!(cloud.messages(&mut seen).is_empty());
    while cloud.messages(&mut seen).is_empty() {
        assert!(asked.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[test]
fn calls_are_throttled_by_name() {
    let cloud = cloud();
    fault(&cloud, json!({"fault": "throttle", "operation": "ListJobs", "count": 2}));
    for expected in [400, 400, 200] {
        let answer = cloud.control("ListJobs", &json!({}), None);
        assert_eq!(answer.status, expected);
        assert_eq!(answer.header("x-amzn-errortype"), (expected == 400).then_some("ThrottlingException"));
    }
}

#[test]
fn the_real_clock_can_jump() {
    let cloud = Cloud::start(&[]);
    cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
    let job = json!({
        "targets": [arn("thing/edge-01")],
        "document": "{}",
        "timeoutConfig": {"inProgressTimeoutInMinutes": 1},
    });
    cloud.done("CreateJob", json!({"jobId": "job1"}), job);
    cloud.publish("edge-01", "$aws/things/edge-01/jobs/start-next", json!({}));
    fault(&cloud, json!({"fault": "clock", "seconds": 61}));
    let execution =
        cloud.done("DescribeJobExecution", json!({"thingName": "edge-01", "jobId": "job1"}), json!(null));
    assert_eq!(execution["execution"]["status"], "TIMED_OUT");
}

#[test]
fn downloads_go_wrong_in_every_way() {
    let cloud = cloud();
    aws_done(cloud.s3(), &["s3api", "create-bucket", "--bucket", "firmware"]);
    let body = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    std::fs::write(body.path(), &bytes).unwrap();
    let put = [
        "s3api",
        "put-object",
        "--bucket",
        "firmware",
        "--key",
        "fw",
        "--body",
        body.path().to_str().unwrap(),
    ];
    aws_done(cloud.s3(), &put);
    let placeholder = "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/fw}";
    let job = json!({"targets": [arn("thing/edge-01")], "document": json!({"url": placeholder}).to_string()});
    cloud.done("CreateJob", json!({"jobId": "job1"}), job);
    let mut seen = 0;
    cloud.publish("edge-01", "$aws/things/edge-01/jobs/start-next", json!({}));
    let answer = cloud.messages(&mut seen).pop().unwrap();
    let url = answer["payload"]["execution"]["jobDocument"]["url"].as_str().unwrap();
    let download = || http("GET", url, &[], b"");

    fault(&cloud, json!({"fault": "object-status", "status": 503, "bucket": "firmware", "key": "fw"}));
    assert_eq!(download().status, 503);
    fault(&cloud, json!({"fault": "object-expired"}));
    let expired = download();
    assert!(expired.status == 403 && expired.text().contains("Request has expired"), "{}", expired.text());
    fault(&cloud, json!({"fault": "object-truncate", "bytes": 70_000}));
    let truncated = download();
    assert!(truncated.broken && truncated.body == bytes[..70_000], "{}", truncated.body.len());
    fault(&cloud, json!({"fault": "object-corrupt"}));
    let corrupt = download().body;
    assert_eq!(corrupt.len(), bytes.len());
    assert_eq!(corrupt.iter().zip(&bytes).filter(|(found, sent)| found != sent).count(), 1);
    fault(&cloud, json!({"fault": "object-slow", "bytes": 400_000}));
    let begun = Instant::now();
    assert!(download().body == bytes);
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    fault(&cloud, json!({"fault": "object-status", "status": 500, "key": "another"}));
    assert!(download().body == bytes, "and nothing is wrong any more");
}

#[test]
fn the_command_line_orders_lists_and_clears() {
    let cloud = cloud();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleethand-cloud"));
        command.arg("fault").args(arguments).args(["--api", cloud.api()]).output().unwrap()
    };
    assert!(run(&["add", "drop", "--thing", "edge-01", "--count", "3"]).status.success());
    let missing = run(&["add", "delay"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("milliseconds"));
    let list: Value = serde_json::from_slice(&run(&["list"]).stdout).unwrap();
    assert_eq!(list, json!({"faults": [{"id": 1, "fault": "drop", "count": 3, "thing": "edge-01"}]}));
    assert!(run(&["clear", "1"]).status.success());
    assert!(!run(&["clear", "1"]).status.success());
    assert_eq!(cloud.admin("GET", "faults", None), json!({"faults": []}));
}

/// A client of MQTT 3.1.1 in as few bytes as can be: its CONNECT, and what the broker says to it.
fn connect(cloud: &Cloud, client_id: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(cloud.ready["mqtt"].as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let id = client_id.as_bytes();
    let mut packet =
        vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, id.len() as u8];
    packet.extend(id);
    stream.write_all(&packet).unwrap();
    let mut answer = [0; 4];
    let length = stream.read(&mut answer).unwrap();
    (stream, answer[..length].to_vec())
}

#[test]
fn connections_are_cut_and_refused() {
    const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
    let cloud = Cloud::start(&["--mqtt", "127.0.0.1:0"]);
    let (mut stream, answer) = connect(&cloud, "edge-01");
    assert_eq!(answer, ACCEPTED);
    fault(&cloud, json!({"fault": "refuse", "thing": "edge-01", "count": 2}));
    fault(&cloud, json!({"fault": "cut", "thing": "edge-01"}));
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "the connection has ended");
    for _ in 0..2 {
        assert_ne!(connect(&cloud, "edge-01").1, ACCEPTED);
    }
    assert_eq!(connect(&cloud, "edge-02").1, ACCEPTED);
    assert_eq!(connect(&cloud, "edge-01").1, ACCEPTED);
}
