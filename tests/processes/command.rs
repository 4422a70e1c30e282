//! The `cloakroom` command as a program sees it: exit code, standard output, standard error, and
//! what is left behind.

use crate::rooms::names;
use cloakroom::Cloakroom;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the command in a directory of its own.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloakroom")).current_dir(dir).args(arguments).output().unwrap()
}

/// Runs a small benchmark in an empty directory and answers its JSON.
fn bench(arguments: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let always = ["bench", "consume", "--json", "--tokens", "400", "--seconds", "5"];
    let output = run(dir.path(), &[&always[..], arguments].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stdout.trim_end().lines().count(), 1, "standard output is one line: {stdout}");
    assert!(names(dir.path()).is_empty(), "left behind: {:?}", names(dir.path()));
    serde_json::from_str(&stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_run_prints_one_object_with_every_documented_key() {
    let report = bench(&["--threads", "4"]);
    let mut keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "bytes_written_per_op",
            "checkpoints",
            "consumed_after_reopen",
            "double_consumes",
            "flushes",
            "log_bytes_per_op",
            "ops",
            "ops_per_s",
            "p50_us",
            "p99_us",
            "pipeline",
            "proceeds",
            "raw_flush_p50_us",
            "replays",
            "seconds",
            "threads",
            "tokens",
            "workload",
        ]
    );
    assert_eq!(report["workload"], "consume");
    assert_eq!([&report["tokens"], &report["threads"], &report["pipeline"]], [400, 4, 1]);
    assert_eq!([&report["ops"], &report["proceeds"], &report["consumed_after_reopen"]], [400; 3]);
    assert_eq!([&report["double_consumes"], &report["replays"]], [0, 0]);
    for measured in
        ["ops_per_s", "p50_us", "p99_us", "raw_flush_p50_us", "log_bytes_per_op", "seconds"]
    {
        assert!(report[measured].as_f64().unwrap() > 0.0, "{measured} of {report}");
    }
    assert!(report["flushes"].as_u64().unwrap() > 0);
    assert!(report["log_bytes_per_op"].as_f64().unwrap() <= 400.0, "{report}");
}

#[test]
fn in_a_race_every_token_proceeds_once_and_replays_for_the_others() {
    let report = bench(&["--race", "4", "--pipeline", "32"]);
    assert_eq!(report["threads"], 4);
    assert_eq!([&report["proceeds"], &report["consumed_after_reopen"]], [400, 400]);
    assert_eq!([&report["double_consumes"], &report["replays"]], [0, 1_200]);
    assert_eq!(report["ops"], 1_600);
}

#[test]
fn a_pipeline_shares_flushes() {
    let report = bench(&["--threads", "1", "--pipeline", "100"]);
    assert_eq!([&report["pipeline"], &report["proceeds"]], [100, 400]);
    assert!(report["flushes"].as_u64().unwrap() <= 200, "{report}");
}

#[test]
fn relaxed_durability_does_without_flushes() {
    let report = bench(&["--threads", "2", "--durability", "os"]);
    assert_eq!([&report["proceeds"], &report["consumed_after_reopen"]], [400, 400]);
    assert!(report["flushes"].as_u64().unwrap() <= 4, "{report}");
}

#[test]
fn a_run_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "consume", "--json", "--tokens", "30000", "--threads", "1", "--seconds", "0.05"];
    let output = run(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["ops"].as_u64().unwrap() < 30_000, "{report}");
    assert_eq!(report["proceeds"], report["consumed_after_reopen"]);
}

#[test]
fn without_json_a_person_reads_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["bench", "consume", "--tokens", "50", "--threads", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert!(table.lines().count() > 10 && table.contains("consumed twice"), "{table}");
    assert!(serde_json::from_str::<Value>(&table).is_err());
}

#[test]
fn a_file_that_was_asked_for_is_kept_and_is_a_room() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "consume", "--json", "--tokens", "50", "--threads", "2", "--file", "kept.cloak"];
    let output = run(dir.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(names(dir.path()), ["kept.cloak"]);
    let room = Cloakroom::open(dir.path().join("kept.cloak")).unwrap();
    assert_eq!(room.form_tokens().stats().wait().unwrap().consumed, 50);
}

#[test]
fn a_file_that_exists_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious.txt");
    std::fs::write(&path, "precious").unwrap();
    let modified = path.metadata().unwrap().modified().unwrap();
    let output = run(dir.path(), &["bench", "consume", "--json", "--file", "precious.txt"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(said.contains("precious.txt") && said.contains("exists"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(path.metadata().unwrap().modified().unwrap(), modified);
    assert_eq!(names(dir.path()), ["precious.txt"]);
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    let output =
        run(dir.path(), &["bench", "consume", "--json", "--tokens", "50", "--file", "link"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("link"));
    assert_eq!(names(dir.path()), ["link"]);
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["bench", "consume", "--json", "--file", "no/such/file.cloak"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("no/such"), "{}", text(&output.stderr));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn wrong_arguments_are_explained_and_nothing_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, explained) in [
        (&["--tokens", "0"][..], "--tokens"),
        (&["--tokens", "many"], "--tokens"),
        (&["--threads", "0"], "--threads"),
        (&["--threads", "1048577"], "--threads"),
        (&["--pipeline", "0"], "--pipeline"),
        (&["--race", "x"], "--race"),
        (&["--seconds", "0"], "--seconds"),
        (&["--seconds", "NaN"], "--seconds"),
        (&["--seconds", "inf"], "--seconds"),
        (&["--durability", "maybe"], "--durability"),
        (&["--log-capacity", "1"], "log capacity"),
        (&["--file"], "--file"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output = run(dir.path(), &[&["bench", "consume", "--json"][..], arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(said.contains(explained), "{arguments:?}: {said}");
        assert!(names(dir.path()).is_empty(), "{arguments:?}");
    }
    for arguments in [&[][..], &["bench"], &["bench", "nothing"], &["frobnicate"]] {
        let output = run(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("Usage"), "{arguments:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), &["bench", "consume", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    let said = text(&help.stdout);
    for option in [
        "--file",
        "--tokens",
        "--threads",
        "--seconds",
        "--pipeline",
        "--race",
        "--durability",
        "--json",
    ] {
        assert!(said.contains(option), "{option}: {said}");
    }
    let version = run(dir.path(), &["--version"]);
    assert_eq!(text(&version.stdout).trim(), format!("cloakroom {}", env!("CARGO_PKG_VERSION")));
}
