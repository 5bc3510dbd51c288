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
