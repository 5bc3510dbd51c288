//! Firmware through RAUC itself, over the local cloud: its service on a bus of its own, its slots on loop devices.
//! As root; elsewhere these tests say that they were skipped.
#![cfg(feature = "rauc")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use serde_json::{Value, json};
use support::cloud::Cloud;
use support::rauc::{self, Bundle, Rauc};
use support::{Device, Operator, cloud_with_bucket, exists, firmware_document, sha256, until};

const SLOT: usize = 4 << 20;

struct System {
    cloud: Cloud,
    device: Device,
    rauc: Rauc,
}

/// A device in the cloud, that runs slot A; its agent does not run yet.
fn system(slots: [usize; 2], slot_keys: &str) -> Option<System> {
    if let Some(why) = rauc::missing() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    let rauc = Rauc::create(slots, slot_keys);
    rauc.configure(&mut device);
    Some(System { cloud, device, rauc })
}

impl System {
    fn start(&mut self) {
        self.device.start();
    }

    /// A job for this bundle; its document.
    fn order(&self, job: &str, version: &str, bundle: &[u8]) -> Value {
        self.cloud.upload(version, bundle);
        let document = firmware_document(version, version, &sha256(bundle));
        self.cloud.create_job(job, &document);
        document
    }

    /// What runs now is what ran before, and boots next.
    #[track_caller]
    fn is_back(&self, state_of_b: &str) {
        assert_eq!(self.rauc.bootloader(), ("A".to_owned(), state_of_b.to_owned()));
        assert_eq!(self.rauc.slot("A", SLOT), vec![b'A'; SLOT]);
        assert!(!exists(&self.device.path("state/staging/firmware.staged")));
    }
}

fn image(seed: u8) -> Vec<u8> {
    (0..3 << 20).map(|i: usize| (i * 31 + i / 251) as u8 ^ seed).collect()
}

#[test]
fn a_bundle_is_installed_boots_on_trial_and_stays() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let image = image(2);
    let bundle = system.rauc.bundle(&Bundle { image: &image, waits: true, ..Bundle::default() });
    system.device.configure("report", "progress_interval_seconds = 1");
    let document = system.order("two", "2", &bundle);
    system.rauc.wait_until_begun();
    until("the installation's progress", || {
        let details = system.cloud.execution("two")["statusDetails"]["detailsMap"].clone();
        (details["phase"] == "installing" && details["progress"].is_string()).then_some(())
    });
    system.rauc.go_on();
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.cloud.execution("two")["status"], "IN_PROGRESS");
    assert_eq!(system.rauc.slot("B", image.len()), image);
    // Not good yet: the mark comes with the confirmation.
    assert_eq!(system.rauc.bootloader(), ("B".to_owned(), "good".to_owned()));
    let marks = std::fs::read_to_string(system.rauc.path("marks")).unwrap();
    // RAUC's own mark before it writes, and ours until the slot is read back.
    assert_eq!(marks, "B bad\nB bad\n");

    system.rauc.boot("B", &mut system.device);
    system.cloud.outcome("two").is("SUCCEEDED", "installed");
    let marks = std::fs::read_to_string(system.rauc.path("marks")).unwrap();
    assert!(marks.ends_with("B good\n"), "{marks}");
    assert!(!exists(&system.device.path("state/staging/firmware.staged")));
    system.cloud.run("again", &document).is("SUCCEEDED", "already-installed");

    // The record is not believed when somebody else has installed something meanwhile, and boots it.
    let other = system.rauc.bundle(&Bundle { image: b"by hand", ..Bundle::default() });
    assert!(system.rauc.install_by_hand(&other).wait().unwrap().success());
    system.device.stop();
    system.rauc.boot("A", &mut system.device);
    assert!(system.rauc.install_by_hand(&other).wait().unwrap().success());
    system.device.stop();
    system.rauc.boot("B", &mut system.device);
    system.cloud.create_job("repair", &document);
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.rauc.slot("A", image.len()), image);
}

