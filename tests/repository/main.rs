//! The repository polices itself: imports run one way, and what the style forbids is not there.

mod documents;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of production code in one file. More usually holds two ideas.
const MAX_PRODUCTION_LINES: usize = 640;

/// The layers of the library from the bottom up. A module imports what lies in the layers
/// below, in its own layer only if siblings may, and nothing from above.
const LAYERS: [(&[&str], Siblings); 11] = [
    (
        &["codec", "error", "clock", "limits", "durability", "tables", "histogram", "observe"],
        Siblings::May,
    ),
    (&["storage"], Siblings::May),
    (&["log", "memtable", "btree"], Siblings::MayNot),
    // The answer of a call, which waits for the log. The engine hands it out.
    (&["pending"], Siblings::May),
    (&["engine"], Siblings::May),
    (&["stores"], Siblings::May),
    // What looks at a whole file or room.
    (&["tools"], Siblings::May),
    (&["room"], Siblings::May),
    // The adapter that makes a room the storage of another crate.
    (&["codlet"], Siblings::May),
    (&["drivers"], Siblings::May),
    // The public modules by store, which only re-export.
    (&["api"], Siblings::May),
];

/// Modules beside the layers, which see what every user of the crate sees.
const BESIDE: [&str; 3] = ["conformance", "fuzzing", "testing"];

#[derive(PartialEq)]
enum Siblings {
    May,
    MayNot,
}

/// A source file without its tests.
struct Source {
    path: String,
    /// The module of the crate that it belongs to: `log` for `log/frame.rs`.
    module: String,
    lines: Vec<String>,
}

impl Source {
    /// The lines without comments, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }
}

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
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
fn test_modules(path: &str, text: &str) -> Vec<String> {
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
fn production_lines(text: &str) -> Vec<String> {
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

fn sources() -> Vec<Source> {
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

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(modules, _)| modules.contains(&module))
}

/// The module that a name at the root of the crate comes from.
fn module_of(name: &str, root: &str) -> Option<String> {
    if layer_of(name).is_some() || BESIDE.contains(&name) {
        return Some(name.to_owned());
    }
    // A re-export: the `pub use module::..` statement that names it.
    root.split(';').find_map(|statement| {
        let (_, exported) = statement.split_once("pub use ")?;
        let (module, names) = exported.split_once("::")?;
        let is_name = |word: &str| word == name;
        names
            .split(|character: char| !character.is_alphanumeric() && character != '_')
            .any(is_name)
            .then(|| module.to_owned())
    })
}

/// The names right behind every `crate::`, those in braces one by one.
fn crate_names(source: &Source) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let code: Vec<_> = source.code().collect();
    for (position, (number, line)) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let following: String = code[position + 1..]
                    .iter()
                    .map(|(_, line)| *line)
                    .collect::<Vec<_>>()
                    .join(" ");
                let group = format!("{group} {following}");
                names.extend(top_level(&group).into_iter().map(|name| (*number, name)));
            } else {
                names.push((*number, first_word(rest)));
            }
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// The first words of the parts of `a::b, c::{d, e}, f};` up to the closing brace.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => part.push(character),
        }
    }
    parts.push(part);
    parts.iter().map(|part| first_word(part)).filter(|name| !name.is_empty()).collect()
}

/// Why `from` may not import `to`, if it may not.
fn objection(from: &str, to: &str) -> Option<&'static str> {
    // The public face re-exports what stands beside the layers.
    if from == to || (from == "api" && BESIDE.contains(&to)) {
        return None;
    }
    let (Some(own), Some(other)) = (layer_of(from), layer_of(to)) else {
        return Some("it stands beside the layers, which do not know it");
    };
    if other > own {
        return Some("it is a layer above");
    }
    (other == own && LAYERS[own].1 == Siblings::MayNot).then_some("these never import each other")
}

fn fail_with(problems: &[String]) {
    let mut report = String::new();
    for problem in problems {
        writeln!(report, "  {problem}").unwrap();
    }
    assert!(problems.is_empty(), "\n{report}");
}

