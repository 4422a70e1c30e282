//! The consume benchmark: insert tokens, consume them from many threads at once, reopen, count.

use super::disk;
use super::report::Report;
use super::target::Target;
use crate::problem::{Kind, Problem};
use crate::progress::bar as progress;
use clap::{Args, ValueEnum};
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::limits::{DEFAULT_CACHE_SIZE, DEFAULT_LOG_CAPACITY, MAX_LIST_LIMIT};
use cloakroom::{Cloakroom, Durability, Error, Pending};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The number of tokens that one transaction of the preload inserts.
const PRELOAD_BATCH: usize = 500;

/// How long the tokens live: longer than any run.
const TOKEN_LIFE_SECONDS: u64 = 24 * 60 * 60;

const PURPOSE: &str = "pay";

/// ConsumeBenchOptions of the consume benchmark.
#[derive(Debug, Args)]
pub struct ConsumeBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Tokens to insert before the measurement.
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    tokens: u64,
    /// Threads that consume distinct random tokens.
    #[arg(long, default_value_t = 64, value_name = "T", value_parser = parse_count)]
    threads: usize,
    /// Stop after this many seconds, or when there are no tokens left.
    #[arg(long, default_value_t = 5.0, value_name = "S", value_parser = parse_seconds)]
    seconds: f64,
    /// Consumes that each thread has pending at once.
    #[arg(long, default_value_t = 1, value_name = "D", value_parser = parse_count)]
    pipeline: usize,
    /// Let this many threads race for every token instead.
    #[arg(long, default_value_t = 0, value_name = "R", value_parser = parse_race)]
    race: usize,
    /// When a consume returns: when the disk has it, or when the operating system has it.
    #[arg(long, value_enum, default_value_t = Level::Sync)]
    durability: Level,
    /// Bytes reserved for the log.
    #[arg(long, default_value_t = DEFAULT_LOG_CAPACITY, value_name = "BYTES")]
    log_capacity: u64,
    /// Bytes of page cache.
    #[arg(long, default_value_t = DEFAULT_CACHE_SIZE, value_name = "BYTES")]
    cache_size: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Sync,
    Os,
}

const MAX_COUNT: usize = 1 << 20;

fn parse_count(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(format!("{count} is not from 1 to {MAX_COUNT}"));
    }
    Ok(count)
}

fn parse_race(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { parse_count(text) }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err(format!("{seconds} is not above 0 and at most 86400"));
    }
    Ok(seconds)
}

/// Why the benchmark could not be run.
#[derive(Debug)]
pub enum ConsumeFailure {
    /// The room returned an error.
    Room(Error),
    /// A system call of the benchmark itself failed.
    Io(String, std::io::Error),
}

impl fmt::Display for ConsumeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumeFailure::Room(error) => error.fmt(f),
            ConsumeFailure::Io(doing, error) => write!(f, "{doing}: {error}"),
        }
    }
}

impl From<Error> for ConsumeFailure {
    fn from(error: Error) -> Self {
        ConsumeFailure::Room(error)
    }
}

impl From<ConsumeFailure> for Problem {
    fn from(failure: ConsumeFailure) -> Self {
        let kind = match &failure {
            ConsumeFailure::Io(..) => Kind::System,
            ConsumeFailure::Room(_) => Kind::Failed,
        };
        Problem::new(kind, failure.to_string())
    }
}

/// Runs the benchmark and the check at its end.
pub fn run(options: &ConsumeBenchOptions) -> Result<Report, Problem> {
    let target = Target::new(options.file.as_deref())?;
    measure(options, &target).map_err(Problem::from)
}

