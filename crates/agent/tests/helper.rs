//! The helper alone, asked by whoever has taken over the process with the network: a client that speaks the line as it
//! likes, written down here a second time on purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use release::{Envelope, Kind, SigningKey, Statement};
use serde_json::{Value, json};
use support::cloud::Cloud;
use support::{Device, exists, sha256, until};

const OLD: &[u8] = b"the firmware in force";
const NEW: &[u8] = b"the new firmware, signed";
const MESSAGE: u8 = b'm';
const PIECE: u8 = b'p';

struct Client(UnixStream);

impl Client {
    /// Connected, and not a word said.
    fn silent(device: &Device) -> Self {
        let stream = until("a connection", || UnixStream::connect(device.path("helper.sock")).ok());
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        Self(stream)
    }

    /// Greeted. The one before may still be on its way out.
    fn new(device: &Device) -> Self {
        until("a greeting", || {
            let mut client = Self::silent(device);
            client.send(&json!({"hello": {"protocol": 1}}));
            (client.message()? == json!({"hello": {"protocol": 1}})).then_some(client)
        })
    }

    fn frame(&mut self, kind: u8, length: usize, payload: &[u8]) {
        let frame = [&[kind][..], &(length as u32).to_be_bytes(), payload].concat();
        // A helper that has closed the line does not read to the end.
        let _ = self.0.write_all(&frame);
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        self.frame(MESSAGE, text.len(), text.as_bytes());
    }

    /// `None` at the end of the line.
    fn message(&mut self) -> Option<Value> {
        let mut header = [0; 5];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let mut payload = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize];
        self.0.read_exact(&mut payload).unwrap();
        Some(serde_json::from_slice(&payload).unwrap())
    }

    fn answer(&mut self) -> Result<Value, String> {
        let answer = self.message().unwrap();
        match answer.get("done") {
            Some(done) => Ok(done.clone()),
            None => Err(answer["failed"]["reason"].as_str().unwrap_or("no reason").to_owned()),
        }
    }

    fn call(&mut self, call: Value) -> Result<Value, String> {
        self.send(&json!({"call": call}));
        self.answer()
    }

    fn begin(&mut self, order: &Value) -> Result<Value, String> {
        self.call(json!({"begin": {"order": order}}))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<Value, String> {
        self.frame(PIECE, bytes.len(), bytes);
        self.answer()
    }

    fn change(&mut self, what: &str, change: &Value) -> Result<Value, String> {
        self.call(json!({what: {"change": change}}))
    }

    /// The line ends, and nothing more is said.
    #[track_caller]
    fn expect_closed(mut self) {
        assert_eq!(self.message(), None);
    }
}

fn refused<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

struct Bench {
    _cloud: Cloud,
    device: Device,
    maker: SigningKey,
}

/// A device that installs what its maker signed.
fn bench() -> Bench {
    let cloud = Cloud::start(&[]);
    let mut device = Device::create(&cloud);
    device.divide();
    let maker = SigningKey::from_pem(SigningKey::generate(Kind::Ed25519).unwrap().as_bytes()).unwrap();
    std::fs::create_dir(device.path("keys.d")).unwrap();
    device.write("keys.d/maker.pem", maker.public().to_pem());
    device.configure("release", "keys = \"keys.d\"");
    device.configure("device", "compatible = [\"board-1\"]");
    device.write("firmware.bin", OLD);
    Bench { _cloud: cloud, device, maker }
}

impl Bench {
    fn order(&self, bytes: &[u8], version: &str, sequence: u64) -> Value {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(bytes).into();
        let names = ["board-1".to_owned()];
        let statement = Statement::new(digest, bytes.len() as u64, version, sequence, &names);
        let mut envelope = Envelope::of(&statement).unwrap();
        envelope.sign(&self.maker).unwrap();
        let mut order = unsigned(bytes, version);
        order["release"] = serde_json::to_value(&envelope).unwrap();
        order
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(self.device.read("firmware.bin"), OLD);
        for name in ["firmware.bin.previous", "helper/sequence-floor", "helper/installed.json"] {
            assert!(!exists(&self.device.path(name)), "{name}");
        }
    }
}

