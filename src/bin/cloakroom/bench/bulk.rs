//! Removing many entries at once beside another writer: how long that one waits.

use super::target::Target;
use super::{ms, quantile};
use crate::output::Output;
use crate::problem::{Problem, Verdict};
use crate::units;
use clap::Args;
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use cloakroom::state::{EventId, Identity, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error, Transaction};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Entries that are written in one transaction.
const BATCH: u64 = 100;

/// Tags of the two values that are invalidated by all of them.
const TAGS: u64 = 8_000;

const LIFE_SECONDS: i64 = 24 * 3_600;

/// Remove many entries at once beside another writer, and measure how long that one waits.
///
/// Clears a cache of tagged values, the jobs of a deduplicating store, all values of a tag, the
/// states of a session, and two values of 8,000 tags. Meanwhile another thread hands in form
/// tokens, first waiting for the disk, then not. The first line of each half is that thread alone.
///
/// Exit codes: 0 no call of the other thread took longer than allowed; 1 one did; 2 the benchmark
/// could not be run.
#[derive(Debug, Args)]
pub struct BulkBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Entries to remove at once.
    #[arg(long, default_value_t = 60_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    entries: u64,
    /// The longest that a call of the other thread may take, in milliseconds. A busy machine makes
    /// it wait, too.
    #[arg(long, default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    at_most: u64,
}

