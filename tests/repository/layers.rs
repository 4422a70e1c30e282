//! Imports run one way: between the layers of the library, and between the files of a folder.

use crate::sources::{Source, fail_with, production_lines, sources, test_modules};
use crate::tokens::{Mention, mentions, tokens};
use std::collections::{BTreeMap, BTreeSet};

/// How many files may stand in a cycle of imports with others. May only fall.
const MAX_FILES_IN_CYCLES: usize = 5;

/// The layers of the library from the bottom up. A module imports what lies in the layers
/// below, in its own layer only if siblings may, and nothing from above.
const LAYERS: [(&[&str], Siblings); 11] = [
    (
        &[
            "codec",
            "error",
            "clock",
            "limits",
            "durability",
            "tables",
            "histogram",
            "observe",
            "fault",
            "sync",
            "process",
            "unique",
        ],
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

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(modules, _)| modules.contains(&module))
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

/// The files of the library, and what each of them imports.
struct Graph {
    /// By module: `log::frame` for `log/frame.rs`, the empty path for `lib.rs`.
    files: BTreeMap<Vec<String>, File>,
}

struct File {
    source: Source,
    mentions: Vec<Mention>,
    /// What each name means that the file imports or exports.
    names: BTreeMap<String, Vec<String>>,
    /// The modules of which it imports everything.
    globs: Vec<Vec<String>>,
}

fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

impl Graph {
    fn new(sources: Vec<Source>) -> Self {
        let sources = sources.into_iter().filter(|source| source.module != "bin");
        let files = sources.map(|source| {
            let mentions = mentions(&tokens(&source));
            let (names, globs) = (BTreeMap::new(), Vec::new());
            (module_path(&source.path), File { source, mentions, names, globs })
        });
        let mut graph = Self { files: files.collect() };
        let modules: Vec<_> = graph.files.keys().cloned().collect();
        for module in modules {
            let (mut names, mut globs) = (BTreeMap::new(), Vec::new());
            for import in graph.files[&module].mentions.iter().filter(|found| found.is_import) {
                let Some(mut path) = graph.absolute(&module, &import.path) else { continue };
                let name = import.alias.as_ref().or(path.last()).cloned().unwrap_or_default();
                if name == "*" {
                    path.pop();
                    globs.push(path);
                } else if path[..path.len() - 1] != module[..] || name != path[path.len() - 1] {
                    names.insert(name, path);
                }
            }
            let file = graph.files.get_mut(&module).unwrap();
            (file.names, file.globs) = (names, globs);
        }
        graph
    }

    /// A path in the file of `module` from the root of the crate, or nothing if it leads out of
    /// the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let mut from = module.to_vec();
        match &**first {
            "crate" => from.clear(),
            "self" => {}
            "super" => {
                from.pop();
                while rest.first().is_some_and(|next| next == "super") {
                    from.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                let child: Vec<_> = module.iter().chain([first]).cloned().collect();
                if let Some(imported) = self.files[module].names.get(name) {
                    from = imported.clone();
                } else if self.files.contains_key(&child) {
                    from = child;
                } else {
                    return None;
                }
            }
        }
        from.extend(rest.iter().cloned());
        Some(from)
    }

    /// The module whose file defines what the absolute `path` names, behind all re-exports, and
    /// whether the path ends at the module itself.
    fn definer(&self, path: &[String], depth: usize) -> (Vec<String>, bool) {
        let mut module: Vec<String> = Vec::new();
        for (index, name) in path.iter().enumerate() {
            let child: Vec<_> = module.iter().chain([name]).cloned().collect();
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let file = &self.files[&module];
            if let Some(target) = file.names.get(name).filter(|_| depth < 9) {
                let target: Vec<_> = target.iter().chain(&path[index + 1..]).cloned().collect();
                return self.definer(&target, depth + 1);
            }
            return (module, false);
        }
        (module, true)
    }

    /// The modules whose definitions `module` uses, with the line of the first use.
    fn uses(&self, module: &[String]) -> BTreeMap<Vec<String>, usize> {
        let file = &self.files[module];
        let mut uses = BTreeMap::new();
        // A name that a file re-exports is used by those who import it from there.
        let lines = &file.source.lines;
        let is_re_export = |found: &Mention| {
            let before = lines[..found.line].iter().rev();
            let statement = before.take_while(|line| !line.ends_with(';')).last();
            let own = &lines[found.line - 1];
            [Some(own), statement].iter().flatten().any(|line| line.trim_start().starts_with("pub"))
        };
        for found in &file.mentions {
            if found.is_import && is_re_export(found) {
                continue;
            }
            let Some(path) = self.absolute(module, &found.path) else { continue };
            let (definer, is_module) = self.definer(&path, 0);
            // To import a module uses nothing yet.
            if definer != module && !(found.is_import && is_module) {
                uses.entry(definer).or_insert(found.line);
            }
        }
        uses
    }

    /// Each group of files that reach one another.
    fn cycles(&self) -> Vec<Vec<&str>> {
        let edges: BTreeMap<&Vec<String>, Vec<Vec<String>>> = self
            .files
            .keys()
            .map(|module| (module, self.uses(module).into_keys().collect()))
            .collect();
        let reached: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = edges
            .keys()
            .map(|&from| {
                let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
                while let Some(module) = open.pop() {
                    open.extend(edges[module].iter().filter(|to| seen.insert(*to)));
                }
                (from, seen)
            })
            .collect();
        let mut groups: BTreeMap<&Vec<String>, Vec<&str>> = BTreeMap::new();
        for (&module, seen) in reached.iter().filter(|(module, seen)| seen.contains(*module)) {
            let group = seen.iter().find(|other| reached[**other].contains(module)).unwrap();
            groups.entry(group).or_default().push(&self.files[module].source.path);
        }
        groups.into_values().collect()
    }
}

#[test]
fn imports_run_one_way() {
    let graph = Graph::new(sources());
    let (mut problems, mut looked_at) = (Vec::new(), 0);
    for (module, file) in &graph.files {
        let own = &file.source.module;
        if own == "lib" || BESIDE.contains(&&**own) {
            continue;
        }
        let path = &file.source.path;
        assert!(layer_of(own).is_some(), "{path}: give this module a place in the layers");
        for found in &file.mentions {
            let Some(absolute) = graph.absolute(module, &found.path) else { continue };
            looked_at += 1;
            let (definer, _) = graph.definer(&absolute, 0);
            // As it is written, and where it leads.
            let written = absolute.first().filter(|name| layer_of(name).is_some());
            for other in definer.first().into_iter().chain(written).collect::<BTreeSet<_>>() {
                if let Some(reason) = objection(own, other) {
                    let line = found.line;
                    problems.push(format!("{path}:{line}: imports {other}: {reason}"));
                }
            }
            let forbidden = ["log", "memtable", "btree", "storage"];
            if own == "stores" && absolute.first().is_some_and(|to| forbidden.contains(&&**to)) {
                problems.push(format!(
                    "{path}:{}: stores know the engine's handle only, not {}",
                    found.line,
                    absolute.join("::")
                ));
            }
        }
    }
    assert!(looked_at > 300, "the imports were not found");
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
fn no_files_import_each_other_in_a_circle() {
    let graph = Graph::new(sources());
    let cycles = graph.cycles();
    let files: usize = cycles.iter().map(Vec::len).sum();
    let imports = |cycle: &Vec<&str>| -> Vec<String> {
        let inside = |module: &Vec<String>| cycle.contains(&&*graph.files[module].source.path);
        let modules = graph.files.keys().filter(|module| inside(module));
        modules
            .flat_map(|module| {
                let path = &graph.files[module].source.path;
                let uses = graph.uses(module).into_iter().filter(|(used, _)| inside(used));
                uses.map(move |(used, line)| format!("{path}:{line} uses {}", used.join("::")))
            })
            .collect()
    };
    assert!(
        files <= MAX_FILES_IN_CYCLES,
        "{files} files of {MAX_FILES_IN_CYCLES} in cycles:\n  {}",
        cycles.iter().map(|cycle| imports(cycle).join("\n  ")).collect::<Vec<_>>().join("\n\n  ")
    );
}

fn written(files: &[(&str, &str)]) -> Graph {
    let sources = files.iter().map(|(path, text)| {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Source { path: (*path).to_owned(), module, lines: production_lines(text) }
    });
    Graph::new(sources.collect())
}

#[test]
fn the_laws_of_imports_would_notice() {
    assert!(objection("log", "memtable").is_some());
    assert!(objection("btree", "log").is_some());
    assert!(objection("storage", "engine").is_some());
    assert!(objection("error", "storage").is_some());
    assert!(objection("engine", "conformance").is_some());
    assert!(objection("engine", "log").is_none());
    assert!(objection("error", "limits").is_none());

    let declared = "#[cfg(test)]\nmod tests;\nmod real;\n#[cfg(test)]\npub(crate) mod fake;";
    assert_eq!(test_modules("log/mod.rs", declared), ["log/tests", "log/fake"]);
    assert_eq!(test_modules("a/ops.rs", declared), ["a/ops/tests", "a/ops/fake"]);
    assert_eq!(test_modules("lib.rs", declared), ["tests", "fake"]);

    // Through `super::`, a re-export, an imported module and a path in the middle of code.
    let graph = written(&[
        ("lib.rs", "mod a;\nmod b;\npub use b::Other;\n"),
        ("a/mod.rs", "mod one;\nmod two;\nmod three;\npub use one::One;\nstruct Here;"),
        ("a/one.rs", "use super::three;\nfn f() -> three::Three {}\nstruct One;"),
        ("a/two.rs", "use super::{One, Here};\n#[cfg(test)]\nmod tests {\n    use crate::no;\n}\n"),
        ("a/three.rs", "fn f() { crate::a::two::g(crate::Other) }\nstruct Three;"),
        ("b.rs", "use crate::a::One as Two;\nstruct Other;"),
    ]);
    let uses = |path: &str| -> Vec<String> {
        graph.uses(&module_path(path)).into_keys().map(|to| to.join("::")).collect()
    };
    assert_eq!(uses("a/mod.rs"), [""; 0]);
    assert_eq!(uses("a/one.rs"), ["a::three"]);
    assert_eq!(uses("a/two.rs"), ["a", "a::one"]);
    assert_eq!(uses("a/three.rs"), ["a::two", "b"]);
    assert_eq!(uses("b.rs"), ["a::one"]);
    assert_eq!(graph.cycles(), [vec!["a/one.rs", "a/three.rs", "a/two.rs", "b.rs"]]);
}
