//! Firmware through SWUpdate as Debian has it, over the local cloud, with the real agent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use std::process::{Command, Stdio};

use serde_json::json;
use support::cloud::Cloud;
use support::slots::{System, image};
use support::swupdate::{Daemon, Maker};
use support::{Device, Ended, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const SIZE: usize = 1_000_000;

struct Bench {
    cloud: Cloud,
    device: Device,
    maker: Maker,
}

/// `None`, and that is said, where there is no SWUpdate.
fn bench() -> Option<Bench> {
    if Command::new("swupdate").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: swupdate is not installed");
        return None;
    }
    let cloud = cloud_with_bucket(&[]);
    let device = Device::create(&cloud);
    device.simulate_slots(&image(System::Good, 1, SIZE), SIZE as u64);
    device.leave_the_slots_to_swupdate();
    Some(Bench { cloud, device, maker: Maker::new() })
}

impl Bench {
    fn order(&self, job: &str, bundle: &[u8]) {
        self.cloud.upload(job, bundle);
        self.cloud.create_job(job, &firmware_document(job, job, &sha256(bundle)));
    }

    /// Starts the agent again as often as it reboots the device.
    fn follow(&mut self, job: &str) -> Ended {
        until(&format!("{job} to end"), || {
            if self.device.has_ended() {
                self.device.start();
            }
            let status = &self.cloud.execution(job)["status"];
            (!["QUEUED", "IN_PROGRESS"].contains(&status.as_str().unwrap())).then_some(())
        });
        self.cloud.outcome(job)
    }

    fn update(&mut self, job: &str, bundle: &[u8]) -> Ended {
        self.order(job, bundle);
        self.follow(job)
    }

    fn good(&self, seed: u8) -> (Vec<u8>, Vec<u8>) {
        let image = image(System::Good, seed, SIZE);
        (self.maker.bundle(&image), image)
    }

    fn until_slot_b_is_being_written(&self, image: &[u8]) {
        until("the first bytes", || self.device.slot_has("B", &image[..50_000]).then_some(()));
        assert!(!self.device.slot_has("B", image), "it was too quick");
    }

    fn nothing_but_a_boots(&self) {
        assert_eq!((self.device.running_slot(), self.device.boot_state()), ("A".into(), "good=A".into()));
    }

    fn boots(&self) -> String {
        String::from_utf8(self.device.read("boots")).unwrap()
    }
}

#[test]
fn a_bundle_is_booted_on_trial_and_kept_and_the_next_one_goes_into_the_other_slot() {
    let Some(mut bench) = bench() else { return };
    let _daemon = Daemon::start(&bench.device, &bench.maker);
    for (job, seed, slot, boots) in [("v2", 2, "B", "A\nB\n"), ("v3", 3, "A", "A\nB\nA\n")] {
        let (bundle, image) = bench.good(seed);
        bench.update(job, &bundle).is("SUCCEEDED", "installed");
        let state = format!("good={slot}");
        assert_eq!((bench.device.running_slot(), bench.device.boot_state()), (slot.into(), state));
        assert!(bench.device.slot_has(slot, &image));
        assert_eq!(bench.boots(), boots);
        assert_eq!(bench.device.names_in("state/staging"), Vec::<String>::new());
        let again = format!("{job}-again");
        bench.cloud.create_job(&again, &firmware_document(job, job, &sha256(&bundle)));
        bench.follow(&again).is("SUCCEEDED", "already-installed");
    }
}

#[test]
fn a_system_that_is_not_well_or_does_not_come_up_is_rolled_back() {
    let Some(mut bench) = bench() else { return };
    let _daemon = Daemon::start(&bench.device, &bench.maker);
    let unhealthy = bench.maker.bundle(&image(System::Unhealthy, 2, SIZE));
    bench.update("unhealthy", &unhealthy).is("FAILED", "health-check-failed");
    bench.nothing_but_a_boots();
    let dead = bench.maker.bundle(&image(System::Panics, 3, SIZE));
    bench.update("dead", &dead).is("FAILED", "bootloader-rolled-back");
    bench.nothing_but_a_boots();
    assert_eq!(bench.boots(), "A\nB\nA\nB\nB\nB\nA\n");
}