#[test]
fn imports_run_one_way() {
    let root = fs::read_to_string(root().join("lib.rs")).unwrap();
    let mut problems = Vec::new();
    let mut looked_at = 0;
    for source in sources() {
        if ["lib", "bin"].contains(&&*source.module) || BESIDE.contains(&&*source.module) {
            continue;
        }
        assert!(
            layer_of(&source.module).is_some(),
            "{}: give this module a place in the layers of this test",
            source.path
        );
        for (line, name) in crate_names(&source) {
            looked_at += 1;
            let Some(module) = module_of(&name, &root) else {
                problems.push(format!(
                    "{}:{line}: `crate::{name}` comes from nowhere known",
                    source.path
                ));
                continue;
            };
            if let Some(reason) = objection(&source.module, &module) {
                problems.push(format!("{}:{line}: imports {module}: {reason}", source.path));
            }
        }
    }
    assert!(looked_at > 100, "the imports were not found");
    fail_with(&problems);
}

#[test]
fn only_the_stores_know_a_table_by_name() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| layer_of(&source.module) < layer_of("stores")) {
        for (number, line) in source.code() {
            let names = line.split("Table::").skip(1);
            if names.into_iter().any(|name| name.starts_with(|first: char| first.is_uppercase())) {
                problems.push(format!("{}:{number}: names a table of a store", source.path));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn stores_know_of_the_engine_only_its_handle_and_what_it_lends() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.module == "stores") {
        for (name_line, name) in crate_names(source) {
            if ["log", "memtable", "btree", "storage"].contains(&&*name) {
                problems.push(format!("{}:{name_line}: imports {name}", source.path));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn the_rules_of_this_test_would_notice() {
    assert!(objection("log", "memtable").is_some());
    assert!(objection("btree", "log").is_some());
    assert!(objection("storage", "engine").is_some());
    assert!(objection("error", "storage").is_some());
    assert!(objection("engine", "conformance").is_some());
    assert!(objection("engine", "log").is_none());
    assert!(objection("error", "limits").is_none());

    let root = "mod a; pub use pending::Pending; pub use stores::form_token::{A, LookupKey, };";
    assert_eq!(module_of("Pending", root).as_deref(), Some("pending"));
    assert_eq!(module_of("LookupKey", root).as_deref(), Some("stores"));
    assert_eq!(module_of("log", root).as_deref(), Some("log"));
    assert_eq!(module_of("Lookup", root), None);

    let declared = "#[cfg(test)]\nmod tests;\nmod real;\n#[cfg(test)]\npub(crate) mod fake;";
    assert_eq!(test_modules("log/mod.rs", declared), ["log/tests", "log/fake"]);
    assert_eq!(test_modules("a/ops.rs", declared), ["a/ops/tests", "a/ops/fake"]);
    assert_eq!(test_modules("lib.rs", declared), ["tests", "fake"]);

    let text = "use crate::{error::{Error, Result}, log,\n    room::Cloakroom};\nfn f() -> crate::Pending {} // crate::no\n\
                #[cfg(test)]\nmod tests {\n    use crate::stores;\n}\nfn g() { crate::btree::f() }";
    let source =
        Source { path: String::new(), module: String::new(), lines: production_lines(text) };
    let names: Vec<_> = crate_names(&source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["error", "log", "room", "Pending", "btree"]);
}

#[test]
fn only_the_storage_touches_files() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !["storage", "bin"].contains(&&*source.module)) {
        for (line, code) in source.code() {
            let touches =
                ["std::fs", "fs::", "File::", "OpenOptions", "tempfile::", "rustix::", "memmap2::"];
            // `NewFile::` is another word.
            let is_word =
                |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric());
            if touches.iter().any(|name| code.match_indices(name).any(|(at, _)| is_word(at))) {
                problems.push(format!("{}:{line}: {}", source.path, code.trim()));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.path != "storage/file.rs") {
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
            // In tests, too: a test that is ignored is one that nobody runs.
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

/// The B-tree reads redb's private pages and writes one field of its header. The tests in
/// src/btree/redb_layout_tests.rs say that the linked version has the format that it assumes; this
/// one says that no other version is ever linked.
#[test]
fn redb_is_pinned_to_the_version_whose_layout_is_tested() {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
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
