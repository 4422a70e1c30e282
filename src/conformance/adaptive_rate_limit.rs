//! What every [`AdaptiveRateLimitStore`] must do.

use super::{RACERS, Rule, START, race, run};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::limits::MAX_KEY_LEN;
use crate::stores::adaptive_rate_limit::Priority::{Background, User};
use crate::stores::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use crate::stores::rate_limit::RateLimitConfig;
use std::sync::Arc;
use std::time::Duration;

const START_MS: u64 = START * 1_000;
const LIMIT: u64 = 100;
const WINDOW: Duration = Duration::from_secs(60 * 60);
const INTERVAL: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const ONE_MS: Duration = Duration::from_millis(1);

type AdaptiveDriver = dyn AdaptiveRateLimitStore;

/// Runs the whole suite on limiters that `factory` makes: fresh, empty, with the configurations
/// that it is given, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn adaptive_rate_limit<S: AdaptiveRateLimitStore + 'static>(
    factory: impl Fn(RateLimitConfig, AdaptiveConfig) -> (S, Arc<ManualClock>),
) {
    run("adaptive rate limit", RULES, |check: &dyn Fn(&AdaptiveDriver, &ManualClock)| {
        let (store, clock) = factory(config(LIMIT), AdaptiveConfig::default());
        check(&store, &clock);
    });
}

const RULES: &[Rule<AdaptiveDriver>] = &[
    ("nothing recorded: 0.3 of the limit is reserved", nothing_recorded),
    ("never a user request: the least is reserved", never_a_user),
    ("few user requests: 0.3 of the limit is reserved", low),
    ("moderate activity scales the share, by the trend too", moderate),
    ("high activity reserves 0.9, and pauses the background when it increases", high),
    ("no recent user request: the least is reserved", lull),
    ("sustained inactivity reserves nothing, and is remembered", sustained),
    ("after sustained inactivity a user may go while fewer than the limit count", users_can_return),
    ("shares are computed at most once per interval", once_per_interval),
    ("asking computes the shares, too", asking_computes),
    ("record computes no shares", record_computes_nothing),
    ("acquire computes the shares, also when it refuses", acquire_computes),
    ("recent_user_activity and remaining are those of now", counts_are_live),
    ("a new limit computes the shares at once", new_limit),
    ("a priority is admitted up to its share", up_to_the_share),
    ("a paused background waits until the shares are computed again", paused),
    ("remaining is what is left of both shares, never below 0", remaining),
    ("wait_time is 0 or until so many of that priority have left that one may go", wait_time),
    ("who waits alone for wait_time is admitted", wait_is_enough),
    ("a limit of 0 admits no one, and its wait is the window", limit_zero),
    (
        "both priorities together are never admitted over the limit, when shares move too",
        never_over,
    ),
    ("reset forgets that there ever was a request", reset),
    ("clear forgets every request and cooldown", clear),
    ("cooldowns end by themselves", cooldown),
    ("a resource or origin over 64 KiB is TooLarge", too_large),
    ("of any number of concurrent acquires exactly the shares are admitted", race_acquire),
];

fn config(limit: u64) -> RateLimitConfig {
    RateLimitConfig { limit, window: WINDOW }
}

fn record(store: &AdaptiveDriver, priority: Priority, count: u64) {
    for _ in 0..count {
        store.record("r", priority).wait().unwrap();
    }
}

fn acquire(store: &AdaptiveDriver, priority: Priority) -> bool {
    store.acquire("r", priority).wait().unwrap()
}

fn wait(store: &AdaptiveDriver, priority: Priority) -> Duration {
    store.wait_time("r", priority).wait().unwrap()
}

/// How many of `priority` are admitted until one is not.
fn drain(store: &AdaptiveDriver, priority: Priority) -> u64 {
    let mut count = 0;
    while acquire(store, priority) {
        count += 1;
    }
    assert!(!store.can_proceed("r", priority).wait().unwrap());
    count
}