#[test]
fn what_swupdate_does_not_take_is_not_booted() {
    let Some(mut bench) = bench() else { return };
    let (bundle, image) = bench.good(2);
    bench.update("nobody", &bundle).is("FAILED", "installer-unreachable");
    assert!(!exists(&bench.device.path("state/staging")), "nothing is fetched that nobody would install");

    let _daemon = Daemon::start(&bench.device, &bench.maker);
    let stranger = Maker::new().bundle(&image);
    bench.update("stranger", &stranger).is("FAILED", "installer-failed");
    let torn = bench.maker.bundle_that_says(&image, &sha256(b"another image"));
    let ended = bench.update("torn", &torn);
    assert!(ended.is("FAILED", "installer-failed").message.contains("HASH mismatch"), "{ended:?}");
    bench.update("no-bundle", b"this is no bundle").is("FAILED", "installer-failed");
    bench.update("short", &bundle[..bundle.len() / 2]).is("FAILED", "installer-failed");
    bench.nothing_but_a_boots();
    assert_eq!(bench.boots(), "A\n");
    // And it still works.
    bench.update("good", &bundle).is("SUCCEEDED", "installed");
}

#[test]
fn a_daemon_that_dies_is_no_success_and_its_progress_was_seen() {
    let Some(mut bench) = bench() else { return };
    bench.device.configure("report", "progress_interval_seconds = 1");
    let daemon = Daemon::start_slow(&bench.device, &bench.maker, "100ms");
    let (bundle, image) = bench.good(2);
    bench.device.start();
    bench.order("update", &bundle);
    until("progress", || {
        let details = bench.cloud.execution("update")["statusDetails"]["detailsMap"].clone();
        (details["phase"] == "installing" && details["progress"].is_string()).then_some(())
    });
    bench.until_slot_b_is_being_written(&image);
    daemon.kill();
    let ended = bench.follow("update");
    assert!(ended.is("FAILED", "installer-failed").message.contains("went away"), "{ended:?}");
    bench.nothing_but_a_boots();
    assert_eq!(bench.boots(), "A\n");
}

/// Killed, stopped, and installed again each time; another one's installation is waited for.
#[test]
fn an_agent_that_ends_while_swupdate_works_installs_again() {
    let Some(mut bench) = bench() else { return };
    let _daemon = Daemon::start_slow(&bench.device, &bench.maker, "20ms");
    let (bundle, image) = bench.good(2);
    bench.device.start();
    bench.order("update", &bundle);
    for end in [Device::kill, |device: &mut Device| _ = device.stop()] {
        bench.until_slot_b_is_being_written(&image);
        end(&mut bench.device);
        let size = SIZE as u64;
        std::fs::File::options().write(true).open(bench.device.path("slotB")).unwrap().set_len(0).unwrap();
        std::fs::File::options().write(true).open(bench.device.path("slotB")).unwrap().set_len(size).unwrap();
        bench.device.start();
    }
    bench.follow("update").is("SUCCEEDED", "installed");
    assert!(bench.device.slot_has("B", &image));
    assert_eq!(bench.boots(), "A\nB\n");
}

#[test]
fn a_withdrawn_job_boots_nothing_and_another_ones_installation_is_waited_for() {
    let Some(mut bench) = bench() else { return };
    let _daemon = Daemon::start_slow(&bench.device, &bench.maker, "20ms");
    let (bundle, image) = bench.good(2);
    bench.device.start();
    bench.order("withdrawn", &bundle);
    bench.until_slot_b_is_being_written(&image);
    bench.cloud.done("CancelJob", json!({"jobId": "withdrawn", "force": "true"}), json!({}));
    until("the file to go", || bench.device.names_in("state/staging").is_empty().then_some(()));
    bench.nothing_but_a_boots();

    bench.device.write("other.swu", &bundle);
    let mut other = Command::new("swupdate-client")
        .args(["-q", "-e", "stable,slot-b"])
        .arg(bench.device.path("other.swu"))
        .env("TMPDIR", bench.device.path("swupdate"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    bench.until_slot_b_is_being_written(&image);
    bench.cloud.create_job("patient", &firmware_document("withdrawn", "patient", &sha256(&bundle)));
    bench.follow("patient").is("SUCCEEDED", "installed");
    assert!(bench.device.log().contains("busy with another installation"));
    other.wait().unwrap();
}
