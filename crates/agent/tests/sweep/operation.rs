//! What is done at every point, and what must be true afterwards, whatever happened at the point.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::cloud::Cloud;
use crate::support::{Device, Operator, THING, cloud_with_bucket, firmware_document, sha256};

/// A job, and the device that it is for.
pub trait Scenario: Sync {
    fn name(&self) -> String;
    /// How many times fewer points a sample has, because each takes longer.
    fn thinned(&self) -> usize {
        1
    }
    fn document(&self) -> Value;
    /// What is done at every point is asked for.
    fn order(&self, cloud: &Cloud, job: &str) {
        cloud.create_job(job, &self.document());
    }
    /// The cloud knows the end.
    fn is_over(&self, cloud: &Cloud, job: &str) -> bool {
        !["QUEUED", "IN_PROGRESS"].contains(&cloud.execution(job)["status"].as_str().unwrap())
    }
    /// What the cloud has been told that is not so; `after` is the last message before the order.
    fn wrongs_of_the_cloud(&self, cloud: &Cloud, job: &str, mut after: u64) -> Vec<String> {
        let execution = cloud.execution(job);
        let found = (
            execution["status"].as_str().unwrap_or_default(),
            execution["statusDetails"]["detailsMap"]["reason"].as_str().unwrap_or_default(),
        );
        let mut wrongs = Vec::new();
        if found != self.outcome() {
            wrongs.push(format!("the job ended as {found:?} instead of {:?}", self.outcome()));
        }
        let ends = cloud.messages(&mut after);
        let topic = format!("$aws/events/jobExecution/{job}/");
        let ends: Vec<_> =
            ends.iter().filter_map(|message| message["topic"].as_str()?.strip_prefix(&topic)).collect();
        if ends != [found.0.to_lowercase()] {
            wrongs.push(format!("the cloud announced these ends of {THING}'s execution: {ends:?}"));
        }
        wrongs
    }
    /// The cloud has nothing of it any more.
    fn forget(&self, cloud: &Cloud, job: &str) {
        cloud.done("DeleteJob", json!({"jobId": job, "force": "true"}), Value::Null);
    }
    fn cloud(&self) -> Cloud;
    /// Once for all points. `disk` is where the device keeps what it must not lose.
    fn configure(&self, device: &mut Device, disk: &Path);
    /// The device as it is before the job; the disk is empty.
    fn prepare(&self, device: &Device, disk: &Path);
    /// The power goes: what runs beside the agent ends with it.
    fn power_goes(&self) {}
    /// The system boots, and not because the agent has ordered it: after a power cut, or by somebody's hand.
    fn boot(&self, device: &Device, job: &str);
    /// Before the agent starts: what else runs in the system that has booted.
    fn bring_up(&self, _: &Device) {}
    /// Is it somebody's turn to reboot the system?
    fn awaits_reboot(&self, _device: &Device, _disk: &Path) -> bool {
        false
    }
    /// The one terminal state that is right, and its reason.
    fn outcome(&self) -> (&'static str, &'static str);
    /// What is not as that state says, or as the journal allowed when the agent had been ended.
    fn wrongs(&self, device: &Device, disk: &Path, struck: &Standing) -> Vec<String>;
}

#[derive(Clone, Copy, PartialEq)]
pub enum Operation {
    Firmware,
    FirmwareWhoseCommandFails,
    Config,
    Reboot,
}

/// How things stood when the agent had been ended: what may happen from there on follows from it.
#[derive(Debug, Default)]
pub struct Standing {
    /// Of the journal, as the next start finds it.
    pub phase: Option<String>,
    /// One letter for each run of the command: the [n]ew or the [o]ld file was in force.
    pub runs: String,
    /// The boot in which each order to reboot was given.
    pub orders: Vec<String>,
    pub boot_id: String,
    /// It was another process that was struck: what the agent was told is not forgotten.
    pub agent_lives: bool,
}

impl Standing {
    pub fn of(device: &Device, disk: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(device.path(name)).unwrap_or_default();
        let journal = fs::read(disk.join("state/journal.json")).unwrap_or_default();
        let journal: Value = serde_json::from_slice(&journal).unwrap_or_default();
        Self {
            phase: journal["phase"]["phase"].as_str().map(str::to_owned),
            runs: text("runs").replace('\n', ""),
            orders: text("reboots").lines().map(str::to_owned).collect(),
            boot_id: text("boot-id").trim().to_owned(),
            agent_lives: false,
        }
    }
}

fn new_firmware() -> Vec<u8> {
    (0..200_000_u32).map(|i| (i * 7 + i / 253) as u8).collect()
}

const OLD_FIRMWARE: &[u8] = b"old firmware";
const OLD_CONFIG: &str = r#"{"a": "old"}"#;

impl Scenario for Operation {
    fn name(&self) -> String {
        let name = match self {
            Self::Firmware => "update-firmware",
            Self::FirmwareWhoseCommandFails => "update-firmware whose command fails",
            Self::Config => "update-config",
            Self::Reboot => "reboot",
        };
        name.to_owned()
    }

    fn document(&self) -> Value {
        match self {
            Self::Firmware | Self::FirmwareWhoseCommandFails => {
                firmware_document("fw", "2.0", &sha256(&new_firmware()))
            }
            Self::Config => json!({"operation": "update-config", "config": {"a": "new"}}),
            Self::Reboot => json!({"operation": "reboot"}),
        }
    }

