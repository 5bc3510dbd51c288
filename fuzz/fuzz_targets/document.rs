//! A job document is understood or rejected with a sentence, and neither shows the query of a URL: it is what makes a
//! presigned URL a secret.
#![no_main]

use dispatcher::{Operation, Outcome, Rules};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    for allow_http in [false, true] {
        match Operation::parse(&document, &Rules { allow_http, ..Rules::default() }) {
            Ok(parsed) => {
                for warning in parsed.warnings {
                    assert!(!warning.contains('?'), "{warning}");
                }
                if let Operation::UpdateFirmware(update) = parsed.operation {
                    let said = format!("{} {:?}", update.artifact.url, update.artifact);
                    assert!(!said.contains('?'), "{said}");
                }
            }
            Err(error) => {
                let Outcome { message, .. } = Outcome::from(&error);
                assert!(!message.is_empty());
                // What is expected of a file's name says that there is none in it.
                let message = message.replace("without / ? and", "");
                // Of a checksum what stands before the colon is named, which is a scheme if it is a URL.
                assert!(message.starts_with("checksum: ") || !message.contains('?'), "{message}");
            }
        }
    }
});