fn measure(options: &ConsumeBenchOptions, target: &Target) -> Result<Report, ConsumeFailure> {
    let raw_flush = disk::raw_flush_p50(target.directory()).map_err(|error| {
        ConsumeFailure::Io(
            format!("measuring the raw flush in {}", target.directory().display()),
            error,
        )
    })?;
    let room = open(options, target.path())?;
    let keys = keys(options.tokens);
    preload(&room, &keys)?;
    room.checkpoint()?;

    let before = room.engine_stats()?;
    let contest = ConsumeRun::new(options, &keys);
    let run = contest.run(&room)?;
    let at_end = room.engine_stats()?;
    // The checkpoint of the measured consumes counts for their bytes, but not for their time.
    room.checkpoint()?;
    let settled = room.engine_stats()?;
    room.close()?;
    drop(room);

    let consumed = consumed_after_reopen(options, target.path(), &keys)?;
    let acknowledged = contest.acknowledged();
    let mut latencies = run.latencies;
    latencies.sort_unstable();
    Ok(Report {
        tokens: options.tokens,
        threads: if options.race > 0 { options.race } else { options.threads },
        pipeline: options.pipeline,
        race: options.race,
        seconds: run.elapsed.as_secs_f64(),
        ops: latencies.len() as u64,
        p50_us: percentile(&latencies, 50),
        p99_us: percentile(&latencies, 99),
        flushes: at_end.flushes - before.flushes,
        raw_flush_p50_us: raw_flush.as_secs_f64() * 1e6,
        checkpoints: at_end.checkpoints - before.checkpoints,
        log_bytes: settled.log_bytes_written - before.log_bytes_written,
        bytes_written: settled.log_bytes_written + settled.btree_bytes_written
            - before.log_bytes_written
            - before.btree_bytes_written,
        proceeds: acknowledged.iter().map(|&count| u64::from(count)).sum(),
        replays: run.replays,
        double_consumes: acknowledged.iter().filter(|&&count| count > 1).count() as u64,
        consumed_after_reopen: consumed.iter().filter(|&&consumed| consumed).count() as u64,
        changed_by_reopen: acknowledged
            .iter()
            .zip(&consumed)
            .filter(|&(&count, &consumed)| (count > 0) != consumed)
            .count() as u64,
    })
}

fn open(options: &ConsumeBenchOptions, path: &Path) -> Result<Cloakroom, Error> {
    let durability = match options.durability {
        Level::Sync => Durability::Sync,
        Level::Os => Durability::Os,
    };
    Cloakroom::builder()
        .durability(durability)
        .log_capacity(options.log_capacity)
        .cache_size(options.cache_size)
        .open(path)
}

/// Distinct keys as a keyed hash would give: 32 random bytes in lowercase hex.
fn keys(tokens: u64) -> Vec<LookupKey> {
    let mut random = fastrand::Rng::with_seed(tokens);
    (0..tokens)
        .map(|number| {
            // Distinct by construction in the last word; sorted order stays random.
            let words = [random.u64(..), random.u64(..), random.u64(..), number];
            LookupKey::new(words.iter().map(|word| format!("{word:016x}")).collect::<String>())
        })
        .collect()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn subject() -> TokenSubject {
    TokenSubject::Authenticated("user-4711".into())
}

fn preload(room: &Cloakroom, keys: &[LookupKey]) -> Result<(), Error> {
    let bar = progress(keys.len() as u64, "handing in");
    let issued_at = now_seconds();
    let mut pending = VecDeque::new();
    for batch in keys.chunks(PRELOAD_BATCH) {
        pending.push_back(room.atomically(|tx| {
            batch.iter().try_for_each(|key| {
                tx.form_tokens().insert_form_token(FormTokenRecord {
                    lookup_key: key.clone(),
                    key_version: "1".into(),
                    subject: subject(),
                    purpose: PURPOSE.into(),
                    bound_resource: None,
                    issued_at,
                    expires_at: issued_at + TOKEN_LIFE_SECONDS,
                })
            })
        }));
        if pending.len() > 16 {
            pending.pop_front().map_or(Ok(()), Pending::wait)?;
        }
        bar.inc(batch.len() as u64);
    }
    pending.into_iter().try_for_each(Pending::wait)?;
    bar.finish_and_clear();
    Ok(())
}

/// Threads that consume tokens until the time is over or none are left.
struct ConsumeRun<'a> {
    options: &'a ConsumeBenchOptions,
    keys: &'a [LookupKey],
    /// The order in which tokens are consumed.
    order: Vec<u32>,
    next: AtomicUsize,
    /// How often each token was acknowledged as consumed.
    acknowledged: Vec<AtomicU8>,
    stop: AtomicBool,
}

struct Run {
    elapsed: Duration,
    latencies: Vec<Duration>,
    replays: u64,
}

/// A consume that was called and has not returned yet.
struct InFlight {
    token: usize,
    called: Instant,
    answer: Pending<(TokenConsumeOutcome, Option<String>)>,
}

impl<'a> ConsumeRun<'a> {
    fn new(options: &'a ConsumeBenchOptions, keys: &'a [LookupKey]) -> Self {
        let mut order: Vec<u32> = (0..).take(keys.len()).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        let acknowledged = keys.iter().map(|_| AtomicU8::new(0)).collect();
        Self {
            options,
            keys,
            order,
            next: AtomicUsize::new(0),
            acknowledged,
            stop: AtomicBool::new(false),
        }
    }

