//! What a wrong or moving clock may do: the rows of "What was seen" and of the contract's table, on
//! every store.

use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::{Cache, CacheStore};
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::{Builder, Cloakroom, ManualClock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
/// The right time of these tests: in 2026.
const NOW: u64 = 56 * YEAR;
/// Longer than a leap must hold.
const HELD: Duration = Duration::from_secs(601);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A file, and what opens it with one clock.
struct Device {
    _dir: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<ManualClock>,
}

impl Device {
    fn at(now_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        Self { path, _dir: dir, clock: Arc::new(ManualClock::new(now_ms)) }
    }

    /// Another start of the system: the elapsed time begins anew, at a wall clock of this.
    fn restart(&mut self, now_ms: u64) {
        self.clock = Arc::new(ManualClock::new(now_ms));
    }

    fn builder(&self) -> Builder {
        Cloakroom::builder().clock(self.clock.clone()).sweep_interval(None)
    }

    fn open(&self) -> Cloakroom {
        self.builder().open(&self.path).unwrap()
    }
}

fn cache(room: &Cloakroom) -> Cache<u32> {
    room.cache("http")
}

fn keep(room: &Cloakroom, hash: &str, ttl_seconds: i64) {
    cache(room).set(hash, &7, ttl_seconds).wait().unwrap();
}

fn kept(room: &Cloakroom, hash: &str) -> bool {
    cache(room).get(hash).wait().unwrap().is_some()
}

fn limiter(room: &Cloakroom, limit: u64, seconds: u64) -> cloakroom::rate_limit::RateLimit {
    room.rate_limit("api", RateLimitConfig { limit, window: Duration::from_secs(seconds) }).unwrap()
}

fn token(key: &str, expires_at_ms: u64) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(key),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: expires_at_ms / 1_000,
    }
}

fn consume(room: &Cloakroom, key: &str, now_ms: u64) -> TokenConsumeOutcome {
    let subject = TokenSubject::Anonymous;
    let key = LookupKey::new(key);
    let consumed =
        room.form_tokens().consume_form_token(&key, &subject, "pay", None, now_ms / 1_000);
    consumed.wait().unwrap().0
}

/// Something in every store that lives for an hour, with a claim and a job.
struct Filled {
    claim: cloakroom::handoff::ClaimId,
    job: cloakroom::dedupe::JobId,
}

fn fill(room: &Cloakroom, wall_ms: u64) -> Filled {
    keep(room, "hour", 3_600);
    let states = room.handoff();
    states.set("free", &JsonObject::new(), 3_600).wait().unwrap();
    states.set("claimed", &JsonObject::new(), 7_200).wait().unwrap();
    let claim = states.claim("claimed", ms(HOUR)).wait().unwrap().unwrap().id;
    let jobs = room.dedupe::<u32>("jobs").with_job_timeout(ms(HOUR));
    let job = jobs.register("hour").wait().unwrap();
    let limiter = limiter(room, 2, 3_600);
    assert!(limiter.acquire("r").wait().unwrap() && limiter.acquire("r").wait().unwrap());
    let adaptive = adaptive(room);
    while adaptive.acquire("r", Priority::User).wait().unwrap() {}
    room.form_tokens().insert_form_token(token("0a", wall_ms + HOUR)).wait().unwrap();
    Filled { claim, job }
}

fn adaptive(room: &Cloakroom) -> cloakroom::adaptive_rate_limit::AdaptiveRateLimit {
    let config = RateLimitConfig { limit: 4, window: ms(HOUR) };
    room.adaptive_rate_limit("api", config, AdaptiveConfig::default()).unwrap()
}

