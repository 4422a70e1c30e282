//! Both readings of the clock moved at random over all stores, against a reference that knows the
//! truth.
//!
//! A device stores entries of many spans, its wall clock is set to anything, it is switched off,
//! restarted and killed. After each step every entry is looked at in every store, without changing
//! it. The reference ([`crate::time_line_truth`]) keeps the true time of everything and asserts:
//!
//! - **What was stored since the opening** (or before one about which both readings agree) ends
//!   exactly after its span, wherever the wall clock goes.
//! - **What was stored before** ends by the true time, to the tolerance of a step, where the wall
//!   clock shows the right time again and never showed less since the room was opened, or so much
//!   less that it says nothing (1970): also over several openings in one doubt.
//! - **Where the clock was not set since the opening** it is believed, whatever it shows, and never
//!   to say that less than nothing has passed.
//! - **Otherwise** an entry is at least as old as the room was open since, and at most as old as
//!   the clock has said. A clock that is far behind moves nothing.
//! - **What was settled** (the clock has gone on for ten minutes) stays as it was believed.
//! - **A sweep** leaves everything that is not over by the time that was beyond doubt, and nothing
//!   that is.
//! - **A form token**, which ends by the true time, is there as long as no sweep has seen the wall
//!   clock behind its end, or no clock that was so far ahead of the truth has held, and is gone a
//!   day behind its end by a clock that has held.
//! - **A process that is killed** has not written down its last ten seconds: so much may be missing
//!   where nothing else says that it passed.
//! - **All stores agree**: a value, a state, a lease, a finished job, an exact window, both windows
//!   of an adaptive limiter and an event that was replaced end at the same moment.

use crate::scale::scaled;
use crate::time_line_truth::{Closed, Range, Truth, When};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::{CacheStore, Ttl};
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateError, StateRecord};
use cloakroom::{Cloakroom, Durability, ManualClock};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
/// The right time at the beginning.
const NOW: u64 = 56 * YEAR;
const SPANS: [u64; 7] =
    [10 * SECOND, 90 * SECOND, 15 * MINUTE, HOUR, 30 * HOUR, 30 * DAY, 500 * DAY];
const PASSES: [u64; 9] =
    [1, SECOND, 20 * SECOND, 2 * MINUTE, 11 * MINUTE, HOUR, 30 * HOUR, 20 * DAY, 0];
/// How many entries are looked at one by one.
const MOST_WATCHED: usize = 5;

/// How the wall clock is set.
#[derive(Debug, Clone, Copy)]
enum Wall {
    Right,
    /// So much more or less than the truth.
    Off(i64),
    /// As after a start without a battery.
    Since1970,
}

impl Wall {
    fn error(self, now_ms: u64) -> i128 {
        let shown = match self {
            Wall::Right => now_ms,
            Wall::Off(by_ms) => now_ms.saturating_add_signed(by_ms),
            Wall::Since1970 => 20 * SECOND,
        };
        i128::from(shown) - i128::from(now_ms)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    /// Until an entry is about to end, or has just ended.
    PassToEnd {
        entry: usize,
        ended: bool,
    },
    Set(Wall),
    Store(u64),
    Sweep,
    Reopen {
        killed: bool,
        closed_ms: u64,
        new_start: bool,
        wall: Option<Wall>,
    },
}

struct Entry {
    id: String,
    stored: When,
    span_ms: u64,
    /// The true end of its form token.
    token_ends_ms: u64,
    /// Whether a sweep may have removed that.
    may_be_gone: bool,
}

struct Device {
    _dir: tempfile::TempDir,
    path: PathBuf,
    copies: u32,
    clock: Arc<ManualClock>,
    room: Option<Cloakroom>,
    /// The true time.
    now_ms: u64,
    truth: Truth,
    entries: Vec<Entry>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn token_key(id: &str) -> LookupKey {
    LookupKey::new(format!("{id}-token"))
}

fn slot(id: &str) -> Identity {
    Identity::new("t", "u", "s", id)
}

fn event(id: &str, event: &str) -> StateRecord {
    StateRecord::new(slot(id), "plan", vec![1]).with_id(format!("{id}-{event}").as_str())
}

impl Device {
    fn new(starts: Wall) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.cloak");
        let error = starts.error(NOW);
        let clock = Arc::new(ManualClock::new(u64::try_from(i128::from(NOW) + error).unwrap()));
        let mut device = Self {
            path,
            _dir: dir,
            copies: 0,
            clock,
            room: None,
            now_ms: NOW,
            truth: Truth::new(error),
            entries: Vec::new(),
        };
        device.open();
        device
    }

