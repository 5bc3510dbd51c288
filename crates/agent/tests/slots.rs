//! Firmware into slots, over the local cloud: booted on trial, kept or rolled back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::FileExt;

use serde_json::json;
use support::cloud::Cloud;
use support::slots::{System, image};
use support::{Device, Ended, Operator, cloud_with_bucket, firmware_document, sha256};

const SIZE: usize = 1_000_000;

fn device(cloud: &Cloud) -> Device {
    let device = Device::create(cloud);
    device.simulate_slots(&image(System::Good, 1, SIZE), SIZE as u64);
    device
}

/// Orders an image, and starts the agent again as often as it reboots the device.
fn update(cloud: &Cloud, device: &mut Device, job: &str, image: &[u8]) -> Ended {
    cloud.upload(job, image);
    cloud.create_job(job, &firmware_document(job, job, &sha256(image)));
    follow(cloud, device, job)
}

fn follow(cloud: &Cloud, device: &mut Device, job: &str) -> Ended {
    support::until(&format!("{job} to end"), || {
        if device.has_ended() {
            device.start();
        }
        let pending = ["QUEUED", "IN_PROGRESS"].contains(&cloud.execution(job)["status"].as_str().unwrap());
        (!pending).then_some(())
    });
    cloud.outcome(job)
}

fn text(device: &Device, name: &str) -> String {
    String::from_utf8(device.read(name)).unwrap()
}

#[test]
fn an_image_is_booted_on_trial_and_kept_and_the_next_one_goes_into_the_other_slot() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let (second, third) = (image(System::Good, 2, SIZE), image(System::Good, 3, SIZE - 1));
    update(&cloud, &mut device, "v2", &second).is("SUCCEEDED", "installed");
    assert_eq!((device.running_slot(), device.boot_state()), ("B".into(), "good=B".into()));
    assert!(device.slot_has("B", &second));
    assert_eq!(text(&device, "boots"), "A\nB\n");

    update(&cloud, &mut device, "v3", &third).is("SUCCEEDED", "installed");
    assert_eq!((device.running_slot(), device.boot_state()), ("A".into(), "good=A".into()));
    assert!(device.slot_has("A", &third) && device.slot_has("B", &second));

    cloud.create_job("again", &firmware_document("v3", "v3", &sha256(&third)));
    cloud.outcome("again").is("SUCCEEDED", "already-installed");
    assert_eq!(text(&device, "boots"), "A\nB\nA\n");
    support::until("the journal to be empty", || {
        (!support::exists(&device.path("state/journal.json"))).then_some(())
    });
    assert_eq!(device.names_in("state"), ["history.json", "installed.json", "meter.json"]);
}

#[test]
fn an_image_that_is_not_well_is_rolled_back_and_not_tried_again() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let bad = image(System::Unhealthy, 2, SIZE);
    let ended = update(&cloud, &mut device, "bad", &bad);
    ended.is("FAILED", "health-check-failed");
    assert!(ended.message.contains("UNHEALTHY"), "{ended:?}");
    assert_eq!((device.running_slot(), device.boot_state()), ("A".into(), "good=A".into()));
    assert_eq!(text(&device, "boots"), "A\nB\nA\n");
}

#[test]
fn an_image_that_does_not_come_up_is_what_the_bootloader_rolled_back() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    update(&cloud, &mut device, "dead", &image(System::Panics, 2, SIZE))
        .is("FAILED", "bootloader-rolled-back");
    assert_eq!((device.running_slot(), device.boot_state()), ("A".into(), "good=A".into()));
    assert_eq!(text(&device, "boots"), "A\nB\nB\nB\nA\n");
}

