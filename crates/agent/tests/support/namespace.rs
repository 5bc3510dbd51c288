//! A network of a device's own, whose firewall lets one port through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "helpers of tests")]

use std::path::PathBuf;
use std::process::Command;

/// Gone when dropped.
pub struct Namespace {
    name: String,
    link: String,
    /// What this machine is called from inside.
    pub host: String,
}

impl Namespace {
    /// From which nothing gets out but TCP to `port` of this machine. None, said loudly, where such things cannot be made.
    pub fn with_open_port(port: u16) -> Option<Self> {
        let id = std::process::id();
        let (a, b) = (id % 50 + 200, id / 50 % 250);
        let (name, link) = (format!("fleethand-{id}"), format!("fh{id}"));
        let (host, inside) = (format!("10.{a}.{b}.1"), format!("10.{a}.{b}.2"));
        if let Err(error) = run(&["ip", "netns", "add", &name]) {
            eprintln!("NOT TESTED: no network namespace can be made here (it takes root): {error}");
            return None;
        }
        let namespace = Self { name, link, host };
        let (name, link) = (namespace.name.as_str(), namespace.link.as_str());
        let peer = format!("{link}p");
        let within = |words: &[&str]| run(&[&["ip", "netns", "exec", name], words].concat());
        run(&["ip", "link", "add", link, "type", "veth", "peer", "name", &peer, "netns", name]).unwrap();
        run(&["ip", "address", "add", &format!("{}/30", namespace.host), "dev", link]).unwrap();
        run(&["ip", "link", "set", link, "up"]).unwrap();
        within(&["ip", "address", "add", &format!("{inside}/30"), "dev", &peer]).unwrap();
        within(&["ip", "link", "set", &peer, "up"]).unwrap();
        within(&["ip", "link", "set", "lo", "up"]).unwrap();
        within(&["ip", "route", "add", "default", "via", &namespace.host]).unwrap();
        within(&["nft", "add", "table", "inet", "wall"]).unwrap();
        let chain = "{ type filter hook output priority 0 ; policy accept ; }";
        within(&["nft", "add", "chain", "inet", "wall", "out", chain]).unwrap();
        let refuse =
            format!("add rule inet wall out oifname {peer} tcp dport != {port} reject with tcp reset");
        within(&[&["nft"], &refuse.split(' ').collect::<Vec<_>>()[..]].concat()).unwrap();
        let silence = format!("add rule inet wall out oifname {peer} meta l4proto udp drop");
        within(&[&["nft"], &silence.split(' ').collect::<Vec<_>>()[..]].concat()).unwrap();
        Some(namespace)
    }

    /// This program, with its arguments, inside. It keeps the process id that it is started with.
    pub fn inside(&self, program: &Command) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&["ip", "link", "delete", &self.link]);
        let _ = run(&["ip", "netns", "delete", &self.name]);
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    let (program, arguments) = words.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|error| format!("{program}: {error}; scripts/install-deps installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{words:?}: {said}")) }
}

/// tinyproxy, with a user and a password; gone when dropped.
pub struct Tinyproxy {
    process: std::process::Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tinyproxy {
    pub fn start(address: &str, port: u16, user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, log) = (folder.path().join("tinyproxy.conf"), folder.path().join("log"));
        let text = format!(
            "Port {port}\nListen {address}\nTimeout 600\nMaxClients 20\nLogFile \"{}\"\nLogLevel Connect\n\
             BasicAuth {user} {password}\nDisableViaHeader Yes\n",
            log.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("tinyproxy").args(["-d", "-c", config.to_str().unwrap()]).spawn();
        let process = process.expect("tinyproxy; scripts/install-deps installs it");
        super::until("tinyproxy to listen", || std::net::TcpStream::connect((address, port)).ok());
        Self { process, log, _folder: folder }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
