//! A simulated year: hours of churn over every store, compressed by a manual clock.

use super::target::Target;
use super::{BEGIN_MS, key, ms, resident_bytes};
use crate::output::Output;
use crate::problem::{Kind, Problem, Verdict};
use crate::progress;
use crate::units;
use clap::Args;
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error, ManualClock, Pending};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_SECONDS: u64 = 3_600;

/// How often the file is measured.
const SAMPLES: u64 = 24;

/// A year is flat when its second half needs at most this much more space than its first, in
/// percent.
const FLAT_PERCENT: u64 = 110;

/// How far the background may be behind a clock that runs a million times too fast before the year
/// waits for it.
const CATCH_UP_FOR: Duration = Duration::from_secs(60);

/// Simulate a year of churn over every store, and check that the file stays small.
///
/// Every simulated hour inserts form tokens, claim checks, cached responses, jobs, requests and
/// agent states, takes and completes most of them, and advances the clock: all of them expire
/// within a day. Nothing is swept or compacted explicitly. At intervals it records the length of
/// the file, the memory of the process, and the time to open what a kill at that moment would
/// leave.
///
/// Exit codes: 0 the file stayed flat and every byte of it verifies; 1 it did not; 2 the benchmark
/// could not be run.
#[derive(Debug, Args)]
pub struct YearBenchOptions {
    /// A new file to work on, which is kept; without it a temporary file in the current directory
    /// is used and deleted.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Days to simulate.
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
    /// Entries of each kind per hour.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    per_hour: u64,
    /// Agent states that stay in the room, and are saved again one after the other.
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    states: u64,
}

/// The state of the file at one moment.
struct Sample {
    day: u64,
    file_bytes: u64,
    resident_bytes: Option<u64>,
    live: u64,
    open: Duration,
}

pub fn run(options: &YearBenchOptions, out: &mut Output) -> Result<Verdict, Problem> {
    let target = Target::new(options.file.as_deref())?;
    let clock = Arc::new(ManualClock::new(BEGIN_MS));
    let room = Cloakroom::builder().clock(clock.clone()).open(target.path());
    let room = room.map_err(|error| Problem::of(&error, target.path()))?;
    let mut year = Year {
        options,
        room,
        clock,
        random: fastrand::Rng::with_seed(1),
        taken: Vec::new(),
        hour: 0,
    };
    let samples = year.simulate(&target).map_err(|failure| failure.problem(target.path()))?;
    let stats = year.room.engine_stats().map_err(|error| Problem::of(&error, target.path()))?;
    year.room.close().map_err(|error| Problem::of(&error, target.path()))?;
    let verified = cloakroom::tools::verify(target.path())
        .map_err(|error| Problem::of(&error, target.path()))?;

    let flat = is_flat(samples.iter().map(|sample| sample.file_bytes));
    if out.is_json() {
        for sample in &samples {
            out.object(&json!({
                "day": sample.day, "file_bytes": sample.file_bytes, "resident_bytes": sample.resident_bytes,
                "live": sample.live, "open_ms": ms(sample.open),
            }))?;
        }
        out.object(&json!({
            "workload": "year", "days": options.days, "per_hour": options.per_hour, "states": options.states,
            "flat": flat, "verified": verified.is_ok(), "swept": stats.swept,
            "checkpoints": stats.checkpoints, "log_bytes_written": stats.log_bytes_written,
            "btree_bytes_written": stats.btree_bytes_written,
        }))?;
    } else {
        out.lines(table(&samples))?;
        let verdict =
            if flat { "flat" } else { "NOT flat: the second half needs more than the first" };
        let intact = if verified.is_ok() { "every byte verifies" } else { "it does NOT verify" };
        out.line(&format!("{} entries swept; {verdict}; {intact}", units::count(stats.swept)))?;
    }
    Ok(if flat && verified.is_ok() { Verdict::Fine } else { Verdict::Wrong })
}

