//! Whatever is in the journal's place: an entry that survives being written again, or a file that is set aside.
#![no_main]

use std::path::Path;

use device::{Boot, CommandSpec, HostDevice, HostSettings, RebootSpec};
use dispatcher::{Dispatcher, Entry, Journal, Rules, after_start, on_offer};
use downloader::Downloader;
use libfuzzer_sys::fuzz_target;

fn open(folder: &Path) -> (Dispatcher<HostDevice>, Option<String>) {
    let timeout = std::time::Duration::from_secs(1);
    let command = CommandSpec { program: "true".into(), arguments: Vec::new(), timeout };
    let device = HostDevice::new(HostSettings {
        state_directory: folder.to_owned(),
        firmware: None,
        configs: Default::default(),
        reboot: RebootSpec { command, boot_id_file: folder.join("boot-id") },
        hook: None,
        trust: None,
        compatible: Vec::new(),
    });
    let downloader = Downloader::new(downloader::Settings::default());
    let journal = Journal::in_folder(folder);
    Dispatcher::open(device, downloader, Rules::default(), Default::default(), journal).unwrap()
}

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("journal.json"), bytes).unwrap();
    let (mut dispatcher, warning) = open(folder.path());
    let entry: Option<Entry> = dispatcher.entry().cloned();
    match (entry, warning) {
        (Some(entry), None) => {
            after_start(Some(&entry), &Boot { id: "boot".into(), slot: Some("A".into()) });
            on_offer(Some(&entry), &entry.execution, true, Some("earlier"), "boot");
            dispatcher.accept(&entry.execution).unwrap();
            assert!(dispatcher.entry().is_some_and(|accepted| accepted.attempts >= entry.attempts));
            assert_eq!(open(folder.path()).0.entry(), dispatcher.entry());
        }
        (None, Some(_)) => assert_eq!(std::fs::read(file("journal.json.unreadable")).unwrap(), bytes),
        (None, None) => assert!(bytes.iter().all(|byte| *byte == 0)),
        (Some(_), Some(warning)) => panic!("an entry that was set aside: {warning}"),
    }
});
