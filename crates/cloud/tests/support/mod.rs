//! The real binary, on ports that the system chose, and a client of HTTP that hides nothing.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // test code

pub mod operations;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const EPOCH: i64 = 1_700_000_000;

/// A running cloud; it ends with this value.
pub struct Cloud {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub ready: Value,
    pub started_in: Duration,
}

impl Cloud {
    /// With every port free, and `more` on the command line.
    pub fn start(more: &[&str]) -> Cloud {
        let mut command = Command::new(binary());
        command.arg("serve");
        for listener in ["--api", "--s3", "--mqtts"].iter().filter(|listener| !more.contains(listener)) {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.args(["--log", "warn"]).args(more).stdout(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let started_in = begun.elapsed();
        let ready =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line of JSON on stdout: {line:?}"));
        Cloud { child, stdout, ready, started_in }
    }

    /// With a clock that stands at `EPOCH`.
    pub fn manual(more: &[&str]) -> Cloud {
        Cloud::start(&[&["--clock", "manual:1700000000"], more].concat())
    }

    pub fn api(&self) -> &str {
        self.ready["api"].as_str().unwrap()
    }

    pub fn s3(&self) -> &str {
        self.ready["s3"].as_str().unwrap()
    }

    /// One of AWS's operations, unsigned, on the control plane: status, error type, body.
    pub fn control(&self, operation: &str, params: &Value, body: Option<&Value>) -> Answer {
        let (method, path) = operations::request(operation, params);
        self.api_call(method, &path, &[], body)
    }

    /// `control` that has to succeed.
    pub fn done(&self, operation: &str, params: Value, body: Value) -> Value {
        let body = (!body.is_null()).then_some(&body);
        let answer = self.control(operation, &params, body);
        assert_eq!(answer.status, 200, "{operation} {params}: {:?}", answer.text());
        answer.json()
    }

    pub fn api_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        http(method, &format!("{}{path}", self.api()), headers, body.as_bytes())
    }

    /// A request of the administration that has to succeed.
    pub fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.api_call(method, &format!("/_cloud/{path}"), &[], body.as_ref());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    pub fn publish(&self, thing: &str, topic: &str, payload: Value) {
        self.admin("POST", "publish", Some(json!({"thing": thing, "topic": topic, "payload": payload})));
    }

    pub fn advance(&self, seconds: i64) {
        self.admin("POST", "clock", Some(json!({"advance": seconds})));
    }

    /// The messages after number `after`, which becomes the number of the last.
    pub fn messages(&self, after: &mut u64) -> Vec<Value> {
        let answer = self.admin("GET", &format!("messages?after={after}"), None);
        *after = answer["last"].as_u64().unwrap();
        answer["messages"].as_array().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing is tidied up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; what it had said on stdout besides the first line.
    pub fn stop(mut self) -> String {
        signal(self.child.id(), "TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "SIGTERM is no failure: {status}");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Told to stop, so that it takes its temporary folder along.
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

/// Beside the tests of this package, and where another package's tests use this file: beside those.
pub fn binary() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().with_file_name("../fleethand-cloud");
    let binary = option_env!("CARGO_BIN_EXE_fleethand-cloud").map_or_else(beside, PathBuf::from);
    assert!(binary.exists(), "{} is not built: cargo build -p fleethand-cloud", binary.display());
    binary
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

pub fn arn(resource: &str) -> String {
    format!("arn:aws:iot:us-east-1:123456789012:{resource}")
}

/// The AWS CLI, from the environment that `scripts/install-deps` makes or from the PATH.
pub fn aws(endpoint: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(tool("aws"));
    command.args(["--endpoint-url", endpoint]).args(arguments);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_PAGER", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ] {
        command.env(name, value);
    }
    command.output().expect("the AWS CLI; scripts/install-deps installs it")
}

/// `aws` that has to succeed; what it printed, as JSON where there is any.
pub fn aws_done(endpoint: &str, arguments: &[&str]) -> Value {
    let output = aws(endpoint, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "aws {arguments:?}: {stderr}{stdout}");
    serde_json::from_str(&stdout).unwrap_or(Value::Null)
}

/// A program of the tests' Python environment.
pub fn tool(name: &str) -> PathBuf {
    let venv = std::env::var_os("FLEETHAND_VENV").map(PathBuf::from);
    let venv = venv.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/venv"));
    let installed = venv.join("bin").join(name);
    if installed.exists() { installed } else { PathBuf::from(name) }
}

/// The cases of one of the contract's files.
pub fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-fixtures/vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone()
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ended before all that was announced had come.
    pub broken: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
}

/// One request on a connection of its own, read until the server closes it.
pub fn http(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut raw = Vec::new();
    let cut = stream.read_to_end(&mut raw).is_err();
    let end = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: raw[end + 4..].to_vec(), broken: cut };
    let announced = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
    answer.broken |= method != "HEAD" && announced.is_some_and(|announced| announced != answer.body.len());
    answer
}
