//! Rate limits against lists of times, with clock moves and reopenings.

use crate::scale::scaled;
use cloakroom::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitStore, Priority,
};
use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, Error, ManualClock};
use proptest::prelude::*;
use std::collections::BTreeMap;
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
    Acquire(usize),
    Record(usize, u8),
    Reset(usize),
    Clear,
    Configure(usize, u64),
    Cooldown(usize, u64),
    ClearCooldown(usize),
    Rollback(usize),
    Advance(u64),
    Sweep,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let resource = || 0..RESOURCES.len();
    prop_oneof![
        12 => resource().prop_map(Op::Acquire),
        4 => (resource(), 1u8..4).prop_map(|(resource, count)| Op::Record(resource, count)),
        1 => resource().prop_map(Op::Reset),
        1 => Just(Op::Clear),
        1 => (resource(), 0u64..8).prop_map(|(resource, limit)| Op::Configure(resource, limit)),
        2 => (resource(), 0u64..150).prop_map(|(resource, after)| Op::Cooldown(resource, after)),
        1 => resource().prop_map(Op::ClearCooldown),
        1 => resource().prop_map(Op::Rollback),
        10 => prop_oneof![0u64..20, 30u64..120].prop_map(Op::Advance),
        3 => Just(Op::Sweep),
        1 => Just(Op::Reopen),
    ]
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> Cloakroom {
    Cloakroom::builder().clock(clock.clone()).open(path).unwrap()
}

const WINDOW_MS: u64 = 100;

/// What a plain limiter must answer.
#[derive(Default)]
struct Plain {
    times: BTreeMap<usize, Vec<u64>>,
    limits: BTreeMap<usize, u64>,
    cooldowns: BTreeMap<usize, u64>,
}

impl Plain {
    fn limit(&self, resource: usize) -> u64 {
        self.limits.get(&resource).copied().unwrap_or(4)
    }

    fn counted(&self, resource: usize, now_ms: u64) -> Vec<u64> {
        let times = self.times.get(&resource).cloned().unwrap_or_default();
        times.into_iter().filter(|ms| *ms > now_ms - WINDOW_MS).collect()
    }

    fn check(&self, store: &RateLimit, now_ms: u64) {
        for (index, resource) in RESOURCES.iter().enumerate() {
            let (counted, limit) = (self.counted(index, now_ms), self.limit(index));
            let count = counted.len() as u64;
            let status = store.status(resource).wait().unwrap();
            assert_eq!(status.remaining, limit.saturating_sub(count));
            assert_eq!((status.limit, status.reset_time), (limit, now_ms + WINDOW_MS));
            assert_eq!(store.can_proceed(resource).wait().unwrap(), count < limit);
            assert_eq!(store.resource_config(resource).wait().unwrap(), config(limit, WINDOW_MS));
            let wait_ms = match counted.first() {
                _ if limit == 0 => WINDOW_MS,
                Some(oldest_ms) if count >= limit => oldest_ms + WINDOW_MS - now_ms,
                _ => 0,
            };
            assert_eq!(store.wait_time(resource).wait().unwrap(), Duration::from_millis(wait_ms));
            let cooldown = self.cooldowns.get(&index).copied().filter(|until| now_ms < *until);
            assert_eq!(store.cooldown(resource).wait().unwrap(), cooldown);
        }
        let live =
            (0..RESOURCES.len()).filter(|index| !self.counted(*index, now_ms).is_empty()).count();
        assert_eq!(store.stats().wait().unwrap().live, live as u64);
        assert_eq!(store.list(None, 10).wait().unwrap().items.len(), live);
    }
}

