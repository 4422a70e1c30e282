//! Rate limits of a room: threads, restarts, configurations, and the longest names.

use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, Error, ManualClock};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = 1_700_000_000_000;
const WINDOW_MS: u64 = 100;

fn config(limit: u64, window_ms: u64) -> RateLimitConfig {
    RateLimitConfig { limit, window: Duration::from_millis(window_ms) }
}

fn adaptive() -> AdaptiveConfig {
    AdaptiveConfig::default()
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> Cloakroom {
    Cloakroom::builder().clock(clock.clone()).open(path).unwrap()
}

#[test]
fn of_64_threads_exactly_the_limit_is_admitted() {
    let room =
        Cloakroom::builder().clock(Arc::new(ManualClock::new(START_MS))).open_in_memory().unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                let store = room.rate_limit("api", config(1_000, WINDOW_MS)).unwrap();
                scope.spawn(move || (0..50).filter(|_| store.acquire("r").wait().unwrap()).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1_000);
}

#[test]
fn windows_survive_a_restart_and_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("restart.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    for opening in 0..5 {
        let room = open(&path, &clock);
        let store = room.rate_limit("api", config(5, 60_000)).unwrap();
        assert!(store.acquire("r").wait().unwrap());
        assert_eq!(store.status("r").wait().unwrap().remaining, 4 - opening);
        clock.advance(Duration::from_millis(1));
        room.checkpoint().unwrap();
    }
    let room = open(&path, &clock);
    assert!(!room.rate_limit("api", config(5, 60_000)).unwrap().acquire("r").wait().unwrap());
}

#[test]
fn configurations_that_contradict_themselves_are_refused_when_a_limiter_is_opened() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let refused =
        |answer: cloakroom::Result<()>| assert!(matches!(answer, Err(Error::InvalidConfig(_))));
    refused(room.rate_limit("api", config(1, 0)).map(drop));
    refused(room.adaptive_rate_limit("api", config(1, 0), adaptive()).map(drop));
    let bad = AdaptiveConfig { moderate_activity_threshold: 10, ..adaptive() };
    refused(room.adaptive_rate_limit("api", config(1, 1), bad).map(drop));
}

#[test]
fn a_name_over_64_kib_is_too_large_in_every_operation() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let store = room.rate_limit(&"n".repeat(65_537), config(1, 1)).unwrap();
    assert!(matches!(store.acquire("r").wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.clear().wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.cooldown("r").wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.stats().wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.list(None, 1).wait(), Err(Error::TooLarge { .. })));
}

#[test]
fn the_longest_names_and_resources_fit_the_smallest_log() {
    let room = Cloakroom::builder()
        .log_capacity(cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY)
        .clock(Arc::new(ManualClock::new(START_MS)))
        .open_in_memory()
        .unwrap();
    let longest = "\0".repeat(65_536);
    let store = room.rate_limit(&longest, config(2, 1_000)).unwrap();
    let shared =
        room.adaptive_rate_limit(&longest, config(10, 1_000), AdaptiveConfig::default()).unwrap();
    for _ in 0..3 {
        store.record(&longest).wait().unwrap();
        shared.record(&longest, Priority::User).wait().unwrap();
        store.set_cooldown(&longest, u64::MAX).wait().unwrap();
        store.set_resource_config(&longest, config(2, 1_000)).wait().unwrap();
        store.reset(&longest).wait().unwrap();
        store.clear().wait().unwrap();
    }
}

#[test]
fn questions_about_new_resources_write_nothing() {
    let room =
        Cloakroom::builder().clock(Arc::new(ManualClock::new(START_MS))).open_in_memory().unwrap();
    let (plain, shared) = (
        room.rate_limit("api", config(5, 1_000)).unwrap(),
        room.adaptive_rate_limit("api", config(5, 1_000), adaptive()).unwrap(),
    );
    let before = room.stats().unwrap().engine.newest_lsn;
    for number in 0..1_000 {
        let name = format!("resource {number}");
        assert!(plain.can_proceed(&name).wait().unwrap());
        assert!(plain.wait_time(&name).wait().unwrap().is_zero());
        assert_eq!(plain.status(&name).wait().unwrap().remaining, 5);
        assert!(shared.can_proceed(&name, Priority::User).wait().unwrap());
        assert!(shared.wait_time(&name, Priority::User).wait().unwrap().is_zero());
        assert_eq!(shared.status(&name).wait().unwrap().remaining, 5);
        // One that refuses is a question as well.
        assert!(!shared.acquire(&name, Priority::Background).wait().unwrap());
    }
    let after = room.stats().unwrap();
    assert_eq!(after.engine.newest_lsn, before);
    assert!(after.stores.is_empty(), "{:?}", after.stores);
}

#[test]
fn a_question_does_not_wait_for_a_writer() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let shared = room.adaptive_rate_limit("api", config(5, 1_000), adaptive()).unwrap();
    let (asked, answers) = std::sync::mpsc::channel();
    let answer = room.atomically(|_| {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let status = shared.status("new").wait().map(|status| status.user_reserved);
            asked.send((status, shared.can_proceed("other", Priority::User).wait())).unwrap();
        });
        // The transaction goes on until the answers are there.
        Ok::<_, Error>(answers.recv_timeout(Duration::from_secs(60)).unwrap())
    });
    let (reserved, may_go) = answer.wait().unwrap();
    assert_eq!((reserved.unwrap(), may_go.unwrap()), (5, true));
}

