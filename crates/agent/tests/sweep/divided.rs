//! Any scenario on a device of two processes. What must be true afterwards is the same.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::operation::{Scenario, Standing};
use crate::support::Device;
use crate::support::cloud::Cloud;

/// What the agent has of its own. All else is the helper's.
const AGENTS: [&str; 4] = ["history.json", "meter.json", "refused.json", "shadows.json"];

pub struct Divided<S>(pub S);

impl<S: Scenario> Scenario for Divided<S> {
    fn name(&self) -> String {
        format!("two processes, {}", self.0.name())
    }

    /// Both of them are struck.
    fn thinned(&self) -> usize {
        self.0.thinned() * 4
    }

    fn document(&self) -> Value {
        self.0.document()
    }

    fn order(&self, cloud: &Cloud, job: &str) {
        self.0.order(cloud, job);
    }

    fn is_over(&self, cloud: &Cloud, job: &str) -> bool {
        self.0.is_over(cloud, job)
    }

    fn wrongs_of_the_cloud(&self, cloud: &Cloud, job: &str, after: u64) -> Vec<String> {
        self.0.wrongs_of_the_cloud(cloud, job, after)
    }

    fn forget(&self, cloud: &Cloud, job: &str) {
        self.0.forget(cloud, job);
    }

    fn cloud(&self) -> Cloud {
        self.0.cloud()
    }

    fn configure(&self, device: &mut Device, disk: &Path) {
        self.0.configure(device, disk);
        device.divide_keeping(&disk.join("helper"));
        // A system that goes down takes both with it, and not only the one that ends the command first.
        let script = String::from_utf8(device.read("reboot.sh")).unwrap();
        let one = "kill -TERM $PPID";
        assert!(script.contains(one), "{script}");
        let both = format!(
            "setsid pkill -TERM -f '^[^ ]*fleethand (run|helper) --config {}$'",
            device.config().display()
        );
        device.write("reboot.sh", script.replace(one, &both));
    }

    fn prepare(&self, device: &Device, disk: &Path) {
        self.0.prepare(device, disk);
        let helper = disk.join("helper");
        fs::create_dir(&helper).unwrap();
        fs::rename(disk.join("state/installed.json"), helper.join("installed.json")).unwrap();
        device.give_to_the_agent(&disk.join("state"));
    }

    fn power_goes(&self) {
        self.0.power_goes();
    }

    fn boot(&self, device: &Device, job: &str) {
        self.0.boot(device, job);
    }

    fn bring_up(&self, device: &Device) {
        self.0.bring_up(device);
    }

    fn awaits_reboot(&self, device: &Device, disk: &Path) -> bool {
        self.0.awaits_reboot(device, disk)
    }

    fn outcome(&self) -> (&'static str, &'static str) {
        self.0.outcome()
    }

    /// Each has its own, and together they have what one process would have.
    fn wrongs(&self, device: &Device, disk: &Path, struck: &Standing) -> Vec<String> {
        let mut wrongs = Vec::new();
        for (folder, is_agents) in [("state", true), ("helper", false)] {
            for entry in fs::read_dir(disk.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if AGENTS.contains(&name.as_str()) != is_agents {
                    wrongs.push(format!("{folder}/{name} is not its own"));
                }
                fs::rename(disk.join(folder).join(&name), disk.join("state").join(&name)).unwrap();
            }
        }
        fs::remove_dir(disk.join("helper")).unwrap();
        wrongs.extend(self.0.wrongs(device, disk, struck));
        wrongs
    }
}
