//! The documents agree with the code and with one another.

use cloakroom::Cloakroom;
use cloakroom::cache::CacheStore;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest line of prose. Lines of tables and of code may be longer, and so may a single word.
const MAX_COLUMNS: usize = 110;

/// A page: its path from the root of the repository, and its text.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path)).unwrap();
        Self { path, text }
    }

    /// The lines outside of code blocks, with their numbers from 1.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_code = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            (!in_code && !fence).then_some((index + 1, line))
        })
    }

    /// What stands between the heading `title` and the next heading of its level.
    fn section(&self, title: &str) -> &str {
        let (_, rest) = self.text.split_once(&format!("\n## {title}\n")).unwrap();
        rest.split("\n## ").next().unwrap()
    }

    /// The anchors of the headings, as they are linked to.
    fn anchors(&self) -> BTreeSet<String> {
        self.prose()
            .filter(|(_, line)| line.starts_with('#'))
            .map(|(_, line)| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept =
                    |character: &char| character.is_alphanumeric() || " -_".contains(*character);
                title.chars().filter(kept).collect::<String>().replace(' ', "-")
            })
            .collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages at the root and in `docs`.
fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(Document::read(path.strip_prefix(root()).unwrap()));
            }
        }
    }
    assert!(found.len() >= 9, "the documents were not found");
    found
}

/// What stands between backticks in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of each row of the tables in `text`.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

fn fail_with(problems: &[String]) {
    assert!(problems.is_empty(), "\n  {}\n", problems.join("\n  "));
}