#[test]
fn a_system_that_is_not_well_goes_back_to_the_slot_of_before() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.device.configure("health", "commands = [[\"/bin/false\"]]\nwithin_seconds = 1");
    system.start();
    let bundle = system.rauc.bundle(&Bundle { image: &image(2), ..Bundle::default() });
    let document = system.order("ill", "2", &bundle);
    assert!(system.device.wait_for_exit().success());
    system.rauc.boot("B", &mut system.device);
    // It orders the reboot back.
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.rauc.bootloader(), ("A".to_owned(), "bad".to_owned()));
    system.rauc.boot("A", &mut system.device);
    system.cloud.outcome("ill").is("FAILED", "health-check-failed");
    system.is_back("bad");
    assert_eq!(system.device.read("reboots"), b"boot-1\nboot-1-after\n");

    // Another job may try it again; this time the new slot does not come up, and the bootloader goes back by itself.
    system.cloud.create_job("dead", &document);
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.rauc.bootloader().0, "B");
    system.rauc.boot("A", &mut system.device);
    system.cloud.outcome("dead").is("FAILED", "bootloader-rolled-back");
    system.is_back("bad");
}

#[test]
fn what_must_not_be_installed_touches_no_slot() {
    let Some(mut system) = system([SLOT, 2 << 20], "") else { return };
    system.device.configure("firmware.rauc", "max_size_bytes = 5000000");
    system.start();
    let (small, large, huge) = (image(1), vec![7; 1 << 20], pseudo_random(5 << 20));
    let make = |bundle: Bundle<'_>| system.rauc.bundle(&bundle);
    let cases = [
        ("slot-too-small", make(Bundle { image: &small, ..Bundle::default() }), "no-space"),
        (
            "stranger",
            make(Bundle { image: &large, signer: "stranger", ..Bundle::default() }),
            "installer-refused",
        ),
        (
            "other-board",
            make(Bundle { image: &large, compatible: "board-2", ..Bundle::default() }),
            "installer-refused",
        ),
        ("no-bundle", b"not a bundle".repeat(1000), "installer-refused"),
        ("too-large", make(Bundle { image: &huge, ..Bundle::default() }), "too-large"),
    ];
    for (job, bundle, reason) in cases {
        system.order(job, job, &bundle);
        let ended = system.cloud.outcome(job);
        assert!(!ended.is("FAILED", reason).message.is_empty());
        system.is_back("good");
        assert_eq!(system.rauc.slot("B", 2 << 20), vec![b'B'; 2 << 20], "{job}");
    }
    assert!(!exists(&system.rauc.path("marks")), "no slot was marked");
    // And it still works.
    system.order("good", "good", &make(Bundle { image: &large, ..Bundle::default() }));
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.rauc.bootloader().0, "B");
}

#[test]
fn somebody_elses_installation_is_not_taken_for_ours() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let image = image(2);
    let waits = system.rauc.bundle(&Bundle { image: b"by hand", waits: true, ..Bundle::default() });
    let mut by_hand = system.rauc.install_by_hand(&waits);
    system.rauc.wait_until_begun();
    let bundle = system.rauc.bundle(&Bundle { image: &image, waits: true, ..Bundle::default() });
    system.order("meanwhile", "2", &bundle);
    system.cloud.outcome("meanwhile").is("FAILED", "installer-busy");
    // Being refused, a second caller makes RAUC say that it is idle.
    assert!(!system.rauc.install_by_hand(&waits).wait().unwrap().success());
    system.order("looks-idle", "2", &bundle);
    system.cloud.outcome("looks-idle").is("FAILED", "installer-busy");
    system.rauc.go_on();
    assert!(by_hand.wait().unwrap().success());
    std::fs::remove_file(system.rauc.path("go")).unwrap();

    // Ours is not ended by somebody who is refused.
    system.order("ours", "2", &bundle);
    system.rauc.wait_until_begun();
    assert!(!system.rauc.install_by_hand(&waits).wait().unwrap().success());
    assert_eq!(system.cloud.execution("ours")["status"], "IN_PROGRESS");
    system.rauc.go_on();
    assert!(system.device.wait_for_exit().success());
    assert_eq!(system.rauc.slot("B", image.len()), image);
    system.rauc.boot("B", &mut system.device);
    system.cloud.outcome("ours").is("SUCCEEDED", "installed");
}

