//! A few live tokens among millions that have expired: how long it takes to open the file and to
//! sweep it, and how long other callers wait meanwhile.

use super::target::Target;
use super::{BEGIN_MS, key, ms, quantile};
use crate::output::Output;
use crate::problem::{Kind, Problem, Verdict};
use crate::progress;
use crate::units;
use clap::Args;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::limits::DEFAULT_LOG_CAPACITY;
use cloakroom::{Cloakroom, Error, ManualClock, Pending};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many tokens one transaction inserts.
const BATCH: u64 = 500;

/// What the process that fills the file prints when it is done.
const READY: &str = "ready";

const EXPIRED_LIFE_SECONDS: u64 = 3_600;
const LIVE_LIFE_SECONDS: u64 = 365 * 24 * 3_600;

/// Sweep millions of expired tokens while others are inserted and consumed, and check that no live
/// one is lost.
///
/// Another process inserts the tokens and is killed. This one opens the file when all but a few
/// have expired, measures how long that takes, and lets the background sweep while threads insert
/// and consume tokens, each waiting for the disk. At the end every live token must be there, and no
/// other.
///
/// Exit codes: 0 every live token is there, no other is, and the file verifies; 1 otherwise; 2 the
/// benchmark could not be run.
#[derive(Debug, Args)]
pub struct BacklogBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Tokens that will have expired.
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    expired: u64,
    /// Tokens that stay live.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    live: u64,
    /// Threads that insert and consume tokens meanwhile.
    #[arg(long, default_value_t = 4, value_name = "T", value_parser = clap::value_parser!(u64).range(1..=1_024))]
    threads: u64,
    /// Bytes reserved for the log.
    #[arg(long, default_value_t = DEFAULT_LOG_CAPACITY, value_name = "BYTES")]
    log_capacity: u64,
    /// Fill the file and wait to be killed.
    #[arg(long, hide = true)]
    fill: bool,
}

struct BacklogResult {
    fill: Duration,
    open: Duration,
    sweep: Duration,
    compact: Duration,
    bytes_before: u64,
    bytes_after: u64,
    quiet: Latencies,
    sweeping: Latencies,
    swept: u64,
    stalls: u64,
    live_found: u64,
    verified: bool,
}

/// The waiting times of callers, sorted.
#[derive(Default)]
struct Latencies {
    times: Vec<Duration>,
}

impl Latencies {
    fn json(&mut self) -> serde_json::Value {
        json!({
            "calls": self.times.len(), "p50_ms": ms(quantile(&mut self.times, 500)),
            "p99_ms": ms(quantile(&mut self.times, 990)), "max_ms": ms(quantile(&mut self.times, 1_000)),
        })
    }

    fn words(&mut self) -> String {
        let times = [500, 990, 1_000].map(|permille| ms(quantile(&mut self.times, permille)));
        let [p50, p99, longest] = times.map(|time| format!("{time:.2}"));
        format!("{p50} / {p99} / {longest} ms of {} calls", units::count(self.times.len() as u64))
    }
}

pub fn run(options: &BacklogBenchOptions, out: &mut Output) -> Result<Verdict, Problem> {
    if options.fill {
        return fill(options);
    }
    let target = Target::new(options.file.as_deref())?;
    let mut result = measure(options, target.path())?;
    let holds =
        result.live_found == options.live && result.swept >= options.expired && result.verified;
    if out.is_json() {
        out.object(&json!({
            "workload": "backlog", "expired": options.expired, "live": options.live, "threads": options.threads,
            "log_capacity": options.log_capacity, "fill_s": result.fill.as_secs_f64(), "open_ms": ms(result.open),
            "sweep_s": result.sweep.as_secs_f64(), "compact_s": result.compact.as_secs_f64(),
            "file_bytes_before": result.bytes_before, "file_bytes_after": result.bytes_after,
            "before": result.quiet.json(), "while_sweeping": result.sweeping.json(), "swept": result.swept,
            "stalls": result.stalls, "live_found": result.live_found, "verified": result.verified, "holds": holds,
        }))?;
    } else {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        out.lines(units::pairs(&[
            (
                "tokens",
                format!(
                    "{} expired, {} live",
                    units::count(options.expired),
                    units::count(options.live)
                ),
            ),
            ("filled in", seconds(result.fill)),
            ("opened after a kill in", format!("{:.1} ms", ms(result.open))),
            (
                "swept in",
                format!("{} ({} removed)", seconds(result.sweep), units::count(result.swept)),
            ),
            ("compacted in", seconds(result.compact)),
            (
                "file",
                format!(
                    "{} -> {}",
                    units::bytes(result.bytes_before),
                    units::bytes(result.bytes_after)
                ),
            ),
            ("p50 / p99 / longest before", result.quiet.words()),
            ("p50 / p99 / longest while sweeping", result.sweeping.words()),
            ("waits for a full log", result.stalls.to_string()),
            ("live tokens found", units::count(result.live_found)),
            ("verdict", if holds { "no live token was lost".into() } else { "FAILED".into() }),
        ]))?;
    }
    Ok(if holds { Verdict::Fine } else { Verdict::Wrong })
}