/// Whether everything of [`fill`] is as it was. Looks, and takes nothing.
fn assert_whole(room: &Cloakroom, when: &str) {
    assert!(kept(room, "hour"), "{when}: the value");
    assert!(room.handoff().get("free").wait().unwrap().is_some(), "{when}: the state");
    assert!(room.handoff().get("claimed").wait().unwrap().is_none(), "{when}: the lease");
    let jobs = room.dedupe::<u32>("jobs").with_job_timeout(ms(HOUR));
    assert!(jobs.is_in_progress("hour").wait().unwrap(), "{when}: the job");
    assert!(!limiter(room, 2, 3_600).can_proceed("r").wait().unwrap(), "{when}: the limiter");
    let adaptive = adaptive(room).can_proceed("r", Priority::User).wait().unwrap();
    assert!(!adaptive, "{when}: the adaptive limiter");
}

/// Whether all of it has ended, and a limiter admits again.
fn assert_over(room: &Cloakroom, when: &str) {
    assert!(!kept(room, "hour"), "{when}: the value");
    assert!(room.handoff().get("free").wait().unwrap().is_none(), "{when}: the state");
    assert!(room.handoff().get("claimed").wait().unwrap().is_some(), "{when}: the lease");
    let jobs = room.dedupe::<u32>("jobs").with_job_timeout(ms(HOUR));
    assert!(!jobs.is_in_progress("hour").wait().unwrap(), "{when}: the job");
    assert!(limiter(room, 2, 3_600).can_proceed("r").wait().unwrap(), "{when}: the limiter");
    let adaptive = adaptive(room).can_proceed("r", Priority::User).wait().unwrap();
    assert!(adaptive, "{when}: the adaptive limiter");
}

// ---- What was seen

#[test]
fn what_was_stored_ten_years_ahead_ends_after_its_span_at_the_true_time() {
    for new_start in [true, false] {
        let mut device = Device::at(NOW + 10 * YEAR);
        let room = device.open();
        let limiter_of = |room: &Cloakroom| limiter(room, 2, 1);
        assert!(limiter_of(&room).acquire("r").wait().unwrap());
        assert!(limiter_of(&room).acquire("r").wait().unwrap());
        room.handoff().set("s", &JsonObject::new(), 3_600).wait().unwrap();
        assert!(room.handoff().claim("s", ms(30 * SECOND)).wait().unwrap().is_some());
        keep(&room, "v", 60);
        room.close().unwrap();
        if new_start {
            device.restart(NOW);
        } else {
            device.clock.leap(NOW);
        }
        let room = device.open();
        device.clock.advance(Duration::from_secs(300));
        assert!(limiter_of(&room).acquire("r").wait().unwrap());
        assert!(room.handoff().claim("s", ms(SECOND)).wait().unwrap().is_some());
        assert!(!kept(&room, "v"));
        assert_eq!(limiter_of(&room).wait_time("r").wait().unwrap(), Duration::ZERO);
    }
}

#[test]
fn a_day_ahead_for_a_second_while_open_is_not_noticed() {
    let device = Device::at(NOW);
    let room = device.open();
    let Filled { claim, job } = fill(&room, NOW);
    device.clock.leap(NOW + DAY);
    assert_whole(&room, "ahead");
    assert_eq!(room.sweep().unwrap().total(), 0);
    device.clock.advance(ms(SECOND));
    assert_eq!(room.sweep().unwrap().total(), 0);
    // Longer than a leap must hold, too: the line has not come there.
    device.clock.advance(HELD);
    assert_eq!(room.sweep().unwrap().total(), 0);
    device.clock.leap(NOW + SECOND + 601 * SECOND);
    assert_whole(&room, "back");
    assert_eq!(consume(&room, "0a", NOW + 601 * SECOND), TokenConsumeOutcome::Proceed);
    assert!(room.handoff().ack(&claim).wait().unwrap());
    let jobs = room.dedupe::<u32>("jobs").with_job_timeout(ms(HOUR));
    assert!(jobs.complete_owned("hour", &job, &1).wait().unwrap());
    room.close().unwrap();
    let room = device.open();
    assert!(kept(&room, "hour"));
    device.clock.advance(ms(HOUR));
    assert!(!kept(&room, "hour"));
}

