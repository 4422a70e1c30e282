//! The engine passes the conformance suites whole, in memory and in a file, and so does the
//! reference driver.

use cloakroom::adaptive_rate_limit::AdaptiveRateLimitStore;
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::FormTokenStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::rate_limit::RateLimitStore;
use cloakroom::state::StateStore;
use cloakroom::{Cloakroom, Durability, ManualClock, conformance, drivers};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

/// A folder of rooms, each in a file of its own.
struct Files {
    dir: tempfile::TempDir,
    opened: AtomicUsize,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), opened: AtomicUsize::new(0) }
    }

    fn room(&self) -> (Cloakroom, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(0));
        let path =
            self.dir.path().join(format!("{}.cloak", self.opened.fetch_add(1, Ordering::Relaxed)));
        let builder =
            Cloakroom::builder().log_capacity(LONGEST_KEYS_LOG_CAPACITY).clock(clock.clone());
        (builder.open(path).unwrap(), clock)
    }
}

#[test]
fn form_tokens_in_memory() {
    conformance::form_token(|| {
        let (room, clock) = in_memory();
        (room.form_tokens(), clock)
    });
}

#[test]
fn form_tokens_in_a_file() {
    let files = Files::new();
    conformance::form_token(|| {
        let (room, clock) = files.room();
        (Arc::new(room.form_tokens()) as Arc<dyn FormTokenStore>, clock)
    });
}

#[test]
fn handoff_in_memory() {
    conformance::handoff(|| {
        let (room, clock) = in_memory();
        (room.handoff(), clock)
    });
}

#[test]
fn handoff_in_a_file() {
    let files = Files::new();
    conformance::handoff(|| {
        let (room, clock) = files.room();
        (Arc::new(room.handoff()) as Arc<dyn HandoffStateStore>, clock)
    });
}

#[test]
fn cache_in_memory() {
    conformance::cache(|| {
        let (room, clock) = in_memory();
        (room.cache("http"), clock)
    });
}

#[test]
fn cache_in_a_file_beside_another() {
    let files = Files::new();
    conformance::cache(|| {
        let (room, clock) = files.room();
        // Whatever the suite does in one cache, the neighbours keep their own.
        let value = conformance::CacheSample::Json("other".into());
        for name in ["", "htt", "http\0", "http\0\0"] {
            room.cache(name).set_with_tags("h", &value, 0, &["x", "tag"]).wait().unwrap();
        }
        // Limits that are never reached keep the order of use, which must change no answer.
        (room.cache("http").with_max_entries(1_000_000).with_max_bytes(1 << 40), clock)
    });
}

#[test]
fn cache_of_bytes_in_memory() {
    conformance::cache_bytes(|| {
        let (room, clock) = in_memory();
        (room.cache("http"), clock)
    });
}

#[test]
fn cache_of_bytes_in_a_file_with_limits() {
    let dir = tempfile::tempdir().unwrap();
    let opened = AtomicUsize::new(0);
    conformance::cache_bytes(|| {
        let clock = Arc::new(ManualClock::new(0));
        let file = format!("{}.cloak", opened.fetch_add(1, Ordering::Relaxed));
        // With the default log, which holds a value of the default maximum.
        let room = Cloakroom::builder().clock(clock.clone()).open(dir.path().join(file)).unwrap();
        (room.cache("http").with_max_entries(1_000_000).with_max_bytes(1 << 40), clock)
    });
}

#[test]
fn dedupe_in_memory() {
    conformance::dedupe(|| {
        let (room, clock) = in_memory();
        (room.dedupe("http"), clock)
    });
}

#[test]
fn dedupe_in_a_file_at_each_durability() {
    for durability in
        [Durability::Sync, Durability::Interval(Duration::from_millis(5)), Durability::Os]
    {
        let files = Files::new();
        conformance::dedupe(|| {
            let (room, clock) = files.room();
            (
                Arc::new(room.dedupe("http").with_durability(durability))
                    as Arc<dyn DedupeStore<Value>>,
                clock,
            )
        });
    }
}

#[test]
fn rate_limits_in_memory() {
    conformance::rate_limit(|config| {
        let (room, clock) = in_memory();
        (room.rate_limit("api", config).unwrap(), clock)
    });
}

#[test]
fn rate_limits_in_a_file() {
    let files = Files::new();
    conformance::rate_limit(|config| {
        let (room, clock) = files.room();
        (Arc::new(room.rate_limit("api", config).unwrap()) as Arc<dyn RateLimitStore>, clock)
    });
}

#[test]
fn adaptive_rate_limits_in_memory() {
    conformance::adaptive_rate_limit(|config, adaptive| {
        let (room, clock) = in_memory();
        (room.adaptive_rate_limit("api", config, adaptive).unwrap(), clock)
    });
}

#[test]
fn adaptive_rate_limits_in_a_file() {
    let files = Files::new();
    conformance::adaptive_rate_limit(|config, adaptive| {
        let (room, clock) = files.room();
        let store = room.adaptive_rate_limit("api", config, adaptive).unwrap();
        (Arc::new(store) as Arc<dyn AdaptiveRateLimitStore>, clock)
    });
}

#[test]
fn state_in_memory() {
    conformance::state(|| {
        let (room, clock) = in_memory();
        (room.state(), clock)
    });
}

#[test]
fn state_in_a_file() {
    let files = Files::new();
    conformance::state(|| {
        let (room, clock) = files.room();
        (Arc::new(room.state()) as Arc<dyn StateStore>, clock)
    });
}

#[test]
fn fences_in_memory_in_a_file_and_of_the_reference_driver() {
    conformance::state_fence(
        || in_memory().0.state(),
        |store, expectation, effect| store.fence_if(expectation, effect),
    );
    let files = Files::new();
    conformance::state_fence(
        move || files.room().0.state(),
        |store, expectation, effect| store.fence_if(expectation, effect),
    );
    conformance::state_fence(drivers::InMemoryState::new, |store, expectation, effect| {
        store.fence_if(expectation, effect)
    });
}

#[test]
fn late_windows_in_memory_in_a_file_and_of_the_reference_driver() {
    conformance::state_late_window(|window| {
        let (room, clock) = in_memory();
        (room.state().with_late_window(window), clock)
    });
    let files = Files::new();
    conformance::state_late_window(|window| {
        let (room, clock) = files.room();
        (room.state().with_late_window(window), clock)
    });
    conformance::state_late_window(|window| {
        let clock = Arc::new(ManualClock::new(0));
        (drivers::InMemoryState::with_clock(clock.clone()).with_late_window(window), clock)
    });
}

#[test]
fn state_of_the_reference_driver() {
    conformance::state(|| {
        let clock = Arc::new(ManualClock::new(0));
        (drivers::InMemoryState::with_clock(clock.clone()), clock)
    });
}
