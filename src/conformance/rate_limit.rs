//! What every [`RateLimitStore`] must do.

use super::{RACERS, Rule, START, race, run};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::limits::MAX_KEY_LEN;
use crate::stores::rate_limit::{RateLimitConfig, RateLimitStore};
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = START * 1_000;
const LIMIT: u64 = 5;
const WINDOW: Duration = Duration::from_secs(60);
const ONE_MS: Duration = Duration::from_millis(1);

type RateLimitDriver = dyn RateLimitStore;

/// Runs the whole suite on limiters that `factory` makes: fresh, empty, with the configuration that
/// it is given, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn rate_limit<S: RateLimitStore + 'static>(
    factory: impl Fn(RateLimitConfig) -> (S, Arc<ManualClock>),
) {
    run("rate limit", RULES, |check: &dyn Fn(&RateLimitDriver, &ManualClock)| {
        let (store, clock) = factory(config(LIMIT, WINDOW));
        check(&store, &clock);
    });
}

const RULES: &[Rule<RateLimitDriver>] = &[
    ("acquire admits the limit and no more", admits_the_limit),
    ("a request counts while its time is after now - window", slides),
    ("every request leaves by itself", leaves_by_itself),
    ("record counts whether or not there is room", record_counts),
    ("can_proceed says what acquire would, and records nothing", can_proceed_asks),
    ("status tells what remains, never below 0, and when a request of now leaves", status),
    ("a limit of 0 admits no one, and its wait is the window", limit_zero),
    ("wait_time is 0 while there is room, else until the oldest counted request leaves", wait_time),
    (
        "who waits alone for wait_time is admitted, also when more count than the limit",
        wait_is_enough,
    ),
    ("reset forgets one resource, and only that", reset),
    ("a resource has the store's configuration until it has one of its own", own_config),
    ("a new configuration keeps the requests in the window", config_keeps_history),
    ("a longer window does not count again what had left the shorter one", no_resurrection),
    ("a window of zero is InvalidConfig, and changes nothing", window_zero),
    ("the greatest window and limit do not overflow", greatest),
    ("a cooldown is there until its time, and not at that moment", cooldown),
    (
        "the last cooldown that is set holds, also an earlier one and one that is over",
        last_cooldown,
    ),
    ("a cooldown does not change what acquire answers", cooldown_is_a_note),
    ("clear forgets every request and cooldown, and keeps configurations", clear),
    ("any string up to 64 KiB is a resource and an origin, and no two are the same", any_string),
    ("a resource or origin over 64 KiB is TooLarge", too_large),
    ("a clock that goes back admits no more than the limit", clock_goes_back),
    ("a call sees every call before it, awaited or not", in_order),
    ("of any number of concurrent acquires exactly the limit is admitted", race_acquire),
    ("concurrent acquires of many resources are counted apart", race_resources),
];

fn config(limit: u64, window: Duration) -> RateLimitConfig {
    RateLimitConfig { limit, window }
}

fn acquire(store: &RateLimitDriver, resource: &str) -> bool {
    store.acquire(resource).wait().unwrap()
}

fn remaining(store: &RateLimitDriver, resource: &str) -> u64 {
    store.status(resource).wait().unwrap().remaining
}

fn wait(store: &RateLimitDriver, resource: &str) -> Duration {
    store.wait_time(resource).wait().unwrap()
}

fn fill(store: &RateLimitDriver, resource: &str) {
    for _ in 0..LIMIT {
        assert!(acquire(store, resource));
    }
    assert!(!acquire(store, resource));
}

fn admits_the_limit(store: &RateLimitDriver, clock: &ManualClock) {
    fill(store, "r");
    fill(store, "other");
    clock.advance(WINDOW - ONE_MS);
    assert!(!acquire(store, "r"));
}

fn slides(store: &RateLimitDriver, clock: &ManualClock) {
    fill(store, "r");
    clock.advance(WINDOW - ONE_MS);
    assert_eq!(remaining(store, "r"), 0);
    clock.advance(ONE_MS);
    assert_eq!(remaining(store, "r"), LIMIT);
    fill(store, "r");
}