#[test]
fn nothing_is_fetched_for_slots_that_cannot_be_used() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let new = image(System::Good, 2, SIZE + 1);
    cloud.upload("fw", &new);
    let before = device.read("slotB");
    device.start();
    let mut jobs = 0;
    let mut order = |device: &Device, status: &str, reason: &str| {
        jobs += 1;
        let ended = cloud.run(&format!("job-{jobs}"), &firmware_document("fw", "2", &sha256(&new)));
        ended.is(status, reason);
        assert_eq!(device.read("slotB"), before, "{ended:?}");
        ended
    };
    let too_small = order(&device, "FAILED", "no-space");
    assert!(too_small.message.contains("1000001"), "{too_small:?}");

    device.grub_editenv(&["set", "good=B"]);
    let other = order(&device, "FAILED", "bootloader-error");
    assert!(other.message.contains("good=B, but slot A runs"), "{other:?}");
    device.grub_editenv(&["unset", "good"]);
    order(&device, "FAILED", "bootloader-error");
    device.grub_editenv(&["set", "good=A"]);

    device.write("cmdline", "root=/dev/simulated");
    order(&device, "FAILED", "booted-slot-unknown");
    device.write("cmdline", "slot=C");
    order(&device, "FAILED", "booted-slot-unknown");
    device.write("cmdline", "slot=A");

    std::fs::rename(device.path("slotB"), device.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(device.path("elsewhere"), device.path("slotB")).unwrap();
    order(&device, "FAILED", "slot-unusable");
    std::fs::remove_file(device.path("slotB")).unwrap();
    std::fs::hard_link(device.path("slotA"), device.path("slotB")).unwrap();
    let ended = cloud.run("same", &firmware_document("fw", "2", &sha256(&new)));
    ended.is("FAILED", "slot-unusable");
    assert_eq!(device.boot_state(), "good=A");
}

/// Packed, then ordered with what it is packed with.
fn update_packed(cloud: &Cloud, device: &mut Device, program: &str, image: &[u8]) -> Ended {
    device.write("image", image);
    let packed = std::process::Command::new(program).arg("-c").arg(device.path("image")).output().unwrap();
    assert!(packed.status.success());
    cloud.upload(program, &packed.stdout);
    let mut document = firmware_document(program, program, &sha256(&packed.stdout));
    document["compression"] = program.into();
    cloud.create_job(program, &document);
    follow(cloud, device, program)
}

#[test]
fn compressed_images_are_unpacked_on_their_way_into_the_slot() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    for (seed, program) in [(2, "gzip"), (3, "xz"), (4, "zstd")] {
        let image = image(System::Good, seed, SIZE);
        update_packed(&cloud, &mut device, program, &image).is("SUCCEEDED", "installed");
        assert!(device.slot_has(&device.running_slot(), &image));
    }
    assert_eq!(text(&device, "boots"), "A\nB\nA\nB\n");
}

#[test]
fn a_bomb_and_what_cannot_be_unpacked_leave_the_slot_bad_and_the_device_as_it_was() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    let bomb = image(System::Good, 2, 20 * SIZE);
    update_packed(&cloud, &mut device, "zstd", &bomb).is("FAILED", "no-space");
    let image = image(System::Good, 3, SIZE);
    cloud.upload("plain", &image);
    let mut document = firmware_document("plain", "2", &sha256(&image));
    document["compression"] = "xz".into();
    cloud.run("not-packed", &document).is("FAILED", "decompression-failed");
    assert_eq!((device.boot_state(), text(&device, "boots")), ("good=A".into(), "A\n".into()));
    assert!(!support::exists(&device.path("state/slot.json")));
    document["compression"] = "none".into();
    cloud.create_job("plain", &document);
    follow(&cloud, &mut device, "plain").is("SUCCEEDED", "installed");
}

/// Stopped in the middle of a transfer into the slot; the next agent goes on behind what is known to be there.
fn interrupted(meanwhile: impl FnOnce(&Device)) -> String {
    const LARGE: usize = 40 << 20;
    let cloud = cloud_with_bucket(&[]);
    let mut device = Device::create(&cloud);
    device.simulate_slots(&image(System::Good, 1, SIZE), LARGE as u64);
    let new = image(System::Good, 2, LARGE);
    cloud.upload("fw", &new);
    cloud.fault(json!({"fault": "object-slow", "bytes": 10 << 20}));
    device.start();
    cloud.create_job("large", &firmware_document("fw", "2", &sha256(&new)));
    support::until("the first bytes", || device.slot_has("B", &new[..20 << 20]).then_some(()));
    device.stop();
    let record: serde_json::Value = serde_json::from_slice(&device.read("state/slot.json")).unwrap();
    assert!(record["synced"].as_u64().unwrap() >= 8 << 20, "{record}");
    meanwhile(&device);
    follow(&cloud, &mut device, "large").is("SUCCEEDED", "installed");
    assert!(device.slot_has("B", &new));
    device.log()
}