#[test]
fn a_service_that_goes_away_has_not_installed_anything() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let bundle = system.rauc.bundle(&Bundle { image: &image(2), waits: true, ..Bundle::default() });
    system.order("killed", "2", &bundle);
    system.rauc.wait_until_begun();
    system.rauc.kill_service();
    system.rauc.serve("A");
    system.cloud.outcome("killed").is("FAILED", "installer-unavailable");
    system.is_back("bad");
}

#[test]
fn an_agent_that_ends_leaves_rauc_at_work_and_installs_again() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let image = image(2);
    let bundle = system.rauc.bundle(&Bundle { image: &image, waits: true, ..Bundle::default() });
    system.order("ended", "2", &bundle);
    system.rauc.wait_until_begun();
    system.device.kill();
    system.start();
    system.device.stop();
    system.start();
    system.rauc.go_on();
    assert!(system.device.wait_for_exit().success());
    let installed = std::fs::read_to_string(system.rauc.path("service.log")).unwrap();
    assert_eq!(installed.matches("` succeeded").count(), 2, "{installed}");
    assert_eq!(system.rauc.slot("B", image.len()), image);
    system.rauc.boot("B", &mut system.device);
    system.cloud.outcome("ended").is("SUCCEEDED", "installed");
}

#[test]
fn a_withdrawn_job_waits_for_rauc_and_is_undone() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let bundle = system.rauc.bundle(&Bundle { image: &image(2), waits: true, ..Bundle::default() });
    system.order("withdrawn", "2", &bundle);
    system.rauc.wait_until_begun();
    system.cloud.done("CancelJob", json!({"jobId": "withdrawn", "force": "true"}), json!({}));
    system.cloud.wait_for("withdrawn", "CANCELED");
    system.rauc.go_on();
    until("slot B to be bad", || (system.rauc.bootloader() == ("A".into(), "bad".into())).then_some(()));
    until("the bundle to go", || {
        (!exists(&system.device.path("state/staging/firmware.staged"))).then_some(())
    });
    system.is_back("bad");
    assert!(!exists(&system.device.path("reboots")));
}

/// RAUC 1.8 with `install-same=false` believes its record, and not the slot.
#[test]
fn an_installation_that_was_skipped_is_found_out_before_it_boots() {
    let Some(mut system) = system([SLOT; 2], "install-same=false") else { return };
    system.start();
    let bundle = system.rauc.bundle(&Bundle { image: &image(2), ..Bundle::default() });
    assert!(system.rauc.install_by_hand(&bundle).wait().unwrap().success());
    system.rauc.write_slot("B", b"torn");
    system.order("skipped", "2", &bundle);
    let ended = system.cloud.outcome("skipped");
    assert!(ended.is("FAILED", "read-back-mismatch").message.contains("install-same"), "{ended:?}");
    system.is_back("bad");
}

/// RAUC has made the new slot boot next, and the power goes before the agent knows.
#[test]
fn a_boot_into_the_new_slot_that_nobody_ordered_is_a_trial_too() {
    let Some(mut system) = system([SLOT; 2], "") else { return };
    system.start();
    let bundle = system.rauc.bundle(&Bundle { image: &image(2), waits: true, ..Bundle::default() });
    system.order("early", "2", &bundle);
    system.rauc.wait_until_begun();
    system.device.kill();
    system.rauc.go_on();
    until("RAUC to be done", || (system.rauc.bootloader().0 == "B").then_some(()));
    system.device.write("boot-id", "boot-2\n");
    system.rauc.boot("B", &mut system.device);
    system.cloud.outcome("early").is("SUCCEEDED", "installed");
    let marks = std::fs::read_to_string(system.rauc.path("marks")).unwrap();
    assert!(marks.ends_with("B good\n"), "{marks}");
    assert!(!exists(&system.device.path("reboots")));
}

fn pseudo_random(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 56) as u8
    };
    (0..length).map(|_| next(&mut state)).collect()
}