fn unsigned(bytes: &[u8], version: &str) -> Value {
    json!({
        "target": "firmware", "digest": sha256(bytes), "size": bytes.len(), "compression": "none",
        "version": version, "release": null, "activate": "now",
    })
}

fn change(bytes: &[u8], version: &str, sequence: u64, before: &Value) -> Value {
    json!({
        "target": "firmware", "digest": sha256(bytes), "before": before,
        "commit": {"version": version, "digest": sha256(bytes), "sequence": sequence},
    })
}

#[test]
fn what_is_not_signed_is_not_begun_and_other_bytes_are_not_finished() {
    let bench = bench();
    let _helper = bench.device.start_helper();
    let mut client = Client::new(&bench.device);
    let signed = bench.order(NEW, "2.0", 7);
    assert_eq!(client.begin(&unsigned(NEW, "2.0")), refused("release-missing"));
    let mut other = signed.clone();
    other["digest"] = json!(sha256(b"something else"));
    assert_eq!(client.begin(&other), refused("release-mismatch"));
    // Nothing was begun.
    assert_eq!(client.write(NEW), refused("storage-error"));
    assert_eq!(client.call(json!("finish")), refused("storage-error"));

    let garbage = vec![b'!'; NEW.len()];
    assert_eq!(client.begin(&signed), Ok(json!(0)));
    client.write(&garbage).unwrap();
    // Not a byte more than was signed: a disk has an end.
    assert_eq!(client.write(b"!"), refused("size-mismatch"));
    assert_eq!(client.call(json!("finish")), refused("checksum-mismatch"));
    assert_eq!(client.begin(&signed), Ok(json!(0)), "what did not verify is gone");
    bench.untouched();
}

#[test]
fn only_what_was_verified_here_is_put_in_force_and_only_once() {
    let bench = bench();
    let helper = bench.device.start_helper();
    let signed = bench.order(NEW, "2.0", 7);
    let garbage = vec![b'!'; NEW.len()];
    let old = json!({"file": {"digest": sha256(OLD)}});
    let unknown = || refused("change-not-verified");

    // A signed order, other bytes, a restart: then the bytes by their own name, and by that of the order.
    let mut client = Client::new(&bench.device);
    client.begin(&signed).unwrap();
    client.write(&garbage).unwrap();
    helper.kill();
    let mut client = Client::new(&bench.device);
    for bytes in [&garbage, NEW] {
        for what in ["activate", "confirm", "commit", "roll-back"] {
            assert_eq!(client.change(what, &change(bytes, "2.0", 7, &old)), unknown(), "{what}");
        }
    }
    bench.untouched();

    client.call(json!({"discard": {"target": "firmware"}})).unwrap();
    client.begin(&signed).unwrap();
    client.write(NEW).unwrap();
    assert_eq!(client.call(json!("finish")), Ok(old.clone()));
    // Not as it was verified: another sequence, another way back, another version.
    let good = change(NEW, "2.0", 7, &old);
    let mut as_config = good.clone();
    as_config["target"] = json!({"config": "config.json"});
    let mut nothing_to_commit = good.clone();
    nothing_to_commit["commit"] = Value::Null;
    let others = [
        change(NEW, "2.0", u64::MAX, &old),
        change(NEW, "2.0", 7, &json!("absent")),
        change(NEW, "9.9", 7, &old),
        change(&garbage, "2.0", 7, &old),
        nothing_to_commit,
        as_config,
    ];
    for other in &others {
        for what in ["activate", "confirm", "commit", "roll-back"] {
            assert_eq!(client.change(what, other), unknown(), "{what} {other}");
        }
    }
    bench.untouched();

    // It is on disk, and holds for the next helper.
    helper.kill();
    let mut client = Client::new(&bench.device);
    assert_eq!(client.change("activate", &good), Ok(json!("Now")));
    client.change("confirm", &good).unwrap();
    helper.kill();
    let mut client = Client::new(&bench.device);
    for _ in 0..2 {
        client.change("confirm", &good).unwrap();
        client.change("commit", &good).unwrap();
    }
    assert_eq!(bench.device.read("firmware.bin"), NEW);
    assert_eq!(bench.device.read("helper/sequence-floor"), b"7\n");
    // What is committed is no way back, nor is what was signed before.
    for what in ["activate", "roll-back"] {
        assert_eq!(client.change(what, &good), unknown(), "{what}");
    }
    assert_eq!(client.begin(&bench.order(OLD, "1.0", 6)), refused("release-sequence-too-low"));
    assert_eq!(bench.device.read("firmware.bin"), NEW);
}

