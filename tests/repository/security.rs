//! Each promise of SECURITY.md names the tests that keep it, and they exist.

use crate::sources::{fail_with, root, rust_files};
use std::fs;

#[test]
fn the_tests_that_keep_the_promises_of_security_exist() {
    let top = root().parent().unwrap().to_path_buf();
    let text = fs::read_to_string(top.join("SECURITY.md")).unwrap();
    let mut files = Vec::new();
    rust_files(&top.join("src"), &mut files);
    rust_files(&top.join("tests"), &mut files);
    let sources: Vec<_> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut problems = Vec::new();
    let mut promises = 0;
    for line in text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(promise), Some(tests)) = (cells.first(), cells.last()) else { continue };
        if *tests == "kept by" {
            continue;
        }
        promises += 1;
        if tests.is_empty() {
            problems.push(format!("no test keeps: {promise}"));
        }
        for test in tests.split(", ").filter(|test| !test.is_empty()) {
            let name = test.trim_matches('`');
            let declared = format!("fn {name}(");
            if !sources.iter().any(|source| source.contains(&declared)) {
                problems.push(format!("there is no test {name}, which keeps: {promise}"));
            }
        }
    }
    assert!(promises >= 20, "the tables were not read");
    fail_with(&problems);
}