#[test]
fn what_was_stored_after_a_boot_in_1970_has_its_whole_span_when_the_time_is_set() {
    for known in [false, true] {
        let mut device = Device::at(NOW);
        if known {
            keep(&device.open(), "old", 60);
        }
        device.restart(30 * SECOND);
        let room = device.open();
        keep(&room, "v", 600);
        device.clock.leap(NOW + 5 * SECOND);
        assert!(kept(&room, "v"));
        device.clock.advance(ms(599 * SECOND));
        // The other one has ended in the time that the room was open.
        assert_eq!(room.sweep().unwrap().total(), u64::from(known));
        assert!(kept(&room, "v"));
        device.clock.advance(ms(SECOND));
        assert!(!kept(&room, "v") && !kept(&room, "old"));
        device.clock.advance(HELD);
        assert_eq!(room.sweep().unwrap().total(), 1);
    }
}

// ---- The contract's table

#[test]
fn opened_far_behind_nothing_that_had_ended_comes_back_and_the_rest_ends_by_the_true_time() {
    let mut device = Device::at(NOW);
    let room = device.open();
    fill(&room, NOW);
    keep(&room, "minute", 60);
    device.clock.advance(ms(120 * SECOND));
    // The line is written at least every ten seconds in which anything is.
    keep(&room, "other", 0);
    assert!(!kept(&room, "minute"));
    room.close().unwrap();
    device.restart(20 * SECOND);
    let room = device.open();
    assert!(!kept(&room, "minute"), "it had ended");
    keep(&room, "new", 7_200);
    device.clock.advance(ms(60 * SECOND));
    assert!(kept(&room, "hour") && kept(&room, "new"));
    // Two hours have passed in truth.
    device.clock.leap(NOW + 2 * HOUR);
    assert!(!kept(&room, "hour") && kept(&room, "new"));
    assert!(room.handoff().get("free").wait().unwrap().is_none());
    assert!(limiter(&room, 2, 3_600).can_proceed("r").wait().unwrap());
    // Nothing is removed for good before the clock has held, but what ended before the opening.
    assert_eq!(room.sweep().unwrap().total(), 1);
    device.clock.advance(HELD);
    assert!(room.sweep().unwrap().total() >= 3);
    device.clock.advance(ms(2 * HOUR - 60 * SECOND - 602 * SECOND));
    assert!(kept(&room, "new"));
    device.clock.advance(ms(SECOND));
    assert!(!kept(&room, "new"));
}

#[test]
fn stored_years_ahead_it_ends_after_its_own_span_however_the_clock_is_set() {
    for (reopened, new_start) in [(false, false), (true, false), (true, true)] {
        let mut device = Device::at(NOW + 3 * YEAR);
        let mut room = device.open();
        fill(&room, NOW + 3 * YEAR);
        device.clock.advance(ms(HOUR / 2));
        assert_whole(&room, "half way");
        if reopened {
            room.close().unwrap();
        }
        let right = NOW + HOUR / 2;
        if new_start {
            device.restart(right);
        } else {
            device.clock.leap(right);
        }
        if reopened {
            room = device.open();
            assert!(kept(&room, "hour"));
        } else {
            assert_whole(&room, "set");
        }
        device.clock.advance(ms(HOUR / 2 - 1));
        assert!(kept(&room, "hour"));
        assert!(!limiter(&room, 2, 3_600).can_proceed("r").wait().unwrap());
        device.clock.advance(ms(1));
        assert_over(&room, "an hour");
    }
}

