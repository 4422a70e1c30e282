//! What the style forbids is not there.

use crate::sources::{Source, fail_with, production_lines, root, rust_files, sources};
use crate::tokens::{Token, tokens};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The most lines of production code in one file. More usually holds two ideas.
const MAX_PRODUCTION_LINES: usize = 500;

/// The most lines of a function.
const MAX_FUNCTION_LINES: usize = 80;

/// The most columns of a comment. Tables, code and lines with a link may be longer.
const MAX_COMMENT_COLUMNS: usize = 100;

#[test]
fn only_the_storage_touches_files() {
    let mut problems = Vec::new();
    // `process` maps a page of memory.
    let may = ["storage", "bin", "process"];
    for source in sources().iter().filter(|source| !may.contains(&&*source.module)) {
        for (line, code) in source.code() {
            let touches =
                ["std::fs", "fs::", "File::", "OpenOptions", "tempfile::", "rustix::", "memmap2::"];
            // `NewFile::` is another word.
            let is_word =
                |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric());
            // The clock is read by a system call, too, which touches no file.
            let code = code.replace("rustix::time", "");
            if touches.iter().any(|name| code.match_indices(name).any(|(at, _)| is_word(at))) {
                problems.push(format!("{}:{line}: {}", source.path, code.trim()));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn unsafe_code_stands_where_it_says_why() {
    // A map of the file, a page that a fork wipes, a descriptor that a forked child gives up.
    let known = ["storage/file.rs", "storage/descriptor.rs", "process.rs"];
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !known.contains(&source.path.as_str())) {
        for (line, code) in source.code() {
            let is_word = |at: usize| !code[at + "unsafe".len()..].starts_with("_code");
            if code.match_indices("unsafe").any(|(at, _)| is_word(at))
                || code.contains("allow(unsafe_code")
            {
                problems.push(format!("{}:{line}: {}", source.path, code.trim()));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn no_file_holds_more_than_one_can_read_at_a_time() {
    let mut problems = Vec::new();
    for source in sources() {
        if source.lines.len() > MAX_PRODUCTION_LINES {
            problems.push(format!(
                "{}: {} lines of production code",
                source.path,
                source.lines.len()
            ));
        }
    }
    fail_with(&problems);
}

#[test]
fn nothing_is_left_unfinished_or_hushed() {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let sources = sources();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        for (index, line) in text.lines().enumerate() {
            // In tests, too: a test that is ignored is one that no one runs.
            if ["#[ignore", "#[allow(", "#![allow("]
                .iter()
                .any(|hushed| line.trim_start().starts_with(hushed))
            {
                problems.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    for source in &sources {
        for (line, code) in source.code() {
            if ["todo!(", "unimplemented!(", "dbg!("]
                .iter()
                .any(|unfinished| code.contains(unfinished))
            {
                problems.push(format!("{}:{line}: {}", source.path, code.trim()));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let problems: Vec<_> = sources()
        .iter()
        .filter(|source| {
            !source
                .lines
                .first()
                .is_some_and(|line| line.starts_with("//! ") || line.starts_with("#![doc = "))
        })
        .map(|source| format!("{}: begins without a `//!` comment", source.path))
        .collect();
    fail_with(&problems);
}

/// The modules hold the rest. A name at the root must not be one that programs import from
/// elsewhere beside ours, as `State` is of web frameworks.
#[test]
fn the_root_of_the_crate_has_about_a_dozen_names() {
    let root = fs::read_to_string(root().join("lib.rs")).unwrap();
    let at_the_margin = |statement: &&str| statement.starts_with("\npub use ");
    let text = root.replace("\n\n", "\n");
    let statements = text.split_inclusive(';').filter(at_the_margin);
    let names: Vec<String> = statements
        .flat_map(|statement| {
            let (_, names) = statement.rsplit_once("::{").or(statement.rsplit_once("::")).unwrap();
            let words =
                names.split(|character: char| !character.is_alphanumeric() && character != '_');
            words
                .filter(|word| word.starts_with(char::is_uppercase))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!((8..=12).contains(&names.len()), "{names:?}");
    for foreign in ["State", "Json", "Path", "Query", "Router", "Request", "Response", "Entry"] {
        assert!(!names.iter().any(|name| name == foreign), "`{foreign}` is what others import");
    }
}

/// The functions of `source` by line, with their lengths in lines.
fn functions(source: &Source) -> Vec<(usize, usize, String)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        if pair[0].text != "fn" || !pair[1].is_word() {
            continue;
        }
        let (mut braces, mut brackets) = (0, 0);
        for token in &tokens[index..] {
            match &*token.text {
                "(" | "[" => brackets += 1,
                ")" | "]" => brackets -= 1,
                "{" => braces += 1,
                "}" => braces -= 1,
                // A declaration without a body.
                ";" if braces == 0 && brackets == 0 => break,
                _ => continue,
            }
            if token.text == "}" && braces == 0 {
                found.push((pair[0].line, token.line - pair[0].line + 1, pair[1].text.clone()));
                break;
            }
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let (mut problems, mut looked_at) = (Vec::new(), 0);
    for source in sources() {
        for (line, lines, name) in functions(&source) {
            looked_at += 1;
            if lines > MAX_FUNCTION_LINES {
                problems.push(format!("{}:{line}: `{name}` has {lines} lines", source.path));
            }
        }
    }
    assert!(looked_at > 500, "only {looked_at} functions were found");
    fail_with(&problems);
}

/// The types that `source` defines, without those of traits.
fn type_names(source: &Source) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    let at = |index: usize| tokens.get(index).map_or("", |token: &Token| &token.text);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let defines = match &*token.text {
            "struct" | "enum" | "trait" => true,
            "union" => at(index + 2) == "{",
            // One inside of a trait or of its implementation is indented.
            "type" => source.lines[token.line - 1].starts_with(['t', 'p']),
            _ => false,
        };
        if defines && tokens.get(index + 1).is_some_and(Token::is_word) {
            found.push((token.line, at(index + 1).to_owned()));
        }
    }
    found
}

#[test]
fn the_name_of_a_type_stands_for_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.module != "bin") {
        for (line, name) in type_names(source) {
            places.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    assert!(places.len() > 200, "only {} types were found", places.len());
    let problems: Vec<_> = places
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("`{name}`: {}", places.join(", ")))
        .collect();
    fail_with(&problems);
}

/// The lines of `text` whose comment is too wide.
fn wide_comments(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut wide = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            in_code = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        in_code ^= comment.starts_with("```");
        let may_be = in_code || comment.starts_with('|') || comment.contains("://");
        if line.chars().count() > MAX_COMMENT_COLUMNS && !may_be && comment.contains(' ') {
            wide.push(index + 1);
        }
    }
    wide
}

#[test]
fn comments_are_wrapped() {
    let mut problems = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        let mut files = Vec::new();
        rust_files(&root().parent().unwrap().join(folder), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let lines = wide_comments(&text);
            problems.extend(lines.iter().map(|line| format!("{}:{line}", file.display())));
        }
    }
    fail_with(&problems);
}

/// The lines of each `match` of `source` that has an arm for a table and one for all others.
fn catch_all_table_matches(source: &Source) -> Vec<usize> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for (start, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "match") {
        let (mut depth, mut in_pattern, mut pattern) = (0, false, Vec::new());
        let (mut of_tables, mut catches_all) = (false, false);
        for token in &tokens[start + 1..] {
            match &*token.text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            match &*token.text {
                "{" if depth == 1 && !in_pattern => (in_pattern, pattern) = (true, Vec::new()),
                "=>" if depth == 1 => {
                    let is_table = |three: &[&str]| {
                        three[0] == "Table"
                            && three[1] == "::"
                            && three[2].len() > 1
                            && three[2].chars().all(|letter| letter.is_uppercase() || letter == '_')
                    };
                    of_tables |= pattern.windows(3).any(is_table);
                    catches_all |= pattern.first() == Some(&"_");
                    in_pattern = false;
                }
                // The end of an arm.
                "," | "}" if depth == 1 => (in_pattern, pattern) = (true, Vec::new()),
                "}" if depth == 0 => break,
                text if in_pattern => pattern.push(text),
                _ => {}
            }
        }
        if of_tables && catches_all {
            found.push(token.line);
        }
    }
    found
}

/// A table that is added later would fall into the last arm without a word from the compiler.
#[test]
fn no_match_over_tables_has_an_arm_for_all_others() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines = catch_all_table_matches(&source);
        problems.extend(lines.iter().map(|line| format!("{}:{line}", source.path)));
    }
    fail_with(&problems);
}

#[test]
fn the_laws_of_shape_would_notice() {
    let source = |text: &str| Source {
        path: String::new(),
        module: String::new(),
        lines: production_lines(text),
    };
    let text = "fn a(b: [u8; 3]) -> u8 {\n    let c = \"}\";\n    1\n}\ntrait D { fn e(&self); fn f() {} }\n";
    let found = functions(&source(text));
    assert_eq!(found, [(1, 4, "a".to_owned()), (5, 1, "f".to_owned())]);

    let text = "pub struct A<T>(T);\nimpl Iterator for A {\n    type Item = u8;\n}\nenum B {}\ntype C = u8;\n\
                pub(crate) type D = u8;\n#[cfg(test)]\nmod tests {\n    struct E;\n}\n";
    let names: Vec<_> = type_names(&source(text)).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["A", "B", "C", "D"]);

    let long = "a ".repeat(60);
    let text = format!(
        "// {long}\n/// | {long}\n//! ```\n//! {long}\n//! ```\n    /// {long}\n// https://{long}\n"
    );
    assert_eq!(wide_comments(&text), [1, 6]);

    let text = "match a {\n    Table::STATE => match b { Some(_) => 1, _ => 2 },\n    _ => 3,\n}\n\
                match a {\n    Table::STATE => match b { Some(_) => {} _ => {} }\n    Table::CACHE => {}\n}\n\
                match a { Table::new(b) => 1, _ => 2 }\n";
    assert_eq!(catch_all_table_matches(&source(text)), [1]);
}

/// The B-tree reads redb's private pages and writes one field of its header. The tests in
/// src/btree/redb_layout_tests.rs say that the linked version has the format that it assumes; this
/// one says that no other version is ever linked.
#[test]
fn redb_is_pinned_to_the_version_whose_layout_is_tested() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = fs::read_to_string(root().join("btree/redb_layout_tests.rs")).unwrap();
    let pinned = tests.split("const PINNED: &str = \"").nth(1).unwrap().split('"').next().unwrap();
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    assert!(
        manifest.contains(&format!("\"={pinned}\"")),
        "Cargo.toml must pin redb to \"={pinned}\", the version of src/btree/redb_layout_tests.rs"
    );
    let lock = fs::read_to_string(package.join("Cargo.lock")).unwrap();
    let locked = lock.split("[[package]]").find(|entry| entry.contains("name = \"redb\"\n"));
    assert!(
        locked.is_some_and(|entry| entry.contains(&format!("version = \"{pinned}\"\n"))),
        "Cargo.lock must have redb {pinned}: {locked:?}"
    );
}