/// Something that removes many entries at once.
struct Bulk {
    name: &'static str,
    /// Hands in the entry of this number.
    fill: fn(&mut Transaction<'_>, u64) -> Result<(), StateError>,
    remove: fn(&Cloakroom) -> Result<(), Error>,
}

/// All of them, after nothing at all.
const BULK: [Bulk; 6] = [
    Bulk {
        name: "nothing",
        fill: |_, _| Ok(()),
        remove: |_| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        },
    },
    Bulk {
        name: "clear a cache",
        fill: fill_cache,
        remove: |room| room.cache::<u64>("bulk").with_durability(Durability::Os).clear(None).wait(),
    },
    Bulk {
        name: "clear jobs",
        fill: |tx, number| {
            tx.dedupe::<u64>("bulk").register(&format!("{number:08}"))?;
            Ok(())
        },
        remove: |room| room.dedupe::<u64>("bulk").clear(None).wait(),
    },
    Bulk {
        name: "invalidate a tag",
        fill: fill_cache,
        remove: |room| {
            let cache = room.cache::<u64>("bulk").with_durability(Durability::Os);
            cache.invalidate_by_tag("all").wait().map(drop)
        },
    },
    Bulk {
        name: "delete a scope",
        fill: |tx, number| {
            tx.state().save(StateRecord {
                id: EventId::from(format!("event {number}").as_str()),
                identity: Identity::new("acme", "alice", "session", ""),
                kind: format!("{number:08}"),
                version: 1,
                bytes: vec![1; 20],
                updated_at: Some(1),
            })?;
            Ok(())
        },
        remove: |room| {
            Ok(room.state().delete_scope("acme", "alice", "session").wait().map(drop)?)
        },
    },
    Bulk {
        name: "invalidate 8,000 tags",
        fill: |tx, number| {
            let (names, mut cache) = (tags(), tx.cache::<u64>("bulk"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if number < 2 {
                cache.set_with_tags(&number.to_string(), &number, LIFE_SECONDS, &names)?;
            }
            Ok(())
        },
        remove: |room| {
            let (names, cache) = (tags(), room.cache::<u64>("bulk"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            cache.with_durability(Durability::Os).invalidate_by_tags(&names).wait().map(drop)
        },
    },
];

fn tags() -> Vec<String> {
    (0..TAGS).map(|number| format!("tag {number}")).collect()
}

fn fill_cache(tx: &mut Transaction<'_>, number: u64) -> Result<(), StateError> {
    let hash = format!("{number:08}");
    Ok(tx.cache::<u64>("bulk").set_with_tags(&hash, &number, LIFE_SECONDS, &["all", &hash])?)
}

/// What the other thread met.
struct Paused {
    beside: &'static str,
    durability: &'static str,
    entries: u64,
    took: Duration,
    calls: u64,
    p99_ms: f64,
    max_ms: f64,
}

pub fn run(options: &BulkBenchOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let target = Target::new(options.file.as_deref())?;
    let measured =
        measure(options, target.path()).map_err(|error| Problem::of(&error, target.path()))?;
    let longest = measured.iter().map(|paused| paused.max_ms).fold(0.0, f64::max);
    let holds = longest <= options.at_most as f64;
    if out.is_json() {
        for paused in &measured {
            out.object(&json!({
                "workload": "bulk", "beside": paused.beside, "durability": paused.durability, "entries": paused.entries,
                "took_ms": ms(paused.took), "calls": paused.calls, "p99_ms": paused.p99_ms, "max_ms": paused.max_ms,
            }))?;
        }
    } else {
        let heading = ["beside", "it waits for", "entries", "takes", "calls", "p99", "longest"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(measured.iter().map(|paused| {
            vec![
                paused.beside.to_owned(),
                paused.durability.to_owned(),
                units::count(paused.entries),
                format!("{:.0} ms", ms(paused.took)),
                units::count(paused.calls),
                format!("{:.2} ms", paused.p99_ms),
                format!("{:.1} ms", paused.max_ms),
            ]
        }));
        out.lines(units::table(&rows))?;
    }
    Ok(if holds { Verdict::Fine } else { Verdict::Wrong })
}

fn measure(options: &BulkBenchOptions, path: &Path) -> Result<Vec<Paused>, Error> {
    let room = Cloakroom::open(path)?;
    let mut measured = Vec::new();
    for (durability, waits_for) in [(Durability::Sync, "the disk"), (Durability::Os, "nothing")] {
        for bulk in &BULK {
            let entries = match bulk.name {
                "nothing" => 0,
                "invalidate 8,000 tags" => 2,
                _ => options.entries,
            };
            for first in (0..entries).step_by(usize::try_from(BATCH).unwrap_or(1)) {
                let filled = room.atomically(|tx| {
                    (first..entries.min(first + BATCH))
                        .try_for_each(|number| (bulk.fill)(tx, number))
                });
                filled.wait()?;
            }
            let stop = AtomicBool::new(false);
            let (mut calls, took) = std::thread::scope(|scope| {
                let writer = scope.spawn(|| write(&room, durability, bulk.name, &stop));
                // So that it is at full speed.
                std::thread::sleep(Duration::from_millis(200));
                let began = Instant::now();
                let removed = (bulk.remove)(&room);
                let took = began.elapsed();
                stop.store(true, Ordering::Relaxed);
                // A panic of the writer is a panic of the benchmark.
                let calls =
                    writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                removed.map(|()| (calls, took))
            })?;
            measured.push(Paused {
                beside: bulk.name,
                durability: waits_for,
                entries,
                took,
                calls: calls.len() as u64,
                p99_ms: ms(quantile(&mut calls, 990)),
                max_ms: ms(quantile(&mut calls, 1_000)),
            });
        }
    }
    room.close()?;
    Ok(measured)
}

/// Hands in one form token after the other. Answers how long each call took.
fn write(
    room: &Cloakroom,
    durability: Durability,
    name: &str,
    stop: &AtomicBool,
) -> Result<Vec<Duration>, Error> {
    let (tokens, mut calls) = (room.form_tokens().with_durability(durability), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let key = LookupKey::new(format!("{durability:?} {name} {}", calls.len()));
        let token = FormTokenRecord::new(key, TokenSubject::Anonymous, "pay", 4_000_000_000);
        let began = Instant::now();
        tokens.insert_form_token(token).wait()?;
        calls.push(began.elapsed());
    }
    Ok(calls)
}
