//! Short-lived entries as fast as they go: whether the file stays bounded while the log is full all
//! the time.

use super::target::Target;
use super::{key, resident_bytes};
use crate::output::Output;
use crate::problem::{Problem, Verdict};
use crate::units;
use clap::Args;
use cloakroom::cache::CacheStore;
use cloakroom::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::stats::{EngineStats, StoreStats};
use cloakroom::{Cloakroom, Clock, Error, Pending, SystemClock};
use serde_json::json;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many calls a thread has issued and not waited for.
const IN_FLIGHT: usize = 1_024;

/// Write entries that end after two seconds, as fast as they go, and watch the file.
///
/// Each thread hands in form tokens, claim checks and cached values by turns, with a thousand calls
/// in flight. Once a second it prints what the room holds. Then it rests, closes the file, opens it
/// again, and prints the same.
///
/// Exit codes: 0 the file and the backlog stayed bounded; 1 they did not; 2 the benchmark could not
/// be run.
#[derive(Debug, Args)]
pub struct ChurnBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// How long to write at the most.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Entries to write at the most.
    #[arg(long, default_value_t = 5_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    operations: u64,
    /// Entries to write in a second at the most; 0 is as fast as they go.
    #[arg(long, default_value_t = 0, value_name = "N")]
    rate: u64,
    /// Threads that write.
    #[arg(long, default_value_t = 2, value_name = "T", value_parser = clap::value_parser!(u64).range(1..=1_024))]
    threads: u64,
    /// How long an entry lives, in seconds.
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    life: u64,
    /// Count all rows of the room once a second beside it, as `stats` does. Each count keeps the
    /// pages of a snapshot.
    #[arg(long)]
    count: bool,
    /// How long to rest before the file is closed, in seconds.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    rest: u64,
}

/// The room at one moment.
struct Sample {
    phase: &'static str,
    second: f64,
    operations: u64,
    engine: EngineStats,
    live: u64,
    /// Ended and not swept.
    ended: u64,
    /// The memory of the process, where the system reports it.
    resident: Option<u64>,
}

impl Sample {
    fn json(&self) -> serde_json::Value {
        let engine = &self.engine;
        json!({
            "phase": self.phase, "second": self.second, "operations": self.operations, "file_bytes": engine.file_bytes,
            "live": self.live, "ended": self.ended, "swept": engine.swept, "btree_bytes": engine.btree_bytes,
            "btree_used_bytes": engine.btree_used_bytes, "btree_free_bytes": engine.btree_free_bytes,
            "stalls": engine.stalls, "stall_s": engine.stall_time.as_secs_f64(),
            "checkpoints": engine.checkpoints, "btree_bytes_written": engine.btree_bytes_written,
            "log_bytes_written": engine.log_bytes_written, "resident_bytes": self.resident,
        })
    }

    fn row(&self) -> Vec<String> {
        let engine = &self.engine;
        let used = engine.btree_used_bytes.map_or_else(|| "?".to_owned(), units::bytes);
        vec![
            self.phase.to_owned(),
            format!("{:.1}", self.second),
            units::count(self.operations),
            units::bytes(engine.file_bytes),
            units::count(self.live),
            units::count(self.ended),
            units::count(engine.swept),
            format!("{used} / {}", units::bytes(engine.btree_bytes)),
            format!("{} / {:.1} s", engine.stalls, engine.stall_time.as_secs_f64()),
            self.resident.map_or_else(|| "?".to_owned(), units::bytes),
        ]
    }
}

