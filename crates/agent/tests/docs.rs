//! What the documents say of the sources is so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust file below, with the names that its module may go by: its own, and its folders'.
fn sources(folder: &Path, found: &mut Vec<(Vec<String>, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let names = path.with_extension("");
            let names = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            found.push((names, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Between backquotes: `module::name`.
fn tests_named_in(text: &str) -> Vec<(&str, &str)> {
    let is_name =
        |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let spans = text.split('`').skip(1).step_by(2);
    spans
        .filter_map(|span| span.split_once("::"))
        .filter(|(module, name)| is_name(module) && is_name(name))
        .collect()
}

#[test]
fn every_test_that_security_md_names_is_there() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    let named = tests_named_in(&text);
    assert!(named.len() > 50, "{}", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(_, name)| *name != "test_name")
        .filter(|(module, name)| {
            let has = |source: &str| {
                let at = source.find(&format!("fn {name}("));
                at.is_some_and(|at| source[..at].trim_end_matches("async ").trim_end().ends_with("test]"))
            };
            !found.iter().any(|(names, source)| names.iter().any(|n| n == module) && has(source))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A claim without a test is one that nobody checks: each row has one, or says that the attack does not apply.
#[test]
fn every_row_of_an_attack_in_security_md_names_a_test() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let tables = text.split("\n## ").filter(|part| part.contains("Shown by |"));
    let mut rows = 0;
    for row in tables.flat_map(|table| table.lines()).filter(|line| line.starts_with("| ")) {
        if row.ends_with("Shown by |") {
            continue;
        }
        rows += 1;
        let excused = row.contains("does not apply") || row.contains("there are none");
        assert_eq!(tests_named_in(row).is_empty(), excused, "{row}");
    }
    assert!(rows > 30, "{rows}");
}