fn leaves_by_itself(store: &RateLimitDriver, clock: &ManualClock) {
    for _ in 0..LIMIT {
        assert!(acquire(store, "r"));
        clock.advance(Duration::from_secs(10));
    }
    // They were made at 0, 10, 20, 30 and 40 seconds; it is 50.
    for left in 0..LIMIT {
        assert_eq!(remaining(store, "r"), left);
        clock.advance(Duration::from_secs(10));
    }
    assert_eq!(remaining(store, "r"), LIMIT);
}

fn record_counts(store: &RateLimitDriver, clock: &ManualClock) {
    for _ in 0..2 * LIMIT {
        store.record("r").wait().unwrap();
    }
    assert_eq!(remaining(store, "r"), 0);
    assert!(!acquire(store, "r"));
    clock.advance(WINDOW);
    assert_eq!(remaining(store, "r"), LIMIT);
}

fn can_proceed_asks(store: &RateLimitDriver, _: &ManualClock) {
    for _ in 0..3 * LIMIT {
        assert!(store.can_proceed("r").wait().unwrap());
    }
    fill(store, "r");
    assert!(!store.can_proceed("r").wait().unwrap());
}

fn status(store: &RateLimitDriver, clock: &ManualClock) {
    assert!(acquire(store, "r"));
    clock.advance(Duration::from_secs(7));
    let status = store.status("r").wait().unwrap();
    assert_eq!((status.remaining, status.limit), (LIMIT - 1, LIMIT));
    assert_eq!(status.reset_time, START_MS + 67_000);
}

fn limit_zero(store: &RateLimitDriver, _: &ManualClock) {
    store.set_resource_config("r", config(0, WINDOW)).wait().unwrap();
    assert!(!acquire(store, "r") && !store.can_proceed("r").wait().unwrap());
    store.record("r").wait().unwrap();
    assert_eq!((remaining(store, "r"), wait(store, "r")), (0, WINDOW));
}

fn wait_time(store: &RateLimitDriver, clock: &ManualClock) {
    assert_eq!(wait(store, "r"), Duration::ZERO);
    assert!(acquire(store, "r"));
    clock.advance(Duration::from_secs(20));
    for _ in 1..LIMIT {
        assert_eq!(wait(store, "r"), Duration::ZERO);
        assert!(acquire(store, "r"));
    }
    assert_eq!(wait(store, "r"), Duration::from_secs(40));
    clock.advance(Duration::from_secs(40));
    assert_eq!(wait(store, "r"), Duration::ZERO);
    assert!(acquire(store, "r"));
    assert_eq!(wait(store, "r"), Duration::from_secs(20));
}

/// Waits alone, and is admitted then and not a millisecond earlier.
fn wait_and_go(store: &RateLimitDriver, clock: &ManualClock, expected: Duration) {
    assert_eq!(wait(store, "r"), expected);
    clock.advance(expected - ONE_MS);
    assert!(!acquire(store, "r"), "admitted too early");
    assert_eq!(wait(store, "r"), ONE_MS);
    clock.advance(ONE_MS);
    assert_eq!(wait(store, "r"), Duration::ZERO);
    assert!(acquire(store, "r"), "refused after the wait");
}

fn wait_is_enough(store: &RateLimitDriver, clock: &ManualClock) {
    // Two more than the limit, a second apart.
    for _ in 0..LIMIT + 2 {
        store.record("r").wait().unwrap();
        clock.advance(Duration::from_secs(1));
    }
    wait_and_go(store, clock, WINDOW - Duration::from_secs(LIMIT));
    // All at once: they leave together.
    store.reset("r").wait().unwrap();
    for _ in 0..3 * LIMIT {
        store.record("r").wait().unwrap();
    }
    wait_and_go(store, clock, WINDOW);
    // A lower limit than so many count.
    store.reset("r").wait().unwrap();
    for _ in 0..LIMIT {
        assert!(acquire(store, "r"));
        clock.advance(Duration::from_secs(1));
    }
    store.set_resource_config("r", config(1, WINDOW)).wait().unwrap();
    wait_and_go(store, clock, WINDOW - Duration::from_secs(1));
    // A shorter window.
    store.reset("r").wait().unwrap();
    store.set_resource_config("r", config(2, WINDOW)).wait().unwrap();
    for _ in 0..4 {
        store.record("r").wait().unwrap();
        clock.advance(Duration::from_secs(1));
    }
    store.set_resource_config("r", config(2, WINDOW / 6)).wait().unwrap();
    wait_and_go(store, clock, Duration::from_secs(10 - 4 + 2));
}

