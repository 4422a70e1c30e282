//! Rate limits against limiters over lists of times, with clock moves, sweeps and reopenings.

use crate::naive_limits::{Fault, NaiveAdaptive, NaiveLimiter};
use crate::scale::scaled;
use cloakroom::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitStore, Priority,
};
use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, Clock, Error, ManualClock};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = 1_700_000_000_000;
const RESOURCES: [&str; 3] = ["", "a", "a\0"];

fn config(limit: u64, window_ms: u64) -> RateLimitConfig {
    RateLimitConfig { limit, window: Duration::from_millis(window_ms) }
}

#[derive(Debug, Clone)]
enum Op {
    Acquire(usize, Priority),
    Record(usize, Priority, u8),
    Reset(usize),
    Clear,
    Configure(usize, RateLimitConfig),
    Cooldown(usize, u64),
    ClearCooldown(usize),
    Rollback(usize),
    /// Waits as long as it is told to, and acquires.
    Wait(usize, Priority),
    /// Compares all answers about a resource.
    Ask(usize),
    Advance(u64),
    Sweep,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let resource = || 0..RESOURCES.len();
    let priority = || prop_oneof![Just(Priority::User), Just(Priority::Background)];
    let windows = prop_oneof![Just(WINDOW_MS), 1u64..3 * WINDOW_MS];
    let own = (0u64..24, windows).prop_map(|(limit, window_ms)| config(limit, window_ms));
    prop_oneof![
        12 => (resource(), priority()).prop_map(|(resource, of)| Op::Acquire(resource, of)),
        4 => (resource(), priority(), 1u8..7)
            .prop_map(|(resource, of, count)| Op::Record(resource, of, count)),
        1 => resource().prop_map(Op::Reset),
        1 => Just(Op::Clear),
        2 => (resource(), own).prop_map(|(resource, own)| Op::Configure(resource, own)),
        2 => (resource(), 0u64..150).prop_map(|(resource, after)| Op::Cooldown(resource, after)),
        1 => resource().prop_map(Op::ClearCooldown),
        1 => resource().prop_map(Op::Rollback),
        4 => (resource(), priority()).prop_map(|(resource, of)| Op::Wait(resource, of)),
        8 => resource().prop_map(Op::Ask),
        10 => prop_oneof![0u64..20, 30u64..250].prop_map(Op::Advance),
        3 => Just(Op::Sweep),
        1 => Just(Op::Reopen),
    ]
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> Cloakroom {
    Cloakroom::builder().clock(clock.clone()).open(path).unwrap()
}

const WINDOW_MS: u64 = 100;

/// Of plain limiters, and of adaptive ones.
const PLAIN: u64 = 4;
const SHARED: u64 = 20;

fn same<R: PartialEq + std::fmt::Debug>(
    engine: cloakroom::Pending<R>,
    naive: cloakroom::Pending<R>,
) -> R {
    let (engine, naive) = (engine.wait().unwrap(), naive.wait().unwrap());
    assert_eq!(engine, naive);
    engine
}

fn check_plain(store: &RateLimit, naive: &NaiveLimiter, resource: &str) {
    same(store.status(resource), naive.status(resource));
    same(store.can_proceed(resource), naive.can_proceed(resource));
    same(store.wait_time(resource), naive.wait_time(resource));
    same(store.resource_config(resource), naive.resource_config(resource));
    same(store.cooldown(resource), naive.cooldown(resource));
}

fn run_plain(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut room = open(&path, &clock);
    let naive = NaiveLimiter::new(config(PLAIN, WINDOW_MS), clock.clone(), Fault::None);
    for op in ops {
        let store = room.rate_limit("api", config(PLAIN, WINDOW_MS)).unwrap();
        // Another limiter, whose requests must not show.
        room.rate_limit("api\0", config(PLAIN, WINDOW_MS)).unwrap().record("a").wait().unwrap();
        match *op {
            Op::Acquire(resource, _) => {
                same(store.acquire(RESOURCES[resource]), naive.acquire(RESOURCES[resource]));
            }
            Op::Record(resource, _, count) => {
                for _ in 0..count {
                    same(store.record(RESOURCES[resource]), naive.record(RESOURCES[resource]));
                }
            }
            Op::Reset(resource) => {
                same(store.reset(RESOURCES[resource]), naive.reset(RESOURCES[resource]));
            }
            Op::Clear => same(store.clear(), naive.clear()),
            Op::Configure(resource, own) => same(
                store.set_resource_config(RESOURCES[resource], own),
                naive.set_resource_config(RESOURCES[resource], own),
            ),
            Op::Cooldown(origin, after_ms) => {
                let until_ms = clock.now_ms() + after_ms;
                same(
                    store.set_cooldown(RESOURCES[origin], until_ms),
                    naive.set_cooldown(RESOURCES[origin], until_ms),
                );
            }
            Op::ClearCooldown(origin) => {
                same(
                    store.clear_cooldown(RESOURCES[origin]),
                    naive.clear_cooldown(RESOURCES[origin]),
                );
            }
            Op::Rollback(resource) => {
                let answer = room.atomically(|tx| {
                    let mut limiter = tx.rate_limit("api", config(PLAIN, WINDOW_MS))?;
                    limiter.record(RESOURCES[resource])?;
                    limiter.clear()?;
                    limiter.set_cooldown(RESOURCES[resource], u64::MAX)?;
                    Err::<(), _>(Error::AlreadyExists)
                });
                assert!(matches!(answer.wait(), Err(Error::AlreadyExists)));
            }
            Op::Wait(resource, _) => {
                let resource = RESOURCES[resource];
                let wait = same(store.wait_time(resource), naive.wait_time(resource));
                clock.advance(wait);
                let limit = store.resource_config(resource).wait().unwrap().limit;
                let admitted = same(store.acquire(resource), naive.acquire(resource));
                assert_eq!(admitted, limit > 0, "refused after the wait");
            }
            Op::Ask(resource) => check_plain(&store, &naive, RESOURCES[resource]),
            Op::Advance(by_ms) => clock.advance(Duration::from_millis(by_ms)),
            Op::Sweep => drop(room.sweep().unwrap()),
            Op::Reopen => {
                drop(store);
                room.close().unwrap();
                drop(room);
                room = open(&path, &clock);
                continue;
            }
        }
        let (stats, listed) = (store.stats().wait().unwrap(), store.list(None, 10).wait().unwrap());
        assert_eq!(stats.live, listed.items.len() as u64);
        for resource in RESOURCES {
            let status = naive.status(resource).wait().unwrap();
            let entry = listed.items.iter().find(|entry| entry.resource == resource);
            let counted = entry.map_or(0, |entry| entry.requests);
            assert_eq!(status.limit.saturating_sub(counted), status.remaining);
        }
    }
    for resource in RESOURCES {
        let store = room.rate_limit("api", config(PLAIN, WINDOW_MS)).unwrap();
        check_plain(&store, &naive, resource);
    }
}

fn adaptive() -> AdaptiveConfig {
    AdaptiveConfig {
        monitoring_window: Duration::from_millis(60),
        high_activity_threshold: 6,
        moderate_activity_threshold: 3,
        recalculation_interval: Duration::from_millis(15),
        sustained_inactivity_threshold: Duration::from_millis(150),
        min_user_reserved: 2,
        ..AdaptiveConfig::default()
    }
}

fn check_adaptive(store: &AdaptiveRateLimit, naive: &NaiveAdaptive, resource: &str) {
    let (engine, naive_status) = (store.status(resource), naive.status(resource));
    let (engine, naive_status) = (engine.wait().unwrap(), naive_status.wait().unwrap());
    assert_eq!(engine, naive_status.with_reason(engine.reason.clone()));
    for priority in [Priority::User, Priority::Background] {
        same(store.can_proceed(resource, priority), naive.can_proceed(resource, priority));
        same(store.wait_time(resource, priority), naive.wait_time(resource, priority));
    }
    same(store.resource_config(resource), naive.resource_config(resource));
    same(store.cooldown(resource), naive.cooldown(resource));
}

fn run_adaptive(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut room = open(&path, &clock);
    let rate = config(SHARED, WINDOW_MS);
    let naive = NaiveAdaptive::new(rate, adaptive(), clock.clone(), Fault::None);
    for op in ops {
        let store = room.adaptive_rate_limit("api", rate, adaptive()).unwrap();
        match *op {
            Op::Acquire(resource, of) => {
                let resource = RESOURCES[resource];
                same(store.acquire(resource, of), naive.acquire(resource, of));
            }
            Op::Record(resource, of, count) => {
                for _ in 0..count {
                    let resource = RESOURCES[resource];
                    same(store.record(resource, of), naive.record(resource, of));
                }
            }
            Op::Reset(resource) => {
                same(store.reset(RESOURCES[resource]), naive.reset(RESOURCES[resource]));
            }
            Op::Clear => same(store.clear(), naive.clear()),
            Op::Configure(resource, own) => {
                // The naive one keeps every request, so windows must not become longer.
                let own = RateLimitConfig { window: rate.window, ..own };
                same(
                    store.set_resource_config(RESOURCES[resource], own),
                    naive.set_resource_config(RESOURCES[resource], own),
                );
            }
            Op::Cooldown(origin, after_ms) => {
                let until_ms = clock.now_ms() + after_ms;
                same(
                    store.set_cooldown(RESOURCES[origin], until_ms),
                    naive.set_cooldown(RESOURCES[origin], until_ms),
                );
            }
            Op::ClearCooldown(origin) => {
                same(
                    store.clear_cooldown(RESOURCES[origin]),
                    naive.clear_cooldown(RESOURCES[origin]),
                );
            }
            Op::Rollback(resource) => {
                let answer = room.atomically(|tx| {
                    let mut limiter = tx.adaptive_rate_limit("api", rate, adaptive())?;
                    limiter.record(RESOURCES[resource], Priority::User)?;
                    limiter.status(RESOURCES[resource])?;
                    limiter.reset(RESOURCES[resource])?;
                    limiter.status(RESOURCES[resource])?;
                    limiter.clear()?;
                    Err::<(), _>(Error::AlreadyExists)
                });
                assert!(matches!(answer.wait(), Err(Error::AlreadyExists)));
            }
            Op::Wait(resource, of) => {
                let resource = RESOURCES[resource];
                clock.advance(same(store.wait_time(resource, of), naive.wait_time(resource, of)));
                same(store.acquire(resource, of), naive.acquire(resource, of));
            }
            Op::Ask(resource) => check_adaptive(&store, &naive, RESOURCES[resource]),
            Op::Advance(by_ms) => clock.advance(Duration::from_millis(by_ms)),
            Op::Sweep => drop(room.sweep().unwrap()),
            Op::Reopen => {
                drop(store);
                room.close().unwrap();
                drop(room);
                room = open(&path, &clock);
                naive.reopen();
            }
        }
    }
    let store = room.adaptive_rate_limit("api", rate, adaptive()).unwrap();
    RESOURCES.iter().for_each(|resource| check_adaptive(&store, &naive, resource));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(24, 64), max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_limits_answer_as_a_list_of_times(ops in prop::collection::vec(op(), 1..80)) {
        run_plain(&ops);
    }

    #[test]
    fn adaptive_limits_answer_as_lists_of_times(ops in prop::collection::vec(op(), 1..120)) {
        run_adaptive(&ops);
    }
}
