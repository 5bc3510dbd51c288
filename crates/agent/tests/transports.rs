//! Every way to the cloud, with everything that a firmware job needs on it; every source of credentials; and what is said of
//! a way that is closed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::cloud::{Cloud, arn, aws_done};
use support::meters::meters_agree;
use support::{Device, Operator, cloud_with_bucket, firmware_document, sha256, until};

const HTTPS: &[&str] = &["--https", "127.0.0.1:0"];
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
const REGION: &str = "[credentials]\nregion = \"us-east-1\"\n";

fn port(cloud: &Cloud, listener: &str) -> u16 {
    cloud.ready[listener].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// A device that goes another way than it was made for.
fn device(cloud: &Cloud, transport: &str, port: u16) -> Device {
    let device = Device::create(cloud);
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("port = ")).map(|line| format!("{line}\n"));
    device.write("fleethand.toml", lines.collect::<String>());
    device.configure("connection", &format!("transport = \"{transport}\"\nport = {port}"));
    device
}

/// One with a WebSocket, without a certificate, and without any credentials of this machine.
fn guest(cloud: &Cloud, credentials: &str) -> Device {
    let mut device = device(cloud, "websocket", port(cloud, "https"));
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    let is_identity = |line: &&str| line.starts_with("certificate = ") || line.starts_with("private_key = ");
    let lines = text.lines().filter(|line| !is_identity(line)).map(|line| format!("{line}\n"));
    device.write("fleethand.toml", lines.collect::<String>() + credentials);
    for (variable, name) in [("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")] {
        let file = device.path(name).display().to_string();
        device.environment.push((variable.to_owned(), file));
    }
    device
}

fn with_keys(mut device: Device) -> Device {
    device.environment.extend(KEYS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    device
}

fn config(n: usize) -> Value {
    json!({"operation": "update-config", "config": {"n": n}})
}

#[test]
fn the_firmware_job_is_done_and_metered_alike_over_each_transport() {
    let cloud_of = || cloud_with_bucket(HTTPS);
    let new: Vec<u8> = (0..300_000).map(|i| (i % 251) as u8).collect();
    for transport in ["tls", "alpn", "websocket"] {
        let cloud = cloud_of();
        let mut device = match transport {
            "websocket" => with_keys(guest(&cloud, REGION)),
            "alpn" => device(&cloud, "alpn", port(&cloud, "https")),
            _ => device(&cloud, "tls", port(&cloud, "mqtts")),
        };
        cloud.upload("fw", &new);
        device.start();
        let ended = cloud.run("job", &firmware_document("fw", "2.0", &sha256(&new)));
        ended.is("SUCCEEDED", "installed");
        assert_eq!(device.read("firmware.bin"), new, "{transport}");
        device.stop();
        meters_agree(&cloud, &device, None);
    }
}

fn guest_pool(cloud: &Cloud) -> String {
    let arguments = ["--identity-pool-name", "devices", "--allow-unauthenticated-identities"];
    let pool =
        aws_done(cloud.api(), &[&["cognito-identity", "create-identity-pool"], &arguments[..]].concat());
    pool["IdentityPoolId"].as_str().unwrap().to_owned()
}

fn cognito(cloud: &Cloud, pool: &str, more: &str) -> String {
    let url = format!("https://localhost:{}/", port(cloud, "https"));
    format!("{REGION}[credentials.cognito]\nidentity_pool = \"{pool}\"\nurl = \"{url}\"\n{more}")
}

#[test]
fn a_guest_of_an_identity_pool_stays_the_same_guest() {
    let cloud = Cloud::start(HTTPS);
    let pool = guest_pool(&cloud);
    let mut device = guest(&cloud, &cognito(&cloud, &pool, ""));
    device.start();
    cloud.run("first", &config(1)).is("SUCCEEDED", "configured");
    let identity = device.read("state/cognito-identity");
    assert!(identity.starts_with(b"us-east-1:"), "{identity:?}");
    device.stop();
    device.start();
    cloud.run("second", &config(2)).is("SUCCEEDED", "configured");
    assert_eq!(device.read("state/cognito-identity"), identity);
    device.stop();
    // The pool is made anew: so is the guest.
    device.write("state/cognito-identity", "us-east-1:00000000-0000-0000-0000-000000000000");
    device.start();
    cloud.run("third", &config(3)).is("SUCCEEDED", "configured");
    assert_ne!(device.read("state/cognito-identity"), identity);
}

/// For whom somebody vouches, IoT's own policies count.
#[test]
fn a_login_of_an_identity_pool_may_do_what_its_policy_says() {
    let cloud = Cloud::start(HTTPS);
    let pool = guest_pool(&cloud);
    let token = cognito(&cloud, &pool, "login = \"login.example.com\"\ntoken_file = \"token\"\n");
    let mut device = guest(&cloud, &token);
    device.write("token", "who-i-am\n");
    device.start();
    until("the refusal", || device.log().contains("not authorised").then_some(()));
    let everything = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}});
    let policy = json!({"policyName": "all"});
    cloud.done("CreatePolicy", policy.clone(), json!({"policyDocument": everything.to_string()}));
    // The same login is the same identity.
    let logins = "login.example.com=who-i-am";
    let asked = ["cognito-identity", "get-id", "--identity-pool-id", &pool, "--logins", logins];
    let identity = aws_done(cloud.api(), &asked)["IdentityId"].clone();
    cloud.done("AttachPolicy", policy, json!({"target": identity}));
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
    device.stop();

    let command =
        cognito(&cloud, &pool, "login = \"login.example.com\"\ntoken_command = [\"echo\", \"who-i-am\"]\n");
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    device.write("fleethand.toml", text.replace(&token, &command));
    device.start();
    cloud.run("by-command", &config(2)).is("SUCCEEDED", "configured");
    assert!(!device.log().contains("who-i-am"), "{}", device.log());
}