/// A table stands once, in docs/tables. A page shows it between `<!-- table: NAME -->` and
/// `<!-- end table -->`, and rustdoc includes the same file.
#[test]
fn every_table_of_docs_tables_is_shown_in_one_page_as_it_is() {
    let mut missing: BTreeSet<String> = fs::read_dir(root().join("docs/tables"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut problems = Vec::new();
    for document in documents() {
        let path = document.path.display();
        for shown in document.text.split("<!-- table: ").skip(1) {
            let (name, rest) = shown.split_once(" -->\n").unwrap();
            let shown = rest.split("<!-- end table -->").next().unwrap();
            if !missing.remove(name) {
                problems.push(format!("{path}: the table {name} is nowhere, or shown twice"));
                continue;
            }
            let source = Document::read(format!("docs/tables/{name}.md"));
            if source.text.trim() != shown.trim() {
                let source = source.path.display();
                problems.push(format!("{path}: the table {name} is not that of {source}; copy it"));
            }
        }
    }
    problems.extend(missing.iter().map(|name| format!("docs/tables/{name}.md is in no page")));
    fail_with(&problems);
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for document in documents() {
        let folder = document.path.parent().unwrap_or(Path::new(""));
        for (number, line) in document.prose() {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let path = if file.is_empty() { document.path.clone() } else { folder.join(file) };
                let leads = root().join(&path).is_file()
                    && (anchor.is_empty() || Document::read(path).anchors().contains(anchor));
                if !leads {
                    let path = document.path.display();
                    problems.push(format!("{path}:{number}: {link} leads nowhere"));
                }
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn source_files_that_the_documents_name_exist() {
    let mut problems = Vec::new();
    for document in documents() {
        for (number, line) in document.prose() {
            for path in quoted(line).filter(|path| path.starts_with("src/")) {
                let path = path.split("/<").next().unwrap();
                if !root().join(path).exists() {
                    problems
                        .push(format!("{}:{number}: there is no {path}", document.path.display()));
                }
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn the_entry_names_every_module() {
    let design = Document::read("DESIGN.md");
    let named: BTreeSet<_> = rows(design.section("Shape"))
        .flat_map(|cells| quoted(cells[0]).map(str::to_owned).collect::<Vec<_>>())
        .map(|name| name.split('/').next().unwrap().to_owned())
        .collect();
    let modules = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let modules = modules.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let missing: Vec<_> = modules
        .filter(|name| !["lib", "bin"].contains(&&**name) && !named.contains(name))
        .collect();
    assert!(missing.is_empty(), "DESIGN.md does not say what these promise: {missing:?}");
}

#[test]
fn prose_is_wrapped() {
    let mut problems = Vec::new();
    for document in documents() {
        for (number, line) in document.prose() {
            let is_prose = !line.trim_start().starts_with(['|', '[']);
            let columns = line.chars().count();
            if is_prose && columns > MAX_COLUMNS {
                let path = document.path.display();
                problems.push(format!("{path}:{number} has {columns} columns of {MAX_COLUMNS}"));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn the_entry_stays_short_and_the_glossary_alphabetical() {
    assert!(Document::read("DESIGN.md").text.lines().count() <= 300);
    let glossary = Document::read("docs/glossary.md");
    let words: Vec<_> = glossary
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split("**").next())
        .map(|word| word.to_lowercase().replace('-', ""))
        .collect();
    assert!(words.len() >= 40, "{words:?}");
    assert!(words.is_sorted(), "{words:?}");
}

#[test]
fn the_tables_in_the_documents_are_those_of_a_room() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let tables: Vec<_> = room
        .tables()
        .unwrap()
        .into_iter()
        .map(|table| (table.number.to_string(), format!("`{}`", table.name)))
        .collect();
    let stores = Document::read("docs/stores.md");
    let listed: Vec<_> = rows(stores.section("Tables"))
        .skip(2)
        .map(|cells| (cells[0].to_owned(), cells[1].to_owned()))
        .collect();
    assert_eq!(listed, tables, "docs/stores.md (left) and the room (right)");
}

#[test]
fn the_derived_tables_in_the_documents_are_those_of_a_room() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let tables = room.tables().unwrap().into_iter().filter(|table| table.is_derived);
    let numbers: Vec<_> = tables.map(|table| table.number.to_string()).collect();
    let (last, others) = numbers.split_last().unwrap();
    let listed = format!("{} and {last} are *derived*", others.join(", "));
    assert!(Document::read("docs/stores.md").text.replace('\n', " ").contains(&listed), "{listed}");
    let listed = format!("derived tables ({})", numbers.join(", "));
    assert!(Document::read("docs/export.md").text.replace('\n', " ").contains(&listed), "{listed}");
}

#[test]
fn the_statistics_in_the_documents_are_those_of_a_room() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    room.cache::<u8>("a").set("b", &1, 60).wait().unwrap();
    let stats = serde_json::to_value(room.stats().unwrap()).unwrap();
    let members = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut expected = members(&stats);
    expected.extend(members(&stats["engine"]));
    expected.extend(members(&stats["stores"][0]));
    let operations = Document::read("docs/operations.md");
    let listed: BTreeSet<_> = rows(operations.section("Statistics"))
        .skip(1)
        .flat_map(|cells| quoted(cells[0]).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(listed, expected, "docs/operations.md (left) and the room (right)");
}

#[test]
fn the_methods_in_the_readme_exist() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut code = String::new();
    sources(&root().join("src/stores"), &mut code);
    let readme = Document::read("README.md");
    let mut problems = Vec::new();
    let mut looked_at = 0;
    for cells in rows(readme.section("The stores")).skip(2) {
        let is_method =
            |name: &&str| name.chars().all(|letter| letter.is_lowercase() || letter == '_');
        for method in quoted(cells[1]).filter(is_method) {
            looked_at += 1;
            if !code.contains(&format!("fn {method}(")) {
                problems.push(format!("README.md: no store has a method `{method}`"));
            }
        }
    }
    assert!(looked_at > 40, "only {looked_at} methods were found");
    fail_with(&problems);
}

/// The names of the packages that the sections of Cargo.toml with `dependencies` in their name
/// list.
fn dependencies() -> BTreeSet<String> {
    let manifest = Document::read("Cargo.toml");
    let mut listed = false;
    let mut names = BTreeSet::new();
    for line in manifest.text.lines() {
        if line.starts_with('[') {
            listed = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (listed, line.split_once('=')) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn every_dependency_has_its_reason() {
    let operations = Document::read("docs/operations.md");
    let listed: BTreeSet<_> = rows(operations.section("Dependencies"))
        .skip(2)
        .flat_map(|cells| {
            let names = cells[0].split(['(', '`']).next().unwrap();
            names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(listed, dependencies(), "docs/operations.md (left) and Cargo.toml (right)");
}

#[test]
fn every_environment_variable_of_the_tests_is_listed() {
    fn variables(text: &str, names: &mut BTreeSet<String>) {
        for found in text.split("CLOAKROOM_").skip(1) {
            let is_name = |letter: &char| letter.is_ascii_uppercase() || *letter == '_';
            let name: String = found.chars().take_while(is_name).collect();
            if !name.is_empty() {
                names.insert(format!("CLOAKROOM_{name}"));
            }
        }
    }
    fn walk(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("documents.rs")
            {
                variables(&fs::read_to_string(path).unwrap(), names);
            }
        }
    }
    let (mut used, mut listed) = (BTreeSet::new(), BTreeSet::new());
    walk(&root().join("tests"), &mut used);
    variables(&fs::read_to_string(root().join("src/sync/explore.rs")).unwrap(), &mut used);
    let operations = Document::read("docs/operations.md");
    variables(operations.section("Testing"), &mut listed);
    assert_eq!(listed, used, "docs/operations.md (left) and the tests (right)");
}