#[test]
fn a_configuration_is_held_to_its_place_and_its_size() {
    let bench = bench();
    let _helper = bench.device.start_helper();
    let mut client = Client::new(&bench.device);
    for name in ["../fleethand.toml", "private.key", "/etc/passwd", ""] {
        assert_eq!(client.call(json!({"read-config": {"name": name}})), refused("not-configured"), "{name}");
        let mut order = unsigned(b"{}", "");
        order["target"] = json!({"config": name});
        assert_eq!(client.begin(&order), refused("not-configured"), "{name}");
    }
    let mut order = unsigned(b"{}", "");
    order["target"] = json!({"config": "config.json"});
    for size in [json!(null), json!(4 * 1024 * 1024 + 1), json!(u64::MAX)] {
        order["size"] = size;
        assert_eq!(client.begin(&order), refused("size-mismatch"));
    }
}

#[test]
fn what_is_not_understood_ends_the_connection_and_nothing_else() {
    let bench = bench();
    let helper = bench.device.start_helper();
    let pid = helper.pid();
    let text = |text: &str| (MESSAGE, text.len(), text.as_bytes().to_vec());
    let mut order = bench.order(NEW, "2.0", 7);
    order["force"] = json!(true);
    let frames = [
        (b'x', 0, Vec::new()),
        (MESSAGE, 64 * 1024 + 1, vec![b' '; 100]),
        (MESSAGE, u32::MAX as usize, Vec::new()),
        (PIECE, 256 * 1024 + 1, vec![0; 100]),
        text("not json"),
        text("{}"),
        text(&"[".repeat(10_000)),
        text(r#"{"call": "format-disk"}"#),
        text(r#"{"call": {"run": {"command": ["sh"]}}}"#),
        text(r#"{"call": {"activate": {"change": {"target": "firmware"}}}}"#),
        text(r#"{"call": {"may-disturb": {"question": {"operation": "x", "job_id": "x"}}}}"#),
        text(&json!({"call": {"begin": {"order": order}}}).to_string()),
        text(r#"{"hello": {"protocol": 1}}"#),
    ];
    for (kind, length, payload) in &frames {
        let mut client = Client::new(&bench.device);
        client.frame(*kind, *length, payload);
        client.expect_closed();
    }
    // Before the greeting, and with another protocol.
    for (kind, length, payload) in [text(r#"{"call": "boot"}"#), (PIECE, 1, vec![0]), text("null")] {
        let mut client = Client::silent(&bench.device);
        client.frame(kind, length, &payload);
        client.expect_closed();
    }
    for protocol in [0, 2, u32::MAX] {
        let mut client = Client::silent(&bench.device);
        client.send(&json!({"hello": {"protocol": protocol}}));
        assert_eq!(client.message(), Some(json!({"hello": {"protocol": 1}})));
        client.expect_closed();
    }
    // Torn in the middle of a frame.
    Client::new(&bench.device).frame(MESSAGE, 100, b"{");
    let mut client = Client::new(&bench.device);
    assert!(client.call(json!("boot")).unwrap()["id"].is_string());
    assert_eq!(helper.pid(), pid);
    assert!(bench.device.log().contains("unknown variant `format-disk`"), "it is said what was wrong");
    bench.untouched();
}

/// A hook that runs until it is stopped, and leaves its process id.
fn hook(bench: &Bench) -> impl Fn() + use<'_> {
    let pid = bench.device.path("hook.pid");
    let text = format!("echo $$ > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n", pid.display());
    let hook = bench.device.script("hook.sh", &text);
    bench.device.configure("policy", &format!("hook = {hook}\nhook_timeout_seconds = 3600"));
    move || {
        let text = std::fs::read_to_string(&pid).unwrap();
        let process = format!("/proc/{}", text.trim());
        until("the hook to end", || (!Path::new(&process).exists()).then_some(()));
        std::fs::remove_file(&pid).unwrap();
    }
}

#[test]
fn a_call_is_halted_when_it_is_told_to_and_when_the_client_goes_or_breaks_the_rules() {
    let bench = bench();
    let ended = hook(&bench);
    let helper = bench.device.start_helper();
    let pid = helper.pid();
    let ask = || {
        let mut client = Client::new(&bench.device);
        let question = json!({"operation": "reboot", "version": null, "job_id": "job"});
        client.send(&json!({"call": {"may-disturb": {"question": question}}}));
        until("the hook", || exists(&bench.device.path("hook.pid")).then_some(()));
        client
    };
    for kind in ["cancel", "stop", "expire"] {
        let mut client = ask();
        client.send(&json!({"halt": kind}));
        let failed = &client.message().unwrap()["failed"];
        assert_eq!((&failed["reason"], &failed["halt"]), (&json!("canceled"), &json!(true)), "{kind}");
        ended();
        // For a call that has ended.
        client.send(&json!({"halt": kind}));
        assert!(client.call(json!("boot")).is_ok(), "{kind}");
    }
    drop(ask());
    ended();
    let mut client = ask();
    client.send(&json!({"call": "boot"}));
    client.expect_closed();
    ended();
    let mut client = ask();
    client.frame(PIECE, 3, b"abc");
    client.expect_closed();
    ended();
    assert_eq!(helper.pid(), pid);

    // It is asked to end itself: nobody is answered, which is as if it were lost.
    let client = ask();
    helper.stop();
    client.expect_closed();
    ended();
}

#[test]
fn one_client_at_a_time() {
    let bench = bench();
    let _helper = bench.device.start_helper();
    let mut first = Client::new(&bench.device);
    for _ in 0..3 {
        let mut second = Client::silent(&bench.device);
        let said = second.message().unwrap();
        assert!(said["refused"].as_str().unwrap().contains("another client"), "{said}");
        second.expect_closed();
    }
    assert!(first.call(json!("boot")).is_ok());
    drop(first);
    assert!(Client::new(&bench.device).call(json!("boot")).is_ok());
}

#[test]
fn a_user_who_may_not_ask_is_refused_whatever_the_mode_of_the_socket_is() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let bench = bench();
    let _helper = bench.device.start_helper();
    let socket = bench.device.path("helper.sock");
    let ask = || {
        let script = "import socket, sys\n\
            line = socket.socket(socket.AF_UNIX)\n\
            line.connect(sys.argv[1])\n\
            print(line.recv(1000))\n";
        let output =
            Command::new("python3").args(["-c", script]).arg(&socket).uid(12_345).gid(12_345).output();
        let output = output.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let said = ask();
    assert!(said.contains("PermissionError"), "{said}");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
    let said = ask();
    assert!(said.contains("user 12345 may not ask here"), "{said}");
}

#[test]
fn it_does_not_end_for_being_idle_in_the_middle_of_a_transfer() {
    let bench = bench();
    bench.device.configure("helper", "idle_seconds = 1");
    let mut helper = bench.device.start_helper_by_socket();
    let mut client = Client::new(&bench.device);
    client.begin(&bench.order(NEW, "2.0", 7)).unwrap();
    client.0.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let silence = client.0.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    client.0.set_read_timeout(None).unwrap();
    client.write(NEW).unwrap();
    client.call(json!("finish")).unwrap();
    client.expect_closed();
    let status = until("the helper to end", || helper.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn it_is_not_started_without_its_configuration_or_beside_another() {
    let bench = bench();
    let _helper = bench.device.start_helper();
    let said = |output: std::process::Output| {
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, second) = said(bench.device.fleethand(&["helper"]));
    assert!(code == Some(1) && second.contains("another helper listens"), "{second}");
    let text = std::fs::read_to_string(bench.device.config()).unwrap();
    bench.device.write("fleethand.toml", text.replace("user = ", "user = \"nobody-at-all\" #"));
    let (code, error) = said(bench.device.fleethand(&["helper"]));
    assert!(code == Some(1) && error.contains("no user \"nobody-at-all\""), "{error}");
    bench.device.write("fleethand.toml", text.replace("socket = ", "#"));
    let (code, error) = said(bench.device.fleethand(&["helper"]));
    assert!(code == Some(78) && error.contains("[helper] socket"), "{error}");
}