    fn room(&self) -> &Cloakroom {
        self.room.as_ref().unwrap()
    }

    fn open(&mut self) {
        let builder = Cloakroom::builder()
            .clock(self.clock.clone())
            .sweep_interval(None)
            .durability(Durability::Os)
            .log_capacity(cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY);
        self.room = Some(builder.open(&self.path).unwrap());
        self.write();
    }

    /// Any write takes what is new of the line with it.
    fn write(&self) {
        self.room().cache::<u8>("other").set("w", &1, 0).wait().unwrap();
    }

    fn wall_at(&self, error: i128) -> u64 {
        u64::try_from(i128::from(self.now_ms) + error).unwrap()
    }

    fn pass(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        self.clock.advance(ms(passed_ms));
        self.write();
        self.truth.pass(passed_ms);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(passed_ms) => self.pass(passed_ms),
            Step::PassToEnd { entry, ended } => {
                let Some(entry) = self.watched().nth(entry % MOST_WATCHED) else { return };
                let age = self.truth.age(entry.stored);
                let left_ms = i128::from(entry.span_ms) - age.most - i128::from(!ended);
                if let Ok(left_ms) = u64::try_from(left_ms)
                    && age.least == age.most
                {
                    self.pass(left_ms);
                }
            }
            Step::Set(wall) => {
                let error = wall.error(self.now_ms);
                self.clock.leap(self.wall_at(error));
                self.write();
                self.truth.set_error(error);
            }
            Step::Store(span_ms) => self.store(span_ms),
            Step::Sweep => {
                self.room().sweep().unwrap();
                self.check_presence();
                self.check_tokens();
            }
            Step::Reopen { killed, closed_ms, new_start, wall } => {
                self.reopen(killed, closed_ms, new_start, wall);
            }
        }
    }

    fn reopen(&mut self, killed: bool, closed_ms: u64, new_start: bool, wall: Option<Wall>) {
        let shown = cloakroom::Clock::now_ms(self.clock.as_ref());
        let was_error = i128::from(shown) - i128::from(self.now_ms);
        if killed {
            self.write();
            self.copies += 1;
            let copy = self.path.with_file_name(format!("{}.cloak", self.copies));
            std::fs::copy(&self.path, &copy).unwrap();
            self.path = copy;
            self.room = None;
        } else {
            self.room.take().unwrap().close().unwrap();
        }
        self.now_ms += closed_ms;
        let error = wall.map_or(was_error, |wall| wall.error(self.now_ms));
        if new_start {
            self.clock = Arc::new(ManualClock::new(self.wall_at(error)));
        } else {
            self.clock.advance(ms(closed_ms));
            self.clock.leap(self.wall_at(error));
        }
        let closed = Closed { true_ms: closed_ms, same_origin: !new_start, killed };
        self.truth.reopen(closed, error);
        self.open();
    }

    fn store(&mut self, span_ms: u64) {
        let id = self.entries.len().to_string();
        let (room, span) = (self.room(), ms(span_ms));
        room.cache::<u8>("http").set_for(&id, &1, Ttl::For(span)).wait().unwrap();
        let states = room.handoff();
        states.set_for(&id, &JsonObject::new(), span).wait().unwrap();
        let claimed = format!("claimed-{id}");
        states.set_for(&claimed, &JsonObject::new(), ms(900 * YEAR)).wait().unwrap();
        assert!(states.claim(&claimed, span).wait().unwrap().is_some());
        let jobs = room.dedupe::<u8>("http").with_job_timeout(span);
        jobs.register(&id).wait().unwrap();
        jobs.complete(&id, &1).wait().unwrap();
        let limiter = self.limiter(span_ms);
        limiter.record(&id).wait().unwrap();
        limiter.record("all").wait().unwrap();
        let adaptive = self.adaptive(span_ms);
        adaptive.record(&id, Priority::User).wait().unwrap();
        adaptive.record("all", Priority::User).wait().unwrap();
        let events = room.state().with_late_window(span);
        for name in ["a", "b"] {
            cloakroom::state::StateStore::save(&events, event(&id, name)).wait().unwrap();
        }
        let expires_at = (self.now_ms + span_ms) / 1_000 + 1;
        let token =
            FormTokenRecord::new(token_key(&id), TokenSubject::Anonymous, "pay", expires_at);
        room.form_tokens().insert_form_token(token).wait().unwrap();
        let (stored, token_ends_ms) = (self.truth.now(), expires_at * 1_000);
        self.entries.push(Entry { id, stored, span_ms, token_ends_ms, may_be_gone: false });
    }

