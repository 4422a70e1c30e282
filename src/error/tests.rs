//! Each error says what failed, where, and what to do, and no two of these contradict each other.

use super::*;

#[test]
fn a_cause_gives_no_advice_that_the_error_around_it_contradicts() {
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let cause = Error::io("flushing the B-tree", full()).into_cause();
    assert_eq!(cause.kind(), io::ErrorKind::StorageFull);
    let source = Arc::new(cause);
    for error in [Error::OutcomeUnknown { source: Arc::clone(&source) }, Error::Poisoned { source }]
    {
        let text = error.to_string();
        assert!(text.contains("flushing the B-tree"), "{text}");
        assert!(text.contains("reopen the file"), "{text}");
        assert!(!text.contains("goes on by itself") && !text.contains("try again"), "{text}");
    }
    let cause = Error::io("flushing", io::Error::from(io::ErrorKind::BrokenPipe)).into_cause();
    assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
    assert!(cause.to_string().starts_with("flushing: "), "{cause}");
}

#[test]
fn a_file_that_ends_too_early_is_damaged_and_not_a_failure_of_the_system() {
    let error = Error::reading("log segment 1", io::ErrorKind::UnexpectedEof.into());
    assert!(
        matches!(&error, Error::Corrupted { location, .. } if location == "log segment 1"),
        "{error}"
    );
    let error = Error::reading("log segment 1", io::Error::other("a bad cable"));
    assert_eq!(error.to_string(), "reading log segment 1: a bad cable");
}

fn io_error(text: &str) -> Arc<io::Error> {
    Arc::new(io::Error::other(text.to_owned()))
}

/// What the text of an error must have: each of its fields, and what to do or what state is left.
fn parts(error: &Error) -> (&'static str, Vec<String>) {
    let shown = |path: &PathBuf| path.display().to_string();
    match error {
        Error::Locked { path } => ("Locked", vec![shown(path), "close that one".into()]),
        Error::NotCloakroom { path, reason } => {
            ("NotCloakroom", vec![shown(path), reason.clone(), "nothing was written".into()])
        }
        Error::DifferentRoom { path } => {
            ("DifferentRoom", vec![shown(path), "choose another path".into()])
        }
        Error::UnsupportedVersion { path, found, supported } => (
            "UnsupportedVersion",
            vec![shown(path), found.to_string(), supported.to_string(), "newer cloakroom".into()],
        ),
        Error::OutdatedVersion { path, found, current } => (
            "OutdatedVersion",
            vec![shown(path), found.to_string(), current.to_string(), "once for writing".into()],
        ),
        Error::VersionTooOld { path, found, oldest } => (
            "VersionTooOld",
            vec![shown(path), found.to_string(), oldest.to_string(), "earlier cloakroom".into()],
        ),
        Error::Corrupted { location, detail } => {
            ("Corrupted", vec![location.clone(), detail.clone(), "salvage".into()])
        }
        Error::Io { context, source } => ("Io", vec![context.clone(), source.to_string()]),
        Error::DiskFull { context } => {
            ("DiskFull", vec![context.clone(), "free some space".into()])
        }
        Error::LogFull { waited, retry_after, is_applied, cause } => {
            let advice = match is_applied {
                true => "do not repeat it".to_owned(),
                false => format!("try it again in {retry_after:.1?}"),
            };
            ("LogFull", vec![format!("{waited:.1?}"), cause.clone(), advice])
        }
        Error::Unlinked { path } => ("Unlinked", vec![shown(path), "back the room up".into()]),
        Error::Forked => ("Forked", vec!["open rooms after the fork".into()]),
        Error::TooLarge { what, size, limit } => (
            "TooLarge",
            vec![(*what).into(), size.to_string(), limit.to_string(), "nothing was applied".into()],
        ),
        Error::AlreadyExists => ("AlreadyExists", vec!["use another key".into()]),
        Error::NotEmpty { table } => ("NotEmpty", vec![(*table).into(), "into a new file".into()]),
        Error::Import { line, detail, source: _ } => {
            ("Import", vec![format!("line {line}"), detail.clone()])
        }
        Error::InvalidConfig(why) => ("InvalidConfig", vec![why.clone()]),
        Error::Encode(why) => ("Encode", vec![why.clone()]),
        Error::OutcomeUnknown { source } => {
            ("OutcomeUnknown", vec![source.to_string(), "outcome unknown".into()])
        }
        Error::Poisoned { source } => ("Poisoned", vec![source.to_string()]),
        Error::Unanswered => ("Unanswered", vec!["read it back and check".into()]),
        Error::Closed => ("Closed", vec!["open it again".into()]),
        Error::ReadOnly => ("ReadOnly", vec!["open it for writing".into()]),
        Error::NestedTransaction => ("NestedTransaction", vec!["passed to its closure".into()]),
        Error::ForeignTransaction => {
            ("ForeignTransaction", vec!["use a handle of the room".into()])
        }
        Error::State(refusal) => ("State", vec![refusal.to_string()]),
    }
}