fn reset(store: &RateLimitDriver, _: &ManualClock) {
    fill(store, "r");
    fill(store, "other");
    store.reset("r").wait().unwrap();
    store.reset("never seen").wait().unwrap();
    assert_eq!(wait(store, "r"), Duration::ZERO);
    fill(store, "r");
    assert_eq!(remaining(store, "other"), 0);
}

fn own_config(store: &RateLimitDriver, _: &ManualClock) {
    let own = config(2, Duration::new(3, 4));
    assert_eq!(store.resource_config("r").wait().unwrap(), config(LIMIT, WINDOW));
    store.set_resource_config("r", own).wait().unwrap();
    assert_eq!(store.resource_config("r").wait().unwrap(), own);
    assert_eq!(store.resource_config("other").wait().unwrap(), config(LIMIT, WINDOW));
    assert!(acquire(store, "r") && acquire(store, "r") && !acquire(store, "r"));
}

fn config_keeps_history(store: &RateLimitDriver, clock: &ManualClock) {
    fill(store, "r");
    store.set_resource_config("r", config(LIMIT + 1, 2 * WINDOW)).wait().unwrap();
    clock.advance(WINDOW);
    assert!(acquire(store, "r") && !acquire(store, "r"));
    store.set_resource_config("r", config(LIMIT + 1, WINDOW)).wait().unwrap();
    assert_eq!(remaining(store, "r"), LIMIT);
}

fn no_resurrection(store: &RateLimitDriver, clock: &ManualClock) {
    fill(store, "r");
    clock.advance(WINDOW);
    store.set_resource_config("r", config(LIMIT, 10 * WINDOW)).wait().unwrap();
    assert_eq!(remaining(store, "r"), LIMIT);
}

fn window_zero(store: &RateLimitDriver, _: &ManualClock) {
    let answer = store.set_resource_config("r", config(1, Duration::ZERO)).wait();
    assert!(matches!(answer, Err(Error::InvalidConfig(_))));
    assert_eq!(store.resource_config("r").wait().unwrap(), config(LIMIT, WINDOW));
}

fn greatest(store: &RateLimitDriver, clock: &ManualClock) {
    let greatest = config(u64::MAX, Duration::MAX);
    store.set_resource_config("r", greatest).wait().unwrap();
    assert_eq!(store.resource_config("r").wait().unwrap(), greatest);
    assert!(acquire(store, "r"));
    clock.advance(WINDOW);
    let status = store.status("r").wait().unwrap();
    assert_eq!((status.remaining, status.reset_time), (u64::MAX - 1, u64::MAX));
    store.set_resource_config("r", config(1, Duration::MAX)).wait().unwrap();
    assert!(!acquire(store, "r"));
    assert!(wait(store, "r") > WINDOW);
}

fn cooldown_of(store: &RateLimitDriver, origin: &str) -> Option<u64> {
    store.cooldown(origin).wait().unwrap()
}

fn cooldown(store: &RateLimitDriver, clock: &ManualClock) {
    assert_eq!(cooldown_of(store, "o"), None);
    store.set_cooldown("o", START_MS + 10).wait().unwrap();
    clock.advance(9 * ONE_MS);
    assert_eq!(cooldown_of(store, "o"), Some(START_MS + 10));
    assert_eq!(cooldown_of(store, "other"), None);
    clock.advance(ONE_MS);
    assert_eq!(cooldown_of(store, "o"), None);
    store.set_cooldown("o", u64::MAX).wait().unwrap();
    assert_eq!(cooldown_of(store, "o"), Some(u64::MAX));
    store.clear_cooldown("o").wait().unwrap();
    store.clear_cooldown("never set").wait().unwrap();
    assert_eq!(cooldown_of(store, "o"), None);
}

fn last_cooldown(store: &RateLimitDriver, _: &ManualClock) {
    for until in [START_MS + 20, START_MS + 10, START_MS + 30] {
        store.set_cooldown("o", until).wait().unwrap();
        assert_eq!(cooldown_of(store, "o"), Some(until));
    }
    store.set_cooldown("o", START_MS).wait().unwrap();
    assert_eq!(cooldown_of(store, "o"), None);
}