fn run_plain(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut now_ms = START_MS;
    let mut room = open(&path, &clock);
    let mut model = Plain::default();
    for op in ops {
        let store = room.rate_limit("api", config(4, WINDOW_MS)).unwrap();
        // Another limiter, whose requests must not show.
        room.rate_limit("api\0", config(4, WINDOW_MS)).unwrap().record("a").wait().unwrap();
        match *op {
            Op::Acquire(resource) => {
                let admitted =
                    (model.counted(resource, now_ms).len() as u64) < model.limit(resource);
                assert_eq!(store.acquire(RESOURCES[resource]).wait().unwrap(), admitted);
                if admitted {
                    model.times.entry(resource).or_default().push(now_ms);
                }
            }
            Op::Record(resource, count) => {
                for _ in 0..count {
                    store.record(RESOURCES[resource]).wait().unwrap();
                    model.times.entry(resource).or_default().push(now_ms);
                }
            }
            Op::Reset(resource) => {
                store.reset(RESOURCES[resource]).wait().unwrap();
                model.times.remove(&resource);
            }
            Op::Clear => {
                store.clear().wait().unwrap();
                model.times.clear();
                model.cooldowns.clear();
            }
            Op::Configure(resource, limit) => {
                let own = config(limit, WINDOW_MS);
                store.set_resource_config(RESOURCES[resource], own).wait().unwrap();
                model.limits.insert(resource, limit);
            }
            Op::Cooldown(resource, after_ms) => {
                store.set_cooldown(RESOURCES[resource], now_ms + after_ms).wait().unwrap();
                model.cooldowns.insert(resource, now_ms + after_ms);
            }
            Op::ClearCooldown(resource) => {
                store.clear_cooldown(RESOURCES[resource]).wait().unwrap();
                model.cooldowns.remove(&resource);
            }
            Op::Rollback(resource) => {
                let answer = room.atomically(|tx| {
                    let mut limiter = tx.rate_limit("api", config(4, WINDOW_MS))?;
                    limiter.record(RESOURCES[resource])?;
                    limiter.clear()?;
                    limiter.set_cooldown(RESOURCES[resource], u64::MAX)?;
                    Err::<(), _>(Error::AlreadyExists)
                });
                assert!(matches!(answer.wait(), Err(Error::AlreadyExists)));
            }
            Op::Advance(by_ms) => {
                clock.advance(Duration::from_millis(by_ms));
                now_ms += by_ms;
            }
            Op::Sweep => drop(room.sweep().unwrap()),
            Op::Reopen => {
                drop(store);
                room.close().unwrap();
                drop(room);
                room = open(&path, &clock);
                continue;
            }
        }
        model.check(&store, now_ms);
    }
}

/// What an adaptive limiter must answer, with a limit of 20.
#[derive(Default)]
struct Shared {
    users: Vec<u64>,
    background: Vec<u64>,
    admitted: Vec<u64>,
    shares: Option<(u64, u64, bool)>,
}

const LIMIT: u64 = 20;
const INTERVAL_MS: u64 = 15;

fn adaptive() -> AdaptiveConfig {
    AdaptiveConfig {
        monitoring_window: Duration::from_millis(60),
        high_activity_threshold: 6,
        moderate_activity_threshold: 3,
        recalculation_interval: Duration::from_millis(INTERVAL_MS),
        sustained_inactivity_threshold: Duration::from_millis(150),
        min_user_reserved: 2,
        ..AdaptiveConfig::default()
    }
}

fn within(times: &[u64], now_ms: u64, window_ms: u64) -> u64 {
    times.iter().filter(|ms| **ms > now_ms - window_ms).count() as u64
}

impl Shared {
    /// The share of users and whether the background is paused.
    fn shares(&mut self, now_ms: u64) -> (u64, bool) {
        if let Some((at_ms, reserved, paused)) = self.shares
            && now_ms < at_ms + INTERVAL_MS
        {
            return (reserved, paused);
        }
        let active = within(&self.users, now_ms, 60);
        let recent = within(&self.users, now_ms, 20);
        let before = within(&self.users, now_ms, 40) - recent;
        let factor_percent = match (recent, before) {
            (0, 0) => 100,
            _ if 2 * recent > 3 * before => 120,
            _ if 2 * recent < before => 80,
            _ => 100,
        };
        let (reserved, paused) = match active {
            6.. => (18, factor_percent == 120),
            // 8 x max(1, min(2, 1 + A/6) x factor), in whole numbers.
            3.. => (14.min((8 * (6 + active) * factor_percent / 600).max(8)), false),
            1.. => (6, false),
            0 => match self.users.last() {
                None if self.background.is_empty() => (6, false),
                Some(last_ms) if now_ms - last_ms > 150 => (0, false),
                _ => (2, false),
            },
        };
        self.shares = Some((now_ms, reserved, paused));
        (reserved, paused)
    }