#[test]
fn shares_that_a_transaction_computed_are_kept_with_it_alone() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    let rate = config(100, 3_600_000);
    let shared = room.adaptive_rate_limit("api", rate, adaptive()).unwrap();
    let reserved = || shared.status("r").wait().unwrap().user_reserved;
    let busy = |keep: bool| {
        let answer = room.atomically(|tx| {
            let mut limiter = tx.adaptive_rate_limit("api", rate, adaptive())?;
            for _ in 0..10 {
                limiter.record("r", Priority::User)?;
            }
            let status = limiter.status("r")?;
            assert!(!limiter.acquire("r", Priority::Background)?);
            assert_eq!((status.user_reserved, status.background_paused), (90, true));
            if keep { Ok(()) } else { Err(Error::AlreadyExists) }
        });
        assert_eq!(answer.wait().is_ok(), keep);
    };
    busy(false);
    assert_eq!(reserved(), 30);
    // An aborted reset forgets nothing either.
    shared.record("r", Priority::User).wait().unwrap();
    let answer = room.atomically(|tx| {
        let mut limiter = tx.adaptive_rate_limit("api", rate, adaptive())?;
        limiter.reset("r")?;
        limiter.clear()?;
        assert_eq!(limiter.status("r")?.recent_user_activity, 0);
        Err::<(), _>(Error::AlreadyExists)
    });
    assert!(answer.wait().is_err());
    for _ in 0..9 {
        shared.record("r", Priority::User).wait().unwrap();
    }
    assert_eq!(reserved(), 30, "computed again within the interval");
    shared.reset("r").wait().unwrap();
    busy(true);
    shared.record("r", Priority::Background).wait().unwrap();
    clock.advance(Duration::from_secs(29));
    assert_eq!(reserved(), 90);
    assert_eq!(shared.wait_time("r", Priority::Background).wait().unwrap(), Duration::from_secs(1));
}

#[test]
fn an_idle_adaptive_resource_is_not_called_expired() {
    let clock = Arc::new(ManualClock::new(START_MS));
    // The background would sweep what is counted as soon as the clock moves.
    let builder = Cloakroom::builder().clock(clock.clone()).sweep_interval(None);
    let room = builder.open_in_memory().unwrap();
    let shared = room.adaptive_rate_limit("api", config(5, 1_000), adaptive()).unwrap();
    shared.record("idle", Priority::User).wait().unwrap();
    shared.record("reset", Priority::User).wait().unwrap();
    shared.reset("reset").wait().unwrap();
    let counts = || {
        let store = room.stats().unwrap().stores[0].clone();
        (store.live, store.expired)
    };
    assert_eq!(counts(), (1, 1));
    clock.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(counts(), (1, 1));
    room.sweep().unwrap();
    assert_eq!(counts(), (1, 0));
    assert_eq!(shared.stats().wait().unwrap().idle, 1);
}

#[test]
fn requests_are_kept_for_the_longest_window_that_a_handle_uses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("windows.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    let room = open(&path, &clock);
    let long = room.rate_limit("api", config(5, 60_000)).unwrap();
    let short = room.rate_limit("api", config(5, 1_000)).unwrap();
    // Another limiter has windows of its own.
    let other = room.rate_limit("other", config(5, 1_000)).unwrap();
    let monitoring = |window_ms| {
        let adaptive = adaptive().with_monitoring_window(Duration::from_millis(window_ms));
        room.adaptive_rate_limit("api", config(5, 1_000), adaptive).unwrap()
    };
    let (far, near) = (monitoring(60_000), monitoring(1_000));
    for _ in 0..3 {
        short.record("r").wait().unwrap();
        other.record("r").wait().unwrap();
        near.record("r", Priority::User).wait().unwrap();
        // A transaction has handles as well.
        let answer = room.atomically(|tx| {
            tx.rate_limit("api", config(5, 1_000))?.record("in a transaction")?;
            tx.adaptive_rate_limit("api", config(5, 1_000), adaptive())?
                .record("in a transaction", Priority::User)
        });
        answer.wait().unwrap();
        clock.advance(Duration::from_millis(1_500));
        room.sweep().unwrap();
        // A record through the short window forgets nothing either.
        short.record("r").wait().unwrap();
        near.record("r", Priority::User).wait().unwrap();
    }
    clock.advance(Duration::from_millis(1_500));
    room.sweep().unwrap();
    let left = |limiter: &cloakroom::rate_limit::RateLimit, resource: &str| {
        limiter.status(resource).wait().unwrap().remaining
    };
    assert_eq!((left(&long, "r"), left(&short, "r"), left(&other, "r")), (0, 5, 5));
    assert_eq!(left(&long, "in a transaction"), 2);
    let seen = |limiter: &cloakroom::adaptive_rate_limit::AdaptiveRateLimit| {
        limiter.status("r").wait().unwrap().recent_user_activity
    };
    assert_eq!((seen(&far), seen(&near)), (6, 0));
    // Opened again, with the long window alone.
    drop((long, short, other, far, near));
    room.close().unwrap();
    drop(room);
    let room = open(&path, &clock);
    let long = room.rate_limit("api", config(5, 60_000)).unwrap();
    assert_eq!(left(&long, "in a transaction"), 2);
    clock.advance(Duration::from_millis(60_000 - 4_500));
    assert_eq!((left(&long, "r"), left(&long, "in a transaction")), (2, 4));
}