fn cooldown_is_a_note(store: &RateLimitDriver, _: &ManualClock) {
    store.set_cooldown("r", u64::MAX).wait().unwrap();
    assert_eq!(wait(store, "r"), Duration::ZERO);
    fill(store, "r");
}

fn clear(store: &RateLimitDriver, clock: &ManualClock) {
    let own = config(LIMIT, 2 * WINDOW);
    store.set_resource_config("a", own).wait().unwrap();
    for _ in 0..3 {
        fill(store, "a");
        fill(store, "b");
        store.set_cooldown("o", u64::MAX).wait().unwrap();
        store.clear().wait().unwrap();
        assert_eq!(cooldown_of(store, "o"), None);
        assert_eq!((remaining(store, "a"), remaining(store, "b")), (LIMIT, LIMIT));
        assert_eq!(store.resource_config("a").wait().unwrap(), own);
        clock.advance(ONE_MS);
    }
    fill(store, "a");
}

fn any_string(store: &RateLimitDriver, _: &ManualClock) {
    let long = "\0".repeat(MAX_KEY_LEN);
    let strings = ["", "a", "a\0", "a\0\0", "\0a", "%", "_", "a%", "é", "api\0\0r", &long];
    for (index, string) in strings.iter().enumerate() {
        for _ in 0..=(index as u64) % LIMIT {
            assert!(acquire(store, string));
        }
        store.set_cooldown(string, START_MS + 1 + index as u64).wait().unwrap();
    }
    for (index, string) in strings.iter().enumerate() {
        assert_eq!(remaining(store, string), LIMIT - 1 - (index as u64) % LIMIT);
        assert_eq!(cooldown_of(store, string), Some(START_MS + 1 + index as u64));
    }
}

fn too_large(store: &RateLimitDriver, _: &ManualClock) {
    fn refused<T>(answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::TooLarge { .. })));
    }
    let long = "r".repeat(MAX_KEY_LEN + 1);
    refused(store.acquire(&long).wait());
    refused(store.can_proceed(&long).wait());
    refused(store.record(&long).wait());
    refused(store.status(&long).wait());
    refused(store.reset(&long).wait());
    refused(store.wait_time(&long).wait());
    refused(store.set_resource_config(&long, RateLimitConfig::default()).wait());
    refused(store.resource_config(&long).wait());
    refused(store.set_cooldown(&long, u64::MAX).wait());
    refused(store.cooldown(&long).wait());
    refused(store.clear_cooldown(&long).wait());
}

fn clock_goes_back(store: &RateLimitDriver, clock: &ManualClock) {
    assert!(acquire(store, "r"));
    clock.set(START_MS - 30_000);
    for _ in 1..LIMIT {
        assert!(acquire(store, "r"));
    }
    assert!(!acquire(store, "r"));
    clock.set(0);
    assert!(!acquire(store, "r"));
    clock.set(START_MS + 60_000);
    fill(store, "r");
}

fn in_order(store: &RateLimitDriver, _: &ManualClock) {
    let answers: Vec<_> = (0..2 * LIMIT).map(|_| store.acquire("r")).collect();
    assert_eq!(remaining(store, "r"), 0);
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.wait().unwrap(), (index as u64) < LIMIT);
    }
}

fn race_acquire(store: &RateLimitDriver, clock: &ManualClock) {
    let limit = RACERS as u64 * 3;
    store.set_resource_config("r", config(limit, WINDOW)).wait().unwrap();
    for _ in 0..2 {
        let admitted = race(|_| (0..10).filter(|_| acquire(store, "r")).count() as u64);
        assert_eq!(admitted.iter().sum::<u64>(), limit);
        clock.advance(WINDOW);
    }
}

fn race_resources(store: &RateLimitDriver, _: &ManualClock) {
    let admitted = race(|racer| {
        let resource = if racer % 2 == 0 { "a" } else { "b" };
        (0..3).filter(|_| acquire(store, resource)).count() as u64
    });
    assert_eq!(admitted.iter().sum::<u64>(), 2 * LIMIT);
}
