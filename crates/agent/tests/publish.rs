//! What other programs publish through the agent: what it costs, what an outage, a kill and a policy do to it, and that nobody on
//! the other end of the socket keeps the device from its jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connection::{Connection, Event};
use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, Operator, THING, until};

/// A policy for everything that a device may do, on these topics.
fn allow(cloud: &Cloud, thing: &str, topics: &str) {
    let document = json!({
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["iot:Connect", "iot:Subscribe"], "Resource": "*"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"],
             "Resource": format!("arn:aws:iot:us-east-1:123456789012:topic/{topics}")},
        ],
    });
    let name = json!({"policyName": format!("publish-{thing}")});
    cloud.done("CreatePolicy", name.clone(), json!({"policyDocument": document.to_string()}));
    let principals = cloud.done("ListThingPrincipals", json!({"thingName": thing}), Value::Null);
    cloud.done("AttachPolicy", name, json!({"target": principals["principals"][0]}));
}

/// A device with the socket.
fn device(cloud: &Cloud, lines: &str) -> Device {
    let device = Device::create(cloud);
    allow(cloud, THING, "dt/*");
    let socket = device.path("publish.sock");
    device.configure(
        "publish",
        &format!("socket = {socket:?}\ntopic_prefix = [\"dt/{{thing_name}}/\"]\n{lines}"),
    );
    device.configure("status", &format!("socket = {:?}", device.path("status.sock")));
    device
}

fn status(device: &Device) -> Value {
    let asked = device.fleethand(&["status", "--json"]);
    serde_json::from_slice(&asked.stdout).unwrap_or(Value::Null)
}

/// A program on the device.
struct Program(BufReader<UnixStream>);