    fn times(&mut self, priority: Priority) -> &mut Vec<u64> {
        if priority == Priority::User { &mut self.users } else { &mut self.background }
    }

    fn may_go(&mut self, priority: Priority, now_ms: u64) -> bool {
        let (reserved, paused) = self.shares(now_ms);
        let is_user = priority == Priority::User;
        let share = if is_user { reserved } else { LIMIT - reserved };
        let own = within(self.times(priority), now_ms, WINDOW_MS);
        own < share && within(&self.admitted, now_ms, WINDOW_MS) < LIMIT && (is_user || !paused)
    }

    fn check(&mut self, store: &AdaptiveRateLimit, now_ms: u64) {
        let status = store.status("r").wait().unwrap();
        let (reserved, paused) = self.shares(now_ms);
        assert_eq!((status.user_reserved, status.background_paused), (reserved, paused));
        assert_eq!(status.background_max, LIMIT - reserved);
        let left =
            |times: &[u64], share: u64| share.saturating_sub(within(times, now_ms, WINDOW_MS));
        assert_eq!(
            status.remaining,
            left(&self.users, reserved) + left(&self.background, LIMIT - reserved)
        );
        for priority in [Priority::User, Priority::Background] {
            let may_go = self.may_go(priority, now_ms);
            assert_eq!(store.can_proceed("r", priority).wait().unwrap(), may_go);
            assert_eq!(store.wait_time("r", priority).wait().unwrap().is_zero(), may_go);
        }
    }
}

fn run_adaptive(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.cloak");
    let clock = Arc::new(ManualClock::new(START_MS));
    let mut now_ms = START_MS;
    let mut room = open(&path, &clock);
    let mut model = Shared::default();
    for op in ops {
        let store = room.adaptive_rate_limit("api", config(LIMIT, WINDOW_MS), adaptive()).unwrap();
        let of =
            |resource: usize| if resource == 0 { Priority::Background } else { Priority::User };
        match *op {
            Op::Acquire(resource) => {
                let priority = of(resource);
                let admitted = model.may_go(priority, now_ms);
                assert_eq!(store.acquire("r", priority).wait().unwrap(), admitted);
                if admitted {
                    model.times(priority).push(now_ms);
                    model.admitted.push(now_ms);
                }
            }
            Op::Record(resource, count) => {
                for _ in 0..count {
                    model.shares(now_ms);
                    store.record("r", of(resource)).wait().unwrap();
                    model.times(of(resource)).push(now_ms);
                }
            }
            Op::Reset(_) => {
                store.reset("r").wait().unwrap();
                model = Shared::default();
            }
            Op::Clear => {
                store.clear().wait().unwrap();
                model = Shared::default();
            }
            Op::Advance(by_ms) => {
                clock.advance(Duration::from_millis(by_ms));
                now_ms += by_ms;
            }
            Op::Sweep => drop(room.sweep().unwrap()),
            Op::Reopen => {
                drop(store);
                room.close().unwrap();
                drop(room);
                room = open(&path, &clock);
                continue;
            }
            Op::Configure(..) | Op::Cooldown(..) | Op::ClearCooldown(_) | Op::Rollback(_) => {
                continue;
            }
        }
        // Asking computes shares; not always, so that other calls come first.
        if !now_ms.is_multiple_of(3) {
            model.check(&store, now_ms);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(16, 48), max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_limits_answer_as_a_list_of_times(ops in prop::collection::vec(op(), 1..80)) {
        run_plain(&ops);
    }

    #[test]
    fn adaptive_limits_answer_as_lists_of_times(ops in prop::collection::vec(op(), 1..120)) {
        run_adaptive(&ops);
    }
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
    let bad = AdaptiveConfig { moderate_activity_threshold: 6, ..adaptive() };
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