pub fn run(options: &ChurnBenchOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let target = Target::new(options.file.as_deref())?;
    let samples =
        churn(options, target.path()).map_err(|error| Problem::of(&error, target.path()))?;
    let bounded = is_bounded(&samples);
    if out.is_json() {
        samples.iter().try_for_each(|sample| out.object(&sample.json()))?;
        out.object(&json!({ "workload": "churn", "bounded": bounded }))?;
    } else {
        let heading = [
            "phase",
            "second",
            "entries",
            "file",
            "live",
            "ended",
            "swept",
            "B-tree used / all",
            "waits for the log",
            "memory",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(samples.iter().map(Sample::row));
        out.lines(units::table(&rows))?;
        out.line(if bounded { "bounded" } else { "NOT bounded" })?;
    }
    Ok(if bounded { Verdict::Fine } else { Verdict::Wrong })
}

/// Whether the file and what has ended in it stopped growing: the second half of the time needs at
/// most half as much again as the first.
fn is_bounded(samples: &[Sample]) -> bool {
    let written: Vec<_> = samples.iter().filter(|sample| sample.phase == "write").collect();
    let (first, second) = written.split_at(written.len() / 2);
    let most = |part: &[&Sample]| part.iter().map(|sample| sample.engine.file_bytes).max();
    match (most(first), most(second)) {
        (Some(first), Some(second)) => second * 2 <= first * 3,
        _ => true,
    }
}

fn churn(options: &ChurnBenchOptions, path: &Path) -> Result<Vec<Sample>, Error> {
    let room = Cloakroom::open(path)?;
    let began = Instant::now();
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut samples: Vec<Sample> = Vec::new();
    let mut sample = |room: &Cloakroom, phase| {
        let second = began.elapsed().as_secs_f64();
        let operations = done.load(Ordering::Relaxed);
        let engine = room.engine_stats()?;
        // Counting rows would hold a snapshot of all of them, and so change what is measured: while
        // entries are written, what has ended follows from how many there were a life ago.
        let before = |sample: &&Sample| sample.second <= second - options.life as f64;
        let over = samples.iter().rev().find(before).map_or(0, |sample| sample.operations);
        let (live, ended) = match phase {
            "write" => (operations - over, over.saturating_sub(engine.swept)),
            _ => {
                let stores = room.stats()?.stores;
                let count = |of: fn(&StoreStats) -> u64| stores.iter().map(of).sum();
                (count(|store| store.live), count(|store| store.expired))
            }
        };
        let resident = resident_bytes();
        samples.push(Sample { phase, second, operations, engine, live, ended, resident });
        Ok::<_, Error>(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|thread| {
                let (room, done, stop) = (&room, &done, &stop);
                scope.spawn(move || {
                    let written = write(options, room, thread, began, done, stop);
                    stop.store(true, Ordering::Relaxed);
                    written
                })
            })
            .collect();
        let counts = options.count.then(|| {
            let (room, stop) = (&room, &stop);
            scope.spawn(move || count(room, stop))
        });
        let mut sampled = Ok(());
        while !stop.load(Ordering::Relaxed) && began.elapsed().as_secs() < options.seconds {
            std::thread::sleep(Duration::from_secs(1));
            sampled = sampled.and_then(|()| sample(&room, "write"));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            // A panic of a worker is a panic of the benchmark.
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        if let Some(counts) = counts {
            counts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        sampled
    })?;
    for second in 0..options.rest {
        std::thread::sleep(Duration::from_secs(1));
        if second + 1 == options.rest {
            sample(&room, "rest")?;
        }
    }
    room.close()?;
    drop(room);
    let room = Cloakroom::open(path)?;
    sample(&room, "reopened")?;
    std::thread::sleep(Duration::from_secs(options.rest));
    sample(&room, "reopened")?;
    room.close()?;
    Ok(samples)
}

/// Counts all rows once a second, as often as there is time.
fn count(room: &Cloakroom, stop: &AtomicBool) -> Result<(), Error> {
    while !stop.load(Ordering::Relaxed) {
        room.stats().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn write(
    options: &ChurnBenchOptions,
    room: &Cloakroom,
    thread: u64,
    began: Instant,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let (tokens, states) = (room.form_tokens(), room.handoff());
    let cache = room.cache::<JsonObject>("http");
    let body = JsonObject::from_iter([("body".to_owned(), json!("x".repeat(100)))]);
    let mut random = fastrand::Rng::with_seed(thread);
    let mut waits: VecDeque<Pending<()>> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let number = done.fetch_add(1, Ordering::Relaxed);
        if number >= options.operations {
            break;
        }
        if options.rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / options.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let key = key(&mut random, number);
        waits.push_back(match number % 3 {
            0 => {
                let now = SystemClock::default().now_ms() / 1_000;
                tokens.insert_form_token(FormTokenRecord {
                    lookup_key: LookupKey::new(key),
                    key_version: "1".into(),
                    subject: TokenSubject::Authenticated("user-4711".into()),
                    purpose: "pay".into(),
                    bound_resource: None,
                    issued_at: now,
                    expires_at: now + options.life,
                })
            }
            1 => states.set(&key, &body, options.life),
            _ => cache.set(&key, &body, options.life.try_into().unwrap_or(i64::MAX)),
        });
        if waits.len() >= IN_FLIGHT {
            waits.pop_front().map_or(Ok(()), Pending::wait)?;
        }
    }
    waits.into_iter().try_for_each(Pending::wait)
}