#[test]
fn a_transfer_into_a_slot_goes_on_after_a_stop() {
    let log = interrupted(|_| {});
    assert!(!log.contains("fetching again from zero"), "{log}");
}

#[test]
fn what_was_in_the_slot_before_a_restart_is_read_again_and_not_believed() {
    let log = interrupted(|device| {
        let slot = std::fs::File::options().write(true).open(device.path("slotB")).unwrap();
        slot.write_all_at(b"rot", 1 << 20).unwrap();
    });
    assert!(log.contains("fetching again from zero"), "{log}");
}

fn next_reboot(cloud: &Cloud, job: &str, image: &[u8]) {
    let mut document = firmware_document(job, job, &sha256(image));
    document["activate"] = json!("next-reboot");
    cloud.upload(job, image);
    cloud.create_job(job, &document);
}

fn waits_for_a_reboot(cloud: &Cloud, job: &str) {
    support::until("it to wait for a reboot", || {
        let execution = cloud.execution(job);
        (execution["statusDetails"]["detailsMap"]["until"] == "next-reboot").then_some(())
    });
}

#[test]
fn somebody_elses_reboot_is_waited_for_however_often_the_agent_starts_again() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.configure("report", "progress_interval_seconds = 1");
    device.start();
    next_reboot(&cloud, "v2", &image(System::Good, 2, SIZE));
    waits_for_a_reboot(&cloud, "v2");
    for round in 0..4 {
        let reported = cloud.execution("v2")["versionNumber"].clone();
        if round % 2 == 0 {
            device.kill();
        } else {
            assert!(device.stop().as_secs() < 5);
        }
        device.start();
        // What it says after the start arms the step timer again.
        support::until("a report", || (cloud.execution("v2")["versionNumber"] != reported).then_some(()));
        waits_for_a_reboot(&cloud, "v2");
    }
    assert_eq!((text(&device, "boots"), device.running_slot()), ("A\n".into(), "A".into()));
    device.kill();
    device.power_cycle();
    device.start();
    cloud.outcome("v2").is("SUCCEEDED", "installed");
    assert_eq!((device.running_slot(), device.boot_state()), ("B".into(), "good=B".into()));
    assert!(!support::exists(&device.path("reboots")));
}

#[test]
fn what_waits_for_a_reboot_can_be_canceled_and_the_next_boot_is_that_of_before() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.configure("report", "progress_interval_seconds = 1");
    device.start();
    next_reboot(&cloud, "v2", &image(System::Good, 2, SIZE));
    waits_for_a_reboot(&cloud, "v2");
    cloud.done("CancelJob", json!({"jobId": "v2", "force": "true"}), json!({}));
    support::until("the bootloader to be told", || (device.boot_state() == "good=A").then_some(()));
    device.kill();
    device.power_cycle();
    device.start();
    cloud
        .run("config", &json!({"operation": "update-config", "config": {"a": 1}}))
        .is("SUCCEEDED", "configured");
    assert_eq!((device.running_slot(), device.boot_state()), ("A".into(), "good=A".into()));
}

#[test]
fn a_wait_for_a_reboot_that_takes_too_long_is_undone() {
    let cloud = cloud_with_bucket(&[]);
    let mut device = device(&cloud);
    device.configure("operation", "timeout_seconds = 5");
    device.start();
    next_reboot(&cloud, "v2", &image(System::Good, 2, SIZE));
    let ended = cloud.outcome("v2");
    ended.is("FAILED", "timeout");
    assert!(ended.message.contains("still waiting"), "{ended:?}");
    assert_eq!((device.running_slot(), device.boot_state()), ("A".into(), "good=A".into()));
}