    fn cloud(&self) -> Cloud {
        match self {
            Self::Firmware | Self::FirmwareWhoseCommandFails => {
                let cloud = cloud_with_bucket(&[]);
                cloud.upload("fw", &new_firmware());
                cloud
            }
            Self::Config | Self::Reboot => Cloud::start(&[]),
        }
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        device.simulate_reboots();
        for (table, key, file) in
            [("firmware", "command", "firmware.bin"), ("config", "reload_command", "config.json")]
        {
            // What runs afterwards uses the file that was in force when the command ran last.
            let script = format!(
                "if grep -q old {}; then echo o >> {2}; else echo n >> {2}; exit {1}; fi\n",
                disk.join(file).display(),
                u8::from(*self == Self::FirmwareWhoseCommandFails),
                device.path("runs").display(),
            );
            let command = device.script(&format!("{table}.sh"), &script);
            device.configure(table, &format!("{key} = {command}"));
        }
        keep_on(disk, device, &["state", "firmware.bin", "config.json"]);
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        fs::create_dir(disk.join("state")).unwrap();
        let installed = json!({"version": "1.0", "digest": sha256(OLD_FIRMWARE)});
        fs::write(disk.join("state/installed.json"), installed.to_string()).unwrap();
        fs::write(disk.join("firmware.bin"), OLD_FIRMWARE).unwrap();
        fs::write(disk.join("config.json"), OLD_CONFIG).unwrap();
        let _ = fs::remove_file(device.path("runs"));
        device.write("boot-id", "boot-1\n");
    }

    fn boot(&self, device: &Device, job: &str) {
        device.write("boot-id", format!("boot-after-cut-of-{job}\n"));
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        match self {
            Self::Firmware => ("SUCCEEDED", "installed"),
            Self::FirmwareWhoseCommandFails => ("FAILED", "command-failed"),
            Self::Config => ("SUCCEEDED", "configured"),
            Self::Reboot => ("SUCCEEDED", "rebooted"),
        }
    }

    fn wrongs(&self, device: &Device, disk: &Path, struck: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut expect = |what: &str, found: String, expected: String| {
            if found != expected {
                wrongs.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let read = |name: &str| fs::read(disk.join(name)).unwrap_or_default();
        let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap_or_default().to_string();

        let (firmware, version) = match self {
            Self::Firmware => (new_firmware(), "2.0"),
            _ => (OLD_FIRMWARE.to_vec(), "1.0"),
        };
        let installed = json!({"version": version, "digest": sha256(&firmware)}).to_string();
        let config = json!({"a": if *self == Self::Config { "new" } else { "old" }}).to_string();
        expect("firmware.bin", sha256(&read("firmware.bin")), sha256(&firmware));
        expect("installed.json", json("state/installed.json"), installed);
        expect("config.json", json("config.json"), config);

        let previous = match self {
            Self::Firmware => "firmware.bin.previous ",
            Self::Config => "config.json.previous ",
            Self::FirmwareWhoseCommandFails | Self::Reboot => "",
        };
        let mut kept: Vec<_> =
            format!("config.json firmware.bin {previous}state").split(' ').map(str::to_owned).collect();
        kept.sort();
        expect("the files", names(disk), kept.join(" "));
        // Firmware that failed its trial is remembered.
        let refused = if *self == Self::FirmwareWhoseCommandFails { " refused.json" } else { "" };
        expect(
            "the state",
            names(&disk.join("state")),
            format!("history.json installed.json meter.json{refused}"),
        );

        let now = Standing::of(device, disk);
        if !struck.agent_lives || now.runs != struck.runs {
            expect(
                "the runs of the command",
                now.runs.clone(),
                struck.runs.clone() + self.runs_to_come(struck),
            );
        }
        // Once more only where the system had not gone down for the first order.
        let again = struck.orders.last().is_none_or(|boot| *boot == struck.boot_id);
        let most = if *self == Self::Reboot { struck.orders.len() + usize::from(again) } else { 0 };
        if now.orders.len() > most || now.orders.iter().any(|boot| *boot != now.orders[0]) {
            wrongs.push(format!("ordered to reboot in {:?}, after {:?}", now.orders, struck.orders));
        }
        if *self == Self::Reboot && now.boot_id == "boot-1" {
            wrongs.push("it was not rebooted".to_owned());
        }
        wrongs
    }
}

impl Operation {
    /// The command is repeated for a file whose command was not seen to end, and for no other.
    fn runs_to_come(self, struck: &Standing) -> &'static str {
        match (self, struck.phase.as_deref()) {
            (Self::Reboot, _) | (_, Some("reporting")) => "",
            (Self::FirmwareWhoseCommandFails, Some("rolling-back")) => "o",
            // It was settled: nothing is run before it is in the journal.
            (_, None) if !struck.runs.is_empty() => "",
            (Self::FirmwareWhoseCommandFails, _) => "no",
            (Self::Firmware | Self::Config, _) => "n",
        }
    }
}

/// What the device must not lose of what its configuration names.
pub fn keep_on(disk: &Path, device: &Device, names: &[&str]) {
    let mut config = fs::read_to_string(device.config()).unwrap();
    for name in names {
        let (from, to) = (device.path(name), disk.join(name));
        assert!(config.contains(from.to_str().unwrap()));
        config = config.replace(&format!("{from:?}"), &format!("{to:?}"));
    }
    device.write("fleethand.toml", config);
}

/// An order that was given is not given again by the system that it led to.
pub fn wrong_orders(device: &Device, most: usize) -> Option<String> {
    let orders = fs::read_to_string(device.path("reboots")).unwrap_or_default();
    let orders: Vec<_> = orders.lines().collect();
    let mut boots = orders.clone();
    boots.dedup();
    let wrong = orders.len() > most || boots.len() != orders.len();
    wrong.then(|| format!("ordered to reboot in {orders:?}"))
}

pub fn installed(disk: &Path) -> String {
    let bytes = fs::read(disk.join("state/installed.json")).unwrap_or_default();
    serde_json::from_slice::<Value>(&bytes).unwrap_or_default().to_string()
}

pub fn names(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.join(" ")
}