#[test]
fn opened_years_ahead_and_set_right_all_is_as_if_it_had_not_been() {
    for (new_start, ahead) in [(false, 10 * YEAR), (true, 10 * YEAR), (true, DAY)] {
        let mut device = Device::at(NOW);
        let room = device.open();
        fill(&room, NOW);
        room.form_tokens().insert_form_token(token("0b", NOW + HOUR)).wait().unwrap();
        assert_eq!(consume(&room, "0b", NOW), TokenConsumeOutcome::Proceed);
        room.close().unwrap();
        if new_start {
            device.restart(NOW + ahead);
        } else {
            device.clock.leap(NOW + ahead);
        }
        let room = device.open();
        // Believed, and nothing is lost by it: not by a sweep, nor by a call.
        assert!(!kept(&room, "hour"));
        assert!(room.handoff().get("free").wait().unwrap().is_none());
        assert_eq!(room.sweep().unwrap().total(), 0);
        device.clock.advance(ms(300 * SECOND));
        let limiter_now = limiter(&room, 2, 3_600);
        assert!(limiter_now.acquire("r").wait().unwrap());
        assert_eq!(room.sweep().unwrap().total(), 0);
        // Set right, five minutes later.
        device.clock.leap(NOW + 300 * SECOND);
        assert!(kept(&room, "hour"), "{new_start} {ahead}");
        assert!(room.handoff().get("free").wait().unwrap().is_some());
        assert!(room.handoff().get("claimed").wait().unwrap().is_none());
        assert_eq!(limiter_now.status("r").wait().unwrap().remaining, 0);
        assert_eq!(consume(&room, "0a", NOW + 300 * SECOND), TokenConsumeOutcome::Proceed);
        assert_eq!(consume(&room, "0b", NOW + 300 * SECOND), TokenConsumeOutcome::Replay);
        // Two of the requests were made an hour ago, and one 55 minutes.
        device.clock.advance(ms(HOUR - 300 * SECOND));
        assert_eq!(limiter_now.status("r").wait().unwrap().remaining, 1);
        assert!(!kept(&room, "hour"));
        assert!(room.sweep().unwrap().total() >= 2);
    }
}

#[test]
fn a_leap_that_has_held_is_swept_after_ten_minutes_or_what_the_option_says() {
    for (hold, option) in [(600, false), (60, true)] {
        let mut device = Device::at(NOW);
        fill(&device.open(), NOW);
        device.restart(NOW + YEAR);
        let mut builder = device.builder();
        if option {
            builder = builder.leap_hold(Duration::from_secs(60));
        }
        let room = builder.open(&device.path).unwrap();
        device.clock.advance(ms(hold * SECOND - 1));
        assert_eq!(room.sweep().unwrap().total(), 0);
        device.clock.advance(ms(1));
        let swept = room.sweep().unwrap();
        assert!(swept.total() >= 5, "{swept:?}");
        assert!(room.verify().unwrap().is_ok());
    }
}

#[test]
fn the_hold_goes_on_across_openings_of_one_start_of_the_system() {
    let mut device = Device::at(NOW);
    fill(&device.open(), NOW);
    device.restart(NOW + YEAR);
    for _ in 0..6 {
        let room = device.open();
        assert_eq!(room.sweep().unwrap().total(), 0);
        keep(&room, "more", 0);
        device.clock.advance(ms(60 * SECOND));
        room.close().unwrap();
        device.clock.advance(ms(41 * SECOND));
    }
    assert!(device.open().sweep().unwrap().total() >= 5);
}

#[test]
fn a_device_that_starts_anew_every_five_minutes_still_sweeps() {
    let mut device = Device::at(NOW);
    fill(&device.open(), NOW);
    let mut now = NOW + 2 * HOUR;
    for start in 0..4 {
        device.restart(now);
        let room = device.open();
        keep(&room, "other", 0);
        device.clock.advance(ms(300 * SECOND - 1));
        assert_eq!(swept(&room) > 0, start > 1, "{start}");
        device.clock.advance(ms(1));
        // The clock has held for ten minutes since the hours before the first start.
        assert_eq!(swept(&room) > 0, start == 1, "{start}");
        // What ends between two starts is swept two starts later.
        keep(&room, &format!("{start}"), 400);
        now += 300 * SECOND + HOUR;
    }
    assert!(device.open().verify().unwrap().is_ok());
}