    fn limiter(&self, span_ms: u64) -> cloakroom::rate_limit::RateLimit {
        let config = RateLimitConfig { limit: 1, window: ms(span_ms) };
        self.room().rate_limit(&span_ms.to_string(), config).unwrap()
    }

    fn adaptive(&self, span_ms: u64) -> cloakroom::adaptive_rate_limit::AdaptiveRateLimit {
        let config = RateLimitConfig { limit: 1, window: ms(span_ms) };
        let adaptive = AdaptiveConfig::default().with_monitoring_window(ms(span_ms));
        self.room().adaptive_rate_limit(&span_ms.to_string(), config, adaptive).unwrap()
    }

    fn watched(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev().take(MOST_WATCHED)
    }

    /// Whether an entry is over, by each store that has it.
    fn verdicts(&self, entry: &Entry) -> [(&'static str, bool); 8] {
        let (room, id, span) = (self.room(), entry.id.as_str(), ms(entry.span_ms));
        let claimed = format!("claimed-{id}");
        let jobs = room.dedupe::<u8>("http").with_job_timeout(span);
        let events = room.state().with_late_window(span);
        let mut is_new = false;
        // It leaves nothing.
        let undone = room.atomically(|tx| {
            events.within(tx).save(event(id, "a"))?;
            is_new = events.within(tx).load(&slot(id), "plan")?.id.as_str().ends_with('a');
            Err::<(), _>(StateError::NotFound)
        });
        assert!(undone.wait().is_err());
        let adaptive = self.adaptive(entry.span_ms);
        [
            ("cache", room.cache::<u8>("http").get(id).wait().unwrap().is_none()),
            ("handoff", room.handoff().get(id).wait().unwrap().is_none()),
            ("lease", room.handoff().get(&claimed).wait().unwrap().is_some()),
            ("job", jobs.wait_for(id).wait().unwrap().is_none()),
            ("window", self.limiter(entry.span_ms).can_proceed(id).wait().unwrap()),
            ("adaptive", adaptive.can_proceed(id, Priority::User).wait().unwrap()),
            ("monitoring", adaptive.status(id).wait().unwrap().recent_user_activity == 0),
            ("event", is_new),
        ]
    }

    fn check(&self) {
        for entry in self.watched() {
            let age = self.truth.age(entry.stored);
            let verdicts = self.verdicts(entry);
            let context = || format!("{} of {} ms: {age:?}, {verdicts:?}", entry.id, entry.span_ms);
            // An entry of the last seconds before a kill may seem to be newer than the kill.
            let agree = verdicts.iter().all(|(_, each)| *each == verdicts[0].1);
            assert!(agree || self.truth.may_be_lost(entry.stored), "{}", context());
            for (_, over) in verdicts {
                assert!(!over || age.most >= entry.span_ms.into(), "too early: {}", context());
                assert!(over || age.least < entry.span_ms.into(), "too late: {}", context());
            }
        }
        self.check_counts();
    }

    /// One resource that had all requests of a span.
    fn check_counts(&self) {
        for span_ms in SPANS {
            let of_span = || self.entries.iter().filter(|entry| entry.span_ms == span_ms);
            if of_span().next().is_none() {
                continue;
            }
            let span = i128::from(span_ms);
            let count = |holds: fn(Range, i128) -> bool| {
                of_span().filter(|entry| holds(self.truth.age(entry.stored), span)).count() as u64
            };
            let (least, most) =
                (count(|age, span| age.most < span), count(|age, span| age.least < span));
            let status = self.adaptive(span_ms).status("all").wait().unwrap();
            let seen = status.recent_user_activity;
            assert!((least..=most).contains(&seen), "{span_ms}: {seen} of {least}..={most}");
        }
    }

    /// The same of form tokens, after a sweep.
    fn check_tokens(&mut self) {
        let wall_ms = i128::from(self.wall_at(self.truth.error()));
        let trusted_ms = i128::from(self.now_ms) + self.truth.most_trusted();
        // Settings of the clock that are no steps.
        let slack = 60_000 + i128::from(self.now_ms - NOW) / 500;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let end = i128::from(entry.token_ends_ms);
            let (key, subject) = (token_key(&entry.id), TokenSubject::Anonymous);
            let tokens = self.room().form_tokens();
            let seen = tokens.peek_form_token(&key, &subject, "pay", None, 0).wait().unwrap().0;
            let is_there = seen == TokenConsumeOutcome::Proceed;
            let may_be_gone = entry.may_be_gone || (wall_ms >= end && trusted_ms + slack >= end);
            let must_be_gone = self.truth.has_held() && wall_ms >= end + i128::from(DAY) + slack;
            let context = || format!("{}: {end}, {wall_ms}, {trusted_ms}", entry.id);
            assert!(is_there || may_be_gone, "too early: the token {}", context());
            assert!(!is_there || !must_be_gone, "too late: the token {}", context());
            self.entries[index].may_be_gone = may_be_gone;
        }
    }