    fn acknowledged(&self) -> Vec<u8> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn run(&self, room: &Cloakroom) -> Result<Run, ConsumeFailure> {
        let threads = if self.options.race > 0 { self.options.race } else { self.options.threads };
        let bar = progress(self.keys.len() as u64, "consuming");
        let (gate, finished) = (RwLock::new(()), AtomicUsize::new(0));
        let deadline = Duration::from_secs_f64(self.options.seconds);
        std::thread::scope(|scope| {
            // No thread starts before all are ready. If one cannot be started, the others end at
            // once.
            let closed = gate.write();
            let mut workers = Vec::with_capacity(threads);
            for _ in 0..threads {
                let worker =
                    std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, || {
                        drop(gate.read());
                        let result = self.consume(&room.form_tokens());
                        finished.fetch_add(1, Ordering::Release);
                        result
                    });
                workers.push(worker.map_err(|error| {
                    self.stop.store(true, Ordering::Release);
                    ConsumeFailure::Io(format!("starting {threads} threads"), error)
                })?);
            }
            drop(closed);
            let started = Instant::now();
            while started.elapsed() < deadline && finished.load(Ordering::Acquire) < threads {
                bar.set_position(self.next.load(Ordering::Relaxed).min(self.keys.len()) as u64);
                std::thread::sleep(
                    Duration::from_millis(20).min(deadline.saturating_sub(started.elapsed())),
                );
            }
            self.stop.store(true, Ordering::Release);
            let mut run = Run { elapsed: Duration::ZERO, latencies: Vec::new(), replays: 0 };
            for worker in workers {
                let Ok(result) = worker.join() else {
                    let panicked = std::io::Error::other("it panicked");
                    return Err(ConsumeFailure::Io("joining a worker".into(), panicked));
                };
                let worker = result?;
                // The run lasts until the last answer of any thread.
                run.elapsed = run.elapsed.max(worker.ended.duration_since(started));
                run.latencies.extend(worker.latencies);
                run.replays += worker.replays;
            }
            bar.finish_and_clear();
            Ok(run)
        })
    }

    fn consume(&self, store: &FormTokens) -> Result<Worker, Error> {
        let mut worker = Worker { latencies: Vec::new(), replays: 0, ended: Instant::now() };
        let mut in_flight: VecDeque<InFlight> = VecDeque::with_capacity(self.options.pipeline);
        let (subject, mut mine) = (subject(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            // In a race every thread goes through all tokens; otherwise each token is taken by one.
            let index = if self.options.race > 0 {
                mine += 1;
                self.next.store(mine, Ordering::Relaxed);
                mine - 1
            } else {
                self.next.fetch_add(1, Ordering::Relaxed)
            };
            let Some(token) = self.order.get(index).map(|&token| token as usize) else { break };
            let called = Instant::now();
            let answer =
                store.consume_form_token(&self.keys[token], &subject, PURPOSE, None, now_seconds());
            in_flight.push_back(InFlight { token, called, answer });
            if in_flight.len() >= self.options.pipeline {
                self.finish(in_flight.pop_front(), &mut worker)?;
            }
        }
        while !in_flight.is_empty() {
            self.finish(in_flight.pop_front(), &mut worker)?;
        }
        worker.ended = Instant::now();
        Ok(worker)
    }

    fn finish(&self, oldest: Option<InFlight>, worker: &mut Worker) -> Result<(), Error> {
        let Some(InFlight { token, called, answer }) = oldest else { return Ok(()) };
        let (outcome, _) = answer.wait()?;
        worker.latencies.push(called.elapsed());
        match outcome {
            TokenConsumeOutcome::Proceed => {
                self.acknowledged[token].fetch_add(1, Ordering::Relaxed);
            }
            TokenConsumeOutcome::Replay => worker.replays += 1,
            _ => {}
        }
        Ok(())
    }
}

struct Worker {
    latencies: Vec<Duration>,
    replays: u64,
    ended: Instant,
}

/// Opens the file again and checks for each token whether it is consumed.
fn consumed_after_reopen(
    options: &ConsumeBenchOptions,
    path: &Path,
    keys: &[LookupKey],
) -> Result<Vec<bool>, Error> {
    let room = open(options, path)?;
    let bar = progress(keys.len() as u64, "checking");
    let numbers: std::collections::HashMap<&str, usize> =
        keys.iter().enumerate().map(|(number, key)| (key.as_str(), number)).collect();
    let mut consumed = vec![false; keys.len()];
    let mut cursor = None;
    loop {
        let page = room.form_tokens().list(cursor.as_ref(), MAX_LIST_LIMIT).wait()?;
        bar.inc(page.items.len() as u64);
        for token in page.items {
            if let Some(&number) = numbers.get(token.record.lookup_key.as_str()) {
                consumed[number] = token.consumed.is_some();
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    room.close()?;
    Ok(consumed)
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}