#[test]
fn an_hour_asleep_counts_open_or_closed() {
    for open in [true, false] {
        let device = Device::at(NOW);
        let mut room = device.open();
        fill(&room, NOW);
        if open {
            device.clock.advance(ms(HOUR));
        } else {
            room.close().unwrap();
            device.clock.advance(ms(HOUR));
            room = device.open();
        }
        assert_over(&room, "asleep");
        // Both readings agree, so nothing is in doubt.
        assert!(room.sweep().unwrap().total() >= 3);
    }
}

#[test]
fn the_callers_now_decides_about_a_token_and_both_clocks_about_its_sweep() {
    let device = Device::at(NOW);
    let room = device.open();
    room.form_tokens().insert_form_token(token("0a", NOW + HOUR)).wait().unwrap();
    // The line has come there, the wall clock was set back.
    device.clock.advance(ms(2 * HOUR));
    device.clock.leap(NOW);
    assert_eq!(room.sweep().unwrap().total(), 0);
    assert_eq!(consume(&room, "0a", NOW), TokenConsumeOutcome::Proceed);
    // The grace is a day.
    device.clock.leap(NOW + 2 * DAY);
    assert_eq!(room.sweep().unwrap().total(), 0);
    assert_eq!(consume(&room, "0a", NOW), TokenConsumeOutcome::Replay);
    device.clock.advance(ms(DAY));
    assert_eq!(room.sweep().unwrap().total(), 1);
}

#[test]
fn a_cooldown_ends_by_the_wall_clock_and_is_swept_by_both() {
    let device = Device::at(NOW);
    let room = device.open();
    let limiter = limiter(&room, 1, 1);
    limiter.set_cooldown("origin", NOW + HOUR).wait().unwrap();
    let cooldown = || limiter.cooldown("origin").wait().unwrap();
    device.clock.leap(NOW + DAY);
    assert_eq!(cooldown(), None);
    assert_eq!(room.sweep().unwrap().total(), 0);
    device.clock.leap(NOW + 1);
    assert_eq!(cooldown(), Some(NOW + HOUR));
    device.clock.advance(ms(HOUR));
    assert_eq!((cooldown(), room.sweep().unwrap().total()), (None, 1));
}

/// A token and a cooldown that end in an hour of the right time, whatever the room's clock shows.
fn end_in_an_hour(room: &Cloakroom, key: &str) {
    room.form_tokens().insert_form_token(token(key, NOW + HOUR)).wait().unwrap();
    limiter(room, 1, 1).set_cooldown(key, NOW + HOUR).wait().unwrap();
}

fn swept(room: &Cloakroom) -> u64 {
    room.sweep().unwrap().total()
}

#[test]
fn what_was_stored_in_1970_for_a_point_in_time_is_swept_then_once_the_clock_was_right() {
    for (reopened, new_start) in [(false, false), (true, false), (true, true)] {
        let mut device = Device::at(30 * SECOND);
        let mut room = device.open();
        // More than one step of the walk that indexes them anew.
        let keys: Vec<_> = (0..150).map(|number| format!("{number:04x}")).collect();
        keys.iter().for_each(|key| end_in_an_hour(&room, key));
        device.clock.advance(ms(60 * SECOND));
        if reopened {
            room.close().unwrap();
        }
        if new_start {
            device.restart(NOW);
        } else {
            device.clock.leap(NOW);
        }
        if reopened {
            room = device.open();
        }
        assert_eq!(consume(&room, &keys[0], NOW), TokenConsumeOutcome::Proceed);
        // It has not held yet, and then it has.
        assert_eq!(swept(&room), 0);
        device.clock.advance(HELD);
        assert_eq!(swept(&room), 0);
        assert!(room.verify().unwrap().is_ok());
        device.clock.advance(ms(HOUR - 602 * SECOND));
        assert_eq!(swept(&room), 0, "{reopened} {new_start}");
        device.clock.advance(ms(SECOND));
        // All but the one that was consumed, which stays for its grace of a day.
        assert_eq!(swept(&room), 299, "{reopened} {new_start}");
        device.clock.advance(ms(DAY));
        assert_eq!(swept(&room), 1);
        assert!(room.verify().unwrap().is_ok());
    }
}