fn table(samples: &[Sample]) -> Vec<String> {
    let heading = ["day", "file", "memory", "live entries", "time to open"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(samples.iter().map(|sample| {
        vec![
            sample.day.to_string(),
            units::bytes(sample.file_bytes),
            sample.resident_bytes.map_or_else(|| "?".to_owned(), units::bytes),
            units::count(sample.live),
            format!("{:.1} ms", ms(sample.open)),
        ]
    }));
    units::table(&rows)
}

/// Whether the second half needs about as much space as the first. The first sample, of an empty
/// room, counts like the others.
fn is_flat(lengths: impl Iterator<Item = u64>) -> bool {
    let lengths: Vec<_> = lengths.collect();
    let (first, second) = lengths.split_at(lengths.len() / 2);
    match (first.iter().max(), second.iter().max()) {
        (Some(first), Some(second)) => second * 100 <= first * FLAT_PERCENT,
        _ => true,
    }
}

enum YearFailure {
    Room(Error),
    State(StateError),
    System(&'static str, std::io::Error),
    Behind,
}

impl From<Error> for YearFailure {
    fn from(error: Error) -> Self {
        YearFailure::Room(error)
    }
}

impl From<StateError> for YearFailure {
    fn from(error: StateError) -> Self {
        YearFailure::State(error)
    }
}

impl YearFailure {
    fn problem(self, path: &Path) -> Problem {
        match self {
            YearFailure::Room(error) => Problem::of(&error, path),
            YearFailure::State(error) => Problem::new(Kind::Failed, error.to_string()),
            YearFailure::System(doing, error) => Problem::system(doing, error),
            YearFailure::Behind => {
                Problem::new(Kind::Failed, "the background does not catch up with the clock")
            }
        }
    }
}

struct Year<'a> {
    options: &'a YearBenchOptions,
    room: Cloakroom,
    clock: Arc<ManualClock>,
    random: fastrand::Rng,
    /// The keys of the previous hour.
    taken: Vec<String>,
    hour: u64,
}

impl Year<'_> {
    fn simulate(&mut self, target: &Target) -> Result<Vec<Sample>, YearFailure> {
        let bar = progress::bar(self.options.days, "days");
        let every = (self.options.days / SAMPLES).max(1);
        let mut samples = Vec::new();
        for day in 1..=self.options.days {
            for _ in 0..24 {
                self.one_hour()?;
            }
            self.catch_up()?;
            if day.is_multiple_of(every) {
                samples.push(self.sample(day, target)?);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    fn one_hour(&mut self) -> Result<(), YearFailure> {
        let now_ms = BEGIN_MS + self.hour * HOUR_SECONDS * 1_000;
        let now = now_ms / 1_000;
        let keys: Vec<String> = (0..self.options.per_hour)
            .map(|number| key(&mut self.random, self.hour * self.options.per_hour + number))
            .collect();
        let room = &self.room;
        let (tokens, states) = (room.form_tokens(), room.handoff());
        let (cache, jobs) = (room.cache::<JsonObject>("http"), room.dedupe::<JsonObject>("http"));
        let limiter = room
            .rate_limit("api", RateLimitConfig { limit: 600, window: Duration::from_secs(60) })?;
        let subject = TokenSubject::Authenticated("user-4711".into());
        let body = JsonObject::from_iter([("body".to_owned(), json!("x".repeat(300)))]);

        let mut waits: Vec<Pending<()>> = Vec::new();
        let (mut registered, mut admitted) = (Vec::new(), Vec::new());
        let (mut spent, mut handed_over) = (Vec::new(), Vec::new());
        for (number, key) in keys.iter().enumerate() {
            waits.push(tokens.insert_form_token(FormTokenRecord {
                lookup_key: LookupKey::new(key.clone()),
                key_version: "1".into(),
                subject: subject.clone(),
                purpose: "pay".into(),
                bound_resource: None,
                issued_at: now,
                expires_at: now + HOUR_SECONDS,
            }));
            waits.push(states.set(key, &body, 6 * HOUR_SECONDS));
            waits.push(cache.set_with_tags(key, &body, 24 * 3_600, &["page", &key[..2]]));
            registered.push(jobs.register_or_join(key));
            if number % 2 == 0 {
                waits.push(jobs.complete(key, &body));
            }
            admitted.push(limiter.acquire(&format!("user-{}", number % 20)));
        }
        for key in self.taken.iter().skip(self.taken.len() / 4) {
            let token = LookupKey::new(key.clone());
            spent.push(tokens.consume_form_token(&token, &subject, "pay", None, now - 1));
            handed_over.push(states.get_and_delete(key));
        }
        let mut saved = Vec::new();
        for number in 0..self.options.per_hour {
            let slot = (self.hour * self.options.per_hour + number) % self.options.states;
            saved.push(room.state().with_durability(Durability::Os).save(StateRecord {
                id: cloakroom::state::EventId::new(),
                identity: Identity {
                    tenant: "acme".into(),
                    user: format!("user-{}", slot % 100),
                    session: format!("session-{}", slot / 100),
                    run: String::new(),
                },
                kind: "checkpoint".into(),
                version: 1,
                bytes: vec![7; 200],
                updated_at: Some(now_ms),
            }));
        }
        waits.into_iter().try_for_each(Pending::wait)?;
        saved.into_iter().try_for_each(Pending::wait)?;
        answered(registered)?;
        answered(admitted)?;
        answered(spent)?;
        answered(handed_over)?;
        self.taken = keys;
        self.hour += 1;
        self.clock.advance(HOUR);
        Ok(())
    }

    /// Waits until the sweeper in the background has nothing left to do.
    fn catch_up(&self) -> Result<(), YearFailure> {
        let began = Instant::now();
        while self.room.stats()?.sweep_backlog > 0 {
            if began.elapsed() > CATCH_UP_FOR {
                return Err(YearFailure::Behind);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Measures the file, and opens a copy of it, which is what a kill would leave.
    fn sample(&self, day: u64, target: &Target) -> Result<Sample, YearFailure> {
        // The background was woken, and has at least checked whether there is space to return.
        std::thread::sleep(Duration::from_millis(50));
        let live = self.room.stats()?.stores.iter().map(|store| store.live).sum();
        let image = target.path().with_extension("killed");
        let copied = std::fs::copy(target.path(), &image);
        let file_bytes = copied.map_err(|error| YearFailure::System("copying the file", error))?;
        let began = Instant::now();
        let opened =
            Cloakroom::builder().clock(self.clock.clone()).sweep_interval(None).open(&image);
        let open = began.elapsed();
        let closed = opened.and_then(|room| room.close());
        std::fs::remove_file(&image)
            .map_err(|error| YearFailure::System("deleting the copy", error))?;
        closed?;
        Ok(Sample { day, file_bytes, resident_bytes: resident_bytes(), live, open })
    }
}

/// Waits for answers and ignores them.
fn answered<T>(answers: Vec<Pending<T>>) -> Result<(), Error> {
    answers.into_iter().try_for_each(|answer| answer.wait().map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_flat_when_its_second_half_needs_no_more_than_its_first() {
        assert!(is_flat([].into_iter()));
        assert!(is_flat([5, 100, 90, 105].into_iter()));
        assert!(!is_flat([90, 100, 105, 111].into_iter()));
    }
}