    /// What a sweep must have left, and what it must not.
    fn check_presence(&self) {
        let count = |holds: fn(Range, i128) -> bool| {
            let ages = self.entries.iter();
            let held =
                ages.filter(|entry| holds(self.truth.sure_age(entry.stored), entry.span_ms.into()));
            held.count() as u64
        };
        let (least, most) =
            (count(|age, span| age.most < span), count(|age, span| age.least < span));
        let values = self.room().cache::<u8>("http").stats().wait().unwrap();
        let jobs = self.room().dedupe::<u8>("http").stats().wait().unwrap();
        let states = self.room().handoff().stats().wait().unwrap();
        let all = self.entries.len() as u64;
        for (store, there) in [
            ("cache", values.live + values.expired),
            ("jobs", jobs.completed + jobs.expired),
            ("handoff", states.live + states.claimed + states.expired - all),
        ] {
            assert!((least..=most).contains(&there), "{store}: {there} of {least}..={most}");
        }
    }
}

fn run(steps: &[Step], starts: Wall) {
    let mut device = Device::new(starts);
    for step in steps {
        device.step(step);
        if device.truth.is_vague {
            return;
        }
        device.check();
    }
    let findings = device.room().verify().unwrap().findings;
    assert!(findings.is_empty(), "{findings:?}");
}

fn wall() -> impl Strategy<Value = Wall> {
    let by = [30 * SECOND, 5 * MINUTE, 2 * HOUR, 3 * DAY, 10 * YEAR];
    let by = prop::sample::select(by.map(|by| i64::try_from(by).unwrap()).to_vec());
    prop_oneof![
        4 => Just(Wall::Right),
        2 => by.clone().prop_map(Wall::Off),
        1 => by.prop_map(|by| Wall::Off(-by)),
        2 => Just(Wall::Since1970),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let passes = || prop::sample::select(PASSES.to_vec());
    prop_oneof![
        5 => passes().prop_map(Step::Pass),
        3 => (0..MOST_WATCHED, any::<bool>())
            .prop_map(|(entry, ended)| Step::PassToEnd { entry, ended }),
        4 => wall().prop_map(Step::Set),
        5 => prop::sample::select(SPANS.to_vec()).prop_map(Step::Store),
        3 => Just(Step::Sweep),
        4 => (any::<bool>(), passes(), any::<bool>(), prop::option::of(wall())).prop_map(
            |(killed, closed_ms, new_start, wall)| Step::Reopen {
                killed, closed_ms, new_start, wall
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(24, 150), max_shrink_iters: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_clock_does_every_store_ends_things_by_the_truth_or_as_the_contract_says(
        starts in prop_oneof![3 => Just(Wall::Right), 1 => wall()],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(&steps, starts);
    }
}