#[test]
fn a_walk_that_is_over_is_written_down() {
    let device = Device::at(30 * SECOND);
    let room = device.open();
    end_in_an_hour(&room, "0a");
    let written = || {
        let (mut trusted, mut indexed_by) = (None, None);
        let dumped = room.dump("time_line", &mut |row| {
            trusted = trusted.or(row.value["trusted_walls"].as_u64());
            indexed_by = indexed_by.or(row.value["indexed_by"].as_u64());
            true
        });
        dumped.unwrap();
        (trusted, indexed_by)
    };
    assert_eq!(written(), (Some(0), None));
    device.clock.leap(NOW);
    // From this look at the clock on it holds.
    keep(&room, "any", 0);
    device.clock.advance(HELD);
    assert_eq!(swept(&room), 0);
    assert_eq!(written(), (Some(1), Some(1)));
}

#[test]
fn what_is_left_of_a_walk_when_the_process_is_killed_is_walked_later() {
    let mut device = Device::at(30 * SECOND);
    let room = device.open();
    end_in_an_hour(&room, "0a");
    device.clock.leap(NOW);
    device.clock.advance(HELD);
    // The clock is trusted now, and no sweeper has come by.
    keep(&room, "any", 0);
    let copy = device.path.with_extension("copy");
    std::fs::copy(&device.path, &copy).unwrap();
    drop(room);
    device.path = copy;
    let room = device.open();
    device.clock.advance(ms(HOUR));
    assert_eq!(swept(&room), 2);
}

#[test]
fn what_ends_by_the_wall_clock_is_not_swept_by_one_that_is_years_ahead_before_that_has_held() {
    for opened in [false, true] {
        let mut device = Device::at(NOW);
        let mut room = device.open();
        keep(&room, "any", 0);
        if opened {
            room.close().unwrap();
            device.restart(NOW + 10 * YEAR);
            room = device.open();
        } else {
            device.clock.leap(NOW + 10 * YEAR);
        }
        // Its end has passed by the wall clock as it is set, and not by the caller's.
        room.form_tokens().insert_form_token(token("0a", NOW + HOUR)).wait().unwrap();
        assert_eq!(swept(&room), 0, "{opened}");
        device.clock.advance(ms(300 * SECOND));
        assert_eq!(swept(&room), 0, "{opened}");
        device.clock.leap(NOW + 300 * SECOND);
        assert_eq!(consume(&room, "0a", NOW + 300 * SECOND), TokenConsumeOutcome::Proceed);
        // A leap that has held is believed.
        device.clock.leap(NOW + 10 * YEAR);
        assert_eq!(swept(&room), 0, "{opened}");
        device.clock.advance(HELD);
        assert_eq!(swept(&room), 1, "{opened}");
    }
}

#[test]
fn a_leap_of_a_day_is_never_trusted_and_costs_a_day_at_most() {
    let device = Device::at(NOW);
    let room = device.open();
    end_in_an_hour(&room, "0a");
    device.clock.leap(NOW + DAY);
    device.clock.advance(ms(HOUR - 1));
    assert_eq!(swept(&room), 0);
    device.clock.advance(ms(1));
    assert_eq!(swept(&room), 2);
    // Stored while it is ahead: what ends by it ends a day later.
    limiter(&room, 1, 1).set_cooldown("late", NOW + DAY + 2 * HOUR).wait().unwrap();
    device.clock.advance(ms(HOUR + DAY - 1));
    assert_eq!(swept(&room), 0);
    device.clock.advance(ms(1));
    assert_eq!(swept(&room), 1);
}

// ---- Variants

#[test]
fn listings_show_ends_by_the_wall_clock_as_it_is_set() {
    let device = Device::at(NOW);
    let room = device.open();
    keep(&room, "v", 3_600);
    let shown = || cache(&room).list(None, 10).wait().unwrap().items[0].expires_at_ms;
    assert_eq!(shown(), Some(NOW + HOUR));
    device.clock.leap(NOW + DAY);
    assert_eq!(shown(), Some(NOW + DAY + HOUR));
    device.clock.advance(ms(HOUR / 2));
    assert_eq!(shown(), Some(NOW + DAY + HOUR));
}