#[test]
fn a_role_alias_is_had_for_the_certificate_if_its_policy_allows_it() {
    let cloud = Cloud::start(HTTPS);
    let https = port(&cloud, "https");
    let alias = format!(
        "{REGION}[credentials.role_alias]\nendpoint = \"localhost\"\nport = {https}\nname = \"fleet\"\n"
    );
    let mut device = device(&cloud, "websocket", https);
    let text = String::from_utf8(device.read("fleethand.toml")).unwrap();
    device.write("fleethand.toml", text + &alias);
    device.start();
    until("the refusal", || device.log().contains("iot:AssumeRoleWithCertificate").then_some(()));
    aws_done(
        cloud.api(),
        &[
            "iot",
            "create-role-alias",
            "--role-alias",
            "fleet",
            "--role-arn",
            "arn:aws:iam::123456789012:role/r",
        ],
    );
    let document = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": arn("rolealias/fleet"),
    }});
    let policy = json!({"policyName": "assume"});
    cloud.done("CreatePolicy", policy.clone(), json!({"policyDocument": document.to_string()}));
    let principals = cloud.done("ListThingPrincipals", json!({"thingName": support::THING}), Value::Null);
    cloud.done("AttachPolicy", policy, json!({"target": principals["principals"][0]}));
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
}

/// What a credential process gives ends within seconds: the link is made anew before that, and no job notices.
#[test]
fn a_link_is_made_anew_before_its_credentials_end() {
    let cloud = Cloud::start(HTTPS);
    let mut device = guest(&cloud, REGION);
    device.configure("connection", "stable_after_seconds = 1");
    let script = device.script(
        "process",
        "echo \"{\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"test\\\",\\\"SecretAccessKey\\\":\\\"test\\\",\
         \\\"Expiration\\\":\\\"$(date -u -d '+5 seconds' +%FT%TZ)\\\"}\"\n",
    );
    let line = script.trim_matches(['[', ']']).replace("\", \"", "\" \"");
    device.write("config", format!("[profile fleet]\ncredential_process = {line}\n"));
    device.environment.push(("AWS_PROFILE".to_owned(), "fleet".to_owned()));
    device.start();
    for n in 1..=2 {
        until("the link to be made anew", || {
            (device.log().matches("INFO the connection is given up").count() >= n).then_some(())
        });
        cloud.run(&format!("job-{n}"), &config(n)).is("SUCCEEDED", "configured");
    }
    assert!(!device.log().contains("not connected"), "{}", device.log());
}