/// The share of users, after it was checked against that of the background.
fn reserved(store: &AdaptiveDriver) -> u64 {
    let status = store.status("r").wait().unwrap();
    assert_eq!(status.user_reserved + status.background_max, status.limit);
    assert!(!status.reason.is_empty());
    status.user_reserved
}

fn is_paused(store: &AdaptiveDriver) -> bool {
    store.status("r").wait().unwrap().background_paused
}

fn nothing_recorded(store: &AdaptiveDriver, _: &ManualClock) {
    let status = store.status("r").wait().unwrap();
    assert_eq!((status.user_reserved, status.background_max), (30, 70));
    assert_eq!((status.remaining, status.limit, status.recent_user_activity), (100, 100, 0));
    assert_eq!(status.reset_time, START_MS + 3_600_000);
    assert!(!status.background_paused);
}

fn never_a_user(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, Background, 1);
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 5);
    clock.advance(100 * WINDOW);
    assert_eq!(reserved(store), 5, "that there was a request was forgotten");
}

fn low(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 2);
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 30);
    assert_eq!(store.status("r").wait().unwrap().recent_user_activity, 2);
}

fn moderate(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 3);
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 62, "increasing");
    clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(reserved(store), 41, "decreasing");
    clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(reserved(store), 52, "none");
    assert!(!is_paused(store));
}

fn high(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 10);
    clock.advance(INTERVAL);
    assert_eq!((reserved(store), is_paused(store)), (90, true));
    clock.advance(5 * MINUTE);
    assert_eq!((reserved(store), is_paused(store)), (90, false));
}

fn lull(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 3);
    clock.advance(15 * MINUTE);
    assert_eq!(reserved(store), 5);
    clock.advance(15 * MINUTE);
    assert_eq!(reserved(store), 5, "not longer ago than the threshold");
}

fn sustained(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 3);
    clock.advance(30 * MINUTE + ONE_MS);
    assert_eq!(reserved(store), 0);
    clock.advance(1_000 * WINDOW);
    assert_eq!(reserved(store), 0, "that there was a user was forgotten");
    assert_eq!(drain(store, Background), LIMIT);
}

fn users_can_return(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 1);
    clock.advance(WINDOW + ONE_MS);
    assert_eq!(reserved(store), 0);
    assert_eq!(wait(store, User), Duration::ZERO);
    record(store, Background, LIMIT - 2);
    assert!(acquire(store, User));
    assert_eq!(store.status("r").wait().unwrap().remaining, 2, "only the background has a share");
    clock.advance(ONE_MS);
    assert!(acquire(store, User));
    assert!(!acquire(store, User), "as many as the limit count");
    assert!(!store.can_proceed("r", User).wait().unwrap());
    assert_eq!(wait(store, User), WINDOW - ONE_MS);
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 30, "the users who returned were not seen");
}

fn once_per_interval(store: &AdaptiveDriver, clock: &ManualClock) {
    assert_eq!(reserved(store), 30);
    record(store, User, 10);
    assert_eq!((reserved(store), is_paused(store)), (30, false));
    clock.advance(INTERVAL - ONE_MS);
    assert_eq!(reserved(store), 30);
    clock.advance(ONE_MS);
    assert_eq!(reserved(store), 90);
}

fn asking_computes(store: &AdaptiveDriver, clock: &ManualClock) {
    for ask in [
        |store: &AdaptiveDriver| drop(store.status("r").wait().unwrap()),
        |store: &AdaptiveDriver| assert!(store.can_proceed("r", User).wait().unwrap()),
        |store: &AdaptiveDriver| assert_eq!(wait(store, Background), Duration::ZERO),
    ] {
        store.reset("r").wait().unwrap();
        ask(store);
        clock.advance(20 * MINUTE / 60);
        record(store, User, 10);
        clock.advance(Duration::from_secs(5));
        assert_eq!(reserved(store), 30);
        clock.advance(Duration::from_secs(5));
        assert_eq!(reserved(store), 90);
    }
}