fn log_full(is_applied: bool) -> Error {
    let (waited, retry_after) = (Duration::from_millis(1_234), Duration::from_millis(5));
    Error::LogFull { waited, retry_after, is_applied, cause: "<cause>".to_owned() }
}

/// One of each, with fields that are told apart.
fn one_of_each() -> Vec<Error> {
    let path = || PathBuf::from("/somewhere/edge.cloak");
    let text = |what: &str| format!("<{what}>");
    vec![
        Error::Locked { path: path() },
        Error::NotCloakroom { path: path(), reason: text("reason") },
        Error::DifferentRoom { path: path() },
        Error::UnsupportedVersion { path: path(), found: 71, supported: 72 },
        Error::OutdatedVersion { path: path(), found: 71, current: 72 },
        Error::VersionTooOld { path: path(), found: 71, oldest: 72 },
        Error::corrupted(text("location"), text("detail")),
        Error::Io { context: text("context"), source: io_error("<source>") },
        Error::DiskFull { context: text("context") },
        log_full(false),
        log_full(true),
        Error::Unlinked { path: path() },
        Error::Forked,
        Error::TooLarge { what: "<what>", size: 71, limit: 72 },
        Error::AlreadyExists,
        Error::NotEmpty { table: "<table>" },
        Error::Import { line: 71, detail: text("detail"), source: None },
        Error::InvalidConfig(text("why")),
        Error::Encode(text("why")),
        Error::OutcomeUnknown { source: io_error("<source>") },
        Error::Poisoned { source: io_error("<source>") },
        Error::Unanswered,
        Error::Closed,
        Error::ReadOnly,
        Error::NestedTransaction,
        Error::ForeignTransaction,
        Error::State(Box::new(StateError::NotFound)),
    ]
}

#[test]
fn each_error_names_its_fields_and_says_what_to_do_or_what_is_left() {
    let mut names = Vec::new();
    for error in one_of_each() {
        let (name, parts) = parts(&error);
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(&part), "{name} lacks {part:?}: {text}");
        }
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    let declared = include_str!("../error.rs").split("pub enum Error {").nth(1).unwrap();
    let declared = declared.split("\n}\n").next().unwrap().matches("#[error(").count();
    assert_eq!(names.len(), declared, "an error is missing here: {names:?}");
}

#[test]
fn an_error_keeps_its_source() {
    use std::error::Error as _;
    for error in one_of_each() {
        let has_source = matches!(
            error,
            Error::Io { .. } | Error::OutcomeUnknown { .. } | Error::Poisoned { .. }
        );
        assert_eq!(error.source().is_some(), has_source, "{error:?}");
    }
    let cause = Some(Arc::new(Error::Closed));
    let import = Error::Import { line: 1, detail: "<detail>".into(), source: cause };
    assert!(import.source().is_some());
}

/// After which errors the file has to be opened again, and after which that is wrong.
#[test]
fn only_who_has_to_reopen_is_told_so() {
    for error in one_of_each() {
        let text = error.to_string();
        let has_to = matches!(error, Error::OutcomeUnknown { .. } | Error::Poisoned { .. });
        assert_eq!(text.contains("reopen"), has_to, "{text}");
        assert!(!(has_to && text.contains("goes on by itself")), "{text}");
    }
    let full = || Arc::new(io::Error::new(io::ErrorKind::StorageFull, FullDisk("<full>".into())));
    let waiting = Error::unknown_outcome(full()).to_string();
    assert!(waiting.contains("<full>") && waiting.contains("goes on by itself"), "{waiting}");
    assert!(!waiting.contains("reopen") && !waiting.contains("may or may not"), "{waiting}");

    let cut = || Arc::new(io::Error::other(CutFile { found: 71, expected: 72 }));
    let reader = Error::lost(&cut()).unwrap();
    for error in [Error::unknown_outcome(cut()), Error::poisoned(cut()), reader] {
        let text = error.to_string();
        for part in ["71", "72", "salvage", "restore a backup"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("reopen"), "{text}");
    }
}

#[test]
fn a_text_within_another_has_no_advice_of_its_own() {
    let damage = Error::corrupted("<location>", "<detail>");
    assert_eq!(damage.cause(), "corrupted: <location>: <detail>");
    assert_eq!(Error::DiskFull { context: "<context>".into() }.cause(), "disk full: <context>");
    assert_eq!(Error::Closed.cause(), Error::Closed.to_string());
    let poisoned = Error::poisoned(Arc::new(damage.into_cause())).to_string();
    assert!(
        poisoned.contains("<location>: <detail>") && !poisoned.contains("salvage"),
        "{poisoned}"
    );
}
