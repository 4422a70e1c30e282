//! The source files of the library, with and without their tests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file without its tests.
pub struct Source {
    pub path: String,
    /// The module of the crate that it belongs to: `log` for `log/frame.rs`.
    pub module: String,
    pub lines: Vec<String>,
}

impl Source {
    /// The lines without comments, with their numbers from 1.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }
}

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The paths of the modules in files of their own that `text`, the file at `path`, declares for
/// tests only.
pub fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = match name {
        "mod.rs" | "lib.rs" | "main.rs" => dir.to_owned(),
        _ => format!("{dir}/{}", name.trim_end_matches(".rs")),
    };
    let mut marked = false;
    let mut modules = Vec::new();
    for line in text.lines() {
        let declared = line.split_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
        if let Some(name) = declared.filter(|_| marked) {
            modules.push(format!("{dir}/{name}").trim_start_matches('/').to_owned());
        }
        marked = line == "#[cfg(test)]" || (marked && line.starts_with("#["));
    }
    modules
}

/// Leaves out every inline module that is compiled for tests only.
pub fn production_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut skipping = false;
    let mut marked = false;
    for line in text.lines() {
        if skipping {
            // Formatted code ends a module at the margin where it begins.
            skipping = line != "}";
            continue;
        }
        if marked && line.starts_with("mod ") && line.ends_with('{') {
            lines.pop();
            skipping = true;
            marked = false;
            continue;
        }
        marked = line == "#[cfg(test)]" || (marked && line.starts_with("#["));
        lines.push(line.to_owned());
    }
    assert!(!skipping, "a test module does not end at the margin; run `cargo fmt`");
    lines
}

pub fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    files.sort();
    let files: Vec<(String, String)> = files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            (path, fs::read_to_string(file).unwrap())
        })
        .collect();
    let for_tests: Vec<_> =
        files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_for_tests = |path: &str| {
        let below = |module: &String| {
            path.strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        for_tests.iter().any(below)
    };
    let sources: Vec<_> = files
        .into_iter()
        .filter(|(path, _)| !is_for_tests(path))
        .map(|(path, text)| {
            let first = path.split('/').next().unwrap_or(&path);
            let module = first.trim_end_matches(".rs").to_owned();
            Source { module, lines: production_lines(&text), path }
        })
        .collect();
    assert!(sources.len() > 30, "the source files were not found");
    sources
}

/// Fails with one line for each problem.
#[track_caller]
pub fn fail_with(problems: &[String]) {
    let mut report = String::new();
    for problem in problems {
        writeln!(report, "  {problem}").unwrap();
    }
    assert!(problems.is_empty(), "\n{report}");
}