fn record_computes_nothing(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 10);
    assert_eq!((reserved(store), is_paused(store)), (90, true));
    clock.advance(INTERVAL);
    // The shares are old now, and a record leaves them so.
    store.reset("r").wait().unwrap();
    record(store, User, 2);
    record(store, Background, 1);
    record(store, User, 8);
    clock.advance(Duration::from_secs(10));
    assert_eq!((reserved(store), is_paused(store)), (90, true));
}

fn acquire_computes(store: &AdaptiveDriver, clock: &ManualClock) {
    assert!(acquire(store, Background));
    record(store, User, 10);
    clock.advance(INTERVAL - ONE_MS);
    assert_eq!(reserved(store), 30, "computed by the one that was admitted");
    store.reset("r").wait().unwrap();
    record(store, User, 10);
    assert!(!acquire(store, Background));
    clock.advance(Duration::from_secs(20));
    assert_eq!(wait(store, Background), Duration::from_secs(10));
}

fn counts_are_live(store: &AdaptiveDriver, clock: &ManualClock) {
    let of_now = || {
        let status = store.status("r").wait().unwrap();
        (status.recent_user_activity, status.remaining)
    };
    assert_eq!(of_now(), (0, 100));
    record(store, User, 4);
    assert_eq!(of_now(), (4, 96));
    record(store, Background, 10);
    clock.advance(ONE_MS);
    assert!(acquire(store, User));
    assert_eq!(of_now(), (5, 85));
    assert_eq!(reserved(store), 30, "the shares are those from before");
    clock.advance(15 * MINUTE - 2 * ONE_MS);
    assert_eq!(of_now().0, 5);
    clock.advance(ONE_MS);
    assert_eq!(of_now().0, 1, "four have left the monitoring window");
    clock.advance(ONE_MS);
    assert_eq!(of_now().0, 0, "the shares are of a moment ago, the activity is of now");
}

fn new_limit(store: &AdaptiveDriver, _: &ManualClock) {
    assert_eq!(reserved(store), 30);
    store.set_resource_config("r", config(50)).wait().unwrap();
    assert_eq!(reserved(store), 15);
    assert_eq!(store.resource_config("r").wait().unwrap(), config(50));
    assert_eq!(store.resource_config("other").wait().unwrap(), config(LIMIT));
    let zero = RateLimitConfig { limit: 1, window: Duration::ZERO };
    assert!(matches!(store.set_resource_config("r", zero).wait(), Err(Error::InvalidConfig(_))));
    assert_eq!(store.resource_config("r").wait().unwrap(), config(50));
}

fn up_to_the_share(store: &AdaptiveDriver, _: &ManualClock) {
    assert_eq!((drain(store, User), drain(store, Background)), (30, 70));
    assert_eq!(Priority::default(), Background);
}

fn paused(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 10);
    clock.advance(INTERVAL);
    assert!(!acquire(store, Background) && acquire(store, User));
    assert_eq!(wait(store, Background), INTERVAL);
    clock.advance(Duration::from_secs(10));
    assert_eq!(wait(store, Background), Duration::from_secs(20));
    clock.advance(5 * MINUTE);
    assert!(acquire(store, Background));
}

fn remaining(store: &AdaptiveDriver, _: &ManualClock) {
    let left = || store.status("r").wait().unwrap().remaining;
    assert_eq!(left(), 100);
    record(store, Background, 20);
    record(store, User, 3);
    assert_eq!(left(), 77);
    record(store, Background, 200);
    assert_eq!(left(), 27);
    record(store, User, 200);
    assert_eq!(left(), 0);
}

fn wait_time(store: &AdaptiveDriver, clock: &ManualClock) {
    assert_eq!(wait(store, User), Duration::ZERO);
    assert_eq!(drain(store, Background), 70);
    clock.advance(ONE_MS);
    assert_eq!(drain(store, User), 30);
    clock.advance(ONE_MS);
    assert_eq!(wait(store, Background), WINDOW - 2 * ONE_MS);
    assert_eq!(wait(store, User), WINDOW - ONE_MS);
}

