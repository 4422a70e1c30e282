//! Backups under load: each is opened and verified, and must have everything acknowledged before
//! it.

use super::target::Target;
use super::{ms, quantile};
use crate::output::Output;
use crate::problem::{Problem, Verdict};
use crate::progress;
use crate::units;
use clap::Args;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::{Cloakroom, Error, Pending};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LIFE_SECONDS: u64 = 24 * 3_600;

/// Take a backup every second while threads write, and check each of them.
///
/// Every thread counts: with each count it stores a state of that number and takes the previous
/// one, in one durable transaction. A backup must have each thread's last acknowledged count or a
/// later one, with the state of that number and neither the one before nor the one after; and every
/// byte of it must verify.
///
/// Exit codes: 0 every backup is correct; 1 one is not; 2 the benchmark could not be run.
#[derive(Debug, Args)]
pub struct BackupBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Backups to take, one a second.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    backups: u64,
    /// Threads that write.
    #[arg(long, default_value_t = 16, value_name = "T", value_parser = clap::value_parser!(u64).range(1..=1_024))]
    threads: u64,
    /// States that stay in the room.
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    states: u64,
}

#[derive(Default)]
struct BackupResult {
    took: Vec<Duration>,
    wrong: Vec<String>,
    counts: u64,
    rows: u64,
    bytes: u64,
}

pub fn run(options: &BackupBenchOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let target = Target::new(options.file.as_deref())?;
    let mut measured =
        measure(options, target.path()).map_err(|error| Problem::of(&error, target.path()))?;
    let holds = measured.wrong.is_empty();
    let [p50, longest] = [500, 1_000].map(|permille| ms(quantile(&mut measured.took, permille)));
    if out.is_json() {
        out.object(&json!({
            "workload": "backup", "backups": options.backups, "threads": options.threads, "p50_ms": p50, "max_ms": longest,
            "transactions": measured.counts, "rows_of_last": measured.rows, "bytes_of_last": measured.bytes,
            "wrong": measured.wrong, "holds": holds,
        }))?;
    } else {
        let rows = units::counted(measured.rows, "row", "rows");
        out.lines(units::pairs(&[
            (
                "backups",
                format!("{}, one a second, under {} threads", options.backups, options.threads),
            ),
            ("transactions during the backups", units::count(measured.counts)),
            ("a backup takes p50 / longest", format!("{p50:.0} / {longest:.0} ms")),
            ("the last one has", format!("{rows} in {}", units::bytes(measured.bytes))),
            (
                "verdict",
                if holds { "every backup is correct".into() } else { measured.wrong.join("; ") },
            ),
        ]))?;
    }
    Ok(if holds { Verdict::Fine } else { Verdict::Wrong })
}

fn measure(options: &BackupBenchOptions, path: &Path) -> Result<BackupResult, Error> {
    let room = Cloakroom::open(path)?;
    let lying = JsonObject::from_iter([("body".to_owned(), json!("x".repeat(200)))]);
    let handed_in: Vec<_> = (0..options.states)
        .map(|number| room.handoff().set(&format!("lying {number}"), &lying, LIFE_SECONDS))
        .collect();
    handed_in.into_iter().try_for_each(Pending::wait)?;
    let acknowledged: Vec<AtomicU64> = (0..options.threads).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let copy = path.with_extension("backup");
    std::thread::scope(|scope| {
        let threads: Vec<_> = acknowledged
            .iter()
            .enumerate()
            .map(|(thread, count)| {
                let (room, stop) = (&room, &stop);
                scope.spawn(move || write(room, thread, count, stop))
            })
            .collect();
        let mut measured = BackupResult::default();
        let bar = progress::bar(options.backups, "backups");
        let taken = (0..options.backups).try_for_each(|_| {
            let began = Instant::now();
            let before: Vec<_> =
                acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).collect();
            let report = room.backup(&copy)?;
            measured.took.push(began.elapsed());
            (measured.rows, measured.bytes) = (report.rows, report.bytes);
            measured.wrong.extend(check(&copy, &before)?);
            bar.inc(1);
            std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
            Ok(())
        });
        bar.finish_and_clear();
        stop.store(true, Ordering::SeqCst);
        for thread in threads {
            // A panic of a worker is a panic of the benchmark.
            measured.counts +=
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        let _ = std::fs::remove_file(&copy);
        taken.and_then(|()| room.close()).map(|()| measured)
    })
}

fn write(
    room: &Cloakroom,
    thread: usize,
    acknowledged: &AtomicU64,
    stop: &AtomicBool,
) -> Result<u64, Error> {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        room.atomically(|tx| {
            let state = JsonObject::from_iter([("count".to_owned(), json!(count))]);
            tx.handoff().set(&format!("{thread}"), &state, LIFE_SECONDS)?;
            tx.handoff().set(&format!("{thread} at {count}"), &state, LIFE_SECONDS)?;
            tx.handoff().get_and_delete(&format!("{thread} at {}", count - 1))
        })
        .wait()?;
        acknowledged.store(count, Ordering::SeqCst);
    }
    Ok(count)
}

/// What is wrong with a backup that began when these counts were acknowledged.
fn check(copy: &Path, acknowledged: &[u64]) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    if !cloakroom::tools::verify(copy)?.is_ok() {
        wrong.push("a backup does not verify".to_owned());
    }
    let room = Cloakroom::builder().sweep_interval(None).open(copy)?;
    for (thread, &acknowledged) in acknowledged.iter().enumerate() {
        let state = room.handoff().get(&thread.to_string()).wait()?;
        let count = state
            .and_then(|state| state.get("count").and_then(serde_json::Value::as_u64))
            .unwrap_or(0);
        if count < acknowledged {
            wrong.push(format!("thread {thread} was at {acknowledged} and is at {count}"));
        }
        for (number, expected) in
            [(count.wrapping_sub(1), false), (count, count > 0), (count + 1, false)]
        {
            let is_there = room.handoff().get(&format!("{thread} at {number}")).wait()?.is_some();
            if is_there != expected {
                wrong.push(format!("state {number} of thread {thread} at {count}: {is_there}"));
            }
        }
    }
    room.close()?;
    Ok(wrong)
}