impl Program {
    fn connect(device: &Device) -> Self {
        let stream = until("the socket", || UnixStream::connect(device.path("publish.sock")).ok());
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// Readings of a kilobyte.
    fn publish(&mut self, numbers: std::ops::Range<u64>) {
        for n in numbers.clone() {
            let frame = json!({"n": n, "pad": ""}).to_string().len();
            let payload = json!({"n": n, "pad": "x".repeat(1024 - frame)});
            self.write(&json!({"topic": "dt/edge-01/heat", "payload": payload}).to_string());
        }
        for _ in numbers {
            assert_eq!(self.answer(), json!({"ok": true}));
        }
    }
}

/// Topics and payloads.
type Heard = Vec<(String, Vec<u8>)>;

/// A backend that has subscribed to everything.
struct Backend {
    heard: Arc<Mutex<Heard>>,
}

impl Backend {
    fn start(cloud: &Cloud) -> Self {
        let thing = Device::create_named(cloud, "backend");
        allow(cloud, "backend", "dt/*");
        let identity = connection::tls::IdentityFiles {
            certificate: thing.path("certificate.pem"),
            private_key: thing.path("private.key"),
            root_ca: thing.path("root-ca.pem"),
        };
        let (host, port) = cloud.ready["mqtts"].as_str().unwrap().rsplit_once(':').unwrap();
        let settings = connection::Settings {
            endpoint: host.to_owned(),
            route: connection::Route { port: port.parse().unwrap(), transport: connection::Transport::Tls },
            fallback: None,
            proxy: connection::Proxy::None,
            client_id: "backend".to_owned(),
            tls: connection::tls::client_config(&identity).unwrap(),
            keep_alive: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(20),
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(1),
            stable_after: Duration::from_secs(20),
            subscriptions: vec!["dt/#".to_owned()],
            seed: 1,
        };
        let heard = Arc::<Mutex<Heard>>::default();
        let (hears, (ready, is_ready)) = (Arc::clone(&heard), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut link = Connection::start(settings);
                loop {
                    match link.next().await {
                        Event::Connected => ready.send(()).unwrap(),
                        Event::Message { topic, payload } => {
                            hears.lock().unwrap().push((topic, payload.to_vec()));
                        }
                        // The cloud has gone, and the test is over.
                        Event::Disconnected { .. } => return,
                    }
                }
            });
        });
        is_ready.recv().unwrap();
        Self { heard }
    }

    /// The readings' numbers, once each, by their order.
    fn numbers(&self) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        let batches = heard.iter().map(|(_, payload)| serde_json::from_slice::<Vec<Value>>(payload).unwrap());
        let mut numbers: Vec<u64> = batches.flatten().map(|reading| reading["n"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn hears(&self, expected: impl Iterator<Item = u64>) {
        let expected: Vec<_> = expected.collect();
        until(&format!("{} readings", expected.len()), || (self.numbers() == expected).then_some(()));
    }
}

/// Units that were sent of the class `publish`, by the agent's meter.
fn units(device: &Device) -> u64 {
    let status = status(device);
    let lines = status["meter"]["lines"].as_array().unwrap().clone();
    lines.iter().filter(|line| line["class"] == "publish").map(|line| line["units"].as_u64().unwrap()).sum()
}

#[test]
fn a_hundred_readings_of_a_kilobyte_are_25_units_on_both_meters() {
    let cloud = Cloud::start(&[]);
    let backend = Backend::start(&cloud);
    let mut device = device(&cloud, "batch_seconds = 1");
    device.start();
    let mut program = Program::connect(&device);
    program.publish(0..100);
    backend.hears(0..100);
    let socket = std::fs::metadata(device.path("publish.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    until("the acknowledgements", || (status(&device)["publishing"]["batches"] == 25).then_some(()));
    assert_eq!(units(&device), 25);
    // Nothing is kept of what was delivered.
    assert_eq!(device.names_in("state/publish"), [""; 0]);
    assert_eq!(status(&device)["publishing"]["waitingBytes"], 0);
    device.stop();
    assert!(!device.log().contains("not connected"), "{}", device.log());

    // Compressed, under a name of its own.
    let text = std::fs::read_to_string(device.config()).unwrap();
    device.write("fleethand.toml", text.replace("batch_seconds = 1", "batch_seconds = 1\ngzip = true"));
    backend.heard.lock().unwrap().clear();
    device.start();
    Program::connect(&device).publish(0..100);
    until("the batches", || {
        let publishing = &status(&device)["publishing"];
        (publishing["readings"] == 100 && publishing["batches"] != 0 && publishing["waitingBytes"] == 0)
            .then_some(())
    });
    let before = 25;
    until("all of them", || (units(&device) > before).then_some(()));
    device.stop();
    let heard = backend.heard.lock().unwrap();
    assert!((1..=4).contains(&heard.len()), "{}", heard.len());
    for (topic, payload) in &*heard {
        assert_eq!((topic.as_str(), &payload[..2]), ("dt/edge-01/heat/gzip", &[0x1f, 0x8b][..]));
    }
}

#[test]
fn what_is_said_without_a_connection_arrives_later_also_when_the_agent_is_killed() {
    let cloud = Cloud::start(&[]);
    let backend = Backend::start(&cloud);
    let mut device = device(&cloud, "batch_seconds = 1");
    device.configure("connection", "reconnect_max_seconds = 1");
    cloud.fault(json!({"fault": "refuse", "thing": THING, "count": 0}));
    device.start();
    Program::connect(&device).publish(0..40);
    // Four readings to a batch: of what was said the last batch is in memory.
    let kept = 36 * 1024;
    until("the disk", || (status(&device)["publishing"]["waitingBytes"].as_u64()? >= kept).then_some(()));
    device.kill();
    device.start();
    Program::connect(&device).publish(100..102);
    device.stop();
    cloud.admin("DELETE", "faults", None);
    device.start();
    backend.hears((0..36).chain(100..102));
    until("the end of it", || device.names_in("state/publish").is_empty().then_some(()));
}

/// At AWS a message that the policy forbids ends the connection.
#[test]
fn a_topic_that_the_policy_forbids_costs_readings_and_no_job() {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    let socket = device.path("publish.sock");
    device.configure(
        "publish",
        &format!("socket = {socket:?}\ntopic_prefix = [\"forbidden/\"]\nbatch_seconds = 0"),
    );
    device.configure("connection", "reconnect_max_seconds = 1");
    device.start();
    let mut program = Program::connect(&device);
    program.write(r#"{"topic":"forbidden/x","payload":1}"#);
    assert_eq!(program.answer(), json!({"ok": true}));
    until("a word about it", || {
        device.log().contains("does the policy allow iot:Publish on topic/forbidden/x?").then_some(())
    });
    // It pauses by now.
    cloud
        .run("job", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    assert!(device.names_in("state/publish").len() == 1, "what cannot be sent is kept");
}

#[test]
fn who_breaks_the_rules_is_told_and_who_floods_keeps_nobody_from_anything() {
    let cloud = Cloud::start(&[]);
    let mut device = device(&cloud, "batch_seconds = 1\nmax_bytes = 262144");
    device.start();
    let mut program = Program::connect(&device);
    for (line, code) in [
        ("hello", "not-json"),
        (r#"{"topic":"$aws/things/edge-01/jobs/x/update","payload":{}}"#, "invalid-topic"),
        (r#"{"topic":"dt/edge-02/heat","payload":1}"#, "topic-not-allowed"),
        (r#"{"topic":"dt/edge-01/heat"}"#, "not-a-reading"),
    ] {
        program.write(line);
        assert_eq!(program.answer()["error"], code, "{line}");
    }
    program.publish(0..1);
    let before = device.rss_kib();

    // Without an end, without reading the answers, and more of them than there is place for.
    let mut endless = Program::connect(&device);
    let _ = endless.0.get_mut().write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(endless.answer()["error"], "line-too-long");
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let floods: Vec<_> = (0..30)
        .map(|flood| {
            let (over, stream) =
                (Arc::clone(&over), UnixStream::connect(device.path("publish.sock")).unwrap());
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            std::thread::spawn(move || {
                let text = "x".repeat(900);
                let line =
                    json!({"topic": format!("dt/edge-01/{flood}"), "payload": text}).to_string() + "\n";
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = (&stream).write(line.as_bytes());
                }
            })
        })
        .collect();
    for n in 0..5 {
        let config = json!({"operation": "update-config", "config": {"n": n}});
        cloud.run(&format!("job-{n}"), &config).is("SUCCEEDED", "configured");
    }
    until("the limit", || (status(&device)["publishing"]["lostBatches"].as_u64()? > 0).then_some(()));
    let files: u64 = device
        .names_in("state/publish")
        .iter()
        .map(|name| std::fs::metadata(device.path("state/publish").join(name)).map_or(0, |file| file.len()))
        .sum();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
    assert!(files <= 300_000, "{files} bytes");
    let after = device.rss_kib();
    assert!(after < before + 6 * 1024, "{before} KiB, then {after} KiB");
    assert!(!device.log().contains("not connected"), "{}", device.log());
}