fn doctor(device: &Device) -> Value {
    let mut command = device.command(&["doctor", "--json"]);
    let output = command.stdout(std::process::Stdio::piped()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The checks that failed, each with its text and advice.
fn failed(found: &Value) -> Vec<(String, String)> {
    let checks = found["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "failed");
    checks
        .map(|check| {
            (check["name"].as_str().unwrap().to_owned(), format!("{} {}", check["text"], check["advice"]))
        })
        .collect()
}

#[test]
fn doctor_says_what_is_wrong_with_a_websocket_and_check_config_takes_each_transport() {
    let cloud = Cloud::start(HTTPS);
    let well = with_keys(guest(&cloud, REGION));
    let found = doctor(&well);
    assert_eq!(found["ok"], true, "{found:#}");
    let names: Vec<_> =
        found["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    let expected = "configuration clock state space staging agent credentials name tcp tls websocket connect subscribe jobs";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    let printed = well.fleethand(&["check-config"]);
    assert!(printed.status.success(), "{printed:?}");

    for (environment, check, parts) in [
        (vec![], "credentials", &["AWS_ACCESS_KEY_ID", "profile default"][..]),
        (vec![KEYS[0]], "credentials", &["AWS_SECRET_ACCESS_KEY"]),
        (vec![KEYS[0], (KEYS[1].0, "hunter2")], "websocket", &["403", "signature", "clock", "us-east-1"]),
    ] {
        let mut device = guest(&cloud, REGION);
        device
            .environment
            .extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let failed = failed(&doctor(&device));
        let [(name, text)] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(name, check, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    let proxied = with_keys(guest(&cloud, REGION));
    proxied
        .configure("connection", "proxy = \"http://user:hunter2@127.0.0.1:9\"\nconnect_timeout_seconds = 3");
    let failed = failed(&doctor(&proxied));
    assert!(
        matches!(&failed[..], [(name, text)] if name == "tcp" && text.contains("127.0.0.1:9")),
        "{failed:?}"
    );
}

/// The clock that signs is the device's own, and the first thing to look at.
#[test]
fn a_clock_that_is_off_is_told_with_the_refusal() {
    let cloud = Cloud::start(HTTPS);
    let mut device = with_keys(guest(&cloud, REGION));
    device.start_at("+1h");
    until("the refusal", || device.log().contains("this device's clock").then_some(()));
    device.write("clock", "+0");
    cloud.run("job", &config(1)).is("SUCCEEDED", "configured");
    let log = device.log();
    let hour = SystemTime::now() + Duration::from_secs(3600);
    assert!(log.contains("403") && log.contains(&connection::utc(hour)[..11]), "{log}");
}

/// Nothing is enabled here, because the configuration has another place.
#[test]
fn setup_needs_no_files_for_a_websocket() {
    let cloud = Cloud::start(HTTPS);
    let mut device = with_keys(guest(&cloud, REGION));
    let ca = device.path("root-ca.pem");
    let folder = device.path("etc");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("fleethand.toml");
    std::fs::write(&file, format!("state_directory = {:?}\n{REGION}", device.path("state"))).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let mut setup = std::process::Command::new(env!("CARGO_BIN_EXE_fleethand"));
    setup
        .args(["setup", "--transport", "websocket", "--endpoint", "localhost", "--thing", support::THING])
        .args(["--port", &port(&cloud, "https").to_string(), "--ca", &text(&ca), "--config", &text(&file)])
        .envs(device.environment.drain(..));
    let done = setup.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("transport = \"websocket\"") && !written.contains("certificate"), "{written}");
    let names: Vec<_> =
        std::fs::read_dir(folder.join("identity")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["root-ca.pem"]);
}
