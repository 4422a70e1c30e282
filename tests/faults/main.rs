//! The tests see what they are for: each deliberate fault of `src/fault.rs` is switched on, and a
//! named test must fail; with the fault off it must pass.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// By when a named test has ended. A test that waits for ever has seen its fault, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a fault is tried until its test sees it.
const ATTEMPTS: usize = 5;

/// Each fault, and the test that sees it: the program it is in, and its name. `cloakroom` is the
/// program of the library's own tests.
const FAULTS: [(&str, &str, &str); 12] = [
    (
        "SkipFlush",
        "engine",
        "crash_simulation::threads_that_race_until_the_power_fails_lose_no_acknowledgement",
    ),
    (
        "AcknowledgeEarly",
        "engine",
        "crash_simulation::threads_that_race_until_the_power_fails_lose_no_acknowledgement",
    ),
    (
        "DropDerivedRow",
        "cloakroom",
        "stores::derived::tests::form_tokens_have_the_rows_that_are_derived",
    ),
    (
        "IgnoreChecksum",
        "cloakroom",
        "btree::tests::any_flipped_byte_gives_the_right_rows_or_corrupted",
    ),
    (
        "ReuseSegmentTooSoon",
        "engine",
        "crash_simulation::a_power_failure_at_any_event_leaves_all_that_was_acknowledged_and_a_prefix_of_the_rest",
    ),
    ("PublishBeforeInsert", "api", "atomically::a_read_never_sees_half_of_a_transaction"),
    (
        "LoseWaker",
        "cloakroom",
        "log::group_commit::tests::a_registered_task_is_woken_once_and_a_forgotten_one_never",
    ),
    ("LoseEvent", "api", "dedupe::a_task_is_woken_once_by_the_end_of_its_own_job_only"),
    ("LoseWatcher", "api", "watch::a_task_is_woken_for_a_change_and_for_nothing_else"),
    (
        "ForgetEpoch",
        "cloakroom",
        "engine::kernel::time_line::moment::tests::a_span_of_this_epoch_is_exact_whatever_is_corrected",
    ),
    (
        "CutBelowLastBlock",
        "cloakroom",
        "btree::compact::tests::a_crash_anywhere_in_a_step_or_a_cut_leaves_every_row",
    ),
    (
        "ApplyHalfABatch",
        "api",
        "atomically::on_a_simulated_disk::a_crash_keeps_a_transaction_whole_or_not_at_all",
    ),
];

/// The programs of the tests, by name, built as this one was.
fn programs() -> BTreeMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--all-features", "--no-run", "--message-format=json"])
        .args(["--lib", "--test", "api", "--test", "engine"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(built.status.success(), "the tests do not build");
    let text = String::from_utf8(built.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            // The command itself is built for the tests, and is none.
            message["profile"]["test"].as_bool().filter(|is_test| *is_test)?;
            let program = message.get("executable")?.as_str()?.into();
            Some((message["target"]["name"].as_str()?.to_owned(), program))
        })
        .collect()
}

/// How a named test ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Passed,
    Failed,
    /// It went on for longer than [`PATIENCE`].
    Waits,
}

fn run(program: &PathBuf, test: &str, fault: Option<&str>) -> Ended {
    let mut command = Command::new(program);
    command.args(["--exact", test, "--test-threads", "1"]).env_remove("CLOAKROOM_FAULT");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("CLOAKROOM_TESTS");
    if let Some(fault) = fault {
        command.env("CLOAKROOM_FAULT", fault);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        stdout.read_to_string(&mut said).map(|_| said)
    });
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return Ended::Waits;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (success, said) = (child.wait().unwrap().success(), said.join().unwrap().unwrap());
    // A name that no test has must not count as a test that failed, nor as one that passed.
    assert!(said.contains("running 1 test\n"), "there is no test {test}: {said}");
    if success { Ended::Passed } else { Ended::Failed }
}

#[test]
fn each_deliberate_fault_is_seen_by_its_test() {
    let programs = programs();
    let mut wrong = Vec::new();
    for (fault, program, test) in FAULTS {
        let program = &programs[program];
        let (off, began) = (run(program, test, None), Instant::now());
        // Where threads race, one run may miss it.
        let mut runs = (0..ATTEMPTS).map(|_| run(program, test, Some(fault)));
        let on = runs.find(|ended| *ended != Ended::Passed).unwrap_or(Ended::Passed);
        println!("{fault}: {test}: {off:?}, with the fault {on:?} after {:?}", began.elapsed());
        if off != Ended::Passed {
            wrong.push(format!("{test} does not pass without a fault: {off:?}"));
        }
        if on == Ended::Passed {
            wrong.push(format!("{test} passes with the fault {fault}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every fault that an ordinary test can see is in the table; the others are seen by models.
#[test]
fn every_deliberate_fault_is_in_the_table() {
    const SEEN_BY_MODELS: [&str; 2] = ["ForgetFence", "LoseSleepers"];
    let models = include_str!("../../.ci/models");
    let source = include_str!("../../src/fault.rs");
    let (_, list) = source.split_once("\nfaults! {").unwrap();
    let (list, _) = list.split_once("\n}").unwrap();
    let declared = list.lines().map(str::trim).filter_map(|line| line.strip_suffix(','));
    let listed: Vec<_> =
        FAULTS.map(|(fault, ..)| fault).into_iter().chain(SEEN_BY_MODELS).collect();
    for fault in declared {
        assert!(listed.contains(&fault), "no test is named for the fault {fault}");
        let of_models = format!("{fault} ");
        assert!(!SEEN_BY_MODELS.contains(&fault) || models.contains(&of_models), "{fault}");
    }
}