fn measure(options: &BacklogBenchOptions, path: &Path) -> Result<BacklogResult, Problem> {
    let failed = |error: Error| Problem::of(&error, path);
    let began = Instant::now();
    let mut filler = Filler::start(options, path)?;
    filler.wait_until_ready()?;
    let fill = began.elapsed();
    drop(filler);

    let clock = Arc::new(ManualClock::new(BEGIN_MS));
    let began = Instant::now();
    let room = Cloakroom::builder().clock(clock.clone()).open(path).map_err(failed)?;
    let open = began.elapsed();
    let bytes_before = room.engine_stats().map_err(failed)?.file_bytes;

    let quiet = Foreground::start(options, &room, 1).during(|| {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    });
    let quiet = quiet.map_err(failed)?;
    let mut sweep = Duration::ZERO;
    let sweeping = Foreground::start(options, &room, 2).during(|| {
        let began = Instant::now();
        let bar = progress::bar(options.expired, "sweeping");
        clock.advance(Duration::from_secs(2 * EXPIRED_LIFE_SECONDS));
        loop {
            let swept = room.engine_stats()?.swept;
            bar.set_position(swept.min(options.expired));
            if swept >= options.expired {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        sweep = began.elapsed();
        bar.finish_and_clear();
        Ok(())
    });
    let sweeping = sweeping.map_err(failed)?;
    let began = Instant::now();
    let compacted = room.compact().map_err(failed)?;
    let compact = began.elapsed();
    let stats = room.engine_stats().map_err(failed)?;
    let live_found = count_live(&room).map_err(failed)?;
    room.close().map_err(failed)?;
    let verified = cloakroom::tools::verify(path).map_err(failed)?.is_ok();
    Ok(BacklogResult {
        fill,
        open,
        sweep,
        compact,
        bytes_before,
        bytes_after: compacted.bytes_after,
        quiet,
        sweeping,
        swept: stats.swept,
        stalls: stats.stalls,
        live_found,
        verified,
    })
}

/// How many of the live tokens can be found. Those of the foreground have another purpose.
fn count_live(room: &Cloakroom) -> Result<u64, Error> {
    let (mut found, mut cursor) = (0, None);
    loop {
        let page =
            room.form_tokens().list(cursor.as_ref(), cloakroom::limits::MAX_LIST_LIMIT).wait()?;
        found += page.items.iter().filter(|token| token.record.purpose == "stay").count() as u64;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

/// The process that fills the file. It is killed when this is dropped.
struct Filler {
    child: Child,
}

impl Filler {
    fn start(options: &BacklogBenchOptions, path: &Path) -> Result<Self, Problem> {
        let failed = |error| Problem::system("starting a process that fills the file", error);
        let this = std::env::current_exe().map_err(failed)?;
        let child = Command::new(this)
            .args(["bench", "backlog", "--fill", "--file"])
            .arg(path)
            .args(["--expired", &options.expired.to_string(), "--live", &options.live.to_string()])
            .args(["--log-capacity", &options.log_capacity.to_string()])
            .stdout(Stdio::piped())
            .spawn();
        Ok(Self { child: child.map_err(failed)? })
    }

    fn wait_until_ready(&mut self) -> Result<(), Problem> {
        let mut line = String::new();
        if let Some(out) = self.child.stdout.take() {
            let read = BufReader::new(out).read_line(&mut line);
            read.map_err(|error| {
                Problem::system("waiting for the process that fills the file", error)
            })?;
        }
        if line.trim_end() == READY {
            return Ok(());
        }
        Err(Problem::new(Kind::Failed, "the process that fills the file has ended"))
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fill(options: &BacklogBenchOptions) -> Result<Verdict, Problem> {
    let Some(path) = &options.file else {
        return Err(Problem::new(Kind::Invalid, "--fill needs --file"));
    };
    let failed = |error: Error| Problem::of(&error, path);
    let clock = Arc::new(ManualClock::new(BEGIN_MS));
    let builder = Cloakroom::builder().clock(clock).log_capacity(options.log_capacity);
    let room = builder.open(path).map_err(failed)?;
    let bar = progress::bar(options.expired + options.live, "handing in");
    let mut random = fastrand::Rng::with_seed(1);
    let (total, mut done, mut live) = (options.expired + options.live, 0, 0);
    let mut waits: VecDeque<Pending<()>> = VecDeque::new();
    while done < total {
        let batch: Vec<FormTokenRecord> = (done..total.min(done + BATCH))
            .map(|number| {
                // The live ones are spread among the others.
                let stays = live * total < (number + 1) * options.live;
                live += u64::from(stays);
                token(key(&mut random, number), if stays { "stay" } else { "go" }, !stays)
            })
            .collect();
        done += batch.len() as u64;
        bar.inc(batch.len() as u64);
        waits.push_back(room.atomically(|tx| {
            batch.into_iter().try_for_each(|token| tx.form_tokens().insert_form_token(token))
        }));
        if waits.len() > 16 {
            waits.pop_front().map_or(Ok(()), Pending::wait).map_err(failed)?;
        }
    }
    waits.into_iter().try_for_each(Pending::wait).map_err(failed)?;
    bar.finish_and_clear();
    let mut out = std::io::stdout();
    let said = writeln!(out, "{READY}").and_then(|()| out.flush());
    said.map_err(|error| Problem::system("reporting that the file is filled", error))?;
    loop {
        // Until it is killed.
        std::thread::park();
    }
}

fn token(key: String, purpose: &str, expires: bool) -> FormTokenRecord {
    let life = if expires { EXPIRED_LIFE_SECONDS } else { LIVE_LIFE_SECONDS };
    FormTokenRecord {
        lookup_key: LookupKey::new(key),
        key_version: "1".into(),
        subject: TokenSubject::Authenticated("user-4711".into()),
        purpose: purpose.into(),
        bound_resource: None,
        issued_at: BEGIN_MS / 1_000,
        expires_at: BEGIN_MS / 1_000 + life,
    }
}

/// Threads that insert and consume tokens.
struct Foreground<'a> {
    options: &'a BacklogBenchOptions,
    room: &'a Cloakroom,
    /// Distinguishes the keys of one run from those of another.
    phase: u64,
    stop: AtomicBool,
}

impl<'a> Foreground<'a> {
    fn start(options: &'a BacklogBenchOptions, room: &'a Cloakroom, phase: u64) -> Self {
        Self { options, room, phase, stop: AtomicBool::new(false) }
    }

    fn during(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Latencies, Error> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.threads)
                .map(|thread| scope.spawn(move || self.work(thread)))
                .collect();
            let worked = work();
            self.stop.store(true, Ordering::SeqCst);
            let mut latencies = Latencies::default();
            for thread in threads {
                // A panic of a worker is a panic of the benchmark.
                latencies.times.extend(
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                );
            }
            worked.map(|()| latencies)
        })
    }

    fn work(&self, thread: u64) -> Result<Vec<Duration>, Error> {
        let mut random = fastrand::Rng::with_seed(self.phase * 1_000_000 + thread);
        let tokens = self.room.form_tokens();
        let subject = TokenSubject::Authenticated("user-4711".into());
        let mut latencies = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let number = random.u64(..);
            let record = token(key(&mut random, number), "meanwhile", false);
            let key = record.lookup_key.clone();
            let called = Instant::now();
            tokens.insert_form_token(record).wait()?;
            latencies.push(called.elapsed());
            let called = Instant::now();
            let now = BEGIN_MS / 1_000;
            let (outcome, _) =
                tokens.consume_form_token(&key, &subject, "meanwhile", None, now).wait()?;
            latencies.push(called.elapsed());
            assert_eq!(outcome, TokenConsumeOutcome::Proceed);
        }
        Ok(latencies)
    }
}