#[test]
fn what_is_in_doubt_counts_as_expired_in_stats_and_comes_back() {
    let mut device = Device::at(NOW);
    keep(&device.open(), "v", 3_600);
    device.restart(NOW + YEAR);
    let room = device.open();
    let counts = || {
        let stats = cache(&room).stats().wait().unwrap();
        (stats.live, stats.expired)
    };
    assert_eq!(counts(), (0, 1));
    device.clock.leap(NOW + 1);
    assert_eq!(counts(), (1, 0));
    assert!(room.stats().unwrap().stores.iter().any(|store| store.live == 1));
}

#[test]
fn the_order_of_use_of_a_cache_follows_a_correction() {
    let mut device = Device::at(NOW);
    keep(&device.open(), "old", 3_600);
    device.restart(NOW + YEAR);
    let room = device.open();
    let limited = cache(&room).with_max_entries(2);
    limited.set("a", &1, 0).wait().unwrap();
    limited.set("b", &2, 0).wait().unwrap();
    device.clock.leap(NOW + 1);
    // The old one is there again, and is the one that was used the longest ago.
    limited.set("c", &3, 0).wait().unwrap();
    let there = |hash: &str| limited.get(hash).wait().unwrap().is_some();
    let left: Vec<_> = ["old", "a", "b", "c"].into_iter().filter(|hash| there(hash)).collect();
    assert_eq!(left, ["b", "c"]);
}

#[test]
fn what_an_adaptive_limiter_remembers_of_users_follows_a_correction() {
    let mut device = Device::at(NOW);
    let config = RateLimitConfig { limit: 100, window: ms(HOUR) };
    let limiter = |room: &Cloakroom| {
        room.adaptive_rate_limit("a", config, AdaptiveConfig::default()).unwrap()
    };
    let seen = |room: &Cloakroom| {
        let status = limiter(room).status("r").wait().unwrap();
        (status.recent_user_activity, status.user_reserved)
    };
    let room = device.open();
    for _ in 0..10 {
        limiter(&room).record("r", Priority::User).wait().unwrap();
    }
    // Ten requests are many, and as many as before leave 90 of 100 to users.
    assert_eq!(seen(&room), (10, 90));
    device.clock.leap(NOW + YEAR);
    device.clock.advance(ms(30 * SECOND));
    assert_eq!(seen(&room), (10, 90), "a leap is not noticed");
    room.close().unwrap();
    // Years ahead at an opening: no one has come for so long that users get nothing.
    device.restart(NOW + 5 * YEAR);
    let room = device.open();
    assert_eq!(seen(&room), (0, 0));
    // Set right, the requests are a minute old.
    device.clock.leap(NOW + YEAR + 60 * SECOND);
    device.clock.advance(ms(30 * SECOND));
    assert_eq!(seen(&room), (10, 90));
    // The monitoring window is a quarter of an hour.
    device.clock.advance(ms(14 * 60 * SECOND - 30 * SECOND - 1));
    assert_eq!(seen(&room).0, 10);
    device.clock.advance(ms(1));
    assert_eq!(seen(&room).0, 0);
}

#[test]
fn a_waiter_for_a_job_is_woken_by_its_timeout_and_not_by_the_wall_clock() {
    let device = Device::at(NOW);
    let room = device.open();
    let jobs = room.dedupe::<u32>("jobs").with_job_timeout(ms(HOUR));
    let job = jobs.register("h").wait().unwrap();
    let waiter = {
        let pending = jobs.wait_for("h");
        std::thread::spawn(move || pending.wait().unwrap())
    };
    device.clock.leap(NOW + DAY);
    device.clock.leap(NOW - DAY);
    device.clock.advance(ms(HOUR - 1));
    assert!(!waiter.is_finished());
    assert!(jobs.complete_owned("h", &job, &5).wait().unwrap());
    assert_eq!(waiter.join().unwrap(), Some(5));
    jobs.register("g").wait().unwrap();
    let pending = jobs.wait_for("g");
    device.clock.leap(5);
    device.clock.advance(ms(HOUR));
    assert_eq!(pending.wait().unwrap(), None);
}

