//! A configuration is understood, and can be shown, or the error names the file and a key or line. The two modules are
//! the agent's own, by way of links: it has no library.
#![no_main]
#![allow(dead_code)]

mod config;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let file = FOLDER.path().join("fleethand.toml");
    std::fs::write(&file, bytes).unwrap();
    let said = match config::Settings::load(&file) {
        Ok(settings) => settings.to_string(),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("fleethand.toml"), "{said}");
            said
        }
    };
    assert!(!said.is_empty());
});
