#![allow(clippy::unwrap_used, reason = "helpers of tests")]
//! Every document of `test-fixtures/documents` is understood, or rejected, as its folder says.

use std::path::PathBuf;

use dispatcher::{Operation, Rules};

fn documents(folder: &str) -> Vec<(PathBuf, serde_json::Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-fixtures/documents").join(folder);
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()))
        .collect();
    assert!(files.len() > 5);
    files
}

#[test]
fn valid_documents_are_understood() {
    for (path, document) in documents("valid") {
        if let Err(error) = Operation::parse(&document, &Rules::default()) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn invalid_documents_are_rejected_with_a_reason() {
    for (path, document) in documents("invalid") {
        let Err(error) = Operation::parse(&document, &Rules::default()) else { panic!("{}", path.display()) };
        assert!(["invalid-document", "unknown-operation"].contains(&error.reason()), "{error}");
    }
}

/// The service puts a signed URL wherever a placeholder stands, also where it does not belong.
#[test]
fn a_signed_url_in_the_wrong_place_is_not_repeated() {
    // No version is as long as what a service signs.
    let signed = format!("https://s3.example.com/fw?secret={}", "s".repeat(300));
    let signed = signed.as_str();
    let good = serde_json::json!({
        "operation": "update-firmware", "url": "https://example.com/fw", "version": "2",
        "checksum": format!("sha256:{}", "00".repeat(32)), "size": 1, "activate": "now",
        "timeoutSeconds": 1,
        "release": {"payload": "", "payloadType": "", "signatures": []},
    });
    let documents = good.as_object().unwrap().keys().map(|member| {
        let mut document = good.clone();
        document[member] = signed.into();
        document
    });
    let in_release = ["payload", "payloadType", "signatures"].map(|member| {
        let mut document = good.clone();
        document["release"][member] = signed.into();
        document
    });
    let others = [
        serde_json::json!({"operation": "update-config", "config": signed}),
        serde_json::json!({"operation": "update-config", "config": {}, "mode": signed}),
        serde_json::json!({"operation": "update-config", "config": {}, "file": signed}),
        serde_json::json!({"operation": "reboot", "delay": signed}),
        serde_json::json!({"operation": "reboot", signed: 1}),
        serde_json::json!(signed),
        serde_json::json!([signed]),
    ];
    for document in documents.chain(in_release).chain(others) {
        let said = match Operation::parse(&document, &Rules::default()) {
            Ok(parsed) => format!("{:?} {:?}", parsed.operation, parsed.warnings),
            Err(error) => error.to_string(),
        };
        assert!(!said.contains("secret"), "{document}: {said}");
    }
}
