//! Words that the dictionary replaced do not come back.

use crate::sources::{fail_with, root};
use std::fs;
use std::path::{Path, PathBuf};

/// The beginnings of words, and phrases, that docs/glossary.md has another word for.
const OLD_WORDS: [&str; 21] = [
    "whoever",
    "whomever",
    "nobody",
    "vouch",
    "testif",
    "witness",
    "unfile",
    "refile",
    "upkeep",
    "keeper",
    "rehears",
    "side_by_side",
    "side by side",
    "tally",
    "tallies",
    "rests_on",
    "rests on",
    "what became of",
    "long_read",
    "long read",
    "linger",
];

/// The lines of `text` with one of [`OLD_WORDS`] at the beginning of a word.
fn old_words(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for word in OLD_WORDS {
            let begins = |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric());
            let count = line.match_indices(word).filter(|(at, _)| begins(*at)).count();
            found.extend(std::iter::repeat_n((index + 1, word), count));
        }
    }
    found
}

fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_text = |extension: &str| ["rs", "md", "toml"].contains(&extension);
        if path.is_dir() {
            texts(&path, found);
        } else if path.extension().and_then(|name| name.to_str()).is_some_and(is_text) {
            found.push(path);
        }
    }
}

#[test]
fn words_of_the_old_dialect_do_not_occur() {
    let top = root().parent().unwrap().to_path_buf();
    let mut files: Vec<_> =
        ["README.md", "DESIGN.md", "CHANGELOG.md", "SECURITY.md", "Cargo.toml", ".ci/run"]
            .iter()
            .map(|name| top.join(name))
            .collect();
    for folder in ["src", "tests", "docs", "benches/compare/src", "examples", "fuzz/fuzz_targets"] {
        texts(&top.join(folder), &mut files);
    }
    files.retain(|path| !path.ends_with("tests/repository/words.rs"));
    assert!(files.len() > 100, "the files were not found");
    let mut problems = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&top).unwrap().display();
        problems.extend(
            old_words(&text).into_iter().map(|(line, word)| format!("{path}:{line}: {word}")),
        );
    }
    fail_with(&problems);
}

#[test]
fn the_law_of_words_would_notice() {
    let text = "fn rehearse() {}\n// Nobody writes; the beekeeper and a bookkeeper do.\n/// It rests on that.";
    let found = old_words(text);
    assert_eq!(found, [(1, "rehears"), (2, "nobody"), (3, "rests on")]);
}