#[test]
fn a_kill_right_after_the_time_was_set_keeps_what_was_stored_before() {
    let device = Device::at(30 * SECOND);
    let room = device.open();
    keep(&room, "v", 600);
    device.clock.leap(NOW);
    // Any write takes the step with it.
    keep(&room, "w", 0);
    let copy = device.path.with_extension("copy");
    std::fs::copy(&device.path, &copy).unwrap();
    drop(room);
    device.clock.advance(ms(100 * SECOND));
    let room = device.builder().open(&copy).unwrap();
    assert!(kept(&room, "v") && kept(&room, "w"));
    device.clock.advance(ms(500 * SECOND));
    assert!(!kept(&room, "v"));
}

#[cfg(feature = "testing")]
#[test]
fn a_room_that_has_lost_its_line_goes_on_in_a_new_epoch_and_later_corrections_apply() {
    const LINE: u8 = 31;
    let mut device = Device::at(NOW);
    for start in 1..4 {
        keep(&device.open(), "other", 0);
        device.restart(NOW + start * HOUR);
    }
    let room = device.open();
    keep(&room, "v", 3_600);
    room.set_raw_row(LINE, b"", None).unwrap();
    let copy = device.path.with_extension("copy");
    std::fs::copy(&device.path, &copy).unwrap();
    drop(room);
    device.path = copy;
    device.restart(NOW + 3 * HOUR + HOUR / 2);
    let room = device.open();
    assert!(kept(&room, "v"));
    assert!(room.verify().unwrap().is_ok());
    keep(&room, "other", 0);
    room.close().unwrap();
    // A start in 1970 is corrected, also for what is older than the loss.
    device.restart(20 * SECOND);
    let room = device.open();
    keep(&room, "new", 3_600);
    assert!(kept(&room, "v"));
    device.clock.leap(NOW + 5 * HOUR);
    assert!(!kept(&room, "v") && kept(&room, "new"));
    device.clock.advance(HELD);
    assert_eq!(swept(&room), 1);
}

#[test]
fn a_room_that_is_only_read_believes_the_same_and_writes_nothing() {
    let mut device = Device::at(NOW);
    keep(&device.open(), "v", 3_600);
    let before = std::fs::read(&device.path).unwrap();
    device.restart(NOW + YEAR);
    let room = device.builder().read_only(true).open(&device.path).unwrap();
    assert!(!kept(&room, "v"));
    device.clock.leap(NOW + 1);
    assert!(kept(&room, "v"));
    room.close().unwrap();
    assert!(std::fs::read(&device.path).unwrap() == before);
}

#[test]
fn many_openings_at_odd_times_leave_a_sound_room_that_still_ends_things() {
    let mut device = Device::at(NOW);
    let mut random = fastrand::Rng::with_seed(7);
    for opening in 0..200_u64 {
        let odd = [NOW + opening * HOUR, 20 * SECOND, NOW + 50 * YEAR, NOW];
        device.restart(odd[random.usize(0..odd.len())]);
        let room = device.open();
        keep(&room, &format!("{opening}"), 60);
        assert!(kept(&room, &format!("{opening}")));
        device.clock.advance(ms(random.u64(0..30) * SECOND));
        if random.bool() {
            device.clock.leap(NOW + opening * HOUR);
        }
    }
    device.restart(NOW + YEAR);
    let room = device.open();
    device.clock.advance(HELD);
    room.sweep().unwrap();
    assert!(room.verify().unwrap().is_ok());
    let stats = cache(&room).stats().wait().unwrap();
    assert_eq!((stats.live, stats.expired), (0, 0));
}