fn wait_is_enough(store: &AdaptiveDriver, clock: &ManualClock) {
    for _ in 0..100 {
        record(store, Background, 1);
        clock.advance(Duration::from_secs(1));
    }
    // 100 count where 95 may: six must leave, the last of them at 5 s and an hour.
    let until = WINDOW - Duration::from_secs(95);
    assert_eq!(wait(store, Background), until);
    clock.advance(until - ONE_MS);
    assert!(!acquire(store, Background));
    clock.advance(ONE_MS);
    assert_eq!(wait(store, Background), Duration::ZERO);
    assert!(acquire(store, Background) && !acquire(store, Background));
    // A lower limit.
    store.set_resource_config("r", config(10)).wait().unwrap();
    let until = wait(store, Background);
    clock.advance(until - ONE_MS);
    assert!(!acquire(store, Background));
    clock.advance(ONE_MS);
    assert!(acquire(store, Background) && !acquire(store, Background));
}

fn limit_zero(store: &AdaptiveDriver, _: &ManualClock) {
    store.set_resource_config("r", config(0)).wait().unwrap();
    for priority in [User, Background] {
        assert!(!acquire(store, priority));
        assert_eq!(wait(store, priority), WINDOW);
    }
    assert_eq!(store.status("r").wait().unwrap().remaining, 0);
}

fn never_over(store: &AdaptiveDriver, clock: &ManualClock) {
    assert_eq!(drain(store, Background), 70);
    let mut users = drain(store, User);
    assert_eq!(users, 30);
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 90);
    users += drain(store, User);
    assert_eq!(users, 30, "the background's requests were forgotten");
    assert!(wait(store, User) > Duration::ZERO);
}

fn reset(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 10);
    store.set_resource_config("r", config(LIMIT)).wait().unwrap();
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 90);
    store.reset("r").wait().unwrap();
    store.reset("never seen").wait().unwrap();
    assert_eq!(reserved(store), 30);
    assert_eq!((drain(store, User), drain(store, Background)), (30, 70));
}

fn clear(store: &AdaptiveDriver, clock: &ManualClock) {
    record(store, User, 10);
    store.set_cooldown("o", u64::MAX).wait().unwrap();
    clock.advance(INTERVAL);
    assert_eq!(reserved(store), 90);
    store.clear().wait().unwrap();
    assert_eq!(reserved(store), 30);
    assert_eq!(store.cooldown("o").wait().unwrap(), None);
    assert_eq!(drain(store, User), 30);
}

fn cooldown(store: &AdaptiveDriver, clock: &ManualClock) {
    store.set_cooldown("o", START_MS + 5).wait().unwrap();
    clock.advance(4 * ONE_MS);
    assert_eq!(store.cooldown("o").wait().unwrap(), Some(START_MS + 5));
    clock.advance(ONE_MS);
    assert_eq!(store.cooldown("o").wait().unwrap(), None);
    store.set_cooldown("o", u64::MAX).wait().unwrap();
    store.clear_cooldown("o").wait().unwrap();
    assert_eq!(store.cooldown("o").wait().unwrap(), None);
}

fn too_large(store: &AdaptiveDriver, _: &ManualClock) {
    let long = "r".repeat(MAX_KEY_LEN + 1);
    assert!(matches!(store.acquire(&long, User).wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.status(&long).wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.reset(&long).wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(store.set_cooldown(&long, 1).wait(), Err(Error::TooLarge { .. })));
    let longest = "\0".repeat(MAX_KEY_LEN);
    assert!(store.acquire(&longest, User).wait().unwrap());
    assert!(store.acquire("", User).wait().unwrap());
    assert_eq!(store.status("\0").wait().unwrap().remaining, LIMIT);
}

fn race_acquire(store: &AdaptiveDriver, _: &ManualClock) {
    let admitted = race(|racer| {
        let priority = if racer % 2 == 0 { User } else { Background };
        (priority, (0..10).filter(|_| acquire(store, priority)).count() as u64)
    });
    assert_eq!(admitted.len(), RACERS);
    let of = |priority| {
        admitted.iter().filter(|racer| racer.0 == priority).map(|racer| racer.1).sum::<u64>()
    };
    assert_eq!((of(User), of(Background)), (30, 70));
}
